"""What drives: a video, joints or tokens, told by content; and who finds the person in a video."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.sidecar import fingerprint
from mtvcraft_cli.weights.locate import Located, find_released, manifest

if TYPE_CHECKING:
    from mtvcraft_cli.joints.backend import PoseBackend
    from mtvcraft_cli.joints.files import Motion
    from mtvcraft_cli.tokens.files import TokenFile
    from mtvcraft_cli.video.read import ClipInfo
    from mtvcraft_cli.video.write import Sound


@dataclass(frozen=True, kw_only=True)
class PoseSettings:
    """How a person is found in a video."""

    backend: str = "auto"
    max_gap_s: Fraction = Fraction(1, 2)
    trust_file: Path | None = None
    weights: Path | None = None

    def told(self) -> dict[str, Any]:
        """What the result depends on, as plain data."""
        return {"backend": self.backend, "max_gap_s": str(self.max_gap_s)}


@dataclass(frozen=True, kw_only=True)
class Drive:
    """Where the motion comes from: a video, joints, or tokens."""

    path: Path
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


def look_at_drive(path: Path, preset: Preset | None = None, tokenizer: str | None = None) -> Drive:
    """Tell by its content what a driver is, and how long.

    Args:
        path: a video, joints or tokens.
        preset: for which tokens are wanted; None takes no tokens.
        tokenizer: what tells the preset's tokenizer from another, see `tokenizer_identity`.

    Raises:
        MtvcraftError: exit 4; it is nothing that can drive, or holds tokens of another preset.
    """
    from mtvcraft_cli.video.kind import Kind, kind_of

    kind = kind_of(path)
    if kind is Kind.NUMPY_ARRAY and holds_tokens(path):
        if preset is None:
            raise MtvcraftError(
                f"`{path}` holds motion tokens", hint="turn them into joints with `mtvcraft tokenize --decode`"
            )
        from mtvcraft_cli.tokens.files import load_tokens

        tokens, assumed = load_tokens(path, preset, tokenizer)
        return Drive(
            path=path,
            kind="tokens",
            rate=Fraction(tokens.meta.get("drive_rate", tokens.rate)),
            frames=tokens.total_frames,
            tokens=tokens,
            assumed=tuple(assumed),
        )
    if kind in (Kind.NUMPY_ARRAY, Kind.NUMPY_ARCHIVE):
        from mtvcraft_cli.joints.files import load_motion

        motion, taken = load_motion(path)
        return Drive(
            path=path,
            kind="joints",
            rate=motion.rate,
            frames=len(motion.joints_mm),
            motion=motion,
            assumed=taken,
        )
    from mtvcraft_cli.video.read import probe

    clip = probe(path)
    return Drive(path=path, kind="video", rate=clip.rate, frames=clip.frames, clip=clip)


def tokenizer_identity(part: Located, hashes: Mapping[str, str]) -> str:
    """What tells one tokenizer from another: a hash over its files, or the seed of its random numbers."""
    own = sorted((name, sha256) for name, sha256 in hashes.items() if name.startswith("tokenizer/"))
    return fingerprint(dict(own)) if own else part.source


def holds_tokens(path: Path) -> bool:
    """Whether a file is an array of tokens (W, L, 24) or (W, L, 24, D), and not of joints (T, 24, 3)."""
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        return False
    if not isinstance(array, np.ndarray):
        return False
    return array.ndim == 4 or (np.issubdtype(array.dtype, np.integer) and array.shape[1:] != (24, 3))


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


def choose_estimator(drive: Path, settings: PoseSettings) -> Estimator | None:
    """Load the pose backend that the settings ask for; None where the driver is no video.

    Raises:
        MtvcraftError: exit 6; it isn't installed, or its file is missing or not trusted.
    """
    from mtvcraft_cli.video.kind import Kind, kind_of

    if kind_of(drive) in (Kind.NUMPY_ARRAY, Kind.NUMPY_ARCHIVE):
        return None
    from mtvcraft_cli.joints.backend import choose_backend

    nlf = manifest()["nlf"]
    file = settings.trust_file or find_released(nlf, settings.weights)
    backend = choose_backend(settings.backend, file=file, known=nlf.sha256, trust_file=settings.trust_file is not None)
    if backend.name != "nlf" or file is None:
        return Estimator(backend=backend, hashes={}, licence="Apache-2.0")
    return Estimator(backend=backend, hashes={f"pose/{file.name}": sha256_of(file)}, licence=nlf.licence)
