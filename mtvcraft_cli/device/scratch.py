"""Folders for what must not outlive a run."""

import shutil
import tempfile
import weakref
from pathlib import Path

from filelock import FileLock, Timeout

IN_USE = "in-use"


class Scratch:
    """A folder that is gone when this object is, whatever ends the program; after a kill, the next one removes it.

    Args:
        root: where it is made; other runs have theirs there as well.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / "lock"):
            _sweep(root)
            self.folder = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=root))  # a draft, to the cache
            lock = FileLock(self.folder / IN_USE, thread_local=False)
            lock.acquire()
        self._gone = weakref.finalize(self, _remove, self.folder, lock)

    def remove(self) -> None:
        """Delete the folder now."""
        self._gone()


def _remove(folder: Path, lock: FileLock) -> None:
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Delete the folders of runs that are dead."""
    for folder in root.glob(".*.part"):
        if not is_locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_locked(folder: Path) -> bool:
    """Whether the run that made the folder is alive."""
    lock = FileLock(folder / IN_USE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
