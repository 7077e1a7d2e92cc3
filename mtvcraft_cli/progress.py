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


def silent(items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG001
    """Show nothing."""
    yield from items
