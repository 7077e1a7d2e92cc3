"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtvcraft_cli.errors import FULL, Exit, MtvcraftError


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Lend a name beside `path` to write to; when the block ends well, the file takes its place.

    However the block fails, Ctrl-C included, the draft is removed and an older `path` stays as it was.

    Args:
        path: where the finished file belongs.

    Yields:
        The draft's path: in the same folder, hidden, with the same ending.

    Raises:
        MtvcraftError: the folder is missing or closed to us, or `path` is no plain file (exit 2); the disk is full
            (exit 5).
    """
    if not path.parent.is_dir():
        raise MtvcraftError(f"there is no folder `{path.parent}`", hint="create it first", exit=Exit.USAGE)
    if path.exists() and not path.is_file():
        raise MtvcraftError(f"`{path}` is not a plain file", hint="name another output", exit=Exit.USAGE)
    draft = path.with_name(f".{path.stem[:64]}.{os.getpid()}.part{path.suffix}")
    try:
        draft.touch()
        mode = draft.stat().st_mode
        draft.unlink()
        yield draft
        if draft.stat().st_mode != mode:
            draft.chmod(mode)  # safetensors keeps its files from everybody else
        with draft.open("rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing behind it
        draft.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path) from error
        if isinstance(error, PermissionError):
            raise MtvcraftError(
                f"`{path.parent}` is closed to writing", hint="name an output in another folder", exit=Exit.USAGE
            ) from error
        raise
    finally:
        draft.unlink(missing_ok=True)


def write_text_whole(path: Path, text: str) -> None:
    """Write UTF-8 text; whatever was there stays until the new file is whole."""
    with writing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def disk_full(path: Path) -> MtvcraftError:
    """Say that the disk filled up while `path` was written."""
    return MtvcraftError(
        f"no space left for `{path}`",
        hint=f"free some space in `{path.parent.absolute()}`, or name an output on another disk",
        exit=Exit.FIT,
    )
