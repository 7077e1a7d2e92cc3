"""A row of a table as `mtvcraft animate` would read it."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from typer.models import OptionInfo

from mtvcraft_cli.cli.animate import animation_job
from mtvcraft_cli.cli.console import warn
from mtvcraft_cli.cli.front import parameters_of, reader, running
from mtvcraft_cli.cli.options import stem_of
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.batch.table import Row
    from mtvcraft_cli.batch.work import Task

FORBIDDEN = {
    "force": "give `--force` for the whole batch",
    "trust_file": "a table may come from anybody, and such a file runs code: give `--trust-file` by hand",
}
"""Options of `animate` that no table may hold, and what to do instead."""
WORDS = {"yes": True, "true": True, "1": True, "on": True, "no": False, "false": False, "0": False, "off": False}


@dataclass(frozen=True)
class Column:
    """An option of `animate` as a column of a table."""

    flag: str
    """As it is typed; empty for what has no flag."""
    switch: bool
    """Whether it is on or off and takes no value."""


def columns() -> dict[str, Column]:
    """What a table may hold, by name."""
    found = {}
    for parameter in parameters_of(animation_job):
        kind, *notes = get_args(parameter.annotation)
        option = next((note for note in notes if isinstance(note, OptionInfo)), None)
        words = [word for word in (option.param_decls or ()) if word.startswith("--")] if option else []
        flag = (words or [f"--{parameter.name.replace('_', '-')}"])[0] if option else ""
        found[parameter.name] = Column(flag, kind is bool)
    return found


def rows_of(tables: Sequence[Path], pair: Literal["zip", "product"] | None) -> tuple[list["Row"], list[str]]:
    """The jobs that a table or two patterns stand for, and what is to be said of them.

    Raises:
        MtvcraftError: exit 2, see `read_table` and `pair_up`; there are too many words.
    """
    from mtvcraft_cli.batch.table import pair_up, read_table

    if len(tables) == 1:
        if pair is not None:
            raise MtvcraftError(
                "`--pair` is for two patterns",
                hint="name references and drivers: mtvcraft batch 'refs/*.png' 'drives/*.mp4' --pair zip",
                exit=Exit.USAGE,
            )
        known = columns()
        return read_table(tables[0], [name for name in known if name not in FORBIDDEN], FORBIDDEN), []
    if len(tables) > 2:
        raise MtvcraftError(
            f"{len(tables)} files are named, and a batch takes a table or two patterns",
            hint="put patterns in quotes, or the shell fills them in: 'refs/*.png' 'drives/*.mp4'",
            exit=Exit.USAGE,
        )
    if pair is None:
        raise MtvcraftError(
            "how are references and drivers to be paired?",
            hint="`--pair zip` takes the first with the first and so on, `--pair product` each with each",
            exit=Exit.USAGE,
        )
    return pair_up(tables[0], tables[1], pair)


def read_rows(rows: Sequence["Row"], out_dir: Path | None, *, force: bool, ray: bool) -> tuple[list["Task"], list[str]]:
    """Every row as `mtvcraft animate` would read it, and why a preset was chosen where none was named.

    Raises:
        MtvcraftError: exit 2; the first that is wrong, after a line for each further one.
    """
    from mtvcraft_cli.batch.work import Task

    known, read = columns(), reader(animation_job, "animate")
    typed = {name: value for name, value in running.by_flag.items() if name in known}
    from_files = {**running.from_files.get("animate", {}), **running.from_files.get("batch", {})}
    tasks, wrong, whys = list[Task](), list[tuple[str, MtvcraftError]](), dict[str, None]()
    for row in rows:
        cells = {**typed, **row.cells, **({"force": True} if force else {})}
        try:
            if out_dir is not None and "output" not in cells:
                name = f"{Path(str(cells['reference'])).stem}.{stem_of(Path(str(cells['drive'])))}.mp4"
                cells["output"] = out_dir / name
            words = words_of(cells, known)
            off = [name for name, value in cells.items() if known[name].switch and not _is_on(name, value)]
            job, why = read(words, from_files, off)
            if ray and why:
                raise MtvcraftError(
                    "with `--ray` a job names its preset: `auto` knows this machine only",
                    hint="give `--preset`; `mtvcraft presets` lists them",
                    exit=Exit.USAGE,
                )
        except MtvcraftError as error:
            wrong.append((row.where, error))
            continue
        whys.setdefault(why)
        command = shlex.join(["mtvcraft", "animate", *words])
        tasks.append(Task(row=row.number, where=row.where, job=replace(job, command=command)))
    refuse(wrong, len(rows))
    return tasks, [why for why in whys if why]


def words_of(cells: Mapping[str, Any], known: Mapping[str, Column]) -> list[str]:
    """A row as the words behind `mtvcraft animate`.

    Raises:
        MtvcraftError: exit 2; a switch is neither on nor off, or a value is no text and no number.
    """
    words = []
    for name, value in cells.items():
        column = known[name]
        if not column.flag:
            continue
        if column.switch:
            words += [column.flag] if _is_on(name, value) else []
            continue
        for each in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(each, (dict, list, bool)):
                raise MtvcraftError(
                    f"`{name}` is `{each}`", hint=f"see `{column.flag}` in `mtvcraft animate --help`", exit=Exit.USAGE
                )
            words.append(f"{column.flag}={str(each).strip()}")
    return [*words, "--", str(cells["reference"]).strip(), str(cells["drive"]).strip()]


def _is_on(name: str, value: object) -> bool:
    """What a cell says of a switch.

    Raises:
        MtvcraftError: exit 2; it is neither on nor off.
    """
    on = value if isinstance(value, bool) else WORDS.get(str(value).strip().lower())
    if on is None:
        raise MtvcraftError(f"`{name}` is `{value}`", hint="write yes or no", exit=Exit.USAGE)
    return on


def refuse(wrong: Sequence[tuple[str, MtvcraftError]], count: int) -> None:
    """Say all that is wrong and end with the first of it; nothing where nothing is.

    Raises:
        MtvcraftError: the first one.
    """
    if not wrong:
        return
    for where, error in wrong[1:]:
        warn(f"{where}: {error.message} ({error.hint})")
    where, first = wrong[0]
    more = f" ({len(wrong)} of {count} rows are wrong)" if len(wrong) > 1 else ""
    raise MtvcraftError(f"{where}: {first.message}{more}", hint=first.hint, exit=first.exit) from first
