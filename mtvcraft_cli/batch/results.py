"""The results file of a batch: one JSON object a line for every job that ended, kept whole whatever happens."""

import json
import os
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mtvcraft_cli.errors import Exit, MtvcraftError


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How one job of a batch ended."""

    row: int
    output: str
    status: Literal["done", "failed"]
    left_alone: bool = False
    """Whether the output was there already, made from the same inputs and settings."""
    seconds: float = 0.0
    frames: int | None = None
    windows_from_earlier_runs: int = 0
    exit: int = 0
    """What `mtvcraft animate` would have ended with."""
    error: str | None = None
    hint: str | None = None
    fingerprint: str | None = None
    """What the output depends on; the same is in its sidecar."""
    memory_bytes: int | None = None
    """What the process held when the job had ended."""
    worker: str | None = None
    """Machine and process of the Ray worker that did it."""
    attempts: int = 1
    """How often it was begun: more than once where a Ray worker died."""
    at: str = ""
    """When it ended, in UTC."""
    remarks: tuple[str, ...] = ()
    """What is to be said of it; as `warnings` and `trace` not in the file: the sidecar has the first two."""
    warnings: tuple[str, ...] = ()
    trace: str = ""
    """Where a fault happened."""

    @property
    def failed(self) -> bool:
        """Whether there is no output."""
        return self.status == "failed"

    def told(self) -> dict[str, Any]:
        """The line of the results file."""
        return {key: value for key, value in asdict(self).items() if key not in ("remarks", "warnings", "trace")}


class Results(AbstractContextManager["Results"]):
    """A results file, open for one batch at a time; lines are only ever added.

    A line is one write that has reached the disk before the next job begins. What a crash cut off is dropped.

    Args:
        path: where it lies, or will.

    Raises:
        MtvcraftError: exit 2; it can't be written, holds something else, or another batch is writing to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise MtvcraftError(
                f"the results file `{path}` can't be written: {error.strerror}",
                hint="name another with `--results`",
                exit=Exit.USAGE,
            ) from error
        try:
            self._lock()
            self.done = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)  # which lets go of the lock as well

    def add(self, ended: Ended) -> None:
        """Write down how a job ended; a disk that fills up on the way leaves the file as it was."""
        line = (json.dumps(ended.told(), ensure_ascii=False) + "\n").encode()
        before = os.fstat(self._file).st_size
        try:
            while line:
                line = line[os.write(self._file, line) :]  # which takes a part where there is no room for all
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, before)
            raise
        if not ended.failed:
            self.done.add(ended.output)

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows, where nothing keeps two batches apart
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MtvcraftError(
                f"another batch is writing to `{self.path}`",
                hint="wait until it has ended, or name another file with `--results`",
                exit=Exit.USAGE,
            ) from error

    def _read(self) -> set[str]:
        """The outputs that are known to be done."""
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        done = set[str]()
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                told = json.loads(line)
                output, status = told["output"], told["status"]
            except (ValueError, KeyError, TypeError) as error:
                raise MtvcraftError(
                    f"`{self.path}` holds something else than results of a batch (line {number})",
                    hint="name another file with `--results`",
                    exit=Exit.USAGE,
                ) from error
            if status == "done":
                done.add(output)
        if len(whole) < len(content):
            if not whole and not content.startswith(b'{"row"'):
                raise MtvcraftError(
                    f"`{self.path}` holds something else than results of a batch",
                    hint="name another file with `--results`",
                    exit=Exit.USAGE,
                )
            os.ftruncate(self._file, len(whole))
        return done
