"""Joints that a skeleton doesn't have: set where the neutral body has them, as the joints around them lie."""

from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.skeleton import NAMES, NEUTRAL_LENGTHS_MM, NEUTRAL_OFFSETS_MM, PARENTS, neutral_pose
from mtvcraft_cli.joints.turns import unit

NEEDED: Final = (
    "pelvis",
    *(f"{side}_{part}" for side in "lr" for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")),
)
"""What makes a body; the rest can be filled in."""

Array = npt.NDArray[np.float64]


def complete(joints: Array, known: Collection[str]) -> Array:
    """Fill in what isn't known.

    Args:
        joints: (T, 24, 3) in right-handed axes of any unit; what isn't known may hold anything.
        known: names of the joints that are known, `NEEDED` among them.

    Returns:
        (T, 24, 3): collars, neck and head sit on the chest as on the neutral body of the same size, the spine divides
        the way from pelvis to neck, hands go on from the forearms, feet stand on their shanks.
    """
    whole = joints.copy()
    at = {name: whole[:, index] for index, name in enumerate(NAMES)}  # views: what is filled in counts at once
    size = _size(joints, known)
    rest = neutral_pose().astype(np.float64)
    shoulders, hips = ((at[f"l_{part}"] + at[f"r_{part}"]) / 2 for part in ("shoulder", "hip"))
    chest = _frame(at["l_shoulder"] - at["r_shoulder"], shoulders - hips)

    def fill(name: str, start: Array, turn: Array, offset_mm: npt.NDArray[np.floating]) -> None:
        if name not in known:
            at[name][:] = start + size * turn @ offset_mm.astype(np.float64)

    middle = (rest[NAMES.index("l_shoulder")] + rest[NAMES.index("r_shoulder")]) / 2
    fill("neck", shoulders, chest, rest[NAMES.index("neck")] - middle)
    for name in ("spine1", "spine2", "spine3"):
        if name not in known:
            share = NEUTRAL_LENGTHS_MM[[NAMES.index(name) for name in ("spine1", "spine2", "spine3", "neck")]].cumsum()
            part = float(share[int(name[-1]) - 1] / share[-1])
            at[name][:] = at["pelvis"] + part * (at["neck"] - at["pelvis"])
    fill("head", at["neck"], chest, NEUTRAL_OFFSETS_MM[NAMES.index("head")])
    for side in "lr":
        collar, shoulder = (NAMES.index(f"{side}_{part}") for part in ("collar", "shoulder"))
        fill(f"{side}_collar", at[f"{side}_shoulder"], chest, rest[collar] - rest[shoulder])
        hand, foot = (NAMES.index(f"{side}_{part}") for part in ("hand", "foot"))
        forearm = unit(at[f"{side}_wrist"] - at[f"{side}_elbow"])
        if f"{side}_hand" not in known:
            at[f"{side}_hand"][:] = at[f"{side}_wrist"] + size * NEUTRAL_LENGTHS_MM[hand] * forearm
        shank = _frame(at["l_hip"] - at["r_hip"], at[f"{side}_knee"] - at[f"{side}_ankle"], keep_up=True)
        fill(f"{side}_foot", at[f"{side}_ankle"], shank, NEUTRAL_OFFSETS_MM[foot])
    return whole


def _size(joints: Array, known: Collection[str]) -> float:
    """Return units in a millimetre of the neutral body: the median over the bones that are there."""
    bones = [index for index in range(1, 24) if NAMES[index] in known and NAMES[PARENTS[index]] in known]
    lengths = np.linalg.norm(joints[:, bones] - joints[:, [PARENTS[bone] for bone in bones]], axis=-1)
    return float(np.median(np.median(lengths, axis=0) / NEUTRAL_LENGTHS_MM[bones]))


def _frame(left: Array, up: Array, keep_up: bool = False) -> Array:
    """Return (T, 3, 3) rotations whose columns are left, up and front; of the two given, one is kept as it is."""
    front = unit(np.cross(left, up))
    if keep_up:
        up = unit(up)
        return np.stack([np.cross(up, front), up, front], axis=-1)
    left = unit(left)
    return np.stack([left, np.cross(front, left), front], axis=-1)
