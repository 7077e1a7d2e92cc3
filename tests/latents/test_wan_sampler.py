"""The large model's denoising loop at toy size; its numbers are proved in tests/parity."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.latents.rope import wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.latents.wanvideo.sampler import Condition, Guidance, denoise, make_scheduler
from tests.tiny import joint_mean_mm
from tests.tiny_wan import TOKEN, WAN_TRANSFORMER, tiny_wan_transformer

SCHEDULERS = ["euler", "unipc"]
FRAMES = 3
TEXT = Guidance(text=6.0)
BOTH = Guidance(text=6.0, motion=3.0)


def condition(seed: int = 1) -> Condition:
    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    generator = torch.Generator().manual_seed(seed)
    head_dim = WAN_TRANSFORMER["attention_head_dim"]
    return Condition(
        image=draw(1, 20, FRAMES, 4, 4),
        picture=draw(1, 5, WAN_TRANSFORMER["image_dim"]),
        text=draw(1, 12, WAN_TRANSFORMER["text_dim"]),
        negative=draw(1, 12, WAN_TRANSFORMER["text_dim"]),
        tokens=draw(1, FRAMES * 24, TOKEN),
        no_motion=draw(1, FRAMES * 24, TOKEN),
        visual=wan_visual_table(FRAMES, 2, 2, head_dim),
        motion=wan_motion_table(FRAMES, joint_mean_mm(), head_dim),
    )


def steps_of(
    scheduler: str = "euler",
    *,
    transformer: WanMotionTransformer | None = None,
    given: Condition | None = None,
    steps: int = 4,
    guidance: Guidance = TEXT,
    two_passes: bool = False,
    held: int = 0,
) -> list[Tensor]:
    return list(
        denoise(
            transformer or tiny_wan_transformer(),
            make_scheduler(scheduler, {}),
            given or condition(),
            steps=steps,
            guidance=guidance,
            generator=torch.Generator().manual_seed(7),
            two_passes=two_passes,
            held=held,
        )
    )


def watched(transformer: WanMotionTransformer) -> list[tuple[int, float]]:
    """Batch and time of each forward still to come."""
    seen: list[tuple[int, float]] = []
    transformer.register_forward_pre_hook(lambda _part, given: seen.append((len(given[0]), float(given[1][0]))))
    return seen


@pytest.mark.parametrize(
    ("guidance", "branches"),
    [
        (Guidance(), 1),
        (TEXT, 2),
        (Guidance(motion=3.0), 2),
        (BOTH, 3),
        (Guidance(text=4.0, motion=4.0), 2),  # what lies between cancels out
        (Guidance(text=0.0, motion=3.0), 3),
    ],
)
def test_guidance_costs_a_forward_for_each_condition_that_pulls(guidance: Guidance, branches: int) -> None:
    transformer = tiny_wan_transformer()
    seen = watched(transformer)
    steps_of(transformer=transformer, guidance=guidance, steps=2)
    assert [batch for batch, _ in seen] == [branches] * 2
    seen.clear()
    steps_of(transformer=transformer, guidance=guidance, steps=2, two_passes=True)
    assert [batch for batch, _ in seen] == [1] * (2 * branches)


@pytest.mark.parametrize("guidance", [Guidance(), TEXT, Guidance(motion=3.0), BOTH, Guidance(text=4.0, motion=4.0)])
@pytest.mark.parametrize("two_passes", [True, False])
def test_text_and_motion_are_combined_as_the_formula_says(guidance: Guidance, two_passes: bool) -> None:
    transformer, given = tiny_wan_transformer(), condition()
    noise = torch.randn(1, 16, FRAMES, 4, 4, generator=torch.Generator().manual_seed(7))

    def said(text: Tensor | None, tokens: Tensor | None) -> Tensor:
        joined = torch.cat([noise, given.image], dim=1)
        with torch.no_grad():
            return transformer(
                joined, torch.tensor([1000.0]), tokens, text, given.picture, given.visual, given.motion
            ).double()

    # A condition whose guidance is 1 is given in every branch.
    free = given.text if guidance.text == 1 else given.negative
    none, motion, whole = said(free, given.no_motion), said(free, given.tokens), said(given.text, given.tokens)
    velocity = none + guidance.motion * (motion - none) + guidance.text * (whole - motion)
    scheduler = make_scheduler("euler", {})
    scheduler.set_timesteps(3)
    expected = noise + (scheduler.sigmas[1] - scheduler.sigmas[0]) * velocity
    first = steps_of(transformer=transformer, given=given, guidance=guidance, two_passes=two_passes, steps=3)[0]
    torch.testing.assert_close(first.double(), expected, rtol=0, atol=2e-5)


def test_guidance_acts_in_its_share_of_the_steps_only() -> None:
    transformer = tiny_wan_transformer()
    seen = watched(transformer)
    for start, end, batches in (
        (0.0, 1.0, [2, 2, 2, 2]),
        (0.25, 0.75, [1, 2, 2, 1]),
        (0.0, 0.5, [2, 2, 1, 1]),
        (0.5, 0.5, [1, 1, 1, 1]),
    ):
        seen.clear()
        steps_of(transformer=transformer, guidance=Guidance(text=6.0, start=start, end=end))
        assert [batch for batch, _ in seen] == batches, (start, end)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_two_passes_equal_a_batch(scheduler: str) -> None:
    batched = steps_of(scheduler, guidance=BOTH)
    for one, other in zip(batched, steps_of(scheduler, guidance=BOTH, two_passes=True), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("lacking", "guidance"),
    [("negative", TEXT), ("no_motion", Guidance(motion=3.0)), ("no_motion", BOTH)],
)
def test_guidance_without_its_other_side_is_refused(lacking: str, guidance: Guidance) -> None:
    given = replace(condition(), **{lacking: None})
    with pytest.raises(ValueError, match="no-motion tokens"):
        steps_of(given=given, guidance=guidance)
    assert len(steps_of(given=given, guidance=Guidance())) == 4


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_held_latents_end_clean_and_pass_through_the_level_of_each_step(scheduler: str) -> None:
    given = condition()
    latents = steps_of(scheduler, given=given, held=2, steps=5)
    clean = given.image[:, 4:, :2]
    assert torch.equal(latents[-1][:, :, :2], clean)
    plan = make_scheduler(scheduler, {})
    plan.set_timesteps(5)
    for step, level in enumerate(plan.sigmas[1:-1]):
        noise = (latents[step][:, :, :2] - (1 - level) * clean) / level
        assert noise.mean().abs() < 0.25
        assert 0.8 < noise.std() < 1.2
    free = steps_of(scheduler, given=given, steps=5)[-1]
    assert torch.isfinite(latents[-1]).all()
    assert (latents[-1][:, :, 2:] - free[:, :, 2:]).abs().mean() > 1e-2


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_number_of_steps_takes_that_many(scheduler: str) -> None:
    transformer = tiny_wan_transformer(num_layers=1)
    for steps in (1, 2, 31):
        latents = steps_of(scheduler, transformer=transformer, steps=steps, guidance=Guidance())
        assert len(latents) == steps
        assert torch.isfinite(latents[-1]).all()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_model_is_told_the_exact_level_of_noise(scheduler: str) -> None:
    transformer = tiny_wan_transformer()
    seen = watched(transformer)
    steps_of(scheduler, transformer=transformer, guidance=Guidance(), steps=10)
    plan = make_scheduler(scheduler, {})
    plan.set_timesteps(10)
    assert [time for _, time in seen] == pytest.approx([1000 * level for level in plan.sigmas[:-1].tolist()], abs=1e-3)
    assert any(time != round(time) for _, time in seen)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_straight_flow_is_followed_to_its_end(scheduler: str) -> None:
    generator = torch.Generator().manual_seed(3)
    noise, clean = torch.randn(2, 1, 16, 2, 4, 4, generator=generator)
    plan = make_scheduler(scheduler, {})
    plan.set_timesteps(7)
    latents = noise
    for time in plan.timesteps:
        (latents,) = plan.step(noise - clean, time, latents, return_dict=False)
    torch.testing.assert_close(latents, clean, rtol=0, atol=1e-4)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_second_window_starts_afresh(scheduler: str) -> None:
    transformer, plan = tiny_wan_transformer(num_layers=1), make_scheduler(scheduler, {})

    def once() -> Tensor:
        settings = {"steps": 3, "guidance": Guidance(), "generator": torch.Generator().manual_seed(7)}
        return list(denoise(transformer, plan, condition(), **settings))[-1]

    assert torch.equal(once(), once())


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_latents_stay_in_the_dtype_of_the_image_condition(scheduler: str) -> None:
    exact = condition()
    low = replace(
        exact,
        **{
            part: getattr(exact, part).bfloat16()
            for part in ("image", "picture", "text", "negative", "tokens", "no_motion")
        },
    )
    transformer = tiny_wan_transformer()
    kept = set(WanMotionTransformer._keep_in_fp32_modules)
    for name, parameter in transformer.named_parameters():
        if kept.isdisjoint(name.split(".")):
            parameter.data = parameter.data.bfloat16()
    found = steps_of(scheduler, transformer=transformer, given=low, guidance=BOTH, held=1)
    assert {latents.dtype for latents in found} == {torch.bfloat16}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_the_shift_is_the_released_one_unless_it_is_said(scheduler: str) -> None:
    def levels(config: dict[str, float]) -> list[float]:
        plan = make_scheduler(scheduler, config)
        plan.set_timesteps(10)
        return plan.sigmas.tolist()

    assert levels({}) == levels({"shift": 5.0}) == levels({"flow_shift": 5.0})
    assert levels({"shift": 3.0})[5] < levels({})[5]


def test_a_misspelt_setting_or_scheduler_is_refused() -> None:
    with pytest.raises(MtvcraftError, match="num_train_timestep"):
        make_scheduler("euler", {"num_train_timestep": 1000})
    with pytest.raises(ValueError, match="there are euler, unipc"):
        make_scheduler("ddim", {})
