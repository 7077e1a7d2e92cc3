"""The whole way, as a user walks it: from files to a file, at toy size."""

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.video.read import open_clip, probe
from tests import clips, tiny
from tests.cli.inputs import picture, save_joints, shortened, swaying_joints
from tests.cli.run import assert_refused, heeding_ctrl_c, mtvcraft
from tests.cli.toy import hub_cache, released_weights, toy_preset

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with a picture, joints and a toy preset."""
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy")
    toy_preset(tmp_path)
    return tmp_path


def frames_of(path: Path) -> np.ndarray:
    return np.concatenate(list(open_clip(path).batches()))


@pytest.mark.parametrize("total", [1, 3, 9, 20, 60])
def test_joints_of_any_length_become_as_many_frames(there: Path, total: int) -> None:
    save_joints(there / "drive.npy", total)
    result = mtvcraft("animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4", cwd=there, check=0)
    assert result.stdout == "out.mp4\n"
    info = probe(there / "out.mp4")
    assert (info.frames, info.rate, info.size_px, info.sound) == (total, Fraction(30), (32, 32), False)
    frames = frames_of(there / "out.mp4")
    assert frames.std() > 5
    if total > 1:
        assert np.abs(np.diff(frames.astype(int), axis=0)).mean() > 1, "the frames don't move"
    assert sorted(path.name for path in there.glob(".*")) == [".cache"], "something half-written is left"


def test_a_real_video_goes_the_whole_way_with_its_rate_length_and_sound(there: Path) -> None:
    words = ["animate", ASSETS / "robot.png", ASSETS / "drive.mp4", "--preset", "toy", "-o", "out.mp4", "--json"]
    told = json.loads(mtvcraft(*words, cwd=there, check=0).stdout)
    drive, made = probe(ASSETS / "drive.mp4"), probe(there / "out.mp4")
    assert (made.frames, made.rate, made.sound) == (drive.frames, drive.rate, True)
    assert told["frames"] == drive.frames
    assert set(told["times_s"]) == {"load", "pose", "tokenize", "animate"}
    sidecar = json.loads((there / "out.mp4.json").read_text())
    assert set(sidecar["inputs"]) == {"reference", "drive"}
    assert len(sidecar["window_seeds"]) == told["windows"] == 3
    assert len(set(sidecar["window_seeds"])) == 3
    assert sidecar["licences"] == dict.fromkeys(("tokenizer", "transformer", "vae", "pose"), "Apache-2.0")
    assert sidecar["peak_memory_bytes"]["ram"] > 0


def test_the_stages_one_by_one_give_the_same_frames_as_all_at_once(there: Path) -> None:
    toy = ["--preset", "toy", "-q"]
    drive = shortened(ASSETS / "drive.mp4", there / "drive.mp4", frames=20)
    mtvcraft("animate", "ref.png", drive, *toy, "-o", "whole.mp4", cwd=there, check=0)
    mtvcraft("pose", drive, "-q", cwd=there, check=0)
    mtvcraft("animate", "ref.png", "drive.joints.npz", *toy, "-o", "joints.mp4", cwd=there, check=0)
    mtvcraft("tokenize", "drive.joints.npz", *toy, cwd=there, check=0)
    mtvcraft("animate", "ref.png", "drive.tokens.npy", *toy, "-o", "tokens.mp4", cwd=there, check=0)
    whole = frames_of(there / "whole.mp4")
    assert np.array_equal(whole, frames_of(there / "joints.mp4"))
    assert np.array_equal(whole, frames_of(there / "tokens.mp4"))
    mtvcraft("tokenize", "drive.tokens.npy", "--decode", *toy, cwd=there, check=0)
    decoded = np.load(there / "drive.decoded.joints.npz", allow_pickle=False)
    assert decoded["joints_mm"].shape == (20, 24, 3)


def test_another_rate_keeps_the_duration(there: Path) -> None:
    save_joints(there / "drive.npy", 60)  # 2 s at the 30 fps that are assumed
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--fps", "12.5", "-o", "out.mp4"]
    mtvcraft(*words, cwd=there, check=0)
    info = probe(there / "out.mp4")
    assert (info.rate, info.frames) == (Fraction(25, 2), 25)


def test_a_stride_holds_frames_and_keeps_the_driver_s_rate(there: Path) -> None:
    toy_preset(there, stride=2)
    mtvcraft("animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4", "--crf", "0", cwd=there, check=0)
    info = probe(there / "out.mp4")
    assert (info.rate, info.frames) == (Fraction(30), 20)
    moved = np.abs(np.diff(frames_of(there / "out.mp4").astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert (moved[::2] < moved[1::2].min()).all(), "every second frame is a held one"


def test_sound_of_another_file_or_none(there: Path) -> None:
    sound = clips.make_plain(there / "tune.mp4")
    for word, expected in ((str(sound), True), ("none", False), ("keep", False)):
        out = f"{expected}-{word == 'keep'}.mp4"
        words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--audio", word, "-o", out]
        mtvcraft(*words, cwd=there, check=0)
        assert probe(there / out).sound is expected


def test_the_same_job_again_is_left_alone_and_another_is_refused_without_force(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4"]
    mtvcraft(*words, cwd=there, check=0)
    before = (there / "out.mp4").stat()
    again = mtvcraft(*words, cwd=there, check=0)
    assert again.stdout == "out.mp4\n"
    assert "left alone" in again.stderr
    assert (there / "out.mp4").stat().st_mtime_ns == before.st_mtime_ns
    assert_refused(mtvcraft(*words, "--seed", "1", cwd=there), 2, "out.mp4", "--force")
    mtvcraft(*words, "--seed", "1", "--force", cwd=there, check=0)
    assert (there / "out.mp4").stat().st_mtime_ns != before.st_mtime_ns


def test_replay_gives_the_same_frames_with_an_empty_cache(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--seed", "3", "--steps", "3", "-o", "out.mp4"]
    mtvcraft(*words, cwd=there, check=0)
    mtvcraft("replay", "out.mp4.json", "-o", "again.mp4", "--cache-dir", "other", cwd=there, check=0)
    assert (there / "out.mp4").read_bytes() == (there / "again.mp4").read_bytes()
    mtvcraft(*words[:6], "4", *words[7:-1], "seed.mp4", cwd=there, check=0)
    assert not np.array_equal(frames_of(there / "out.mp4"), frames_of(there / "seed.mp4"))


def test_replay_refuses_inputs_that_have_changed(there: Path) -> None:
    mtvcraft("animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4", cwd=there, check=0)
    replay = ["replay", "out.mp4.json", "-o", "again.mp4"]
    picture(there / "ref.png", (64, 64))
    assert_refused(mtvcraft(*replay, cwd=there), 4, "ref.png")
    (there / "ref.png").unlink()
    assert_refused(mtvcraft(*replay, cwd=there), 2, "ref.png")


def test_a_killed_run_goes_on_after_its_last_finished_window(there: Path) -> None:
    save_joints(there / "drive.npy", 200)
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--steps", "6", "--progress", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words, "-o", "out.mp4", "--cache-dir", "kept"],
        cwd=there,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["stage"] == "denoise" and json.loads(line)["done"] >= 14:
            break  # in the third window
    process.kill()
    process.communicate(timeout=60)
    assert not (there / "out.mp4").exists()
    for path in there.glob(".out*"):
        path.unlink()  # SIGKILL leaves the hidden draft
    told = json.loads(mtvcraft(*words, "--json", "-o", "out.mp4", "--cache-dir", "kept", cwd=there, check=0).stdout)
    assert told["windows_from_earlier_runs"] >= 2
    mtvcraft(*words, "-o", "fresh.mp4", "--cache-dir", "fresh", cwd=there, check=0)
    assert np.array_equal(frames_of(there / "out.mp4"), frames_of(there / "fresh.mp4"))


def test_a_second_run_finds_joints_tokens_and_windows(there: Path) -> None:
    shortened(ASSETS / "drive.mp4", there / "drive.mp4", frames=20)
    words = ["animate", "ref.png", "drive.mp4", "--preset", "toy", "--json"]
    first = json.loads(mtvcraft(*words, "-o", "a.mp4", cwd=there, check=0).stdout)
    kept = json.loads(mtvcraft("cache", "--json", cwd=there, check=0).stdout)["stages"]
    assert {stage: own["entries"] for stage, own in kept.items()} == {
        "joints": 1,
        "tokens": 1,
        "reference": 1,
        "windows": 1,
    }
    second = json.loads(mtvcraft(*words, "-o", "b.mp4", cwd=there, check=0).stdout)
    other = json.loads(mtvcraft(*words, "-o", "c.mp4", "--motion-guidance", "2", cwd=there, check=0).stdout)
    seen = [told["windows_from_earlier_runs"] for told in (first, second, other)]
    assert seen == [0, 1, 0]
    assert second["times_s"]["pose"] < first["times_s"]["pose"] / 2, "the joints were not looked up"
    assert (there / "a.mp4").read_bytes() == (there / "b.mp4").read_bytes()
    mtvcraft("cache", "verify", cwd=there, check=0)
    mtvcraft("cache", "clear", "--stage", "joints", cwd=there, check=0)
    left = json.loads(mtvcraft("cache", "--json", cwd=there, check=0).stdout)["stages"]
    assert set(left) == {"tokens", "reference", "windows"}


def test_a_folder_of_released_weights_runs_and_replay_wants_the_same(there: Path) -> None:
    weights = released_weights(there / "weights", seed=1)
    toy_preset(there, weights={"tokenizer": "tokenizer", "transformer": "7b", "vae": "cogvideox-vae"})
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy"]
    assert_refused(
        mtvcraft(*words, "-o", "out.mp4", "-q", cwd=there), 6, "mtvcraft download tokenizer 7b cogvideox-vae"
    )
    mtvcraft(*words, "--weights", weights, "-o", "out.mp4", cwd=there, check=0)
    sidecar = json.loads((there / "out.mp4.json").read_text())
    assert sorted(sidecar["weights"]) == [
        "tokenizer/mp_rank_00_model_states.pt",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert "CogVideoX" in sidecar["licences"]["transformer"]
    mtvcraft("replay", "out.mp4.json", "-o", "again.mp4", "--cache-dir", "other", cwd=there, check=0)
    assert (there / "out.mp4").read_bytes() == (there / "again.mp4").read_bytes()

    hub = hub_cache(there / "hub", weights)
    from_hub = mtvcraft(*words, "-o", "hub.mp4", "--offline", cwd=there, env={"HF_HUB_CACHE": str(hub)}, check=0)
    assert from_hub.stdout == "hub.mp4\n"
    assert (there / "out.mp4").read_bytes() == (there / "hub.mp4").read_bytes()

    released_weights(there / "weights", seed=2)
    assert_refused(mtvcraft("replay", "out.mp4.json", "-o", "other.mp4", "-q", cwd=there), 6, "weights")


def test_an_overlay_may_follow_and_is_not_drawn_twice(there: Path) -> None:
    shortened(ASSETS / "drive.mp4", there / "drive.mp4", frames=9)
    mtvcraft("pose", "drive.mp4", cwd=there, check=0)
    made = (there / "drive.joints.npz").stat().st_mtime_ns
    words = ["pose", "drive.mp4", "--overlay", "look.mp4"]
    assert mtvcraft(*words, cwd=there, check=0).stdout == "drive.joints.npz\nlook.mp4\n"
    assert (there / "drive.joints.npz").stat().st_mtime_ns == made
    drawn, plain = frames_of(there / "look.mp4"), frames_of(there / "drive.mp4")
    assert drawn.shape == plain.shape
    assert 0.005 < (np.abs(drawn.astype(int) - plain).max(axis=-1) > 60).mean() < 0.2
    assert "left alone" in mtvcraft(*words, cwd=there, check=0).stderr


def test_a_stride_gives_tokens_of_the_driver_s_length(there: Path) -> None:
    toy_preset(there, stride=2)
    mtvcraft("tokenize", "drive.npy", "--preset", "toy", cwd=there, check=0)
    mtvcraft("animate", "ref.png", "drive.tokens.npy", "--preset", "toy", "-o", "out.mp4", cwd=there, check=0)
    assert probe(there / "out.mp4").frames == 20


def test_the_motion_is_what_moves_the_picture(there: Path) -> None:
    still = swaying_joints(20)
    still[:] = still[0]
    np.save(there / "still.npy", still)
    for drive in ("drive.npy", "still.npy"):
        mtvcraft("animate", "ref.png", drive, "--preset", "toy", "-o", f"{drive}.mp4", cwd=there, check=0)
    assert not np.array_equal(frames_of(there / "drive.npy.mp4"), frames_of(there / "still.npy.mp4"))


def test_offloading_changes_nothing(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy"]
    for way in ("none", "model"):
        out = ["-o", f"{way}.mp4", "--offload", way, "--cache-dir", way]
        mtvcraft(*words, *out, cwd=there, check=0)
    assert (there / "none.mp4").read_bytes() == (there / "model.mp4").read_bytes()


def test_what_is_cropped_or_stretched_is_said(there: Path) -> None:
    toy_preset(there, transformer=tiny.TRANSFORMER | {"unconditional_motion_shape": [312, tiny.WIDTH]})
    picture(there / "ref.png", (64, 128))
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy"]
    said = mtvcraft(*words, "-o", "out.mp4", cwd=there, check=0).stderr
    assert "its middle, 50% of it" in said
    assert "learned for windows of 49 frames and are stretched to 25" in said
    assert "stretched" not in mtvcraft(*words, "--motion-guidance", "1", "-o", "b.mp4", cwd=there, check=0).stderr


def test_the_dry_run_tells_the_plan_and_makes_nothing(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4", "--dry-run"]
    told = json.loads(mtvcraft(*words, "--json", cwd=there, check=0).stdout)
    assert (told["frames"], told["windows"], told["window_frames"], told["motion_tokens"]) == (20, 1, 25, 7 * 24)
    assert "1 window(s) of 25 frames" in mtvcraft(*words, cwd=there, check=0).stdout
    assert not (there / "out.mp4").exists()


def test_ctrl_c_in_the_middle_then_again(there: Path) -> None:
    save_joints(there / "drive.npy", 120)
    words = [
        "animate",
        "ref.png",
        "drive.npy",
        "--preset",
        "toy",
        "--steps",
        "8",
        "--progress",
        "json",
        "-o",
        "out.mp4",
    ]
    environment = {**os.environ, "MTVCRAFT_CACHE": str(there / "kept")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words],
        cwd=there,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heeding_ctrl_c,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["stage"] == "denoise" and json.loads(line)["done"] >= 9:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130, rest
    assert "kept" in rest
    assert not list(there.glob(".out*")), "the draft is gone"
    mtvcraft(*words, cwd=there, env={"MTVCRAFT_CACHE": str(there / "kept")}, check=0)
    assert probe(there / "out.mp4").frames == 120
