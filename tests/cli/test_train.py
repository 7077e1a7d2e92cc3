"""The stages of `mtvcraft train`, as a user runs them, at toy size."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mtvcraft_cli.cli.train import LESS_MEMORY, _told_of_memory
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.train.dataset.spread import read_spread
from mtvcraft_cli.train.settings import load_recipe
from mtvcraft_cli.video.read import probe
from tests.cli.inputs import picture, save_joints
from tests.cli.run import assert_refused, heeding_ctrl_c, mtvcraft
from tests.train.sets import small_set
from tests.train.toy import toy_recipe

REPOSITORY = Path(__file__).parents[2]
SHORT = ("--set", "loop.phases=[[3, 1e-3, 1e-3]]")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a recipe."""
    folder = tmp_path_factory.mktemp("train")
    small_set(folder / "set", (40, 40, 40))
    toy_recipe(folder)
    return folder


def test_three_stages_on_a_data_set_make_a_preset_that_animate_takes(there: Path) -> None:
    common = ("--recipe", "toy.yaml", "--data", "set", *SHORT)
    done = mtvcraft("train", "tokenizer", *common, "-o", "runs/tokenizer", "--json", cwd=there, check=0)
    told = json.loads(done.stdout)
    assert told["finished"]
    for name in ("round_trip_mm", "codes_used", "perplexity", "arms_mm"):
        assert np.isfinite(told["report"][name])
    assert "round_trip_mm" in done.stderr
    assert "3 steps of 2 clips" in done.stderr
    assert told["preset"] == "runs/tokenizer/preset.yaml"
    logged = [json.loads(line) for line in (there / "runs/tokenizer/log.jsonl").read_text().splitlines()]
    assert told["report"] in logged
    statistics = load_preset(str(there / "runs/tokenizer")).statistics
    np.testing.assert_allclose(statistics.mean_mm, read_spread(there / "set").statistics.mean_mm, atol=1e-3)

    mtvcraft("train", "vae", *common, "-o", "runs/vae", cwd=there, check=0)
    parts = ("--tokenizer", "runs/tokenizer", "--vae", "runs/vae")
    clips = ("--set", "clips=64", "--set", "first_clips=0")
    words = ("train", "dit", *common, *clips, *parts, "-o", "runs/dit")
    plan = json.loads(mtvcraft(*words, "--dry-run", "--json", cwd=there, check=0).stdout)
    assert (plan["loads"]["vae"], plan["clips"], plan["steps"]) == ("runs/vae/vae.safetensors", 64, 3)
    assert not (there / "runs/dit").exists()
    ahead = mtvcraft("train", "latents", *common, *clips, *parts, "-o", "runs/dit", "--json", cwd=there, check=0)
    assert json.loads(ahead.stdout)["clips"] == 64
    made = (there / "runs/dit/latents/shard-00000.safetensors").stat().st_mtime_ns
    done = mtvcraft(*words, cwd=there, check=0)
    assert done.stdout.strip() == "runs/dit/preset.yaml"
    assert (there / "runs/dit/latents/shard-00000.safetensors").stat().st_mtime_ns == made
    own = load_preset(str(there / "runs/dit")).statistics
    np.testing.assert_array_equal(own.std_mm, statistics.std_mm)

    picture(there / "ref.png")
    save_joints(there / "drive.npy", 12)
    words = ("animate", "ref.png", "drive.npy", "--preset", "runs/dit/preset.yaml", "-o", "out.mp4")
    mtvcraft(*words, cwd=there, check=0)
    assert probe(there / "out.mp4").frames == 12

    # Clips of a report have the first size that is trained on, whatever the preset's own is.
    sizes = ("--set", "buckets=[[16,24]]", "-o", "runs/sizes", "--json")
    done = mtvcraft("train", "dit", *common, *clips, *parts, *sizes, cwd=there, check=0)
    assert np.isfinite(json.loads(done.stdout)["report"]["psnr_db"])
    with Image.open(next((there / "runs/sizes/samples").iterdir())) as sheet:
        assert sheet.height % 24 == 0


def test_the_recipe_that_is_kept_repeats_the_run(there: Path) -> None:
    words = ("train", "tokenizer", "--recipe", "toy.yaml", "--data", "set", *SHORT, "--set", "commitment=0.7")
    mtvcraft(*words, "-o", "first", "--minutes", "10", cwd=there, check=0)
    kept = load_recipe(str(there / "first/recipe.yaml"))
    assert kept.tokenizer is not None
    assert kept.tokenizer.commitment == 0.7
    assert kept.data.sets == ("set",)
    mtvcraft("train", "tokenizer", "--recipe", "first/recipe.yaml", "-o", "again", cwd=there, check=0)
    weights = [(there / run / "tokenizer.safetensors").read_bytes() for run in ("first", "again")]
    assert weights[0] == weights[1]


def test_ctrl_c_saves_and_the_same_command_goes_on(there: Path) -> None:
    words = ["train", "tokenizer", "--recipe", "toy.yaml", "--data", "set", "-o", "stopped"]
    words += ["--set", "loop.phases=[[100000, 1e-3, 1e-3]]", "--set", "loop.checkpoint_s=1000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words],
        cwd=there,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    log = there / "stopped/log.jsonl"
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") > 3):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert out.strip() == "stopped/preset.yaml"
    step = int(max((there / "stopped/checkpoints").glob("step-*")).name[5:])
    more = mtvcraft(*words[:-4], "--set", f"loop.phases=[[{step + 2}, 1e-3, 1e-3]]", "--json", cwd=there, check=0)
    assert json.loads(more.stdout)["steps"] == step + 2
    assert f"{step} of them done" in more.stderr
    assert_refused(
        mtvcraft(*words[:-4], "--set", f"loop.phases=[[{step}, 1e-3, 1e-3]]", cwd=there),
        2,
        f"has done {step + 2} steps",
    )
    assert f"other settings than the first {step} steps: tokenizer.loop" in more.stderr


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["tokenizer"], 2, "--output"),
        (["tokenizer", "-o", "x", "--recipe", "maxi"], 2, "maxi"),
        (["tokenizer", "-o", "x", "--set", "loop.bach=3"], 2, "bach"),
        (["tokenizer", "-o", "x", "--set", "loop.batch"], 2, "loop.batch"),
        (["tokenizer", "-o", "x", "--set", "loop.batch=0"], 2, "`tokenizer.loop.batch` is 0"),
        (["vae", "-o", "x", "--set", "loop.phases=[]"], 2, "`vae.loop.phases` comes to 0"),
        (["vae", "-o", "x", "--set", "loop.log_steps=0"], 2, "log_steps"),
        (["vae", "-o", "x", "--set", "frames=[]"], 2, "`vae.frames` is empty"),
        (["vae", "-o", "x", "--set", "predicted_clips=0"], 2, "`vae.predicted_clips` is 0"),
        (["dit", "-o", "x", "--set", "clips=0"], 2, "`dit.clips` is 0"),
        (["dit", "-o", "x", "--set", "first_clips=64", "--set", "uses=0"], 2, "`dit.uses` is 0.0"),
        (["dit", "-o", "x", "--set", "kept_frames=[2,0]"], 2, "`dit.kept_frames` is (2, 0)"),
        (["dit", "-o", "x", "--set", "world.before=-1"], 2, "`dit.world.before` is -1"),
        (["tokenizer", "-o", "x", "--set", "motion.strides=[0]"], 2, "`tokenizer.motion.strides` is (0,)"),
        (["tokenizer", "-o", "x", "--set", "data.strides=[]"], 2, "`data.strides` is empty"),
        (["tokenizer", "-o", "x", "--set", "loop.gradient_checkpointing=true"], 2, "does nothing"),
        (["pack", "nowhere", "-o", "x.yaml"], 2, "nowhere"),
        (["pack", "17b", "-o", "x.yaml"], 2, "on wan"),
        (["pack", "mini", "-o", "x.pt"], 2, "x.pt"),
        (["pack", "mini", "-o", "toy.yaml"], 2, "toy.yaml"),
        (["vae", "-o", "x", "--recipe", "paper"], 2, "vae"),
        (["vae", "-o", "x", "--data", "nowhere"], 2, "nowhere"),
        (["vae", "-o", "toy.yaml"], 2, "toy.yaml"),
        (["vae", "-o", "set"], 2, "already there and no run"),
        (["dit", "-o", "x"], 6, "--tokenizer"),
        (["dit", "-o", "x", "--tokenizer", "set", "--vae", "set"], 6, "there is no tokenizer"),
        (["prepare", "nowhere", "-o", "x"], 2, "nowhere"),
        (["prepare", "set", "-o", "x", "--joint-map", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["prepare", "toy.yaml", "-o", "x"], 4, "no video and no motion"),
        (["prepare", "set", "-o", "x", "--min-frames", "50", "--max-frames", "60"], 2, "--max-frames"),
        (["all"], 2, "all"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_trained_is_refused_in_two_lines(there: Path, words: list[str], code: int, named: str) -> None:
    assert_refused(mtvcraft("train", *words, cwd=there), code, named)
    assert not (there / "x").exists()


def test_a_plan_knows_what_is_not_here(there: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.safetensors").write_bytes(b"")
    words = ("train", "dit", "--recipe", "paper", "--tokenizer", "tokenizer.safetensors", "-o", "x", "--dry-run")
    told = mtvcraft(*words, "--set", "base=cogvideox-5b", "--json", cwd=tmp_path, check=0)
    assert json.loads(told.stdout)["fetches"] == ["cogvideox-vae", "cogvideox-5b"]
    assert "`mtvcraft download cogvideox-vae cogvideox-5b`" in told.stderr
    assert_refused(mtvcraft(*words, "--set", "base=nowhere", cwd=tmp_path), 6, "nowhere")
    assert_refused(mtvcraft(*words, "--set", "base=6b", cwd=tmp_path), 6, "without a base")
    words = ("train", "vae", "--recipe", there / "toy.yaml", "-o", "x", "--dry-run", "--set", "base=nowhere")
    assert_refused(mtvcraft(*words, cwd=tmp_path), 6, "nowhere")
    alone = (*words[:-2], "--set", "decoder_only=true")
    assert_refused(mtvcraft(*alone, cwd=tmp_path), 2, "keeps an encoder that isn't trained")


@pytest.mark.parametrize(
    "lack", [MemoryError("9 GB"), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")]
)
def test_too_little_memory_names_what_training_can_do_about_it(lack: Exception) -> None:
    with pytest.raises(MtvcraftError, match="out of memory") as raised, _told_of_memory(LESS_MEMORY):
        raise lack
    assert raised.value.exit == Exit.FIT
    assert "loop.accumulate" in raised.value.hint
    with pytest.raises(RuntimeError, match="of ours"), _told_of_memory(LESS_MEMORY):
        raise RuntimeError("a fault of ours")


def test_settings_files_have_a_section_for_the_group_and_for_each_stage(there: Path, tmp_path: Path) -> None:
    (tmp_path / "mtvcraft.toml").write_text(f'[train]\nrecipe = "{there / "toy.yaml"}"\n[train.vae]\nminutes = 3\n')
    plan = mtvcraft("train", "vae", "-o", "x", "--dry-run", "--json", cwd=tmp_path, check=0)
    assert json.loads(plan.stdout)["steps"] == 100, "the toy recipe's"
    (tmp_path / "mtvcraft.toml").write_text("[train.vae]\nminuts = 3\n")
    assert_refused(mtvcraft("train", "vae", "-o", "x", cwd=tmp_path), 2, "minuts")
    (tmp_path / "mtvcraft.toml").write_text('[train]\ndata = "set"\n')
    assert_refused(mtvcraft("train", "vae", "-o", "x", cwd=tmp_path), 2, "data")
