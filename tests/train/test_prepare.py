"""`mtvcraft train prepare`, with the real estimator on small videos and with files of motion."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.drive import DriveSettings
from mtvcraft_cli.joints.skeleton import NAMES
from mtvcraft_cli.progress import silent
from mtvcraft_cli.train.dataset.cut import CutSettings
from mtvcraft_cli.train.dataset.index import load_clip_set
from mtvcraft_cli.train.dataset.job import PreparedJob, PrepareJob, prepare_job, run_job
from mtvcraft_cli.train.dataset.motions import MotionSettings
from mtvcraft_cli.train.dataset.videos import VideoSettings, sharpness, stored_size_px
from mtvcraft_cli.train.motion import read_motion
from tests.cli.run import heeding_ctrl_c, mtvcraft
from tests.clips import ffmpeg, make_clip, make_cut
from tests.joints.own.makers import NAMED, bvh_text, degrees_between, their_name, world

REPOSITORY = Path(__file__).parents[2]
DRIVE = REPOSITORY / "assets/drive.mp4"
CODED = ("-c:v", "libx264", "-crf", "14", "-pix_fmt", "yuv420p")
SMALL = "scale=180:240"
SETTINGS = ["--min-frames", "12", "--max-frames", "24", "--side", "96", "--backend", "mediapipe"]


def taken(path: Path, filters: str, frames: int, start_s: float = 0) -> Path:
    """Some frames of the demo's drawn dancer."""
    ffmpeg("-ss", str(start_s), "-i", DRIVE, "-an", "-filter_complex", filters, "-frames:v", str(frames), *CODED, path)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of videos, each with something of its own; a step of the dancer in all but one."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "inner").mkdir()
    taken(folder / "alone.mp4", SMALL, 30)
    taken(folder / "before.mkv", SMALL, 14)
    taken(folder / "after.mkv", f"{SMALL},hflip,negate", 14, 2)
    listed = folder / "list.txt"
    listed.write_text("file before.mkv\nfile after.mkv\n")
    ffmpeg("-f", "concat", "-i", listed, "-c", "copy", folder / "cut.mp4")
    for part in ("before.mkv", "after.mkv", "list.txt"):
        (folder / part).unlink()
    taken(folder / "inner/blurred.mp4", f"{SMALL},gblur=sigma=3", 14)
    shutil.copy(folder / "alone.mp4", folder / "inner/copy.mp4")
    make_clip(folder / "nobody.mp4", CODED, frames=14)
    taken(folder / "short.mp4", SMALL, 6)
    taken(folder / "two.mp4", f"{SMALL},split[a][b];[b]hflip[c];[a][c]hstack", 14)
    make_cut(folder / "broken.mp4", folder / "alone.mp4")
    (folder / "notes.txt").write_text("nothing to see")
    return folder


def asked(folder: Path, output: Path, *, force: bool = False) -> PreparedJob:
    """The job of `SETTINGS`, and a threshold between the sharp and the blurred videos."""
    return prepare_job(
        PrepareJob(
            inputs=[folder],
            output=output,
            videos=VideoSettings(
                drive=DriveSettings(backend="mediapipe"),
                cut=CutSettings(min_frames=12, max_frames=24),
                side_px=96,
                least_blur=100.0,
            ),
            motion=MotionSettings(min_frames=12),
            force=force,
        )
    )


def entries(output: Path) -> int:
    journal = output / "progress.jsonl"
    return max(0, journal.read_text().count("\n") - 1) if journal.is_file() else 0


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stopped(videos: Path, cwd: Path, after: int, how: signal.Signals) -> tuple[int, str]:
    """Start `train prepare`, and end it as soon as so many videos are done."""
    words = ["train", "prepare", str(videos), "-o", "set", "--cache-dir", "cache", *SETTINGS]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    while entries(cwd / "set") < after and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(how)
    said = process.communicate(timeout=300)[1]
    return process.returncode, said


@pytest.fixture(scope="module")
def resumed(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run that was stopped by Ctrl-C after one video, killed after three, and finished; and what it said."""
    cwd = tmp_path_factory.mktemp("resumed")
    code, said = stopped(videos, cwd, 1, signal.SIGINT)
    assert code == 130, said
    assert "Traceback" not in said
    assert 1 <= entries(cwd / "set") < 6
    assert not (cwd / "set/dataset.json").exists()
    assert stopped(videos, cwd, 3, signal.SIGKILL)[0] == -signal.SIGKILL
    assert 3 <= entries(cwd / "set") < 6
    with (cwd / "set/shard-00000.tar").open("ab") as shard:
        shard.write(b"half a clip")
    words = ("train", "prepare", videos, "-o", "set", "--cache-dir", "cache", "--json", *SETTINGS)
    done = mtvcraft(*words, cwd=cwd, check=0)
    assert "inputs were done by earlier runs" in done.stderr
    assert "`broken.mp4` is left out" in done.stderr
    assert "1 files are neither videos nor motion" in done.stderr
    return cwd, json.loads(done.stdout)


def test_each_video_becomes_clips_or_says_why_not(resumed: tuple[Path, dict[str, Any]]) -> None:
    cwd, report = resumed
    assert report["dropped"] == {
        "nobody": {"clips": 1, "frames": 14},
        "several people": {"clips": 1, "frames": 14},
        "too short": {"clips": 1, "frames": 6},
        "blurred": {"clips": 1, "frames": 14},
    }
    assert list(report["unreadable"]) == ["broken.mp4"]
    made = load_clip_set(cwd / "set")
    assert [record.frames for record in made.records] == [15, 15, 14, 14]
    assert len({record.source for record in made.records}) == 2
    assert all(record.size_px == (96, 128) for record in made.records)
    assert {key: report[key] for key in ("clips", "frames", "inputs")} == {"clips": 4, "frames": 58, "inputs": 7}
    assert json.loads((cwd / "set/report.json").read_text())["clips"] == 4
    for record in made.records:
        joints_mm = made.joints_mm(record)
        assert 1000 < np.median(joints_mm[:, 0, 2]) < 5000
        assert (joints_mm[:, NAMES.index("head"), 1] < joints_mm[:, NAMES.index("l_foot"), 1]).all()
    first, after_cut = made.frames(made.records[0], [0])[0], made.frames(made.records[3], [0])[0]
    assert abs(float(first.mean()) + float(after_cut.mean()) - 255) < 30, "the second shot is a negative"


def test_a_run_that_was_stopped_and_killed_leaves_the_bytes_of_one_that_was_not(
    videos: Path, resumed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    cwd, _ = resumed
    run_job(asked(videos, tmp_path / "set"), Cache(cwd / "cache"), silent)
    assert whole(tmp_path / "set") == whole(cwd / "set")


def test_more_videos_are_added_and_what_is_done_is_left_alone(
    videos: Path, resumed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    cwd, _ = resumed
    shutil.copytree(cwd / "set", tmp_path / "set")
    few = tmp_path / "few"
    few.mkdir()
    taken(few / "new.mp4", f"{SMALL},hflip", 16, 1)
    assert asked(few, tmp_path / "set").done == 6
    report = run_job(asked(few, tmp_path / "set"), Cache(cwd / "cache"), silent)
    assert (report.inputs, report.clips) == (7, 5)
    before, after = load_clip_set(cwd / "set"), load_clip_set(tmp_path / "set")
    assert [record.told() for record in after.records[:4]] == [record.told() for record in before.records]
    np.testing.assert_array_equal(after.frames(after.records[0], [3]), before.frames(before.records[0], [3]))
    assert after.frames(after.records[4], [0]).shape == (1, 128, 96, 3)


def test_captions_are_taken_from_beside_the_videos_and_may_change_later(
    videos: Path, resumed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    cwd, _ = resumed
    cache, own, output = Cache(cwd / "cache"), tmp_path / "own", tmp_path / "set"
    shutil.copytree(videos, own)
    shutil.copytree(cwd / "set", output)
    before = load_clip_set(output)
    (own / "alone.txt").write_text("\ufeffsomebody\n dances, süß \n", encoding="utf-8")
    assert asked(own, output).passed_over == 1, "the notes alone"
    run_job(asked(own, output), cache, silent)
    after = load_clip_set(output)
    assert [record.caption for record in after.records] == ["somebody dances, süß"] * 2 + [""] * 2
    assert after.identity == before.identity, "latents need not be made again"
    (own / "alone.txt").write_text("a dancer", encoding="utf-8")
    run_job(asked(own, output), cache, silent)
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(own / "cut.mp4", few)
    run_job(asked(few, output), cache, silent)
    assert [record.caption for record in load_clip_set(output).records] == ["a dancer"] * 2 + [""] * 2
    (own / "short.txt").write_text("She skips across a room.")  # by its fifth letter on it looks like a QuickTime file
    shutil.copy(own / "two.mp4", few / "two.txt")  # a video, whatever it is called
    assert [name for name, _ in asked(own, output).inputs] == [name for name, _ in asked(videos, output).inputs]
    assert [name for name, _ in asked(few, output).inputs] == ["cut.mp4", "two.txt"]
    shutil.copy(own / "alone.mp4", few / "other.mp4")
    run_job(asked(few, output), cache, silent)
    assert [record.caption for record in load_clip_set(output).records][:2] == ["a dancer"] * 2, "a copy says nothing"
    (own / "alone.txt").unlink()
    run_job(asked(own, output), cache, silent)
    assert [record.caption for record in load_clip_set(output).records] == [""] * 4
    (own / "cut.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(MtvcraftError, match=r"cut.txt.*caption") as raised:
        asked(own, output)
    assert raised.value.exit == Exit.INPUT


def test_other_settings_are_refused_in_the_same_folder(
    videos: Path, resumed: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    cwd, _ = resumed
    words = ("train", "prepare", videos, "-o", "set", "--cache-dir", "cache")
    refused = mtvcraft(*words, *SETTINGS, "--side", "64", cwd=cwd, check=2)
    assert "was begun with another side" in refused.stderr
    assert "--force" in refused.stderr
    told = mtvcraft(*words, *SETTINGS, "--dry-run", "--json", cwd=cwd, check=0)
    assert json.loads(told.stdout)["done"] == 6
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("keep")
    with pytest.raises(MtvcraftError, match="already there and no data set"):
        asked(videos, tmp_path / "full", force=True)
    with pytest.raises(MtvcraftError, match="there is no folder"):
        asked(videos, tmp_path / "no/set")


def test_blur_is_told_by_the_laplacian_and_frames_are_never_enlarged() -> None:
    checks = (np.indices((40, 60)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, axis=2)
    assert sharpness(checks) == pytest.approx((255 * 4) ** 2, rel=0.01)
    assert sharpness(np.full_like(checks, 90)) == pytest.approx(0, abs=1e-6)
    assert stored_size_px((1920, 1080), 540) == (960, 540)
    assert stored_size_px((300, 200), 540) == (300, 200)


def save_bvh(path: Path, frames: int, yaw: float) -> Path:
    joints = world(frames)
    turned = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    joints = joints @ turned.T + (3, 0.7, -2)
    path.write_text(bvh_text(joints, lambda joint: their_name(joint, NAMED["CMU"]), rate="0.0166667"))
    return path


def test_files_of_motion_become_a_set_in_one_world(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name, frames, yaw in (("a", 60, 0.0), ("b", 80, 2.0), ("c", 8, 0.0)):
        save_bvh(folder / f"{name}.bvh", frames, yaw)
    np.savez(folder / "d.npz", joints=np.zeros((9, 24, 3)), clip_start=[0], clip_length=[9])
    cache = Cache(tmp_path / "cache")
    report = run_job(asked(folder, tmp_path / "set"), cache, silent)
    assert (report.clips, report.frames) == (2, 30 + 40)
    assert report.dropped == {"too short": {"clips": 1, "frames": 4}}
    assert "is a motion set already" in report.unreadable["d.npz"]
    motion = read_motion([str(tmp_path / "set")])
    assert motion.length.tolist() == [30, 40]
    assert not motion.seen.any()
    assert len(set(motion.source)) == 2
    for clip, frames in zip(motion.clips(), (60, 80), strict=True):
        assert np.abs(clip[0, 0, [0, 2]]).max() < 1e-2
        left = clip[0, NAMES.index("l_hip")] - clip[0, NAMES.index("r_hip")]
        assert left[0] > 5 * abs(left[2]), "faces +z"
        assert -5 < np.percentile(clip[:, (10, 11), 1].min(axis=1), 5) < 60, "stands on the floor"
        true = (world(frames)[::2] * 1000).astype(np.float32)
        heading = true[0, 1] - true[0, 2] + true[0, 16] - true[0, 17]
        angle = np.arctan2(-heading[2], heading[0])
        cosine, sine = np.cos(-angle), np.sin(-angle)
        facing = true @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]).T
        assert degrees_between(clip, facing.astype(np.float32), ("neck", "l_hand", "r_hand")).max() < 3
    again = whole(tmp_path / "set")
    assert run_job(asked(folder, tmp_path / "set"), cache, silent).clips == 2
    assert whole(tmp_path / "set") == again


def test_motion_and_videos_do_not_go_into_one_set(videos: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    both.mkdir()
    save_bvh(both / "a.bvh", 20, 0)
    shutil.copy(videos / "short.mp4", both)
    with pytest.raises(MtvcraftError, match="is a video and") as caught:
        asked(both, tmp_path / "set")
    assert caught.value.exit is Exit.USAGE
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(MtvcraftError, match="no video and no motion") as caught:
        asked(empty, tmp_path / "set")
    assert caught.value.exit is Exit.INPUT


def test_where_nothing_is_left_the_reasons_are_told(videos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(videos / "nobody.mp4", few)
    with pytest.raises(MtvcraftError, match=r"no clip is left of 1 videos \(nobody 1\)"):
        run_job(asked(few, tmp_path / "set"), Cache(tmp_path / "cache"), silent)
    assert Fraction(1, 2) == CutSettings().max_gap_s
