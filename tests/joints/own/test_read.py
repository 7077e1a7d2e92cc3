"""Whatever people have becomes joints before a camera; what was assumed is said, and nonsense is refused."""

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.files import load_motion, save_motion
from mtvcraft_cli.joints.own.read import OwnMotion, read_own
from mtvcraft_cli.joints.own.write import write_motion
from mtvcraft_cli.joints.skeleton import NAMES, mirror_order, project
from tests.joints.own.makers import FRONT, corpus, degrees_between, world
from tests.joints.people import dancer, motion, shared


def _save(path: Path, content: Any) -> Path:
    """As what the ending says."""
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        np.save(path, content)
    return path


def _sample(frames: int, name: str, pose: Any) -> dict[str, Any]:
    """One clip as the reference's released sample has it."""
    return {
        "video_path": f"data/videos/{name}.mp4",
        "video_length": frames,
        "video_width": 604,
        "video_height": 1080,
        "pose": pose,
    }


def _script(joints_mm: np.ndarray, missing: tuple[int, ...] = (), people: int = 1) -> dict[str, Any]:
    """One clip as the reference's pose script writes it: tensors, frame by frame, person by person."""
    frames = [
        [torch.from_numpy(np.repeat(frame[None], 0 if number in missing else people, axis=0).astype(np.float32))]
        for number, frame in enumerate(joints_mm)
    ]
    return _sample(len(joints_mm) + 2, "dance", {"joints3d_nonparam": frames, "vertices3d": None})


def test_our_own_file_is_read_as_ever(tmp_path: Path) -> None:
    saved = motion(9, Fraction(25))
    save_motion(tmp_path / "renamed.bin", saved)
    read, said = read_own(tmp_path / "renamed.bin")
    np.testing.assert_array_equal(read.joints_mm, saved.joints_mm)
    assert (read.rate, said) == (25, ())
    assert read_own(tmp_path / "renamed.bin", OwnMotion(fps=Fraction(50)))[0].rate == 50


def test_a_list_of_clips_as_released_is_read_by_number_and_name(tmp_path: Path) -> None:
    first, second = dancer(12).astype(np.float32), dancer(20, yaw=-0.5).astype(np.float32)
    path = _save(tmp_path / "sampled_data.pkl", [_sample(12, "left", first), _sample(20, "right", second)])
    for clip, joints_mm in [("1", first), ("2", second), ("left", first), ("right.mp4", second)]:
        read, said = read_own(path, OwnMotion(clip=clip))
        np.testing.assert_array_equal(read.joints_mm, joints_mm)
        assert read.size_px == (604, 1080)
        assert "has no frame rate: took 30 frames a second" in said[0]
    with pytest.raises(MtvcraftError, match=r"holds 2 clips") as caught:
        read_own(path)
    assert caught.value.hint == "choose one with `--clip`: 1 `left.mp4`, 2 `right.mp4`"
    with pytest.raises(MtvcraftError, match=r"no clip `middle`"):
        read_own(path, OwnMotion(clip="middle"))


def test_one_clip_needs_no_choice(tmp_path: Path) -> None:
    joints_mm = dancer(12).astype(np.float32)
    poses = {"list": [_sample(12, "a", joints_mm)], "dict": _sample(12, "a", joints_mm)}
    poses |= {"frames": _sample(12, "a", list(joints_mm)), "tensor": _sample(12, "a", torch.from_numpy(joints_mm))}
    for name, content in poses.items():
        read, _ = read_own(_save(tmp_path / f"{name}.pkl", content), OwnMotion(fps=Fraction(30000, 1001)))
        np.testing.assert_array_equal(read.joints_mm, joints_mm)
        assert read.rate == Fraction(30000, 1001)


def test_the_pose_scripts_layout_is_read_and_gaps_are_filled(tmp_path: Path) -> None:
    joints_mm = dancer(30).astype(np.float32)
    path = _save(tmp_path / "dance.pkl", _script(joints_mm, missing=(4, 5), people=2))
    read, said = read_own(path)
    assert read.observed.tolist() == [frame not in (4, 5) for frame in range(30)]
    np.testing.assert_array_equal(read.joints_mm[read.observed], joints_mm[read.observed])
    np.testing.assert_allclose(read.joints_mm[4], joints_mm[3] + (joints_mm[6] - joints_mm[3]) / 3, atol=0.01)
    assert not read.confidence[4].any()
    assert "`dance.pkl` has up to 2 people in a frame: took the first of each" in said
    with pytest.raises(MtvcraftError, match="no person in frames 2 to 25"):
        read_own(_save(tmp_path / "gap.pkl", _script(joints_mm, missing=tuple(range(2, 26)))))
    joints_mm[7, 3] = np.nan
    with pytest.raises(MtvcraftError, match="NaN or infinite joints in frame 7"):
        read_own(_save(tmp_path / "nan.pkl", _script(joints_mm)))


@pytest.mark.parametrize(
    ("ending", "as_content"), [(".npy", lambda a: a), (".npz", lambda a: {"anything": a}), (".pkl", lambda a: a)]
)
def test_camera_space_is_left_alone(ending: str, as_content: Any, tmp_path: Path) -> None:
    joints_mm = dancer(12)
    read, said = read_own(_save(tmp_path / f"mine{ending}", as_content(joints_mm)))
    np.testing.assert_array_equal(read.joints_mm, joints_mm.astype(np.float32))
    assert len(said) == 1
    _, said = read_own(tmp_path / f"mine{ending}", OwnMotion(camera="front"))
    assert f"`mine{ending}` is in camera space already: `--camera` doesn't count" in said


def test_estimated_dances_are_left_alone() -> None:
    for number in (1, 2, 3):
        path = shared(f"motion/pairs_{number}.npz")
        read, said = read_own(path)
        with np.load(path) as file:
            np.testing.assert_array_equal(read.joints_mm, file["joints"])
            assert read.rate == Fraction(float(file["fps"])).limit_denominator(1001)
        assert said == ()


@pytest.mark.parametrize(
    ("turn", "scale", "words"),
    [
        (np.eye(3), 1, ["metres", "took y of", "pointing up"]),
        (np.eye(3), 100, ["centimetres"]),
        (np.eye(3), 100 / 2.54, ["inches"]),
        (np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), 1, ["metres", "took z of", "pointing up"]),
        (np.diag([-1.0, 1, 1]), 1, ["left-handed", "metres"]),
        (np.diag([1.0, 1, -1]), 100, ["left-handed", "centimetres"]),
    ],
    ids=["y up", "cm", "inches", "z up", "x mirrored", "z mirrored"],
)
@pytest.mark.parametrize("clip", [1, 12, 25])
def test_a_world_of_any_unit_axes_and_hand_is_seen_the_same(
    turn: np.ndarray, scale: float, words: list[str], clip: int, tmp_path: Path
) -> None:
    joints = corpus(clip)
    plain, _ = read_own(_save(tmp_path / "plain.npy", joints))
    read, said = read_own(_save(tmp_path / "theirs.npy", joints @ turn.T * scale))
    for word in words:
        assert word in " ".join(said)
    assert np.abs(read.joints_mm - plain.joints_mm).max() < 0.1  # each comes to face the camera
    assert degrees_between(read.joints_mm - read.joints_mm[:, :1], plain.joints_mm - plain.joints_mm[:, :1]).max() < 0.1


def test_sides_of_the_whole_corpus_are_right() -> None:
    """No clip of real motion, lying and tumbling ones included, is taken for its mirror image."""
    from mtvcraft_cli.joints.own.straight import _is_mirrored

    with np.load(shared("motion/cmu_test.npz")) as file:
        clips = [
            file["joints"][start : start + length]
            for start, length in zip(file["clip_start"], file["clip_length"], strict=True)
        ]
    for joints in clips:
        assert not _is_mirrored(joints.astype(np.float64))
        assert _is_mirrored(joints.astype(np.float64) * (-1, 1, 1))


def test_a_world_gets_a_camera_that_sees_the_front(tmp_path: Path) -> None:
    joints = corpus(12)
    read, said = read_own(_save(tmp_path / "world.npy", joints), OwnMotion(size_px=(800, 600)))
    assert read.size_px == (800, 600)
    assert "so that it faces the camera halfway through" in said[-1]
    middle = read.joints_mm[len(read) // 2]
    assert middle[NAMES.index("l_hip"), 0] > middle[NAMES.index("r_hip"), 0]  # who faces us has the left at the right
    toward = (middle[[10, 11]] - middle[[7, 8]]).mean(axis=0)
    assert toward[2] < -50  # feet point at the camera
    assert (read.joints_mm[..., 2] > 300).all()
    places = project(read.joints_mm, read.size_px, read.fov_deg)
    assert ((places >= -0.01) & (places <= np.array(read.size_px) + 0.01)).all()


def test_the_front_camera_doesnt_follow_the_heading(tmp_path: Path) -> None:
    around = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    joints = world(20) @ around.T  # faces +x now
    path = _save(tmp_path / "world.npy", joints)
    front, said = read_own(path, OwnMotion(camera="front"))
    assert "from the world's front" in said[-1]
    toes = (front.joints_mm[:, 10] - front.joints_mm[:, 7]).mean(axis=0)
    assert toes[0] > 60 > abs(toes[2])  # seen from the side, looking right
    auto, _ = read_own(path)
    assert (auto.joints_mm[10, 10] - auto.joints_mm[10, 7])[2] < -80


def test_a_body_in_a_cameras_axes_but_about_the_origin_is_moved_away(tmp_path: Path) -> None:
    joints_mm = dancer(20, (0, 0, 0))
    read, said = read_own(_save(tmp_path / "relative.npy", joints_mm))
    moved = read.joints_mm - joints_mm
    assert np.abs(moved - moved[0, 0]).max() < 0.01
    assert moved[0, 0, 2] >= 1700
    assert "from the side that the file shows" in said[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yaw: 3", "no setting `yaw`"),
        ("yaw_deg: left", "a `yaw_deg` of 'left'"),
        ("view: side", "a `view` of 'side'"),
        ("fov_deg: 200", "a `fov_deg` of 200"),
        ("distance_m: -1", "a `distance_m` of -1"),
        ("size_px: [0, 3]", "a `size_px` of"),
        ("position_m: [1, 2]", r"a `position_m` of \[1, 2\]"),
        ("position_m: [1, 2, 3]", "only one of place and direction"),
        ("position_m: [0, 1, 3]\nrotation: [[1, 0, 0], [0, 1, 0], [0, 0, 2]]", "a `rotation` of"),
        ("position_m: [0, 1, 0]\nlook_at_m: [0, 5, 0]", "straight up or down"),
        ("position_m: [0, 1, 0]\nlook_at_m: [0, 1, -3]", "behind the camera in frames 0 to"),
        ("up: w", "a `up` of 'w'"),
        ("[1, 2]", "maps no names"),
        ("a: b: c", "can't be read"),
    ],
)
def test_a_wrong_camera_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    camera = tmp_path / "camera.yaml"
    camera.write_text(text)
    with pytest.raises(MtvcraftError, match=message) as caught:
        read_own(_save(tmp_path / "world.npy", world()), OwnMotion(camera=camera))
    assert caught.value.exit is Exit.INPUT


def test_a_camera_file_places_the_camera(tmp_path: Path) -> None:
    joints = world(8)
    path = _save(tmp_path / "world.npy", joints)
    camera = tmp_path / "camera.yaml"

    def seen(text: str) -> Any:
        camera.write_text(text)
        return read_own(path, OwnMotion(camera=camera))[0]

    placed = seen("position_m: [0.5, 1.0, 4.0]\nlook_at_m: [0.5, 1.0, 0.0]\nfov_deg: 40\nsize_px: [640, 480]")
    np.testing.assert_allclose(placed.joints_mm, (joints - (0.5, 1, 4)) * FRONT * 1000, atol=0.1)
    assert (placed.fov_deg, placed.size_px) == (40, (640, 480))
    by_rows = seen("position_m: [0.5, 1, 4]\nrotation: [[1, 0, 0], [0, -1, 0], [0, 0, -1]]")
    np.testing.assert_allclose(by_rows.joints_mm, placed.joints_mm, atol=0.1)
    turned = seen("view: front\npitch_deg: 0\nyaw_deg: 90\ndistance_m: 3\n")
    toes = (turned.joints_mm[:, 10] - turned.joints_mm[:, 7]).mean(axis=0)
    assert toes[0] > 60  # to the right in the picture
    assert turned.joints_mm[:, 0, 2].mean() == pytest.approx(3000, abs=1)
    rolled = seen("view: front\npitch_deg: 0\nroll_deg: 90\n").joints_mm
    assert (rolled[:, 15] - rolled[:, 0])[:, 0].min() > 300  # clockwise: the head is at the right


def test_a_lying_body_asks_which_way_is_up(tmp_path: Path) -> None:
    lying = world() @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]).T
    path = _save(tmp_path / "sleep.npy", lying)
    with pytest.raises(
        MtvcraftError, match=r"nothing tells which way is up in `sleep.npy`: its body stands along x"
    ) as caught:
        read_own(path)
    assert "`up: z`" in caught.value.hint
    camera = tmp_path / "camera.yaml"
    camera.write_text("up: y\nview: front\npitch_deg: 0")
    read, _ = read_own(path, OwnMotion(camera=camera))
    assert degrees_between(read.joints_mm * FRONT, lying).max() < 0.1


def test_twenty_two_joints_get_hands(tmp_path: Path) -> None:
    joints = world(10)
    read, said = read_own(_save(tmp_path / "text.npy", joints[:, :22]))
    plain, _ = read_own(_save(tmp_path / "plain.npy", joints))
    assert "`text.npy` has 22 joints: set the hands as on the neutral body" in said
    assert np.abs(read.joints_mm - plain.joints_mm).max() < 60


def _swapped() -> np.ndarray:
    return dancer(12)[:, list(mirror_order())]


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (np.full((3, 24, 3), np.nan), "NaN or infinite joints in frames 0 to 2", "fill those frames"),
        (np.zeros((3, 24, 3)), "zeros only", "mtvcraft pose"),
        (np.zeros((0, 24, 3)), "no frames", "one frame"),
        (np.ones((3, 24, 3)), "all joints of `a.pkl` lie in one place", "a body"),
        (dancer(3) * 7, "7 times as large", "scale them"),
        (np.ones((3, 17, 3)), r"holds no motion: `poses` \(3, 17, 3\)", "24 joints"),
        (np.array(["a"]), "holds no motion: no arrays of numbers", "24 joints"),
        ("text", "holds no motion", "24 joints"),
        ({"a": dancer(3), "b": dancer(3)}, r"holds no motion: `a` \(3, 24, 3\), `b`", "24 joints"),
        ({"joints": dancer(3), "fps": -3}, "a frame rate of -3", "--drive-fps"),
        ({"joints": dancer(3), "fps": "fast"}, "a frame rate of fast", "--drive-fps"),
        (_swapped(), "left and right are swapped", "swap the left joints"),
        ([], "holds no motion", "24 joints"),
    ],
)
def test_nonsense_is_refused_with_a_way_out(content: Any, message: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match=message) as caught:
        read_own(_save(tmp_path / "a.pkl", content))
    assert hint in caught.value.hint
    assert caught.value.exit is Exit.INPUT


@pytest.mark.parametrize("content", [b"", b"text", b"\x00\x00\x00\x18ftypmp42", b"\x89PNG\r\n"])
def test_what_is_no_motion_is_named_so(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(MtvcraftError, match=r"`a\.pkl` is no motion file") as caught:
        read_own(tmp_path / "a.pkl")
    assert "BVH" in caught.value.hint


def test_a_missing_file_is_a_matter_of_usage(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="there is no file") as caught:
        read_own(tmp_path / "nothing.bvh")
    assert caught.value.exit is Exit.USAGE


@pytest.mark.parametrize("ending", [".joints.npz", ".npz", ".npy", ".bvh"])
def test_what_is_written_is_read_again(ending: str, tmp_path: Path) -> None:
    saved = motion(15, Fraction(25))
    path = tmp_path / f"out{ending}"
    path.write_text("old")
    write_motion(path, saved)
    read, _ = read_own(path, OwnMotion(fps=Fraction(25)))
    assert np.linalg.norm(read.joints_mm - saved.joints_mm, axis=-1).max() < 1
    assert read.rate == 25
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if "npz" in ending:
        assert load_motion(path)[1] == ()


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match=r"no format of joints ends in `\.fbx`") as caught:
        write_motion(tmp_path / "out.fbx", motion(3))
    assert caught.value.exit is Exit.USAGE
    assert not list(tmp_path.iterdir())
