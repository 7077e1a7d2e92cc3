"""Keeps native libraries from writing into the user's terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_ONE_AT_A_TIME = Lock()
"""Two threads that both redirect file descriptor 2 would leave it redirected."""


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
