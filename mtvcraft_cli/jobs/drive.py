"""What drives: a video, joints or tokens, told by content; and who finds the person in a video."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtvcraft_cli.cache import Cache, sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.sidecar import check_input, fingerprint
from mtvcraft_cli.weights.locate import Located, find_released
from mtvcraft_cli.weights.lock import pinned_hashes
from mtvcraft_cli.weights.manifest import manifest

if TYPE_CHECKING:
    from mtvcraft_cli.joints.backend import PoseBackend
    from mtvcraft_cli.joints.files import Motion
    from mtvcraft_cli.tokens.files import TokenFile
    from mtvcraft_cli.video.read import ClipInfo
    from mtvcraft_cli.video.timecode import Time
    from mtvcraft_cli.video.write import Sound


@dataclass(frozen=True, kw_only=True)
class DriveSettings:
    """How the motion is got out of a driver."""

    start: str | None = None
    """Where to begin, as it was typed: a timecode that counts frames waits for the driver's rate."""
    end: str | None = None
    person: str = "largest"
    max_gap_s: Fraction = Fraction(1, 2)
    smooth: bool = False
    rate: Fraction | None = None
    """Frames a second of a driver that doesn't say its own."""
    clip: str | None = None
    """Which motion of a file that holds several."""
    camera: Path | Literal["auto", "front"] = "auto"
    joint_map: Path | None = None
    body_model: Path | None = None
    backend: str = "auto"
    background: tuple[int, int, int] = (255, 255, 255)
    """What is seen behind frames that are transparent."""
    trust_file: Path | None = None
    weights: Path | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Every file that is read besides the driver."""
        named = {"joint_map": self.joint_map, "body_model": self.body_model, "camera": self.camera}
        return {name: path for name, path in named.items() if isinstance(path, Path)}

    @property
    def times(self) -> "tuple[Time | None, Time | None]":
        """Start and end of the part that is wanted.

        Raises:
            MtvcraftError: exit 2; one is no time.
        """
        from mtvcraft_cli.video.timecode import read_time

        start, end = (None if text is None else read_time(text) for text in (self.start, self.end))
        return start, end

    @property
    def part(self) -> dict[str, Any]:
        """Which part of a video is wanted, in the words of `probe`."""
        start_s, end_s = self.times
        return {"start_s": start_s, "end_s": end_s, "rate": self.rate}

    @property
    def seen(self) -> dict[str, Any]:
        """The same in the words of `open_clip`, which wants to know what is behind transparent frames as well."""
        return {**self.part, "background": self.background}

    def told(self) -> dict[str, Any]:
        """What the result depends on besides files, as plain data."""
        return {
            "start": self.start,
            "end": self.end,
            "person": self.person,
            "max_gap_s": str(self.max_gap_s),
            "smooth": self.smooth,
            "drive_fps": self.rate and str(self.rate),
            "clip": self.clip,
            "camera": "file" if isinstance(self.camera, Path) else self.camera,
            "backend": self.backend,
            "background": list(self.background),
        }

    @classmethod
    def of(cls, told: Mapping[str, Any], files: Mapping[str, Path], **places: Path | None) -> "DriveSettings":
        """The settings that `told` told, with the files where they are now."""
        return cls(
            start=told["start"],
            end=told["end"],
            person=told["person"],
            max_gap_s=Fraction(told["max_gap_s"]),
            smooth=told["smooth"],
            rate=told["drive_fps"] and Fraction(told["drive_fps"]),
            clip=told["clip"],
            camera=files.get("camera", told["camera"]),
            joint_map=files.get("joint_map"),
            body_model=files.get("body_model"),
            backend=told["backend"],
            background=tuple(told["background"]),
            **places,
        )


@dataclass(frozen=True, kw_only=True)
class Framing:
    """How the driver's motion is changed before it is followed."""

    mirror: bool = False
    motion_strength: float = 1.0
    root: Literal["keep", "centre", "follow"] = "keep"

    def told(self) -> dict[str, Any]:
        """What the result depends on, as plain data; `Framing(**told)` is the same again."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Drive:
    """Where the motion comes from: a video, a motion, or tokens."""

    path: Path
    sha256: str
    kind: Literal["video", "joints", "tokens"]
    rate: Fraction
    """Frames per second of the driver."""
    frames: int
    clip: "ClipInfo | None" = None
    motion: "Motion | None" = None
    tokens: "TokenFile | None" = None
    assumed: tuple[str, ...] = ()
    """What the file doesn't say and was taken for granted, in sentences."""

    def told(self) -> dict[str, Any]:
        """The driver as plain data."""
        return {"drive": {"kind": self.kind, "frames": self.frames, "fps": str(self.rate)}}

    def own_sound(self) -> "Sound | None":
        """The driver's own sound, in step with its pictures; None where it has none."""
        from mtvcraft_cli.video.write import Sound

        return None if self.clip is None else Sound.of(self.clip)


def check_drive(path: Path, settings: DriveSettings) -> None:
    """Refuse a driver, or a file that is to be read with it, that isn't there, and a part that can't be one.

    Raises:
        MtvcraftError: exit 2.
    """
    from mtvcraft_cli.video.kind import is_pattern
    from mtvcraft_cli.video.timecode import check_order

    check_order(*settings.times)
    if not path.is_dir() and not is_pattern(path):
        check_input(path, "driver")
    for what, file in settings.files.items():
        check_input(file, what.replace("_", " "))


def hash_of(path: Path, cache: Cache) -> str:
    """The SHA-256 of a file, or over the names and hashes of the pictures of a folder or pattern."""
    from mtvcraft_cli.video.kind import Kind, kind_of
    from mtvcraft_cli.video.sequence import list_pictures

    if kind_of(path) is not Kind.FOLDER:
        return cache.sha256_of(path)
    pictures, _ = list_pictures(path)
    shared = os.path.commonpath([picture.parent.absolute() for picture in pictures])
    names = [os.path.relpath(picture.absolute(), shared) for picture in pictures]
    return fingerprint(
        {"pictures": [(name, cache.sha256_of(each)) for name, each in zip(names, pictures, strict=True)]}
    )


def description_of(path: Path) -> list[Path]:
    """The `.json` that lies beside tokens and says what they are, where there is one."""
    beside = [path.with_suffix(".json")] if path.suffix == ".npy" else []
    return [file for file in beside if file.is_file()]


def files_of(path: Path) -> list[Path]:
    """The files that a driver is: itself, or the pictures of a folder or pattern.

    Raises:
        MtvcraftError: exit 2; there is no such file, or none that fits the pattern. What can't be used is told later,
            by whoever reads it.
    """
    from mtvcraft_cli.video.kind import Kind, kind_of
    from mtvcraft_cli.video.sequence import list_pictures

    try:
        return list_pictures(path)[0] if kind_of(path) is Kind.FOLDER else [path]
    except MtvcraftError as error:
        if error.exit is Exit.USAGE:
            raise
        return [path]


def look_at_drive(
    path: Path, settings: DriveSettings, cache: Cache, preset: Preset | None = None, tokenizer: str | None = None
) -> Drive:
    """Tell by its content what a driver is, and how long.

    Args:
        path: a video, a folder or pattern of pictures, a motion, or tokens.
        settings: which part of it is wanted, and how a motion is read.
        cache: remembers the hashes of large files.
        preset: for which tokens are wanted; None takes no tokens.
        tokenizer: what tells the preset's tokenizer from another, see `tokenizer_identity`.

    Raises:
        MtvcraftError: exit 4; it is nothing that can drive, or holds tokens of another preset; exit 2; a cut of tokens.
    """
    from mtvcraft_cli.joints.own.body import load_body
    from mtvcraft_cli.video.kind import Kind, kind_of

    if settings.body_model is not None:
        load_body(settings.body_model)  # which may be no body: better said now than after the long work
    sha256 = hash_of(path, cache)
    if holds_tokens(path):
        return _look_at_tokens(path, sha256, settings, preset, tokenizer)
    if holds_motion(path):
        return _look_at_motion(path, sha256, settings)
    from mtvcraft_cli.video.read import probe

    clip = probe(path, **settings.part)
    unused = ("clip", "camera", "joint_map", *(() if kind_of(path) is Kind.FOLDER else ("rate",)))
    return Drive(
        path=path,
        sha256=sha256,
        kind="video",
        rate=clip.rate,
        frames=clip.frames,
        clip=clip,
        assumed=(*clip.assumed, *_without_effect(settings, unused, "a video")),
    )


FLAGS = {"rate": "--drive-fps"}


def _without_effect(settings: DriveSettings, unused: Iterable[str], what: str) -> Iterator[str]:
    """Say which settings were given that mean nothing for this kind of driver."""
    usual = DriveSettings()
    for name in unused:
        if getattr(settings, name) != getattr(usual, name):
            yield f"`{FLAGS.get(name, '--' + name.replace('_', '-'))}` has no effect on {what}"


def _look_at_tokens(
    path: Path, sha256: str, settings: DriveSettings, preset: Preset | None, tokenizer: str | None
) -> Drive:
    if preset is None:
        raise MtvcraftError(
            f"`{path}` holds motion tokens", hint="turn them into joints with `mtvcraft tokenize --decode`"
        )
    if settings.start or settings.end:
        raise MtvcraftError(
            f"`{path}` holds motion tokens, which can't be cut",
            hint="cut the video or the joints that they were made from, with the same `--start` and `--end`",
            exit=Exit.USAGE,
        )
    from mtvcraft_cli.tokens.files import load_tokens

    tokens, assumed = load_tokens(path, preset, tokenizer)
    return Drive(
        path=path,
        sha256=sha256,
        kind="tokens",
        rate=Fraction(tokens.meta.get("drive_rate", tokens.rate)),
        frames=tokens.total_frames,
        tokens=tokens,
        assumed=(*assumed, *_without_effect(settings, (*IN_A_VIDEO, *IN_A_MOTION), "tokens")),
    )


IN_A_VIDEO = ("person", "backend")
IN_A_MOTION = ("clip", "camera", "joint_map", "body_model", "rate", "smooth")


def _look_at_motion(path: Path, sha256: str, settings: DriveSettings) -> Drive:
    from mtvcraft_cli.joints.own.read import OwnMotion, read_own
    from mtvcraft_cli.video.kind import Kind, kind_of

    own = OwnMotion(
        fps=settings.rate,
        clip=settings.clip,
        joint_map=settings.joint_map,
        body_model=settings.body_model,
        camera=settings.camera,
        max_gap_s=settings.max_gap_s,
        part=partial(_part_of_motion, settings, path) if settings.start or settings.end else None,
    )
    motion, assumed = read_own(path, own)
    motion = replace(motion, meta={**motion.meta, "source": {"name": path.name, "sha256": sha256}})
    unused = [*IN_A_VIDEO, *([] if kind_of(path) is Kind.BVH else ["joint_map"])]
    if kind_of(path) is Kind.NUMPY_ARCHIVE and "kind" not in motion.meta:  # our own
        unused += ["clip", "camera"]
    return Drive(
        path=path,
        sha256=sha256,
        kind="joints",
        rate=motion.rate,
        frames=len(motion),
        motion=motion,
        assumed=(*assumed, *_without_effect(settings, unused, "this motion")),
    )


def _part_of_motion(settings: DriveSettings, path: Path, rate: Fraction, frames: int) -> slice:
    """The frames whose time lies from `--start` on and before `--end`.

    Raises:
        MtvcraftError: exit 4; there are none.
    """
    from mtvcraft_cli.video.timecode import Timecode, check_order, spoken

    start_s, end_s = (time.at(rate) if isinstance(time, Timecode) else time for time in settings.times)
    check_order(start_s, end_s)
    part = slice(ceil((start_s or 0) * rate), None if end_s is None else ceil(end_s * rate))
    if not range(frames)[part]:
        raise MtvcraftError(
            f"nothing of `{path}` lies between `--start` and `--end`: it is {spoken(frames / rate)} long",
            hint="choose a `--start` within it, and an `--end` after that",
        )
    return part


def tokenizer_identity(part: Located, hashes: Mapping[str, str]) -> str:
    """What tells one tokenizer from another: a hash over its files, or the seed of its random numbers."""
    own = sorted((name, sha256) for name, sha256 in hashes.items() if name.startswith("tokenizer/"))
    return fingerprint(dict(own)) if own else part.source


def holds_tokens(path: Path) -> bool:
    """Whether a file is an array of tokens (W, L, 24) or (W, L, 24, D), and not of joints (T, 24, 3)."""
    import numpy as np

    from mtvcraft_cli.video.kind import Kind, kind_of

    if kind_of(path) is not Kind.NUMPY_ARRAY:
        return False
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return False
    if array.ndim == 4:
        return array.shape[2] == 24 and array.shape[1:] != (24, 3, 3)  # those are rotations of SMPL's
    return bool(np.issubdtype(array.dtype, np.integer) and array.shape[1:] != (24, 3))


def holds_motion(path: Path) -> bool:
    """Whether a file says where somebody's joints are, whatever its layout."""
    from mtvcraft_cli.joints.own.content import own_kind
    from mtvcraft_cli.video.kind import Kind, kind_of

    kind = kind_of(path)
    if kind is Kind.TEXT:  # of which pickles of protocol 0 look like
        return own_kind(path) is not None
    return kind in (Kind.NUMPY_ARRAY, Kind.NUMPY_ARCHIVE, Kind.PICKLE, Kind.BVH)


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """Who finds the person in a video, loaded, with what tells its results from others'."""

    backend: "PoseBackend"
    hashes: Mapping[str, str]
    """SHA-256 of its weight file by name; nothing where it comes in a package."""
    licence: str

    def told(self) -> dict[str, Any]:
        """What joints depend on besides the video."""
        return {"name": self.backend.name, "version": self.backend.version, **self.hashes}


def choose_estimator(drive: Path, settings: DriveSettings) -> Estimator | None:
    """Load the pose backend that the settings ask for; None where the driver is no video.

    Raises:
        MtvcraftError: exit 6; it isn't installed, or its file is missing or not trusted.
    """
    if holds_motion(drive):
        return None
    from mtvcraft_cli.joints.backend import choose_backend

    nlf = manifest()["nlf"]
    file = settings.trust_file or find_released(nlf, settings.weights)
    known = [*nlf.sha256, *pinned_hashes(nlf)]
    backend = choose_backend(settings.backend, file=file, known=known, trust_file=settings.trust_file is not None)
    if backend.name != "nlf" or file is None:
        return Estimator(backend=backend, hashes={}, licence="Apache-2.0")
    return Estimator(backend=backend, hashes={f"pose/{file.name}": sha256_of(file)}, licence=nlf.licence)
