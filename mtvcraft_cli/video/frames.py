"""Frames as PNG files, which lose nothing: a folder of them that is there whole or not at all."""

import json
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import FULL, disk_full
from mtvcraft_cli.shapes import Frames

END: Final = "frames.json"
"""Lies beside finished frames in their folder and says how many there are."""


def holds_frames(folder: Path) -> bool:
    """Whether a folder holds all the frames that a run of ours wrote into it."""
    try:
        count = json.loads((folder / END).read_text(encoding="utf-8"))["frames"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(count == sum(1 for _ in folder.glob("*.png")))


def is_taken(folder: Path) -> bool:
    """Whether a place for frames is a file, or a folder with something in it."""
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


class FrameWriter(AbstractContextManager["FrameWriter"]):
    """Writes frames as `0001.png`, `0002.png` and so on.

    The folder takes its place, an older one of that name going away, when the block ends well; if it fails, the older
    one stays as it was.

    Args:
        folder: where the frames go; the folder above it must be there.

    Raises:
        MtvcraftError: there is no folder above it (exit 2), or the disk is full (exit 5).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.frames = 0
        """How many have been written."""
        self._draft = folder.with_name(f".{folder.name}.part")

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
                (self._draft / END).write_text(json.dumps({"frames": self.frames}), encoding="utf-8")
                shutil.rmtree(self.folder, ignore_errors=True)
                self._draft.rename(self.folder)
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
