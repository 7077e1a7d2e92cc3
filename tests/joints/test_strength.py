"""A stronger motion is the same one, larger; a weaker one smaller; the body stays whole."""

import numpy as np
import pytest

from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.skeleton import NAMES
from mtvcraft_cli.joints.strength import strengthened
from tests.joints.people import dancer, motion, turn
from tests.joints.test_framing import lengths_mm, smpl_joints_mm, walker, with_smpl


def _spread(clip: Motion, joint: str) -> float:
    """Mean angle, degrees, between a limb's direction and its mean over the clip."""
    at = NAMES.index(joint)
    bones = clip.joints_mm[:, at].astype(np.float64) - clip.joints_mm[:, {18: 16, 4: 1}[at]]
    bones /= np.linalg.norm(bones, axis=1, keepdims=True)
    mean = bones.mean(axis=0)
    return float(np.degrees(np.arccos(np.clip(bones @ mean / np.linalg.norm(mean), -1, 1))).mean())


def spinner(frames: int = 90) -> Motion:
    """Turns round twice, arms swinging."""
    yaw = turn(1, np.linspace(0, 4 * np.pi, frames)).swapaxes(-1, -2)
    return motion(frames, joints_mm=(dancer(frames, (0, 0, 0)) @ yaw + (0, 0, 3000)).astype(np.float32))


def test_a_strength_of_one_changes_no_bit() -> None:
    clip = with_smpl()
    assert strengthened(clip, 1.0) is clip


@pytest.mark.parametrize("clip", [walker(), with_smpl(), spinner()], ids=["walker", "smpl", "spinner"])
def test_strengths_near_one_change_little_and_none_stands_still(clip: Motion) -> None:
    near = strengthened(clip, 1.0001)
    assert np.abs(near.joints_mm - clip.joints_mm).max() < 2
    still = strengthened(clip, 0.0).joints_mm
    np.testing.assert_allclose(still, np.broadcast_to(still[0], still.shape), atol=0.05)


@pytest.mark.parametrize("factor", [0.0, 0.3, 0.5, 1.5, 2.0])
@pytest.mark.parametrize("clip", [walker(), with_smpl(), spinner()], ids=["walker", "smpl", "spinner"])
def test_every_bone_keeps_its_length(clip: Motion, factor: float) -> None:
    np.testing.assert_allclose(lengths_mm(strengthened(clip, factor)), lengths_mm(clip), atol=0.05)


@pytest.mark.parametrize("joint", ["l_elbow", "l_knee"])
def test_limbs_swing_as_much_more_or_less_as_was_asked(joint: str) -> None:
    clip = motion(90)
    assert _spread(clip, joint) > 4
    for factor in (0.5, 1.5, 2.0):
        assert _spread(strengthened(clip, factor), joint) == pytest.approx(factor * _spread(clip, joint), rel=0.1)


def test_the_pelvis_goes_as_much_farther_in_the_picture_and_never_behind_the_camera() -> None:
    clip = walker()
    root_mm = clip.joints_mm[:, 0].astype(np.float64)
    for factor in (0.5, 2.0):
        moved_mm = strengthened(clip, factor).joints_mm[:, 0].astype(np.float64)
        seen, now_seen = (each[:, :2] / each[:, 2:] for each in (root_mm, moved_mm))
        np.testing.assert_allclose(now_seen - now_seen.mean(axis=0), factor * (seen - seen.mean(axis=0)), atol=1e-5)
    near_mm = dancer(40, (0, 0, 0)) + np.linspace([0, 0, 900], [0, 0, 6000], 40)[:, None]
    assert strengthened(motion(40, joints_mm=near_mm.astype(np.float32)), 2.0).joints_mm[:, 0, 2].min() > 0


@pytest.mark.parametrize("factor", [0.1, 0.5, 0.9, 1.3, 2.0])
def test_a_dancer_who_turns_round_never_jumps(factor: float) -> None:
    clip = spinner(400)
    before, after = (
        np.linalg.norm(np.diff(each.joints_mm, axis=0), axis=-1).max() for each in (clip, strengthened(clip, factor))
    )
    assert after < 1.5 * max(factor, 1 / factor) * before


def test_an_arm_that_passes_the_far_side_of_its_mean_never_jumps() -> None:
    clip = motion(200)
    angle = np.concatenate([np.zeros(140), np.linspace(0, 2 * np.pi, 60)])  # hangs, then goes all the way round
    reach_mm = np.stack([np.sin(angle), np.cos(angle), 0.02 * np.sin(3 * angle)], axis=-1) * 235
    moved_mm = clip.joints_mm[:, 16] + reach_mm - clip.joints_mm[:, 18]
    clip.joints_mm[:, [18, 20, 22]] += moved_mm[:, None]
    for factor in (0.4, 0.5, 0.7):
        steps_mm = np.linalg.norm(np.diff(strengthened(clip, factor).joints_mm[:, 18], axis=0), axis=-1)
        assert steps_mm.max() < 80


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_smpl_still_makes_the_joints(factor: float) -> None:
    scaled = strengthened(with_smpl(), factor)
    np.testing.assert_allclose(smpl_joints_mm(scaled.smpl_pose, scaled.smpl_transl), scaled.joints_mm, atol=0.2)


@pytest.mark.parametrize("factor", [-0.1, 2.1, float("nan")])
def test_a_strength_out_of_range_is_a_mistake(factor: float) -> None:
    with pytest.raises(ValueError, match=r"lies in 0\.\.2"):
        strengthened(motion(3), factor)
