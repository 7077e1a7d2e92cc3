"""Networks that can do the easy part before their first step."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.latents.sampler import Condition, denoise, make_scheduler
from mtvcraft_cli.latents.vae import to_frames, to_video
from mtvcraft_cli.train.start import start_from_averages, start_from_reference
from mtvcraft_cli.train.vae import psnr_db
from mtvcraft_cli.train.world.scenes import scene
from tests import tiny

BLOCKS = ("CogVideoXDownBlock3D",) * 3


def vae() -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    return AutoencoderKLCogVideoX(
        down_block_types=BLOCKS,
        up_block_types=tuple(block.replace("Down", "Up") for block in BLOCKS),
        block_out_channels=(8, 16, 48),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=16,
    ).eval()


def round_trip_db(network: AutoencoderKLCogVideoX) -> float:
    frames = scene(3, "train", (32, 32), 9).frames
    with torch.no_grad():
        made = network.decode(network.encode(to_video(frames)).latent_dist.mode()).sample
    return psnr_db(frames, to_frames(made))


def test_a_vae_that_starts_from_averages_codes_pictures_at_once() -> None:
    fresh, started = vae(), vae()
    start_from_averages(started)
    assert round_trip_db(started) > round_trip_db(fresh) + 4
    assert round_trip_db(started) > 17


def test_a_vae_that_is_too_narrow_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match="too narrow"):
        start_from_averages(tiny.tiny_vae(latent_channels=4))


def transformer(width: int) -> CogVideoXMotionTransformer:
    torch.manual_seed(0)
    return CogVideoXMotionTransformer(
        num_attention_heads=width // 16,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        num_layers=2,
        motion_every=2,
        unconditional_motion_shape=(24, width),
        time_embed_dim=64,
    ).eval()


def test_an_untrained_transformer_draws_the_reference_again() -> None:
    scheduler = make_scheduler("dpm", tiny.SCHEDULER)
    network = transformer(96)
    apart = 0.1
    start_from_reference(network, scheduler.alphas_cumprod, apart)
    rng = torch.Generator().manual_seed(1)
    reference = torch.randn(1, 1, 4, 4, 4, generator=rng).expand(-1, 3, -1, -1, -1)
    condition = Condition(
        reference=reference,
        tokens=torch.randn(1, 72, 96, generator=rng),
        visual=visual_table(3, 2, 2, 16),
        motion=motion_table(3, tiny.joint_mean_mm(), 16),
    )
    *_, latents = denoise(network, scheduler, condition, steps=8, guidance=3.0, generator=rng)
    distance = (latents - reference).square().mean().item()
    assert distance < 2 * apart, "as far as clips are from their references, and no further"
    assert np.corrcoef(latents.detach().flatten(), reference.flatten())[0, 1] > 0.95


def test_a_transformer_that_cannot_hold_two_patches_is_refused() -> None:
    with pytest.raises(ValueError, match="two patches"):
        start_from_reference(transformer(32), make_scheduler("dpm", tiny.SCHEDULER).alphas_cumprod, 0.1)
