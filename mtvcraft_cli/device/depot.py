"""Who brings networks to the device and takes them away again, as a placement says."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Final

import torch
from torch import nn

from mtvcraft_cli.device.offload import attach, attached, has_blocks, on_card, release
from mtvcraft_cli.device.place import working as plainly
from mtvcraft_cli.device.placement import STREAMED, Placement
from mtvcraft_cli.device.scratch import Scratch
from mtvcraft_cli.device.split import join, split

SHIFT: Final = 0.05
"""A card's share of the layers may be off by so much of the whole before they are cut anew, which takes time."""


class Depot:
    """Keeps the networks of a run, and of the runs after it, where a placement wants them.

    Args:
        device: where they work; the first of several.
        folder: below it weights are put that are streamed from files.
    """

    def __init__(self, device: torch.device, folder: Path) -> None:
        self.device, self.folder = device, folder
        self.placement = Placement()
        self.shares: tuple[int, ...] = ()
        self._scratch: Scratch | None = None

    def become(self, placement: Placement, shares: Sequence[int], modules: Iterable[nn.Module]) -> None:
        """Follow a placement from now on.

        Args:
            placement: the new one.
            shares: bytes of the transformer on each card, where it is split.
            modules: networks that may be where the placement before has put them; they come back to RAM if it differs.
        """
        if placement == self.placement and not self._moved(shares):
            return
        for module in modules:
            self.fetch_back(module)
        self.close()
        self.placement, self.shares = placement, tuple(shares)

    def _moved(self, shares: Sequence[int]) -> bool:
        """Whether another job's layers lie so otherwise on the cards that they should be cut anew."""
        changes = [abs(new - old) for new, old in zip_longest(shares, self.shares, fillvalue=0)]
        return max(changes, default=0) > SHIFT * sum(self.shares)

    @contextmanager
    def working(self, module: nn.Module) -> Iterator[nn.Module]:
        """Have a network where it can work."""
        placement = self.placement
        if placement.offload in STREAMED and has_blocks(module):
            if not attached(module):
                attach(module, self.device, placement.offload, self._files() if placement.offload == "disk" else None)
            with on_card(self.device):
                yield module
        elif placement.cards and has_blocks(module):
            if not hasattr(module, "hf_device_map"):
                split(module, [torch.device("cuda", card) for card in placement.cards], self.shares)
            yield module
        else:
            alone = placement.cards or placement.offload != "none"
            with plainly(module, self.device, "model" if alone else "none"):
                yield module

    def fetch_back(self, module: nn.Module) -> None:
        """Have a network in RAM, as if it had never been placed."""
        if attached(module):
            release(module)
        elif hasattr(module, "hf_device_map"):
            join(module)
        module.to("cpu")
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def close(self) -> None:
        """Delete what was put into files; networks that stream from there can't be used any more."""
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None

    def _files(self) -> Path:
        self._scratch = self._scratch or Scratch(self.folder / "offload")
        return self._scratch.folder
