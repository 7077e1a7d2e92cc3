"""A painter that doesn't give up when memory is too small."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from mtvcraft_cli.shapes import MotionTokens, Video

T = TypeVar("T")


class Patient:
    """Paints as another painter does; where memory is too small it has room made, and begins that window again.

    Noise is drawn anew from the same place, so the frames are those that would have been made at once.

    Args:
        painter: who paints, a `walk.Painter`.
        make_room: makes room and tells whether there was any to be made.
    """

    def __init__(self, painter: Any, make_room: Callable[[], bool]) -> None:
        self.painter, self.make_room = painter, make_room

    def look(self, generator: torch.Generator) -> Tensor:
        """See `Painter`."""
        return self._tried(lambda: self.painter.look(generator), generator)

    def denoise(
        self, character: Tensor, tokens: MotionTokens, tail: Video | None, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """See `Painter`; a step that was taken before memory became too small is not given twice."""
        start, given = generator.get_state(), 0
        while True:
            try:
                for step, latents in enumerate(self.painter.denoise(character, tokens, tail, generator)):
                    if step >= given:
                        given += 1
                        yield latents
                return
            except RuntimeError as error:
                if not _is_lack_of_memory(error):
                    raise
                lacking = error.with_traceback(None)  # whose frames hold on to what is to be freed
            if not self.make_room():
                raise lacking
            generator.set_state(start)

    def decode(self, latents: Tensor) -> Video:
        """See `Painter`."""
        return self._tried(lambda: self.painter.decode(latents), None)

    def _tried(self, work: Callable[[], T], generator: torch.Generator | None) -> T:
        start = None if generator is None else generator.get_state()
        while True:
            try:
                return work()
            except RuntimeError as error:
                if not _is_lack_of_memory(error):
                    raise
                lacking = error.with_traceback(None)
            if not self.make_room():
                raise lacking
            if generator is not None and start is not None:
                generator.set_state(start)


def _is_lack_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)
