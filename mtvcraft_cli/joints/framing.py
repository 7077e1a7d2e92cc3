"""Where the person stands before the camera: mirrored, centred, followed; and what is odd about it, in words."""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.skeleton import NAMES, PARENTS, PARTS, focal_px, mirror_order, project

Root: TypeAlias = Literal["keep", "centre", "follow"]
FigureBox: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom of a figure in its picture, shares 0..1 of width and height."""

STATURE: Final = 1.1
"""How tall a person is against the bones from toe to head: SMPL's neutral body, 1.71 m, has 1.54 m of them."""
LIKE: Final = (0.67, 1.5)
"""Ratios of two heights in a picture between which nobody minds."""
CUT: Final = 0.03
"""A figure this close to the picture's upper or lower edge goes on beyond it."""
AWAY: Final = 0.5
"""Cosine between the way the chest faces and the line of sight from which on a person shows the back: 60 degrees."""
WORTH_SAYING: Final = 0.02
"""Share of the frames from which on a remark is made."""
JOINED_S: Final = Fraction(1, 4)
"""Stretches this close together are told as one."""
SPINE: Final = tuple(NAMES.index(name) for name in ("spine1", "spine2", "spine3", "neck", "head"))
LEGS: Final = tuple(
    tuple(NAMES.index(f"{side}_{part}") for part in ("hip", "knee", "ankle", "foot")) for side in ("l", "r")
)


def mirror(motion: Motion) -> Motion:
    """Show a motion as a mirror does: left is right, about the middle of the picture.

    Joints trade places with their twins and x changes its sign; so do the second and third number of each of SMPL's
    rotations, which is what a mirror across x does to an axis of rotation, and the x of its translation.
    """
    order = list(mirror_order())
    across = np.array([-1, 1, 1], np.float32)
    pose = motion.smpl_pose
    return replace(
        motion,
        joints_mm=motion.joints_mm[:, order] * across,
        confidence=motion.confidence[:, order],
        smpl_pose=None if pose is None else (pose.reshape(-1, 24, 3)[:, order] * -across).reshape(-1, 72),
        smpl_transl=None if motion.smpl_transl is None else motion.smpl_transl * across,
    )


def rooted(motion: Motion, how: Root) -> Motion:
    """Choose where the person stands; the pose itself and every depth between joints stay as they are.

    Args:
        motion: in camera space.
        how: "keep" changes nothing. "centre" moves the whole clip sideways and up or down by one step, so that the
            middle of the person's box, averaged over the clip, is the middle of the picture; joints that are above or
            below the picture most of the time don't count, so a close-up stays one. "follow" first holds the pelvis at
            its mean place, as a camera does that moves with the person, then centres.
    """
    if how == "keep":
        return motion
    joints_mm = motion.joints_mm.astype(np.float64)
    if how == "follow":
        joints_mm += joints_mm[:, :1].mean(axis=0) - joints_mm[:, :1]
    joints_mm[..., :2] += _step_to_centre_mm(joints_mm, motion)
    return shifted(motion, joints_mm[:, 0] - motion.joints_mm[:, 0])


def shifted(motion: Motion, by_mm: npt.NDArray[np.float64]) -> Motion:
    """Move the person, (T, 3) millimetres in camera space, SMPL's translation (metres) along."""
    root_mm = motion.joints_mm[:, :1] + by_mm[:, None]
    own_mm = (motion.joints_mm - motion.joints_mm[:, :1]).astype(np.float64)
    transl = motion.smpl_transl
    return replace(
        motion,
        joints_mm=(root_mm + own_mm).astype(np.float32),
        smpl_transl=None if transl is None else (transl + by_mm / 1000).astype(np.float32),
    )


def _step_to_centre_mm(joints_mm: npt.NDArray[np.float64], motion: Motion) -> npt.NDArray[np.float64]:
    """Return the (2,) step right and down that brings the mean middle of the boxes onto the camera's axis."""
    places = project(motion.joints_mm, motion.size_px, motion.fov_deg)  # NaN behind the camera
    in_view = ((places[..., 1] >= 0) & (places[..., 1] <= motion.size_px[1])).mean(axis=0) >= 0.5
    points = joints_mm[:, in_view] if in_view.any() else joints_mm
    depth = np.maximum(points[..., 2], 1.0)
    step = np.zeros(2)
    for _ in range(20):  # Newton: the middle moves by a straight line until other joints are the outermost
        slopes = (points[..., :2] + step) / depth[..., None]
        outermost = np.stack([slopes.argmin(axis=1), slopes.argmax(axis=1)])  # (2, T, 2) joints
        middle = np.take_along_axis(slopes[None], outermost[:, :, None], axis=2).mean(axis=(0, 1, 2))
        gain = np.take_along_axis(1 / depth[None, ..., None], outermost[:, :, None], axis=2).mean(axis=(0, 1, 2))
        if np.abs(middle).max() < 1e-6:
            break
        step -= middle / gain
    return step


def framing_remarks(
    motion: Motion, figure_box: FigureBox | None = None, size_px: tuple[int, int] | None = None
) -> list[str]:
    """Say in sentences what about the framing may surprise: scale, leaving the picture, facing away.

    Args:
        motion: as it goes into the tokens.
        figure_box: where the character is in the reference, cut to the result's size; None where that isn't known.
        size_px: of the result, whose camera sees the same field along its longer side; the driver's own by default.

    Returns:
        No sentence where nothing is odd.
    """
    remarks = []
    if figure_box is not None:
        remarks += _scale_remark(motion, figure_box, size_px or motion.size_px)
    outside = _outside(motion)
    left = np.asarray(outside.any(axis=1))
    if left.mean() >= WORTH_SAYING:
        parts = [part for part, joints in PARTS.items() if outside[:, joints].any(axis=1).mean() >= WORTH_SAYING]
        named = f"the driver's {_listed(parts)}" if parts else "part of the driver"
        plural = "is" if parts in (["head"], ["trunk"], []) else "are"
        where = _when(left, motion.rate)
        remarks.append(f"{named} {plural} out of the picture in {where}: what they do there is a guess")
    away = _facing(motion.joints_mm.astype(np.float64)) > AWAY
    if away.mean() >= WORTH_SAYING:
        where = _when(away, motion.rate)
        remarks.append(
            f"the driver faces away in {where}: the picture doesn't show how its character looks from behind"
        )
    return remarks


def _scale_remark(motion: Motion, figure_box: FigureBox, size_px: tuple[int, int]) -> list[str]:
    """Compare the figure's height with that of the driver's body, were it upright where the pelvis is."""
    bones_mm = np.linalg.norm(motion.joints_mm - motion.joints_mm[:, np.maximum(PARENTS, 0)], axis=-1)
    leg_mm = np.mean([bones_mm[:, leg].sum(axis=1) for leg in LEGS], axis=0)
    upright_mm = STATURE * (leg_mm + bones_mm[:, SPINE].sum(axis=1))
    focal = focal_px(size_px, motion.fov_deg)
    body = float(np.median(focal * upright_mm / np.maximum(motion.joints_mm[:, 0, 2], 1.0))) / size_px[1]
    _, top, _, bottom = figure_box
    figure = bottom - top
    ratio = body / figure
    cut = top < CUT or bottom > 1 - CUT  # the whole figure is taller than what is seen of it
    if LIKE[0] <= ratio <= LIKE[1] or (cut and ratio > 1):
        return []
    mend = "nearer to" if ratio > 1 else "farther from"
    return [
        f"the driver is {ratio:.1f} times as tall in the picture as the reference's figure ({body:.0%} of the height "
        f"against {figure:.0%}): the character may change its size; a reference with the character {mend} the camera "
        "fits better"
    ]


def _outside(motion: Motion) -> npt.NDArray[np.bool_]:
    """Return (T, 24): which joints lie outside the picture, or behind the camera."""
    places = project(motion.joints_mm, motion.size_px, motion.fov_deg)
    return np.asarray(~((places >= 0) & (places <= motion.size_px)).all(axis=-1))


def trunk_axes(joints_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Find how the trunk stands, from hips, shoulders and neck.

    Args:
        joints_mm: (T, 24, 3) camera space.

    Returns:
        (T, 3, 3) whose columns are unit vectors to the person's left, up along the spine, and to the front.
    """
    joint = {name: joints_mm[:, index] for index, name in enumerate(NAMES)}
    up = _unit(joint["neck"] - joint["pelvis"])
    across = joint["l_hip"] - joint["r_hip"] + joint["l_shoulder"] - joint["r_shoulder"]
    front = _unit(np.cross(across, up))
    return np.stack([np.cross(up, front), up, front], axis=-1)


def _facing(joints_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (T,) the cosine between the way the chest faces and the line of sight: -1 to the camera, 1 away."""
    return (trunk_axes(joints_mm)[..., 2] * _unit(joints_mm[:, NAMES.index("spine3")])).sum(axis=-1)


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _listed(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _when(frames: npt.NDArray[np.bool_], rate: Fraction) -> str:
    """Say e.g. "12 % of the frames (1.2 to 1.8 s, 3.1 to 3.4 s)", the longest three stretches in order."""
    if frames.all():
        return "every frame"
    marked = np.flatnonzero(frames)
    parts = np.split(marked, np.flatnonzero(np.diff(marked) > float(JOINED_S * rate)) + 1)
    longest = sorted(sorted(parts, key=len, reverse=True)[:3], key=lambda part: int(part[0]))
    spans = ", ".join(f"{float(part[0] / rate):.1f} to {float((part[-1] + 1) / rate):.1f} s" for part in longest)
    more = f" and {len(parts) - 3} shorter ones" if len(parts) > 3 else ""
    return f"{frames.mean():.0%} of the frames ({spans}{more})"
