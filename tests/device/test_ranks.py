"""Several processes: how they share the work, and that they make what one makes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtvcraft_cli.device.ranks import arrange, rank, rank_device, world_size
from mtvcraft_cli.errors import Exit, MtvcraftError


@pytest.mark.parametrize(
    ("ranks", "branches", "groups", "sharing"),
    [(2, 2, 2, 1), (4, 2, 2, 2), (2, 1, 1, 2), (3, 3, 3, 1), (2, 3, 1, 2), (6, 3, 3, 2), (8, 2, 2, 4)],
)
def test_branches_run_apart_where_the_number_of_processes_lets_them(
    ranks: int, branches: int, groups: int, sharing: int
) -> None:
    assert arrange(ranks, branches, heads=48, tokens=13312) == (groups, sharing)


def test_what_cannot_be_cut_evenly_is_refused_with_numbers_that_can() -> None:
    with pytest.raises(MtvcraftError, match="48 attention heads can't be cut evenly among 5 of 10 processes") as caught:
        arrange(10, 2, heads=48, tokens=13310)
    assert "one of 2, " in caught.value.hint
    assert caught.value.exit == Exit.USAGE
    with pytest.raises(MtvcraftError, match="13311 visual tokens"):
        arrange(4, 2, heads=48, tokens=13311)
    with pytest.raises(MtvcraftError) as caught:
        arrange(2, 1, heads=1, tokens=1)
    assert caught.value.hint == "start one process"


def test_the_environment_tells_who_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")  # left over from something else
    assert (world_size(), rank()) == (1, 0)
    assert rank_device("cuda:1", "disk") == "cuda:1"
    monkeypatch.setenv("RANK", "3")
    assert (world_size(), rank()) == (4, 3)
    assert rank_device("auto", "auto") == "auto"
    with pytest.raises(MtvcraftError, match="cuda:1"):
        rank_device("cuda:1", "auto")
    with pytest.raises(MtvcraftError, match="--offload group"):
        rank_device("auto", "group")


def torchrun(*words: str | Path, cwd: Path, ranks: int = 2, **more: str) -> subprocess.CompletedProcess[str]:
    """Start processes that work together."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    folder = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1", **more}
    done = [*command, *map(str, words)]
    return subprocess.run(done, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600)


def test_a_team_of_two_makes_what_one_process_makes() -> None:
    script = Path(__file__).with_name("team.py")
    done = torchrun(script, cwd=script.parents[2])
    told = [line for line in done.stdout.splitlines() if line.startswith(("small", "large"))]
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(told) == 4, done.stdout + done.stderr
    for line in told:
        _, ranks, own, off = line.split(" | ")
        rows, patches = map(int, own.split())
        assert (rows, patches) == {"(2, 1)": (1, 24), "(1, 2)": (2, 12)}[ranks], "work that was not shared"
        assert float(off) <= 1e-5, line
