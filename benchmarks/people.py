"""How well people are told apart who cross in front of each other, and what smoothing does to their joints.

    python benchmarks/people.py [--clips 8] [--rate 30]

Each clip shows two drawn dancers who change sides, one passing before the other. "identity" is the share of frames in
which, after gaps are filled, the joints of a person lie nearer to that dancer than to the other; "seen" the share in
which the person was found; errors are means over both in millimetres, relative to the pelvis and in camera space, of
frames in which they were found.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # for the film of the tests; and this folder has a `tokenize.py`

import argparse
import time
from fractions import Fraction

import numpy as np

from mtvcraft_cli.joints.backend import Person
from mtvcraft_cli.joints.gaps import fill
from mtvcraft_cli.joints.mediapipe import MediaPipePose
from mtvcraft_cli.joints.smooth import smooth
from tests.joints.people import crossing


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--clips", type=int, default=8)
    wanted.add_argument("--frames", type=int, default=72)
    wanted.add_argument("--rate", type=Fraction, default=Fraction(30))
    given = wanted.parse_args()
    backend = MediaPipePose()
    print("| clip | people | identity, nearer | farther | seen, nearer | farther | error | smoothed | ms a frame |")
    print("|---|---|---|---|---|---|---|---|---|")
    for seed in range(given.clips):
        frames, true_mm = crossing(seed, given.frames)
        start = time.process_time()
        scene = backend.see([frames], frames.shape[2:0:-1], given.rate)
        cost_ms = 1000 * (time.process_time() - start) / len(frames)
        near, far = (
            min(scene.people, key=lambda one, own=own: apart_mm(one, own)) for own in true_mm
        )  # whoever lies nearest where both were seen
        told = [(one, own) for one, own in zip((near, far), range(2), strict=True)]
        identity = [kept(one, own, true_mm, given.rate) for one, own in told]
        seen = [one.estimate.found.mean() for one, _ in told]
        errors = np.mean([missed_mm(one, true_mm[own], given.rate) for one, own in told], axis=0)
        print(
            f"| {seed} | {len(scene.people)} | "
            + " | ".join(f"{share:.0%}" for share in (*identity, *seen))
            + f" | {errors[0]:.0f} / {errors[1]:.0f} | {errors[2]:.0f} / {errors[3]:.0f} | {cost_ms:.0f} |",
            flush=True,
        )


def kept(one: Person, own: int, true_mm: np.ndarray, rate: Fraction) -> float:
    joints_mm = fill(one.estimate, rate, Fraction(9)).joints_mm
    return float((np.linalg.norm(joints_mm - true_mm, axis=-1).mean(axis=-1).argmin(axis=0) == own).mean())


def apart_mm(one: Person, true_mm: np.ndarray) -> float:
    found = one.estimate.found
    return float(np.linalg.norm(one.estimate.joints_mm[found] - true_mm[found], axis=-1).mean())


def missed_mm(one: Person, true_mm: np.ndarray, rate: Fraction) -> list[float]:
    """Errors off and on: relative to the pelvis and in camera space each."""
    found = one.estimate.found
    filled_mm = fill(one.estimate, rate, Fraction(9)).joints_mm
    errors = []
    for joints_mm in (filled_mm, smooth(filled_mm, rate)):
        seen, true = joints_mm[found], true_mm[found]
        for difference in (seen - seen[:, :1] - true + true[:, :1], seen - true):
            errors.append(float(np.linalg.norm(difference, axis=-1).mean()))
    return errors


if __name__ == "__main__":
    main()
