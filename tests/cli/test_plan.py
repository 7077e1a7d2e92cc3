"""`mtvcraft plan`, and the plan that `animate` shows and heeds."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest

from mtvcraft_cli.cli.animate import animation_job
from mtvcraft_cli.cli.front import main, reader
from mtvcraft_cli.device.placement import Placement
from mtvcraft_cli.device.plan import Machine, make_plan
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs import choice, fit
from mtvcraft_cli.jobs.choice import choose_preset
from mtvcraft_cli.jobs.fit import best_fitting, check_fit, machine_of, nearest, rates_of, task_of
from mtvcraft_cli.preset import load_preset
from tests.cli.inputs import picture, save_joints
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.toy import toy_preset

GIB = 2**30


def plan(*words: str, cwd: Path, check: int = 0) -> dict:
    return json.loads(mtvcraft("plan", *words, "--json", cwd=cwd, check=check).stdout)


def test_a_card_that_is_not_here_is_planned_without_torch_in_a_moment(tmp_path: Path) -> None:
    words = ["plan", "--preset", "7b", "--frames", "49", "--size", "512x512", "--vram", "24", "--ram", "64", "--json"]
    program = (
        "import sys\n"
        "from mtvcraft_cli.cli.front import main\n"
        "import mtvcraft_cli.cli\n"
        f"code = main({words!r})\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'accelerate'} & set(sys.modules)\n"
        "sys.exit(code or (f'imported {heavy}' if heavy else 0))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["preset"], told["fits"], told["offload"]) == ("7b", True, "none")
    assert (told["visual_tokens"], told["motion_tokens"], told["windows"]) == (13312, 312, 1)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1, "seconds of the processor"


def test_what_does_not_fit_ends_with_5_and_the_nearest_that_does(tmp_path: Path) -> None:
    result = mtvcraft("plan", "--preset", "17b", "--vram", "24", "--ram", "4", "--json", cwd=tmp_path)
    assert result.returncode == 5
    told = json.loads(result.stdout)
    assert told["fits"] is False
    assert told["nearest"]["fits"] is True
    assert "--preset 7b" in told["nearest"]["options"]
    assert "GB to fetch" in told["nearest"]["options"]
    lines = result.stderr.strip().splitlines()
    assert lines[-2].startswith("error: ")
    assert "of RAM" in lines[-2]
    assert "--preset 7b" in lines[-1]


def test_text_and_json_say_the_same_peak(tmp_path: Path) -> None:
    words = ["--preset", "7b", "--vram", "24", "--ram", "64"]
    told = plan(*words, cwd=tmp_path)
    text = mtvcraft("plan", *words, cwd=tmp_path, check=0).stdout
    assert f"at most {told['card_peak_bytes'] / GIB:.1f} GiB of the card" in text
    assert "CogVideoX licence" in text
    assert "15.0 GB to fetch" in text


def test_options_change_the_plan(tmp_path: Path) -> None:
    whole = ["--preset", "7b", "--vram", "48", "--ram", "64"]
    usual = plan(*whole, cwd=tmp_path)
    moved = plan(*whole, "--offload", "model", "--two-passes", cwd=tmp_path)
    assert moved["card_peak_bytes"] < usual["card_peak_bytes"]
    streamed = plan(*whole, "--offload", "group", cwd=tmp_path)
    assert streamed["card_peak_bytes"] < moved["card_peak_bytes"] / 2
    assert streamed["ram_peak_bytes"] > moved["ram_peak_bytes"]
    split = plan(*whole[:2], "--vram", "12,12", "--ram", "64", cwd=tmp_path)
    assert (split["cards"], split["fits"], len(split["further_cards_peak_bytes"])) == ([0, 1], True, 1)
    longer = plan(*whole, "--frames", "200", "--steps", "10", "--size", "256x256", cwd=tmp_path)
    assert (longer["windows"], longer["steps"], longer["visual_tokens"]) == (5, 10, 3328)


def test_everything_on_cards_means_on_all_that_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--preset", "17b", "--ram", "256", "--json", "--vram"]
    assert main([*words, "24,24", "--offload", "none"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["cards"], told["fits"], len(told["further_cards_peak_bytes"])) == ([0, 1], True, 1)
    assert main([*words, "24", "--offload", "none"]) == 5, "alone it is too small"
    capsys.readouterr()
    assert main([*words, "24,24", "--offload", "group"]) == 2, "as `animate` refuses it"
    assert "`--offload group` takes layers off a card" in capsys.readouterr().err


def test_every_model_is_planned_where_none_is_named(tmp_path: Path) -> None:
    told = plan("--vram", "24", "--ram", "4", cwd=tmp_path)
    fits = {each["preset"]: each["fits"] for each in told}
    assert fits == {"18b": False, "17b": False, "17b-fast": False, "7b": True, "6b": True, "mini": True}
    assert "17b-fast" in mtvcraft("plan", "--vram", "24", cwd=tmp_path, check=0).stdout
    assert_refused(mtvcraft("plan", "--size", "512x512", cwd=tmp_path), 2, "--preset")


def test_settings_for_other_commands_do_not_keep_every_model_from_being_planned(tmp_path: Path) -> None:
    (tmp_path / "mtvcraft.toml").write_text('preset = "auto"\nsteps = 30\n')
    result = mtvcraft("plan", "--vram", "24", "--json", cwd=tmp_path, check=0)
    assert len(json.loads(result.stdout)) > 1
    assert "its own" in result.stderr
    (tmp_path / "mtvcraft.toml").write_text('preset = "7b"\n')
    assert plan("--vram", "24", cwd=tmp_path)["preset"] == "7b"
    assert len(plan("--vram", "24", "--preset", "auto", cwd=tmp_path)) > 1
    assert_refused(mtvcraft("plan", "--preset", "auto", "--steps", "9", cwd=tmp_path), 2, "--steps", "one model")


def test_without_a_card_named_this_machine_is_looked_at(tmp_path: Path) -> None:
    told = plan("--preset", "mini", "--device", "cpu", cwd=tmp_path)
    assert (told["device"], told["card_peak_bytes"], told["fits"]) == ("cpu", None, True)
    assert told["visual_tokens"] == 7 * 8 * 8  # 25 frames of 64 x 64 at 4 pixels a latent pixel, 2 of those a patch
    assert told["time_source"] == "guess"


def test_wrong_words_are_refused(tmp_path: Path) -> None:
    assert_refused(mtvcraft("plan", "--preset", "8b", cwd=tmp_path), 2, "8b")
    assert_refused(mtvcraft("plan", "--preset", "7b", "--size", "500x500", cwd=tmp_path), 2, "496x496")
    for words in ("0", "12,", "much"):
        assert_refused(mtvcraft("plan", "--preset", "7b", "--vram", words, cwd=tmp_path), 2, f"--vram {words}")


def test_animate_shows_its_plan_and_learns_how_fast_it_was(tmp_path: Path) -> None:
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    toy_preset(tmp_path)
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy"]
    first = json.loads(mtvcraft(*words, "-o", "a.mp4", "--dry-run", "--json", cwd=tmp_path, check=0).stdout)
    assert first["plan"]["time_source"] == "guess"
    run = mtvcraft(*words, "-o", "a.mp4", "--json", cwd=tmp_path, check=0)
    shown = [line for line in run.stderr.splitlines() if "GiB of RAM" in line]
    assert len(shown) == 1
    assert "a guess" in shown[0]
    (tmp_path / "text").mkdir()
    plain = mtvcraft(*words, "-o", "text/a.mp4", "--dry-run", cwd=tmp_path, check=0).stdout
    assert len(plain.splitlines()) == 3
    again = mtvcraft(*words, "--seed", "1", "-o", "b.mp4", "--json", cwd=tmp_path, check=0, anew=True)
    second = json.loads(again.stdout)
    assert second["plan"]["time_source"] == "measured"
    rates = json.loads((tmp_path / ".cache" / "mtvcraft" / "rates.json").read_text())
    (device,) = rates
    assert device.startswith("cpu: ")
    assert set(rates[device]) == {"denoise", "code", "load"}
    predicted, real = second["plan"]["ram_peak_bytes"], second["peak_memory_bytes"]["ram"]
    assert -0.1 < predicted / real - 1 < 0.25, "nearly all of it are libraries here; benchmarks/plan.py has the models"


def test_animate_refuses_what_does_not_fit_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtvcraft_cli.cache import Cache
    from mtvcraft_cli.jobs.animation import AnimateJob, prepare_animation

    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    preset = load_preset(str(toy_preset(tmp_path)))
    job = AnimateJob(
        reference=tmp_path / "ref.png", drive=tmp_path / "drive.npy", output=tmp_path / "out.mp4", preset=preset
    )
    monkeypatch.setattr("mtvcraft_cli.jobs.fit.free_memory", lambda: 0)
    monkeypatch.setattr("mtvcraft_cli.jobs.fit.held_memory", lambda: 10 * 2**20)
    with pytest.raises(MtvcraftError, match="of RAM, and 10 MiB are free") as caught:
        prepare_animation(job, Cache(tmp_path / "cache"))
    assert caught.value.exit == Exit.FIT
    assert not (tmp_path / "out.mp4").exists()


def planned(name: str, machine: Machine, tmp_path: Path, **changes: object) -> object:
    preset = replace(load_preset(name), **changes)
    return make_plan(task_of(preset, None, 49), machine, rates_of(machine, tmp_path))


def card(gib: float, ram_gib: float = 256) -> Machine:
    return Machine(card="some card", card_free=int(gib * GIB), ram_free=int(ram_gib * GIB))


@pytest.mark.parametrize(
    ("name", "gib", "words"),
    [
        ("17b", 3.5, "`--two-passes`"),
        ("7b", 4.2, "`--size 320x320`"),
        ("7b", 0.5, "`--preset mini`"),
    ],
)
def test_the_nearest_setting_gives_up_the_least(name: str, gib: float, words: str, tmp_path: Path) -> None:
    plan = planned(name, card(gib), tmp_path)
    assert plan.shortages
    found = nearest(plan, None, tmp_path)
    assert found is not None
    assert found[0].startswith(words)
    assert not found[1].shortages


def test_offloading_is_the_nearest_where_it_was_forbidden(tmp_path: Path) -> None:
    machine = card(16)
    plan = make_plan(task_of(load_preset("7b"), None, 49), machine, rates_of(machine, tmp_path), Placement())
    assert plan.shortages
    found = nearest(plan, None, tmp_path)
    assert found is not None
    assert found[0].startswith("`--offload model`")


def test_a_machine_for_nothing_is_told_so(tmp_path: Path) -> None:
    plan = planned("mini", Machine(card=None, card_free=None, ram_free=2**20), tmp_path)
    with pytest.raises(MtvcraftError) as caught:
        check_fit(plan, None, tmp_path)
    assert caught.value.exit == Exit.FIT
    assert "even" in caught.value.hint


def test_auto_takes_the_best_that_is_here_and_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights are taken to be here: what counts is which of them fit."""
    import torch

    real = fit.locate
    monkeypatch.setattr(
        fit,
        "locate",
        lambda preset, folder: {name: replace(part, path=tmp_path) for name, part in real(preset, folder).items()},
    )
    for gib, ram_gib, name in ((80, 256, "18b"), (8, 256, "18b"), (24, 4, "7b"), (0.5, 256, "mini")):
        best = best_fitting(None, card(gib, ram_gib), tmp_path)
        assert (best.name if best else "mini") == name
        monkeypatch.setattr("mtvcraft_cli.device.place.choose_device", lambda name: torch.device("cuda"))
        machine = card(gib, ram_gib)
        monkeypatch.setattr(choice, "machine_of", lambda device, cards, machine=machine: machine)
        chosen, why = choose_preset("auto", None, "auto")
        assert chosen.name == name
        assert name in why
    monkeypatch.setattr(fit, "locate", real)
    assert best_fitting(None, card(80), tmp_path) is None, "no weights are here"


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({}, "18b"),
        ({"whole": True}, "7b"),
        ({"offload": "none"}, "7b"),
        ({"offload": "group"}, "18b"),
        ({"ranks": 2}, "7b"),
        ({"ranks": 7}, None),
    ],
    ids=str,
)
def test_auto_takes_what_fits_as_it_is_asked_for(
    asked: dict[str, Any], name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed, the largest fits 24 GB; skipped blocks and several processes want it whole there."""
    real = fit.locate
    monkeypatch.setattr(
        fit,
        "locate",
        lambda preset, folder: {name: replace(part, path=tmp_path) for name, part in real(preset, folder).items()},
    )
    best = best_fitting(None, card(24), tmp_path, **asked)
    assert (best and best.name) == name


def test_animate_chooses_by_all_that_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen = dict[str, Any]()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("mtvcraft_cli.device.place.choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(choice, "machine_of", lambda device, cards: card(24))
    monkeypatch.setattr(choice, "best_fitting", lambda *given, **asked: seen.update(asked))
    words = ["a.png", "b.npy", "--speed", "fast", "--two-passes", "--offload", "model"]
    reader(animation_job, "animate")(words, {}, [])
    assert seen == {"offload": "model", "two_passes": True, "whole": True, "skips": True, "ranks": 2}


@pytest.mark.parametrize(
    ("name", "gib", "changes", "placement", "words"),
    [
        ("17b", 12, {"whole": True, "skips": True}, None, "`--preset mini`"),
        ("17b", 24, {"ranks": (2, 1)}, None, "`--preset 7b`"),
        ("17b", 24, {"two_passes": True, "ranks": (1, 2)}, Placement(offload="none"), "`--preset 7b`"),
        ("17b", 3.5, {}, Placement(offload="none"), "`--preset mini`"),
    ],
    ids=str,
)
def test_the_nearest_is_one_that_the_same_words_run(
    name: str, gib: float, changes: dict[str, Any], placement: Placement | None, words: str, tmp_path: Path
) -> None:
    machine = card(gib)
    task = replace(task_of(load_preset(name), None, 49), **changes)
    found = nearest(make_plan(task, machine, rates_of(machine, tmp_path), placement), None, tmp_path)
    assert found is not None
    assert found[0].startswith(words)
    nearby = found[1]
    assert prod(nearby.task.ranks) == prod(task.ranks)
    assert (nearby.task.whole, nearby.task.skips) == (task.whole, task.skips)
    assert nearby.task.two_passes is (task.two_passes and nearby.task.ranks[0] == 1)
    assert nearby.placement.offload in ("none", "model")
    assert placement is None or nearby.placement == placement


def test_this_machine_has_what_this_process_holds_as_well() -> None:
    machine = machine_of("cpu")
    assert machine.card is None
    assert machine.ram_free is None or machine.ram_free > 0
