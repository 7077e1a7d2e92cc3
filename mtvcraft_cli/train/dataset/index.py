"""A set of clips on disk: what is in it, and one clip's frames and joints.

`dataset.json` lists the clips and where they lie in the shards. A shard is a plain tar file that has for each clip
`NAME.mjpeg` (its frames as JPEG, one after the other), `NAME.joints.npz` (as `mtvcraft pose` writes it) and `NAME.json`
(where it comes from, and the bytes of each frame). Nothing in it is pickled, and nothing is ever unpacked to disk.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.shapes import Frames, JointsMm
from mtvcraft_cli.train.dataset.tar import damaged, read_member

INDEX: Final = "dataset.json"
FORMAT: Final = 1
ENDINGS: Final = {"frames": ".mjpeg", "joints": ".joints.npz", "about": ".json"}
KINDS: Final[dict[str, tuple[type, ...]]] = {
    "frames": (int,),
    "size_px": (tuple,),
    "unsure": (int, float),
    "blur": (int, float),
    "begin": (dict,),
    "bytes": (dict,),
    "sha256": (dict,),
}
"""Of a record's fields; all others are texts."""
REMEMBERED: Final = 256
"""Clips whose joints and list of frames stay in memory."""
ROW_BYTES: Final = 4096
"""A frame's joints take less, whatever else the file holds of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One clip as `dataset.json` has it."""

    name: str
    source: str
    """SHA-256 of the video it was cut from: clips of one video are never on both sides of a split."""
    frames: int
    rate: str
    """Frames a second, exact: "30000/1001"."""
    size_px: tuple[int, int]
    """Width and height of the stored frames."""
    unsure: float
    """1 - mean confidence of the joints."""
    blur: float
    """Variance of the frames' Laplacian: less is more blurred."""
    shard: str
    begin: dict[str, int]
    """Where the bytes of `frames`, `joints` and `about` begin in the shard."""
    bytes: dict[str, int]
    """How many each of them has."""
    sha256: dict[str, str]
    """Hashes of `joints` and `about`; that one has a checksum for each frame."""
    caption: str = ""
    """What the video shows, in the words of a text file beside it; empty where there was none."""

    def told(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def of(told: Any) -> "Record":
        """Read what `told` told.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        record = Record(**{**told, "size_px": tuple(told["size_px"])})
        for name, value in vars(record).items():
            if not isinstance(value, KINDS.get(name, (str,))):
                raise ValueError(f"`{name}` is {value!r}")
        if not set(ENDINGS) == set(record.begin) == set(record.bytes) or set(record.sha256) != {"joints", "about"}:
            raise ValueError(f"clip `{record.name}` lacks a part")
        whole = [*record.size_px, *record.begin.values(), *record.bytes.values(), record.frames]
        if len(record.size_px) != 2 or any(type(number) is not int or number < 0 for number in whole):
            raise ValueError(f"clip `{record.name}` has sizes that are none")
        if record.frames < 1 or min(record.size_px) < 1 or Fraction(record.rate) <= 0:
            raise ValueError(f"clip `{record.name}` has no frames")
        if "/" in record.shard or record.shard in ("", ".", "..") or "\\" in record.shard:
            raise ValueError(f"`{record.shard}` is no file of the data set")
        return record


@dataclass(frozen=True, eq=False)
class ClipSet:
    """Clips with frames and joints."""

    folder: Path
    records: tuple[Record, ...]
    identity: str
    """SHA-256 of the list of clips: the same for the same clips."""
    about: dict[str, Any] = field(default_factory=dict)
    """How it was made."""

    def joints_mm(self, record: Record) -> JointsMm:
        """(T, 24, 3) of one clip, camera space."""
        return _joints(self, record)

    def frames(self, record: Record, places: Sequence[int]) -> Frames:
        """(n, H, W, 3) frames of one clip by their numbers.

        Raises:
            MtvcraftError: they are not what was written.
        """
        lengths, checksums = _listed(self, record)
        begins = np.concatenate([[0], np.cumsum(lengths)])
        wanted = sorted(set(places))
        parts = [(int(begins[place]), lengths[place]) for place in wanted]
        path = self.folder / record.shard
        coded = read_member(path, self._name(record, "frames"), *self._place(record, "frames"), parts)
        decoded = {}
        for place, content in zip(wanted, coded, strict=True):
            if zlib.crc32(content) != checksums[place]:
                raise damaged(path, f"frame {place} of `{record.name}` has changed")
            decoded[place] = _picture(content, record, path)
        return np.stack([decoded[place] for place in places])

    def read(self, record: Record, part: str) -> bytes:
        """Read a small part of a clip whole, and check it.

        Raises:
            MtvcraftError: it is not what was written.
        """
        path, (begin, size) = self.folder / record.shard, self._place(record, part)
        content = read_member(path, self._name(record, part), begin, size, [(0, size)])[0]
        if hashlib.sha256(content).hexdigest() != record.sha256[part]:
            raise damaged(path, f"`{self._name(record, part)}` has changed")
        return content

    def _name(self, record: Record, part: str) -> str:
        return record.name + ENDINGS[part]

    def _place(self, record: Record, part: str) -> tuple[int, int]:
        return record.begin[part], record.bytes[part]


def is_clip_set(path: Path) -> bool:
    """Whether a folder is a finished data set of videos."""
    return (path / INDEX).is_file()


def load_clip_set(folder: Path) -> ClipSet:
    """Read a data set's index.

    Raises:
        MtvcraftError: there is none (exit 2), or it is damaged (exit 4).
    """
    path = folder / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, and this program reads {FORMAT}")
        records = tuple(Record.of(told) for told in content["clips"])
    except FileNotFoundError as error:
        raise MtvcraftError(
            f"`{folder}` is no finished data set",
            hint="make one with `mtvcraft train prepare`; the same command finishes one that was interrupted",
            exit=Exit.USAGE,
        ) from error
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise damaged(path, str(error)) from error
    if not records:
        raise damaged(path, "it lists no clips")
    return ClipSet(folder, records, identity_of(records), content.get("about", {}))


def identity_of(records: Sequence[Record]) -> str:
    """Hash a list of clips; new words for a clip leave it the same."""
    told = [{key: value for key, value in record.told().items() if key != "caption"} for record in records]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@lru_cache(REMEMBERED)
def _listed(clips: ClipSet, record: Record) -> tuple[list[int], list[int]]:
    """The bytes and the checksums of a clip's frames."""
    path = clips.folder / record.shard
    try:
        about = json.loads(clips.read(record, "about"))
        lengths, checksums = about["frame_bytes"], about["frame_crc32"]
        if not len(lengths) == len(checksums) == record.frames or sum(lengths) != record.bytes["frames"]:
            raise ValueError("its frames don't add up")
        if any(type(length) is not int or length < 0 for length in lengths):
            raise ValueError("a frame has no length")
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"`{record.name}.json`: {error}") from error
    return lengths, checksums


@lru_cache(REMEMBERED)
def _joints(clips: ClipSet, record: Record) -> JointsMm:
    path = clips.folder / record.shard
    content = clips.read(record, "joints")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > (record.frames + 16) * ROW_BYTES:
                raise ValueError("more numbers than the clip has frames for")
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            joints_mm: JointsMm = arrays["joints_mm"]
        if joints_mm.shape != (record.frames, 24, 3) or joints_mm.dtype != np.float32:
            raise ValueError(f"joints of {joints_mm.dtype} {joints_mm.shape}")
        if not np.isfinite(joints_mm).all():
            raise ValueError("joints that are no numbers")
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise damaged(path, f"`{record.name}.joints.npz`: {error}") from error
    joints_mm.flags.writeable = False
    return joints_mm


def _picture(content: bytes, record: Record, path: Path) -> Any:
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            if image.size != record.size_px:  # told by the head, before any pixel takes memory
                raise ValueError(f"a picture of {image.size[0]} x {image.size[1]} pixels")
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise damaged(path, f"a frame of `{record.name}`: {error}") from error
