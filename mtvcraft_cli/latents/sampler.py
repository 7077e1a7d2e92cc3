"""Noise to latents: the denoising loop with motion guidance."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from jaxtyping import Float
from torch import Tensor

from mtvcraft_cli.latents.checkpoint import arguments_of
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import Rotary
from mtvcraft_cli.latents.spare import Forwards, Spare, forwards_of
from mtvcraft_cli.shapes import Latents, MotionTokens

HeldLatents: TypeAlias = Float[Tensor, "B K C h w"]
"""The first K latent frames of a window, which the window before has already made."""
Scheduler: TypeAlias = CogVideoXDPMScheduler | CogVideoXDDIMScheduler
SCHEDULERS: dict[str, type[Scheduler]] = {"dpm": CogVideoXDPMScheduler, "ddim": CogVideoXDDIMScheduler}


def make_scheduler(name: str, config: Mapping[str, Any]) -> Scheduler:
    """Make the scheduler `name` ("dpm" or "ddim") with the noise schedule that the base model was trained with.

    Raises:
        MtvcraftError: a key of `config` is misspelt.
    """
    kind = SCHEDULERS[name]
    return kind(**arguments_of(kind, config, "scheduler"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """What leads the noise to a video; the same in every step of a window."""

    reference: Latents
    """(1, F, C, h, w): the character."""
    tokens: MotionTokens
    """(1, M, D): the motion."""
    visual: Rotary
    """Positions of the video patches."""
    motion: Rotary
    """Positions of the motion tokens."""


@torch.no_grad()
def denoise(
    transformer: CogVideoXMotionTransformer,
    scheduler: Scheduler,
    condition: Condition,
    *,
    steps: int,
    guidance: float,
    generator: torch.Generator,
    two_passes: bool = False,
    held: HeldLatents | None = None,
    spare: Spare | None = None,
) -> Iterator[Latents]:
    """Draw noise and turn it step by step into the latents of a window. Source: paper, section on inference.

    The generator gives the initial latents first, then the scheduler's draws in order, then in each step the noise for
    held latents, all in the dtype of the reference latents.

    Args:
        transformer: predicts the velocity.
        scheduler: takes the steps; its number of steps is set here.
        condition: character and motion, on the transformer's device.
        steps: denoising steps.
        guidance: how hard the motion pulls; 1.0 is off and needs half the work.
        generator: on the CPU, so that a seed means the same on every device.
        two_passes: whether the two halves of guidance run one after the other, in half the memory, or as a batch.
        held: (1, k, C, h, w) clean latents of the window's first k frames, which another window has already made.
            After every step they are put back, noised to the level that the next step starts from.
        spare: what work is spared, and where that is counted; by default all that changes nothing.

    Yields:
        (1, F, C, h, w) latents after each step; the last ones are the result.
    """
    reference = condition.reference
    device, dtype = reference.device, reference.dtype
    unconditional = transformer.unconditional_tokens(reference.shape[1])[None].to(device, dtype)
    scheduler.set_timesteps(steps)
    times = [int(time) for time in scheduler.timesteps[:steps]]  # 61 steps and some others get one time too many
    latents = torch.randn(reference.shape, generator=generator, dtype=dtype).to(device)
    clean = None  # DPM's last estimate of it
    with forwards_of(transformer, spare or Spare()) as forwards:
        for step, time in enumerate(times):
            forwards.begin(step, steps, guided=guidance != 1.0)
            velocity = _velocity(forwards, latents, time, condition, unconditional, guidance, two_passes=two_passes)
            if isinstance(scheduler, CogVideoXDPMScheduler):
                before = times[step - 1] if step else None
                latents, clean = scheduler.step(velocity, clean, time, before, latents, generator=generator)
            else:
                latents, _ = scheduler.step(velocity, time, latents, return_dict=False)
            latents = latents.to(dtype)
            if held is not None:
                # Nothing is put back before the first step: it starts from pure noise (zero terminal SNR).
                kept = scheduler.alphas_cumprod[times[step + 1]].item() if step + 1 < steps else 1.0
                noise = torch.randn(held.shape, generator=generator, dtype=dtype).to(device)
                latents[:, : held.shape[1]] = kept**0.5 * held + (1 - kept) ** 0.5 * noise
            yield latents


def _velocity(
    forwards: Forwards,
    latents: Latents,
    time: int,
    condition: Condition,
    unconditional: MotionTokens,
    guidance: float,
    *,
    two_passes: bool,
) -> Latents:
    """The guided velocity v_u + guidance (v_c - v_u), float32."""
    noisy = torch.cat([latents, condition.reference], dim=2)

    def predict(tokens: Tensor, branch: str) -> Tensor:
        batch = len(tokens)
        timestep = torch.full((batch,), time, dtype=torch.int64, device=noisy.device)
        with forwards.named(branch) as transformer:
            return transformer(
                noisy.expand(batch, -1, -1, -1, -1), timestep, tokens, condition.visual, condition.motion
            ).float()

    if guidance == 1.0:
        return predict(condition.tokens, "cond")
    if two_passes:
        free, led = predict(unconditional, "uncond"), predict(condition.tokens, "cond")
    else:
        free, led = predict(torch.cat([unconditional, condition.tokens]), "both").split(1)
    return free + guidance * (led - free)
