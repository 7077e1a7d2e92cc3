"""Pixels to latents and back for the large model: diffusers' VAE of Wan, causal in time to the bit."""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan
from jaxtyping import Float
from torch import Tensor

from mtvcraft_cli.latents.checkpoint import arguments_of, fill
from mtvcraft_cli.shapes import Video

VideoLatents: TypeAlias = Float[Tensor, "B C F h w"]
"""Video latents as Wan orders them, in spreads around the VAE's mean."""
ImageCondition: TypeAlias = Float[Tensor, "B Y F h w"]
"""Y = 4 + C channels: which frames are known, and the latents of a clip that shows those and is grey elsewhere."""
PACKED = 4
"""Frames in a latent frame; the first frame has one of its own."""
RESIDUAL = {"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}
ENDS = {
    "conv1": "quant_conv",
    "conv2": "post_quant_conv",
    "encoder.conv1": "encoder.conv_in",
    "decoder.conv1": "decoder.conv_in",
    "encoder.head.0": "encoder.norm_out",
    "decoder.head.0": "decoder.norm_out",
    "encoder.head.2": "encoder.conv_out",
    "decoder.head.2": "decoder.conv_out",
}
MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def build_vae(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> AutoencoderKLWan:
    """Make the VAE of a checkpoint, ready to run.

    Args:
        config: a preset's sizes or a checkpoint's `config.json`; empty for the released sizes.
        tensors: the checkpoint, in the layout of diffusers or in that of `Wan2.1_VAE.pth`.
        dtype: what to compute in; None keeps the checkpoint's.

    Raises:
        MtvcraftError: tensors are missing, left over or misshaped, or a key of `config` is misspelt (exit 6).
    """
    with init_empty_weights():
        vae = AutoencoderKLWan(**arguments_of(AutoencoderKLWan, config, "VAE"))
    if any(name.startswith("encoder.downsamples.") for name in tensors):
        tensors = from_original(tensors, vae.config.num_res_blocks)
    cast = {name: tensor if dtype is None else tensor.to(dtype) for name, tensor in tensors.items()}
    return fill(vae, cast, "VAE").eval()


def from_original(tensors: Mapping[str, Tensor], res_blocks: int) -> dict[str, Tensor]:
    """Rename the tensors of `Wan2.1_VAE.pth` to diffusers' names; strange ones stay as they are.

    Args:
        tensors: the checkpoint.
        res_blocks: residual blocks of a level of the encoder; the decoder has one more, then its upsampler.
    """
    return {_renamed(name, res_blocks): tensor for name, tensor in tensors.items()}


def _renamed(name: str, res_blocks: int) -> str:
    module, _, kind = name.rpartition(".")
    if module in ENDS:
        return f"{ENDS[module]}.{kind}"
    coder, _, rest = module.partition(".")
    part, _, inner = rest.partition(".")
    place, _, inner = inner.partition(".")
    if part == "middle" and place in MIDDLE:
        found = f"mid_block.{MIDDLE[place]}"
    elif part == "downsamples":
        found = f"down_blocks.{place}"
    elif part == "upsamples":
        level, step = divmod(int(place), res_blocks + 2)
        found = f"up_blocks.{level}." + (f"resnets.{step}" if step <= res_blocks else "upsamplers.0")
    else:
        return name
    layer, _, index = inner.partition(".")
    if layer == "residual":
        inner = RESIDUAL.get(index, inner)
    elif layer == "shortcut":
        inner = "conv_shortcut"
    return ".".join(filter(None, (coder, found, inner, kind)))


@torch.no_grad()
def encode_video(vae: AutoencoderKLWan, video: Video) -> VideoLatents:
    """Encode frames to the mode of the posterior, in spreads around the VAE's mean.

    Args:
        vae: the VAE.
        video: (1, 3, T, H, W), T = 4n + 1, the sides multiples of 8.

    Returns:
        (1, C, F, h, w) float32 on the VAE's device, F = n + 1.

    Raises:
        ValueError: T is not 4n + 1; the VAE would leave frames out in silence.
    """
    if video.shape[2] % PACKED != 1:
        raise ValueError(f"the VAE takes 4n + 1 frames, not {video.shape[2]}")
    mode = vae.encode(video.to(vae.device, vae.dtype)).latent_dist.mode()
    mean, std = _spread(vae)
    return (mode.float() - mean) / std


@torch.no_grad()
def encode_known(vae: AutoencoderKLWan, known: Video, frames: int) -> ImageCondition:
    """Tell the model which frames of a window are there already. Source: Wan's picture-to-video conditioning.

    In a first window only the character's picture is known; later windows know the last frames of the one before, whose
    latents alone are `encode_known(...)[:, 4:, :k]`, k = (K - 1) / 4 + 1.

    Args:
        vae: the VAE.
        known: (1, 3, K, H, W) the first frames, K = 4n + 1; RGB, -1..1.
        frames: frames of the window, 4n + 1.

    Returns:
        (1, 4 + C, F, h, w) float32 on the VAE's device: 4 channels that are 1 in latent frames that are known and else
        0, then the latents of a clip that goes on in mid grey.

    Raises:
        ValueError: frames are not 4n + 1, or more are known than there are.
    """
    count = known.shape[2]
    if count % PACKED != 1 or count > frames:
        raise ValueError(f"{count} of {frames} frames are known, and it must be 4n + 1 of them")
    rest = known.new_zeros((1, 3, frames - count, *known.shape[3:]))
    latents = encode_video(vae, torch.cat([known, rest], dim=2))
    mask = torch.zeros_like(latents[:, :PACKED])
    mask[:, :, : (count - 1) // PACKED + 1] = 1
    return torch.cat([mask, latents], dim=1)


@torch.no_grad()
def decode(vae: AutoencoderKLWan, latents: VideoLatents) -> Video:
    """Decode latents to frames.

    Args:
        vae: the VAE; it decodes one clip at a time, since it keeps the convolutions' last inputs itself.
        latents: (1, C, F, h, w) in spreads around the VAE's mean.

    Returns:
        (1, 3, T, H, W) float32 on the CPU, -1..1; T = 4F - 3.
    """
    return torch.cat(list(decoded_parts(vae, latents)), dim=2)


@torch.no_grad()
def decoded_parts(vae: AutoencoderKLWan, latents: VideoLatents) -> Iterator[Video]:
    """Decode latent frame after latent frame, in memory that does not grow with their number.

    The bits are those of `vae.decode`, which takes latent frames one by one as well and then joins all of them.

    Yields:
        (1, 3, 1, H, W) for the first latent frame and (1, 3, 4, H, W) for each further one, float32 on the CPU, -1..1.
    """
    mean, std = _spread(vae)
    coded = (latents.to(vae.device).float() * std + mean).to(vae.dtype)
    vae.clear_cache()
    try:
        for frame, part in enumerate(vae.post_quant_conv(coded).split(1, dim=2)):
            vae._conv_idx = [0]
            pixels = vae.decoder(part, feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=frame == 0)
            yield pixels.clamp(-1, 1).float().cpu()
    finally:
        vae.clear_cache()  # else it holds on to the activations of the last frame


def _spread(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel of latents, (C, 1, 1, 1) float32 each."""
    found = (vae.config.latents_mean, vae.config.latents_std)
    mean, std = (torch.tensor(row, device=vae.device, dtype=torch.float32).view(-1, 1, 1, 1) for row in found)
    return mean, std
