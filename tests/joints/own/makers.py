"""Files of other people's kinds, made from joints that are known."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from mtvcraft_cli.joints.skeleton import NAMES, NEUTRAL_OFFSETS_MM, PARENTS, chain
from mtvcraft_cli.joints.turns import forward, turns_of, turns_of_pose
from tests.joints.people import dancer, shared, turn

Array = np.ndarray
FRONT = np.array([1.0, -1.0, -1.0])
"""World with y up to the axes of a camera that looks at its front; and back."""


def world(frames: int = 40) -> Array:
    """(T, 24, 3) metres, y up: the dancer of the tests faces +z, turned a little, and wanders to the left."""
    joints = dancer(frames, (0, -900, 0)) * FRONT / 1000
    joints[..., 0] += np.linspace(0, 0.5, frames)[:, None]
    return joints


def corpus(clip: int) -> Array:
    """(T, 24, 3) metres, y up: a clip of the mocap corpus."""
    with np.load(shared("motion/cmu_test.npz")) as file:
        start, length = int(file["clip_start"][clip]), int(file["clip_length"][clip])
        return file["joints"][start : start + length].astype(np.float64)


def rotations(frames: int = 30, seed: int = 0) -> Array:
    """(T, 72) axis times angle of somebody who stands and moves every joint a little, facing +z."""
    draw = np.random.default_rng(seed)
    swing = draw.normal(size=(1, 72)) * 0.15 + 0.2 * np.sin(
        np.arange(frames)[:, None] / 8 + draw.uniform(0, 6, (1, 72))
    )
    swing[:, :3] = 0, 0.3, 0
    return swing.astype(np.float32)


def moved(pose: Array, place_m: Array, bones_mm: Array = NEUTRAL_OFFSETS_MM) -> Array:
    """(T, 24, 3) mm of a skeleton turned by SMPL's rotations, its pelvis in place."""
    return forward(turns_of_pose(pose), (1000 * place_m).astype(np.float32), bones_mm.astype(np.float32))


def bone_directions(joints: Array, but: tuple[str, ...] = ()) -> Array:
    kept = [joint for joint in range(1, 24) if NAMES[joint] not in but]
    bones = joints[:, kept] - joints[:, [PARENTS[joint] for joint in kept]]
    return bones / np.linalg.norm(bones, axis=-1, keepdims=True)


def degrees_between(one: Array, other: Array, but: tuple[str, ...] = ()) -> Array:
    """(T, B) angles between the bones of two motions."""
    first, second = bone_directions(one, but), bone_directions(other, but)
    return np.degrees(2 * np.arcsin(np.clip(np.linalg.norm(first - second, axis=-1) / 2, 0, 1)))


FBX = {
    "pelvis": "Hips",
    "spine1": "Spine",
    "spine2": "Spine1",
    "spine3": "Spine2",
    "neck": "Neck",
    "head": "Head",
    "hip": "UpLeg",
    "knee": "Leg",
    "ankle": "Foot",
    "foot": "ToeBase",
    "collar": "Shoulder",
    "shoulder": "Arm",
    "elbow": "ForeArm",
    "wrist": "Hand",
    "hand": "HandMiddle1",
}
NAMED = {
    "CMU": {**FBX, "spine1": "LowerBack", "spine2": "Spine", "spine3": "Spine1", "hand": "FingerBase"},
    "Mixamo": {key: f"mixamorig:{{}}{name}" for key, name in FBX.items()},
    "Rokoko": {**FBX, "hip": "Thigh", "knee": "Shin", "foot": "Toe", "hand": "Finger3Metacarpal"},
    "LAFAN": {**FBX, "foot": "Toe", "hand": ""},
    "SMPL": {
        key: f"{{}}_{key}" if key in ("hip", "knee", "ankle", "foot", "collar", "shoulder") else key for key in FBX
    },
}


def their_name(joint: str, names: dict[str, str]) -> str:
    """What a convention calls a joint of ours; nothing if it has none."""
    side = {"l_": "Left", "r_": "Right"}.get(joint[:2], "")
    name = names[joint[2:] if side else joint]
    if not name:
        return ""
    return name.format(side) if "{}" in name else side + name


def bvh_text(
    joints_m: Array,
    name_of: Callable[[str], str],
    *,
    order: str = "ZXY",
    scale: float = 100,
    rate: str = "0.0333333",
    axes: Array | None = None,
) -> str:
    """A BVH of rotations only, with constant bones, as other programs write it.

    Args:
        joints_m: (T, 24, 3) metres, y up.
        name_of: what each joint is called; "" leaves it and what hangs on it out.
        order: of the rotation channels.
        scale: units in a metre.
        rate: the frame time, as it is written.
        axes: (3, 3) from y up to the file's axes.
    """
    axes = np.eye(3) if axes is None else axes
    joints = joints_m * scale
    turns = turns_of(joints_m.astype(np.float32)).astype(np.float64)
    children = [
        [child for child in range(24) if PARENTS[child] == joint and name_of(NAMES[child])] for joint in range(24)
    ]
    columns: list[Array] = []

    def limb(joint: int) -> list[str]:
        parent = PARENTS[joint]
        if parent < 0:
            offset, local = np.zeros(3), axes @ turns[:, 0] @ axes.T
            columns.append(joints[:, 0] @ axes.T)
            channels = f"CHANNELS 6 Xposition Yposition Zposition {' '.join(f'{axis}rotation' for axis in order)}"
        else:
            back = turns[:, parent].swapaxes(1, 2)
            offset = axes @ np.median((back @ (joints[:, joint] - joints[:, parent])[..., None])[..., 0], axis=0)
            local = axes @ back @ turns[:, joint] @ axes.T
            channels = f"CHANNELS 3 {' '.join(f'{axis}rotation' for axis in order)}"
        columns.append(euler(local, order))
        inner = [f"OFFSET {offset[0]:.6f} {offset[1]:.6f} {offset[2]:.6f}", channels]
        for child in children[joint]:
            inner += limb(child)
        if not children[joint]:
            end = np.zeros(3)
            for child in [child for child in range(24) if PARENTS[child] == joint][:1]:  # without a name: only its end
                bones = (joints[:, child] - joints[:, joint])[..., None]
                end = axes @ np.median((turns[:, joint].swapaxes(1, 2) @ bones)[..., 0], axis=0)
            inner += ["End Site", "{", f"OFFSET {end[0]:.6f} {end[1]:.6f} {end[2]:.6f}", "}"]
        return [f"{'ROOT' if parent < 0 else 'JOINT'} {name_of(NAMES[joint])}", "{", *inner, "}"]

    skeleton = limb(0)
    rows = np.concatenate(columns, axis=1)
    numbers = [" ".join(f"{number:.6f}" for number in row) for row in rows]
    return "\n".join(["HIERARCHY", *skeleton, "MOTION", f"Frames: {len(rows)}", f"Frame Time: {rate}", *numbers, ""])


def euler(turns: Array, order: str) -> Array:
    """(T, 3) degrees about the axes in `order`."""
    a, b, c = ("XYZ".index(axis) for axis in order)
    sign = 1.0 if (b - a) % 3 == 1 else -1.0
    middle = np.arcsin(np.clip(sign * turns[:, a, c], -1, 1))
    first = np.arctan2(-sign * turns[:, b, c], turns[:, c, c])
    last = np.arctan2(-sign * turns[:, a, b], turns[:, a, a])
    made = turn(a, first) @ turn(b, middle) @ turn(c, last)
    assert np.abs(made - turns).max() < 1e-4
    return np.degrees(np.stack([first, middle, last], axis=1))


@cache
def body_arrays(seed: int = 0) -> dict[str, Array]:
    """What an SMPL body file holds, at full size: vertices in clouds about a skeleton's joints, and random shapes."""
    draw = np.random.default_rng(seed)
    bones = NEUTRAL_OFFSETS_MM * draw.uniform(0.8, 1.25, (24, 1))
    bones[0] = (2, -230, 30)
    owner = np.arange(6890) % 24
    regressor = (owner == np.arange(24)[:, None]) * draw.uniform(0.5, 1.5, 6890)
    weights = draw.uniform(size=(6890, 24)) ** 8
    return {
        "v_template": chain(bones)[owner] / 1000 + draw.normal(size=(6890, 3)) * 0.03,
        "shapedirs": draw.normal(size=(6890, 3, 10)) * 0.02 + draw.normal(size=(24, 3, 10))[owner] * 0.01,
        "posedirs": draw.normal(size=(6890, 3, 207)) * 0.001,
        "J_regressor": regressor / regressor.sum(axis=1, keepdims=True),
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(24)], np.int64),
        "f": draw.integers(0, 6890, (13776, 3)).astype(np.uint32),
    }


def save_body(path: Path, seed: int = 0) -> Path:
    np.savez(path, **body_arrays(seed))  # type: ignore[arg-type]
    return path
