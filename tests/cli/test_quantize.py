"""`--quantize`, from the words to the sidecar, and what of it may not reach the user."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.cli.doctor import _laid_out
from mtvcraft_cli.device.packed import FP8Linear, NF4Linear
from mtvcraft_cli.device.placement import Placement
from mtvcraft_cli.device.plan import Machine, Plan, make_plan, next_smaller
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs import quantising
from mtvcraft_cli.jobs.animation import AnimateJob, PreparedAnimation, job_of_sidecar, prepare_animation
from mtvcraft_cli.jobs.fit import rates_of, task_of
from mtvcraft_cli.jobs.quantising import compare
from mtvcraft_cli.pipeline import run_animation
from mtvcraft_cli.preset import Preset, load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.runs.models import Loaded, load_transformer, models_wanted
from mtvcraft_cli.runs.report import AnimationReport
from mtvcraft_cli.sidecar import sidecar_path
from tests.cli.inputs import picture, save_joints
from tests.cli.run import mtvcraft
from tests.cli.toy import toy_preset
from tests.cli.toy_wan import released_wan_weights, toy_wan_preset, write_toy_lora

pytest.importorskip("bitsandbytes", reason="quantisation is an extra")

GIB = 2**30
KERNELS = """
from pathlib import Path
def get_kernel(*words, **more):
    Path({mark!r}).write_text("asked for")
    raise RuntimeError("no network")
"""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    return tmp_path


def ready(
    there: Path, output: str, preset: Preset | None = None, cache: str = "cache", **changes: object
) -> PreparedAnimation:
    job = AnimateJob(
        reference=there / "ref.png",
        drive=there / "drive.npy",
        output=there / output,
        preset=preset or load_preset(str(toy_preset(there))),
        device="cpu",
    )
    return prepare_animation(replace(job, **changes), Cache(there / cache))


def made(prepared: PreparedAnimation) -> AnimationReport:
    report = run_animation(prepared, silent)
    assert sidecar_path(prepared.job.output).is_file()
    return report


def test_a_run_in_int8_says_nothing_of_bitsandbytes_and_asks_no_hub(there: Path) -> None:
    toy_preset(there)
    mark = there / "asked"
    (there / "fake" / "kernels").mkdir(parents=True)
    (there / "fake" / "kernels" / "__init__.py").write_text(KERNELS.format(mark=str(mark)))
    path = os.pathsep.join([str(there / "fake"), os.environ.get("PYTHONPATH", "")])
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--quantize", "int8", "-o", "out.mp4"]
    done = mtvcraft(*words, cwd=there, check=0, PYTHONPATH=path)
    heard = (done.stdout + done.stderr).lower()
    for word in ("bitsandbytes", "bnb", "gemm", "kernels", "cast", "warning", "float16"):
        assert word not in heard
    assert "matrices in int8" in done.stderr
    assert "int8: 24 matrices of the transformer are packed" in done.stderr
    assert not mark.exists()
    sidecar = json.loads((there / "out.mp4.json").read_text())
    assert sidecar["settings"]["quantize"] == "int8"
    assert "bitsandbytes" in sidecar["versions"]
    from bitsandbytes.functional import has_avx512bf16

    if has_avx512bf16():  # only there the library asks at all
        subprocess.run(
            [sys.executable, "-c", "import bitsandbytes"], env={**os.environ, "PYTHONPATH": path}, check=True
        )
        assert mark.exists(), "the trap works"


def test_results_with_and_without_are_never_mixed_and_are_made_again_alike(there: Path) -> None:
    plain = ready(there, "plain.mp4")
    assert made(plain).kept_windows == 0
    packed = ready(there, "packed.mp4", quantize="int8")
    assert packed.fingerprint != plain.fingerprint
    assert made(packed).kept_windows == 0
    assert (there / "plain.mp4").read_bytes() != (there / "packed.mp4").read_bytes()
    assert made(ready(there, "again.mp4", quantize="int8")).kept_windows == 1
    for way in ("model", "group", "disk"):
        moved = ready(there, f"{way}.mp4", cache=way, quantize="int8", offload=way)
        assert made(moved).kept_windows == 0
    told = json.loads((there / "packed.mp4.json").read_text())
    settings = {"weights": None, "trust_file": None, "force": False, "command": ""}
    job = job_of_sidecar(there / "packed.mp4.json", Cache(there / "third"), output=there / "replayed.mp4", **settings)
    assert job.quantize == "int8"
    made(prepare_animation(job, Cache(there / "third")))
    for name in ("again", "model", "group", "disk", "replayed"):
        assert (there / f"{name}.mp4").read_bytes() == (there / "packed.mp4").read_bytes()
    del told["settings"]["quantize"]
    (there / "old.mp4.json").write_text(json.dumps(told))
    old = job_of_sidecar(there / "old.mp4.json", Cache(there / "third"), output=there / "o.mp4", **settings)
    assert old.quantize == "none", "sidecars from before"


def test_models_that_are_handed_on_are_told_apart(there: Path) -> None:
    jobs = [ready(there, "a.mp4"), ready(there, "b.mp4", quantize="fp8"), ready(there, "c.mp4", quantize="fp8", seed=3)]
    assert len({models_wanted(each.job) for each in jobs}) == 2
    loaded, found = Loaded(), []
    for each in jobs:
        loaded.tokenizer_for(each)
        found.append(loaded.models_for(each, [])[0].transformer)
    packed = [sum(isinstance(part, FP8Linear) for part in model.modules()) for model in found]
    assert packed == [0, 24, 24]
    assert found[1] is found[2] is not found[0]


def test_the_large_model_and_its_text_encoder_take_nf4_after_a_lora(there: Path) -> None:
    weights = released_wan_weights(there / "weights", seed=1)
    write_toy_lora(there / "style.safetensors")
    cache, kept = Cache(there / "cache"), []
    plain = load_preset(str(toy_wan_preset(there)))
    styled = replace(plain, loras=(str(there / "style.safetensors"),))
    for name, preset, quantize in (("plain", plain, "none"), ("packed", plain, "nf4"), ("styled", styled, "nf4")):
        prepared = ready(there, f"{name}.mp4", preset, weights=weights, quantize=quantize)
        assert made(prepared).kept_windows == 0
        kept.append(sum(entry.stage == "text" for entry in cache.entries()))
    texts = kept[0]
    assert kept == [texts, 2 * texts, 2 * texts], "texts that were read by a quantised encoder are kept apart"
    assert len({(there / f"{name}.mp4").read_bytes() for name in ("plain", "packed", "styled")}) == 3
    remarks: list[str] = []
    with_style = load_transformer(styled, prepared.parts, torch.device("cpu"), "nf4", remarks)
    assert remarks[0].startswith("LoRA")
    assert remarks[1].startswith("nf4: 48 matrices")
    without = load_transformer(plain, prepared.parts, torch.device("cpu"), "nf4", [])
    queries = [model.get_submodule("blocks.0.attn1.to_q") for model in (with_style, without)]
    assert {type(layer) for layer in queries} == {NF4Linear}
    assert not torch.equal(queries[0].packed, queries[1].packed)
    (weights / "models_t5_umt5-xxl-enc-bf16.pth").unlink()
    ready(there, "kept.mp4", plain, weights=weights, quantize="nf4")
    with pytest.raises(MtvcraftError) as caught:
        ready(there, "new.mp4", plain, weights=weights, quantize="int8")
    assert caught.value.exit == Exit.WEIGHTS, "no text was read in int8 yet"


def test_a_missing_package_is_said_before_weights_are_looked_for(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    preset = load_preset(str(toy_wan_preset(there)))  # its weights are not here
    with pytest.raises(MtvcraftError, match="bitsandbytes") as caught:
        ready(there, "out.mp4", preset, quantize="nf4", weights=there)
    assert caught.value.exit == Exit.USAGE
    with pytest.raises(MtvcraftError) as caught:
        ready(there, "out.mp4", preset, quantize="fp8", weights=there)
    assert caught.value.exit == Exit.WEIGHTS


def card(gib: float) -> Machine:
    return Machine(card="some card", card_free=int(gib * GIB), ram_free=64 * GIB)


def test_plans_quantise_when_they_are_asked_and_only_then(tmp_path: Path) -> None:
    def planned(name: str, machine: Machine, quantize: str = "none") -> Plan:
        task = task_of(load_preset(name), None, 49)
        return make_plan(task, machine, rates_of(machine, tmp_path), None, quantize)

    plain, packed = planned("17b", card(24)), planned("17b", card(24), "nf4")
    assert plain.placement.quantize == "none"
    assert packed.placement.quantize == "nf4"
    assert not packed.shortages
    assert plain.placement.offload == "group"
    assert packed.placement.offload in ("none", "model"), "packed, it need not be streamed"
    assert planned("17b", card(80), "nf4").card_peak < planned("17b", card(80)).card_peak
    on_cpu = Machine(card=None, card_free=None, ram_free=24 * GIB)
    assert planned("7b", on_cpu).shortages
    assert not planned("7b", on_cpu, "int8").shortages
    peaks = {kind: planned("7b", card(80), kind).card_peak for kind in ("none", "int8", "nf4")}
    assert peaks["nf4"] < peaks["int8"] < peaks["none"]
    assert planned("7b", card(12), "fp8").shortages == []
    small = planned("7b", card(8), "int8")
    assert small.placement == Placement(offload="group", quantize="int8"), "what is packed may be streamed as well"
    assert not small.shortages
    assert small.work["move"] < planned("7b", card(8)).work["move"], "and there is less of it"
    following = next_smaller(small, Placement(offload="model", quantize="int8"))
    assert following == Placement(offload="group", quantize="int8"), "a step down packs nothing out"


def test_the_plan_of_a_card_that_is_not_here_takes_the_word(tmp_path: Path) -> None:
    words = ["plan", "--preset", "17b", "--vram", "24", "--ram", "64", "--quantize", "nf4", "--json"]
    told = json.loads(mtvcraft(*words, cwd=tmp_path, check=0).stdout)
    assert (told["quantize"], told["fits"]) == ("nf4", True)


def test_doctor_measures_every_kind_and_says_what_can_not_run(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare(load_preset(str(toy_preset(there))), None, "cpu")
    by_kind = {each.kind: each for each in found.rows}
    assert list(by_kind) == ["none", "int8", "nf4", "fp8"]
    assert 0 == by_kind["none"].error < by_kind["int8"].error < by_kind["fp8"].error < by_kind["nf4"].error < 0.4
    assert by_kind["nf4"].bytes < by_kind["int8"].bytes < by_kind["none"].bytes
    assert all(each.seconds > 0 for each in found.rows)
    assert found.random_weights
    assert "random weights" in found.remarks[0]
    json.dumps(found.told())
    weights = released_wan_weights(there / "weights", seed=1)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    large = compare(load_preset(str(toy_wan_preset(there, size_px=[32, 32]))), weights, "cpu")
    assert not large.random_weights
    rows = {(each.part, each.kind): each for each in large.rows}
    for part in ("transformer", "text_encoder"):
        assert rows[part, "int8"].error is None
        assert "mtvcraft[quantize]" in rows[part, "int8"].why
        assert 0 < rows[part, "fp8"].error < 0.3
    text = _laid_out(large)
    assert "does not run" in text
    assert "int8: `--quantize int8` needs bitsandbytes" in text


def test_doctor_refuses_what_does_not_fit_and_shortens_what_would_take_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mtvcraft_cli.weights.locate import locate

    preset = load_preset("7b")
    parts = locate(preset, tmp_path)
    monkeypatch.setattr(quantising, "free_memory", lambda: 100 * GIB)
    assert quantising._window(preset, parts, "cpu").frames == 9
    assert quantising._window(load_preset("mini"), locate(load_preset("mini"), tmp_path), "cpu").frames == 25
    monkeypatch.setattr(quantising, "free_memory", lambda: 8 * GIB)
    with pytest.raises(MtvcraftError, match="can't be measured here") as caught:
        compare(preset, tmp_path, "cpu")
    assert caught.value.exit == Exit.FIT


def test_doctor_takes_the_words(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from mtvcraft_cli.cli import main as _registered  # noqa: F401 - the commands
    from mtvcraft_cli.cli.front import main

    for name in ("MTVCRAFT_CACHE", "HF_HUB_DISABLE_TELEMETRY", "MTVCRAFT_DEBUG"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(there)
    heeded = signal.getsignal(signal.SIGTERM)
    try:
        assert main(["doctor", "--preset", "mini"]) == 2
        assert "--quantize" in capsys.readouterr().err
        assert main(["doctor", "--quantize", "--preset", str(toy_preset(there)), "--device", "cpu", "--json"]) == 0
    finally:
        signal.signal(signal.SIGTERM, heeded)
    told = json.loads(capsys.readouterr().out)
    assert [row["kind"] for row in told["rows"]] == ["none", "int8", "nf4", "fp8"]
    assert told["frames"] == 49
