"""The small model that comes in the package, as it comes: it follows the motion, and needs no network."""

import subprocess
import sys
from pathlib import Path

import pytest

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.eval.mini import MiniReport
from mtvcraft_cli.eval.model import measure_mini
from mtvcraft_cli.jobs.mini import MiniJob, prepare_mini
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.runs.models import load_tokenizer
from mtvcraft_cli.train.motion import read_motion
from mtvcraft_cli.train.tokenizer import round_trips
from mtvcraft_cli.video.read import probe
from mtvcraft_cli.weights.locate import locate
from tests.joints.people import shared

REPOSITORY = Path(__file__).parents[2]
ALONE = """
import os, socket
def refuse(*asked, **more):
    os.write(2, f"the network was asked for: {asked}".encode())
    os._exit(99)  # nobody can take this for a network that is down, and go on without
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from mtvcraft_cli.cli import run
run()
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> MiniReport:
    job = MiniJob(preset=load_preset("mini"), clips=2, frames=25, device="cpu")
    return measure_mini(prepare_mini(job, Cache(tmp_path_factory.mktemp("cache"))), silent)


def test_it_follows_the_motion_of_characters_that_it_has_never_seen(report: MiniReport) -> None:
    totals = report.as_json()["totals"]
    assert report.trained_on == "cpu"
    assert totals["psnr"] > totals["psnr_still"]
    for other in ("other_motion", "no_motion"):
        assert totals["psnr"] > totals[f"psnr_{other}"] + 1
        assert totals["iou"] > totals[f"iou_{other}"] + 0.05


def test_it_needs_no_network_and_lets_no_library_speak(tmp_path: Path) -> None:
    assets, out = REPOSITORY / "assets", tmp_path / "out.mp4"
    words = ["animate", assets / "robot.png", assets / "drive.mp4", "--end", "0.4", "-o", out, "-q"]
    home = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
        "PATH": "/usr/bin:/bin",
    }
    result = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, words)], env=home, capture_output=True, text=True, timeout=600
    )
    for word in ("bitsandbytes", "gemm", "kernels", "warning", "tensorflow", "absl", "delegate", "feedback"):
        assert word not in result.stderr.lower(), "a library that is only brought in"
    assert result.returncode == 0, result.stderr
    assert probe(out).frames == 10


def test_its_tokens_bring_whole_takes_back() -> None:
    motion, preset = read_motion([str(shared("motion/cmu_test.npz"))]), load_preset("mini")
    tokenizer = load_tokenizer(preset, locate(preset, None)["tokenizer"])
    found = round_trips(tokenizer, motion, preset.statistics, preset.differential, preset.frames, preset.overlap)
    assert found["round_trip_mm"] < 50
    assert found["codes_used"] > 0.6
