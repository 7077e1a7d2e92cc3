"""How far the joints of MediaPipe's landmarks lie from the true ones, on people whom our own renderer draws.

    python benchmarks/lift.py [--films 40] [--motion CORPUS.npz]

Each film shows another person in a made-up dance, or a window of CORPUS.npz where one is given: `joints` (N, 24, 3) in
metres, y up, 30 frames a second, with `clip_start` and `clip_length`. The first row is the lift as it is; the others
leave out one of the constants that were found on such films. Errors are means in millimetres: relative to the pelvis,
after a similarity alignment, and in camera space.
"""

import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name

import argparse
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np

from mtvcraft_cli.joints import lift
from mtvcraft_cli.train.world.landmarks import Pairs, dances, film_pairs

FRAMES = 40
RATE = Fraction(15)
VARIANTS = {
    "as it is": {"LEAN_DEG": lift.LEAN_DEG},
    "no lean": {"LEAN_DEG": 0.0},
    "all of the arms' depth": {"ARM_DEPTH": 1.0},
    "no nearer": {"NEARER": 1.0},
    "depth of bones not smoothed": {"DIRECTION_SMOOTHING_S": 1e-3},
}


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--films", type=int, default=40)
    wanted.add_argument("--motion", type=Path)
    wanted.add_argument("--seed", type=int, default=0)
    given = wanted.parse_args()
    rng = np.random.default_rng(given.seed)
    motions = windows_of(given.motion, given.films, rng) if given.motion else dances(given.films, FRAMES, rng)
    pairs = film_pairs(motions, rng)
    print(f"{given.films} films of {FRAMES} frames, a person found in {pairs.detected.mean():.1%}\n")
    print("| lift | relative to pelvis | aligned | camera space |")
    print("|---|---|---|---|")
    for title, changes in VARIANTS.items():
        with mock.patch.multiple(lift, **changes):
            print(f"| {title} | " + " | ".join(f"{error_mm:.1f}" for error_mm in errors_mm(pairs)) + " |", flush=True)


def windows_of(path: Path, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Windows of every second frame, all frames alike."""
    with np.load(path, allow_pickle=False) as file:
        joints_m, start, length = file["joints"], file["clip_start"], file["clip_length"]
    room = np.maximum(length - 2 * FRAMES, 0)
    clips = rng.choice(len(start), count, p=room / room.sum())
    firsts = [int(start[clip] + rng.integers(room[clip])) for clip in clips]
    return [1000 * joints_m[first : first + 2 * FRAMES : 2] for first in firsts]


def errors_mm(pairs: Pairs) -> tuple[float, float, float]:
    size_px = (pairs.width, pairs.height)
    missed = []
    for clip in np.unique(pairs.clip):
        own = pairs.clip == clip
        landmarks = lift.Landmarks(
            world_mm=pairs.world[own].astype(np.float64) * 1000,
            image_px=pairs.image[own, :, :2].astype(np.float64) * size_px,
            visibility=pairs.visibility[own].astype(np.float64),
        )
        estimate = lift.lift(landmarks, size_px, RATE)
        seen, true = estimate.joints_mm[estimate.found], pairs.joints[own][estimate.found]
        relative, truth = seen - seen[:, :1], true - true[:, :1]
        pairings = ((relative, truth), (aligned(seen, true), true), (seen, true))
        missed.append([np.linalg.norm(ours - theirs, axis=-1).mean() for ours, theirs in pairings])
    return tuple(np.mean(missed, axis=0).tolist())


def aligned(seen: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Turn, scale and move each frame to where it lies nearest to the truth (Procrustes)."""
    from_mean, to_mean = seen.mean(axis=1, keepdims=True), true.mean(axis=1, keepdims=True)
    source, target = seen - from_mean, true - to_mean
    left, stretch, right = np.linalg.svd(source.swapaxes(1, 2) @ target)
    sign = np.ones((len(seen), 3))
    sign[:, 2] = np.sign(np.linalg.det(left @ right))
    scale = (stretch * sign).sum(axis=1) / np.square(source).sum(axis=(1, 2))
    return scale[:, None, None] * source @ (left * sign[:, None]) @ right + to_mean


if __name__ == "__main__":
    main()
