import numpy as np
import pytest
import torch

from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.tokens.normalise import cut, denormalise, differential, lay, normalise
from mtvcraft_cli.windows import Window, plan_windows
from tests.tokens.conftest import walk


def windows_of(frames: int) -> torch.Tensor:
    return cut(walk(frames), plan_windows(frames, 25, 9))


def test_the_mean_pose_is_zero(stats: Statistics) -> None:
    assert not normalise(torch.tensor(stats.mean_mm), stats).any()


def test_one_spread_from_the_mean_is_one(stats: Statistics) -> None:
    pose = torch.tensor(stats.mean_mm - stats.std_mm)
    assert torch.allclose(normalise(pose, stats), torch.tensor(-1.0), atol=1e-5)


def test_denormalising_undoes_normalising(stats: Statistics) -> None:
    joints_mm = windows_of(60)
    assert torch.allclose(denormalise(normalise(joints_mm, stats), stats), joints_mm, atol=1e-3)


def test_each_window_starts_at_zero_when_told_from_its_own_first_frame(stats: Statistics) -> None:
    joints = differential(normalise(windows_of(60), stats), "window")
    assert not joints[:, 0].any()
    assert joints[:, 1:].abs().amin(dim=(1, 2, 3)).max() > 0


def test_only_the_first_window_starts_at_zero_when_told_from_the_clips_first_frame(stats: Statistics) -> None:
    joints = normalise(windows_of(60), stats)
    told = differential(joints, "reference", joints[0, 0])
    assert not told[0, 0].any()
    assert told[1:, 0].abs().amax(dim=(1, 2)).min() > 0.1
    assert torch.equal(told[0], differential(joints, "window")[0])


def test_the_released_presets_subtract_nothing(stats: Statistics) -> None:
    joints = normalise(windows_of(60), stats)
    assert torch.equal(differential(joints, "none", joints[0, 0]), joints)


@pytest.mark.parametrize("kind", ["window", "reference"])
def test_where_the_driver_stands_does_not_matter_when_told_from_a_frame(stats: Statistics, kind: str) -> None:
    here = normalise(windows_of(60), stats)
    there = normalise(windows_of(60) + torch.tensor([300.0, -50.0, 900.0]), stats)
    told = differential(here, kind, here[0, 0]), differential(there, kind, there[0, 0])
    assert torch.allclose(*told, atol=1e-5)
    assert not torch.allclose(here, there, atol=0.1)


def test_a_missing_reference_is_a_programmers_mistake(stats: Statistics) -> None:
    with pytest.raises(ValueError, match="reference"):
        differential(normalise(windows_of(9), stats), "reference")


def test_frames_past_the_end_hold_the_last_pose() -> None:
    joints_mm = walk(12)
    (window,) = cut(joints_mm, plan_windows(12, 25, 9))
    assert window.shape == (17, 24, 3)
    assert np.array_equal(window[:12], joints_mm)
    assert np.array_equal(window[12:], np.repeat(joints_mm[-1:], 5, axis=0))


def test_cutting_copies() -> None:
    joints_mm = walk(12)
    cut(joints_mm, plan_windows(12, 25, 9)).zero_()
    assert np.array_equal(joints_mm, walk(12))


@pytest.mark.parametrize("frames", [1, 2, 8, 9, 24, 25, 26, 41, 42, 100])
def test_windows_laid_back_are_the_clip(frames: int) -> None:
    plan = plan_windows(frames, 25, 9)
    joints_mm = np.full((frames, 24, 3), np.inf, np.float32)
    for window_mm, window in zip(cut(walk(frames), plan), plan, strict=True):
        lay(window_mm, window, joints_mm)
    assert np.allclose(joints_mm, walk(frames), atol=1e-3)


def test_shared_frames_fade_from_the_earlier_window_to_the_later() -> None:
    joints_mm = np.zeros((9, 24, 3), np.float32)
    later = Window(index=1, start=2, frames=9, carried=4, held=2)
    lay(torch.ones(9, 24, 3), later, joints_mm)
    assert np.allclose(joints_mm[:, 0, 0], [0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1])
