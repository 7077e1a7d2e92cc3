"""Where the clips of a data set go: appended to shards, and taken back to where the last whole video ended."""

import hashlib
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from PIL import Image

from mtvcraft_cli.joints.files import Motion, save_motion
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.train.dataset.cut import Piece
from mtvcraft_cli.train.dataset.index import ENDINGS, Record
from mtvcraft_cli.train.dataset.tar import ShardWriter

QUALITY: Final = 92
"""Of the JPEGs, with colours at full resolution."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Film:
    """A clip with its frames as they are stored."""

    piece: Piece
    coded: list[bytes]
    """JPEGs."""
    size_px: tuple[int, int]
    blur: float


class Shards:
    """The shards of a data set that is being made.

    Args:
        folder: of the data set.
        entries: the journal's; whatever lies in the shards beyond them is removed.
        limit_bytes: a shard that is larger is closed.
    """

    def __init__(self, folder: Path, entries: Sequence[dict[str, Any]], limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        last: tuple[int, int, int] = tuple(entries[-1]["state"]) if entries else (0, 0, 0)
        self.number, kept_bytes, self.clips = last
        self._drop_after(self.number)
        self.writer = ShardWriter(self.path(self.number), kept_bytes)

    def path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{number:05d}.tar"

    @property
    def state(self) -> tuple[int, int, int]:
        """The open shard's number and bytes, and how many clips there are in all."""
        return self.number, self.writer.size_bytes, self.clips

    def add(self, film: Film, told: dict[str, Any]) -> Record:
        """Append a clip."""
        if self.writer.size_bytes >= self.limit_bytes:
            self._open(self.number + 1)
        name = f"clip-{self.clips:07d}"
        about = {
            **told,
            "frames": len(film.coded),
            "size_px": film.size_px,
            "frame_bytes": [len(each) for each in film.coded],
            "frame_crc32": [zlib.crc32(each) for each in film.coded],
        }
        content = {
            "frames": b"".join(film.coded),
            "joints": self._joints(film, told),
            "about": json.dumps(about, ensure_ascii=False).encode(),
        }
        begin = {part: self.writer.add(name + ENDINGS[part], content[part]) for part in ENDINGS}
        self.clips += 1
        return Record(
            name=name,
            source=told["source"]["sha256"],
            frames=len(film.coded),
            rate=told["rate"],
            size_px=film.size_px,
            unsure=round(film.piece.unsure, 6),
            blur=round(film.blur, 3),
            shard=self.path(self.number).name,
            begin=begin,
            bytes={part: len(each) for part, each in content.items()},
            sha256={part: hashlib.sha256(content[part]).hexdigest() for part in ("joints", "about")},
        )

    def back_to(self, state: tuple[int, int, int]) -> None:
        """Take back what was appended since."""
        number, size_bytes, self.clips = state
        if number != self.number:
            self.writer.file.close()
            self.number = number
            self._drop_after(number)
            self.writer = ShardWriter(self.path(number), size_bytes)
        self.writer.cut(size_bytes)

    def keep(self) -> None:
        """Make sure that all of it survives a power cut."""
        self.writer.keep()

    def end(self) -> None:
        """Close the last archive."""
        self.writer.end()

    def close(self) -> None:
        """Close the file, whatever is in it."""
        self.writer.file.close()

    def _open(self, number: int) -> None:
        self.writer.end()
        self.writer.file.close()
        self.number = number
        self.writer = ShardWriter(self.path(number))

    def _drop_after(self, number: int) -> None:
        for path in self.folder.glob("shard-*.tar"):
            if path.name > self.path(number).name:
                path.unlink()

    def _joints(self, film: Film, told: dict[str, Any]) -> bytes:
        estimate, smpl = film.piece.estimate, film.piece.estimate.smpl
        motion = Motion(
            joints_mm=estimate.joints_mm,
            confidence=estimate.confidence,
            observed=estimate.found,
            rate=Fraction(told["rate"]),
            size_px=film.size_px,
            smpl_pose=smpl and smpl.pose,
            smpl_betas=smpl and smpl.betas,
            smpl_transl=smpl and smpl.transl,
            meta={"source": told["source"], "first_frame": told["first_frame"]},
        )
        path = self.folder / ".joints.npz"
        save_motion(path, motion)
        content = path.read_bytes()
        path.unlink()
        return content


def as_jpeg(frame: Picture) -> bytes:
    """One frame as JPEG."""
    coded = io.BytesIO()
    Image.fromarray(frame).save(coded, "JPEG", quality=QUALITY, subsampling=0)
    return coded.getvalue()
