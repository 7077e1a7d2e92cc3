"""Units, axes and sides: checked against the skeleton, mended where that is plain, and said."""

from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.own.found import Found, Up, size_of_body
from mtvcraft_cli.joints.skeleton import NAMES
from mtvcraft_cli.joints.turns import unit
from mtvcraft_cli.shapes import JointsMm

UNITS_MM: Final = {"millimetres": 1.0, "centimetres": 10.0, "inches": 25.4, "metres": 1000.0}
BODY_SIZES: Final = (0.45, 2.2)
"""From a child of 75 cm to a giant, times the neutral body."""
UPRIGHT: Final = 0.5
"""How far bodies have to point up on average (cosine) to tell which axis that is."""
MIRRORED: Final = -0.25
"""Feet that point backwards by more than this (cosine of the median frame) are those of a mirrored body."""
IN_FRONT_MM: Final = 300.0

_TURNS: Final[dict[Up, Any]] = {
    "y": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-y": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "z": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-z": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    "x": [[0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "-x": [[0, 1, 0], [-1, 0, 0], [0, 0, 1]],
}
"""What brings each axis up to y and keeps x where it can."""


@dataclass(frozen=True)
class Straight:
    """Joints of a known unit in known axes."""

    joints_mm: JointsMm
    """Millimetres; with `in_camera` x right, y down, z away, else y up."""
    turn: Float32[np.ndarray, "3 3"]
    """What turned the file's axes into these; the mirror, if any, included."""
    in_camera: bool
    """Whether a camera sees them already."""
    sees: bool
    """Whether the axes were a camera's, so that they show the side that is to be seen."""
    said: tuple[str, ...]


def straighten(found: Found, name: str, up: Up | None = None) -> Straight:
    """Bring a motion to millimetres and to known axes.

    Args:
        found: a motion in the unit and the axes of its file.
        name: what the user calls the file.
        up: the axis that points up, where the user says it.

    Returns:
        The motion: in camera space if that is what it was, else in a world with y up; and what was guessed.

    Raises:
        MtvcraftError: (`Exit.INPUT`) no known unit makes this a body; nothing tells which way is up; left and right
            are swapped in camera space.
    """
    said = []
    joints = found.joints.astype(np.float64)
    unit_mm, word = _unit(found, name)
    if word:
        said.append(word)
    joints *= unit_mm
    if found.in_camera:
        return Straight(joints.astype(np.float32), np.eye(3, dtype=np.float32), True, True, tuple(said))
    if up is None:
        up, word = _up(joints, found, name)
        if word:
            said.append(word)
    sees = up == "-y"
    ahead = sees and float(np.median(joints[:, 0, 2])) > IN_FRONT_MM and float(np.mean(joints[..., 2] > 0)) > 0.9
    turn = np.array(_TURNS[up], np.float64) if not ahead else np.eye(3)
    joints = joints @ turn.T
    if _is_mirrored(joints):
        if sees:
            raise MtvcraftError(
                f"left and right are swapped in `{name}`: its feet and knees point backwards",
                hint="swap the left joints with the right ones in the file, or negate x of all joints",
            )
        mirror = np.diag([-1.0, 1.0, 1.0])
        joints, turn = joints @ mirror, mirror @ turn
        said.append(f"feet and knees in `{name}` point backwards: took its axes as left-handed and mirrored x")
    return Straight(joints.astype(np.float32), turn.astype(np.float32), ahead, sees, tuple(said))


def _unit(found: Found, name: str) -> tuple[float, str]:
    """Return the millimetres in a unit, and what was guessed."""
    if found.unit_mm is not None:
        return found.unit_mm, ""
    size = size_of_body(found.joints)
    if size <= 0:
        raise MtvcraftError(f"all joints of `{name}` lie in one place", hint="give a file with a body in it")
    word = min(UNITS_MM, key=lambda word: abs(np.log(size * UNITS_MM[word])))
    if BODY_SIZES[0] < size * UNITS_MM[word] < BODY_SIZES[1]:
        return UNITS_MM[
            word
        ], "" if word == "millimetres" else f"took the unit of `{name}` as {word}, by the body's size"
    if found.any_unit:
        return 1 / size, f"the body in `{name}` has no known unit: scaled it to the neutral body's size"
    raise MtvcraftError(
        f"the body in `{name}` is {size:.2g} times as large as a grown person, taken as millimetres",
        hint="joints should be in millimetres, centimetres, inches or metres: scale them",
    )


def _up(joints: npt.NDArray[np.float64], found: Found, name: str) -> tuple[Up, str]:
    """Tell which axis points up by how bodies mostly stand."""
    feet = (joints[:, NAMES.index("l_ankle")] + joints[:, NAMES.index("r_ankle")]) / 2
    mean = unit(joints[:, NAMES.index("neck")] - feet).mean(axis=0)
    axis = int(np.abs(mean).argmax())
    seen: Up = get_args(Up)[2 * axis + (mean[axis] < 0)]
    if abs(mean[axis]) >= UPRIGHT and seen in ("y", "-y", "z"):
        plain = seen == (found.up or "-y")
        return (
            seen,
            "" if plain else f"took {seen.lstrip('-')} of `{name}` as pointing {_way(seen)}, as the body stands",
        )
    if found.up is not None:
        return found.up, ""
    which = f"along {seen}" if abs(mean[axis]) >= UPRIGHT else "along no axis"
    raise MtvcraftError(
        f"nothing tells which way is up in `{name}`: its body stands {which}",
        hint="say it in a file for `--camera`, with a line like `up: z`",
    )


def _way(up: Up) -> str:
    return "down" if up.startswith("-") else "up"


def _is_mirrored(joints: npt.NDArray[np.float64]) -> bool:
    """Whether feet point, and knees bend, to where left and right say that the back is."""
    joint = {word: joints[:, index] for index, word in enumerate(NAMES)}
    hips = (joint["l_hip"] + joint["r_hip"]) / 2
    left = joint["l_hip"] - joint["r_hip"] + joint["l_shoulder"] - joint["r_shoulder"]
    front = unit(np.cross(left, joint["neck"] - hips))
    feet, knees = [], []
    for side in "lr":
        hip, knee, ankle = (joint[f"{side}_{word}"] for word in ("hip", "knee", "ankle"))
        feet.append((unit(joint[f"{side}_foot"] - ankle) * front).sum(axis=-1))
        bend = knee - (hip + ankle) / 2
        leg_mm = np.linalg.norm(knee - hip, axis=-1) + np.linalg.norm(ankle - knee, axis=-1)
        bent = np.linalg.norm(bend, axis=-1) > 0.08 * leg_mm
        knees.append((unit(bend) * front).sum(axis=-1)[bent])
    told = np.concatenate(knees)
    return float(np.median(feet)) < MIRRORED and (not len(told) or float(np.median(told)) < 0.1)
