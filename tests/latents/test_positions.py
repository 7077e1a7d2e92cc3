"""What motion attention knows of where things are, and the variants that the paper compares it with."""

import numpy as np
import pytest
import torch

from mtvcraft_cli.latents.cogvideox import MOTION_AXES, VISUAL_AXES, CogVideoXMotionTransformer
from mtvcraft_cli.latents.rope import Rotary, motion_table, motion_tables, only, rotate, visual_table
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


def two_poses() -> np.ndarray:
    """Two clips' joints, (2, 24, 3) mm."""
    return np.stack([joint_mean_mm(), joint_mean_mm()[::-1]])


def test_clips_of_a_batch_are_turned_each_by_its_own_pose() -> None:
    heads = torch.randn(2, 3 * 24, 2, 16, generator=torch.Generator().manual_seed(0))
    together = rotate(heads, motion_tables(3, two_poses(), 16))
    for clip, pose_mm in enumerate(two_poses()):
        alone = rotate(heads[clip : clip + 1], motion_table(3, pose_mm, 16))
        assert torch.equal(together[clip : clip + 1], alone)
    assert not torch.equal(together, rotate(heads, motion_table(3, two_poses()[0], 16)))


@pytest.mark.parametrize("axes", ["txyz", "txy", ""])
def test_axes_are_left_out_of_the_tables_of_a_batch_as_of_one(axes: str) -> None:
    together = only(motion_tables(3, two_poses(), 16), axes, "txyz")
    alone = only(motion_table(3, two_poses()[1], 16), axes, "txyz")
    assert torch.equal(together.cos.expand(2, -1, -1)[1], alone.cos)
    assert torch.equal(together.sin.expand(2, -1, -1)[1], alone.sin)


def test_a_transformer_makes_of_a_batch_what_it_makes_of_its_clips_one_by_one() -> None:
    transformer = tiny_transformer(motion_positions="dynamic")
    assert transformer.dynamic
    assert not tiny_transformer().dynamic
    given = inputs()
    frames = given["motion_tokens"].shape[1] // 24
    tables = motion_tables(frames, two_poses(), 16)
    twice = {name: torch.cat([given[name][:1]] * 2) for name in ("hidden_states", "timestep", "motion_tokens")} | {
        "visual": given["visual"]
    }
    together = transformer(**twice, motion=tables)
    assert not torch.allclose(together[0], together[1])
    for clip in range(2):
        own = {name: value[:1] for name, value in twice.items() if name != "visual"} | {"visual": given["visual"]}
        alone = transformer(**own, motion=Rotary(tables.cos[clip], tables.sin[clip]))
        torch.testing.assert_close(together[clip : clip + 1], alone, atol=1e-5, rtol=1e-5)


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
