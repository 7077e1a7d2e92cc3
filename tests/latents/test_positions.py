"""What motion attention knows of where things are, and the variants that the paper compares it with."""

import pytest
import torch

from mtvcraft_cli.latents.cogvideox import MOTION_AXES, VISUAL_AXES, CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import motion_table, only, visual_table
from tests.latents.test_cogvideox import inputs, run
from tests.tiny import TRANSFORMER, joint_mean_mm, tiny_transformer


def told_apart(axes: str, frames: int = 3, head_dim: int = 16) -> set[str]:
    """Along which axes two motion tokens must lie apart to be turned apart."""
    moved = {}
    mean_mm = joint_mean_mm()
    for axis, name in enumerate("xyz"):
        other_mm = mean_mm.copy()
        other_mm[5, axis] += 100
        other_mm[6, axis] -= 100  # the mean over the joints stays
        moved[name] = motion_table(frames, other_mm, head_dim)
    table = only(motion_table(frames, mean_mm, head_dim), axes, "txyz")
    found = {name for name, other in moved.items() if not torch.equal(only(other, axes, "txyz").cos, table.cos)}
    return found | ({"t"} if not torch.equal(table.cos[:24], table.cos[24:48]) else set())


@pytest.mark.parametrize(("name", "axes"), MOTION_AXES.items())
def test_only_the_axes_that_stay_tell_motion_tokens_apart(name: str, axes: str) -> None:
    assert told_apart(axes) == set(axes)


def test_patches_are_sought_by_the_same_axes() -> None:
    table = visual_table(2, 2, 4, 16)  # frame, row, column
    by_time, by_rows = only(table, "t", VISUAL_AXES), only(table, "y", VISUAL_AXES)
    assert torch.equal(by_time.sin[0], by_time.sin[7])
    assert not torch.equal(by_time.sin[0], by_time.sin[8])
    assert torch.equal(by_rows.sin[0], by_rows.sin[3])
    assert not torch.equal(by_rows.sin[0], by_rows.sin[4])
    assert torch.equal(by_rows.sin[:8], by_rows.sin[8:])


def test_with_all_four_axes_the_tables_are_not_even_copied() -> None:
    table = visual_table(2, 2, 4, 16)
    assert only(table, MOTION_AXES["4d"], VISUAL_AXES) is table


@pytest.mark.parametrize("name", [name for name in MOTION_AXES if name not in ("4d", "dynamic")])
def test_each_variant_sees_the_motion_and_differs_from_the_default(name: str) -> None:
    variant, default = tiny_transformer(motion_positions=name), tiny_transformer()
    other = inputs()["motion_tokens"].flip(1)
    assert not torch.equal(run(variant), run(default))
    assert not torch.allclose(run(variant), run(variant, motion_tokens=other)) or name == "none"


def test_without_positions_the_order_of_motion_tokens_is_lost() -> None:
    blind = tiny_transformer(motion_positions="none")
    other = inputs()["motion_tokens"].flip(1)
    torch.testing.assert_close(run(blind), run(blind, motion_tokens=other), atol=1e-5, rtol=1e-5)


def test_learnable_positions_fit_windows_of_any_length() -> None:
    learned = CogVideoXMotionTransformer(**TRANSFORMER, motion_positions="learnable")
    with torch.no_grad():
        learned.motion_position_frame.copy_(torch.arange(13.0)[:, None].expand_as(learned.motion_position_frame))
        learned.motion_position_joint.copy_(100 * torch.arange(24.0)[:, None].expand(24, 32))
    placed = learned.placed(torch.zeros(1, 7 * 24, 32))[0, :, 0].unflatten(0, (7, 24))
    assert placed[:, 0].tolist() == pytest.approx([0, 2, 4, 6, 8, 10, 12])
    assert placed[0].tolist() == pytest.approx([100 * joint for joint in range(24)])
