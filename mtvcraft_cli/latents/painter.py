"""How the small model paints one window of a long video; `wanvideo.painter` is its sibling for the large one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from jaxtyping import Float
from torch import Tensor, nn

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.latents.sampler import Condition, Scheduler, denoise
from mtvcraft_cli.latents.spare import Spare
from mtvcraft_cli.latents.unchanged import Unchanged, unchanged_from
from mtvcraft_cli.latents.vae import decode, encode_reference, encode_video
from mtvcraft_cli.shapes import Latents, MotionTokens, Picture, Video
from mtvcraft_cli.windows import Window

CPU = torch.device("cpu")
Working = Callable[[nn.Module], AbstractContextManager[Any]]
"""Brings a component to the device for as long as it works."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """How the small model is run."""

    scheduler: Scheduler
    steps: int
    """Denoising steps of a window."""
    guidance: float
    """How hard the motion tokens pull; 1.0 is off."""
    joint_mean_mm: Float[np.ndarray, "J 3"]
    """Where the motion tokens' rotary positions come from: mean joint positions of the training set, or for a
    `dynamic` model those of the driver's first frame; millimetres."""
    sample_reference: bool
    """Whether the reference latents are drawn from the VAE's posterior or are its mean."""
    scale_reference: bool
    """Whether they are multiplied by the VAE's scaling factor."""
    reference_kept: float = 0.0
    """How far a pixel may be off the picture and be taken from it, levels 0..255; see `unchanged`. 0.0 is off."""
    color_match: bool = False
    """Whether every window gets the reference's colours."""
    two_passes: bool = False
    """Whether the two halves of guidance run one after the other instead of as a batch."""
    dtype: torch.dtype = torch.float32
    """Of latents and tokens: what the transformer computes in."""
    device: torch.device = CPU
    spare: Spare = field(default_factory=Spare)
    """What work is spared, and the count of it over a run."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """What the small model's windows are made with, in eval mode."""

    transformer: CogVideoXMotionTransformer
    vae: AutoencoderKLCogVideoX

    @property
    def dynamic(self) -> bool:
        """Whether motion tokens lie where the driver's joints do in its first frame, and not on average."""
        return self.transformer.dynamic

    def resamples(self, latent_frames: int) -> bool:
        """Whether the "no motion" tokens were learned for windows of another length and must be stretched."""
        return self.transformer.resamples(latent_frames)


class CogVideoXPainter:
    """Paints windows one by one; the character's latents are the same in all of them."""

    def __init__(
        self, models: Models, settings: Settings, reference: Picture, window: Window, working: Working
    ) -> None:
        self.models, self.settings, self.working = models, settings, working
        self.reference, self.window = reference, window
        sizes = models.transformer.config
        latent_px = 2 ** (len(models.vae.config.block_out_channels) - 1)
        rows, columns = (side // latent_px // sizes.patch_size for side in reference.shape[:2])
        head = sizes.attention_head_dim
        self.visual = visual_table(window.latent_frames, rows, columns, head).to(settings.device)
        self.motion = motion_table(window.latent_frames, settings.joint_mean_mm, head).to(settings.device)
        self.unchanged: Unchanged | None = None

    def look(self, generator: torch.Generator) -> Latents:
        """The character's latents in every frame of a window, (1, F, C, h, w)."""
        settings = self.settings
        with self.working(self.models.vae):
            return encode_reference(
                self.models.vae,
                self.reference,
                self.window.frames,
                sample=settings.sample_reference,
                scaled=settings.scale_reference,
                generator=generator,
            )

    def denoise(
        self, character: Tensor, tokens: MotionTokens, tail: Video | None, generator: torch.Generator
    ) -> Iterator[Latents]:
        """The window's latents after each step, (1, F, C, h, w); the last frames of the one before hold the first."""
        models, settings = self.models, self.settings
        held = None
        if tail is not None:
            with self.working(models.vae):
                held = self._ready(encode_video(models.vae, tail))
        condition = Condition(
            reference=self._ready(character), tokens=self._ready(tokens), visual=self.visual, motion=self.motion
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

    def decode(self, latents: Latents) -> Video:
        """The window's frames, (1, 3, T, H, W) float32 on the CPU, -1..1."""
        vae, levels = self.models.vae, self.settings.reference_kept
        with self.working(vae):
            video = decode(vae, latents).clamp(-1, 1)
            if levels and self.unchanged is None:
                self.unchanged = unchanged_from(vae, self.reference, levels)
        return self.unchanged(video) if self.unchanged else video

    def _ready(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.settings.device, self.settings.dtype)
