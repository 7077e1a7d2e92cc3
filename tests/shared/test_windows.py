"""Motion of any length is covered by windows that a model can see."""

from itertools import pairwise

import pytest

from mtvcraft_cli.windows import plan_windows


@pytest.mark.parametrize("total", [1, 3, 9, 10, 20, 48, 49, 50, 60, 89, 90, 130, 1000])
def test_windows_cover_every_frame_and_share_only_the_overlap(total: int) -> None:
    windows = plan_windows(total, frames=49, overlap=9)
    assert windows[0].start == 0
    assert windows[0].carried == 0
    for before, after in pairwise(windows):
        assert before.start + before.frames - after.start == after.carried == 9
        assert before.held == 0
    last = windows[-1]
    assert last.start + last.frames - last.held == total
    assert last.held < last.frames - last.carried, "a window that is held throughout is of no use"
    assert all(window.frames % 8 == 1 for window in windows)


@pytest.mark.parametrize(
    ("total", "frames"), [(1, 9), (3, 9), (9, 9), (10, 17), (20, 25), (41, 41), (42, 49), (49, 49)]
)
def test_a_short_motion_gets_the_smallest_window_that_holds_it(total: int, frames: int) -> None:
    (window,) = plan_windows(total, frames=49, overlap=9)
    assert (window.frames, window.held) == (frames, frames - total)
    assert window.latent_frames == (frames - 1) // 4 + 1


def test_a_long_motion_gets_windows_of_the_length_the_model_was_trained_on() -> None:
    assert [(window.start, window.frames) for window in plan_windows(130, 49, 9)] == [
        (0, 49),
        (40, 49),
        (80, 49),
        (120, 49),
    ]


@pytest.mark.parametrize(("total", "frames", "overlap"), [(0, 49, 9), (9, 48, 9), (9, 49, 8), (9, 9, 9), (9, 1, 1)])
def test_numbers_that_fit_no_window_are_refused(total: int, frames: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="frame"):
        plan_windows(total, frames, overlap)
