"""The ffmpeg that comes with imageio-ffmpeg: one binary without ffprobe, run so that nothing is left behind."""

import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from io import BufferedReader
from threading import Thread
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import Exit, MtvcraftError

# Ctrl-C goes to every process of the terminal's group: ours decides what becomes of its children.
ALONE: dict[str, Any] = (
    {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    if sys.platform == "win32"
    else {"start_new_session": True}
)


@cache
def ffmpeg_path() -> str:
    """Where the binary is.

    Raises:
        MtvcraftError: there is none (exit 6).
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MtvcraftError(
            "imageio-ffmpeg has no ffmpeg for this machine",
            hint="install ffmpeg and name it: IMAGEIO_FFMPEG_EXE=/path/to/ffmpeg",
            exit=Exit.WEIGHTS,
        ) from error


def _command(arguments: Sequence[str]) -> list[str]:
    return [ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", *arguments]


def _environment() -> dict[str, str]:
    return {**os.environ, "AV_LOG_FORCE_NOCOLOR": "1"}


@dataclass(frozen=True)
class Finished:
    """What a run of ffmpeg came to: exit code, standard output, and what it said on standard error."""

    code: int
    out: bytes
    said: str


def run_ffmpeg(*arguments: str) -> Finished:
    """Run ffmpeg to its end; its output is small enough to be held."""
    done = subprocess.run(
        _command(arguments), stdin=subprocess.DEVNULL, capture_output=True, check=False, env=_environment(), **ALONE
    )
    return Finished(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))


class Running:
    """An ffmpeg at work, at one end of a pipe."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.said: deque[str] = deque(maxlen=20)
        """The last lines on standard error."""
        self._listener = Thread(target=self._listen, name="ffmpeg-errors", daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:  # unread, a full pipe would stop ffmpeg
            self.said.append(line.decode("utf-8", "replace").rstrip())

    @property
    def stdin(self) -> IO[bytes]:
        """What ffmpeg reads."""
        assert self.process.stdin is not None
        return self.process.stdin

    def fill(self, memory: npt.NDArray[np.uint8]) -> bool:
        """Fill an array with what ffmpeg writes; False where it ends before."""
        assert isinstance(self.process.stdout, BufferedReader)
        return self.process.stdout.readinto(memory.data.cast("B")) == memory.nbytes

    def wait(self) -> int:
        """Wait for its end and its last words; returns the exit code."""
        code = self.process.wait()
        self._listener.join()
        return code


@contextmanager
def running_ffmpeg(*arguments: str, feed: bool = False) -> Iterator[Running]:
    """Run ffmpeg for as long as the block lasts; afterwards it's gone, whether it was ready or not.

    Args:
        arguments: what stands after `ffmpeg`.
        feed: True to write to its standard input, False to read its standard output.
    """
    process = subprocess.Popen(
        _command(arguments),
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if feed else subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        pipesize=2**20,  # the usual 64 kB would wake the two sides fifty times a frame
        **ALONE,
    )
    try:
        running = Running(process)
        yield running
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # bytes that it never took, and now never will
                    pipe.close()
        running.wait()
        assert process.stderr is not None
        process.stderr.close()


def input_of(path: os.PathLike[str] | str) -> list[str]:
    """Name a local file as ffmpeg's input: never taken for an address, an option or a pattern of numbers."""
    return ["-protocol_whitelist", "file,pipe,fd", "-i", f"file:{os.fspath(path)}"]
