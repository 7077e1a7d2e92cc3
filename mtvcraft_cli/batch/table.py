"""What a batch is asked for: the rows of a table, or pairs of what two patterns fit."""

import csv
import difflib
import glob
import io
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product, zip_longest
from pathlib import Path
from typing import Any, Literal

from mtvcraft_cli.errors import Exit, MtvcraftError

Pair = Literal["zip", "product"]
STDIN = Path("-")
DELIMITERS = ",;\t"
"""What may stand between the cells: spreadsheets of some countries write semicolons."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One job, in the user's words."""

    number: int
    """1 for the first, whatever lies before it in the file."""
    where: str
    """For errors: `row 3 (line 4 of jobs.csv)`."""
    cells: Mapping[str, Any]
    """By the name of animate's option, with underscores; what was left empty is not there."""


def read_table(path: Path, columns: Collection[str], forbidden: Mapping[str, str]) -> list[Row]:
    """Read a table of jobs: CSV with a header, or one JSON object a line; which of the two, its content tells.

    Args:
        path: the file, or `-` for standard input.
        columns: the names that a column may have, with underscores.
        forbidden: names that it may not have, and what the user can do instead.

    Raises:
        MtvcraftError: exit 2; no such file, no jobs, a broken line, a column that nobody knows (the nearest is
            suggested); exit 4; it is no text.
    """
    name = "standard input" if path == STDIN else f"`{path}`"
    text = _text_of(path, name)
    found = list(_json_lines(text, name) if text.lstrip().startswith("{") else _csv_lines(text, name))
    if not found:
        raise MtvcraftError(
            f"{name} has no jobs", hint="see docs/batch.md for what a table looks like", exit=Exit.USAGE
        )
    rows = []
    for number, (line, cells) in enumerate(found, start=1):
        where = f"row {number} (line {line} of {name})"
        check_columns(where, cells, columns, forbidden)
        given = {plain_name(key): value for key, value in cells.items() if value is not None}
        for needed in ("reference", "drive"):
            if not given.get(needed):
                raise MtvcraftError(
                    f"{where} has no `{needed}`", hint="every row names a `reference` and a `drive`", exit=Exit.USAGE
                )
        rows.append(Row(number=number, where=where, cells=given))
    return rows


def check_columns(where: str, given: Iterable[str], columns: Collection[str], forbidden: Mapping[str, str]) -> None:
    """Refuse names of columns that nobody knows, that no table may have, and those that are there twice.

    Raises:
        MtvcraftError: exit 2, with the nearest name.
    """
    seen = set[str]()
    for key in given:
        name = plain_name(key)
        if name in forbidden:
            raise MtvcraftError(f"{where} sets `{key}`, which no table may", hint=forbidden[name], exit=Exit.USAGE)
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1, cutoff=0.4)
            meant = f"did you mean `{near[0]}`? " if near else ""
            raise MtvcraftError(
                f"{where} has a column `{key}` that nothing knows",
                hint=f"{meant}columns are named like the options of `mtvcraft animate`",
                exit=Exit.USAGE,
            )
        if name in seen:
            raise MtvcraftError(f"{where} has the column `{key}` twice", hint="leave one out", exit=Exit.USAGE)
        seen.add(name)


def plain_name(key: str) -> str:
    """A column's name as a parameter has it: `--motion-guidance` and ` Motion_Guidance ` are `motion_guidance`."""
    return key.strip().lstrip("-").replace("-", "_").lower()


def pair_up(references: Path, drives: Path, pair: Pair) -> tuple[list[Row], list[str]]:
    """Make jobs of what two patterns fit.

    Args:
        references: a pattern such as `refs/*.png`, or one file.
        drives: the same of drivers; a folder of pictures is one driver.
        pair: `zip` takes the first with the first and so on, `product` each with each.

    Returns:
        The jobs, in the order of the numbers in the names, and sentences on what was left out.

    Raises:
        MtvcraftError: exit 2; a pattern fits nothing, or `zip` finds more of the one than of the other.
    """
    (pictures, left_out), (drivers, more) = _fitting(references, "reference"), _fitting(drives, "driver")
    if pair == "zip" and len(pictures) != len(drivers):
        raise MtvcraftError(
            f"`{references}` fits {len(pictures)} reference(s) and `{drives}` {len(drivers)} driver(s), "
            "which `--pair zip` can't pair up",
            hint="make them as many, or combine each with each by `--pair product`",
            exit=Exit.USAGE,
        )
    both = zip(pictures, drivers, strict=True) if pair == "zip" else product(pictures, drivers)
    rows = [
        Row(number=number, where=f"pair {number}", cells={"reference": str(picture), "drive": str(driver)})
        for number, (picture, driver) in enumerate(both, start=1)
    ]
    return rows, [*left_out, *more]


def _fitting(pattern: Path, what: str) -> tuple[list[Path], list[str]]:
    """The files that a pattern fits, without those that this program made: a second run would take them as inputs."""
    from mtvcraft_cli.sidecar import is_ours, sidecar_path
    from mtvcraft_cli.video.kind import is_pattern
    from mtvcraft_cli.video.sequence import natural

    if not is_pattern(pattern):
        return [pattern], []
    every = sorted((Path(found) for found in glob.glob(str(pattern), recursive=True)), key=natural)  # noqa: PTH207
    found = [path for path in every if not is_ours(sidecar_path(path)) and not is_ours(path)]
    if not found:
        raise MtvcraftError(f"no {what} fits `{pattern}`", hint="check the name and the folder", exit=Exit.USAGE)
    made = len(every) - len(found)
    return found, [f"`{pattern}`: left out {made} file(s) that mtvcraft made"] if made else []


def _text_of(path: Path, name: str) -> str:
    try:
        content = sys.stdin.buffer.read() if path == STDIN else path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise MtvcraftError(
            f"there is no table {name}", hint="check its name and folder; a pattern goes in quotes", exit=Exit.USAGE
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MtvcraftError(f"{name} is no text in UTF-8", hint="save the table as CSV in UTF-8") from error


def _json_lines(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, words in enumerate(text.split("\n"), start=1):
        if not words.strip():
            continue
        try:
            content = json.loads(words)
        except ValueError as error:
            content, why = None, f": {error}"
        else:
            why = ""
        if not isinstance(content, dict):
            raise MtvcraftError(
                f"line {line} of {name} is no JSON object{why}",
                hint="a table of JSON lines has one object a line; `jq -c` writes such lines",
                exit=Exit.USAGE,
            )
        yield line, content


def _csv_lines(text: str, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    first = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: Sequence[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = cells
                if len({plain_name(cell) for cell in header}) < len(header):
                    raise MtvcraftError(
                        f"the header of {name} has a column twice", hint="leave one out", exit=Exit.USAGE
                    )
                continue
            if len(cells) > len(header):
                raise MtvcraftError(
                    f"line {reader.line_num} of {name} has {len(cells)} cells, and the header {len(header)}",
                    hint="put a cell that holds a comma in double quotes",
                    exit=Exit.USAGE,
                )
            filled = [cell if cell.strip() else None for cell in cells]
            yield reader.line_num, dict(zip_longest(header, filled))
    except csv.Error as error:
        raise MtvcraftError(
            f"line {reader.line_num} of {name} is no CSV: {error}", hint="mend the quotes of that line", exit=Exit.USAGE
        ) from error
