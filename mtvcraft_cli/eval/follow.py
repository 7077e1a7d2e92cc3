"""Motion-follow: whether the character does what the driver does, joint by joint. No paper's number: ours.

A pose is found again in the result by the same estimator as in the driver, and the two are compared after an alignment
that forgives what the task leaves open, and no more.

- Where the body is in each frame is forgiven: depth and place are the weakest guess of any estimator, and framing moves
  the character. Each frame is centred on the joints seen on both sides.
- One turn for the whole clip is forgiven, since the character may be seen by another camera. A turn per frame isn't:
  turning round is motion.
- One size for the whole clip is forgiven, since characters differ. It is the ratio of the two spreads and not the
  size of least distance, which would shrink a wrong motion to a point and praise it for that.

Unlike bodies leave a distance even where the motion is perfect, so the number means little alone. The same result
against another clip's motion is the control: following shows in being far below it.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32

from mtvcraft_cli.shapes import JointsMm

Array = npt.NDArray[np.float64]

_LEGS: Final = ((1, 4, 7), (2, 5, 8))
"""Hip, knee and ankle, of both sides."""
_FEWEST: Final = 4
"""Joints seen on both sides, without which a frame says nothing of a pose."""


@dataclass(frozen=True)
class Follow:
    """How near a result's motion is to another one."""

    mm: float
    """Mean distance of a joint, at the size of the driver's body."""
    legs: float
    """The same in lengths of the driver's leg, so that it can be averaged over drivers of any size."""
    found: float
    """The share of frames that could be compared, 0..1: the others are those in which nobody was found."""


def follow(
    result_mm: JointsMm,
    driver_mm: Float32[np.ndarray, "_ 24 3"],
    result_seen: Bool[np.ndarray, "_ 24"] | None = None,
    driver_seen: Bool[np.ndarray, "_ 24"] | None = None,
) -> Follow | None:
    """Compare the motion found in a result with its driver's, or with another clip's for the control.

    Args:
        result_mm: (T, 24, 3) joints found in the result, millimetres, camera space.
        driver_mm: (T', 24, 3) joints of the driver; frames are paired by order as far as both go.
        result_seen: (T, 24) False where a joint wasn't really seen; None: all were.
        driver_seen: (T', 24) the same of the driver.

    Returns:
        The distance after alignment; None where no frame has four joints seen on both sides.
    """
    count = min(len(result_mm), len(driver_mm))
    seen = np.ones((count, 24), bool)
    for each in (result_seen, driver_seen):
        if each is not None:
            seen &= each[:count]
    usable = seen.sum(1) >= _FEWEST
    if not usable.any():
        return None
    seen = seen[usable]
    made, meant = (_centred(joints[:count][usable].astype(np.float64), seen) for joints in (result_mm, driver_mm))
    size = np.sqrt(np.square(meant).sum() / max(np.square(made).sum(), 1e-12))
    apart = np.linalg.norm(size * made @ _turn(made, meant) - meant, axis=-1)  # 0 where not seen
    mm = float((apart.sum(1) / seen.sum(1)).mean())
    return Follow(mm, mm / _leg_mm(driver_mm), float(usable.mean()))


def _centred(joints: Array, seen: npt.NDArray[np.bool_]) -> Array:
    """(T, 24, 3) around the middle of the joints seen; those not seen lie in it and so weigh nothing."""
    kept = np.where(seen[..., None], joints, 0)
    middle = kept.sum(1, keepdims=True) / seen.sum(1)[:, None, None]
    return np.where(seen[..., None], joints - middle, 0)


def _turn(made: Array, meant: Array) -> Array:
    """The rotation R of least squares with `made @ R` near `meant` (Kabsch 1976); mirrors aren't allowed."""
    left, _, right = np.linalg.svd(np.einsum("tji,tjk->ik", made, meant))
    left[:, -1] *= np.sign(np.linalg.det(left @ right))
    return np.asarray(left @ right)


def _leg_mm(joints_mm: npt.NDArray[np.float32]) -> float:
    """The length of a leg, thigh and shin: the median over frames of the mean of both sides."""
    bones = [
        np.linalg.norm(joints_mm[:, upper].astype(np.float64) - joints_mm[:, lower], axis=-1)
        for leg in _LEGS
        for upper, lower in pairwise(leg)
    ]
    return float(np.median(np.sum(bones, axis=0) / 2))
