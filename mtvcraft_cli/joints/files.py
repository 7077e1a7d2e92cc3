"""Joints on disk: `NAME.joints.npz`, and other people's `.npy`."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.joints.between import Between
from mtvcraft_cli.joints.skeleton import FOV_DEG, NAMES, NEUTRAL_LENGTHS_MM, PARENTS
from mtvcraft_cli.shapes import Confidence, JointsMm, Observed

FORMAT: Final = 1
ASSUMED_RATE: Final = Fraction(30)
ASSUMED_SIZE_PX: Final = (1024, 1024)
SMPL_WIDTHS: Final = {"smpl_pose": 72, "smpl_betas": 10, "smpl_transl": 3}


@dataclass(frozen=True)
class Motion:
    """One person's joints over a clip: the fields of `NAME.joints.npz`."""

    joints_mm: JointsMm
    confidence: Confidence
    observed: Observed
    rate: Fraction
    """Frames a second, exact."""
    size_px: tuple[int, int]
    """Width and height of the frames."""
    fov_deg: float = FOV_DEG
    """Field of view along the longer side."""
    smpl_pose: Float32[np.ndarray, "T 72"] | None = None
    """Axis times angle, radians."""
    smpl_betas: Float32[np.ndarray, "T 10"] | None = None
    smpl_transl: Float32[np.ndarray, "T 3"] | None = None
    """Metres, camera space."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Source and its SHA-256, backend and version, person rule, command."""

    def __len__(self) -> int:
        return len(self.joints_mm)


def save_motion(path: Path, motion: Motion) -> None:
    """Write `NAME.joints.npz`; whatever was there stays until the new file is whole."""
    smpl = {name: getattr(motion, name) for name in SMPL_WIDTHS if getattr(motion, name) is not None}
    with writing(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            joints_mm=motion.joints_mm,
            confidence=motion.confidence,
            observed=motion.observed,
            fps=np.float64(motion.rate),
            fps_num=np.int64(motion.rate.numerator),
            fps_den=np.int64(motion.rate.denominator),
            size_px=np.array(motion.size_px, np.int64),
            fov_deg=np.float64(motion.fov_deg),
            meta=np.array(json.dumps({"format": FORMAT, **motion.meta}, ensure_ascii=False)),
            **smpl,
        )


def load_motion(path: Path) -> tuple[Motion, tuple[str, ...]]:
    """Read joints, from our own file or from anybody's.

    Args:
        path: `NAME.joints.npz`, or an `.npz` with at least `joints_mm`, or a plain `.npy` of (T, 24, 3) millimetres.
            What it is is told by its content.

    Returns:
        The motion, and a sentence for each thing the file doesn't say and that had to be assumed.

    Raises:
        MtvcraftError: (`Exit.INPUT`) not such a file; a wrong shape; NaN or infinite values; all zero; not
            millimetres; not before the camera; a frame rate that isn't positive.
    """
    fields = _read(path)
    joints_mm = _checked_joints(fields, path.name)
    frames = len(joints_mm)
    assumed: list[str] = []

    def given(name: str, shape: tuple[int, ...], otherwise: npt.NDArray[Any], sentence: str) -> npt.NDArray[Any]:
        if name not in fields:
            assumed.append(sentence)
            return otherwise
        return _checked(fields[name], name, shape, path.name).astype(otherwise.dtype)

    rate = _rate(fields, path.name)
    if rate is None:
        rate = ASSUMED_RATE
        assumed.append(f"`{path.name}` has no frame rate: took {ASSUMED_RATE} frames a second")
    seen = np.ones(frames, bool)
    observed = given("observed", (frames,), seen, f"`{path.name}` doesn't say what was observed: took every frame")
    sure = np.ones((frames, len(NAMES)), np.float32)
    confidence = given("confidence", sure.shape, sure, f"`{path.name}` has no confidence: took every joint as sure")
    size = np.array(ASSUMED_SIZE_PX, np.int64)
    size_px = given("size_px", (2,), size, f"`{path.name}` has no picture size: took {size[0]} x {size[1]} pixels")
    fov = np.array(FOV_DEG)
    fov_deg = given("fov_deg", (), fov, f"`{path.name}` has no field of view: took {FOV_DEG:g} degrees")
    if size_px.min() < 1 or not 0 < fov_deg < 180:
        raise _wrong(path.name, f"a picture of {size_px[0]} x {size_px[1]} pixels, seen under {fov_deg:g} degrees")
    smpl = {
        name: _checked(fields[name], name, (frames, width), path.name).astype(np.float32)
        for name, width in SMPL_WIDTHS.items()
        if name in fields
    }
    motion = Motion(
        joints_mm=joints_mm,
        confidence=confidence,
        observed=observed,
        rate=rate,
        size_px=(int(size_px[0]), int(size_px[1])),
        fov_deg=float(fov_deg),
        meta=_meta(fields, path.name),
        **smpl,
    )
    return motion, tuple(assumed)


def resample(motion: Motion, rate: Fraction, frames: int) -> Motion:
    """Show the same motion at another frame rate.

    Args:
        motion: at its own rate.
        rate: frames a second wanted.
        frames: how many are wanted from the start on; past the end of `motion` its last frame is held.

    Returns:
        Frame i lies at time i / rate, on the straight line between its neighbours; it counts as observed where both
        were. Frames that fall on a frame of `motion` are that frame, bit by bit.
    """
    step = motion.rate / rate  # frames of `motion` from one wanted frame to the next
    last = len(motion) - 1
    places = [min(divmod(index * step.numerator, step.denominator), (last, 0)) for index in range(frames)]
    lower = np.array([whole for whole, _ in places], np.int64)
    part = np.array([rest / step.denominator for _, rest in places])
    between = Between(lower, lower + (part > 0), part)
    return replace(
        motion,
        joints_mm=between.of(motion.joints_mm),
        confidence=between.of(motion.confidence),
        observed=motion.observed[between.lower] & motion.observed[between.upper],
        rate=rate,
        smpl_pose=None if motion.smpl_pose is None else between.of_rotations(motion.smpl_pose),
        smpl_betas=None if motion.smpl_betas is None else between.of(motion.smpl_betas),
        smpl_transl=None if motion.smpl_transl is None else between.of(motion.smpl_transl),
    )


def frame_names(frames: npt.NDArray[np.integer]) -> str:
    """Return e.g. "frames 3 to 5, 9" for ascending numbers; past five stretches only says how many there are more."""
    stretches = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1)
    words = [f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in stretches]
    more = f" and {len(words) - 5} more stretches" if len(words) > 5 else ""
    return f"{'frame' if len(frames) == 1 else 'frames'} " + ", ".join(words[:5]) + more


def refuse_nan(values: npt.NDArray[Any], file: str, what: str = "joints") -> None:
    """Raise, with the frames' numbers, where rows of (T, ...) numbers have NaN or infinite values in them."""
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(bad):
        raise MtvcraftError(
            f"`{file}` has NaN or infinite {what} in {frame_names(bad)}",
            hint="fill those frames in or cut them off; `mtvcraft pose VIDEO` fills gaps by itself",
        )


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"joints_mm": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, OSError) as error:
        raise MtvcraftError(
            f"`{path.name}` can't be read as joints: it is no NumPy file of plain numbers, or it is cut off",
            hint="make it with `mtvcraft pose VIDEO`, or save (T, 24, 3) millimetres with `numpy.save`",
        ) from error


def _wrong(name: str, what: str) -> MtvcraftError:
    return MtvcraftError(f"`{name}` has {what}", hint="make the joints anew with `mtvcraft pose VIDEO`")


def _checked(values: npt.NDArray[Any], name: str, shape: tuple[int, ...], file: str) -> npt.NDArray[Any]:
    if values.shape != shape or values.dtype.kind not in "biuf":
        raise _wrong(file, f"`{name}` of {values.dtype} {values.shape}; it should be numbers of {shape}")
    if not np.isfinite(values).all():
        raise _wrong(file, f"`{name}` with values that are NaN or infinite")
    return values


def _checked_joints(fields: dict[str, npt.NDArray[Any]], file: str) -> JointsMm:
    """Return `joints_mm` as float32, or say what is wrong with it."""
    if "joints_mm" not in fields:
        raise _wrong(file, f"no `joints_mm`, only {', '.join(f'`{name}`' for name in fields) or 'nothing'}")
    values = fields["joints_mm"]
    if values.ndim != 3 or values.shape[1:] != (len(NAMES), 3) or not len(values) or values.dtype.kind not in "iuf":
        raise MtvcraftError(
            f"`{file}` holds {values.dtype} of shape {values.shape}; joints are numbers of shape (T, 24, 3)",
            hint="24 joints in the order of SMPL; x right, y down, z away from the camera, millimetres",
        )
    refuse_nan(values, file)
    joints_mm = values.astype(np.float32)
    if not joints_mm.any():
        raise MtvcraftError(f"`{file}` holds zeros only", hint="make the joints with `mtvcraft pose VIDEO`")
    bones = joints_mm[:, 1:] - joints_mm[:, PARENTS[1:]]
    body = float(np.median(np.linalg.norm(bones, axis=-1).sum(axis=1)) / NEUTRAL_LENGTHS_MM.sum())
    if not 0.1 < body < 10:
        unit = "metres: multiply them by 1000" if 1e-4 < body < 1e-2 else "not millimetres"
        raise MtvcraftError(
            f"the body in `{file}` is {body:.2g} times as large as a grown person, taken as millimetres",
            hint=f"these look like {unit}" if "metres:" in unit else f"these are {unit}: scale them",
        )
    if np.median(joints_mm[..., 2]) <= 0:
        raise MtvcraftError(
            f"the body in `{file}` is not in front of the camera: most joints have z <= 0",
            hint="joints are in camera space: x right, y down, z away; add the body's distance, e.g. 2000 mm, to z",
        )
    return joints_mm


def _rate(fields: dict[str, npt.NDArray[Any]], file: str) -> Fraction | None:
    """Return the exact rate, or None where the file has none."""
    if "fps_num" in fields and "fps_den" in fields:
        above, below = (int(_checked(fields[name], name, (), file)) for name in ("fps_num", "fps_den"))
        rate = Fraction(above, below) if below else Fraction(0)
    elif "fps" in fields:
        rate = Fraction(float(_checked(fields["fps"], "fps", (), file))).limit_denominator(1001)
    else:
        return None
    if rate <= 0:
        raise _wrong(file, f"a frame rate of {rate}")
    return rate


def _meta(fields: dict[str, npt.NDArray[Any]], file: str) -> dict[str, Any]:
    if "meta" not in fields:
        return {}
    try:
        meta = json.loads(str(fields["meta"][()]))
    except json.JSONDecodeError as error:
        raise _wrong(file, f"a `meta` that is not JSON ({error})") from error
    if not isinstance(meta, dict):
        raise _wrong(file, "a `meta` that is no JSON object")
    return meta
