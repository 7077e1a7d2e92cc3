"""People whose joints are known: the neutral body in motion before a camera, and the landmarks it would have."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mtvcraft_cli.joints.backend import Estimate, Person, Scene
from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.lift import ARM_DEPTH, LEAN_DEG, LEFT, Landmarks
from mtvcraft_cli.joints.skeleton import NAMES, NEUTRAL_OFFSETS_MM, PARENTS, chain, project
from mtvcraft_cli.train.world.figure import dressed, person
from mtvcraft_cli.train.world.landmarks import dances
from mtvcraft_cli.train.world.render import Camera, film
from mtvcraft_cli.train.world.stage import Stage

SIZE_PX = (960, 1280)
RATE = Fraction(30)
SHARED = Path(__file__).parents[3] / "shared"

Array = npt.NDArray[np.float64]


def shared(part: str) -> Path:
    """A file of the folder beside the checkout; the test is skipped where it isn't there."""
    path = SHARED / part
    if not path.exists():
        pytest.skip(f"the folder `shared` beside the checkout has no {part}")
    return path


def turn(axis: int, angle: npt.ArrayLike) -> Array:
    """(..., 3, 3) rotations by `angle` radians."""
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.zeros((*np.shape(angle), 3, 3))
    matrix[..., axis, axis] = 1
    after, last = (axis + 1) % 3, (axis + 2) % 3
    matrix[..., after, after] = matrix[..., last, last] = cosine
    matrix[..., last, after], matrix[..., after, last] = sine, -sine
    return matrix


def dancer(frames: int = 40, place_mm: tuple[float, float, float] = (0, 0, 2500), yaw: float = 0.4) -> Array:
    """(T, 24, 3) camera space, mm: arms and legs swing, the trunk stays as it is in the neutral body."""
    phase = np.arange(frames) / 15
    swing = {
        "l_shoulder": turn(2, -0.9 + 0.4 * np.sin(phase)),
        "r_shoulder": turn(2, 0.7 + 0.4 * np.cos(phase)),
        "l_elbow": turn(1, -0.8 + 0.5 * np.sin(phase)),
        "r_elbow": turn(1, 0.6 + 0.4 * np.sin(phase)),
        "l_hip": turn(0, -0.3 + 0.3 * np.sin(phase)),
        "r_hip": turn(0, -0.2 - 0.2 * np.sin(phase)),
        "l_knee": turn(0, 0.5 + 0.3 * np.cos(phase)),
        "r_knee": turn(0, 0.3 + 0.2 * np.sin(phase)),
    }
    turns = np.tile(np.eye(3), (frames, 24, 1, 1))
    bones = np.zeros((frames, 24, 3))
    for joint, name in enumerate(NAMES):
        parent = PARENTS[joint]
        if parent >= 0:
            turns[:, joint] = turns[:, parent]
            bones[:, joint] = turns[:, parent] @ NEUTRAL_OFFSETS_MM[joint].astype(np.float64)
        turns[:, joint] = turns[:, joint] @ swing.get(name, np.eye(3))
    camera = np.diag([1.0, -1.0, -1.0]) @ turn(1, yaw)  # the body's front faces the camera, which has y down
    return chain(bones) @ camera.T + place_mm


def landmarks_of(joints_mm: Array, size_px: tuple[int, int] = SIZE_PX) -> Landmarks:
    """MediaPipe's landmarks of a body: those of the anatomy that `lift` assumes, with the faults it assumes."""
    bones = joints_mm - joints_mm[:, np.maximum(PARENTS, 0)]
    bones[:, [18, 19, 20, 21, 22, 23], 2] /= ARM_DEPTH
    leaning = _points(chain(bones) @ turn(0, np.radians(LEAN_DEG)).T)
    points = _points(joints_mm)
    return Landmarks(
        world_mm=leaning - leaning[:, [LEFT["hip"], LEFT["hip"] + 1]].mean(axis=1, keepdims=True),
        image_px=np.nan_to_num(project(points, size_px)),
        visibility=np.ones(points.shape[:2]),
    )


def _points(joints_mm: Array) -> Array:
    joint = {name: joints_mm[:, index] for index, name in enumerate(NAMES)}
    points = np.zeros((len(joints_mm), 33, 3))
    hips = (joint["l_hip"] + joint["r_hip"]) / 2
    shoulders = (joint["l_shoulder"] + joint["r_shoulder"]) / 2
    for side, letter in enumerate("lr"):
        heel = joint[f"{letter}_ankle"] + 0.1 * (joint[f"{letter}_ankle"] - joint[f"{letter}_knee"])
        places = {
            "hip": 2 * joint[f"{letter}_hip"] - hips,
            "heel": heel,
            "toe": (joint[f"{letter}_foot"] - 0.3 * heel) / 0.7,
            "ear": (joint["head"] - 0.2 * shoulders) / 0.8,
            "mouth": (joint["head"] - 0.2 * shoulders) / 0.8,
            "pinky": joint[f"{letter}_hand"],
            "index": joint[f"{letter}_hand"],
            **{name: joint[f"{letter}_{name}"] for name in ("shoulder", "elbow", "wrist", "knee", "ankle")},
        }
        for name, place in places.items():
            points[:, LEFT[name] + side] = place
    return points


def motion(frames: int = 40, rate: Fraction = RATE, **others: object) -> Motion:
    """A motion with every field but the optional ones."""
    fields = {
        "joints_mm": dancer(frames).astype(np.float32),
        "confidence": np.full((frames, 24), 0.9, np.float32),
        "observed": np.ones(frames, bool),
        "rate": rate,
        "size_px": SIZE_PX,
        "meta": {"source": "drive.mp4"},
    }
    return Motion(**{**fields, **others})  # type: ignore[arg-type]


def crossing(seed: int, frames: int = 72, side_px: int = 512) -> tuple[npt.NDArray[np.uint8], Array]:
    """Film two dancers who change sides, one passing before the other.

    Returns:
        (T, H, W, 3) frames, and (2, T, 24, 3) joints in camera space, mm: the nearer dancer's first.
    """
    rng = np.random.default_rng(seed)
    camera = Camera(np.diag([1, -1, -1]).astype(np.float32), np.array([0, 1000, 3600], np.float32), (side_px, side_px))
    across_mm = np.linspace(-900, 900, frames)
    shots = []
    for side, towards_mm, motion_mm in zip((1, -1), (400, -400), dances(2, frames, rng), strict=True):
        start = motion_mm[:, :1] * (1, 0, 1)
        path_mm = np.stack([side * across_mm, 0 * across_mm, np.full(frames, towards_mm)], axis=1)
        moved = (motion_mm - start + path_mm[:, None]).astype(np.float32)
        shots.append(film(person(dressed(rng)), moved, camera, Stage(wall_mm=1500)))
    near, far = shots
    return np.where(near.masks[..., None], near.frames, far.frames), np.stack([near.joints_mm, far.joints_mm])


def scene(*spans: tuple[int, int, float, float], frames: int = 40, cuts: tuple[int, ...] = ()) -> Scene:
    """People of (first frame, frame after the last, place, size) before a camera of 1000 x 1000 pixels."""
    people = []
    for start, stop, place, size in spans:
        found = (np.arange(frames) >= start) & (np.arange(frames) < stop)
        joints_mm = dancer(frames).astype(np.float32)
        boxes_px = np.tile(np.array([place, 100, size, 2 * size], np.float32), (frames, 1))
        joints_mm[~found], boxes_px[~found] = np.nan, np.nan
        confidence = np.where(found[:, None], np.float32(0.8), np.float32(0)) * np.ones(24, np.float32)
        people.append(Person(Estimate(joints_mm=joints_mm, confidence=confidence, found=found), boxes_px))
    return Scene(frames=frames, people=tuple(people), cuts=cuts)
