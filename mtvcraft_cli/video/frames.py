"""Frames as PNG files, which lose nothing: a folder of them that is there whole or not at all."""

import json
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

from PIL import Image

from mtvcraft_cli.errors import FULL, Exit, MtvcraftError
from mtvcraft_cli.files import disk_full
from mtvcraft_cli.shapes import Frames

END: Final = "frames.json"
"""Lies beside finished frames in their folder and says how many there are, and of what."""


def holds_frames(folder: Path, fingerprint: str = "") -> bool:
    """Whether a folder holds all the frames that a run of ours wrote into it, from the same inputs and settings."""
    try:
        told = json.loads((folder / END).read_text(encoding="utf-8"))
        same = (told["frames"], told["fingerprint"]) == (sum(1 for _ in folder.glob("*.png")), fingerprint)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same


def is_taken(folder: Path) -> bool:
    """Whether a place for frames is a file, or a folder with something in it."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def check_frames_folder(folder: Path, others: Iterable[Path]) -> None:
    """Refuse a place for frames that can't be made, or where something else than our frames would go away.

    Args:
        folder: where frames are to go.
        others: files that are read or written beside them.

    Raises:
        MtvcraftError: exit 2.
    """
    whole = folder.resolve()
    if not folder.name or folder.name == "..":
        raise MtvcraftError(f"`{folder}` is no name for a new folder", hint="give it a name", exit=Exit.USAGE)
    if not whole.parent.is_dir():
        raise MtvcraftError(
            f"there is no folder `{folder.parent}`", hint=f"make it first: mkdir -p {folder.parent}", exit=Exit.USAGE
        )
    if folder.exists() and not folder.is_dir():
        raise MtvcraftError(f"`{folder}` is a file", hint="name a folder for the frames", exit=Exit.USAGE)
    if whole.is_mount():
        raise MtvcraftError(
            f"`{folder}` is a whole file system, which can't be put in place at once",
            hint=f"name a folder in it, such as `{folder / 'frames'}`",
            exit=Exit.USAGE,
        )
    if inside := next((path for path in others if whole in (path.resolve(), *path.resolve().parents)), None):
        raise MtvcraftError(
            f"the frames would take the place of `{folder}`, and `{inside}` is in it",
            hint="give the frames a folder of their own",
            exit=Exit.USAGE,
        )
    if is_taken(folder) and (left := [file for file in folder.iterdir() if file.suffix != ".png" and file.name != END]):
        raise MtvcraftError(
            f"`{folder}` holds more than frames: `{left[0].name}`",
            hint="give the frames a folder of their own; `--force` writes over frames alone",
            exit=Exit.USAGE,
        )
    if is_taken(folder) and not (folder / END).is_file():
        raise MtvcraftError(
            f"the pictures in `{folder}` are not frames that mtvcraft wrote",
            hint="give the frames a folder of their own",
            exit=Exit.USAGE,
        )


class FrameWriter(AbstractContextManager["FrameWriter"]):
    """Writes frames as `0001.png`, `0002.png` and so on.

    The folder takes its place, an older one of that name going away, when the block ends well; if it fails, the older
    one stays as it was.

    Args:
        folder: where the frames go; the folder above it must be there.
        fingerprint: of all that they depend on, see `holds_frames`.

    Raises:
        MtvcraftError: there is no folder above it (exit 2), or the disk is full (exit 5).
    """

    def __init__(self, folder: Path, fingerprint: str = "") -> None:
        self.folder = folder.resolve()  # a link stays one
        self.fingerprint = fingerprint
        self.frames = 0
        """How many have been written."""
        self._draft = self.folder.with_name(f".{self.folder.name}.part")
        self._older = self.folder.with_name(f".{self.folder.name}.old")

    def __enter__(self) -> "FrameWriter":
        if not self.folder.parent.is_dir():
            raise MtvcraftError(f"there is no folder `{self.folder.parent}`", hint="create it first", exit=Exit.USAGE)
        shutil.rmtree(self._draft, ignore_errors=True)
        self._draft.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                told = {"frames": self.frames, "fingerprint": self.fingerprint}
                (self._draft / END).write_text(json.dumps(told), encoding="utf-8")
                shutil.rmtree(self._older, ignore_errors=True)
                if self.folder.exists():
                    self.folder.rename(self._older)
                try:
                    self._draft.rename(self.folder)
                except OSError:
                    if self._older.exists():
                        self._older.rename(self.folder)
                    raise
                shutil.rmtree(self._older, ignore_errors=True)
        finally:
            shutil.rmtree(self._draft, ignore_errors=True)

    def write(self, frames: Frames) -> None:
        """Add frames, (T, H, W, 3) RGB, 0..255."""
        for frame in frames:
            self.frames += 1
            try:
                Image.fromarray(frame).save(self._draft / f"{self.frames:04d}.png")
            except OSError as error:
                if error.errno in FULL:
                    raise disk_full(self.folder) from error
                raise
