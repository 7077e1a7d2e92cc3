"""Takes from the character's picture itself what a clip shows as the picture does.

A small VAE blurs whatever it encodes, the places that never move included, and a short sampler leaves clouds before
them. The picture is at hand, so where a frame looks like the picture seen through the same VAE, the picture is shown
instead: what stands still is as sharp as the picture, and what moved is left to the model. This is no part of the
paper; the released models' VAE needs it less, and their presets leave it out.
"""

from dataclasses import dataclass
from typing import Final

import torch
from diffusers import AutoencoderKLCogVideoX
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.latents.vae import decode, encode_reference, to_video
from mtvcraft_cli.shapes import Picture, Video
from mtvcraft_cli.windows import SHORTEST

BLUR_PX: Final = 1.0
"""Over how wide a neighbourhood (standard deviation) differences are averaged."""
_REACH: Final = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Unchanged:
    """Finds the unchanged places of a clip and shows the picture there; see `unchanged_from`."""

    picture: Float[Tensor, "1 3 1 H W"]
    """RGB, -1..1."""
    seen: Float[Tensor, "1 3 1 H W"]
    """The same as the VAE gives it back."""
    levels: float
    """How far a pixel may be off, root mean square over its colours and neighbours, 0..255: at that distance the
    picture has exp(-1/2) of the say, at twice of it an eighth."""

    def __call__(self, video: Video) -> Video:
        """(1, 3, T, H, W), -1..1, to the same with the picture in the unchanged places."""
        off = (127.5 * (video - self.seen)).square().mean(dim=1)  # (1, T, H, W)
        share = torch.exp(-_blurred(off) / (2 * self.levels**2))
        return torch.lerp(video, self.picture.expand_as(video), share[:, None])


def unchanged_from(vae: AutoencoderKLCogVideoX, picture: Picture, levels: float) -> Unchanged:
    """Look at a picture through the VAE.

    Args:
        vae: whose clips these are.
        picture: (H, W, 3), of the size of the frames.
        levels: see `Unchanged.levels`.
    """
    still = encode_reference(vae, picture, SHORTEST, sample=False, scaled=True, generator=torch.Generator())
    seen = decode(vae, still)[:, :, -1:].clamp(-1, 1)  # later frames would all look like this one
    return Unchanged(picture=to_video(picture[None]), seen=seen, levels=levels)


def _blurred(frames: Float[Tensor, "1 T H W"]) -> Float[Tensor, "1 T H W"]:
    """Average over neighbours, by a Gaussian; beyond the edges lies what lies at them."""
    places = torch.arange(-_REACH, _REACH + 1, dtype=frames.dtype)
    bell = torch.exp(-places.square() / (2 * BLUR_PX**2))
    bell = (bell / bell.sum()).view(1, 1, 1, -1)
    each = functional.pad(frames.transpose(0, 1), (_REACH,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(each, bell), bell.transpose(2, 3)).transpose(0, 1)
