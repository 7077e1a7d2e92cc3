"""Counts the bytes of tensors that are alive together while real classes run on the meta device: no memory, no sums."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")


class Ledger(TorchDispatchMode):
    """Adds up what operations allocate; weights and inputs made known before don't count."""

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.known = [tensor.untyped_storage() for tensor in known]
        self.seen = {id(storage) for storage in self.known}
        self.live = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(id(storage))
                self.live += storage.nbytes()
                weakref.finalize(storage, self._forget, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.live)
        return made

    def _forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


class FlashAttention(TorchFunctionMode):
    """On the meta device attention would write out all scores, which it does nowhere that it really runs."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            return torch.empty_like(args[0] if args else kwargs["query"])
        return func(*args, **(kwargs or {}))


def peak_bytes(module: nn.Module, run: Callable[..., Any], *inputs: Any) -> int:
    """The most that is alive beside weights and inputs while `run` works."""
    known = [*module.parameters(), *(each for each in tree_leaves(inputs) if isinstance(each, Tensor))]
    ledger = Ledger(known)
    with torch.no_grad(), ledger, FlashAttention():
        run(*inputs)
    return ledger.peak
