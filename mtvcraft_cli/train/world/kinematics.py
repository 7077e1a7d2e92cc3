"""Bones to joints and back: how every joint is turned, seen from positions alone."""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM, PARENTS, chain
from mtvcraft_cli.shapes import JointsMm

Number: TypeAlias = int | float
Turns: TypeAlias = Float32[np.ndarray, "T 24 3 3"]
"""What turns each joint's rest axes (x to the person's left, y up, z to the front) into the world's."""

_CHILDREN: Final = tuple(tuple(child for child in range(24) if PARENTS[child] == joint) for joint in range(24))


def forward(turns: Turns, root_mm: Float32[np.ndarray, "T 3"], offsets_mm: Float32[np.ndarray, "24 3"]) -> JointsMm:
    """Hang a skeleton of any bone lengths on the turns of its joints.

    Args:
        turns: (T, 24, 3, 3) rotation of each joint.
        root_mm: (T, 3) where the pelvis is.
        offsets_mm: (24, 3) from each joint's parent, T-pose.

    Returns:
        (T, 24, 3) joints in the axes of `turns`.
    """
    bones = np.empty((len(turns), 24, 3), np.float32)
    bones[:, 0] = root_mm
    bones[:, 1:] = np.einsum("tjab,jb->tja", turns[:, PARENTS[1:]], offsets_mm[1:])
    return chain(bones)


def turns_of(joints_mm: JointsMm) -> Turns:
    """Find how each joint is turned from where the joints are.

    Pelvis and chest have three bones each, which fix their rotation (least squares). A joint with one bone turns as
    its parent does, then by the shortest way that lays its bone in place: the twist about a bone can't be seen in
    positions. Hands, feet and the head follow the joint before them.

    Args:
        joints_mm: (T, 24, 3) in any right-handed axes.

    Returns:
        (T, 24, 3, 3) rotations.
    """
    turns = np.empty((len(joints_mm), 24, 3, 3), np.float32)
    for joint, children in enumerate(_CHILDREN):
        parent = turns[:, PARENTS[joint]] if joint else np.broadcast_to(np.eye(3, dtype=np.float32), (len(turns), 3, 3))
        if len(children) == 3:
            turns[:, joint] = _fitted(
                joints_mm[:, children] - joints_mm[:, [joint]], NEUTRAL_OFFSETS_MM[list(children)]
            )
        elif children:
            bone = unit(joints_mm[:, children[0]] - joints_mm[:, joint])
            resting = unit(parent @ NEUTRAL_OFFSETS_MM[children[0]])
            turns[:, joint] = _shortest(resting, bone) @ parent
        else:
            turns[:, joint] = parent
    return turns


def unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """Scale (..., 3) vectors to length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _fitted(bones: npt.NDArray[np.float32], resting: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn `resting` (3, 3) onto `bones` (T, 3, 3), one bone a row: the nearest rotation, by singular values."""
    left, _, right = np.linalg.svd(np.einsum("tka,kb->tab", unit(bones), unit(resting)))
    left[..., 2] *= np.linalg.det(left @ right)[:, None]
    return left @ right


def _shortest(source: npt.NDArray[np.float32], target: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rotate unit vectors (T, 3) onto others by the smallest angle (Rodrigues)."""
    axis = np.cross(source, target)
    cosine = np.einsum("ta,ta->t", source, target)[:, None, None]
    skew = np.zeros((len(axis), 3, 3), np.float32)
    skew[:, (2, 0, 1), (1, 2, 0)] = axis
    skew -= skew.transpose(0, 2, 1)
    return np.eye(3, dtype=np.float32) + skew + skew @ skew / np.maximum(1 + cosine, 1e-3)
