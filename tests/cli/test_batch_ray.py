"""The same jobs on a Ray cluster on this machine, one of whose workers is killed."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mtvcraft_cli.cli.front import main
from tests.cli.inputs import picture, save_joints
from tests.cli.run import mtvcraft
from tests.cli.toy import toy_preset

JOBS = 6


@pytest.fixture
def there(tmp_path: Path) -> Path:
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 60)
    toy_preset(tmp_path)
    rows = "\n".join(f"ref.png,drive.npy,{n}.mp4,{n}" for n in range(JOBS))
    (tmp_path / "jobs.csv").write_text(f"reference,drive,output,seed\n{rows}\n")
    return tmp_path


def test_without_ray_the_way_out_is_named(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(there)
    monkeypatch.setenv("MTVCRAFT_CACHE", str(there / ".cache"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["batch", "jobs.csv", "--preset", "toy", "--ray", "local"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'mtvcraft[ray]'" in said
    assert main(["batch", "jobs.csv", "--ray", "local"]) == 2
    assert "names its preset" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray isn't installed: pip install 'mtvcraft[ray]'")
@pytest.mark.timeout(1800)
def test_a_worker_dies_in_the_middle_and_every_job_still_ends_exactly_once(there: Path) -> None:
    words = ["batch", "jobs.csv", "--preset", "toy", "--steps", "20", "--ray", "local", "--progress", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words],
        cwd=there,
        env={**os.environ, "HOME": str(there), "MTVCRAFT_CACHE": str(there / ".cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said, victim = list[str](), ""
    for line in process.stderr:
        said.append(line)
        told = json.loads(line) if line.startswith("{") else {}
        if not victim and "denoise" in told.get("stage", "") and told["done"] > 0:
            victim = told["worker"]
            os.kill(int(victim.rpartition(":")[2]), signal.SIGKILL)
    stdout, _ = process.communicate(timeout=600)
    text = "".join(said)
    assert process.returncode == 0, text
    assert victim, text
    assert re.search(r"worker .* died over row \d, which another one begins again", text)
    assert sorted(stdout.splitlines()) == [f"{n}.mp4" for n in range(JOBS)]
    lines = [json.loads(line) for line in (there / "jobs.results.jsonl").read_text().splitlines()]
    assert sorted(line["output"] for line in lines) == [f"{n}.mp4" for n in range(JOBS)]
    assert {line["status"] for line in lines} == {"done"}
    again = [line for line in lines if line["attempts"] > 1]
    assert len(again) == 1
    assert again[0]["worker"] != victim
    assert "usage stat" not in text.lower()
    alone = ["animate", "ref.png", "drive.npy", "--preset", "toy", "--steps", "20"]
    number = again[0]["row"] - 1
    mtvcraft(*alone, "--seed", str(number), "-o", "alone.mp4", "--cache-dir", "other", cwd=there, check=0)
    assert (there / "alone.mp4").read_bytes() == (there / f"{number}.mp4").read_bytes()
