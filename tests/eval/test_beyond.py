"""Flicker, intervals and motion-follow, which no paper has: where the answer is known."""

import numpy as np
import pytest

from mtvcraft_cli.eval.bootstrap import interval, mean_interval
from mtvcraft_cli.eval.flicker import restlessness
from mtvcraft_cli.eval.follow import follow
from mtvcraft_cli.joints.skeleton import mirror_order
from mtvcraft_cli.train.world.scenes import scene


def noise(seed: int = 0, frames: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, (frames, 12, 10, 3), dtype=np.uint8)


def test_a_clip_that_alternates_between_two_greys_has_their_distance():
    frames = np.full((7, 4, 4, 3), 100, np.uint8)
    frames[1::2] += 40
    assert restlessness(frames) == pytest.approx(40)


def test_even_change_and_another_brightness_are_no_flicker():
    ramp = np.broadcast_to(np.arange(0, 250, 10, dtype=np.uint8)[:, None, None, None], (25, 4, 4, 3))
    assert restlessness(ramp) == 0
    assert restlessness(noise() + np.uint8(30)) == restlessness(noise()) > 0


def test_clips_too_short_to_flicker_have_none():
    assert restlessness(noise(frames=2)) is None


def test_an_interval_holds_the_mean_and_shrinks_with_the_clips():
    values = np.random.default_rng(0).normal(5, 1, 400)
    few, many = mean_interval(values[:20].tolist()), mean_interval(values.tolist())
    assert few[0] < values[:20].mean() < few[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert few[1] - few[0] > 3 * (many[1] - many[0])
    assert mean_interval(values.tolist()) == many  # from a seed
    assert mean_interval(values.tolist(), seed=1) != many


def test_clips_that_are_equal_leave_no_doubt_and_one_clip_says_nothing():
    assert mean_interval([3.0] * 5) == (3, 3)
    assert mean_interval([3.0]) is None
    assert interval(1, lambda places: 0.0) is None


def test_heavier_clips_count_more():
    low, high = mean_interval([0.0, 1.0], [1, 999])
    assert (low, high) == (0, 1)
    middle = interval(2, lambda places: float(len(set(places.tolist()))), level=0.2)
    assert middle is not None
    assert set(middle) <= {1, 2}
    assert mean_interval([0.0, 1.0, 1.0], [1, 999, 999], level=0.5)[0] > 0.99


@pytest.fixture(scope="module")
def motions() -> list[np.ndarray]:
    return [scene(seed, "human", (32, 32), 20).joints_mm for seed in range(2)]


def turned(joints_mm: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.asarray([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return (joints_mm @ turn).astype(np.float32)


def test_the_same_motion_is_followed_from_another_camera_in_another_size_and_place(motions):
    own = motions[0]
    walk = np.linspace(0, 2000, len(own))[:, None, None]
    for result in (own, turned(own, 70), (own * 0.4).astype(np.float32), (own + walk).astype(np.float32)):
        found = follow(result, own)
        assert found is not None
        assert found.mm < 0.1
        assert found.found == 1


def test_another_motion_a_mirrored_one_and_a_still_one_are_not(motions):
    own, other = motions
    noisy = (own + np.random.default_rng(0).normal(0, 10, own.shape)).astype(np.float32)
    near = follow(noisy, own)
    assert near is not None
    assert near.mm < 25
    mirrored = own[:, mirror_order()] * np.float32([-1, 1, 1])
    for far in (follow(noisy, other), follow(mirrored, own), follow(np.repeat(own[:1], len(own), 0), own)):
        assert far is not None
        assert far.mm > 3 * near.mm


def test_turning_round_is_motion_and_is_not_forgiven(motions):
    own = np.repeat(motions[0][:1], 20, 0)
    spinning = np.concatenate([turned(own[:1], degrees) for degrees in np.linspace(0, 360, 20)])
    found = follow(spinning, own)
    assert found is not None
    assert found.mm > 50


def test_only_joints_seen_on_both_sides_count(motions):
    own = motions[0]
    seen = np.ones((20, 24), bool)
    seen[:5] = False
    seen[5:, 20:] = False
    spoilt = own.copy()
    spoilt[~seen] = np.nan
    for found in (follow(spoilt, own, seen), follow(spoilt, own, None, seen), follow(spoilt, own, seen, seen)):
        assert found is not None
        assert found.mm < 0.1
        assert found.found == 15 / 20
    assert follow(own, own, np.zeros((20, 24), bool)) is None


def test_legs_are_the_measure_of_a_driver_of_any_size(motions):
    own, other = motions
    one, large = follow(own, other), follow(own, (other * 2).astype(np.float32))
    assert one is not None
    assert large is not None
    assert large.mm == pytest.approx(2 * one.mm, rel=1e-4)
    assert large.legs == pytest.approx(one.legs, rel=1e-4)
    assert 300 < one.mm / one.legs < 1200  # a leg


def test_frames_are_compared_as_far_as_both_motions_go(motions):
    own, other = motions
    one, cut = follow(own[:12], other), follow(own[:12], other[:12])
    assert one is not None
    assert cut is not None
    assert one.mm == cut.mm
    assert one.found == cut.found == 1
