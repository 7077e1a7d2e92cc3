"""How the large model paints one window of a long video; `latents.painter` is its sibling for the small one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPVisionModel

from mtvcraft_cli.latents.painter import CPU, Working
from mtvcraft_cli.latents.rope import wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.spare import Spare
from mtvcraft_cli.latents.vae import to_video
from mtvcraft_cli.latents.wan import JOINTS, WanMotionTransformer, no_motion_tokens
from mtvcraft_cli.latents.wanvideo.picture import PictureFeatures, encode_picture
from mtvcraft_cli.latents.wanvideo.sampler import Condition, Guidance, Scheduler, denoise
from mtvcraft_cli.latents.wanvideo.text import TextFeatures
from mtvcraft_cli.latents.wanvideo.vae import PACKED, VideoLatents, decode, encode_known
from mtvcraft_cli.shapes import MotionTokens, Picture, Video
from mtvcraft_cli.windows import Window


@dataclass(frozen=True, kw_only=True, eq=False)
class WanSettings:
    """How the large model is run, and what the user wrote."""

    scheduler: Scheduler
    steps: int
    """Denoising steps of a window."""
    guidance: Guidance
    joint_mean_mm: Float[np.ndarray, "J 3"]
    """Mean joint positions of the training set, from which the motion tokens' rotary positions come; millimetres."""
    text: TextFeatures
    """(1, L, E): what is wanted, from `encode_text`; by now the encoder itself may be gone."""
    negative: TextFeatures | None = None
    """(1, L, E), filled up to the same L: what isn't wanted; needed where the text pulls."""
    clip_from: Literal["reference", "previous"] = "reference"
    """Whether CLIP sees the character's picture in every window, or the last frame of the window before."""
    color_match: bool = False
    """Whether every window gets the reference's colours."""
    two_passes: bool = False
    """Whether the branches of guidance run one after the other instead of as a batch."""
    dtype: torch.dtype = torch.float32
    """Of latents, tokens, text and picture: what the transformer computes in."""
    device: torch.device = CPU
    spare: Spare = field(default_factory=Spare)
    """What work is spared, and the count of it over a run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WanModels:
    """What the large model's windows are made with, in eval mode."""

    transformer: WanMotionTransformer
    vae: AutoencoderKLWan
    picture_encoder: CLIPVisionModel
    no_motion: Float[Tensor, "M D"] | None = None
    """The small model's learned "no motion" tokens, for a transformer that has none of its own; see `learned`."""
    dynamic: ClassVar[bool] = False
    """Motion tokens lie where joints do on average."""

    @property
    def learned(self) -> Tensor | None:
        """Learned "no motion" tokens, (24 or 24 * latent frames, m): the transformer's own, else the small model's."""
        return getattr(self.transformer, "unconditional_motion_token", self.no_motion)

    def resamples(self, latent_frames: int) -> bool:
        """Whether the "no motion" tokens were learned for windows of another length and must be stretched."""
        return self.learned is not None and len(self.learned) not in (JOINTS, latent_frames * JOINTS)


class WanPainter:
    """Paints windows one by one. The first knows the character's picture, each later one its predecessor's last frames.

    Source: Wan's picture-to-video conditioning; released code for what CLIP sees.
    """

    def __init__(
        self, models: WanModels, settings: WanSettings, reference: Picture, window: Window, working: Working
    ) -> None:
        self.models, self.settings, self.working, self.window = models, settings, working, window
        self.reference = to_video(reference[None])
        sizes = models.transformer.config
        _, patch_rows, patch_columns = sizes.patch_size
        height, width = (side // models.vae.spatial_compression_ratio for side in reference.shape[:2])
        frames, head = window.latent_frames, sizes.attention_head_dim
        self.visual = wan_visual_table(frames, height // patch_rows, width // patch_columns, head).to(settings.device)
        self.motion = wan_motion_table(frames, settings.joint_mean_mm, head).to(settings.device)

    def look(self, _generator: torch.Generator) -> PictureFeatures:
        """The character at a glance, (1, 257, 1280) at full size."""
        return self._seen(self.reference)

    def denoise(
        self, character: Tensor, tokens: MotionTokens, tail: Video | None, generator: torch.Generator
    ) -> Iterator[VideoLatents]:
        """The window's latents after each step, (1, C, F, h, w); the last frames of the one before hold the first."""
        models, settings = self.models, self.settings
        known, held = self.reference, 0
        if tail is not None:
            known, held = tail, (tail.shape[2] - 1) // PACKED + 1
            if settings.clip_from == "previous":
                character = self._seen(tail[:, :, -1:])
        with self.working(models.vae):
            image = encode_known(models.vae, known, self.window.frames)
        no_motion = None
        if settings.guidance.motion != 1 and models.learned is not None:
            no_motion = self._ready(no_motion_tokens(models.learned, self.window.latent_frames)[None])
        condition = Condition(
            image=self._ready(image),
            picture=self._ready(character),
            text=self._ready(settings.text),
            negative=None if settings.negative is None else self._ready(settings.negative),
            tokens=self._ready(tokens),
            no_motion=no_motion,
            visual=self.visual,
            motion=self.motion,
        )
        with self.working(models.transformer):
            yield from denoise(
                models.transformer,
                settings.scheduler,
                condition,
                steps=settings.steps,
                guidance=settings.guidance,
                generator=generator,
                two_passes=settings.two_passes,
                held=held,
                spare=settings.spare,
            )

    def decode(self, latents: VideoLatents) -> Video:
        """The window's frames, (1, 3, T, H, W) float32 on the CPU, -1..1."""
        with self.working(self.models.vae):
            return decode(self.models.vae, latents)

    def _seen(self, frame: Video) -> PictureFeatures:
        with self.working(self.models.picture_encoder):
            return encode_picture(self.models.picture_encoder, frame)

    def _ready(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.settings.device, self.settings.dtype)
