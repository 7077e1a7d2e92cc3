"""The large model at toy size the whole way: from files in the released layouts to a file."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.video.read import probe
from tests.cli.inputs import picture, save_joints
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.test_animate import ASSETS, frames_of
from tests.cli.toy_wan import released_wan_weights, toy_wan_preset, write_toy_lora

WORDS = ["animate", "ref.png", "drive.npy", "--preset", "toy-wan", "--weights", "weights"]


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with a picture, joints, a toy preset like `17b` and its weights."""
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy")
    toy_wan_preset(tmp_path)
    released_wan_weights(tmp_path / "weights", seed=1)
    return tmp_path


def test_a_real_video_and_a_prompt_go_the_whole_way_and_again(there: Path) -> None:
    words = ["animate", ASSETS / "robot.png", ASSETS / "drive.mp4", *WORDS[3:], "--prompt", "a person is dancing"]
    told = json.loads(mtvcraft(*words, "-o", "out.mp4", "--json", cwd=there, check=0).stdout)
    drive, made = probe(ASSETS / "drive.mp4"), probe(there / "out.mp4")
    assert (made.frames, made.rate, made.sound) == (drive.frames, drive.rate, True)
    assert told["frames"] == drive.frames
    sidecar = json.loads((there / "out.mp4.json").read_text())
    parts = {name.partition("/")[0] for name in sidecar["weights"]}
    assert parts == {"tokenizer", "transformer", "vae", "text_encoder", "text_tokenizer", "picture_encoder"}
    assert sidecar["settings"]["prompt"] == "a person is dancing"
    mtvcraft(*words, "-o", "again.mp4", "--cache-dir", "other", cwd=there, check=0)
    assert (there / "out.mp4").read_bytes() == (there / "again.mp4").read_bytes()
    mtvcraft("replay", "out.mp4.json", "-o", "replayed.mp4", "--cache-dir", "third", cwd=there, check=0)
    assert (there / "out.mp4").read_bytes() == (there / "replayed.mp4").read_bytes()


def test_text_is_kept_and_the_encoder_then_needed_no_longer(there: Path) -> None:
    mtvcraft(*WORDS, "-o", "a.mp4", cwd=there, check=0)
    encoder = there / "weights" / "models_t5_umt5-xxl-enc-bf16.pth"
    encoder.unlink()
    said = mtvcraft(*WORDS, "-o", "a.mp4", cwd=there, check=0).stderr
    assert "left alone" in said
    mtvcraft("cache", "clear", "--stage", "windows", cwd=there, check=0)
    mtvcraft(*WORDS, "-o", "b.mp4", cwd=there, check=0)
    assert (there / "a.mp4").read_bytes() == (there / "b.mp4").read_bytes()
    mtvcraft(*WORDS, "-o", "c.mp4", "--text-guidance", "1", cwd=there, check=0)
    refused = mtvcraft(*WORDS, "-o", "d.mp4", "--prompt", "something new", "-q", cwd=there)
    assert_refused(refused, 6, "text_encoder", "mtvcraft download umt5")


def test_every_option_changes_the_frames_or_costs_nothing(there: Path) -> None:
    save_joints(there / "drive.npy", 60)
    write_toy_lora(there / "style.safetensors")
    base = ["--steps", "3"]
    ways = {
        "plain": [],
        "prompt": ["--prompt", "an owl"],
        "negative": ["--negative-prompt", "an owl"],
        "text": ["--text-guidance", "2"],
        "motion": ["--motion-guidance", "3"],
        "range": ["--guidance-range", "0:0.5"],
        "lora": ["--lora", "style.safetensors:0.5"],
        "clip": ["--clip-from", "previous"],
        "colour": ["--color-match"],
        "scheduler": ["--scheduler", "unipc"],
    }
    frames: dict[str, np.ndarray] = {}
    for name, options in ways.items():
        result = mtvcraft(*WORDS, *base, *options, "-o", f"{name}.mp4", cwd=there, check=0)
        frames[name] = frames_of(there / f"{name}.mp4").astype(int)
        if name == "lora":
            assert "parameters changed: 8" in result.stderr
    for name in ways.keys() - {"plain"}:
        assert np.abs(frames[name] - frames["plain"]).mean() > 0.1, name
    mtvcraft("replay", "lora.mp4.json", "-o", "again.mp4", "--cache-dir", "other", cwd=there, check=0)
    assert (there / "lora.mp4").read_bytes() == (there / "again.mp4").read_bytes()


def test_motion_guidance_needs_the_small_model_s_no_motion_tokens(there: Path) -> None:
    shutil.rmtree(there / "weights" / "MV-DiT" / "CogVideoX")
    mtvcraft(*WORDS, "-o", "out.mp4", cwd=there, check=0)
    refused = mtvcraft(*WORDS, "--motion-guidance", "3", "-o", "m.mp4", "-q", cwd=there)
    assert_refused(refused, 6, "no_motion", "mtvcraft download 7b")


def test_frames_have_the_size_asked_for_or_the_shape_of_the_picture(there: Path) -> None:
    wide = ["--size", "48x32", "-o", "wide.mp4"]
    mtvcraft(*WORDS, *wide, cwd=there, check=0)
    assert probe(there / "wide.mp4").size_px == (48, 32)
    told = json.loads(mtvcraft(*WORDS, "--size", "auto", "--dry-run", "--json", cwd=there, check=0).stdout)
    assert told["size_px"] == [448, 576]  # 96 x 128
    assert_refused(mtvcraft(*WORDS, "--size", "50x32", "-q", cwd=there), 2, "multiples of 16", "48x32")
    assert_refused(mtvcraft(*WORDS, "--guidance-range", "1:0", "-q", cwd=there), 2, "0:0.6")
    assert_refused(mtvcraft(*WORDS, "--lora", "nowhere.safetensors", "-q", cwd=there), 2, "nowhere.safetensors")
    small = ["animate", "ref.png", "drive.npy", "--preset", "mini", "--prompt", "an owl", "-q"]
    assert_refused(mtvcraft(*small, cwd=there), 2, "prompt", "only a model on wan")


def test_the_diffusers_layout_gives_the_same_bytes(there: Path) -> None:
    released_wan_weights(there / "folders", seed=1, diffusers=True)
    mtvcraft(*WORDS, "-o", "a.mp4", cwd=there, check=0)
    mtvcraft(*WORDS, "--weights", "folders", "-o", "b.mp4", cwd=there, check=0)
    assert (there / "a.mp4").read_bytes() == (there / "b.mp4").read_bytes()


def test_18b_runs_with_motion_and_text_guidance_at_once(there: Path) -> None:
    preset = toy_wan_preset(there, like="18b", name="toy18", body="person", size_px=[32, 32])
    weights = released_wan_weights(there / "paper", seed=1, motion_every=2)
    for source, name in (("MV-DiT/Wan-2-1", "18b"), ("MV-DiT/CogVideoX", "6b"), ("4DMoT", "6b-tokenizer")):
        (weights / source).rename(weights / name)
    mtvcraft(
        "animate", "ref.png", "drive.npy", "--preset", preset, "--weights", weights, "-o", "o.mp4", cwd=there, check=0
    )
    assert probe(there / "o.mp4").frames == 20


def test_a_fast_preset_says_that_text_guidance_is_off(there: Path) -> None:
    write_toy_lora(there / "toy-wan" / "fast.safetensors")
    toy_wan_preset(there, like="17b-fast", loras=["fast.safetensors"])
    said = mtvcraft(*WORDS, "-o", "out.mp4", cwd=there, check=0).stderr
    assert "text guidance is off" in said


def test_a_run_killed_in_its_third_window_goes_on_and_gives_those_bytes(there: Path) -> None:
    save_joints(there / "drive.npy", 130)
    words = [*WORDS, "--steps", "30"]
    mtvcraft(*words, "-o", "whole.mp4", "--cache-dir", "other", cwd=there, check=0)
    env = {**os.environ, "MTVCRAFT_CACHE": str(there / "cache"), "XDG_CONFIG_HOME": str(there), "HOME": str(there)}
    run = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words, "-o", "out.mp4"],
        cwd=there,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(list((there / "cache" / "windows").glob("[!.]*"))) < 4:  # two windows and their tails
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (there / "out.mp4").exists()
    again = json.loads(mtvcraft(*words, "-o", "out.mp4", "--json", "--cache-dir", "cache", cwd=there, check=0).stdout)
    assert again["windows_from_earlier_runs"] == 2
    assert (there / "out.mp4").read_bytes() == (there / "whole.mp4").read_bytes()


def test_290_frames_take_no_more_memory_than_130(there: Path) -> None:
    peaks = []
    for total in (20, 130, 290):
        save_joints(there / "drive.npy", total)
        told = json.loads(mtvcraft(*WORDS, "-o", f"{total}.mp4", "--json", cwd=there, check=0, anew=True).stdout)
        assert probe(there / f"{total}.mp4").frames == total
        peaks.append(told["peak_memory_bytes"]["ram"])
    assert abs(peaks[2] - peaks[1]) <= 0.1 * peaks[1]
