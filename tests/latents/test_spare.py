"""What spares work: exactly where it says so, and counted where it doesn't."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.device.quantise import quantise
from mtvcraft_cli.latents.faster import fuse, is_fused, set_attention, unfuse
from mtvcraft_cli.latents.sampler import denoise as denoise_small
from mtvcraft_cli.latents.sampler import make_scheduler as small_scheduler
from mtvcraft_cli.latents.spare import Forwards, KeptKeys, Spare, set_cache
from mtvcraft_cli.latents.wanvideo.sampler import Guidance
from mtvcraft_cli.latents.wanvideo.sampler import denoise as denoise_large
from mtvcraft_cli.latents.wanvideo.sampler import make_scheduler as large_scheduler
from tests.latents.test_cogvideox import inputs
from tests.latents.test_sampler import condition as small_condition
from tests.latents.test_wan_sampler import BOTH
from tests.latents.test_wan_sampler import condition as large_condition
from tests.tiny import SCHEDULER, tiny_transformer
from tests.tiny_wan import tiny_wan_transformer

BACKBONES = ["cogvideox", "wan"]


def transformer_of(backbone: str) -> Any:
    return tiny_transformer() if backbone == "cogvideox" else tiny_wan_transformer()


@torch.no_grad()  # under the type checks of a test run, those of generators don't reach into them
def window(
    transformer: Any, spare: Spare, *, seed: int = 1, steps: int = 6, two_passes: bool = False, guidance: Any = None
) -> Tensor:
    """The last latents of a window, guided by motion and, where there is one, by a text."""
    given: dict[str, Any] = {
        "steps": steps,
        "generator": torch.Generator().manual_seed(7),
        "two_passes": two_passes,
        "spare": spare,
    }
    if "CogVideoX" in type(transformer).__name__:
        scheduler, led = small_scheduler("dpm", SCHEDULER), small_condition(seed=seed)
        return list(denoise_small(transformer, scheduler, led, guidance=guidance or 3.0, **given))[-1]
    scheduler, led = large_scheduler("euler", {}), large_condition(seed=seed)
    return list(denoise_large(transformer, scheduler, led, guidance=guidance or BOTH, **given))[-1]


def calls_of(transformer: Any) -> list[str]:
    """The names of layers that make keys, as often as they are still to be run."""
    seen: list[str] = []
    for name, layer in transformer.named_modules():
        if name.endswith(("attn0.to_k", "motion_attn.to_k", "attn2.to_k", "add_k_proj")):
            layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    return seen


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_keys_are_made_once_a_window_and_change_no_bit(backbone: str, two_passes: bool) -> None:
    transformer = transformer_of(backbone)
    seen = calls_of(transformer)
    plain = window(transformer, Spare(keys=False), two_passes=two_passes)
    often = len(seen)
    seen.clear()
    assert torch.equal(window(transformer, Spare(), two_passes=two_passes), plain)
    branches = {"cogvideox": 2, "wan": 3}[backbone] if two_passes else 1
    assert len(seen) == len(set(seen)) * branches
    assert often == len(seen) * 6


@pytest.mark.parametrize("backbone", BACKBONES)
def test_another_window_or_other_weights_get_keys_of_their_own(backbone: str) -> None:
    transformer, spare = transformer_of(backbone), Spare()
    window(transformer, spare)
    assert torch.equal(window(transformer, spare, seed=2), window(transformer_of(backbone), Spare(keys=False), seed=2))
    changed, plain = transformer_of(backbone), transformer_of(backbone)
    window(changed, spare)
    for each in (changed, plain):
        for name, tensor in each.named_parameters():
            if "to_v" in name:
                tensor.data *= 1.5
    assert torch.equal(window(changed, spare), window(plain, Spare(keys=False)))


def test_windows_that_are_made_turn_by_turn_do_not_mix() -> None:
    transformer = tiny_transformer()

    def steps_of(seed: int) -> Any:
        generator, scheduler = torch.Generator().manual_seed(7), small_scheduler("ddim", SCHEDULER)
        led = small_condition(seed=seed)
        return denoise_small(transformer, scheduler, led, steps=3, guidance=3.0, generator=generator)

    with torch.no_grad():
        turn_by_turn = list(zip(steps_of(1), steps_of(2), strict=True))
        one_by_one = list(zip(list(steps_of(1)), list(steps_of(2)), strict=True))
        for together, apart in zip(turn_by_turn, one_by_one, strict=True):
            assert all(map(torch.equal, together, apart))


def test_guidance_that_goes_on_and_off_finds_the_keys_of_its_own_branches() -> None:
    some = Guidance(text=6.0, motion=3.0, start=0.3, end=0.7)
    transformer, spare = tiny_wan_transformer(), Spare()
    for two_passes in (False, True):
        plain = window(transformer, Spare(keys=False), guidance=some, two_passes=two_passes)
        assert torch.equal(window(transformer, spare, guidance=some, two_passes=two_passes), plain)
    assert (spare.tally.steps, spare.tally.guided) == (12, 6)  # steps 2, 3 and 4 of 6
    assert spare.tally.forwards == 6 + (3 * 1 + 3 * 3)


def test_training_keeps_nothing() -> None:
    transformer = tiny_transformer()
    seen = calls_of(transformer)
    forwards = Forwards(transformer, Spare())
    for _ in range(2):
        with forwards.named("cond") as lent:
            lent(**inputs()).square().mean().backward()
    assert len(seen) == 2 * len(set(seen))
    assert transformer.transformer_blocks[0].attn0.to_k.weight.grad is not None
    transformer(**inputs())
    assert len(seen) == 3 * len(set(seen))


def test_after_a_window_nothing_of_it_is_left_in_the_transformer() -> None:
    transformer = tiny_transformer()
    set_cache(transformer, 0.5)
    steps = denoise_small(
        transformer,
        small_scheduler("ddim", SCHEDULER),
        small_condition(),
        steps=3,
        guidance=3.0,
        generator=torch.Generator().manual_seed(7),
    )
    next(steps)
    head = transformer.transformer_blocks[0]._diffusers_hook.get_hook("fbc_leader_block_hook")
    assert head.state_manager._state_cache
    steps.close()  # as when a run is interrupted
    assert not head.state_manager._state_cache
    assert all(block.attn0.processor.kept is None for block in transformer.transformer_blocks[::2])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_fused_projections_stay_within_rounding_and_cost_no_memory(backbone: str) -> None:
    transformer = transformer_of(backbone)
    numbers = sum(tensor.numel() for tensor in transformer.parameters())
    plain = window(transformer, Spare(keys=False))
    fuse(transformer)
    torch.testing.assert_close(window(transformer, Spare()), plain, rtol=0, atol=1e-5)
    assert sum(tensor.numel() for tensor in transformer.parameters()) == numbers
    names = dict(transformer.named_parameters())
    assert not any(".attn1.to_q." in name for name in names)
    fuse(transformer)  # models may be handed on
    assert dict(transformer.named_parameters()).keys() == names.keys()
    assert is_fused(transformer)
    unfuse(transformer)
    assert not is_fused(transformer)
    assert torch.equal(window(transformer, Spare()), plain)
    fresh = dict(transformer_of(backbone).named_parameters())
    assert dict(transformer.named_parameters()).keys() == fresh.keys()
    assert all(tensor.requires_grad == fresh[name].requires_grad for name, tensor in transformer.named_parameters())


@pytest.mark.parametrize("two_passes", [False, True])
def test_the_step_cache_skips_more_with_a_higher_threshold_and_starts_anew_in_each_window(two_passes: bool) -> None:
    exact = window(tiny_wan_transformer(), Spare(), steps=12, two_passes=two_passes)
    errors, shares = [], []
    for threshold in (0.1, 0.3):
        transformer, spare = tiny_wan_transformer(), Spare()
        set_cache(transformer, threshold)
        made = window(transformer, spare, steps=12, two_passes=two_passes)
        errors.append(float((made - exact).norm() / exact.norm()))
        shares.append(spare.tally.skipped / spare.tally.forwards)
        assert torch.equal(window(transformer, Spare(), steps=12, two_passes=two_passes), made)
        set_cache(transformer, None)
        assert torch.equal(window(transformer, Spare(), steps=12, two_passes=two_passes), exact)
    assert shares[0] < shares[1]
    assert errors[0] < errors[1] < 0.5
    assert shares[1] > 0.2


@pytest.mark.parametrize("kind", ["int8", "nf4", "fp8"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_step_cache_and_packed_matrices_go_together(backbone: str, kind: Any) -> None:
    if kind != "fp8":
        pytest.importorskip("bitsandbytes", reason="quantisation is an extra")
    transformer = transformer_of(backbone)
    quantise(transformer, kind, torch.float32)
    exact = window(transformer, Spare(keys=False), steps=12)
    assert torch.equal(window(transformer, Spare(), steps=12), exact)
    set_cache(transformer, 0.4 if backbone == "wan" else 0.8)
    spare = Spare(keys=False)
    made = window(transformer, spare, steps=12)
    assert 0 < spare.tally.skipped < spare.tally.forwards
    assert 0 < float((made - exact).norm() / exact.norm()) < 0.5
    set_cache(transformer, None)
    assert torch.equal(window(transformer, Spare(keys=False), steps=12), exact)


def test_each_branch_of_guidance_decides_for_itself() -> None:
    transformer, spare = tiny_wan_transformer(), Spare()
    set_cache(transformer, 0.3)
    ran: list[int] = []
    transformer.blocks[2].ffn.register_forward_hook(lambda *_: ran.append(1))
    window(transformer, spare, steps=12, two_passes=True)
    assert spare.tally.forwards == 36
    assert len(ran) == spare.tally.forwards - spare.tally.skipped
    assert len(ran) >= 3  # no branch lives off another's


def test_attention_is_chosen_for_one_transformer_only() -> None:
    transformer, other = tiny_transformer(), tiny_transformer()
    set_attention(transformer, "native")
    assert transformer.transformer_blocks[0].attn1.processor._attention_backend == "native"
    assert other.transformer_blocks[0].attn1.processor._attention_backend is None


def test_kept_keys_are_told_apart_by_branch_and_layer() -> None:
    kept, layer, other = KeptKeys(), torch.nn.Identity(), torch.nn.Identity()
    made: list[object] = []

    def make(owner: object, number: int) -> tuple[Tensor, Tensor]:
        made.append(owner)
        return torch.tensor(number), torch.tensor(number)

    kept.branch = "cond"
    assert [int(kept.get(layer, "motion", make, number)[0]) for number in (1, 2)] == [1, 1]
    assert int(kept.get(other, "motion", make, 3)[0]) == 3
    kept.branch = "uncond"
    assert int(kept.get(layer, "motion", make, 4)[0]) == 4
    kept.clear()
    assert int(kept.get(layer, "motion", make, 5)[0]) == 5
    assert made == [layer, other, layer, layer]
