"""One denoising step against the plainest PyTorch of the same formulas: seconds, memory, and how far apart they end.

    python benchmarks/step.py [--threads 2] [--repeats 3] [--only mini|7b]

Each row runs in a process of its own. `ours` is `CogVideoXMotionTransformer`; `plain` is written out below, layer by
layer, and shares only the weights and the position tables. float32 on the CPU; guidance as one batch of two for mini,
a single sample for the slice of two blocks at the full width of the 7b (3072, 48 heads; 13 x 16 x 16 tokens).
"""

import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.rope import Rotary, motion_table, visual_table
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.preset import load_preset

SEVEN = {"num_layers": 2, "unconditional_motion_shape": (24, 3072)}
HEADER = ("step", "seconds plain", "seconds ours", "ratio", "MiB plain", "MiB ours", "max abs difference")


def plain_step(
    tensors: dict[str, Tensor],
    heads: int,
    latents: Tensor,
    times: Tensor,
    tokens: Tensor,
    visual: Rotary,
    motion: Rotary,
) -> Tensor:
    """The transformer, written down from the formulas: softmax(q k^T / sqrt(k)) v and all."""
    width = tensors["norm_final.weight"].shape[0]

    def linear(name: str, given: Tensor) -> Tensor:
        return given @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(name: str, given: Tensor, eps: float) -> Tensor:
        mean = given.mean(-1, keepdim=True)
        spread = (given.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        return (given - mean) / spread * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def turn(given: Tensor, table: Rotary) -> Tensor:
        swapped = torch.stack([-given[..., 1::2], given[..., 0::2]], dim=-1).flatten(-2)
        return given * table.cos + swapped * table.sin

    def attend(name: str, patches: Tensor, looked_up: Tensor, table: Rotary) -> Tensor:
        def split(given: Tensor) -> Tensor:
            return given.unflatten(-1, (heads, width // heads)).transpose(1, 2)  # (b, h, s, k)

        query = turn(norm(f"{name}.norm_q", split(linear(f"{name}.to_q", patches)), 1e-6), visual)
        key = turn(norm(f"{name}.norm_k", split(linear(f"{name}.to_k", looked_up)), 1e-6), table)
        value = split(linear(f"{name}.to_v", looked_up))
        weights = (query @ key.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1)
        return linear(f"{name}.to_out.0", (weights @ value).transpose(1, 2).flatten(-2))

    def modulated(name: str, patches: Tensor, parts: int) -> tuple[Tensor, ...]:
        shift, scale, *gate = linear(f"{name}.linear", time_vector * time_vector.sigmoid())[:, None].chunk(parts, -1)
        return (norm(f"{name}.norm", patches, 1e-5) * (1 + scale) + shift, *gate)

    angles = times[:, None] * 10000.0 ** (-torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    hidden = linear("time_embedding.linear_1", torch.cat([angles.cos(), angles.sin()], -1).float())
    time_vector = linear("time_embedding.linear_2", hidden * hidden.sigmoid())

    batch, frames, _, height, columns = latents.shape
    cut = latents.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (b, f, c, h, p, w, q)
    cut = cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(1, 3)
    patches = cut @ tensors["patch_embed.proj.weight"].flatten(1).T + tensors["patch_embed.proj.bias"]
    layer = 0
    while f"transformer_blocks.{layer}.norm1.linear.weight" in tensors:
        block = f"transformer_blocks.{layer}"
        shown, gate = modulated(f"{block}.norm1", patches, 3)
        patches = patches + gate * attend(f"{block}.attn1", shown, shown, visual)
        if f"{block}.attn0.to_q.weight" in tensors:
            patches = patches + attend(f"{block}.attn0", patches, tokens, motion)
        shown, gate = modulated(f"{block}.norm2", patches, 3)
        wide = functional.gelu(linear(f"{block}.ff.net.0.proj", shown), approximate="tanh")
        patches = patches + gate * linear(f"{block}.ff.net.2", wide)
        layer += 1
    (shown,) = modulated("norm_out", norm("norm_final", patches, 1e-5), 2)
    out = linear("proj_out", shown).reshape(batch, frames, height // 2, columns // 2, -1, 2, 2)
    return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, -1, height, columns)


def case(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes of the transformer, and one step's inputs."""
    preset = load_preset("mini")
    config: dict[str, Any] = dict(preset.transformer) if name == "mini" else SEVEN
    rows, columns, batch = (preset.size_px[1] // 16, preset.size_px[0] // 16, 2) if name == "mini" else (16, 16, 1)
    heads, head_dim = config.get("num_attention_heads", 48), config.get("attention_head_dim", 64)
    generator = torch.Generator().manual_seed(1)
    return config, {
        "latents": torch.randn(batch, 13, 32, 2 * rows, 2 * columns, generator=generator),
        "times": torch.full((batch,), 421),
        "tokens": torch.randn(batch, 13 * 24, heads * head_dim, generator=generator),
        "visual": visual_table(13, rows, columns, head_dim),
        "motion": motion_table(13, preset.statistics.mean_mm, head_dim),
    }


def measure(name: str, kind: str, threads: int, repeats: int, answer: Any) -> None:
    """In a process of its own: the fastest of some steps, the memory that they add, and the result."""
    torch.set_num_threads(threads)
    config, given = case(name)
    with init_empty_weights():
        empty = CogVideoXMotionTransformer(**config)
    tensors = seeded_tensors(empty, 0)
    heads = empty.config.num_attention_heads
    step: Callable[[], Tensor]
    if kind == "plain":
        step = lambda: plain_step(tensors, heads, **given)  # noqa: E731
    else:
        transformer = build_transformer(config, tensors)
        step = lambda: transformer(*given.values())  # noqa: E731
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats):
            start = time.perf_counter()
            result = step()
            seconds.append(time.perf_counter() - start)
    added_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    answer.send((min(seconds), added_kib / 1024, result.numpy()))


def apart(*arguments: Any) -> tuple[float, float, Any]:
    """`measure` in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure, args=(*arguments, there))
    process.start()
    there.close()
    answer = here.recv()
    process.join()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["mini", "7b"])
    options = parser.parse_args()
    rows = [HEADER]
    for name in [options.only] if options.only else ["mini", "7b"]:
        (slow, much, plain), (fast, little, ours) = (
            apart(name, kind, options.threads, options.repeats) for kind in ("plain", "ours")
        )
        title = name if name == "mini" else "7b, 2 of 42 blocks"
        off = abs(plain - ours).max()
        rows.append(
            (title, f"{slow:.3f}", f"{fast:.3f}", f"{slow / fast:.2f}", f"{much:.0f}", f"{little:.0f}", f"{off:.1e}")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
