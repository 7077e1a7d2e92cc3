"""Where networks live while a video is made: it makes no difference to the video."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.device.offload import attached
from mtvcraft_cli.device.placement import Placement
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.animation import AnimateJob, prepare_animation
from mtvcraft_cli.jobs.speed import Speed
from mtvcraft_cli.latents.faster import is_fused
from mtvcraft_cli.pipeline import run_animation
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.runs import speed
from mtvcraft_cli.runs.models import Loaded
from mtvcraft_cli.video.read import probe
from tests.cli.inputs import picture, save_joints
from tests.cli.run import assert_refused, heeding_ctrl_c, mtvcraft
from tests.cli.test_animate import frames_of
from tests.cli.toy import toy_preset
from tests.cli.toy_wan import released_wan_weights, toy_wan_preset
from tests.device.test_ranks import torchrun


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder with a picture, joints of two windows and a toy preset."""
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 60)
    toy_preset(tmp_path)
    return tmp_path


def job(folder: Path, name: str, preset: str = "toy", **changes: Any) -> AnimateJob:
    found = load_preset(str(folder / preset / "preset.yaml"))
    files = {"reference": folder / "ref.png", "drive": folder / "drive.npy", "output": folder / f"{name}.mp4"}
    return AnimateJob(preset=found, device="cpu", **files, **changes)


@pytest.mark.parametrize("backbone", ["small", "large"])
def test_jobs_hand_models_on_from_placement_to_placement(there: Path, backbone: str) -> None:
    more: dict[str, Any] = {}
    if backbone == "large":
        toy_wan_preset(there)
        more = {"preset": "toy-wan", "weights": released_wan_weights(there / "weights", seed=1)}
        save_joints(there / "drive.npy", 20)
    loaded, models = Loaded(), set()
    for number, way in enumerate(("none", "group", "disk", "sequential", "model", "disk", "none")):
        cache = Cache(there / f"cache-{number}")  # or nothing would be left to do
        wanted = job(there, str(number), offload=way, **more)
        report = run_animation(prepare_animation(wanted, cache), silent, loaded)
        assert loaded.models is not None
        models.add(id(loaded.models))
        streamed = way in ("group", "disk", "sequential")
        assert attached(loaded.models.transformer) is streamed
        assert is_fused(loaded.models.transformer) is not streamed
        told = json.loads((there / f"{number}.mp4.json").read_text())["placement"]
        assert (told["offload"], told["planned_offload"]) == (way, way)
        files = list(there.glob("cache-*/offload/.*.part/*.safetensors"))
        assert bool(files) is (way == "disk")
        assert not any("memory" in line for line in report.warnings)
    loaded.close()
    assert len(models) == 1, "loaded once"
    assert list(there.glob("cache-*/offload/.*.part")) == []
    for ways in ((0, 4, 6), (1, 2, 3, 5)):  # those in which projections are fused, and those in which weights stream
        assert len({(there / f"{number}.mp4").read_bytes() for number in ways}) == 1
    fused, apart = (frames_of(there / f"{number}.mp4").astype(int) for number in (0, 1))
    assert abs(fused - apart).max() <= 2


def test_a_job_that_skips_blocks_after_one_that_streamed_them_finds_them_whole(there: Path) -> None:
    save_joints(there / "drive.npy", 20)
    with Loaded() as loaded:
        for number, changes in enumerate(
            ({"offload": "disk"}, {"speed": Speed(level="fast")}, {"offload": "group"}, {"speed": Speed(level="fast")})
        ):
            wanted = job(there, str(number), **changes)
            run_animation(prepare_animation(wanted, Cache(there / f"cache-{number}")), silent, loaded)
            assert loaded.models is not None
            assert loaded.models.transformer.is_cache_enabled is (number in (1, 3))
        run_animation(prepare_animation(job(there, "alone"), Cache(there / "cache-alone")), silent, loaded)
    with Loaded() as fresh:
        run_animation(prepare_animation(job(there, "fresh"), Cache(there / "cache-fresh")), silent, fresh)
    assert (there / "1.mp4").read_bytes() == (there / "3.mp4").read_bytes()
    assert (there / "alone.mp4").read_bytes() == (there / "fresh.mp4").read_bytes(), "nothing of the others is left"


def test_a_replay_fuses_no_more_than_was_fused(there: Path) -> None:
    save_joints(there / "drive.npy", 20)
    for number, way in enumerate(("group", "none")):
        run_animation(prepare_animation(job(there, f"{number}", offload=way), Cache(there / f"cache-{number}")), silent)
        words = ["replay", f"{number}.mp4.json", "-o", f"again-{number}.mp4"]
        result = mtvcraft(*words, cwd=there)
        assert result.returncode == 0, result.stderr
        told = json.loads((there / f"again-{number}.mp4.json").read_text())
        assert told["placement"]["planned_offload"] == "none"
        assert told["active"]["fused_projections"] is (way == "none")
        assert (there / f"again-{number}.mp4").read_bytes() == (there / f"{number}.mp4").read_bytes()


def test_a_job_that_is_planned_smaller_is_not_placed_larger(there: Path) -> None:
    save_joints(there / "drive.npy", 20)
    ready = prepare_animation(job(there, "out"), Cache(there / "a"))
    with Loaded() as loaded:
        for planned, stepped, taken in (
            ("none", "model", "model"),
            ("group", "model", "group"),
            ("model", "sequential", "sequential"),
            ("disk", "group", "disk"),
        ):
            loaded.stepped = Placement(offload=stepped)
            plan = replace(ready.plan, placement=Placement(offload=planned))
            loaded.models_for(replace(ready, plan=plan), [])
            assert loaded.depot is not None
            assert loaded.depot.placement.offload == taken


def test_models_that_could_not_be_compiled_are_not_taken_for_compiled_ones(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = list[str]()

    def refusing(*_: object) -> None:
        tried.append("again")
        raise MtvcraftError("there is no compiler", hint="install one")

    monkeypatch.setattr(speed, "compile_blocks", refusing)
    ready = prepare_animation(job(there, "out"), Cache(there / "a"))
    ready = replace(ready, job=replace(ready.job, speed=Speed(compile=True)))
    with Loaded() as loaded:
        for _ in range(2):
            with pytest.raises(MtvcraftError, match="no compiler"):
                loaded.models_for(ready, [])
    assert len(tried) == 2


def test_what_can_not_be_had_together_is_refused(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4"]
    for more, said in (
        (["--speed", "fast", "--offload", "disk"], "`--offload disk` streams it"),
        (["--quantize", "fp8", "--compile"], "`--quantize fp8` packs them"),
    ):
        assert_refused(mtvcraft(*words, *more, cwd=there), 2, said, "give one of the two")


def test_too_little_memory_in_spite_of_the_plan_is_a_step_down_and_no_window_lost(there: Path) -> None:
    loaded = Loaded()
    run_animation(prepare_animation(job(there, "whole"), Cache(there / "a")), silent, loaded)
    assert loaded.models is not None
    steps, block = list[str](), loaded.models.transformer.transformer_blocks[2]

    def lacking(*_: object) -> None:
        steps.append(loaded.depot.placement.offload)
        if len(steps) in (4, 6):  # in the second window, and once more when it is begun again
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    hook = block.register_forward_pre_hook(lacking)
    report = run_animation(prepare_animation(job(there, "stepped"), Cache(there / "b")), silent, loaded)
    hook.remove()
    assert (there / "stepped.mp4").read_bytes() == (there / "whole.mp4").read_bytes()
    assert steps == ["none"] * 4 + ["model"] * 2 + ["group"] * 2, "the first window was not made twice"
    assert report.placement is not None
    told = json.loads((there / "stepped.mp4.json").read_text())
    assert told["placement"]["offload"] == report.placement.offload == "group"
    assert told["placement"]["planned_offload"] == "none"
    assert told["warnings"] == report.warnings
    assert told["active"]["kept_keys"] is False, "streamed, it has no room for them"
    assert len(report.warnings) == 2
    assert "`--offload none`, in spite of the plan" in report.warnings[0]
    assert "begun again with `--offload model`" in report.warnings[0]
    again = run_animation(prepare_animation(job(there, "next"), Cache(there / "c")), silent, loaded)
    assert again.placement == report.placement, "the next job doesn't try what has failed"
    assert again.warnings == []
    loaded.close()


def test_where_no_smaller_placement_is_left_it_ends_with_what_to_do(there: Path) -> None:
    loaded = Loaded()
    run_animation(prepare_animation(job(there, "whole"), Cache(there / "a")), silent, loaded)
    assert loaded.models is not None
    ways: list[str] = []

    def lacking(*_: object) -> None:
        ways.append(loaded.depot.placement.offload)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    loaded.models.transformer.transformer_blocks[2].register_forward_pre_hook(lacking)
    with pytest.raises(torch.OutOfMemoryError):
        run_animation(prepare_animation(job(there, "never"), Cache(there / "b")), silent, loaded)
    assert ways == ["none", "model", "group", "sequential"]
    assert not (there / "never.mp4").exists()
    loaded.close()


def test_ctrl_c_takes_the_files_of_streamed_weights_away(there: Path) -> None:
    save_joints(there / "drive.npy", 400)
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--steps", "8", "--offload", "disk", "-o", "out.mp4"]
    environment = {**os.environ, "MTVCRAFT_CACHE": str(there / "kept")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words],
        cwd=there,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    deadline = time.monotonic() + 300
    while not list((there / "kept").glob("offload/.*.part/*.safetensors")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert list((there / "kept").glob("offload/.*.part")) == []


def test_cards_that_are_not_here_are_refused(there: Path) -> None:
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4"]
    if torch.cuda.device_count() == 0:
        assert_refused(mtvcraft(*words, "--gpus", "0,1", cwd=there), 2, "`cuda:0`", "PyTorch sees 0")
    assert_refused(mtvcraft(*words, "--gpus", "0,0", cwd=there), 2, "twice")


def test_only_commands_that_can_share_their_work_run_in_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mtvcraft_cli.cli.front import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    for number, said in (
        ("0", "error: torchrun has started 2 processes, and `mtvcraft batch` works in one"),
        ("1", ""),
    ):
        monkeypatch.setenv("RANK", number)
        assert main(["batch", "jobs.csv"]) == 2
        heard = capsys.readouterr().err
        assert heard.partition("\n")[0] == said, "only the first one speaks"


def test_two_processes_make_the_video_that_one_makes(there: Path) -> None:
    save_joints(there / "drive.npy", 20)
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--device", "cpu"]
    alone = prepare_animation(job(there, "one"), Cache(there / "alone"))
    run_animation(alone, silent)
    done = torchrun(
        "-m", "mtvcraft_cli", *words, "-o", "two.mp4", "--json", cwd=there, HOME=str(there), MTVCRAFT_CACHE="shared"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["placement"]["processes"] == {"branches_apart": 2, "patches_cut_in": 1}
    assert done.stderr.count(" on cpu in 2 processes, 2 branches of guidance apart") == 1, done.stderr
    assert done.stderr.count("wrote `two.mp4`") == 1, "only one of the two speaks"
    one, two = (
        load_file(next((there / cache / "windows").glob("*/kept.safetensors")))["kept"] for cache in ("alone", "shared")
    )
    off = (one - two).abs().max().item()
    assert off <= 1e-5, f"off by {off:.1e}"
    assert probe(there / "two.mp4").frames == 20
