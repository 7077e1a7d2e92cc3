"""One denoising step against the plainest PyTorch of the same formulas: seconds, memory, and how far apart they end.

    python benchmarks/step.py [--threads 2] [--repeats 3] [--only mini|7b|17b|17b-bf16]

Each row runs in a process of its own. `ours` is the transformer of the package as a run has it: with fused projections
and, from the second step of a window on, with the keys and values that the first one made; the fastest of some steps
counts. `plain` is written out below, layer by layer, and shares only the weights and the position tables. On the CPU,
in float32 where the row doesn't say bfloat16: guidance as one batch of two for mini; a single sample for slices of two
blocks at the full width of the 7b (3072, 48 heads) and of the 17b (5120, 40 heads; motion attention in the first of the
two), 13 x 16 x 16 tokens each. The 17b in float32 takes 7 GB. On a busy machine look at the CPU ratio: it counts what
the process itself was given.
"""

import sys

sys.path.pop(0)  # this folder, whose tokenize.py would stand for Python's own module of that name

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.device.sizes import latent_size
from mtvcraft_cli.latents import cogvideox, wan
from mtvcraft_cli.latents.faster import fuse
from mtvcraft_cli.latents.rope import Rotary, motion_table, visual_table, wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.spare import Forwards, Spare
from mtvcraft_cli.preset import load_preset

TITLES = {
    "mini": "mini",
    "7b": "7b, 2 of 42 blocks",
    "17b": "17b, 2 of 40 blocks",
    "17b-bf16": "17b, 2 of 40 blocks, bfloat16",
}
HEADER = ("step", "seconds plain", "seconds ours", "ratio", "CPU ratio", "MiB plain", "MiB ours", "max abs difference")


def plain_step(
    tensors: dict[str, Tensor],
    heads: int,
    latents: Tensor,
    times: Tensor,
    tokens: Tensor,
    visual: Rotary,
    motion: Rotary,
) -> Tensor:
    """The small model's transformer, written down from the formulas: softmax(q k^T / sqrt(k)) v and all."""
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


def plain_wan_step(
    tensors: dict[str, Tensor],
    heads: int,
    latents: Tensor,
    times: Tensor,
    tokens: Tensor,
    text: Tensor,
    picture: Tensor,
    visual: Rotary,
    motion: Rotary,
) -> Tensor:
    """The large model's, in the same way: norms and modulation in float32, the rest in the dtype of the weights."""
    dtype, width = latents.dtype, tensors["patch_embedding.bias"].shape[0]

    def linear(name: str, given: Tensor) -> Tensor:
        weight = tensors[f"{name}.weight"]
        return given.to(weight.dtype) @ weight.T + tensors[f"{name}.bias"]

    def norm(given: Tensor, name: str = "", eps: float = 1e-6) -> Tensor:
        given = given.float()
        spread = (given.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
        normed = (given - given.mean(-1, keepdim=True)) / spread
        return normed * tensors[f"{name}.weight"].float() + tensors[f"{name}.bias"].float() if name else normed

    def split(given: Tensor) -> Tensor:
        return given.unflatten(-1, (heads, width // heads)).transpose(1, 2)  # (b, h, s, k)

    def scaled(name: str, given: Tensor) -> Tensor:
        size = (given.float().square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return (given.float() / size * tensors[f"{name}.weight"].float()).to(dtype)

    def turn(given: Tensor, table: Rotary) -> Tensor:
        swapped = torch.stack([-given[..., 1::2], given[..., 0::2]], dim=-1).flatten(-2)
        return (given * table.cos + swapped * table.sin).to(dtype)

    def look_up(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        def some(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return (query @ key.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1) @ value

        parts = zip(*(part.split(8, dim=1) for part in (query, key, value)), strict=True)
        return torch.cat([some(*part) for part in parts], dim=1).transpose(1, 2).flatten(-2)  # 8 heads: all take 3.5 GB

    def projected(name: str, patches: Tensor, looked_up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = scaled(f"{name}.norm_q", linear(f"{name}.to_q", patches))
        key = scaled(f"{name}.norm_k", linear(f"{name}.to_k", looked_up))
        return query, key, split(linear(f"{name}.to_v", looked_up))

    half = tensors["condition_embedder.time_embedder.linear_1.weight"].shape[1] // 2
    angles = times[:, None] * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    embedder = "condition_embedder"
    hidden = linear(f"{embedder}.time_embedder.linear_1", torch.cat([angles.cos(), angles.sin()], -1))
    time_vector = linear(f"{embedder}.time_embedder.linear_2", hidden * hidden.sigmoid()).to(dtype)
    rows = linear(f"{embedder}.time_proj", time_vector * time_vector.sigmoid()).unflatten(1, (6, width)).float()
    filled = torch.cat([text, text.new_zeros(len(text), 512 - text.shape[1], text.shape[2])], dim=1)
    hidden = functional.gelu(linear(f"{embedder}.text_embedder.linear_1", filled), approximate="tanh")
    text = linear(f"{embedder}.text_embedder.linear_2", hidden)
    seen = norm(picture, f"{embedder}.image_embedder.norm1", 1e-5)
    seen = functional.gelu(linear(f"{embedder}.image_embedder.ff.net.0.proj", seen))
    seen = linear(f"{embedder}.image_embedder.ff.net.2", seen)
    picture = norm(seen, f"{embedder}.image_embedder.norm2", 1e-5).to(dtype)
    tokens = torch.cat([tokens, tokens.new_zeros(*tokens.shape[:2], width - tokens.shape[2])], dim=-1)

    batch, _, frames, height, columns = latents.shape
    cut = latents.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))  # (b, c, f, h, p, w, q)
    cut = cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
    patches = cut @ tensors["patch_embedding.weight"].flatten(1).T + tensors["patch_embedding.bias"]
    layer = 0
    while f"blocks.{layer}.scale_shift_table" in tensors:
        block = f"blocks.{layer}"
        change = (tensors[f"{block}.scale_shift_table"] + rows)[:, :, None].unbind(1)
        shown = (norm(patches) * (1 + change[1]) + change[0]).to(dtype)
        query, key, value = projected(f"{block}.attn1", shown, shown)
        found = look_up(turn(split(query), visual), turn(split(key), visual), value)
        patches = (patches + linear(f"{block}.attn1.to_out.0", found) * change[2]).to(dtype)
        shown = norm(patches, f"{block}.norm2").to(dtype)
        query, key, value = projected(f"{block}.attn2", shown, text)
        found = look_up(split(query), split(key), value)
        key = split(scaled(f"{block}.attn2.norm_added_k", linear(f"{block}.attn2.add_k_proj", picture)))
        found = found + look_up(split(query), key, split(linear(f"{block}.attn2.add_v_proj", picture)))
        patches = patches + linear(f"{block}.attn2.to_out.0", found)
        if f"{block}.norm4.weight" in tensors:
            shown = norm(patches, f"{block}.norm4").to(dtype)
            query, key, value = projected(f"{block}.motion_attn", shown, tokens)
            key = key.reshape(batch, heads, -1, width // heads)  # the released split
            found = look_up(turn(split(query), visual), turn(key, motion), value)
            patches = patches + linear(f"{block}.motion_attn.to_out.0", found)
        shown = (norm(patches) * (1 + change[4]) + change[3]).to(dtype)
        wide = functional.gelu(linear(f"{block}.ffn.net.0.proj", shown), approximate="tanh")
        patches = (patches + linear(f"{block}.ffn.net.2", wide) * change[5]).to(dtype)
        layer += 1
    shift, scale = (tensors["scale_shift_table"] + time_vector[:, None]).chunk(2, 1)
    out = linear("proj_out", (norm(patches) * (1 + scale) + shift).to(dtype))
    out = out.reshape(batch, frames, height // 2, columns // 2, 2, 2, -1)
    return out.permute(0, 6, 1, 2, 4, 3, 5).reshape(batch, -1, frames, height, columns)


def case(name: str) -> tuple[nn.Module, Callable[..., Tensor], dict[str, Any]]:
    """A transformer, the plain version of it, and one step's inputs."""
    preset = load_preset("mini")
    generator = torch.Generator().manual_seed(1)
    mean_mm = preset.statistics.mean_mm
    if name.startswith("17b"):
        with init_empty_weights():
            empty = wan.WanMotionTransformer(num_layers=2)
        dtype = torch.bfloat16 if name == "17b-bf16" else torch.float32
        drawn = {
            "latents": (1, 36, 13, 32, 32),
            "times": (1,),
            "tokens": (1, 13 * 24, 3072),
            "text": (1, 40, 4096),
            "picture": (1, 257, 1280),
        }
        given: dict[str, Any] = {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in drawn.items()}
        given["times"] = torch.tensor([421.25])
        given |= {"visual": wan_visual_table(13, 16, 16, 128), "motion": wan_motion_table(13, mean_mm, 128)}
        return wan.build_transformer(empty.config, seeded_tensors(empty, 0), dtype), plain_wan_step, given
    slice_of_7b = {"num_layers": 2, "unconditional_motion_shape": (24, 3072)}
    with init_empty_weights():
        empty = cogvideox.CogVideoXMotionTransformer(**(preset.transformer if name == "mini" else slice_of_7b))
    columns, rows, frames, batch = 16, 16, 13, 1
    if name == "mini":
        columns, rows = (side // empty.config.patch_size for side in latent_size(preset.vae, preset.size_px))
        frames, batch = (preset.frames + 3) // 4, 2
    heads, head_dim = empty.config.num_attention_heads, empty.config.attention_head_dim
    given = {
        "latents": torch.randn(batch, frames, 32, 2 * rows, 2 * columns, generator=generator),
        "times": torch.full((batch,), 421),
        "tokens": torch.randn(batch, frames * 24, heads * head_dim, generator=generator),
        "visual": visual_table(frames, rows, columns, head_dim),
        "motion": motion_table(frames, mean_mm, head_dim),
    }
    return cogvideox.build_transformer(empty.config, seeded_tensors(empty, 0)), plain_step, given


def measure(name: str, kind: str, threads: int, repeats: int, answer: Any) -> None:
    """In a process of its own: the fastest of some steps, by clock and by CPU, the memory they add, and the result."""
    torch.set_num_threads(threads)
    transformer, plain, given = case(name)
    tensors = dict(transformer.state_dict()) if kind == "plain" else {}
    heads = transformer.config.num_attention_heads
    if kind == "ours":
        fuse(transformer)
    forget = Path("/proc/self/clear_refs")
    if forget.exists():  # Linux: the peak of drawing the weights doesn't count
        forget.write_text("5", encoding="ascii")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, cpu_seconds = [], []
    with torch.inference_mode():
        forwards = Forwards(transformer, Spare())
        for _ in range(repeats):
            start, cpu_start = time.perf_counter(), time.process_time()
            if kind == "plain":
                result = plain(tensors, heads, **given)
            else:
                with forwards.named("step") as lent:
                    result = lent(*given.values())
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
    added_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    answer.send((min(seconds), min(cpu_seconds), added_kib / 1024, result.float().numpy()))


def apart(*arguments: Any) -> tuple[float, float, float, Any]:
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
    parser.add_argument("--only", choices=list(TITLES))
    options = parser.parse_args()
    rows = [HEADER]
    for name in [options.only] if options.only else TITLES:
        (slow, slow_cpu, much, plain), (fast, fast_cpu, little, ours) = (
            apart(name, kind, options.threads, options.repeats) for kind in ("plain", "ours")
        )
        off = abs(plain - ours).max()
        ratios = (f"{slow / fast:.2f}", f"{slow_cpu / fast_cpu:.2f}")
        rows.append((TITLES[name], f"{slow:.3f}", f"{fast:.3f}", *ratios, f"{much:.0f}", f"{little:.0f}", f"{off:.1e}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
