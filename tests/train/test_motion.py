"""Motion to learn from: sets of clips, windows of them, and cameras before them."""

from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.skeleton import PARENTS
from mtvcraft_cli.train.motion import MotionSet, draw_window, gather, made_up, read_motion, seen_by_camera


def numbered(*lengths: int) -> MotionSet:
    """Clips whose joints all have the clip's number for x and the frame's for y."""
    clips = []
    for clip, length in enumerate(lengths):
        joints = np.zeros((length, 24, 3), np.float32)
        joints[..., 0], joints[..., 1] = clip + 1, np.arange(length)[:, None]
        clips.append(joints)
    return MotionSet.of(clips)


def test_a_window_is_of_one_clip_and_keeps_its_stride() -> None:
    motion = numbered(60, 40)
    for seed in range(40):
        window = draw_window(motion, np.random.default_rng(seed), frames=9, stride=2, before=20)
        assert window.shape == (10, 24, 3)
        assert len(np.unique(np.abs(window[..., 0]))) == 1
        assert np.unique(np.diff(window[1:, 0, 1])).tolist() == [2]
        assert 0 <= window[1, 0, 1] - window[0, 0, 1] <= 20


def test_half_of_the_windows_begin_their_clip_and_half_are_mirrored() -> None:
    motion = numbered(200)
    drawn = [draw_window(motion, np.random.default_rng(seed), 9, 1, 50) for seed in range(300)]
    begun = np.mean([window[0, 0, 1] == window[1, 0, 1] for window in drawn])
    mirrored = np.mean([window[0, 0, 0] < 0 for window in drawn])
    assert 0.42 < begun < 0.62
    assert 0.42 < mirrored < 0.58


def test_a_clip_that_is_too_short_holds_its_last_pose() -> None:
    window = draw_window(numbered(5), np.random.default_rng(0), frames=9, stride=1, before=0)
    assert window[1:, 0, 1].tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 4]


def test_a_mirror_swaps_left_and_right() -> None:
    dance = made_up(1, seed=0)[0]
    motion = MotionSet.of([dance])
    bones = np.linalg.norm(np.diff(dance[0][[16, 18]], axis=0))
    for seed in range(4):
        window = draw_window(motion, np.random.default_rng(seed), 9, 1, 0)
        assert np.linalg.norm(window[0, 18] - window[0, 16]) == pytest.approx(bones, rel=1e-3)
        left, right = window[1, 16] - window[1, 17], window[1, 1] - window[1, 2]
        assert left @ right > 0, "shoulders and hips agree which side is left"


def test_frequent_kinds_of_motion_are_drawn_less_often_than_they_are_filmed(tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    np.savez(
        path,
        joints=np.zeros((500, 24, 3), np.float32),
        clip_start=[0, 400],
        clip_length=[400, 100],
        clip_category=["walk", "jump"],
    )
    assert read_motion([str(path)]).weight.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert len(read_motion([str(tmp_path)]).start) == 2


def test_files_and_made_up_dances_are_joined(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", joints=np.ones((50, 24, 3), np.float32), clip_start=[0], clip_length=[50])
    both = gather([str(tmp_path / "a.npz")], dances=2, seed=0)
    assert both.length.tolist() == [50, 300, 300]
    assert both.weight.tolist() == pytest.approx([0.8, 0.1, 0.1])
    assert both.joints_mm[0, 0, 0] == 1000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.npz", "there is no motion set"),
        ("text.npz", "is no motion set"),
        ("empty.npz", "is no motion set"),
        ("array.npz", "is no motion set"),
        ("beyond.npz", "don't fit each other"),
        ("still.npz", "don't fit each other"),
    ],
)
def test_what_is_no_motion_set_is_refused(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty.npz").touch()
    with (tmp_path / "array.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    joints = np.zeros((50, 24, 3), np.float32)
    np.savez(tmp_path / "beyond.npz", joints=joints, clip_start=[10], clip_length=[50])
    np.savez(tmp_path / "still.npz", joints=joints, clip_start=[0, 10], clip_length=[10, 0])
    with pytest.raises(MtvcraftError, match=said):
        read_motion([str(tmp_path / name)])


def test_without_files_and_dances_there_is_nothing_to_train_on() -> None:
    with pytest.raises(MtvcraftError, match="no motion to train on"):
        gather([], dances=0, seed=0)


def test_cameras_see_people_ahead_of_them_with_their_bones_alike() -> None:
    dance = made_up(1, seed=1)[0][:20]
    seen = seen_by_camera(dance, np.random.default_rng(3))
    assert (seen[1:, :, 2] > 290).all()
    lengths = [np.linalg.norm(it[:, 1:] - it[:, PARENTS[1:]], axis=-1) for it in (dance, seen)]
    ratio = lengths[1] / lengths[0]
    assert ratio.std() < 1e-3
