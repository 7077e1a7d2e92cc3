"""How fast clips of the world are made, on one core.

    python benchmarks/world.py [--clips 24] [--motion CORPUS.npz]

Clips of 25 frames, each of its own seed: drawing the motion, the character and the place, and filming it. Only the time
on processors counts, so a busy machine slows it less; whatever NumPy would spread over more cores is kept on one.
"""

import os
import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import time
from pathlib import Path

from mtvcraft_cli.train.world.motions import load_motions
from mtvcraft_cli.train.world.scenes import SPLITS, scene

FRAMES = 25
SIZES_PX = (64, 96, 128, 256)


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--clips", type=int, default=24)
    wanted.add_argument("--motion", type=Path)
    given = wanted.parse_args()
    motions = load_motions(given.motion) if given.motion else None
    print("| frames a second | " + " | ".join(f"{size} px" for size in SIZES_PX) + " |")
    print("|---" * (len(SIZES_PX) + 1) + "|")
    for split in SPLITS:
        scene(0, split, (64, 64), FRAMES, motions)
        rates = []
        for size in SIZES_PX:
            began = time.process_time()
            for seed in range(given.clips):
                scene(seed, split, (size, size), FRAMES, motions)
            rates.append(given.clips * FRAMES / (time.process_time() - began))
        print(f"| {split} | " + " | ".join(f"{rate:.0f}" for rate in rates) + " |", flush=True)


if __name__ == "__main__":
    main()
