"""What a motion file says, before anything is made of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS
from mtvcraft_cli.shapes import Observed

Up = Literal["x", "-x", "y", "-y", "z", "-z"]
RATE_KEYS: Final = ("fps", "rate", "mocap_framerate", "mocap_frame_rate", "frame_rate", "framerate", "video_fps")


@dataclass(frozen=True)
class Smpl:
    """SMPL's parameters, in the axes of their file."""

    pose: Float32[np.ndarray, "T 72"]
    """Axis times angle, radians."""
    betas: Float32[np.ndarray, "10"]
    origin_mm: Float32[np.ndarray, "3"]
    """Where the pelvis of the resting body lies: joints are these, turned about it and moved by the translation."""


@dataclass(frozen=True)
class Found:
    """A motion in the axes and the unit of its file."""

    joints: Float32[np.ndarray, "T 24 3"]
    kind: str
    """What the file is, in words."""
    rate: Fraction | None = None
    size_px: tuple[int, int] | None = None
    observed: Observed | None = None
    smpl: Smpl | None = None
    unit_mm: float | None = None
    """Millimetres in one unit of the file; None is to be found out."""
    any_unit: bool = False
    """Whether a unit that nobody knows is scaled to a body of neutral size."""
    up: Up | None = None
    """What the format says points up; asked where the body doesn't tell."""
    in_camera: bool = False
    """Whether it is known to be camera space in millimetres."""
    said: tuple[str, ...] = ()
    """What was assumed so far."""
    cut: bool = False
    """Whether only the wanted part of it is here."""

    def rows(self, rows: slice) -> "Found":
        """Some frames of it."""
        return replace(
            self,
            joints=self.joints[rows],
            observed=None if self.observed is None else self.observed[rows],
            smpl=None if self.smpl is None else replace(self.smpl, pose=self.smpl.pose[rows]),
        )


def size_of_body(joints: npt.NDArray[np.floating]) -> float:
    """Return how many times longer all bones of (T, 24, 3) joints are than the neutral body's; the median frame's."""
    bones = joints[:, 1:] - joints[:, PARENTS[1:]]
    return float(np.median(np.linalg.norm(bones, axis=-1).sum(axis=1)) / NEUTRAL_LENGTHS_MM.sum())


def looks_like_a_body(joints: npt.NDArray[Any]) -> bool:
    """Whether (T, 24 or 22, 3) numbers are joints, with bones in a body's proportions, rather than rotations."""
    if not len(joints) or not np.isfinite(joints).all():
        return True  # to be refused as joints, by the names of the frames
    count = joints.shape[1]
    bones = np.linalg.norm(joints[:, 1:] - joints[:, PARENTS[1:count]], axis=-1)
    shares = np.log(np.maximum(np.median(bones, axis=0), 1e-9) / NEUTRAL_LENGTHS_MM[1:count])
    return float(np.std(shares)) < 0.6


def rate_of(fields: Mapping[str, Any], name: str) -> Fraction | None:
    """Return the frame rate that a file gives under one of the usual keys, or None."""
    for key in RATE_KEYS:
        if key in fields and np.size(fields[key]) == 1:
            try:
                rate = Fraction(float(np.asarray(fields[key]).item())).limit_denominator(1001)
            except (ValueError, TypeError, OverflowError):
                rate = Fraction(0)
            if not 0 < rate <= 10_000:
                raise MtvcraftError(f"`{name}` has a frame rate of {fields[key]}", hint="give it with `--drive-fps`")
            return rate
    return None
