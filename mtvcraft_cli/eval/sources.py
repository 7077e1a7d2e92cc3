"""Where the frames of a clip lie: a folder of pictures, a video, or an archive that others published."""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import numpy as np

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.video.look import Found, look
from mtvcraft_cli.video.picture import WHITE, read_picture
from mtvcraft_cli.video.sequence import size_px

PICTURES: Final = (".png", ".jpg", ".jpeg")
VIDEOS: Final = (".mp4", ".webm", ".mkv", ".gif")
NUMBERED: Final = re.compile(r"(.*?)(\d+)")


@runtime_checkable
class Source(Protocol):
    """A clip as it is scored: frames in order, RGB, 0..255, all of one size."""

    @property
    def id(self) -> str:
        """What it is paired by."""
        ...

    @property
    def where(self) -> str:
        """Its path, for messages."""
        ...

    @property
    def kind(self) -> Literal["frames", "video"]:
        """Whether the frames lie there as pictures, or had to be decoded from a video."""
        ...

    def frame_numbers(self) -> Sequence[int]:
        """List the frames' numbers, rising; a gap means that frames are missing.

        Raises:
            MtvcraftError: a video can't be read.
        """
        ...

    def frame_size_px(self) -> tuple[int, int]:
        """Return width and height, of the first frame at least.

        Raises:
            MtvcraftError: it can't be read.
        """
        ...

    def sha256(self) -> str:
        """A hash over everything that the frames are made of; read once."""
        ...

    def frames(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        """Read frames, (H, W, 3) each.

        Args:
            wanted: places of the frames, counted from 0; None for all.

        Raises:
            MtvcraftError: one can't be read, or has another size; the message names it.
        """
        ...


@dataclass(frozen=True)
class FrameFolder:
    """A folder of pictures whose names end in a number."""

    id: str
    folder: Path
    files: Sequence[Path]
    numbers: Sequence[int]
    kind: Literal["frames", "video"] = "frames"

    @classmethod
    def of(cls, id: str, folder: Path) -> "FrameFolder":
        """Sort the pictures of a folder by their numbers.

        Raises:
            MtvcraftError: a name ends in no number, or two have the same.
        """
        files = numbered([file for file in folder.iterdir() if is_picture(file.name)], str(folder))
        return cls(id, folder, [file for _, file in files], [number for number, _ in files])

    @property
    def where(self) -> str:
        """See `Source`."""
        return str(self.folder)

    def frame_numbers(self) -> Sequence[int]:
        """See `Source`."""
        return self.numbers

    def frame_size_px(self) -> tuple[int, int]:
        """See `Source`."""
        return size_px(self.files[0])

    @cached_property
    def _hash(self) -> str:
        return combined(self.numbers, [sha256_of(file) for file in self.files])

    def sha256(self) -> str:
        """See `Source`."""
        return self._hash

    def frames(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        """See `Source`."""
        size = self.frame_size_px()
        for place, file in enumerate(self.files):
            if wanted is None or place in wanted:
                yield of_size(read_picture(file), size, str(file))


@dataclass(frozen=True)
class VideoFile:
    """A video or GIF: each of its frames once, whatever its frame rate says."""

    id: str
    path: Path
    kind: Literal["frames", "video"] = "video"

    @property
    def where(self) -> str:
        """See `Source`."""
        return str(self.path)

    @cached_property
    def _found(self) -> Found:
        return look(self.path, None, None, None, WHITE)

    def frame_numbers(self) -> Sequence[int]:
        """See `Source`."""
        return range(self._found.in_file)

    def frame_size_px(self) -> tuple[int, int]:
        """See `Source`."""
        return self._found.info.size_px

    @cached_property
    def _hash(self) -> str:
        return sha256_of(self.path)

    def sha256(self) -> str:
        """See `Source`."""
        return self._hash

    def frames(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        """See `Source`."""
        last = self._found.in_file if wanted is None else max(wanted, default=-1) + 1
        frames = self._found.source(0)
        try:
            for place in range(last):
                frame = next(frames, None)
                if frame is None:
                    raise MtvcraftError(
                        f"`{self.path}` is damaged: {place} of {self._found.in_file} frames could be read",
                        hint="copy or download it again",
                    )
                if wanted is None or place in wanted:
                    yield of_size(np.array(frame), self.frame_size_px(), str(self.path))
        finally:
            frames.close()


@dataclass(frozen=True)
class Made:
    """A baseline: what comes of the ground truth without any model."""

    truth: Source
    kind_of: Literal["still", "ground-truth", "shift1"]

    @property
    def id(self) -> str:
        """See `Source`."""
        return self.truth.id

    @property
    def where(self) -> str:
        """See `Source`."""
        return f"{self.truth.where} ({self.kind_of})"

    @property
    def kind(self) -> Literal["frames", "video"]:
        """See `Source`."""
        return self.truth.kind

    def frame_numbers(self) -> Sequence[int]:
        """See `Source`."""
        return self.truth.frame_numbers()

    def frame_size_px(self) -> tuple[int, int]:
        """See `Source`."""
        return self.truth.frame_size_px()

    def sha256(self) -> str:
        """See `Source`."""
        own = self.truth.sha256()
        return own if self.kind_of == "ground-truth" else combined([0], [f"{self.kind_of} {own}"])

    def frames(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        """See `Source`."""
        places = range(len(self.frame_numbers())) if wanted is None else sorted(wanted)
        if self.kind_of == "ground-truth":
            yield from self.truth.frames(places)
        elif self.kind_of == "still":
            first = next(iter(self.truth.frames([0])))
            yield from (first for _ in places)
        else:
            late = [max(0, place - 1) for place in places]
            frames = self.truth.frames(sorted(set(late)))
            shown, frame = -1, np.empty((0, 0, 3), np.uint8)
            for place in late:
                if place != shown:
                    shown, frame = place, next(frames)
                yield frame


def is_picture(name: str) -> bool:
    """Whether a file is a frame, by its name."""
    return name.lower().endswith(PICTURES) and not name.startswith(".")


def numbered(files: Sequence[Path], where: str) -> list[tuple[int, Path]]:
    """Sort frames by the numbers that their names end in.

    Raises:
        MtvcraftError: a name ends in none, or two end in the same.
    """
    found: dict[int, Path] = {}
    for file in sorted(files):
        match = NUMBERED.fullmatch(file.stem)
        if match is None:
            raise MtvcraftError(
                f"the frame `{file.name}` in `{where}` has no number at the end of its name",
                hint="number the frames in their order, as in `0001.png`, or take the file away",
            )
        number = int(match[2])
        if number in found:
            raise MtvcraftError(
                f"`{found[number].name}` and `{file.name}` in `{where}` have the same number",
                hint="keep one of them",
            )
        found[number] = file
    return sorted(found.items())


def of_size(picture: Picture, wanted_px: tuple[int, int], name: str) -> Picture:
    """Give a frame back that has the size of the clip.

    Raises:
        MtvcraftError: it has another one.
    """
    height, width = picture.shape[:2]
    if (width, height) != wanted_px:
        raise MtvcraftError(
            f"`{name}` is {width} x {height} pixels, the first frame of its clip {wanted_px[0]} x {wanted_px[1]}",
            hint="bring the frames of a clip to one size",
        )
    return picture


def combined(numbers: Sequence[int], hashes: Sequence[str]) -> str:
    """One hash for many, each with the number of its frame."""
    digest = hashlib.sha256()
    for number, each in zip(numbers, hashes, strict=True):
        digest.update(f"{number} {each}\n".encode())
    return digest.hexdigest()
