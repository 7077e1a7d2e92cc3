"""Walks over the windows of a motion of any length and gives the frames as they become final."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX
from jaxtyping import Float
from torch import Tensor, nn

from mtvcraft_cli.latents.cogvideox import JOINTS, CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.latents.sampler import Condition, HeldLatents, Scheduler, denoise
from mtvcraft_cli.latents.vae import decode, encode_reference, encode_video, to_frames
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames, Latents, Picture, Video
from mtvcraft_cli.windows import Window

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """What the walk runs, in eval mode."""

    transformer: CogVideoXMotionTransformer
    vae: AutoencoderKLCogVideoX


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """How it is run."""

    scheduler: Scheduler
    steps: int
    """Denoising steps of a window."""
    guidance: float
    """How hard the motion tokens pull; 1.0 is off."""
    joint_mean_mm: Float[np.ndarray, "J 3"]
    """Mean joint positions of the training set, from which the motion tokens' rotary positions come; millimetres."""
    sample_reference: bool
    """Whether the reference latents are drawn from the VAE's posterior or are its mean."""
    scale_reference: bool
    """Whether they are multiplied by the VAE's scaling factor."""
    two_passes: bool = False
    """Whether the two halves of guidance run one after the other instead of as a batch."""
    dtype: torch.dtype = torch.float32
    """Of latents and tokens: what the transformer computes in."""
    device: torch.device = CPU


@runtime_checkable
class Kept(Protocol):
    """Where finished work outlives the run, by name: "reference", and "window-N" with "tail-N"; a dict will do.

    It must be empty for other models, inputs, settings or seeds.
    """

    def get(self, name: str, /) -> Tensor | None:
        """What was kept under the name, or None."""
        ...

    def __setitem__(self, name: str, tensor: Tensor, /) -> None:
        """Keep a tensor of the CPU: (1, F, C, h, w) latents, or the (1, 3, T, H, W) frames that a window ends with."""
        ...


Working = Callable[[nn.Module], AbstractContextManager[Any]]
"""Brings a component to the device for as long as it works."""


@torch.no_grad()
def walk(
    models: Models,
    reference: Picture,
    tokens: Iterable[Tensor],
    windows: list[Window],
    settings: Settings,
    seed: int,
    *,
    kept: Kept | None = None,
    watch: Watch = silent,
    working: Working = nullcontext,
) -> Iterator[Frames]:
    """Make the frames of all windows, one window after the other; memory does not grow with their number.

    Each window starts from its own seed. The last frames of a window are encoded anew, as floats, and hold the first
    latents of the next one in place; where the two overlap, the frames are faded from one to the other.

    Args:
        models: transformer and VAE.
        reference: (H, W, 3) the character, already of the size of the frames.
        tokens: (M, D) motion tokens for each window.
        windows: from `plan_windows`, all of the same length.
        settings: how the models are run.
        seed: the run's seed.
        kept: where finished windows are kept; those already there are decoded again instead of made.
        watch: is told of every denoising step.
        working: brings each model to the device while it works.

    Yields:
        Frames that won't change any more, (T, H, W, 3), as many in all as the motion has.
    """
    frames, latent_frames = windows[0].frames, windows[0].latent_frames
    noted = kept if kept is not None else _Nothing()
    if (reference_latents := noted.get("reference")) is None:
        with working(models.vae):
            reference_latents = _reference(models.vae, reference, frames, settings, derived_seed(seed, "reference"))
        noted["reference"] = reference_latents.cpu()
    reference_latents = reference_latents.to(settings.device, settings.dtype)
    sizes = models.transformer.config
    rows, columns = (side // sizes.patch_size for side in reference_latents.shape[-2:])
    visual = visual_table(latent_frames, rows, columns, sizes.attention_head_dim).to(settings.device)
    motion = motion_table(latent_frames, settings.joint_mean_mm, sizes.attention_head_dim).to(settings.device)

    total = len(windows) * settings.steps
    ticks = watch(range(total), "denoise", total)
    tail: Video | None = None  # the last frames of the window before
    for window, window_tokens in zip(windows, tokens, strict=True):
        if len(window_tokens) != latent_frames * JOINTS:
            raise ValueError(
                f"{latent_frames} latent frames have {JOINTS} motion tokens each, not {len(window_tokens)}"
            )
        name = f"window-{window.index}"
        latents = noted.get(name)
        if latents is not None:
            list(islice(ticks, settings.steps))
        else:
            condition = Condition(
                reference=reference_latents,
                tokens=window_tokens[None].to(settings.device, settings.dtype),
                visual=visual,
                motion=motion,
            )
            held = None
            if tail is not None:
                with working(models.vae):
                    held = encode_video(models.vae, tail).to(settings.device, settings.dtype)
            with working(models.transformer):
                latents = _denoised(models, condition, settings, held, window_seed(seed, window.index), ticks)
            noted[name] = latents.cpu()
        with working(models.vae):
            video = decode(models.vae, latents).clamp(-1, 1)
        if tail is not None:
            video[:, :, : window.carried] = _faded(tail, video[:, :, : window.carried])
        follower = windows[window.index + 1] if window.index + 1 < len(windows) else None
        open_end = follower.carried if follower else window.held
        tail = None
        if follower and (tail := noted.get(f"tail-{window.index}")) is None:
            # Kept as it is: on a card, decoding again may give other bits, and the next window builds on these.
            tail = noted[f"tail-{window.index}"] = video[:, :, frames - open_end :].clone()
        yield to_frames(video[:, :, : frames - open_end])
    list(ticks)  # lets the progress display end


def window_seed(seed: int, index: int) -> int:
    """The seed of a window's noise: the run's own for the first, so that released settings give their numbers."""
    return derived_seed(seed, f"window {index}") if index else seed


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of 63 bits that has nothing to do with `seed` or those for other purposes."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:8], "big") >> 1


class _Nothing:
    """Keeps nothing."""

    def get(self, _name: str, /) -> None:
        return None

    def __setitem__(self, _name: str, _tensor: Tensor, /) -> None:
        return None


def _reference(vae: AutoencoderKLCogVideoX, picture: Picture, frames: int, settings: Settings, seed: int) -> Latents:
    sample, scaled = settings.sample_reference, settings.scale_reference
    return encode_reference(vae, picture, frames, sample=sample, scaled=scaled, generator=_generator(seed))


def _denoised(
    models: Models, condition: Condition, settings: Settings, held: HeldLatents | None, seed: int, ticks: Iterator[int]
) -> Latents:
    """The latents after the last step, with a tick after each."""
    steps = denoise(
        models.transformer,
        settings.scheduler,
        condition,
        steps=settings.steps,
        guidance=settings.guidance,
        generator=_generator(seed),
        two_passes=settings.two_passes,
        held=held,
    )
    latents = condition.reference
    for latents, _ in zip(steps, ticks, strict=False):  # noqa: B007
        pass
    return latents


def _faded(before: Video, after: Video) -> Video:
    """From the window before to the one after, in equal steps over the frames that both have."""
    weight = torch.linspace(0, 1, before.shape[2] + 2)[1:-1, None, None]  # (T, 1, 1), neither 0 nor 1
    return torch.lerp(before, after, weight)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)
