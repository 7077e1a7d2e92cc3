"""`out.mp4.json`, the file beside a result that says how it was made, and by which it is known again."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mtvcraft_cli import __version__
from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole

FORMAT = 1
LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "numpy", "mediapipe", "decord", "imageio-ffmpeg")


def sidecar_path(output: Path) -> Path:
    """out.mp4 -> out.mp4.json."""
    return output.with_name(f"{output.name}.json")


def fingerprint(parts: Mapping[str, Any]) -> str:
    """A hash over everything that a result depends on: equal ones mean that it need not be made again."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def versions() -> dict[str, str]:
    """What a result may depend on besides its inputs: this program, Python, the machine, the libraries in use."""
    found = {"mtvcraft": __version__, "python": platform.python_version(), "machine": platform.platform()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue  # optional, and not in use
    return found


def write_sidecar(output: Path, content: Mapping[str, Any]) -> Path:
    """Write the sidecar of a finished output, with the output's own hash."""
    whole = {"format": FORMAT, **content, "output": {"name": output.name, "sha256": sha256_of(output)}}
    path = sidecar_path(output)
    write_text_whole(path, json.dumps(whole, indent=2, ensure_ascii=False, default=str) + "\n")
    return path


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a sidecar.

    Raises:
        MtvcraftError: missing (exit 2), or not one of ours (exit 4).
    """
    if not path.is_file():
        raise MtvcraftError(
            f"there is no `{path}`", hint="name the `.json` that lies beside a video made by mtvcraft", exit=Exit.USAGE
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(content, dict) and content["format"] == FORMAT and "settings" in content
    except (ValueError, KeyError):
        known = False
    if not known:
        raise MtvcraftError(
            f"`{path}` does not say how a video was made",
            hint="name the `.json` that lies beside a video made by mtvcraft",
        )
    return content


def made_already(output: Path, wanted: str) -> bool:
    """Whether `output` is whole and was made from the same inputs and settings."""
    try:
        content = read_sidecar(sidecar_path(output))
    except MtvcraftError:
        return False
    told = content.get("output", {}).get("sha256")
    return content.get("fingerprint") == wanted and output.is_file() and sha256_of(output) == told


def is_ours(path: Path) -> bool:
    """Whether a `.json` was written by this program, so that it may be written anew."""
    try:
        with path.open("rb") as file:
            if file.read(1) != b"{":  # a whole video is not read for this
                return False
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "format" in content and ("fingerprint" in content or "meta" in content)


def check_target(output: Path, inputs: Iterable[Path] = (), *, force: bool, made: bool) -> None:
    """Refuse a target that can't be written or would be written over.

    Args:
        output: the file to be written.
        inputs: files that are read, which even `force` doesn't write over.
        force: whether the user lets an existing file be written over.
        made: whether an existing file is one that may be left or written over without asking.

    Raises:
        MtvcraftError: exit 2; its folder is missing, it is a folder or an input, or it exists and neither holds.
    """
    if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
        raise MtvcraftError(f"`{output}` is an input", hint="give the output another name", exit=Exit.USAGE)
    if not output.parent.is_dir():
        raise MtvcraftError(
            f"there is no folder `{output.parent}`", hint=f"make it first: mkdir -p {output.parent}", exit=Exit.USAGE
        )
    if output.is_dir():
        raise MtvcraftError(f"`{output}` is a folder", hint="name a file in it", exit=Exit.USAGE)
    if output.exists() and not force and not made:
        raise MtvcraftError(
            f"`{output}` is already there, and not from these inputs and settings",
            hint="choose another name, or write over it with `--force`",
            exit=Exit.USAGE,
        )


def check_ending(output: Path, *endings: str) -> None:
    """Refuse a name that says something else than what the file can hold.

    Raises:
        MtvcraftError: exit 2.
    """
    name = output.name.lower()
    if not name.endswith(endings) or name in endings:
        raise MtvcraftError(
            f"`{output}` doesn't end in {' or '.join(endings)}, and that is what is written",
            hint=f"name it `{output.with_suffix('') if output.suffix else output}{endings[0]}`",
            exit=Exit.USAGE,
        )


def check_folders(*, weights: Path | None, trust_file: Path | None) -> None:
    """Refuse places that were named and aren't there: a slip of the finger would go unnoticed.

    Raises:
        MtvcraftError: exit 2.
    """
    if weights is not None and not weights.is_dir():
        raise MtvcraftError(f"there is no folder `{weights}`", hint="check `--weights`", exit=Exit.USAGE)
    if trust_file is not None and not trust_file.is_file():
        raise MtvcraftError(f"there is no file `{trust_file}`", hint="check `--trust-file`", exit=Exit.USAGE)


def check_input(path: Path, what: str) -> None:
    """Refuse an input that isn't there.

    Raises:
        MtvcraftError: exit 2; exit 4 where it is a folder.
    """
    if not path.exists():
        raise MtvcraftError(f"there is no file `{path}` ({what})", hint="check its name and folder", exit=Exit.USAGE)
    if path.is_dir():
        raise MtvcraftError(f"the {what} `{path}` is a folder", hint="name a file in it")
