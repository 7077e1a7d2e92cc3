"""Pairs of MediaPipe landmarks and true joints, from films of people who never were."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mtvcraft_cli.joints.skeleton import project
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames, JointsMm
from mtvcraft_cli.train.world.dance import dance
from mtvcraft_cli.train.world.figure import dressed, person
from mtvcraft_cli.train.world.place import place
from mtvcraft_cli.train.world.render import Shot, film
from mtvcraft_cli.train.world.stage import staged


@dataclass(frozen=True)
class Pairs:
    """What an estimator says and what is true, for T frames of several clips one after the other."""

    joints: JointsMm
    """Camera space, mm."""
    image: Float32[np.ndarray, "T 33 3"]
    """x and y as shares of width and height, z in widths; NaN where no person was found."""
    world: Float32[np.ndarray, "T 33 3"]
    """Metres about the middle of the hips, axes like the camera's."""
    visibility: Float32[np.ndarray, "T 33"]
    detected: Bool[np.ndarray, " T"]
    clip: Int64[np.ndarray, " T"]
    width: int
    height: int


def dances(count: int, frames: int, rng: np.random.Generator) -> Iterator[JointsMm]:
    """Make up dances at 15 frames a second."""
    for _ in range(count):
        whole = dance(frames + 60, 15.0, rng, float(rng.uniform(90, 135)))
        start = int(rng.integers(60))
        yield whole[start : start + frames]


def film_person(motion_mm: JointsMm, rng: np.random.Generator, size_px: tuple[int, int]) -> Shot:
    """Film a drawn person on a drawn stage, from about two metres, in full view wherever twenty draws find one."""
    for _ in range(20):
        camera = place(motion_mm, rng, size_px, upright=True).camera
        spot = project(camera.sees(motion_mm), size_px)
        if ((spot > 0) & (spot < size_px)).all(-1).mean() > 0.97:
            break
    return film(person(dressed(rng)), motion_mm, camera, staged(rng))


def film_pairs(
    motions_mm: Iterable[JointsMm],
    rng: np.random.Generator,
    size_px: tuple[int, int] = (512, 512),
    watch: Watch = silent,
) -> Pairs:
    """Film a new person in each motion and ask MediaPipe for the landmarks.

    Args:
        motions_mm: (T, 24, 3) each, of the neutral skeleton, y up, the floor at 0.
        rng: draws people, stages and cameras.
        size_px: of the films.
        watch: counts the films.

    Returns:
        All frames of all films.
    """
    import mediapipe  # an extra; only the making of pairs needs it

    joints, seen = [], []
    with mediapipe.solutions.pose.Pose(model_complexity=1, smooth_landmarks=False) as pose:
        for motion in watch(motions_mm, "film"):
            pose.reset()
            shot = film_person(motion, rng, size_px)
            joints.append(shot.joints_mm)
            seen.append(landmarks(pose, shot.frames))
    image, world, visibility = (np.concatenate([each[index] for each in seen]) for index in range(3))
    return Pairs(
        joints=np.concatenate(joints),
        image=image,
        world=world,
        visibility=visibility,
        detected=np.isfinite(image[:, 0, 0]),
        clip=np.repeat(np.arange(len(joints)), [len(each) for each in joints]),
        width=size_px[0],
        height=size_px[1],
    )


def landmarks(
    pose: Any, frames: Frames
) -> tuple[Float32[np.ndarray, "T 33 3"], Float32[np.ndarray, "T 33 3"], Float32[np.ndarray, "T 33"]]:
    """Ask a MediaPipe `Pose` for image landmarks, world landmarks and visibility; NaN where it finds no person."""
    image, world = (np.full((len(frames), 33, 3), np.nan, np.float32) for _ in range(2))
    visibility = np.zeros((len(frames), 33), np.float32)
    for index, frame in enumerate(frames):
        found = pose.process(frame)
        if found.pose_landmarks:
            image[index] = [(point.x, point.y, point.z) for point in found.pose_landmarks.landmark]
            world[index] = [(point.x, point.y, point.z) for point in found.pose_world_landmarks.landmark]
            visibility[index] = [point.visibility for point in found.pose_landmarks.landmark]
    return image, world, visibility
