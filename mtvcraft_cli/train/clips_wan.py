"""Clips made ready for the transformer on Wan; `train.shards` has its sibling for CogVideoX."""

from dataclasses import dataclass
from functools import partial

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from transformers import CLIPVisionModel

from mtvcraft_cli.device.place import working
from mtvcraft_cli.latents.painter import CPU
from mtvcraft_cli.latents.vae import to_video
from mtvcraft_cli.latents.wanvideo.picture import encode_picture
from mtvcraft_cli.latents.wanvideo.vae import encode_known, encode_video
from mtvcraft_cli.train.clips import stacked
from mtvcraft_cli.train.examples import Examples, Size
from mtvcraft_cli.train.shards import CLIPS, shrunk


@dataclass(eq=False, kw_only=True)
class WanLatents:
    """Makes shards of all that the transformer sees of clips but for their texts."""

    vae: AutoencoderKLWan
    picture_encoder: CLIPVisionModel
    examples: Examples
    buckets: tuple[Size, ...]
    """Shard after shard takes the next of them."""
    frames: int
    device: torch.device = CPU
    """Where both work, which wait on the CPU otherwise."""

    def bucket(self, shard: int) -> Size:
        """Width and height of a shard's clips."""
        return self.buckets[shard % len(self.buckets)]

    @torch.no_grad()
    def make(self, shard: int) -> dict[str, Tensor]:
        """Encode clips.

        Returns:
            Per clip: `latents` (C, F, h, w), `image` (4 + C, F, h, w), which knows the reference as the first frame,
            and `picture` (P, A), float16; `figure` (F, h, w) bool; `joints_mm` (1 + T, 24, 3).
        """
        made: dict[str, list[Tensor]] = {name: [] for name in ("latents", "image", "picture", "figure", "joints_mm")}
        lent = partial(working, device=self.device, offload="model")
        with lent(self.vae), lent(self.picture_encoder):
            for number in range(shard * CLIPS, (shard + 1) * CLIPS):
                clip = self.examples(number, self.bucket(shard), self.frames)
                reference = to_video(clip.reference[None])
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
                    latents = encode_video(self.vae, to_video(clip.frames))[0]
                    image = encode_known(self.vae, reference, self.frames)[0]
                made["latents"].append(latents.half().cpu())
                made["image"].append(image.half().cpu())
                made["picture"].append(encode_picture(self.picture_encoder, reference)[0].half().cpu())
                made["figure"].append(shrunk(torch.from_numpy(clip.figure), latents.shape[1:]))
                made["joints_mm"].append(torch.from_numpy(clip.joints_mm))
        return stacked(made)
