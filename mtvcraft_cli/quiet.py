"""Keeps libraries from writing into the user's terminal, and into what is meant for another program."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, current_thread
from typing import Any

_ONE_AT_A_TIME = Lock()
"""Two threads that both redirect file descriptor 2 would leave it redirected."""


def without_hub_kernels() -> None:
    """Keep libraries from fetching kernels from the hub; call it before any of them is imported.

    bitsandbytes asks for one whenever it is imported, which diffusers does where it is installed, and complains on
    standard error where it gets none. Its further warnings repeat with every layer that works.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    modules: dict[str, Any] = sys.modules
    modules.setdefault("kernels", None)  # as if it weren't installed


@contextmanager
def silence() -> Iterator[None]:
    """Send what native code writes to standard error nowhere: decord and MediaPipe have no setting that stops it."""
    with _ONE_AT_A_TIME:
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)


class _OneThread:
    """A stream that takes text from one thread and drops that of others."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, current_thread()

    def write(self, text: str) -> int:
        return int(self._stream.write(text)) if current_thread() is self._thread else len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def stdout_of_this_thread() -> Iterator[None]:
    """Drop what threads of a library print: Ray's tells of dead workers on standard output, where results go."""
    kept = sys.stdout
    mine: Any = _OneThread(kept)
    sys.stdout = mine
    try:
        yield
    finally:
        if sys.stdout is mine:
            sys.stdout = kept
