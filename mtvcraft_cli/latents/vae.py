"""Pixels to latents and back: diffusers' video VAE of CogVideoX, eight times smaller in space and four in time."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from mtvcraft_cli.latents.checkpoint import arguments_of, fill
from mtvcraft_cli.shapes import Frames, Latents, Picture, Video


def build_vae(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> AutoencoderKLCogVideoX:
    """Make the VAE of a checkpoint, ready to run.

    Frames larger than a tile (by default 360 wide or 240 high) are coded tile by tile, as released: a tile's borders
    are blended, so the result differs a little from an untiled one.

    Args:
        config: a preset's sizes or a checkpoint's `config.json`.
        tensors: the checkpoint.
        dtype: what to compute in; None keeps the checkpoint's.

    Raises:
        MtvcraftError: tensors are missing, left over or misshaped, or a key of `config` is misspelt.
    """
    with init_empty_weights():
        vae = AutoencoderKLCogVideoX(**arguments_of(AutoencoderKLCogVideoX, config, "VAE"))
    cast = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in tensors.items()}
    vae = fill(vae, cast, "VAE").eval()
    vae.enable_tiling()
    vae.enable_slicing()
    return vae


@torch.no_grad()
def encode_reference(
    vae: AutoencoderKLCogVideoX,
    picture: Picture,
    frames: int,
    *,
    sample: bool,
    scaled: bool,
    generator: torch.Generator,
) -> Latents:
    """Encode a clip that shows the character's picture in every frame.

    Source: released code, which takes a sample of the posterior and leaves it unscaled; its weights expect that scale.

    Args:
        vae: the VAE.
        picture: (H, W, 3), the sides multiples of 8.
        frames: frames of a window, 8n + 1.
        sample: whether to draw from the posterior; else its mean is taken.
        scaled: whether to multiply by the VAE's scaling factor, as noisy latents are.
        generator: where the draw comes from.

    Returns:
        (1, F, C, h, w).
    """
    video = to_video(picture[None]).expand(-1, -1, frames, -1, -1)
    posterior = vae.encode(video.to(vae.device, vae.dtype)).latent_dist
    latents = posterior.sample(generator) if sample else posterior.mode()
    return latents.transpose(1, 2) * (vae.config.scaling_factor if scaled else 1.0)


@torch.no_grad()
def encode_video(vae: AutoencoderKLCogVideoX, video: Video) -> Latents:
    """Encode (1, 3, T, H, W) frames, T = 8n + 1, to the posterior's mean in the scale of noisy latents."""
    posterior = vae.encode(video.to(vae.device, vae.dtype)).latent_dist
    return posterior.mode().transpose(1, 2) * vae.config.scaling_factor


@torch.no_grad()
def decode(vae: AutoencoderKLCogVideoX, latents: Latents) -> Video:
    """Decode latents to frames, a few at a time so that only those few lie on the graphics card.

    The bits are those of `vae.decode`: it too takes three latent frames first (two if their number is even), then two
    at a time, each continuing from the convolutions' last inputs.

    Args:
        vae: the VAE.
        latents: (1, F, C, h, w) in the scale of noisy latents.

    Returns:
        (1, 3, T, H, W) float32 on the CPU, around -1..1 but not clamped; T = 4F - 3 if F is odd, else 4F.
    """
    coded = latents.to(vae.device, vae.dtype).transpose(1, 2) / vae.config.scaling_factor
    frames, height, width = coded.shape[2:]
    tiled = vae.use_tiling and (height > vae.tile_latent_min_height or width > vae.tile_latent_min_width)
    if tiled or vae.post_quant_conv is not None:
        return vae.decode(coded).sample.float().cpu()
    edges = [0, *range(min(frames, 2 + frames % 2), frames + 1, 2)]
    parts, cache = [], None
    for start, end in pairwise(edges):
        part, cache = vae.decoder(coded[:, :, start:end], conv_cache=cache)
        parts.append(part.float().cpu())
    return torch.cat(parts, dim=2)


def to_video(frames: Frames) -> Video:
    """RGB 0..255 to -1..1: (T, H, W, 3) to (1, 3, T, H, W) float32."""
    return torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_frames(video: Video) -> Frames:
    """RGB -1..1, clamped, to the nearest of 0..255: (1, 3, T, H, W) to (T, H, W, 3)."""
    levels = ((video[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 3, 0).numpy())
