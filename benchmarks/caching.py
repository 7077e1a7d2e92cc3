"""What skipping blocks costs in quality: runs with the step cache beside the same runs without it.

    python benchmarks/caching.py [--preset mini|PATH] [--steps N] [--seeds 3] [--two-passes] [--thresholds 0.05 0.1]
    python benchmarks/caching.py --toy-wan [--steps N]

For each threshold: how many forwards ran only the first block, the share of all block evaluations that this spares,
the relative error of the final latents (norm of the difference by norm), and the PSNR of the frames, both against the
runs without the cache. The preset's clips are one window of a dancer from the program's own renderer, and `--seeds` of
them are taken together. The toy Wan has random weights and no VAE: its numbers show that it works, and no more.
"""

import sys

# This folder's tokenize.py would stand for Python's own module of that name.
sys.path = [place for place in sys.path if place != __file__.rpartition("/")[0]]

import argparse
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor

from mtvcraft_cli.jobs.timing import plan_timing
from mtvcraft_cli.latents.rope import wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.spare import Spare, Tally, set_cache
from mtvcraft_cli.latents.walk import walk
from mtvcraft_cli.latents.wan import WanMotionTransformer, build_transformer
from mtvcraft_cli.latents.wanvideo.sampler import Condition, Guidance, denoise, make_scheduler
from mtvcraft_cli.preset import Preset, load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.runs.models import load_tokenizer, settings_of, small_models
from mtvcraft_cli.runs.motion import sure_motion, to_tokens
from mtvcraft_cli.tokens.tokenise import motion_tokens
from mtvcraft_cli.train.world.dance import dance
from mtvcraft_cli.train.world.figure import person
from mtvcraft_cli.train.world.render import Camera, film
from mtvcraft_cli.train.world.stage import Stage
from mtvcraft_cli.weights.locate import locate
from mtvcraft_cli.windows import plan_windows

RATE = 25
TOY = {
    "num_attention_heads": 4,
    "attention_head_dim": 24,
    "text_dim": 16,
    "text_len": 12,
    "image_dim": 20,
    "freq_dim": 64,
    "ffn_dim": 256,
    "num_layers": 8,
    "motion_every": 2,
    "motion_key_split": "plain",
    "motion_token_dim": 32,
}
Made = tuple[Tensor, np.ndarray | None, Tally]
HEADER = ("threshold", "forwards skipped", "blocks spared", "latents off by", "PSNR of the frames")


def of_preset(preset: Preset, *, two_passes: bool) -> tuple[Callable[[float | None, int], Made], int]:
    """A function from threshold and seed to latents, frames and tally, and how many blocks there are."""
    device = torch.device("cpu")
    parts = locate(preset, None)
    models, tokenizer = small_models(preset, parts, device), load_tokenizer(preset, parts["tokenizer"])
    timing = plan_timing(preset.frames, Fraction(RATE), None, preset)
    windows = plan_windows(timing.model_frames, preset.frames, preset.overlap)
    turn = np.diag((1.0, -1.0, -1.0)).astype(np.float32)
    camera = Camera(turn, -turn @ np.asarray((0, 1000, 2300), np.float32), preset.size_px)

    def make(threshold: float | None, seed: int) -> Made:
        rng = np.random.default_rng(seed)
        shot = film(person(), dance(preset.frames, RATE, rng, 120, ("step-touch",)), camera, Stage())
        motion = sure_motion(shot.joints_mm, Fraction(RATE), preset.size_px)
        tokens = to_tokens(motion, preset, timing, tokenizer, "cpu", None, silent).tokens
        settings = settings_of(preset, device, two_passes=two_passes)
        set_cache(models.transformer, threshold)
        looked_up = (motion_tokens(tokens, tokenizer, window.index)[0] for window in windows)
        kept: dict[str, Tensor] = {}
        frames = list(walk(models, shot.frames[0], looked_up, windows, settings, seed, kept=kept))
        return kept["window-0"], np.concatenate(frames), settings.spare.tally

    return make, len(models.transformer.transformer_blocks)


def of_toy_wan(steps: int, *, two_passes: bool) -> tuple[Callable[[float | None, int], Made], int]:
    """The same with a large model of toy size, guided by text and motion."""
    with init_empty_weights():
        empty = WanMotionTransformer(**TOY)
    transformer = build_transformer(TOY, seeded_tensors(empty, 0))
    mean_mm, head = load_preset("17b").statistics.mean_mm, TOY["attention_head_dim"]

    def make(threshold: float | None, seed: int) -> Made:
        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator)

        generator = torch.Generator().manual_seed(seed)
        drawn: dict[str, Any] = {
            "image": draw(1, 20, 5, 8, 8),
            "picture": draw(1, 5, 20),
            "text": draw(1, 12, 16),
            "negative": draw(1, 12, 16),
            "tokens": draw(1, 5 * 24, 32),
            "no_motion": draw(1, 5 * 24, 32),
        }
        condition = Condition(
            **drawn, visual=wan_visual_table(5, 4, 4, head), motion=wan_motion_table(5, mean_mm, head)
        )
        set_cache(transformer, threshold)
        spare, guidance = Spare(), Guidance(text=6.0, motion=3.0)
        how = {"steps": steps, "guidance": guidance, "two_passes": two_passes, "spare": spare, "generator": generator}
        *_, latents = denoise(transformer, make_scheduler("euler", {}), condition, **how)
        return latents, None, spare.tally

    return make, TOY["num_layers"]


def psnr(made: np.ndarray, exact: np.ndarray) -> float:
    """Decibels between frames, 0..255."""
    error = np.square(made.astype(np.float64) - exact).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="mini")
    parser.add_argument("--toy-wan", action="store_true")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--two-passes", action="store_true")
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.toy_wan:
        make, blocks = of_toy_wan(options.steps or 20, two_passes=options.two_passes)
    else:
        preset = load_preset(options.preset)
        sampler = replace(preset.sampler, steps=options.steps or preset.sampler.steps)
        make, blocks = of_preset(replace(preset, sampler=sampler), two_passes=options.two_passes)
    exact = [make(None, seed) for seed in range(options.seeds)]
    rows = [HEADER]
    for threshold in options.thresholds:
        made = [make(threshold, seed) for seed in range(options.seeds)]
        tallies = [tally for *_, tally in made]
        skipped, forwards = sum(tally.skipped for tally in tallies), sum(tally.forwards for tally in tallies)
        off = [float((one - other).norm() / other.norm()) for (one, *_), (other, *_) in zip(made, exact, strict=True)]
        seen = [
            psnr(one, other)
            for (_, one, _), (_, other, _) in zip(made, exact, strict=True)
            if one is not None and other is not None
        ]
        spared = skipped / forwards * (blocks - 1) / blocks
        told = f"{np.mean(seen):.1f} dB" if seen else "-"
        rows.append((f"{threshold:g}", f"{skipped} of {forwards}", f"{spared:.0%}", f"{np.mean(off):.4f}", told))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
