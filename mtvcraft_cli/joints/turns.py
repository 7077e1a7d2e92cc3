"""Bones to joints and back: how every joint is turned, seen from positions or told by SMPL."""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM, PARENTS, chain
from mtvcraft_cli.shapes import JointsMm

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


def turns_of_pose(pose: Float32[np.ndarray, "T 72"]) -> Turns:
    """Follow SMPL's rotations from the root to the ends.

    Args:
        pose: (T, 72) axis times angle of each joint in the frame of its parent, radians.

    Returns:
        (T, 24, 3, 3) rotations as `forward` wants them.
    """
    turns = matrices(pose.reshape(-1, 24, 3))
    for joint, parent in enumerate(PARENTS[1:], start=1):
        turns[:, joint] = turns[:, parent] @ turns[:, joint]
    return turns


def matrices(axis_angles: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Turn (..., 3) axis times angle, radians, into (..., 3, 3) rotations (Rodrigues)."""
    angle = np.linalg.norm(np.asarray(axis_angles, np.float64), axis=-1)[..., None, None]
    skew = np.zeros((*axis_angles.shape, 3))
    skew[..., (2, 0, 1), (1, 2, 0)] = axis_angles
    skew -= skew.swapaxes(-1, -2)
    # sin(a) / a and (1 - cos(a)) / a^2, written so that they hold for angle 0 too
    turned = np.eye(3) + np.sinc(angle / np.pi) * skew + 0.5 * np.sinc(angle / 2 / np.pi) ** 2 * (skew @ skew)
    return turned.astype(np.float32)


def axis_angles(rotations: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Turn (..., 3, 3) rotations into (..., 3) axis times angle, 0..pi radians."""
    r = np.asarray(rotations, np.float64)
    x, y, z = (r[..., axis, axis] for axis in range(3))
    # each row is the quaternion (w, x, y, z) times four times one of its parts; the longest row is the exactest
    rows = np.stack(
        [
            np.stack(
                [1 + x + y + z, r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]],
                -1,
            ),
            np.stack(
                [r[..., 2, 1] - r[..., 1, 2], 1 + x - y - z, r[..., 1, 0] + r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0]],
                -1,
            ),
            np.stack(
                [r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] + r[..., 0, 1], 1 - x + y - z, r[..., 2, 1] + r[..., 1, 2]],
                -1,
            ),
            np.stack(
                [r[..., 1, 0] - r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0], r[..., 2, 1] + r[..., 1, 2], 1 - x - y + z],
                -1,
            ),
        ],
        axis=-2,
    )
    longest = np.linalg.norm(rows, axis=-1).argmax(axis=-1)[..., None, None]
    quaternion = np.take_along_axis(rows, longest, axis=-2)[..., 0, :]
    quaternion *= np.where(quaternion[..., :1] < 0, -1, 1)
    sine = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, quaternion[..., :1])
    return (quaternion[..., 1:] * angle / np.where(sine > 0, sine, 1)).astype(np.float32)


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
