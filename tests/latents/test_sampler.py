"""The denoising loop at toy size; its numbers are proved in tests/parity."""

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.latents.sampler import Condition, denoise, make_scheduler
from tests.tiny import SCHEDULER, WIDTH, joint_mean_mm, tiny_transformer


def condition(frames: int = 3, seed: int = 1) -> Condition:
    generator = torch.Generator().manual_seed(seed)
    return Condition(
        reference=torch.randn(1, frames, 16, 4, 4, generator=generator),
        tokens=torch.randn(1, frames * 24, WIDTH, generator=generator),
        visual=visual_table(frames, 2, 2, 16),
        motion=motion_table(frames, joint_mean_mm(), 16),
    )


def steps_of(
    scheduler: str = "dpm",
    *,
    transformer: CogVideoXMotionTransformer | None = None,
    given: Condition | None = None,
    steps: int = 4,
    guidance: float = 3.0,
    two_passes: bool = False,
    held: Tensor | None = None,
) -> list[Tensor]:
    return list(
        denoise(
            transformer or tiny_transformer(),
            make_scheduler(scheduler, SCHEDULER),
            given or condition(),
            steps=steps,
            guidance=guidance,
            generator=torch.Generator().manual_seed(7),
            two_passes=two_passes,
            held=held,
        )
    )


@pytest.mark.parametrize("scheduler", ["dpm", "ddim"])
def test_two_passes_equal_a_batch(scheduler: str) -> None:
    for one, other in zip(steps_of(scheduler), steps_of(scheduler, two_passes=True), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("guidance", "two_passes", "batches"), [(1.0, False, [1]), (3.0, False, [2]), (3.0, True, [1, 1])]
)
def test_guidance_costs_what_it_needs(guidance: float, two_passes: bool, batches: list[int]) -> None:
    transformer = tiny_transformer()
    seen: list[int] = []
    transformer.register_forward_hook(lambda _part, _given, made: seen.append(len(made)))
    steps_of(transformer=transformer, guidance=guidance, two_passes=two_passes)
    assert seen == batches * 4


def test_guidance_of_nothing_follows_the_no_motion_tokens() -> None:
    transformer = tiny_transformer()
    still = transformer.unconditional_tokens(3)[None].detach()
    led = condition()
    unled = Condition(reference=led.reference, tokens=still, visual=led.visual, motion=led.motion)
    unguided = steps_of(transformer=transformer, given=unled, guidance=1.0)
    torch.testing.assert_close(steps_of(transformer=transformer, guidance=0.0)[-1], unguided[-1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler", ["dpm", "ddim"])
def test_held_latents_end_clean_and_pass_through_the_level_of_each_step(scheduler: str) -> None:
    held = torch.randn(1, 1, 16, 4, 4, generator=torch.Generator().manual_seed(9))
    latents = steps_of(scheduler, held=held, steps=5)
    assert torch.equal(latents[-1][:, :1], held)
    levels = make_scheduler(scheduler, SCHEDULER).alphas_cumprod
    for step, time in enumerate((799, 599, 399, 199)):
        noise = (latents[step][:, :1] - levels[time] ** 0.5 * held) / (1 - levels[time]) ** 0.5
        assert noise.mean().abs() < 0.25
        assert 0.8 < noise.std() < 1.2
    free = steps_of(scheduler, steps=5)[-1]
    assert (latents[-1][:, 1:] - free[:, 1:]).abs().mean() > 1e-2


@pytest.mark.parametrize("scheduler", ["dpm", "ddim"])
def test_every_number_of_steps_takes_that_many(scheduler: str) -> None:
    for steps in (1, 2, 11, 61):
        latents = steps_of(scheduler, steps=steps, guidance=1.0)
        assert len(latents) == steps
        assert torch.isfinite(latents[-1]).all()


def test_latents_stay_in_the_dtype_of_the_reference() -> None:
    exact = condition()
    low = Condition(
        reference=exact.reference.bfloat16(), tokens=exact.tokens.bfloat16(), visual=exact.visual, motion=exact.motion
    )
    assert {latents.dtype for latents in steps_of(transformer=tiny_transformer().bfloat16(), given=low)} == {
        torch.bfloat16
    }


def test_a_misspelt_scheduler_setting_is_refused() -> None:
    with pytest.raises(MtvcraftError, match="clip_sampl"):
        make_scheduler("dpm", {"clip_sampl": False})
