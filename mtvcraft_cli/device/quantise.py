"""Stores the matrices of a model's blocks in fewer bits, and says what that saves and whether it works here."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

from mtvcraft_cli.device.packed import LAYERS
from mtvcraft_cli.device.placement import Packing, Quantize
from mtvcraft_cli.errors import Exit, MtvcraftError

Model = TypeVar("Model", bound=nn.Module)
FROM_BITSANDBYTES: Final = ("int8", "nf4")
KEPT: Final = frozenset({"attn0", "motion_attn", "norm1", "norm2"})
"""Parts of blocks that stay as they are: motion attention, which is what this model adds, and modulation."""
FAR_OFF: Final = 0.3
"""An error of a single layer that is no rounding any more; nf4's is 0.09."""


@dataclass(frozen=True)
class Packed:
    """What was done to a model."""

    layers: int
    before_bytes: int
    """Of all its numbers, in the precision that it would have had."""
    after_bytes: int


def check_quantize(kind: Quantize, device: torch.device) -> None:
    """Refuse a kind that doesn't work on a device, before anything large is loaded: a small layer is tried.

    Raises:
        MtvcraftError: exit 2; a package is missing, or the device can't do it.
    """
    if kind == "none":
        return
    if kind in FROM_BITSANDBYTES and find_spec("bitsandbytes") is None:
        raise MtvcraftError(
            f"`--quantize {kind}` needs bitsandbytes",
            hint='install it with `pip install "mtvcraft[quantize]"`; `--quantize fp8` needs nothing more',
            exit=Exit.USAGE,
        )
    trouble = _tried(kind, device)
    if trouble:
        raise MtvcraftError(
            f"`--quantize {kind}` does not work on `{device}` here: {trouble}",
            hint="leave it out, or choose another kind: `mtvcraft doctor --quantize` tries them all",
            exit=Exit.USAGE,
        )


@torch.no_grad()
def _tried(kind: Packing, device: torch.device) -> str:
    """Why a layer of this kind doesn't compute on a device; empty where it does."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(128, 128)
    layer.weight.copy_(torch.randn(128, 128, generator=generator) / 128**0.5)
    inputs = torch.randn(4, 128, generator=generator)
    wanted = layer(inputs)
    try:
        found = LAYERS[kind](layer).to(device)(inputs.to(device)).cpu()
    except Exception as error:  # what is missing shows in many ways: no kernel, no library, no such type of numbers
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    off = float((found - wanted).norm() / wanted.norm())
    return "" if off < FAR_OFF else f"a layer comes out wrong by {off:.0%}"


def built(
    build: Callable[[Mapping[str, Any], Mapping[str, Tensor], torch.dtype | None], Model],
    config: Mapping[str, Any],
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
    kind: Quantize,
    whole: Collection[str] = (),
) -> tuple[Model, Packed | None]:
    """Make a model of a checkpoint, quantised where that is asked for.

    Matrices are packed from the checkpoint's own numbers one by one, so that the whole model never takes room in
    `dtype`; LoRAs must have been merged before.

    Args:
        build: makes the model of config and tensors, in a dtype or in that of the tensors.
        config: as `build` takes it.
        tensors: as `build` takes them; emptied where they are packed, so that each can go when its turn is over.
        dtype: of what isn't packed.
        kind: how matrices are stored.
        whole: parts of names of what stays float32, as `build` has it.

    Returns:
        The model, and what was packed; None where nothing was.
    """
    if kind == "none":
        return build(config, tensors, dtype), None
    model = build(config, tensors, None)
    tensors.clear()
    return model, quantise(model, kind, dtype, whole)


@torch.no_grad()
def quantise(model: nn.Module, kind: Packing, dtype: torch.dtype, whole: Collection[str] = ()) -> Packed:
    """Pack the matrices of a model's blocks in place, and cast everything else.

    Args:
        model: on the CPU or on the device where it works, of any precision.
        kind: how matrices are stored.
        dtype: of everything else.
        whole: parts of names of what becomes float32 instead.
    """
    kept_whole = set(whole)
    left_out = {f"{name}.weight" for name in names_to_pack(model)}
    before = 0
    for name, parameter in model.named_parameters():
        to = dtype if kept_whole.isdisjoint(name.split(".")) else torch.float32
        before += parameter.numel() * to.itemsize
        if name not in left_out:
            parameter.data = parameter.data.to(to)
    layers = sum(1 for _ in _packing(model, kind))
    return Packed(layers, before, stored_bytes_of(model))


@contextmanager
def quantised(model: nn.Module, kind: Packing) -> Iterator[Packed]:
    """Have a model quantised for a while; then its own layers are back."""
    before = stored_bytes_of(model)
    own: dict[str, nn.Module] = {}
    try:
        with torch.no_grad():
            own.update(_packing(model, kind))
        yield Packed(len(own), before, stored_bytes_of(model))
    finally:
        for name, layer in own.items():
            _put(model, name, layer)


def names_to_pack(model: nn.Module) -> list[str]:
    """The linear layers of a model's blocks, but for `KEPT` and what the model's own library keeps in float32."""
    blocks: Collection[str] = getattr(model, "_no_split_modules", None) or ()
    kept = KEPT | set(getattr(model, "_keep_in_fp32_modules", None) or ())
    return [
        f"{place}.{name}"
        for place, block in model.named_modules()
        if type(block).__name__ in blocks
        for name, layer in block.named_modules()
        if type(layer) is nn.Linear and kept.isdisjoint(name.split("."))
    ]


def stored_bytes_of(model: nn.Module) -> int:
    """Bytes of all tensors of a model."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


def _packing(model: nn.Module, kind: Packing) -> Iterator[tuple[str, nn.Module]]:
    """Pack one layer after the other, and give each that is no longer needed."""
    for name in names_to_pack(model):
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        _put(model, name, LAYERS[kind](layer))
        yield name, layer


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    place, _, own = name.rpartition(".")
    setattr(model.get_submodule(place), own, layer)
