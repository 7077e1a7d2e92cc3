"""Where a setting comes from: flag > environment > mtvcraft.toml > user config > preset."""

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtvcraft_cli.errors import Exit, MtvcraftError

PROJECT_FILE = "mtvcraft.toml"
BENCH_TABLE = "bench"


def user_file() -> Path:
    """The user's own settings, for every working folder."""
    from platformdirs import user_config_path

    return user_config_path("mtvcraft", appauthor=False) / "config.toml"


def read_settings(options: Mapping[str, set[str]], only_by_flag: set[str]) -> dict[str, dict[str, Any]]:
    """What the settings files say, per command.

    A key at the top of a file holds for every command that has such an option; one under `[animate]` only there, and
    one under `[train]` in all commands of that group.

    Args:
        options: for each command the names that a file may set, such as {"animate": {"steps"}}; a command of
            a group has both words, "train.vae".
        only_by_flag: names of options that no file may set.

    Returns:
        For each command the values, by option name with underscores; commands of a group lie within it.

    Raises:
        MtvcraftError: a file isn't TOML, or has a key that no command knows (the nearest is suggested).
    """
    settings: dict[str, dict[str, Any]] = {command: {} for command in options}
    for path in (user_file(), Path(PROJECT_FILE).absolute()):  # the later one goes before the earlier one
        if path.is_file():
            content = _read_toml(path)
            if isinstance(content.get(BENCH_TABLE), dict):
                del content[BENCH_TABLE]  # folders by a bench's name, see `bench_folder`
            _check_allowed(path, content, only_by_flag)
            groups = {command.partition(".")[0] for command in options if "." in command}
            anywhere, sections = _taken_apart(content)
            _check_known(path, anywhere, set().union(*options.values()))
            _check_known(path, sections, set(options) | groups)
            within = {}
            for name in groups & set(sections):
                within[name], inner = _taken_apart(sections.pop(name))
                members = {command for command in options if command.startswith(f"{name}.")}
                _check_known(path, within[name], set().union(*(options[member] for member in members)))
                inner = {f"{name}.{key}": value for key, value in inner.items()}
                _check_known(path, inner, members)
                sections |= inner
            for command, known in options.items():
                own = sections.get(command, {})
                _check_known(path, own, known)
                given = anywhere | within.get(command.partition(".")[0], {}) | own
                settings[command].update(
                    {_name(key): _value(value) for key, value in given.items() if _name(key) in known}
                )
    return _nested(settings)


def _taken_apart(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values, and sections."""
    sections = {key: value for key, value in content.items() if isinstance(value, dict)}
    return {key: value for key, value in content.items() if key not in sections}, sections


def _nested(settings: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings of `train.vae` under `train`, `vae`, as the parser looks for them."""
    whole: dict[str, dict[str, Any]] = {}
    for command, values in settings.items():
        name, _, inner = command.partition(".")
        place = whole.setdefault(name, {})
        place.update({inner: values} if inner else values)
    return whole


def bench_folder(name: str) -> Path | None:
    """Where the user keeps the clips of a bench: `MTVCRAFT_BENCH_NAME`, or `NAME = "folder"` under `[bench]` in a file.

    Args:
        name: of the bench; in the variable it is in capitals, with `_` for `-`.

    Raises:
        MtvcraftError: exit 2; a file isn't TOML, or says what is no text.
    """
    if told := os.environ.get(f"MTVCRAFT_BENCH_{_name(name).upper()}"):
        return Path(told).expanduser()
    for path in (Path(PROJECT_FILE).absolute(), user_file()):
        table = _read_toml(path).get(BENCH_TABLE) if path.is_file() else None
        folder = (
            {_name(key): value for key, value in table.items()}.get(_name(name)) if isinstance(table, dict) else None
        )
        if isinstance(folder, str):
            return path.parent / Path(folder).expanduser()
        if folder is not None:
            raise MtvcraftError(
                f"`{path}` sets `bench.{name}` to `{folder}`, which is no path",
                hint=f'write it like {name} = "/data/{name}"',
                exit=Exit.USAGE,
            )
    return None


def _read_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MtvcraftError(f"`{path}` is not TOML: {error}", hint="mend that line", exit=Exit.USAGE) from error


def _check_allowed(path: Path, given: Mapping[str, Any], only_by_flag: set[str]) -> None:
    for key, value in given.items():
        if isinstance(value, dict):
            _check_allowed(path, value, only_by_flag)
        elif _name(key) in only_by_flag:
            raise MtvcraftError(
                f"`{path}` sets `{key}`, which no file may", hint=f"give `--{key}` by hand", exit=Exit.USAGE
            )


def _check_known(path: Path, given: Mapping[str, Any], known: set[str]) -> None:
    for key in given:
        if _name(key) not in known:
            near = difflib.get_close_matches(_name(key), known, n=1)
            raise MtvcraftError(
                f"`{path}` has a setting `{key}` that nothing knows",
                hint=f"did you mean `{near[0].replace('_', '-')}`?" if near else "see `mtvcraft animate --help`",
                exit=Exit.USAGE,
            )


def _name(key: str) -> str:
    return key.replace("-", "_")


def _value(value: object) -> object:
    return value if isinstance(value, (bool, int, float)) else str(value)
