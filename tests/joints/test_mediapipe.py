"""MediaPipe as a backend: what it needs, and what it finds in real dances where those are at hand."""

import builtins
import importlib
import os
import subprocess
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Estimate, PoseBackend, Scene, choose_backend
from mtvcraft_cli.joints.gaps import fill
from mtvcraft_cli.joints.lift import Landmarks, lift
from mtvcraft_cli.joints.mediapipe import MediaPipePose
from mtvcraft_cli.joints.people import choose_person, people_rows
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS, project
from mtvcraft_cli.quiet import silence
from mtvcraft_cli.train.world.landmarks import dances, film_person, landmarks
from mtvcraft_cli.video.read import open_clip, read_ahead
from tests.joints.people import crossing, shared

SIZE_PX = (1024, 1024)
DRIVE = Path(__file__).parents[2] / "assets" / "drive.mp4"


def _without(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    real = builtins.__import__

    def fails(name: str, *others: Any, **named: Any) -> Any:
        if name == "mediapipe":
            raise error
        return real(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", fails)


@pytest.mark.parametrize("name", ["auto", "mediapipe"])
def test_without_any_backend_the_line_to_install_one_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _without(monkeypatch, ModuleNotFoundError("No module named 'mediapipe'", name="mediapipe"))
    with pytest.raises(MtvcraftError, match="MediaPipe is not installed") as caught:
        choose_backend(name)
    assert caught.value.hint == 'pip install "mtvcraft[mediapipe]"'
    assert caught.value.exit is Exit.WEIGHTS


@pytest.mark.parametrize("library", ["libGL.so.1", "libEGL.so.1", "libGLESv2.so.2"])
def test_a_missing_system_library_is_named_with_the_packages_to_install(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without(monkeypatch, ImportError(f"{library}: cannot open shared object file: No such file or directory"))
    with pytest.raises(MtvcraftError, match=library) as caught:
        choose_backend("mediapipe")
    assert "apt-get install libgl1 libegl1" in caught.value.hint
    assert caught.value.exit is Exit.WEIGHTS


def test_an_unknown_backend_is_a_usage_error() -> None:
    with pytest.raises(MtvcraftError, match="no pose backend `openpose`") as caught:
        choose_backend("openpose")
    assert "auto, nlf, mediapipe" in caught.value.hint
    assert caught.value.exit is Exit.USAGE


def test_native_log_lines_are_silenced_and_the_stream_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    with silence():
        os.write(2, b"W0000 native\n")
    os.write(2, b"ours\n")
    assert capfd.readouterr().err == "ours\n"


@pytest.fixture(scope="module")
def pose() -> MediaPipePose:
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed")
    return MediaPipePose()


def _frames(name: str, start: int, stop: int) -> np.ndarray:
    batches = open_clip(shared(f"media/{name}")).batches(size=8)
    return np.concatenate(list(islice(batches, -(-stop // 8))))[start:stop]


def _only(scene: Scene) -> Estimate:
    assert len(scene.people) == 1
    return scene.people[0].estimate


def test_a_picture_without_a_person_finds_nobody(pose: MediaPipePose) -> None:
    assert isinstance(pose, PoseBackend)
    scene = pose.see([np.full((3, 120, 160, 3), 200, np.uint8)], (160, 120), Fraction(30))
    assert (scene.frames, scene.people, scene.cuts) == (3, (), ())
    with pytest.raises(MtvcraftError, match="no person in any of the 3 frames"):
        choose_person(scene, "largest", Fraction(30))


def test_the_drawn_dancer_of_the_assets_is_found_standing_before_the_camera(pose: MediaPipePose) -> None:
    clip = open_clip(DRIVE)
    seen = _only(pose.see(read_ahead(clip.batches()), clip.info.size_px, clip.info.rate))
    assert len(seen.found) == clip.info.frames
    assert seen.found.all()
    assert seen.confidence.mean() > 0.8
    joints_mm = seen.joints_mm
    places = project(joints_mm, clip.info.size_px)
    assert ((places > 0) & (places < clip.info.size_px)).all(axis=-1).mean() > 0.99
    head, pelvis, feet = joints_mm[:, 15], joints_mm[:, 0], joints_mm[:, 10:12].mean(axis=1)
    assert (head[:, 1] < pelvis[:, 1] - 300).all()
    assert (pelvis[:, 1] < feet[:, 1] - 600).all()
    assert np.median(joints_mm[:, 16, 0] - joints_mm[:, 17, 0]) > 150  # it faces the camera most of the time
    bones_mm = np.linalg.norm(joints_mm[:, 1:] - joints_mm[:, list(PARENTS[1:])], axis=-1).mean(axis=0)
    np.testing.assert_allclose(bones_mm, NEUTRAL_LENGTHS_MM[1:], rtol=0.2)


def test_people_whose_joints_are_known_are_found_where_they_are(pose: MediaPipePose) -> None:
    errors = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shot = film_person(next(dances(1, 12, rng)), rng, (320, 320))
        seen = _only(pose.see([shot.frames], (320, 320), Fraction(15)))
        assert seen.found.all()
        about = (joints_mm - joints_mm[:, :1] for joints_mm in (seen.joints_mm, shot.joints_mm))
        root_relative = np.linalg.norm(np.subtract(*about), axis=-1).mean()
        errors.append((root_relative, np.linalg.norm(seen.joints_mm - shot.joints_mm, axis=-1).mean()))
    root_relative, absolute = np.mean(errors, axis=0)
    assert root_relative < 70
    assert absolute < 120


def test_one_person_gets_what_mediapipes_own_pose_gives_bit_by_bit(pose: MediaPipePose) -> None:
    rng = np.random.default_rng(7)
    shot = film_person(next(dances(1, 20, rng)), rng, (256, 256))
    with silence(), pose.mediapipe.solutions.pose.Pose(model_complexity=1, smooth_landmarks=False) as own:
        own.process(np.zeros_like(shot.frames[0]))
        image, world, visibility = (each.astype(np.float64) for each in landmarks(own, shot.frames))
    expected = lift(Landmarks(world * 1000, image[..., :2] * 256, visibility), (256, 256), Fraction(15))
    scene = pose.see([shot.frames], (256, 256), Fraction(15))
    np.testing.assert_allclose(_only(scene).joints_mm, expected.joints_mm, atol=0.02)  # landmarks() rounds to 32 bits
    np.testing.assert_allclose(_only(scene).confidence, expected.confidence, atol=1e-6)
    boxes_px = scene.people[0].boxes_px
    places = project(shot.joints_mm, (256, 256))
    low, high = boxes_px[:, None, :2], boxes_px[:, None, :2] + boxes_px[:, None, 2:]
    assert ((places > low - 5) & (places < high + 5)).all(axis=-1).mean() > 0.97


@pytest.fixture(scope="module")
def crossed(pose: MediaPipePose) -> tuple[Scene, np.ndarray]:
    frames, true_mm = crossing(3, 60)
    return pose.see([frames], (512, 512), Fraction(25)), true_mm


def test_two_people_who_cross_keep_their_identity(crossed: tuple[Scene, np.ndarray]) -> None:
    scene, true_mm = crossed
    assert len(scene.people) == 2
    near_starts_left, far_starts_right = scene.people  # numbered from left to right
    for own, person in enumerate((near_starts_left, far_starts_right)):
        assert person.estimate.found.mean() > 0.75
        joints_mm = fill(person.estimate, Fraction(25)).joints_mm
        apart_mm = np.linalg.norm(joints_mm - true_mm, axis=-1).mean(axis=-1)
        assert (apart_mm.argmin(axis=0) == own).mean() >= 0.95
        found = person.estimate.found
        assert np.median(apart_mm[own][found]) < 200


def test_either_of_two_people_can_be_chosen(crossed: tuple[Scene, np.ndarray]) -> None:
    scene, _ = crossed
    rate = Fraction(25)
    assert choose_person(scene, "largest", rate)[0] == 1  # the nearer one
    assert choose_person(scene, "2", rate)[1] is scene.people[1]
    assert {choose_person(scene, side, rate)[0] for side in ("left", "right")} == {1, 2}
    rows = people_rows(scene, (512, 512), rate)
    assert [row.start_s for row in rows] == [0, 0]
    assert rows[0].height > rows[1].height > 0.3


def test_a_crowd_is_found_in_a_wide_picture_though_the_detector_sees_few_at_a_time(pose: MediaPipePose) -> None:
    rng = np.random.default_rng(5)
    shots = [film_person(next(dances(1, 1, rng)), rng, (240, 360)) for _ in range(5)]
    crowd = np.concatenate([shot.frames for shot in shots], axis=2)
    scene = pose.see([crowd], (1200, 360), Fraction(30))
    middles = [float(person.boxes_px[0, 0] + person.boxes_px[0, 2] / 2) // 240 for person in scene.people]
    assert middles == [0, 1, 2, 3, 4]


def test_people_do_not_live_on_over_a_cut_unless_there_is_one_on_each_side(pose: MediaPipePose) -> None:
    rng = np.random.default_rng(1)
    shots = [film_person(next(dances(1, 10, rng)), rng, (256, 256)).frames for _ in range(2)]
    two, _ = crossing(3, 60, 256)
    alone = pose.see([np.concatenate([shots[0], shots[1]])], (256, 256), Fraction(30))
    assert alone.cuts == (10,)
    assert _only(alone).found.all()
    joined = pose.see([np.concatenate([shots[0], two[:10]])], (256, 256), Fraction(30))
    assert joined.cuts == (10,)
    assert [np.flatnonzero(person.estimate.found)[0] for person in joined.people] == [0, 10, 10]


def test_a_clip_without_frames_is_a_mistake_of_ours(pose: MediaPipePose) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        pose.see([], (160, 120), Fraction(30))


def test_it_finds_what_the_recorded_landmarks_say(pose: MediaPipePose) -> None:
    clip = _frames("drive_2.mp4", 0, 24)
    seen = _only(pose.see([clip[:10], clip[10:]], SIZE_PX, Fraction(15)))
    true = np.load(shared("motion/pairs_2.npz"))["joints"][:24]
    assert seen.found.all()
    assert np.linalg.norm(seen.joints_mm - true, axis=-1).mean() < 130
    assert (seen.joints_mm[:, 16, 0] > seen.joints_mm[:, 17, 0]).all()  # she faces the camera: left is right


def test_two_clips_do_not_touch_each_other_and_runs_agree_bit_by_bit(pose: MediaPipePose) -> None:
    clip = _frames("drive_2.mp4", 8, 20)
    first = _only(pose.see([clip], SIZE_PX, Fraction(15)))
    pose.see([_frames("drive_3.mp4", 0, 8)], SIZE_PX, Fraction(43))
    again = _only(pose.see([clip[:1], clip[1:]], SIZE_PX, Fraction(15)))
    np.testing.assert_array_equal(first.joints_mm, again.joints_mm)
    np.testing.assert_array_equal(first.confidence, again.confidence)


def test_one_frame_is_a_motion(pose: MediaPipePose) -> None:
    seen = _only(pose.see([_frames("drive_2.mp4", 50, 51)], SIZE_PX, Fraction(30)))
    assert fill(seen, Fraction(30)).joints_mm.shape == (1, 24, 3)


def test_a_mirrored_picture_gives_about_the_mirrored_body(pose: MediaPipePose) -> None:
    clip = _frames("drive_3.mp4", 0, 8)
    straight, mirrored = (
        _only(pose.see([np.ascontiguousarray(frames)], SIZE_PX, Fraction(43))) for frames in (clip, clip[:, :, ::-1])
    )
    left, right = _wrists(straight), _wrists(mirrored)
    np.testing.assert_allclose(left, right[::-1] * (-1, 1, 1), atol=120)


def _wrists(seen: Estimate) -> np.ndarray:
    return (seen.joints_mm[:, [20, 21]] - seen.joints_mm[:, :1]).mean(axis=0)


def test_progress_counts_every_frame(pose: MediaPipePose) -> None:
    told: list[tuple[str, int | None, int]] = []

    def watch(items: Any, stage: str, total: int | None = None) -> Any:
        for item in items:
            told.append((stage, total, len(item)))
            yield item

    blank = np.zeros((5, 64, 64, 3), np.uint8)
    pose.see([blank[:3], blank[3:]], (64, 64), Fraction(30), watch, total=5)
    assert told == [("pose", 5, 3), ("pose", 5, 2)]


def test_a_process_that_uses_it_writes_nothing_and_ends_well() -> None:
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed")
    script = (
        "from fractions import Fraction; import numpy as np\n"
        "from mtvcraft_cli.joints.backend import choose_backend\n"
        "frames = np.full((2, 64, 64, 3), 90, np.uint8)\n"
        "for _ in range(2):\n"
        "    choose_backend('mediapipe').see([frames], (64, 64), Fraction(30))\n"
    )
    root = Path(importlib.import_module("mtvcraft_cli").__file__ or "").parents[1]
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
