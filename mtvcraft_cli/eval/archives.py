"""Frames inside of archives: DisCo's TSV files, and zip files of folders such as One-to-All's."""

import base64
import binascii
import hashlib
import lzma
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import numpy as np
from PIL import Image

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.sources import combined, is_picture, numbered, of_size
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.video.picture import WHITE, check_size, to_rgb

KEY: Final = re.compile(r"(?:TiktokDance_)?(.+?)_(\d+)\.(?:png|jpe?g)", re.IGNORECASE)
"""DisCo's name of a frame: `TiktokDance_203_006_1x1_00348.jpg` is frame 348 of clip 203_006_1x1."""
UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError)
"""What a member of a zip file that is damaged, coded in an odd way, or encrypted can end in."""
NOT_FRAMES: Final = re.compile(r"pose|mask|caption|densepose", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One frame of an archive."""

    number: int
    name: str
    place: int
    """For a TSV file where its picture begins, in bytes."""
    length: int


@dataclass(frozen=True)
class ArchiveClip:
    """A clip whose frames lie in an archive."""

    id: str
    archive: Path
    entries: Sequence[Entry]
    kind: Literal["frames", "video"] = "frames"

    @property
    def where(self) -> str:
        """See `sources.Source`."""
        return f"{self.archive}: {self.id}"

    def frame_numbers(self) -> Sequence[int]:
        """See `sources.Source`."""
        return [entry.number for entry in self.entries]

    def frame_size_px(self) -> tuple[int, int]:
        """See `sources.Source`."""
        return self._size_px

    @cached_property
    def _size_px(self) -> tuple[int, int]:
        height, width = next(self._pictures(self.entries[:1])).shape[:2]
        return width, height

    @cached_property
    def _hash(self) -> str:
        return combined(self.frame_numbers(), [hashlib.sha256(data).hexdigest() for data in self._bytes(self.entries)])

    def sha256(self) -> str:
        """See `sources.Source`."""
        return self._hash

    def frames(self, wanted: Collection[int] | None = None) -> Iterator[Picture]:
        """See `sources.Source`."""
        entries = [entry for place, entry in enumerate(self.entries) if wanted is None or place in wanted]
        for entry, picture in zip(entries, self._pictures(entries), strict=True):
            yield of_size(picture, self._size_px, f"{self.archive}: {entry.name}")

    def _pictures(self, entries: Sequence[Entry]) -> Iterator[Picture]:
        for entry, data in zip(entries, self._bytes(entries), strict=True):
            yield _picture_of(data, self.archive, entry.name)

    def _bytes(self, entries: Sequence[Entry]) -> Iterator[bytes]:
        if self.archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(self.archive) as archive:
                for entry in entries:
                    try:
                        yield archive.read(entry.name)
                    except UNREADABLE as error:
                        raise _damaged(self.archive, entry.name, str(error)) from error
            return
        with self.archive.open("rb") as file:
            for entry in entries:
                file.seek(entry.place)
                try:
                    yield base64.b64decode(file.read(entry.length), validate=True)
                except binascii.Error as error:
                    raise _damaged(self.archive, entry.name, str(error)) from error


def zip_clips(path: Path) -> dict[str, ArchiveClip]:
    """Find the clips of a zip file: each folder that holds frames, `images` being part of the one above it.

    Raises:
        MtvcraftError: it is damaged, or holds no frames.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [PurePosixPath(item.filename) for item in archive.infolist() if not item.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise MtvcraftError(f"`{path}` is no whole zip file: {error}", hint="download it again") from error
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for name in names:
        if is_picture(name.name) and "__MACOSX" not in name.parts:
            folders.setdefault(name.parent, []).append(name)
    clips = {}
    for folder, files in sorted(folders.items()):
        own = folder.parent if folder.name == "images" else folder
        frames = numbered([Path(name) for name in files], f"{path}: {folder}")
        entries = [Entry(number, file.as_posix(), 0, 0) for number, file in frames]
        if own.name in clips:
            raise MtvcraftError(
                f"`{path}` holds two clips called `{own.name}`", hint="unpack it, and name the folder that is meant"
            )
        clips[own.name] = ArchiveClip(own.name, path, entries)
    return clips


def tsv_clips(path: Path) -> dict[str, ArchiveClip]:
    """Find the clips of one of DisCo's TSV files: one frame a line, its key first, its picture in base64 last.

    Only places are kept: the file itself may be many gigabytes.

    Raises:
        MtvcraftError: a key isn't understood, or the file holds no frames.
    """
    found: dict[str, dict[int, Entry]] = {}
    with path.open("rb") as file:
        place = 0
        for number, line in enumerate(file, start=1):
            columns = line.rstrip(b"\r\n").split(b"\t")
            key = columns[0].decode("utf-8", "replace")
            match = KEY.fullmatch(PurePosixPath(key).name)
            if match is None or len(columns) < 2:
                raise MtvcraftError(
                    f"line {number} of `{path}` is no frame: its key is `{key[:60]}`",
                    hint="name DisCo's TSV file of frames, the one whose last column is a picture",
                )
            last = columns[-1]
            start = place + len(line.rstrip(b"\r\n")) - len(last)
            found.setdefault(match[1], {})[int(match[2])] = Entry(int(match[2]), key, start, len(last))
            place += len(line)
    return {
        id: ArchiveClip(id, path, [entry for _, entry in sorted(entries.items())])
        for id, entries in sorted(found.items())
    }


def frames_tsv(folder: Path) -> Path | None:
    """The TSV file with the frames of a bench in a folder; None where there is no TSV file.

    Raises:
        MtvcraftError: several could be meant.
    """
    files = sorted(folder.glob("*.tsv"))
    meant = [file for file in files if file.name.startswith("new10val")] or files
    meant = [file for file in meant if not NOT_FRAMES.search(file.name)] or meant
    if len(meant) > 1:
        names = ", ".join(f"`{file.name}`" for file in meant)
        raise MtvcraftError(f"`{folder}` holds several TSV files: {names}", hint="name the one with the frames itself")
    return meant[0] if meant else None


def _picture_of(data: bytes, archive: Path, name: str) -> Picture:
    try:
        with Image.open(BytesIO(data)) as image:
            check_size(archive, image.width, image.height)
            return np.array(to_rgb(image, WHITE))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise _damaged(archive, name, str(error)) from error


def _damaged(archive: Path, name: str, why: str) -> MtvcraftError:
    return MtvcraftError(f"`{name}` in `{archive}` is a damaged picture ({why})", hint="fetch the archive again")
