"""How long tokenizing takes and what it needs: slices of motion in a loop and in a batch, and the whole round trip.

    python benchmarks/tokenize.py           # ten minutes of motion, tokenizer at full size
    python benchmarks/tokenize.py --small   # one minute, toy tokenizer: a few seconds

Weights and motion are random numbers from fixed seeds: time and memory don't depend on them. Each way runs in a process
of its own, one after the other, so that its peak memory is its own.
"""

import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name

import argparse
import json
import resource
import subprocess
import time

import numpy as np
import torch

from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.tokens.normalise import cut, normalise
from mtvcraft_cli.tokens.tokenise import BATCH, tokenise
from mtvcraft_cli.tokens.tokenizer import ENCODER_SLICE, MotionTokenizer
from mtvcraft_cli.windows import plan_windows

WAYS = {
    "loop": "encode, slice after slice",
    "batch": "encode, slices in a batch",
    "whole": "tokenize (encode, decode, report)",
}
SMALL = {"channels": (32, 64), "width": 64, "codes": 512}
FPS = 30


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted.add_argument("--small", action="store_true", help="toy tokenizer and one minute")
    wanted.add_argument("--minutes", type=float, help="length of the motion")
    wanted.add_argument("--way", choices=WAYS, help="measure one way and print JSON")
    given = wanted.parse_args()
    minutes = given.minutes or (1.0 if given.small else 10.0)
    if given.way:
        print(json.dumps(measure(given.way, minutes, small=given.small)))
        return
    print(f"{minutes:g} min of motion at {FPS} fps, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| way | seconds | processor seconds | frames/s | peak memory, GB | above the start, GB |")
    print("|---|---|---|---|---|---|")
    found = {}
    for way, title in WAYS.items():
        command = [sys.executable, __file__, "--way", way, "--minutes", str(minutes), *["--small"] * given.small]
        found[way] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        row = found[way]
        rates = f"{row['seconds']:.1f} | {row['processor_s']:.1f} | {minutes * 60 * FPS / row['seconds']:.0f}"
        print(f"| {title} | {rates} | {row['peak_gb']:.2f} | {row['peak_gb'] - row['start_gb']:.2f} |", flush=True)
    wall, busy = (found["loop"][key] / found["batch"][key] for key in ("seconds", "processor_s"))
    codes = list(zip(found["loop"]["codes"], found["batch"]["codes"], strict=True))
    other = sum(one != two for one, two in codes)  # of two codes equally near, rounding picks one
    print(f"\nin a batch {wall:.2f} times as fast as in a loop, {busy:.2f} times by processor time")
    print(f"{other} of {len(codes)} codes differ")


def measure(way: str, minutes: float, *, small: bool) -> dict[str, float | list[int]]:
    torch.manual_seed(0)
    tokenizer = MotionTokenizer(**(SMALL if small else {})).eval()
    tokenizer.vq.codebook.normal_(std=0.5)
    rng = np.random.default_rng(0)
    walk_mm = np.cumsum(rng.normal(0, 10, (round(minutes * 60 * FPS), 24, 3)), axis=0).astype(np.float32)
    stats = Statistics(mean_mm=walk_mm.mean(axis=0), std_mm=walk_mm.std(axis=0))
    plan = plan_windows(len(walk_mm), 49, 9)
    start_gb, started, busy_before = peak_gb(), time.perf_counter(), time.process_time()
    codes = []
    if way == "whole":
        codes.append(torch.from_numpy(tokenise(walk_mm, tokenizer, plan, stats, "none").tokens))
    else:
        with torch.inference_mode():
            for first in range(0, len(plan), BATCH):
                joints = normalise(cut(walk_mm, plan[first : first + BATCH]), stats)
                latents = tokenizer.encode(joints) if way == "batch" else encode_in_a_loop(tokenizer, joints)
                codes.append(tokenizer.quantise(latents))
    seconds, processor_s = time.perf_counter() - started, time.process_time() - busy_before
    return {
        "seconds": seconds,
        "processor_s": processor_s,  # on a machine shared with others the fairer figure
        "start_gb": start_gb,
        "peak_gb": peak_gb(),
        "codes": torch.cat(codes).flatten().tolist(),
    }


def encode_in_a_loop(tokenizer: MotionTokenizer, joints: torch.Tensor) -> torch.Tensor:
    """The released way: each slice of each window on its own."""
    made = []
    for window in joints.permute(0, 3, 1, 2):
        rest = window.shape[1] % ENCODER_SLICE
        sizes = [ENCODER_SLICE + rest] + [ENCODER_SLICE] * (window.shape[1] // ENCODER_SLICE - 1)
        made.append(torch.cat([tokenizer.encoder(piece[None]) for piece in window.split(sizes, dim=1)], dim=2))
    return torch.cat(made).permute(0, 2, 3, 1)


def peak_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


if __name__ == "__main__":
    main()
