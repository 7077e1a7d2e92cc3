"""Runs the program as a user would: in a process of its own, with a cache and settings of its own."""

import json
import os
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory


def mtvcraft(
    *words: str | Path,
    cwd: Path,
    env: dict[str, str] | None = None,
    check: int | None = None,
    anew: bool = False,
    **more: str,
) -> subprocess.CompletedProcess[str]:
    """Run `mtvcraft WORDS` in `cwd`.

    Args:
        words: after `mtvcraft`.
        cwd: where.
        env: beside what the test has.
        check: the exit code that it must end with.
        anew: start Python anew: for whoever measures memory, of which a fork has the libraries' from the start.
        more: further variables of the environment.
    """
    home = {name: value for name, value in os.environ.items() if not name.startswith(("MTVCRAFT", "HF_"))}
    settings = {"HOME": str(cwd), "XDG_CONFIG_HOME": str(cwd / ".config"), "XDG_CACHE_HOME": str(cwd / ".cache")}
    own = {**(env or {}), **more}
    anew = anew or "PYTHONPATH" in own or sys.platform != "linux"  # other systems' libraries don't bear to be forked
    result = (_started if anew else _forked)([*map(str, words)], cwd, {**home, **settings, **own})
    if check is not None:
        assert result.returncode == check, f"exit {result.returncode}, not {check}:\n{result.stdout}\n{result.stderr}"
    return result


def _started(words: list[str], cwd: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    program = [sys.executable, "-m", "mtvcraft_cli"]
    return subprocess.run(
        [*program, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )


def _forked(words: list[str], cwd: Path, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    launcher = _launcher()
    assert launcher.stdin is not None
    assert launcher.stdout is not None
    with TemporaryDirectory() as folder:
        streams = {name: Path(folder) / name for name in ("stdout", "stderr")}
        for path in streams.values():
            path.touch()
        job = {"words": words, "cwd": str(cwd.absolute()), "env": env, **{name: str(streams[name]) for name in streams}}
        launcher.stdin.write(json.dumps(job) + "\n")
        launcher.stdin.flush()
        child = int(launcher.stdout.readline())
        try:
            code = int(launcher.stdout.readline())
        except BaseException:  # the test's time is up: the next one must not be given this one's answer
            _launcher.cache_clear()
            os.kill(child, signal.SIGKILL)
            raise
        out, said = (path.read_text(encoding="utf-8") for path in streams.values())
    return subprocess.CompletedProcess(words, code, out, said)


@cache
def _launcher() -> "subprocess.Popen[str]":
    """The process that all runs of this test worker are forked from; it ends with it."""
    words = [sys.executable, "-m", "tests.cli.launcher"]
    root = Path(__file__).parents[2]
    launcher = subprocess.Popen(words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    launcher.wait()  # it has left the work to another
    return launcher


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
