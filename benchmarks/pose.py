"""How fast `mtvcraft pose` is beside the estimator alone.

    python benchmarks/pose.py              # the clip of assets/
    python benchmarks/pose.py dance.mp4    # any other

"bare" hands frames that already lie in memory to MediaPipe's own `Pose` and keeps nothing; "pose" decodes the file,
looks for cuts and for everyone in view, follows them, and lifts their landmarks to joints. The two take turns, so that
a busy machine slows both; the time on processors is less troubled by others. Decoding runs beside the estimator where a
second core is free.
"""

import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from mtvcraft_cli.joints.mediapipe import MediaPipePose
from mtvcraft_cli.quiet import silence
from mtvcraft_cli.video.read import open_clip, read_ahead

ASSET = Path(__file__).parents[1] / "assets" / "drive.mp4"


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("video", nargs="?", type=Path, default=ASSET)
    wanted.add_argument("--rounds", type=int, default=3)
    wanted.add_argument("--frames", type=int, default=300, help="frames held in memory for the bare run, at most")
    given = wanted.parse_args()

    info = open_clip(given.video).info
    frames = np.concatenate(list(_first(open_clip(given.video).batches(), given.frames)))
    backend = MediaPipePose()
    warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype", category=UserWarning)

    def bare() -> int:
        with silence():
            finder = backend.mediapipe.solutions.pose.Pose(model_complexity=1, smooth_landmarks=False)
            finder.process(np.zeros_like(frames[0]))
        with finder:
            for frame in frames:
                finder.process(frame)
        return len(frames)

    def decode() -> int:
        return sum(len(batch) for batch in open_clip(given.video).batches())

    def pose() -> int:
        return backend.see(read_ahead(open_clip(given.video).batches()), info.size_px, info.rate).frames

    ways = {"decode": decode, "bare": bare, "pose": pose}
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(given.rounds):
        for name, way in ways.items():
            rounds[name].append(_measured(way))
    print(f"{given.video.name}: {info.frames} frames of {info.width_px} x {info.height_px}, {given.rounds} rounds")
    print(f"{'':8} {'frames/s':>9} {'of bare':>8} {'processor ms a frame':>21}")
    bare_speed = statistics.median(speed for speed, _ in rounds["bare"])
    for name, measured in rounds.items():
        speed, cost_ms = (statistics.median(column) for column in zip(*measured, strict=True))
        print(f"{name:8} {speed:9.1f} {speed / bare_speed:8.0%} {cost_ms:21.1f}")


def _first(batches: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """The first `frames` frames."""
    for batch in batches:
        yield batch[:frames]
        frames -= len(batch)
        if frames <= 0:
            return


def _measured(way: Callable[[], int]) -> tuple[float, float]:
    """Frames a second by the clock, and milliseconds of processor time a frame in all threads."""
    start, start_cost = time.perf_counter(), time.process_time()
    frames = way()
    return frames / (time.perf_counter() - start), 1000 * (time.process_time() - start_cost) / frames


if __name__ == "__main__":
    main()
