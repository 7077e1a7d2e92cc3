"""Writing that goes on while the next frames are made."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from queue import Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")


class Behind(AbstractContextManager["Behind[T]"], Generic[T]):
    """Does something with one item after the other, in their order, in a thread of its own.

    An error in it is raised where more is given, or where the block ends. If the block fails, Ctrl-C included, the
    rest is dropped after the item that is being worked on, and the thread is gone when the block has ended.

    Args:
        work: what is done with an item.
        depth: how many batches of items may wait; memory holds that many and the one that is worked on.
    """

    def __init__(self, work: Callable[[T], None], depth: int = 1) -> None:
        self._work = work
        self._waiting: Queue[Iterable[T] | None] = Queue(maxsize=depth)
        self._dropped = Event()
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="write-behind", daemon=True)

    def __enter__(self) -> "Behind[T]":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._dropped.set()
        try:
            self._put(None)
            while self._thread.is_alive():
                self._thread.join(0.1)  # in small steps: Ctrl-C must come through
        except BaseException:
            self._dropped.set()
            self._put(None)
            self._thread.join()
            raise
        if self._error is not None and kind is None:
            raise self._error

    def give(self, batch: Iterable[T]) -> None:
        """Have a batch of items worked on when its turn comes; waits while too many wait already."""
        self._put(batch)
        if self._error is not None:
            raise self._error

    def _put(self, batch: Iterable[T] | None) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(batch, timeout=0.1)
            except Full:
                continue
            return

    def _run(self) -> None:
        try:
            while (batch := self._waiting.get()) is not None:
                for item in batch:
                    if self._dropped.is_set():
                        return
                    self._work(item)
        except BaseException as error:
            self._error = error
