"""Mirrored, centred or followed, the person is the same one; what is odd about the framing is said."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.framing import Root, framing_remarks, mirror, rooted
from mtvcraft_cli.joints.skeleton import (
    NAMES,
    NEUTRAL_LENGTHS_MM,
    NEUTRAL_OFFSETS_MM,
    PARENTS,
    mirror_order,
    project,
)
from mtvcraft_cli.joints.turns import forward
from tests.joints.people import SIZE_PX, dancer, motion, turn

PELVIS_MM = np.array([2.0, -220.0, 30.0])
"""Where SMPL's pelvis lies from what its translation moves."""


def with_smpl(frames: int = 12) -> Motion:
    """Joints that are SMPL's own, of a body that bends and turns every joint and walks."""
    draw = np.random.default_rng(4)
    still, swing = draw.normal(size=(2, 72)) * 0.4
    pose = (still + swing * np.sin(np.arange(frames) / 4)[:, None]).astype(np.float32)
    pose[:, 0] += np.pi  # upright before a camera that has y down
    transl = np.array([0.4, 0.1, 2.6]) + np.outer(np.arange(frames) / frames, [0.5, 0.1, -0.4])
    clip = motion(
        frames,
        joints_mm=smpl_joints_mm(pose, transl),
        smpl_pose=pose,
        smpl_transl=transl.astype(np.float32),
        smpl_betas=np.ones((frames, 10), np.float32),
        confidence=draw.uniform(size=(frames, 24)).astype(np.float32),
    )
    assert clip.joints_mm[..., 2].min() > 500
    return clip


def smpl_joints_mm(pose: np.ndarray, transl: np.ndarray) -> np.ndarray:
    """Follow SMPL's rotations on the neutral bones, by matrices made here."""
    vectors = pose.reshape(-1, 24, 3).astype(np.float64)
    turns = np.zeros((len(pose), 24, 3, 3))
    for joint, parent in enumerate(PARENTS):
        for frame, vector in enumerate(vectors[:, joint]):
            own = _rotation(vector)
            turns[frame, joint] = own if parent < 0 else turns[frame, parent] @ own
    root_mm = 1000 * transl + PELVIS_MM * (0, 1, 1)
    return forward(turns.astype(np.float32), root_mm.astype(np.float32), NEUTRAL_OFFSETS_MM)


def _rotation(vector: np.ndarray) -> np.ndarray:
    """By turning a hundred thousandth at a time: no formula shared with what is tested."""
    x, y, z = vector / 2**17
    return np.linalg.matrix_power(turn(0, x) @ turn(1, y) @ turn(2, z), 2**17)


def lengths_mm(clip: Motion) -> np.ndarray:
    return np.linalg.norm(clip.joints_mm[:, 1:] - clip.joints_mm[:, PARENTS[1:]], axis=-1)


def test_a_mirrored_motion_lies_across_the_middle_of_the_picture() -> None:
    clip = motion(8, joints_mm=dancer(8, (350, 100, 2500)).astype(np.float32))
    seen, mirrored = (project(each.joints_mm, SIZE_PX) for each in (clip, mirror(clip)))
    np.testing.assert_allclose(mirrored[:, list(mirror_order())], seen * (-1, 1) + (SIZE_PX[0], 0), atol=1e-3)
    left, right = (NAMES.index(f"{side}_wrist") for side in "lr")
    assert abs(mirror(clip).joints_mm[0, left, 0] + clip.joints_mm[0, right, 0]) < 1e-3


def test_a_motion_mirrored_twice_is_the_same() -> None:
    clip = with_smpl()
    twice = mirror(mirror(clip))
    for name in ("joints_mm", "confidence", "smpl_pose", "smpl_betas", "smpl_transl"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(clip, name))


def test_mirrored_rotations_still_make_the_mirrored_joints() -> None:
    clip = with_smpl()
    mirrored = mirror(clip)
    assert np.abs(mirrored.joints_mm - clip.joints_mm).max() > 100
    np.testing.assert_allclose(smpl_joints_mm(mirrored.smpl_pose, mirrored.smpl_transl), mirrored.joints_mm, atol=0.1)
    np.testing.assert_array_equal(mirrored.confidence[:, 20], clip.confidence[:, 21])


def walker(frames: int = 40) -> Motion:
    """Dances on the way from the left to the right, below the middle of the picture and nearer and nearer."""
    way_mm = np.linspace([-700, 300, 3500], [900, 200, 2800], frames)[:, None]
    return motion(frames, joints_mm=(dancer(frames, (0, 0, 0)) + way_mm).astype(np.float32))


def _middle_px(clip: Motion) -> np.ndarray:
    """Where the middle of the person's box lies on average, from the middle of the picture."""
    places = project(clip.joints_mm, SIZE_PX)
    return ((places.min(axis=1) + places.max(axis=1)) / 2).mean(axis=0) - np.array(SIZE_PX) / 2


def test_a_root_that_is_kept_is_kept_to_the_bit() -> None:
    clip = walker()
    assert rooted(clip, "keep") is clip


def test_a_centred_person_is_in_the_middle_on_average_and_walks_as_before() -> None:
    clip = walker()
    assert abs(_middle_px(clip)[1]) > 50
    centred = rooted(clip, "centre")
    np.testing.assert_allclose(_middle_px(centred), 0, atol=0.01)
    step_mm = centred.joints_mm - clip.joints_mm
    np.testing.assert_allclose(step_mm, np.broadcast_to(step_mm[0, 0], step_mm.shape), atol=1e-3)
    assert abs(step_mm[0, 0, 2]) < 1e-3


def test_a_followed_pelvis_stays_in_one_place_in_the_middle_of_the_picture() -> None:
    clip = walker()
    followed = rooted(clip, "follow")
    pelvis_mm = followed.joints_mm[:, 0]
    np.testing.assert_array_equal(pelvis_mm, np.broadcast_to(pelvis_mm[0], pelvis_mm.shape))
    assert abs(pelvis_mm[0, 2] - clip.joints_mm[:, 0, 2].mean()) < 0.01
    np.testing.assert_allclose(_middle_px(followed), 0, atol=0.01)
    np.testing.assert_allclose(
        followed.joints_mm - followed.joints_mm[:, :1], clip.joints_mm - clip.joints_mm[:, :1], atol=1e-3
    )


def test_a_close_up_that_is_centred_stays_a_close_up() -> None:
    clip = motion(9, joints_mm=dancer(9, (250, 500, 1100)).astype(np.float32))
    feet = [NAMES.index(name) for name in ("l_foot", "r_foot", "l_ankle", "r_ankle")]
    assert (project(clip.joints_mm, SIZE_PX)[:, feet, 1] > SIZE_PX[1]).all()
    centred = rooted(clip, "centre")
    places = project(centred.joints_mm, SIZE_PX)
    assert (places[:, feet, 1] > SIZE_PX[1]).all()
    assert _middle_px(clip)[0] > 250
    trunk = places[:, [NAMES.index(name) for name in ("neck", "head", "spine2", "l_shoulder", "r_shoulder")]]
    assert ((trunk > np.array(SIZE_PX) * 0.15) & (trunk < np.array(SIZE_PX) * 0.8)).all()


@pytest.mark.parametrize("how", ["centre", "follow"])
def test_smpl_moves_with_the_joints(how: Root) -> None:
    moved = rooted(with_smpl(), how)
    np.testing.assert_allclose(smpl_joints_mm(moved.smpl_pose, moved.smpl_transl), moved.joints_mm, atol=0.1)


def turned(yaw: np.ndarray) -> Motion:
    """A dancer who faces the camera at 0 and away at pi."""
    frames = len(yaw)
    joints_mm = dancer(frames, (0, 0, 0), yaw=0.0) @ turn(1, yaw).swapaxes(-1, -2) + (0, 100, 3000)
    return motion(frames, joints_mm=joints_mm.astype(np.float32))


def test_an_ordinary_motion_gets_no_remark() -> None:
    clip = motion(60, joints_mm=dancer(60, (0, 0, 2800)).astype(np.float32))
    assert framing_remarks(clip) == []
    assert framing_remarks(clip, (0.3, 0.1, 0.7, 0.9)) == []


def test_facing_away_is_said_with_its_times() -> None:
    yaw = np.zeros(120)
    yaw[45:66] = np.pi - 0.3
    yaw[100:] = np.pi / 2  # in profile
    (remark,) = framing_remarks(turned(yaw))
    assert remark.startswith("the driver faces away in 18% of the frames (1.5 to 2.2 s): ")


def test_leaving_the_picture_is_said_with_the_parts_and_the_times() -> None:
    joints_mm = dancer(100, (0, 0, 2800)).astype(np.float32)
    joints_mm[30:40, [NAMES.index("l_hand"), NAMES.index("l_wrist")], 0] += 3000
    joints_mm[43:50, NAMES.index("l_hand"), 0] += 3000  # so soon after that it's the same stretch
    joints_mm[90:, NAMES.index("l_hand"), 2] = -5
    (remark,) = framing_remarks(motion(100, Fraction(25), joints_mm=joints_mm))
    assert remark.startswith("the driver's hands are out of the picture in 27% of the frames (1.2 to 2.0 s, 3.6 to 4.0")


def test_a_close_up_says_that_the_legs_are_a_guess() -> None:
    clip = motion(9, joints_mm=dancer(9, (0, 450, 1100)).astype(np.float32))
    (remark,) = framing_remarks(clip)
    assert remark == (
        "the driver's hands, legs and feet are out of the picture in every frame: what they do there is a guess"
    )


@pytest.mark.parametrize(
    ("depth_mm", "box", "size_px", "said"),
    [
        (2400, (0.3, 0.05, 0.7, 0.95), None, None),
        (6800, (0.3, 0.05, 0.7, 0.95), None, "farther"),
        (2400, (0.4, 0.4, 0.6, 0.7), None, "nearer"),
        (2400, (0.3, 0.1, 0.9, 1.0), None, None),
        (2400, (0.4, 0.7, 0.6, 1.0), None, None),  # cut off below: the whole figure may be as tall
        (6800, (0.3, 0.1, 0.9, 1.0), None, "farther"),
        (4400, (0.4, 0.1, 0.6, 0.45), (512, 512), None),
        (4400, (0.4, 0.1, 0.6, 0.45), (1280, 720), "nearer"),  # the same camera sees less height
    ],
)
def test_a_difference_in_scale_is_said(
    depth_mm: float, box: tuple[float, float, float, float], size_px: tuple[int, int] | None, said: str | None
) -> None:
    clip = motion(9, joints_mm=dancer(9, (0, 0, depth_mm)).astype(np.float32))
    remarks = [line for line in framing_remarks(clip, box, size_px) if "times" in line]
    assert [f"the character {said} " in line for line in remarks] == ([] if said is None else [True])


def test_the_remark_on_scale_names_both_heights() -> None:
    size_px = (1000, 1000)
    clip = motion(9, joints_mm=dancer(9, (0, 0, 5000)).astype(np.float32), size_px=size_px)
    (remark,) = framing_remarks(clip, (0.2, 0.05, 0.8, 0.95))
    share = 1.1 * (NEUTRAL_LENGTHS_MM[[1, 4, 7, 10, 3, 6, 9, 12, 15]].sum() / 5000) / (2 * np.tan(np.radians(27.5)))
    assert f"the driver is {share / 0.9:.1f} times as tall in the picture" in remark
    assert f"{share:.0%} of the height against 90%" in remark


def test_a_resampled_clip_of_one_frame_is_framed_too() -> None:
    clip = motion(1)
    for how in ("centre", "follow"):
        assert len(rooted(clip, how)) == 1
    assert framing_remarks(replace(clip, rate=Fraction(1, 3)), (0.1, 0.1, 0.9, 0.9)) == []
