"""What is spared a window: keys and values that all its steps share, and blocks that would change too little.

The first changes nothing; the second is diffusers' first-block cache, which is inexact and has to be asked for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK
from torch import Tensor, nn

KeyValue: TypeAlias = tuple[Tensor, Tensor]


@dataclass
class Tally:
    """What a run did and what it was spared."""

    steps: int = 0
    guided: int = 0
    """Steps in which guidance was on."""
    forwards: int = 0
    """Of the transformer; a batch is one."""
    skipped: int = 0
    """Forwards of which only the first block was run."""


@dataclass(kw_only=True)
class Spare:
    """How a window is made with less work."""

    keys: bool = True
    """Whether keys and values of motion, text and picture are made once a window; it takes memory, and no bit changes.
    """
    tally: Tally = field(default_factory=Tally)


class KeptKeys:
    """Keys and values of what a window's patches look up, for each branch of guidance.

    They depend on neither the patches nor the time, so they are the same in every step.
    """

    def __init__(self) -> None:
        self.branch = ""
        self._found: dict[tuple[str, int, str], KeyValue] = {}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def get(self, layer: nn.Module, what: str, make: Callable[..., KeyValue], *given: Any) -> KeyValue:
        """What `make` gave for a layer in this branch, or gives now."""
        place = (self.branch, id(layer), what)
        if place not in self._found:
            self._found[place] = make(layer, *given)
        return self._found[place]

    def clear(self) -> None:
        """Forget all branches."""
        self._found.clear()


class KeepingProcessor:
    """A processor of attention whose keys and values may be kept."""

    kept: KeptKeys | None = None
    """Where they are kept; None makes them anew each time."""

    def once(self, what: str, make: Callable[..., KeyValue], layer: nn.Module, *given: Any) -> KeyValue:
        """What `make(layer, *given)` gives: made now, or earlier in this window."""
        return make(layer, *given) if self.kept is None else self.kept.get(layer, what, make, *given)


class Forwards:
    """The forwards of one window, each under the name of its branch of guidance."""

    def __init__(self, transformer: Any, spare: Spare) -> None:
        self.transformer, self.tally = transformer, spare.tally
        self._kept = KeptKeys() if spare.keys and not torch.is_grad_enabled() else None
        layers = (getattr(module, "processor", None) for module in transformer.modules())
        self._processors = [layer for layer in layers if isinstance(layer, KeepingProcessor)]

    def begin(self, step: int, steps: int, *, guided: bool) -> None:
        """Begin a step, counted from 0."""
        self.tally.steps += 1
        self.tally.guided += guided
        if self.transformer.is_cache_enabled:
            # Frames of mini whose last step was skipped came to 33 dB at best, others to 36 and more.
            last = step == steps - 1
            leader_of(self.transformer).threshold = 0.0 if last else self.transformer._cache_config.threshold

    @contextmanager
    def named(self, branch: str) -> Iterator[Any]:
        """Lend the transformer for one forward: what is kept belongs to this window and this branch."""
        if self._kept is not None:
            self._kept.branch = branch
        self._lend(self._kept)
        try:
            with self.transformer.cache_context(branch):
                yield self.transformer
                self.tally.forwards += 1
                self.tally.skipped += skipped(self.transformer)
        finally:
            self._lend(None)

    def forget(self) -> None:
        """Let go of keys and values: other branches follow."""
        if self._kept is not None:
            self._kept.clear()

    def _lend(self, kept: KeptKeys | None) -> None:
        for processor in self._processors:
            processor.kept = kept


@contextmanager
def forwards_of(transformer: Any, spare: Spare) -> Iterator[Forwards]:
    """The forwards of a window, at whose end nothing of it is left in the transformer."""
    transformer._reset_stateful_cache()
    try:
        yield Forwards(transformer, spare)
    finally:
        transformer._reset_stateful_cache()


def set_cache(transformer: Any, threshold: float | None) -> None:
    """Skip the blocks behind the first in steps in which that one does nearly what it did before, but for the last.

    Args:
        transformer: whose blocks diffusers knows (`TransformerBlockRegistry`).
        threshold: how much may change, as a share of what the first block added when all blocks were last run; None
            runs all blocks in all steps.
    """
    if transformer.is_cache_enabled:
        transformer.disable_cache()
    if threshold is not None:
        transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))


def skipped(transformer: Any) -> bool:
    """Whether the forward that has just ended ran only the first block; asked within its cache context."""
    return transformer.is_cache_enabled and not leader_of(transformer).state_manager.get_state().should_compute


def leader_of(transformer: Any) -> Any:
    """diffusers' hook on the first block, which decides whether the others are run."""
    first = next(part for part in transformer.modules() if type(part).__name__ in transformer._repeated_blocks)
    return first._diffusers_hook.get_hook(_FBC_LEADER_BLOCK_HOOK)
