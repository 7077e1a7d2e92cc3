"""Runs the program as a user would: in a process of its own, with a cache and settings of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def mtvcraft(
    *words: str | Path, cwd: Path, env: dict[str, str] | None = None, check: int | None = None, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run `mtvcraft WORDS` in `cwd`; `check` is the exit code that it must end with."""
    home = {name: value for name, value in os.environ.items() if not name.startswith(("MTVCRAFT", "HF_"))}
    settings = {"HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd / ".config"), "XDG_CACHE_HOME": str(cwd / ".cache")}
    result = subprocess.run(
        [sys.executable, "-m", "mtvcraft_cli", *map(str, words)],
        cwd=cwd,
        env={**home, **settings, **(env or {}), **more},
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    if check is not None:
        assert result.returncode == check, f"exit {result.returncode}, not {check}:\n{result.stdout}\n{result.stderr}"
    return result


def assert_refused(result: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    """It ended with this code and the two lines, named what was wrong, and showed no trace."""
    lines = result.stderr.strip().splitlines()
    assert result.returncode == exit_code, result.stderr
    assert "Traceback" not in result.stderr
    assert lines[-2].startswith("error: "), result.stderr
    assert lines[-1].startswith("hint: "), result.stderr
    assert len(lines[-1]) > len("hint: ")
    assert result.stdout == ""
    for word in words:
        assert word in "\n".join(lines[-2:]), result.stderr


def heeding_ctrl_c() -> None:
    """For `preexec_fn`: a test run in the background of a script ignores SIGINT, and its children would, too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
