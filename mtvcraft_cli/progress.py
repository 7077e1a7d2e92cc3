"""How a long loop tells what it is doing, without knowing who looks."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Watch(Protocol):
    """Wraps a loop: `silent` in a test, a progress bar from the command line. The loop never learns which."""

    def __call__(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` on unchanged while showing how far `stage` has come.

        Args:
            items: what the loop walks over; an item with a frame axis (a NumPy array) counts as that many.
            stage: a word or two for the user, e.g. "pose".
            total: how many units there will be, where that is known.
        """
        ...


@runtime_checkable
class Meter(Protocol):
    """Shows bytes that come over several lines at once: `Unseen` in a test, a progress bar from the command line."""

    def begin(self, total: int, done: int) -> None:
        """Start, or start anew.

        Args:
            total: bytes there will be, about.
            done: bytes that are there already.
        """
        ...

    def advance(self, count: int) -> None:
        """Tell of bytes that came; of thrown away ones by a negative number. Any thread may."""
        ...


class Unseen:
    """Shows nothing."""

    def begin(self, total: int, done: int) -> None:
        """Do nothing."""

    def advance(self, count: int) -> None:
        """Do nothing."""


def silent(items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG001
    """Show nothing."""
    yield from items
