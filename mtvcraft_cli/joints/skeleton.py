"""SMPL's 24 joints: names, parents, sides, the neutral body in millimetres, and the camera they are seen by."""

from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

Array = TypeVar("Array", npt.NDArray[np.float32], npt.NDArray[np.float64])

NAMES: Final = (
    *("pelvis", "l_hip", "r_hip", "spine1", "l_knee", "r_knee", "spine2", "l_ankle", "r_ankle", "spine3"),
    *("l_foot", "r_foot", "neck", "l_collar", "r_collar", "head", "l_shoulder", "r_shoulder", "l_elbow", "r_elbow"),
    *("l_wrist", "r_wrist", "l_hand", "r_hand"),
)
"""Left and right are the person's own."""

PARENTS: Final = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)

PAIRS: Final = ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23))
"""Joints that trade places in a mirror, left one first."""

PARTS: Final = {
    "trunk": (0, 3, 6, 9, 12, 13, 14),
    "head": (15,),
    "arms": (16, 17, 18, 19),
    "hands": (20, 21, 22, 23),
    "legs": (1, 2, 4, 5),
    "feet": (7, 8, 10, 11),
}
"""Every joint is in one part of the body; wrists count as hands and ankles as feet."""

_HALF_BODY_MM: Final = {
    "spine1": (0, 101, -14),
    "spine2": (0, 120, 19),
    "spine3": (0, 42, 16),
    "neck": (0, 196, -16),
    "head": (0, 53, 63),
    "l_hip": (54, -87, -13),
    "l_knee": (0, -361, 0),
    "l_ankle": (0, -394, 0),
    "l_foot": (0, -47, 126),
    "l_collar": (70, 108, -14),
    "l_shoulder": (86, 18, 3),
    "l_elbow": (235, 0, 0),
    "l_wrist": (223, 0, 0),
    "l_hand": (71, 0, 0),
}

FOV_DEG: Final = 55.0
"""Field of view along the longer side, for every camera whose true one is unknown (paper, stage 1)."""


def mirror_order() -> tuple[int, ...]:
    """Return for each joint the index of the joint it becomes in a mirror."""
    order = list(range(len(NAMES)))
    for left, right in PAIRS:
        order[left], order[right] = right, left
    return tuple(order)


def _offsets() -> npt.NDArray[np.float32]:
    offsets = np.zeros((len(NAMES), 3), np.float32)
    for name, offset in _HALF_BODY_MM.items():
        offsets[NAMES.index(name)] = offset
    for left, right in PAIRS:
        offsets[right] = offsets[left] * (-1, 1, 1)
    return offsets


NEUTRAL_OFFSETS_MM: Final = _offsets()
"""(24, 3) from each joint's parent, T-pose: x to the person's left, y up, z to the front; medians over five dancers."""

NEUTRAL_LENGTHS_MM: Final = np.linalg.norm(NEUTRAL_OFFSETS_MM, axis=1)
"""(24,) length of the bone that ends at each joint; 0 for the pelvis."""


def neutral_pose() -> npt.NDArray[np.float32]:
    """Return the neutral body's T-pose, (24, 3) mm about the pelvis: x to the person's left, y up, z to the front."""
    return chain(NEUTRAL_OFFSETS_MM)


def chain(bones_mm: Array) -> Array:
    """Add up bones from the root.

    Args:
        bones_mm: (..., 24, 3) from each joint's parent to the joint; the pelvis' own entry is where it stands.

    Returns:
        (..., 24, 3) positions, the same unit.
    """
    joints = bones_mm.copy()
    for joint, parent in enumerate(PARENTS[1:], start=1):
        joints[..., joint, :] += joints[..., parent, :]
    return joints


def focal_px(size_px: tuple[int, int], fov_deg: float = FOV_DEG) -> float:
    """Return the focal length in pixels of a camera that sees `fov_deg` along the longer side of `size_px`."""
    return 0.5 * max(size_px) / float(np.tan(np.radians(fov_deg / 2)))


def project(
    joints_mm: npt.NDArray[np.floating], size_px: tuple[int, int], fov_deg: float = FOV_DEG
) -> npt.NDArray[np.float64]:
    """Return where points lie in the picture.

    Args:
        joints_mm: (..., 3) camera space: x right, y down, z away; millimetres.
        size_px: width and height of the picture, whose middle the camera points at.
        fov_deg: field of view along the longer side.

    Returns:
        (..., 2) x right and y down from the upper left corner, pixels; NaN for points not in front of the camera.
    """
    points = np.asarray(joints_mm, np.float64)
    depth = np.where(points[..., 2:] > 0, points[..., 2:], np.nan)
    return focal_px(size_px, fov_deg) * points[..., :2] / depth + np.asarray(size_px) / 2
