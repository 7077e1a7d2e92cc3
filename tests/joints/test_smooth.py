"""The one-euro filter calms joints at rest, keeps up with fast ones, and does no harm to real dances."""

from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.joints.lift import Landmarks, lift
from mtvcraft_cli.joints.smooth import smooth
from tests.joints.people import dancer, shared


def _shake_mm(joints_mm: np.ndarray) -> float:
    """Mean acceleration, mm a frame squared."""
    return float(np.linalg.norm(np.diff(joints_mm, 2, axis=0), axis=-1).mean())


def test_a_body_at_rest_is_calmed() -> None:
    still = np.repeat(dancer(1), 120, axis=0)
    shaken = (still + np.random.default_rng(0).normal(0, 5, still.shape)).astype(np.float32)
    calm = smooth(shaken, Fraction(30))
    assert _shake_mm(calm) < 0.2 * _shake_mm(shaken)
    assert np.abs(calm - still).mean() < 0.5 * np.abs(shaken - still).mean()


def test_a_fast_joint_is_not_held_back() -> None:
    moving = np.repeat(dancer(1), 60, axis=0)
    moving[:, 20, 0] += 300 * np.sin(2 * np.pi * np.arange(60) / 30)  # a wrist that swings by 60 cm every second
    found = smooth(moving.astype(np.float32), Fraction(30))
    assert np.abs(found - moving).max() < 40
    lags = [np.abs(found[10 + lag : 50 + lag, 20, 0] - moving[10:50, 20, 0]).sum() for lag in (-1, 0, 1)]
    assert np.argmin(lags) == 1


def test_the_same_motion_is_smoothed_alike_at_every_rate() -> None:
    dense = dancer(241).astype(np.float32)
    slow, fast = smooth(dense[::4], Fraction(30)), smooth(dense, Fraction(120))[::4]
    assert np.abs(slow - fast).mean() < 0.1 * np.abs(slow - dense[::4]).mean() + 1.5


def test_one_frame_stays_as_it_is_and_nan_is_a_mistake_of_ours() -> None:
    one = dancer(1).astype(np.float32)
    np.testing.assert_array_equal(smooth(one, Fraction(30)), one)
    with pytest.raises(ValueError, match="fill gaps first"):
        smooth(np.full((3, 24, 3), np.nan, np.float32), Fraction(30))


def test_joints_of_real_dances_come_no_farther_from_those_of_nlf_and_shake_less() -> None:
    rows = []
    for clip in (2, 3):
        pairs = np.load(shared(f"motion/pairs_{clip}.npz"))
        size_px, rate = (int(pairs["width"]), int(pairs["height"])), Fraction(round(float(pairs["fps"])))
        landmarks = Landmarks(
            world_mm=pairs["world_nosmooth"].astype(np.float64) * 1000,
            image_px=pairs["image_nosmooth"][..., :2].astype(np.float64) * size_px,
            visibility=pairs["visibility_nosmooth"].astype(np.float64),
        )
        off_mm, true = lift(landmarks, size_px, rate).joints_mm, pairs["joints"]
        for joints_mm in (off_mm, smooth(off_mm, rate)):
            relative = joints_mm - joints_mm[:, :1] - true + true[:, :1]
            errors = (np.linalg.norm(each, axis=-1).mean() for each in (relative, joints_mm - true))
            rows.append([*errors, _shake_mm(joints_mm)])
    off, on = np.array(rows).reshape(2, 2, 3).mean(axis=0)
    assert on[0] <= off[0]
    assert on[1] <= 1.003 * off[1]
    assert on[2] < 0.93 * off[2]
