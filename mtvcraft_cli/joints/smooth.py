"""The one-euro filter (Casiez, Roussel and Vogel, CHI 2012): calms joints that rest and lets go of those that hurry.

Each joint is low-passed with a cut-off that rises with its speed. Run forwards, such a filter lags; as the whole clip
is there, it is run backwards too, and the mean of both lags in neither way.
"""

from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.joints.turns import axis_angles, matrices

Array = npt.NDArray[np.float64]
Points: TypeAlias = Float32[np.ndarray, "T N 3"]
ARROW_MM: Final = 300.0

CALM_HZ: Final = 1.0
"""Cut-off for a joint at rest."""
HURRY_HZ: Final = 0.01
"""What the cut-off rises by for every mm/s."""
SPEED_HZ: Final = 2.0
"""Cut-off for the speed itself."""


def smooth(joints_mm: Points, rate: Fraction) -> Points:
    """Smooth joints over time.

    Args:
        joints_mm: (T, N, 3) without NaN: gaps are filled first.
        rate: frames a second; the same motion at another rate is smoothed alike.

    Returns:
        (T, N, 3). Confidence has no part in it and stays as it was.
    """
    if np.isnan(joints_mm).any():
        raise ValueError("joints with NaN: fill gaps first")
    values = joints_mm.astype(np.float64)
    forwards = _one_euro(values, float(rate))
    backwards = _one_euro(values[::-1], float(rate))[::-1]
    return ((forwards + backwards) / 2).astype(np.float32)


def smooth_pose(pose: Float32[np.ndarray, "T 72"], rate: Fraction) -> Float32[np.ndarray, "T 72"]:
    """Smooth SMPL's rotations as the joints are: by the tips of three arrows of a bone's length that turn with them.

    Args:
        pose: (T, 72) axis times angle, radians.
        rate: frames a second.
    """
    arrows_mm = ARROW_MM * matrices(pose.reshape(len(pose), -1, 3)).swapaxes(-1, -2)  # (T, 24, 3 arrows, 3)
    smoothed = smooth(arrows_mm.reshape(len(pose), -1, 3), rate).reshape(arrows_mm.shape).swapaxes(-1, -2)
    left, _, right = np.linalg.svd(smoothed)
    left[..., 2] *= np.linalg.det(left @ right)[..., None]
    return axis_angles(left @ right).reshape(len(pose), -1)


def _one_euro(values: Array, rate: float) -> Array:
    """Filter (T, N, 3) from the first frame to the last."""
    out = values.copy()
    speed = np.zeros(values.shape[1:])
    for frame in range(1, len(values)):
        speed += _share(SPEED_HZ, rate) * ((values[frame] - out[frame - 1]) * rate - speed)
        cutoff_hz = CALM_HZ + HURRY_HZ * np.linalg.norm(speed, axis=-1, keepdims=True)
        out[frame] = out[frame - 1] + _share(cutoff_hz, rate) * (values[frame] - out[frame - 1])
    return out


def _share(cutoff_hz: float | Array, rate: float) -> Array:
    """How much of a new value a first-order low-pass takes in."""
    return np.asarray(1 / (1 + rate / (2 * np.pi * cutoff_hz)))
