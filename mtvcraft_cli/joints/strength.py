"""`--motion-strength`: the same motion, larger or smaller, about the clip's mean pose."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.framing import shifted, trunk_axes
from mtvcraft_cli.joints.skeleton import PARENTS, chain
from mtvcraft_cli.joints.turns import axis_angles, matrices, turns_of_pose

Array = npt.NDArray[np.float64]


def strengthened(motion: Motion, factor: float) -> Motion:
    """Make a motion larger or smaller.

    What is scaled is how far each frame is from the mean pose of the clip: about the first frame, one odd pose at the
    start would bend the whole clip, and a walk would leave the picture twice as far on one side. Small angles grow by
    `factor`; the tangent of half the angle is what is multiplied, so that half a turn stays half a turn and nothing
    jumps there: an arm held high above a mean that hangs down, or a dancer who turns all the way round, would
    otherwise flip from one side to the other. The trunk turns first, then each bone on the sphere around it (or each
    joint in its parent, where SMPL's rotations are known); the pelvis moves in the picture and in the logarithm of
    its depth, which keeps the person before the camera.

    Args:
        motion: in camera space.
        factor: 0..2: 1 returns the motion itself, 0 holds the mean pose.

    Returns:
        The same number of frames with the same bone lengths. Where those vary, as estimated ones do, they vary less
        below 1 and no more above. SMPL's parameters follow.

    Raises:
        ValueError: the factor is out of range.
    """
    if not 0 <= factor <= 2:
        raise ValueError(f"a motion strength lies in 0..2, not {factor}")
    if factor == 1:
        return motion
    joints_mm = motion.joints_mm.astype(np.float64)
    bones_mm = joints_mm - joints_mm[:, np.maximum(PARENTS, 0)]
    pose = motion.smpl_pose
    if pose is None:
        bones_mm = _about_the_trunk(joints_mm, bones_mm, factor)
    else:
        scaled = axis_angles(_scaled_turns(matrices(pose.reshape(-1, 24, 3)), factor)).reshape(-1, 72)
        above, new_above = (turns_of_pose(turns)[:, PARENTS[1:]] for turns in (pose, scaled))
        own_mm = np.einsum("tjba,tjb->tja", above, bones_mm[:, 1:])  # in the axes of the joint above
        bones_mm[:, 1:] = np.einsum("tjab,tjb->tja", new_above, _scaled(own_mm, min(factor, 1.0)))
        pose = scaled
    posed_mm = joints_mm[:, :1] + chain(bones_mm)
    posed = replace(motion, joints_mm=posed_mm.astype(np.float32), smpl_pose=pose)
    return shifted(posed, _scaled_root(joints_mm[:, 0], factor) - joints_mm[:, 0])


def _scaled(values: Array, factor: float) -> Array:
    """Scale (T, ...) numbers about their mean over time."""
    mean = values.mean(axis=0)
    return mean + factor * (values - mean)


def _scaled_root(root_mm: Array, factor: float) -> Array:
    """Scale where the pelvis (T, 3) lies in the picture, and how far away by ratio."""
    depth_mm = np.maximum(root_mm[:, 2:], 1.0)
    farther_mm = np.exp(_scaled(np.log(depth_mm), factor))
    return np.concatenate([_scaled(root_mm[:, :2] / depth_mm, factor) * farther_mm, farther_mm], axis=-1)


def _about_the_trunk(joints_mm: Array, bones_mm: Array, factor: float) -> Array:
    """Scale the turns of the trunk, and the directions of all bones (T, 24, 3) as the trunk has them."""
    axes = trunk_axes(joints_mm)  # (T, 3, 3)
    own_mm = np.einsum("tba,tjb->tja", axes, bones_mm)
    lengths_mm = np.linalg.norm(own_mm, axis=-1, keepdims=True)
    directions = _scaled_directions(own_mm / np.maximum(lengths_mm, 1e-9), factor)
    turned = _scaled_turns(axes[:, None], factor)[:, 0]
    return np.einsum("tab,tjb->tja", turned, directions * _scaled(lengths_mm, min(factor, 1.0)))


def _scaled_directions(directions: Array, factor: float) -> Array:
    """Scale unit vectors (T, J, 3) about their mean by the tangent of half the angle between."""
    mean = directions.sum(axis=0)
    mean /= np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-9)
    cosine = (directions * mean).sum(axis=-1, keepdims=True)
    near, far = 1 + cosine, factor**2 * (1 - cosine)  # tan^2 of half the angle is (1 - cosine) / (1 + cosine)
    scaled = (near - far) * mean + 2 * factor * (directions - cosine * mean)
    return scaled / np.maximum(near + far, 1e-9)


def _scaled_turns(turns: npt.NDArray[np.floating], factor: float) -> Array:
    """Scale rotations (T, J, 3, 3) about their mean by the tangent of half the angle between."""
    left, _, right = np.linalg.svd(np.asarray(turns, np.float64).mean(axis=0))
    left[..., 2] *= np.linalg.det(left @ right)[..., None]
    mean = left @ right  # the nearest rotation
    away = axis_angles(mean.swapaxes(-1, -2) @ turns)
    angle = np.linalg.norm(away.astype(np.float64), axis=-1, keepdims=True)
    scaled = 2 * np.arctan(factor * np.tan(np.minimum(angle, np.pi) / 2))
    return mean @ matrices(away * scaled / np.maximum(angle, 1e-9))
