"""The small world: its figures, films and dances, and the clip and pictures made with it."""

import re
import subprocess
import sys
import warnings
import wave
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.joints.skeleton import (
    NEUTRAL_LENGTHS_MM,
    NEUTRAL_OFFSETS_MM,
    PARENTS,
    focal_px,
    project,
)
from mtvcraft_cli.train.world.characters import CHARACTERS
from mtvcraft_cli.train.world.dance import MOVES, dance
from mtvcraft_cli.train.world.figure import Figure, Look, Part, dressed, person
from mtvcraft_cli.train.world.kinematics import forward, turns_of
from mtvcraft_cli.train.world.landmarks import dances, film_pairs, film_person, landmarks
from mtvcraft_cli.train.world.place import place
from mtvcraft_cli.train.world.render import FAR_MM, Camera, cast, film
from mtvcraft_cli.train.world.stage import Stage

ASSETS = Path(__file__).parents[2] / "assets"
sys.path.insert(0, str(ASSETS))
import make

LIMBS = (4, 5, 7, 8, 16, 17, 18, 19, 20, 21)


def front(size_px: tuple[int, int] = (128, 128)) -> Camera:
    return make.camera(size_px, 2100, 900, 0)


def clip_frames() -> np.ndarray:
    raw = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", ASSETS / "drive.mp4"]
    raw += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    width, height = make.CLIP_PX
    return np.frombuffer(subprocess.run(raw, capture_output=True, check=True).stdout, np.uint8).reshape(
        -1, height, width, 3
    )


def steps(frames: int = 12) -> np.ndarray:
    return dance(frames, 6.0, np.random.default_rng(3), moves=["step-touch"])


def test_a_dance_keeps_every_bone_and_both_feet_above_the_floor():
    joints = dance(300, 25.0, np.random.default_rng(5), moves=list(MOVES))
    lengths = np.linalg.norm(joints[:, 1:] - joints[:, PARENTS[1:]], axis=-1)
    assert np.abs(lengths - NEUTRAL_LENGTHS_MM[1:]).max() < 1
    assert joints[:, (10, 11), 1].min() > 15


def test_a_dancer_never_jumps_between_moves():
    joints = dance(800, 50.0, np.random.default_rng(5), moves=["spin", "march", "spin", "clap", "arm-wave"])
    assert np.linalg.norm(np.diff(joints, axis=0), axis=-1).max() < 130  # mm in a fiftieth of a second


def test_the_turns_of_a_motion_bring_its_joints_back():
    joints = dance(60, 5.0, np.random.default_rng(2))
    turns = turns_of(joints)
    assert np.abs(np.linalg.det(turns) - 1).max() < 1e-4
    assert np.abs(forward(turns, joints[:, 0], NEUTRAL_OFFSETS_MM) - joints).max() < 0.1


def test_the_same_seed_gives_the_same_film_and_another_seed_another():
    motion = steps(2)
    first, again, other = (film_person(motion, np.random.default_rng(seed), (96, 96)) for seed in (4, 4, 5))
    assert np.array_equal(first.frames, again.frames)
    assert np.array_equal(first.joints_mm, again.joints_mm)
    assert (first.frames != other.frames).mean() > 0.5


@pytest.mark.parametrize("make_figure", [person, *CHARACTERS.values()])
def test_every_limb_joint_lies_inside_the_mask(make_figure):
    shot = film(make_figure(), steps(), front(), Stage())
    spot = project(shot.joints_mm[:, LIMBS], (128, 128)).astype(int)
    inside = shot.masks[np.arange(len(spot))[:, None], spot[..., 1], spot[..., 0]]
    assert inside.mean() > 0.97
    assert shot.masks.mean() < 0.35  # and the mask is no more than a body


def test_a_ball_is_hit_where_geometry_says():
    part = Part(0, (0, 0, 0), (0, 0, 0), (200, 200), Look((1, 1, 1)))
    joints = np.zeros((1, 24, 3), np.float32)
    joints[..., 2] = 2000
    turns = np.broadcast_to(np.eye(3, dtype=np.float32), (1, 24, 3, 3))
    hits = cast((part,), turns, joints, (101, 101), focal_px((101, 101)))
    depth = hits.depth.reshape(101, 101)
    assert abs(depth[50, 50] - 1800) < 0.1
    edge_px = focal_px((101, 101)) * 200 / np.sqrt(2000**2 - 200**2)
    assert (depth < FAR_MM).sum() == pytest.approx(np.pi * edge_px**2, rel=0.03)


def test_a_tapered_capsule_is_the_hull_of_its_balls():
    """Cast once as one part and once as a row of many balls, seen at a slant."""
    look, ends, radii = Look((1, 1, 1)), np.array([(-150.0, -80, -200), (180, 120, 260)]), (90, 30)
    whole = Part(0, tuple(ends[0]), tuple(ends[1]), radii, look, blend_mm=1e-3)
    balls = []
    for share in np.linspace(0, 1, 400):
        at = tuple((1 - share) * ends[0] + share * ends[1])
        radius = (1 - share) * radii[0] + share * radii[1]
        balls.append(Part(0, at, at, (radius, radius), look, blend_mm=1e-3))
    joints = np.zeros((1, 24, 3), np.float32)
    joints[..., 2] = 1500
    turns = np.broadcast_to(np.eye(3, dtype=np.float32), (1, 24, 3, 3))
    one = cast((whole,), turns, joints, (192, 192), focal_px((192, 192))).depth
    many = np.min([cast((ball,), turns, joints, (192, 192), focal_px((192, 192))).depth for ball in balls], axis=0)
    both = (one < FAR_MM) & (many < FAR_MM)
    assert both.sum() > 500
    assert ((one < FAR_MM) != (many < FAR_MM)).sum() <= 0.02 * both.sum()
    assert np.abs(one[both] - many[both]).max() < 4


def test_other_bones_keep_their_lengths_and_stand_on_the_floor():
    figure = person(dressed(np.random.default_rng(8)))
    joints = film(figure, steps(), front((32, 32)), Stage()).joints_mm
    lengths = np.linalg.norm(joints[:, 1:] - joints[:, PARENTS[1:]], axis=-1)
    assert np.abs(lengths - np.linalg.norm(figure.offsets_mm[1:], axis=1)).max() < 1
    floor = 900 - joints[:, (10, 11), 1].max(1)  # the camera stands 900 mm above it
    assert np.abs(floor - figure.sole_mm).max() < 25


def test_people_face_the_camera_with_their_left_side_on_the_right_of_the_picture():
    motion = steps(4)
    draws = [place(motion, np.random.default_rng(seed), upright=True) for seed in range(60)]
    joints = np.stack([draw.joints_mm(motion) for draw in draws])
    left_of = (joints[:, :, 16, 0] > joints[:, :, 17, 0]).mean()
    assert 0.8 < left_of < 1
    assert np.median(joints[:, :, 0, 2]) == pytest.approx(1900, rel=0.1)


def test_a_picture_is_the_same_whether_a_body_is_larger_or_nearer():
    motion = steps(4)
    drawn = place(motion, np.random.default_rng(1), (256, 256))
    seen, scaled = drawn.camera.sees(motion), drawn.joints_mm(motion)
    assert np.allclose(project(seen, (256, 256)), project(scaled, (256, 256)), atol=1e-2)
    assert np.allclose(scaled, drawn.scale * seen, atol=1e-2)


def test_a_figure_may_have_one_part_only_and_be_out_of_sight():
    ball = Figure(NEUTRAL_OFFSETS_MM, (Part(0, (0, 0, 0), (0, 0, 0), (100, 100), Look((1, 0, 0))),))
    shot = film(ball, steps(2) + np.float32([9000, 0, 0]), front((64, 64)), Stage())
    assert not shot.masks.any()


def test_the_demo_clip_has_its_rate_length_and_sound(tmp_path):
    clip = ASSETS / "drive.mp4"
    told = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-i", clip], capture_output=True, text=True).stderr
    assert re.search(r"Video: h264.*yuv420p.*480x640.* 25 fps", told)
    assert len(clip_frames()) == 125
    assert clip.stat().st_size < 1_000_000
    heard = tmp_path / "heard.wav"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", clip, heard], check=True)
    with wave.open(str(heard)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(5, abs=0.1)
        samples = np.frombuffer(file.readframes(-1), np.int16).reshape(-1, file.getnchannels())
    loud = np.abs(samples[: 44100 * 4].astype(float)).reshape(-1, 2205, samples.shape[1]).mean((1, 2))
    assert loud.reshape(-1, 10)[:, 0].min() > 2 * np.median(loud)  # a drum on every beat, twice a second


def test_the_demo_clip_is_what_its_script_makes():
    assert np.abs(clip_frames()[0] - make.dancer(slice(1)).frames[0].astype(float)).mean() < 4


@pytest.mark.parametrize("name", CHARACTERS)
def test_every_character_has_its_picture(name):
    path = ASSETS / f"{name}.png"
    with Image.open(path) as picture:
        kept = np.asarray(picture).astype(float)
    assert kept.shape == (512, 512, 3)
    assert path.stat().st_size < 300_000
    assert np.abs(kept - make.portrait(name)).mean() < 1


@pytest.fixture
def pose():
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe is an extra: `pip install mtvcraft[mediapipe]`")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning)
        with mediapipe.solutions.pose.Pose(model_complexity=1, smooth_landmarks=False) as pose:
            yield pose


def test_mediapipe_finds_the_dancer_in_every_frame_of_the_demo_clip(pose):
    image, _, visibility = landmarks(pose, clip_frames())
    assert np.isfinite(image).all()
    spot = image[..., :2] * make.CLIP_PX
    truth = project(make.dancer_joints(), make.CLIP_PX)
    for landmark, joint in ((11, 16), (12, 17), (15, 20), (16, 21), (25, 4), (26, 5), (27, 7), (28, 8)):
        away = np.linalg.norm(spot[:, landmark] - truth[:, joint], axis=1)
        assert away.mean() < 0.02 * make.CLIP_PX[1], (landmark, joint)
    assert np.median(visibility[:, 11:]) > 0.9


def test_pairs_hold_landmarks_that_lie_on_the_true_joints(pose):
    rng = np.random.default_rng(6)
    pairs = film_pairs(dances(2, 5, rng), rng, (256, 256))
    assert pairs.joints.shape == (10, 24, 3)
    assert list(pairs.clip) == [0] * 5 + [1] * 5
    assert pairs.detected.mean() > 0.8
    spot = pairs.image[pairs.detected][:, (25, 26), :2] * 256
    away = np.linalg.norm(spot - project(pairs.joints[pairs.detected][:, (4, 5)], (256, 256)), axis=-1)
    assert np.median(away) < 256 * 0.03
