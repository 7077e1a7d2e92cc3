"""Noise to latents for the large model: flow matching, led by text, by motion, or by both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from mtvcraft_cli.latents.checkpoint import arguments_of
from mtvcraft_cli.latents.rope import Rotary
from mtvcraft_cli.latents.spare import Forwards, Spare, forwards_of
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.latents.wanvideo.picture import PictureFeatures
from mtvcraft_cli.latents.wanvideo.text import TextFeatures
from mtvcraft_cli.latents.wanvideo.vae import ImageCondition, VideoLatents
from mtvcraft_cli.shapes import MotionTokens

Scheduler: TypeAlias = FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler
SCHEDULERS: dict[str, tuple[type[Scheduler], str, dict[str, Any]]] = {
    "euler": (FlowMatchEulerDiscreteScheduler, "shift", {}),
    "unipc": (UniPCMultistepScheduler, "flow_shift", {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
}
"""The class, its word for the shift, and what makes it match flows."""
SHIFT = 5.0
"""How long the sampler stays among high noise levels (released code)."""
TIMES = 1000
"""The model is told the noise level as a number of 0..1000."""
MASKS = 4
"""Channels of the image condition that come before its latents."""


def make_scheduler(name: str, config: Mapping[str, Any]) -> Scheduler:
    """Make the scheduler `name`: "euler", as released, or "unipc", of second order.

    Args:
        name: one of the two.
        config: `shift` (or `flow_shift`), 5.0 if it isn't there, and what else the class takes.

    Raises:
        MtvcraftError: a key of `config` is misspelt (exit 6).
        ValueError: there is no such scheduler.
    """
    if name not in SCHEDULERS:
        raise ValueError(f"no scheduler `{name}`: there are {', '.join(SCHEDULERS)}")
    kind, shift, fixed = SCHEDULERS[name]
    named = {shift if key in ("shift", "flow_shift") else key: value for key, value in config.items()}
    return kind(**arguments_of(kind, {shift: SHIFT} | named, "scheduler") | fixed)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How hard the conditions pull. A pull of 1 is none: that condition is then simply given, at no extra cost."""

    text: float = 1.0
    motion: float = 1.0
    start: float = 0.0
    """Share of the steps that are taken before they pull."""
    end: float = 1.0
    """Share of the steps after which they no longer pull."""

    @property
    def pulls(self) -> bool:
        """Whether there is more than one branch."""
        return self.text != 1 or self.motion != 1

    def at(self, step: int, steps: int) -> "Guidance":
        """What pulls in a step, counted from 0."""
        return self if self.start <= step / steps < self.end else Guidance()


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """What leads the noise to a video; the same in every step of a window."""

    image: ImageCondition
    """(1, 20, F, h, w): what is known of the frames, from `encode_known`."""
    picture: PictureFeatures | None
    """(1, 257, 1280): the character at a glance."""
    text: TextFeatures
    """(1, 512, 4096): what is wanted."""
    negative: TextFeatures | None
    """(1, 512, 4096): what isn't; needed where the text pulls."""
    tokens: MotionTokens
    """(1, M, D): the motion."""
    no_motion: MotionTokens | None
    """(1, M, D): what stands for none; needed where the motion pulls."""
    visual: Rotary
    """Positions of the video patches."""
    motion: Rotary
    """Positions of the motion tokens."""


@torch.no_grad()
def denoise(
    transformer: WanMotionTransformer,
    scheduler: Scheduler,
    condition: Condition,
    *,
    steps: int,
    guidance: Guidance,
    generator: torch.Generator,
    two_passes: bool = False,
    held: int = 0,
    held_generator: torch.Generator | None = None,
    spare: Spare | None = None,
) -> Iterator[VideoLatents]:
    """Draw noise and turn it step by step into the latents of a window. Source: paper, section on inference.

    The generator gives the initial latents first, then in each step the noise for held latents, all in the dtype of
    the image condition.

    Args:
        transformer: predicts the velocity.
        scheduler: takes the steps; its number of steps is set here.
        condition: on the transformer's device.
        steps: denoising steps.
        guidance: how hard text and motion pull.
        generator: on the CPU, so that a seed means the same on every device.
        two_passes: whether the branches of guidance run one after the other, in less memory, or as a batch.
        held: how many leading latent frames of the image condition another window has already made. After every step
            they are put back, noised to the level that the next step starts from.
        held_generator: where the noise for them comes from, if not from `generator`.
        spare: what work is spared, and where that is counted; by default all that changes nothing.

    Yields:
        (1, C, F, h, w) latents after each step; the last ones are the result.

    Raises:
        ValueError: the guidance needs a negative text or no-motion tokens, and there are none.
    """
    image = condition.image
    known = image[:, MASKS:]
    scheduler.set_timesteps(steps, device=image.device)
    levels = scheduler.sigmas.tolist()  # those of each step and, at the end, 0
    latents = torch.randn(known.shape, generator=generator, dtype=image.dtype).to(image.device)
    with forwards_of(transformer, spare or Spare()) as forwards:
        for step, time in enumerate(scheduler.timesteps):
            # UniPC rounds its times to whole numbers, and the model tells 359.43 from 359.
            exact = time if isinstance(scheduler, FlowMatchEulerDiscreteScheduler) else TIMES * scheduler.sigmas[step]
            now = guidance.at(step, steps)
            if step and now.pulls != guidance.at(step - 1, steps).pulls:
                forwards.forget()
            forwards.begin(step, steps, guided=now.pulls)
            velocity = _velocity(forwards, latents, exact, condition, now, two_passes=two_passes)
            (latents,) = scheduler.step(velocity, time, latents.float(), return_dict=False)
            latents = latents.to(image.dtype)
            if held:
                clean, level = known[:, :, :held], levels[step + 1]
                noise = torch.randn(clean.shape, generator=held_generator or generator, dtype=image.dtype)
                latents[:, :, :held] = (1 - level) * clean + level * noise.to(image.device)
            yield latents


def _velocity(
    forwards: Forwards,
    latents: VideoLatents,
    time: Tensor,
    condition: Condition,
    guidance: Guidance,
    *,
    two_passes: bool,
) -> VideoLatents:
    """e(none) + s_m (e(motion) - e(none)) + s_t (e(motion, text) - e(motion)), float32."""
    branches, pulls = _branches(condition, guidance)
    noisy = torch.cat([latents, condition.image], dim=1)

    def predict(names: str, text: Tensor, tokens: Tensor) -> Tensor:
        batch = len(text)
        picture = condition.picture
        with forwards.named(names) as transformer:
            return transformer(
                noisy.expand(batch, -1, -1, -1, -1),
                time.to(noisy.device).expand(batch),
                tokens,
                text,
                picture if picture is None else picture.expand(batch, -1, -1),
                condition.visual,
                condition.motion,
            ).float()

    if two_passes:
        found = [predict(name, *given) for name, given in branches.items()]
    else:
        texts, tokens = zip(*branches.values(), strict=True)
        found = list(predict("+".join(branches), torch.cat(texts), torch.cat(tokens)).split(1))
    velocity = found[0]
    for pull, before, after in zip(pulls, found[:-1], found[1:], strict=True):
        velocity = velocity + pull * (after - before)
    return velocity


def _branches(
    condition: Condition, guidance: Guidance
) -> tuple[dict[str, tuple[TextFeatures, MotionTokens]], list[float]]:
    """Text and motion of each forward by its name, from the least led to the wholly led one, and the pulls between.

    What doesn't pull is given in all of them. Where both pull alike the branch between cancels out and isn't run.
    """
    text, tokens = condition.text, condition.tokens
    wholly = {"led": (text, tokens)}
    if not guidance.pulls:
        return wholly, []
    free_text = text if guidance.text == 1 else condition.negative
    free_tokens = tokens if guidance.motion == 1 else condition.no_motion
    if free_text is None or free_tokens is None:
        raise ValueError("guidance by text needs a negative text, and guidance by motion no-motion tokens")
    none = {"none": (free_text, free_tokens)}
    if guidance.motion == 1 or guidance.text in (1, guidance.motion):
        return none | wholly, [guidance.text if guidance.motion == 1 else guidance.motion]
    return none | {"motion": (free_text, tokens)} | wholly, [guidance.motion, guidance.text]
