"""Joints come back from disk as they went, and a wrong file is refused in words."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.files import load_motion, resample, save_motion
from tests.joints.people import dancer, motion


def _smpl(frames: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    widths = {"smpl_pose": 72, "smpl_betas": 10, "smpl_transl": 3}
    return {name: draw.normal(size=(frames, width)).astype(np.float32) for name, width in widths.items()}


@pytest.mark.parametrize("smpl", [{}, _smpl(7)])
def test_a_motion_comes_back_bit_by_bit(tmp_path: Path, smpl: dict[str, np.ndarray]) -> None:
    path = tmp_path / "drive.joints.npz"
    saved = motion(7, Fraction(30000, 1001), meta={"source": "drive.mp4", "rule": "größte Person"}, **smpl)
    save_motion(path, saved)
    loaded, assumed = load_motion(path)
    assert assumed == ()
    for name in ("joints_mm", "confidence", "observed", *smpl):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    assert (loaded.rate, loaded.size_px, loaded.fov_deg) == (saved.rate, saved.size_px, saved.fov_deg)
    assert loaded.meta == {"format": 1, **saved.meta}
    assert [path.name for path in tmp_path.iterdir()] == ["drive.joints.npz"]


def test_the_file_has_the_documented_fields_and_no_pickles(tmp_path: Path) -> None:
    path = tmp_path / "drive.joints.npz"
    save_motion(path, motion(3))
    with np.load(path, allow_pickle=False) as file:
        kinds = {name: (file[name].dtype.kind, file[name].shape) for name in file.files}
    assert kinds.pop("meta") == ("U", ())
    assert kinds == {
        "joints_mm": ("f", (3, 24, 3)),
        "confidence": ("f", (3, 24)),
        "observed": ("b", (3,)),
        "fps": ("f", ()),
        "fps_num": ("i", ()),
        "fps_den": ("i", ()),
        "size_px": ("i", (2,)),
        "fov_deg": ("f", ()),
    }


def test_the_same_motion_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_motion(tmp_path / name, motion(3))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_plain_joints_are_taken_and_what_was_assumed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "mine.npy"
    np.save(path, dancer(5))
    loaded, assumed = load_motion(path)
    assert loaded.joints_mm.dtype == np.float32
    assert loaded.rate == 30
    assert loaded.observed.all()
    assert "`mine.npy` has no frame rate: took 30 frames a second" in assumed
    assert len(assumed) == 5


def test_a_rate_without_its_fraction_is_made_exact(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, joints_mm=dancer(5), fps=29.97002997)
    assert load_motion(path)[0].rate == Fraction(30000, 1001)


def _broken(**changes: object) -> dict[str, object]:
    return {"joints_mm": dancer(12).astype(np.float32), "fps": 30.0, **changes}


def _with_nan() -> np.ndarray:
    joints_mm = dancer(12).astype(np.float32)
    joints_mm[[3, 4, 9], 5] = np.nan
    return joints_mm


@pytest.mark.parametrize(
    ("fields", "message", "hint"),
    [
        (_broken(joints_mm=_with_nan()), r"NaN or infinite joints in frames 3 to 4, 9", "fill those frames"),
        (_broken(joints_mm=np.full((1, 24, 3), np.inf)), r"infinite joints in frame 0", "fill"),
        (
            _broken(joints_mm=dancer(3) / 1000),
            r"0\.001 times as large as a grown person",
            "metres: multiply them by 1000",
        ),
        (_broken(joints_mm=dancer(3) * 30), r"30 times as large", "not millimetres"),
        (_broken(joints_mm=np.zeros((3, 24, 3))), r"zeros only", "mtvcraft pose"),
        (_broken(joints_mm=dancer(3, (0, 0, -2500))), r"not in front of the camera", "z away"),
        (_broken(joints_mm=np.ones((3, 22, 3))), r"shape \(3, 22, 3\)", "24 joints"),
        (_broken(joints_mm=np.ones((0, 24, 3))), r"shape \(0, 24, 3\)", "24 joints"),
        (_broken(joints_mm=np.full((3, 24, 3), "a")), r"<U1", "24 joints"),
        (_broken(fps=0.0), r"a frame rate of 0", "anew"),
        (_broken(fps_num=-30, fps_den=1), r"a frame rate of -30", "anew"),
        (_broken(fps_num=30, fps_den=0), r"a frame rate of 0", "anew"),
        (_broken(fps=float("nan")), r"`fps` with values that are NaN", "anew"),
        (_broken(observed=np.ones(5, bool)), r"`observed` of bool \(5,\)", "anew"),
        (_broken(size_px=np.array([0, 10])), r"a picture of 0 x 10 pixels", "anew"),
        (_broken(smpl_pose=np.ones((12, 3))), r"`smpl_pose` of float64 \(12, 3\)", "anew"),
        (_broken(meta="{"), r"`meta` that is not JSON", "anew"),
        ({"pose": np.ones(3)}, r"no `joints_mm`, only `pose`", "anew"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, fields: dict[str, object], message: str, hint: str) -> None:
    path = tmp_path / "drive.joints.npz"
    np.savez(path, **fields)  # type: ignore[arg-type]
    with pytest.raises(MtvcraftError, match=message) as caught:
        load_motion(path)
    assert hint in caught.value.hint
    assert caught.value.exit is Exit.INPUT


@pytest.mark.parametrize("content", [b"", b"not numpy", b"PK\x03\x04 cut", b"\x93NUMPY\x01\x00"])
def test_what_is_no_numpy_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "drive.joints.npz"
    path.write_bytes(content)
    with pytest.raises(MtvcraftError, match=r"`drive.joints.npz` can't be read as joints"):
        load_motion(path)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(MtvcraftError, match="can't be read as joints"):
        load_motion(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="can't be read"):
        load_motion(tmp_path / "nothing.npz")


def test_resampling_keeps_frames_that_fall_together_bit_by_bit() -> None:
    clip = motion(21, Fraction(30), **_smpl(21))
    slow = resample(clip, Fraction(15), 11)
    np.testing.assert_array_equal(slow.joints_mm, clip.joints_mm[::2])
    np.testing.assert_array_equal(slow.smpl_pose, clip.smpl_pose[::2])
    back = resample(slow, Fraction(30), 21)
    np.testing.assert_array_equal(back.joints_mm[::2], clip.joints_mm[::2])
    assert back.rate == 30


def test_resampling_goes_by_time_and_holds_the_last_pose() -> None:
    clip = motion(11, Fraction(24))
    clip.joints_mm[:, 0, 0] = np.arange(11)
    moved = resample(clip, Fraction(30000, 1001), 20).joints_mm[:, 0, 0]
    np.testing.assert_allclose(moved, np.minimum(np.arange(20) * 24 * 1001 / 30000, 10), rtol=1e-6)


def test_a_resampled_frame_is_observed_only_between_observed_frames() -> None:
    clip = motion(5, Fraction(10))
    clip.observed[2] = False
    assert resample(clip, Fraction(20), 9).observed.tolist() == [
        True,
        True,
        True,
        False,
        False,
        False,
        True,
        True,
        True,
    ]


def test_resampled_rotations_turn_the_short_way() -> None:
    smpl = _smpl(2)
    smpl["smpl_pose"][:] = 0
    smpl["smpl_pose"][:, 5] = np.radians([170, -170])
    pose = resample(motion(2, Fraction(10), **smpl), Fraction(20), 3).smpl_pose
    assert pose is not None
    assert abs(np.degrees(pose[1, 5])) == pytest.approx(180, abs=0.01)
