"""Landmarks of a body whose joints are known give these joints back."""

from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.joints.lift import LEFT, NEARER, Landmarks, lift, smooth
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS, mirror_order
from tests.joints.people import RATE, SIZE_PX, dancer, landmarks_of, shared


def _apart_mm(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first - second, axis=-1)


def _expected_mm(joints_mm: np.ndarray) -> np.ndarray:
    """A body whose bones have their true depth is put too near, by what the others are put too far."""
    return joints_mm - (1 - NEARER) * joints_mm[:, :1]


@pytest.mark.parametrize("place_mm", [(0, 0, 2500), (400, -150, 3200), (-300, 200, 1800)])
def test_a_known_body_is_recovered_where_it_stands(place_mm: tuple[float, float, float]) -> None:
    joints_mm = dancer(place_mm=place_mm)
    found = lift(landmarks_of(joints_mm), SIZE_PX, RATE)
    errors = _apart_mm(found.joints_mm, _expected_mm(joints_mm))
    assert errors.mean() < 15
    assert errors.max() < 60
    assert found.found.all()
    assert (found.confidence == 1).all()


@pytest.mark.parametrize("yaw", [0.0, 1.5, 3.1, -2.0])
def test_a_known_body_is_recovered_from_every_side(yaw: float) -> None:
    joints_mm = dancer(yaw=yaw)
    assert _apart_mm(lift(landmarks_of(joints_mm), SIZE_PX, RATE).joints_mm, _expected_mm(joints_mm)).mean() < 20


def test_a_mirrored_picture_gives_mirrored_joints() -> None:
    landmarks = landmarks_of(dancer(yaw=0.7))
    order = np.arange(33)
    for left in LEFT.values():
        order[[left, left + 1]] = left + 1, left
    mirrored = Landmarks(
        world_mm=landmarks.world_mm[:, order] * (-1, 1, 1),
        image_px=landmarks.image_px[:, order] * (-1, 1) + (SIZE_PX[0], 0),
        visibility=landmarks.visibility[:, order],
    )
    straight, mirror = (lift(each, SIZE_PX, RATE).joints_mm for each in (landmarks, mirrored))
    np.testing.assert_allclose(mirror[:, list(mirror_order())] * (-1, 1, 1), straight, atol=0.01)


def test_the_number_of_pixels_does_not_matter() -> None:
    landmarks = landmarks_of(dancer())
    large = Landmarks(landmarks.world_mm, landmarks.image_px * 3, landmarks.visibility)
    np.testing.assert_allclose(
        lift(large, (3 * SIZE_PX[0], 3 * SIZE_PX[1]), RATE).joints_mm,
        lift(landmarks, SIZE_PX, RATE).joints_mm,
        atol=0.01,
    )


def test_a_wild_landmark_of_low_visibility_moves_the_body_little() -> None:
    joints_mm = dancer(yaw=0.0)
    landmarks = landmarks_of(joints_mm)
    landmarks.image_px[:, LEFT["knee"]] += 400
    landmarks.visibility[:, LEFT["knee"]] = 0.1
    found = lift(landmarks, SIZE_PX, RATE)
    assert _apart_mm(found.joints_mm[:, 0], _expected_mm(joints_mm)[:, 0]).max() < 40
    assert found.confidence[0, 4] == pytest.approx(0.1)


def test_bones_keep_about_the_neutral_lengths() -> None:
    landmarks = landmarks_of(dancer())
    landmarks.world_mm[:] *= 1.3  # a size that the picture doesn't bear out
    joints_mm = lift(landmarks, SIZE_PX, RATE).joints_mm
    lengths = np.linalg.norm(joints_mm[:, 1:] - joints_mm[:, list(PARENTS[1:])], axis=-1)
    np.testing.assert_allclose(lengths.mean(axis=0), NEUTRAL_LENGTHS_MM[1:], rtol=0.1)


def test_frames_without_a_person_stay_empty_and_do_not_touch_the_others() -> None:
    joints_mm = dancer(60)
    landmarks = landmarks_of(joints_mm)
    for values in (landmarks.world_mm, landmarks.image_px, landmarks.visibility):
        values[20:40] = np.nan
    found = lift(landmarks, SIZE_PX, RATE)
    assert found.found.tolist() == [True] * 20 + [False] * 20 + [True] * 20
    assert np.isnan(found.joints_mm[20:40]).all()
    assert (found.confidence[20:40] == 0).all()
    assert _apart_mm(found.joints_mm[found.found], _expected_mm(joints_mm)[found.found]).max() < 60


def test_nobody_at_all_gives_empty_frames() -> None:
    nothing = Landmarks(np.full((3, 33, 3), np.nan), np.full((3, 33, 2), np.nan), np.full((3, 33), np.nan))
    found = lift(nothing, SIZE_PX, RATE)
    assert not found.found.any()
    assert np.isnan(found.joints_mm).all()


def test_one_frame_is_enough() -> None:
    joints_mm = dancer(1)
    assert _apart_mm(lift(landmarks_of(joints_mm), SIZE_PX, RATE).joints_mm, _expected_mm(joints_mm)).mean() < 15


def test_landmarks_without_any_sense_still_give_numbers() -> None:
    zeros = Landmarks(np.zeros((5, 33, 3)), np.zeros((5, 33, 2)), np.zeros((5, 33)))
    joints_mm = lift(zeros, SIZE_PX, RATE).joints_mm
    assert np.isfinite(joints_mm).all()
    assert joints_mm[..., 2].min() > 0


def test_smoothing_keeps_a_straight_motion_and_calms_noise() -> None:
    times = np.arange(200.0)
    found = np.ones(200, bool)
    np.testing.assert_allclose(smooth(times, found, 2.0)[10:-10], times[10:-10], atol=1e-9)
    noise = np.random.default_rng(0).normal(size=(200, 3))
    assert smooth(noise, found, 2.0).std() < 0.5 * noise.std()


@pytest.fixture(scope="module")
def errors_mm() -> np.ndarray:
    """Root-relative, aligned and absolute errors against NLF's joints, means over two dances, mm."""
    rows = []
    for clip in (2, 3):
        pairs = np.load(shared(f"motion/pairs_{clip}.npz"))
        size_px = (int(pairs["width"]), int(pairs["height"]))
        landmarks = Landmarks(
            world_mm=pairs["world_nosmooth"].astype(np.float64) * 1000,
            image_px=pairs["image_nosmooth"][..., :2].astype(np.float64) * size_px,
            visibility=pairs["visibility_nosmooth"].astype(np.float64),
        )
        estimate = lift(landmarks, size_px, Fraction(round(float(pairs["fps"]))))
        found, true = estimate.joints_mm.astype(np.float64), pairs["joints"].astype(np.float64)
        bent = [np.linalg.norm(np.diff(each, 2, axis=0), axis=-1).mean() for each in (found, true)]
        rows.append(
            [
                _apart_mm(found - found[:, :1], true - true[:, :1]).mean(),
                _apart_mm(_aligned(found, true), true).mean(),
                _apart_mm(found, true).mean(),
                bent[0] / bent[1],
            ]
        )
    return np.mean(rows, axis=0)


def _aligned(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """`found` after the similarity that brings each frame nearest to `true`."""
    centre, goal = found.mean(axis=1, keepdims=True), true.mean(axis=1, keepdims=True)
    left, stretch, right = np.linalg.svd(np.swapaxes(found - centre, 1, 2) @ (true - goal))
    stretch[:, 2] *= (sign := np.sign(np.linalg.det(left @ right)))
    left[..., 2] *= sign[:, None]
    scale = stretch.sum(axis=1) / ((found - centre) ** 2).sum(axis=(1, 2))
    return scale[:, None, None] * (found - centre) @ (left @ right) + goal


def test_joints_of_real_dances_lie_near_those_of_nlf(errors_mm: np.ndarray) -> None:
    root_relative, aligned, absolute, _ = errors_mm
    assert root_relative <= 73
    assert aligned <= 55
    assert absolute <= 100


def test_joints_of_real_dances_shake_less_than_those_of_nlf(errors_mm: np.ndarray) -> None:
    assert errors_mm[3] <= 0.6
