"""A drawn skeleton lies on the joints, in colours that tell the sides apart."""

import numpy as np
import pytest

from mtvcraft_cli.joints.overlay import (
    GROUND_COLOUR,
    LEFT_COLOUR,
    MIDDLE_COLOUR,
    RIGHT_COLOUR,
    draw,
    draw_alone,
    draw_over,
)
from mtvcraft_cli.joints.skeleton import NAMES, project
from tests.joints.people import SIZE_PX, dancer, motion

FRAME = np.full((SIZE_PX[1], SIZE_PX[0], 3), 90, np.uint8)


def _colour_at(picture: np.ndarray, place: np.ndarray) -> np.ndarray:
    return picture[int(place[1]), int(place[0])].astype(int)


def test_each_joint_is_drawn_where_the_camera_sees_it_in_the_colour_of_its_side() -> None:
    joints_mm = dancer(1, yaw=0.0)[0]
    places = project(joints_mm, SIZE_PX)
    drawn = draw(FRAME, joints_mm, SIZE_PX)
    for name, colour in {"l_wrist": LEFT_COLOUR, "r_wrist": RIGHT_COLOUR, "spine2": MIDDLE_COLOUR}.items():
        np.testing.assert_allclose(_colour_at(drawn, places[NAMES.index(name)]), colour, atol=2)
    assert places[NAMES.index("l_wrist"), 0] > places[NAMES.index("r_wrist"), 0]  # the person faces the camera


def test_a_bone_is_drawn_between_its_joints_and_nothing_far_away() -> None:
    joints_mm = dancer(1, yaw=0.0)[0]
    places = project(joints_mm, SIZE_PX)
    drawn = draw(FRAME, joints_mm, SIZE_PX)
    middle = (places[NAMES.index("l_knee")] + places[NAMES.index("l_ankle")]) / 2
    np.testing.assert_allclose(_colour_at(drawn, middle), LEFT_COLOUR, atol=2)
    assert (drawn[:60] == 90).all()
    assert 0.005 < (drawn != 90).any(axis=-1).mean() < 0.1


def test_the_frame_itself_is_left_alone() -> None:
    before = FRAME.copy()
    draw(FRAME, dancer(1)[0], SIZE_PX)
    np.testing.assert_array_equal(FRAME, before)


def test_an_unsure_skeleton_is_fainter() -> None:
    joints_mm = dancer(1)[0]
    sure, unsure = (draw(FRAME, joints_mm, SIZE_PX, np.full(24, value)) for value in (1.0, 0.1))
    assert np.abs(unsure.astype(int) - 90).sum() < 0.6 * np.abs(sure.astype(int) - 90).sum()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_the_skeleton_is_seen_on_any_ground(grey: int) -> None:
    frame = np.full_like(FRAME, grey)
    drawn = draw(frame, dancer(1)[0], SIZE_PX).astype(int)
    assert (np.abs(drawn - grey).max(axis=-1) > 100).mean() > 0.003


def test_frames_of_another_size_get_the_same_skeleton() -> None:
    joints_mm = dancer(1)[0]
    small = draw(FRAME[::2, ::2], joints_mm, SIZE_PX)
    place = project(joints_mm, SIZE_PX)[NAMES.index("l_wrist")] / 2
    np.testing.assert_allclose(_colour_at(small, place), LEFT_COLOUR, atol=2)


def test_a_body_partly_behind_the_camera_or_out_of_view_is_drawn_as_far_as_it_goes() -> None:
    joints_mm = dancer(1)[0]
    joints_mm[20, 2] = -10
    joints_mm[7] = [50_000, 0, 2000]
    joints_mm[8] = np.nan
    assert (draw(FRAME, joints_mm, SIZE_PX) != 90).any()


def test_batches_keep_their_order_and_sizes() -> None:
    clip = motion(5)
    batches = list(draw_over([np.stack([FRAME] * 2), np.stack([FRAME] * 3)], clip))
    assert [len(batch) for batch in batches] == [2, 3]
    np.testing.assert_array_equal(batches[1][1], draw(FRAME, clip.joints_mm[3], SIZE_PX, clip.confidence[3]))


def test_a_skeleton_alone_stands_on_plain_ground_frame_by_frame() -> None:
    clip = motion(4)
    size_px = (SIZE_PX[0] // 4, SIZE_PX[1] // 4)
    drawn = list(draw_alone(clip, size_px))
    assert len(drawn) == 4
    assert {frame.shape for frame in drawn} == {(*size_px[::-1], 3)}
    assert all((frame[0] == GROUND_COLOUR).all() for frame in drawn)
    for frame, joints_mm in zip(drawn, clip.joints_mm, strict=True):
        place = project(joints_mm, SIZE_PX)[NAMES.index("l_wrist")] / 4
        assert np.abs(_colour_at(frame, place) - LEFT_COLOUR).max() < 40
    assert (drawn[0] != drawn[3]).any()
