"""What stages take beside their weights, against real classes that allocate nothing."""

from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mtvcraft_cli.device import stepping, vae_small
from mtvcraft_cli.device.vae_large import large_decode, large_encode
from mtvcraft_cli.device.vae_small import small_decode, small_encode
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import Rotary
from mtvcraft_cli.latents.spare import set_cache
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.preset import load_preset
from tests.device.ledger import META, peak_bytes

SEVEN = dict(load_preset("7b").transformer) | {"num_layers": 2}
SEVENTEEN = dict(load_preset("17b").transformer) | {"num_layers": 2}
TRUE_TO = 0.05
"""How far a prediction may lie above what is alive; below it by a hundredth at most."""


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device=META)


def table(tokens: int, head: int) -> Rotary:
    return Rotary(empty(tokens, head), empty(tokens, head))


def built(kind: Any, config: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    with init_empty_weights():
        module = kind(**config)
    whole = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    for name, tensor in module.named_parameters():
        if not whole & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)
    return module.eval()


def close(predicted: int, real: int) -> None:
    assert -0.01 <= predicted / real - 1 <= TRUE_TO, f"{predicted / 1e6:.1f} MB predicted, {real / 1e6:.1f} MB alive"


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_the_small_model_at_full_width_and_size(dtype: torch.dtype, batch: int) -> None:
    module, wide = built(CogVideoXMotionTransformer, SEVEN, dtype), dtype.itemsize
    latents, tokens = empty(batch, 13, 32, 64, 64, dtype=dtype), empty(batch, 312, 3072, dtype=dtype)
    times = torch.zeros(batch, dtype=torch.int64, device=META)
    given = (latents, times, tokens, table(13312, 64), table(312, 64))
    step = stepping.small_step(SEVEN, 13, (64, 64), batch, wide)
    assert (step.visual_tokens, step.motion_tokens) == (13312, 312)
    close(step.peak_bytes, peak_bytes(module, module, *given))
    if batch == 1 and wide == 4:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*given)
        assert abs(step.branch_work / counter.get_total_flops() - 1) < 0.01


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_of_the_large_model_at_full_width_and_size(dtype: torch.dtype, batch: int) -> None:
    module, wide = built(WanMotionTransformer, SEVENTEEN, dtype), dtype.itemsize
    module.condition_embedder.timesteps_proj.forward = lambda times: empty(len(times), 256)
    given = (
        empty(batch, 36, 13, 64, 64, dtype=dtype),
        empty(batch),
        empty(batch, 312, 3072, dtype=dtype),
        empty(batch, 512, 4096, dtype=dtype),
        empty(batch, 257, 1280, dtype=dtype),
        table(13312, 128),
        table(312, 128),
    )
    step = stepping.large_step(SEVENTEEN, 13, (64, 64), batch, wide)
    close(step.peak_bytes, peak_bytes(module, module, *given))
    if batch == 1 and wide == 4:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*given)
        assert abs(step.branch_work / counter.get_total_flops() - 1) < 0.02


@pytest.mark.parametrize("branches", [("both",), ("uncond", "cond")])
def test_what_skipping_keeps_of_the_small_model(branches: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FBCHeadBlockHook, "_should_compute_remaining_blocks", lambda *_: True)  # meta has no numbers
    dtype, batch = torch.bfloat16, 2 // len(branches)
    module = built(CogVideoXMotionTransformer, SEVEN | {"num_layers": 4}, dtype)
    set_cache(module, 0.1)
    latents, tokens = empty(batch, 13, 32, 64, 64, dtype=dtype), empty(batch, 312, 3072, dtype=dtype)
    times = torch.zeros(batch, dtype=torch.int64, device=META)

    def steps(*given: Any) -> None:
        for branch in branches * 2:
            with module.cache_context(branch):
                module(*given)

    real = peak_bytes(module, steps, latents, times, tokens, table(13312, 64), table(312, 64))
    step = stepping.small_step(SEVEN, 13, (64, 64), batch, 2)
    close(step.peak_bytes + stepping.kept_outputs(SEVEN, step.visual_tokens, 2, 2, small=True), real)


def test_what_skipping_keeps_of_the_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FBCHeadBlockHook, "_should_compute_remaining_blocks", lambda *_: True)
    dtype = torch.bfloat16
    module = built(WanMotionTransformer, SEVENTEEN | {"num_layers": 4}, dtype)
    module.condition_embedder.timesteps_proj.forward = lambda times: empty(len(times), 256)
    set_cache(module, 0.1)

    def steps(*given: Any) -> None:
        *inputs, visual, motion = given
        for name, batch in (("led", 1), ("none+led", 2), ("none+led", 2)):  # where guidance begins in the middle
            with module.cache_context(name):
                module(*(each.expand(batch, *each.shape[1:]) for each in inputs), visual, motion)

    shapes = (1, 36, 13, 64, 64), (1,), (1, 312, 3072), (1, 512, 4096), (1, 257, 1280)
    inputs = [empty(*shape, dtype=dtype if len(shape) > 1 else torch.float32) for shape in shapes]
    real = peak_bytes(module, steps, *inputs, table(13312, 128), table(312, 128))
    step = stepping.large_step(SEVENTEEN, 13, (64, 64), 2, 2)
    close(step.peak_bytes + stepping.kept_outputs(SEVENTEEN, step.visual_tokens, 3, 2, small=False), real)


@pytest.mark.parametrize(("name", "latent_px"), [("7b", 8), ("mini", 4)])
@pytest.mark.parametrize("latent_frames", [3, 4])
def test_decoding_with_cogvideox_vae(latent_frames: int, name: str, latent_px: int) -> None:
    config = dict(load_preset(name).vae)
    vae = built(AutoencoderKLCogVideoX, config)
    coded = empty(1, 16, latent_frames, 128 // latent_px, 128 // latent_px)
    real = peak_bytes(vae, lambda coded: vae.decode(coded).sample, coded)
    told = small_decode(config, latent_frames, (128, 128), 4, on_cpu=False)
    close(told.peak_bytes, real)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.decode(coded)
    assert abs(told.work / counter.get_total_flops() - 1) < 0.01


def test_tiles_bound_what_decoding_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {**load_preset("7b").vae, "block_out_channels": (24, 48, 48, 64), "norm_num_groups": 8}
    vae = built(AutoencoderKLCogVideoX, config)
    vae.enable_tiling(64, 64, 0.25, 0.25)
    monkeypatch.setattr(vae_small, "TILE_PX", (64, 64))
    monkeypatch.setattr(vae_small, "OVERLAP", (0.25, 0.25))
    coded = empty(1, 16, 3, 12, 12)
    real = peak_bytes(vae, lambda coded: vae.decode(coded).sample, coded)
    told = small_decode(config, 3, (96, 96), 4, on_cpu=False)
    close(told.peak_bytes, real)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.decode(coded)
    assert abs(told.work / counter.get_total_flops() - 1) < 0.01


@pytest.mark.parametrize("name", ["7b", "mini"])
@pytest.mark.parametrize("frames", [9, 17])
def test_encoding_with_cogvideox_vae(frames: int, name: str) -> None:
    config = dict(load_preset(name).vae)
    vae = built(AutoencoderKLCogVideoX, config)
    video = empty(1, 3, frames, 128, 128)
    real = peak_bytes(vae, lambda video: vae.encode(video).latent_dist.mode(), video)
    told = small_encode(config, frames, (128, 128), 4, on_cpu=False)
    close(told.peak_bytes, real + video.nbytes)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(video)
    assert abs(told.work / counter.get_total_flops() - 1) < 0.01


def test_decoding_with_wan_vae() -> None:
    config = dict(load_preset("17b").vae)
    vae = built(AutoencoderKLWan, config)
    coded = empty(1, 16, 3, 16, 16)

    def decode(coded: Tensor) -> None:
        """As `decoded_parts` does it, but for the copy to the CPU, which meta tensors don't have."""
        vae.clear_cache()
        for frame, part in enumerate(vae.post_quant_conv(coded).split(1, dim=2)):
            vae._conv_idx = [0]
            vae.decoder(part, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=frame == 0)

    told = large_decode(config, 3, (128, 128), 4, on_cpu=False)
    close(told.peak_bytes, peak_bytes(vae, decode, coded))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        decode(coded)
    assert abs(told.work / counter.get_total_flops() - 1) < 0.01


def test_encoding_with_wan_vae() -> None:
    config = dict(load_preset("17b").vae)
    vae = built(AutoencoderKLWan, config)
    video = empty(1, 3, 9, 128, 128)
    real = peak_bytes(vae, lambda video: vae.encode(video).latent_dist.mode(), video)
    told = large_encode(config, 9, (128, 128), 4, on_cpu=False)
    close(told.peak_bytes, real + video.nbytes)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        vae.encode(video)
    assert abs(told.work / counter.get_total_flops() - 1) < 0.01


def test_a_cpu_lays_out_what_convolutions_take_anew() -> None:
    config = dict(load_preset("mini").vae)
    card, cpu = (small_encode(config, 9, (128, 128), 4, on_cpu=on_cpu) for on_cpu in (False, True))
    assert cpu.peak_bytes > card.peak_bytes
    assert cpu.work == card.work
