"""Any motion and any part of it, through the commands that take one."""

import json
import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.joints.files import Motion, load_motion
from mtvcraft_cli.joints.own.write import write_motion
from mtvcraft_cli.joints.skeleton import mirror_order
from mtvcraft_cli.video.read import open_clip, probe
from tests import tiny
from tests.cli.inputs import picture, save_joints, swaying_joints
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.toy import toy_preset

ASSETS = Path(__file__).parents[2] / "assets"
FRAMES = 24


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with a picture, joints and a toy preset."""
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", FRAMES)
    toy_preset(tmp_path)
    return tmp_path


def swaying(rate: int = 30) -> Motion:
    joints_mm = swaying_joints(FRAMES)
    ones = np.ones(joints_mm.shape[:2], np.float32)
    return Motion(
        joints_mm=joints_mm, confidence=ones, observed=ones[:, 0] > 0, rate=Fraction(rate), size_px=(1024, 1024)
    )


def released_sample(path: Path) -> None:
    """A list of dicts, as the released sample data has it."""
    clip = {
        "pose": swaying_joints(FRAMES),
        "video_path": "data/videos/dance.mp4",
        "video_length": FRAMES,
        "video_width": 1024,
        "video_height": 1024,
    }
    path.write_bytes(pickle.dumps([clip, {**clip, "video_path": "data/videos/jump.mp4"}]))


MOTIONS = {
    "joints.npz": lambda path: write_motion(path, swaying()),
    "array.npy": lambda path: write_motion(path, swaying()),
    "someone.bvh": lambda path: write_motion(path, swaying()),
    "sample.pkl": released_sample,
}


@pytest.mark.parametrize("name", MOTIONS)
def test_every_kind_of_motion_becomes_joints_and_drives(there: Path, name: str) -> None:
    MOTIONS[name](there / name)
    words = ["--clip", "1"] if name.endswith(".pkl") else []
    mtvcraft("pose", name, "-o", "found.joints.npz", *words, cwd=there, check=0)
    found, assumed = load_motion(there / "found.joints.npz")
    assert assumed == ()
    assert len(found) == FRAMES
    apart_mm = np.diff(found.joints_mm, axis=0) - np.diff(swaying_joints(FRAMES), axis=0)
    assert np.abs(apart_mm).max() < 1, "the motion is another"
    mtvcraft("animate", "ref.png", name, "--preset", "toy", "-o", "out.mp4", *words, cwd=there, check=0)
    assert probe(there / "out.mp4").frames == FRAMES


def test_a_motion_becomes_the_same_tokens_as_its_joints(there: Path) -> None:
    released_sample(there / "sample.pkl")
    for name, words in (("sample.pkl", ["--clip", "jump"]), ("drive.npy", [])):
        mtvcraft("tokenize", name, "--preset", "toy", "-o", f"{name}.tokens.npy", *words, cwd=there, check=0)
    assert np.array_equal(np.load(there / "sample.pkl.tokens.npy"), np.load(there / "drive.npy.tokens.npy"))


def test_a_file_with_several_clips_lists_them(there: Path) -> None:
    released_sample(there / "sample.pkl")
    result = mtvcraft("pose", "sample.pkl", cwd=there)
    assert_refused(result, 4, "dance", "jump", "--clip")


class Payload:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize(
    ("command", "nested", "protocol"),
    [(["pose"], False, 2), (["tokenize"], True, 4), (["animate", "ref.png"], True, 5)],
)
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(
    there: Path, command: list[str], nested: bool, protocol: int
) -> None:
    payload: Any = Payload(os.mkdir, str(there / "owned"))
    content = [{"pose": swaying_joints(3), "meta": {"more": [payload]}}] if nested else payload
    (there / "evil.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    assert_refused(mtvcraft(*command, "evil.pkl", cwd=there), 4, "mkdir")
    assert not (there / "owned").exists()


def test_joints_go_out_as_npz_npy_and_bvh_and_come_back_within_a_millimetre(there: Path) -> None:
    for name in ("one.joints.npz", "two.npy", "three.bvh"):
        mtvcraft("pose", "drive.npy", "-o", name, cwd=there, check=0)
        assert "left alone" in mtvcraft("pose", "drive.npy", "-o", name, cwd=there, check=0).stderr
        mtvcraft("pose", name, "-o", f"{name}.joints.npz", cwd=there, check=0)
        found_mm = load_motion(there / f"{name}.joints.npz")[0].joints_mm
        assert np.abs(found_mm - swaying_joints(FRAMES)).max() < 1


def test_a_part_of_a_motion_is_cut_by_time(there: Path) -> None:
    mtvcraft("pose", "drive.npy", "-o", "part.npy", "--start", "0.2", "--end", "00:00:00:15", cwd=there, check=0)
    assert np.array_equal(np.load(there / "part.npy"), swaying_joints(FRAMES)[6:15])
    refused = mtvcraft("pose", "drive.npy", "-o", "none.npy", "--start", "5", cwd=there)
    assert_refused(refused, 4, "0.8 s")
    assert_refused(mtvcraft("pose", "drive.npy", "-o", "none.npy", "--start", "now", cwd=there), 2, "now")


def test_another_rate_keeps_the_duration_of_a_motion(there: Path) -> None:
    mtvcraft("pose", "drive.npy", "-o", "fast.joints.npz", "--fps", "60", cwd=there, check=0)
    fast = load_motion(there / "fast.joints.npz")[0]
    assert (len(fast), fast.rate) == (2 * FRAMES, 60)
    assert np.array_equal(fast.joints_mm[::2], swaying_joints(FRAMES))
    mtvcraft("pose", "drive.npy", "-o", "slow.joints.npz", "--drive-fps", "10", cwd=there, check=0)
    slow = load_motion(there / "slow.joints.npz")[0]
    assert (len(slow), slow.rate) == (FRAMES, 10)


def test_framing_reaches_the_tokens(there: Path) -> None:
    sizes = {**tiny.TOKENIZER, "channels": list(tiny.TOKENIZER["channels"]), "codes": None}
    toy_preset(there, tokenizer=sizes)  # without a codebook, tokens change with the motion
    waving_mm = swaying_joints(FRAMES)
    waving_mm[:, 20] += np.linspace(0, 300, FRAMES, dtype=np.float32)[:, None]  # the left wrist alone
    np.save(there / "wave.npy", waving_mm)
    np.save(there / "mirrored.npy", waving_mm[:, list(mirror_order())] * np.float32([-1, 1, 1]))

    def tokens(drive: str, *words: str) -> np.ndarray:
        mtvcraft("tokenize", drive, "--preset", "toy", "-o", "t.tokens.npy", "--force", *words, cwd=there, check=0)
        return np.load(there / "t.tokens.npy")

    plain, mirrored = tokens("wave.npy"), tokens("wave.npy", "--mirror")
    assert not np.array_equal(mirrored, plain)
    assert np.array_equal(mirrored, tokens("mirrored.npy"))
    assert not np.array_equal(tokens("wave.npy", "--motion-strength", "0", "--root", "centre"), plain)


def test_a_comparison_shows_every_stage_and_is_made_from_what_is_there(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4"]
    mtvcraft(*words, cwd=there, check=0)
    before = (there / "out.mp4").read_bytes()
    result = mtvcraft(*words, "--compare", "all.mp4", "--json", cwd=there, check=0)
    assert (there / "out.mp4").read_bytes() == before
    assert "compare" in json.loads(result.stdout)["times_s"]
    info = probe(there / "all.mp4")
    assert (info.frames, info.rate) == (FRAMES, 30)
    assert info.width_px > 3.5 * info.height_px, "four panels"
    first, last = open_clip(there / "all.mp4").frame(0).astype(int), open_clip(there / "all.mp4").frame(9).astype(int)
    quarters = np.array_split(np.abs(first - last).mean(axis=(0, 2)), 4)
    assert quarters[0].mean() < 1, "the reference moves"
    assert all(part.mean() > 0.3 for part in quarters[1:]), "something stands still"
    assert "left alone" in mtvcraft(*words, "--compare", "all.mp4", cwd=there, check=0).stderr
    assert_refused(mtvcraft(*words, "--compare", "out.mp4", cwd=there), 2, "twice")


def test_a_picture_may_be_padded_instead_of_cropped(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--fit", "pad", "--background", "ff0000"]
    result = mtvcraft(*words, "-o", "out.mp4", "--compare", "all.mp4", cwd=there, check=0)
    assert "cropped" not in result.stderr
    reference = open_clip(there / "all.mp4").frame(0)[60:-20]
    assert (np.abs(reference[:, 8:24].astype(int) - (255, 0, 0)) < 40).all(), "no red at the side"


def test_a_page_to_turn_the_skeleton_is_written(there: Path) -> None:
    result = mtvcraft("pose", "drive.npy", "--view", "look.html", cwd=there, check=0)
    assert result.stdout.split() == ["drive.joints.npz", "look.html"]
    assert "drive.npy" in (there / "look.html").read_text(encoding="utf-8")
    assert_refused(mtvcraft("pose", "drive.npy", "--view", "look.png", cwd=there), 2, ".html")


def test_people_are_listed_and_one_is_chosen(there: Path) -> None:
    words = ["pose", ASSETS / "drive.mp4", "--end", "0.6"]
    listed = json.loads(mtvcraft(*words, "--list", "--json", cwd=there, check=0).stdout)
    assert [(row["person"], row["from_s"], row["seen"]) for row in listed["people"]] == [(1, 0.0, 1.0)]
    with Image.open(there / "drive.people.png") as sheet:
        assert sheet.size[0] > 100
    assert_refused(mtvcraft(*words, "--list", "--view", "x.html", cwd=there), 2, "--list")
    mtvcraft(*words, "--person", "1", cwd=there, check=0)
    assert len(load_motion(there / "drive.joints.npz")[0]) == 15
    assert_refused(mtvcraft(*words, "--person", "7", "--force", cwd=there), 4, "no person 7", "--list")
    assert_refused(mtvcraft(*words, "--person", "tallest", cwd=there), 2, "tallest", "largest")
    assert_refused(mtvcraft("pose", "drive.npy", "--list", cwd=there), 4, "drive.npy")


def test_a_folder_and_a_pattern_of_frames_drive_as_a_video_does(there: Path) -> None:
    (there / "frames").mkdir()
    for number, frame in enumerate(next(open_clip(ASSETS / "drive.mp4").batches(12))):
        Image.fromarray(frame).save(there / "frames" / f"{number}.jpg", quality=95)
    for drive in ("frames", "frames/*.jpg"):
        words = ["pose", drive, "--drive-fps", "12.5", "-o", "out.joints.npz"]
        mtvcraft(*words, cwd=there, check=0)
        found = load_motion(there / "out.joints.npz")[0]
        assert (len(found), found.rate) == (12, Fraction(25, 2))
        assert "left alone" in mtvcraft(*words, cwd=there, check=0).stderr
        (there / "out.joints.npz").unlink()
    mtvcraft("animate", "ref.png", "frames", "--preset", "toy", "-o", "out.mp4", cwd=there, check=0)
    again = mtvcraft("replay", "out.mp4.json", "-o", "again.mp4", cwd=there, check=0)
    assert again.stdout == "again.mp4\n"
    Image.fromarray(np.zeros((640, 480, 3), np.uint8)).save(there / "frames" / "12.jpg")
    assert_refused(mtvcraft("replay", "out.mp4.json", "-o", "third.mp4", cwd=there), 4, "frames")


def test_what_has_no_effect_is_said(there: Path) -> None:
    said = mtvcraft("pose", "drive.npy", "--person", "left", "-o", "a.npy", cwd=there, check=0).stderr
    assert "`--person` has no effect on this motion" in said
    words = ["--camera", "front", "--end", "0.2", "--list", "--dry-run"]
    said = mtvcraft("pose", ASSETS / "drive.mp4", *words, cwd=there, check=0, MTVCRAFT_FPS="25").stderr
    assert "`--camera` has no effect on a video" in said
    assert not (there / "drive.people.png").exists()


def test_the_other_fit_is_not_taken_from_the_cache(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy"]
    mtvcraft(*words, "-o", "crop.mp4", cwd=there, check=0)
    mtvcraft(*words, "-o", "pad.mp4", "--fit", "pad", cwd=there, check=0)
    assert (there / "crop.mp4").read_bytes() != (there / "pad.mp4").read_bytes()


def test_no_picture_of_the_input_is_written_over(there: Path) -> None:
    (there / "frames").mkdir()
    for number in range(3):
        picture(there / "frames" / f"{number}.png")
    for drive in ("frames", "frames/*.png"):
        refused = mtvcraft("pose", drive, "--list", "-o", "frames/1.png", "--force", cwd=there)
        assert_refused(refused, 2, "is an input")


def test_two_parts_of_a_video_are_two_motions_and_a_comparison_shows_the_driver(there: Path) -> None:
    for name, start in (("one", "0"), ("two", "1")):
        part = ["--start", start, "--end", str(float(start) + 0.4), "-o", f"{name}.joints.npz"]
        mtvcraft("pose", ASSETS / "drive.mp4", *part, cwd=there, check=0)
    one, two = (load_motion(there / f"{name}.joints.npz")[0] for name in ("one", "two"))
    assert len(one) == len(two) == 10
    assert np.abs(one.joints_mm - two.joints_mm).max() > 20
    words = ["animate", "ref.png", ASSETS / "drive.mp4", "--preset", "toy", "--start", "1", "--end", "1.4"]
    mtvcraft(*words, "-o", "out.mp4", "--compare", "all.mp4", cwd=there, check=0)
    made, side = probe(there / "out.mp4"), probe(there / "all.mp4")
    assert (made.frames, made.sound, side.frames, side.sound) == (10, True, 10, True)
    assert side.width_px > 4 * side.height_px * 0.9, "five panels"


def test_settings_of_the_driver_are_replayed(there: Path) -> None:
    write_motion(there / "own.bvh", swaying())
    renamed = (there / "own.bvh").read_text().replace("pelvis_in_camera_space", "root").replace("l_knee", "knie_links")
    (there / "own.bvh").write_text(renamed)
    (there / "map.json").write_text(json.dumps({"pelvis": "root", "l_knee": "knie_links"}))
    (there / "camera.json").write_text(json.dumps({"yaw_deg": 20, "distance_m": 3}))
    words = ["--mirror", "--start", "0.1", "--smooth", "--camera", "camera.json", "--joint-map", "map.json"]
    words += ["--motion-strength", "0.5", "--root", "follow", "--fit", "pad"]
    mtvcraft("animate", "ref.png", "own.bvh", "--preset", "toy", "-o", "out.mp4", *words, cwd=there, check=0)
    mtvcraft("replay", "out.mp4.json", "-o", "again.mp4", "--cache-dir", "other", cwd=there, check=0)
    frames = [np.concatenate(list(open_clip(there / name).batches())) for name in ("out.mp4", "again.mp4")]
    assert len(frames[0]) == FRAMES - 3
    assert np.array_equal(*frames)
