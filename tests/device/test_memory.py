"""How much RAM may still be taken, by the limits that the system and the container set."""

import subprocess
import sys
from pathlib import Path

import pytest

from mtvcraft_cli.device.memory import free_memory, group_limits, held_memory

GIB = 2**30


def machine(root: Path, available: int, cgroup: str, files: dict[str, str]) -> Path:
    """A root with `proc` and `sys` as Linux shows them."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {64 * GIB // 1024} kB\nMemAvailable: {available // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_container_all_that_is_available_is_free(tmp_path: Path) -> None:
    root = machine(tmp_path, 20 * GIB, "0::/\n", {"memory.max": "max\n", "memory.current": f"{GIB}\n"})
    assert group_limits(root) == []
    assert free_memory(root) == 20 * GIB


def test_a_limit_of_version_2_counts_and_unused_pages_of_files_do_not(tmp_path: Path) -> None:
    files = {
        "memory.max": f"{8 * GIB}\n",
        "memory.current": f"{7 * GIB}\n",
        "memory.stat": f"anon {GIB}\ninactive_file {5 * GIB}\nactive_file 0\n",
    }
    root = machine(tmp_path, 20 * GIB, "0::/\n", files)
    assert group_limits(root) == [(8 * GIB, 2 * GIB)]
    assert free_memory(root) == 6 * GIB


def test_the_tightest_of_nested_groups_counts(tmp_path: Path) -> None:
    files = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "0\n",
        "a/memory.max": f"{4 * GIB}\n",
        "a/memory.current": f"{GIB}\n",
    }
    root = machine(tmp_path, 20 * GIB, "0::/a/b\n", files)
    assert free_memory(root) == 3 * GIB


def test_a_limit_of_version_1_counts_and_its_word_for_none_does_not(tmp_path: Path) -> None:
    files = {
        "memory/job/memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory/job/memory.usage_in_bytes": f"{GIB}\n",
        "memory/job/memory.stat": f"cache 0\ninactive_file 0\ntotal_inactive_file {GIB // 2}\n",
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/memory.usage_in_bytes": f"{9 * GIB}\n",
    }
    root = machine(tmp_path, 20 * GIB, "5:cpuset:/\n4:cpu,memory:/job\n0::/\n", files)
    assert group_limits(root) == [(2 * GIB, GIB // 2)]
    assert free_memory(root) == 2 * GIB - GIB // 2


def test_less_is_available_than_the_limit_lets(tmp_path: Path) -> None:
    root = machine(tmp_path, GIB, "0::/\n", {"memory.max": f"{8 * GIB}\n", "memory.current": "0\n"})
    assert free_memory(root) == GIB


def test_a_group_that_is_over_its_limit_has_nothing_free(tmp_path: Path) -> None:
    root = machine(tmp_path, GIB, "0::/\n", {"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"})
    assert free_memory(root) == 0


def test_a_system_that_tells_nothing_is_taken_at_its_word(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="only Linux tells what a process holds")
def test_what_this_process_holds_grows_with_it() -> None:
    before = held_memory()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    after = held_memory()
    assert before is not None
    assert after is not None
    assert after - before > 50 * 2**20
    del block


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells what a process has held")
def test_the_peak_is_this_process_s_own_and_not_that_of_the_one_that_started_it() -> None:
    inner = "from mtvcraft_cli.device.memory import peak_memory; print(peak_memory()['ram'])"
    run = f"subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    outer = f"import subprocess, sys; block = b'x' * {400 * 2**20}; {run}"
    done = subprocess.run([sys.executable, "-c", outer], check=True, capture_output=True, text=True)
    assert 2**20 < int(done.stdout) < 200 * 2**20
