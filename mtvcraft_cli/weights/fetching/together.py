"""Calls made several at once, which Ctrl-C ends at once."""

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

from mtvcraft_cli.weights.fetching.patience import Patience, Stopped

T = TypeVar("T")


def together(calls: Sequence[Callable[[], T]], jobs: int, patience: Patience) -> list[T]:
    """Make calls several at once; the first that fails stops the others.

    Returns:
        What they return, in their order.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    results: dict[int, T] = {}
    failures: list[BaseException] = []
    for number in range(len(calls)):
        todo.put(number)

    def work() -> None:
        while not patience.stop.is_set():
            try:
                number = todo.get_nowait()
            except Empty:
                return
            try:
                results[number] = calls[number]()
            except BaseException as error:
                failures.append(error)
                patience.stop.set()

    # Not those of a pool, for which Python would wait at the end: one may hang in a connection that is silent.
    threads = [Thread(target=work, daemon=True) for _ in range(min(jobs, len(calls)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                if failures:
                    break
    except KeyboardInterrupt:
        patience.stop.set()
        for thread in threads:
            thread.join(0.5)
        raise
    real = [error for error in failures if not isinstance(error, Stopped)]
    if real:
        for thread in threads:
            thread.join(1.0)
        raise real[0]
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(calls))]
