"""What `device/plan` predicts beside what happens, for small models on this machine's CPU.

    python benchmarks/plan.py [--threads 1] [--only NAME]

Each row is measured in a fresh process. A stage's memory is what it adds at its peak to a process that has its models
loaded and has run such a stage of a small model before. glibc is told to give tensors from 1 MiB on back at once,
as it does by itself with those from 32 MiB on, which all large ones of full-size models are: between smaller ones gaps
stay, so that these small stages take up to 1.6 times as much without that. A whole run's memory is the process's own
peak, libraries, gaps and all; its time is that of a second run, predicted from the rates that the first one left in its
cache.
"""

import sys

# This folder's tokenize.py would stand for Python's own module of that name.
sys.path = [place for place in sys.path if place != __file__.rpartition("/")[0]]

import argparse
import json
import multiprocessing
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from mtvcraft_cli.device import stepping, vae_large, vae_small
from mtvcraft_cli.device.sizes import latent_px
from mtvcraft_cli.preset import load_preset

SMALL_VAE: dict[str, Any] = dict(load_preset("mini").vae)
LARGE_VAE = {"base_dim": 16, "num_res_blocks": 2}
FULL_VAES: dict[str, dict[str, Any]] = {
    "small": dict(load_preset("7b").vae),
    "large": dict(load_preset("17b").vae),
}
SMALL = {
    **load_preset("mini").transformer,
    "num_layers": 2,
    "num_attention_heads": 8,
    "unconditional_motion_shape": (24, 512),
}
LARGE = {
    "num_attention_heads": 4,
    "attention_head_dim": 128,
    "text_dim": 64,
    "text_len": 64,
    "image_dim": 32,
    "freq_dim": 64,
    "ffn_dim": 1382,
    "num_layers": 2,
    "motion_every": 2,
    "motion_key_split": "plain",
    "motion_token_dim": 64,
}
STAGES = {
    "small vae, decode": ("small_decode", (192, 192), 9),
    "small vae, encode": ("small_encode", (192, 192), 9),
    "large vae, decode": ("large_decode", (192, 192), 9),
    "large vae, encode": ("large_encode", (192, 192), 9),
    "small transformer": ("small_step", (384, 384), 17),
    "large transformer": ("large_step", (384, 384), 17),
}
FULL = {
    "vae of 7b, encode": ("small_encode", (128, 128), 9),
    "vae of 17b, decode": ("large_decode", (128, 128), 9),
    "vae of 17b, encode": ("large_encode", (128, 128), 9),
}
"""Stages of full-size networks, which take a while."""
STEP_PX = 8
"""Pixels of a latent pixel that transformers are measured with."""
RUNS = {"mini, 9 frames": ("mini", 9)}


def vae_sizes(kind: str, *, full: bool) -> dict[str, Any]:
    """Those of the VAE that a stage is of."""
    name = kind.partition("_")[0]
    return FULL_VAES[name] if full else SMALL_VAE if name == "small" else LARGE_VAE


def predicted(kind: str, size_px: tuple[int, int], frames: int, full: bool) -> tuple[int, float]:
    """Bytes that a stage adds, and its floating-point operations."""
    latent = (frames - 1) // 4 + 1
    if kind.endswith("step"):
        small, size = kind == "small_step", (size_px[0] // STEP_PX, size_px[1] // STEP_PX)
        step = getattr(stepping, kind)(SMALL if small else LARGE, latent, size, 2, 4)
        return step.peak_bytes, 2 * step.branch_work
    sizes = vae_sizes(kind, full=full)
    length = latent if kind.endswith("decode") else frames
    told = getattr(vae_small if kind.startswith("small") else vae_large, kind)(sizes, length, size_px, 4, on_cpu=True)
    return told.peak_bytes, told.work


def stage(kind: str, size_px: tuple[int, int], frames: int, full: bool) -> Callable[[], object]:
    """A stage of real classes with weights from a seed, ready to run."""
    import torch
    from accelerate import init_empty_weights
    from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan

    from mtvcraft_cli.latents import cogvideox, vae, wan
    from mtvcraft_cli.latents.rope import Rotary
    from mtvcraft_cli.latents.seeded import seeded_tensors
    from mtvcraft_cli.latents.wanvideo import vae as large_vae

    def built(kind: Any, build: Callable[..., Any], sizes: dict[str, Any]) -> Any:
        with init_empty_weights():
            empty = kind(**sizes)
        return build(sizes, seeded_tensors(empty, 0))

    def table(tokens: int, wide: int) -> Rotary:
        return Rotary(torch.randn(tokens, wide), torch.randn(tokens, wide))

    (width, height), latent = size_px, (frames - 1) // 4 + 1
    px = STEP_PX if kind.endswith("step") else latent_px(vae_sizes(kind, full=full))
    rows, columns = height // px, width // px
    patches, motion = latent * rows * columns // 4, 24 * latent
    if kind == "small_step":
        small = built(cogvideox.CogVideoXMotionTransformer, cogvideox.build_transformer, SMALL)
        noisy, tokens = torch.randn(2, latent, 32, rows, columns), torch.randn(2, motion, 512)
        return lambda: small(noisy, torch.full((2,), 500), tokens, table(patches, 64), table(motion, 64))
    if kind == "large_step":
        large = built(wan.WanMotionTransformer, wan.build_transformer, LARGE)
        noisy, tokens = torch.randn(2, 36, latent, rows, columns), torch.randn(2, motion, 64)
        text, picture = torch.randn(2, 64, 64), torch.randn(2, 257, 32)
        tables = table(patches, 128), table(motion, 128)
        return lambda: large(noisy, torch.full((2,), 500.0), tokens, text, picture, *tables)
    video = torch.randn(1, 3, frames, height, width)
    if kind.startswith("small"):
        coder = built(AutoencoderKLCogVideoX, vae.build_vae, vae_sizes(kind, full=full))
        coded = torch.randn(1, latent, 16, rows, columns)
        return lambda: vae.decode(coder, coded) if kind.endswith("decode") else vae.encode_video(coder, video)
    coder = built(AutoencoderKLWan, large_vae.build_vae, vae_sizes(kind, full=full))
    coded = torch.randn(1, 16, latent, rows, columns)
    return lambda: large_vae.decode(coder, coded) if kind.endswith("decode") else large_vae.encode_video(coder, video)


def status(name: str) -> int:
    """A line of `/proc/self/status`, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def measure(kind: str, size_px: tuple[int, int], frames: int, full: bool, threads: int, answer: Any) -> None:
    """In a process of its own: the memory that a stage adds at its peak, and its seconds."""
    import torch

    torch.set_num_threads(threads)
    with torch.no_grad():
        stage(kind, size_px, frames, False)()  # loads the code of each kind of layer
        run = stage(kind, size_px, frames, full)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before, started = status("VmRSS"), time.perf_counter()
        run()
    answer.send((status("VmHWM") - before, time.perf_counter() - started))


def apart(*arguments: Any) -> tuple[int, float]:
    """`measure` in a fresh process."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**20)
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(*arguments, there))
    process.start()
    there.close()
    answer = here.recv()
    process.join()
    del os.environ["MALLOC_MMAP_THRESHOLD_"]
    return answer


def whole_run(preset: str, frames: int, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan and the report of a run of the program, the second of two with a seed each."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        from PIL import Image

        Image.fromarray(np.full((128, 128, 3), 90, np.uint8)).save(folder / "ref.png")
        mean_mm = load_preset(preset).statistics.mean_mm
        np.save(folder / "drive.npy", np.repeat(mean_mm[None], frames, axis=0))
        words = ["animate", "ref.png", "drive.npy", "--preset", preset, "--steps", "2", "--json", "-q"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MTVCRAFT_CACHE": str(folder / "cache")}
        for seed in ("1", "2"):
            command = [sys.executable, "-m", "mtvcraft_cli", *words, "--seed", seed, "-o", f"{seed}.mp4"]
            done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    told = json.loads(done.stdout)
    return told["plan"], told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=[*STAGES, *FULL, *RUNS])
    options = parser.parse_args()
    print(f"{'':18}  {'MiB predicted':>13}  {'measured':>8}  {'ratio':>5}  {'seconds predicted':>17}  measured")
    for title, (kind, size_px, frames) in (STAGES | FULL).items():
        if options.only in (None, title):
            wanted, _ = predicted(kind, size_px, frames, title in FULL)
            found, seconds = apart(kind, size_px, frames, title in FULL, options.threads)
            row = f"{wanted / 2**20:13.0f}  {found / 2**20:8.0f}  {wanted / found:5.2f}"
            print(f"{title:18}  {row}  {'':17}  {seconds:8.1f}", flush=True)
    for title, (preset, frames) in RUNS.items():
        if options.only in (None, title):
            plan, told = whole_run(preset, frames, options.threads)
            wanted, found = plan["ram_peak_bytes"], told["peak_memory_bytes"]["ram"]
            row = f"{wanted / 2**20:13.0f}  {found / 2**20:8.0f}  {wanted / found:5.2f}"
            print(f"{title:18}  {row}  {plan['expected_s']:17.1f}  {told['seconds']:8.1f}", flush=True)


if __name__ == "__main__":
    main()
