"""Frames without a person are filled in, marked, or refused with a way out."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Estimate, Smpl
from mtvcraft_cli.joints.gaps import describe, fill
from tests.joints.people import motion


def _estimate(frames: int, missing: list[int]) -> Estimate:
    """A body that moves 10 mm to the right from frame to frame."""
    joints_mm = np.zeros((frames, 24, 3), np.float32)
    joints_mm[..., 2] = 2000
    joints_mm[..., 0] = 10 * np.arange(frames)[:, None]
    confidence = np.ones((frames, 24), np.float32)
    found = np.ones(frames, bool)
    joints_mm[missing], confidence[missing], found[missing] = np.nan, 0, False
    return Estimate(joints_mm=joints_mm, confidence=confidence, found=found)


def test_a_short_gap_is_filled_on_a_straight_line_and_marked() -> None:
    filled = fill(_estimate(30, [10, 11, 12, 20]), Fraction(30))
    np.testing.assert_allclose(filled.joints_mm[:, 0, 0], 10 * np.arange(30), rtol=1e-6)
    assert np.flatnonzero(~filled.found).tolist() == [10, 11, 12, 20]
    assert (filled.confidence[10:13] == 0).all()


def test_frames_that_were_seen_are_not_touched() -> None:
    estimate = _estimate(30, [4])
    filled = fill(estimate, Fraction(30))
    np.testing.assert_array_equal(filled.joints_mm[estimate.found], estimate.joints_mm[estimate.found])


def test_the_ends_are_held() -> None:
    filled = fill(_estimate(20, [0, 1, 18, 19]), Fraction(30))
    assert filled.joints_mm[:3, 0, 0].tolist() == [20, 20, 20]
    assert filled.joints_mm[-3:, 0, 0].tolist() == [170, 170, 170]


def test_a_long_gap_is_refused_with_its_frames_and_a_way_out() -> None:
    with pytest.raises(MtvcraftError) as caught:
        fill(_estimate(300, list(range(210, 289))), Fraction(30), name="jump.mp4")
    assert caught.value.message == ("no person in frames 210 to 288 of `jump.mp4` (2.6 s), more than `--max-gap` 0.5 s")
    assert caught.value.hint == (
        "cut the clip with `--start` or `--end`, allow it with `--max-gap 2.7`, "
        "or choose another person with `--person`"
    )
    assert caught.value.exit is Exit.INPUT


def test_a_long_gap_at_the_start_is_refused() -> None:
    with pytest.raises(MtvcraftError, match="frames 0 to 39 of") as caught:
        fill(_estimate(300, list(range(40))), Fraction(30))
    assert caught.value.hint.startswith("begin 1.33 s later with `--start`, allow it with `--max-gap 1.4`, or")


def test_a_long_gap_at_the_end_is_refused() -> None:
    with pytest.raises(MtvcraftError, match="frames 240 to 299 of") as caught:
        fill(_estimate(300, list(range(240, 300))), Fraction(30))
    assert caught.value.hint.startswith("end 2.00 s earlier with `--end`, allow it with `--max-gap 2`, or")


def test_the_limit_is_exact_and_can_be_moved() -> None:
    rate = Fraction(30000, 1001)
    assert fill(_estimate(60, list(range(20, 34))), rate).found.sum() == 46  # 14 frames: 0.467 s
    with pytest.raises(MtvcraftError, match=r"frames 20 to 34 of `video` \(0\.50 s\)"):
        fill(_estimate(60, list(range(20, 35))), rate)  # 15 frames: 0.5005 s
    assert fill(_estimate(60, list(range(20, 35))), rate, Fraction(1)).found.sum() == 45


def test_a_single_missing_frame_is_named_as_one() -> None:
    with pytest.raises(MtvcraftError, match=r"no person in frame 2 of"):
        fill(_estimate(5, [2]), Fraction(1))


def test_nobody_at_all_is_said_so() -> None:
    with pytest.raises(MtvcraftError, match=r"no person in any of the 12 frames of `cat\.mp4`"):
        fill(_estimate(12, list(range(12))), Fraction(30), name="cat.mp4")


def test_how_much_may_be_filled_in_is_the_users_word_alone() -> None:
    missing = [frame for frame in range(60) if frame not in (15, 30, 45)]
    with pytest.raises(MtvcraftError, match="no person in frames 0 to 14"):
        fill(_estimate(60, missing), Fraction(60), Fraction(1, 5))
    assert fill(_estimate(60, missing), Fraction(60), Fraction(1)).found.sum() == 3


def test_a_single_sight_is_no_motion_however_long_a_gap_is_allowed() -> None:
    missing = [frame for frame in range(60) if frame != 15]
    with pytest.raises(MtvcraftError, match="a person in only one of the 60 frames of `video`: that is a pose"):
        fill(_estimate(60, missing), Fraction(30), Fraction(100))


def test_one_frame_with_a_person_is_a_motion() -> None:
    assert fill(_estimate(1, []), Fraction(30)).joints_mm.shape == (1, 24, 3)


def test_smpl_rotations_turn_the_short_way_through_a_gap() -> None:
    pose = np.zeros((5, 72), np.float32)
    pose[:, 1] = np.radians([170, np.nan, np.nan, np.nan, -150])  # 40 degrees apart, through 180
    rows = np.where(np.arange(5)[:, None] % 4 == 0, np.float32(1), np.float32(np.nan))
    smpl = Smpl(pose=pose, betas=np.tile(rows, 10), transl=np.tile(rows, 3))
    filled = fill(replace(_estimate(5, [1, 2, 3]), smpl=smpl), Fraction(30)).smpl
    assert filled is not None
    np.testing.assert_allclose(np.degrees(filled.pose[:, 1]) % 360, [170, 180, 190, 200, 210], atol=0.01)
    assert np.isfinite(filled.betas).all()
    assert np.isfinite(filled.transl).all()


def test_a_report_tells_what_was_filled_unsure_and_out_of_view() -> None:
    seen = motion(10)
    seen.observed[:2] = False
    seen.confidence[5, :12] = 0.2
    seen.joints_mm[6, 0, 0] = 9000
    report = describe(seen)
    assert (report.frames, report.filled) == (10, 2)
    assert report.unsure == pytest.approx(12 / (8 * 24))
    assert report.out_of_view == pytest.approx(1 / (8 * 24))
    assert report.observed == 0.8
    assert report.sentences() == [
        "the person was seen in 80 % of 10 frames, 2 were filled in",
        "of the joints, 6 % low in confidence and under 1 % out of view",
    ]


def test_a_perfect_motion_is_reported_in_one_line() -> None:
    assert describe(motion(3)).sentences() == ["the person was seen in 100 % of 3 frames"]
