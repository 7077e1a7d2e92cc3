"""Networks whose weights come to the device block by block or layer by layer, by diffusers' group offloading."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers.hooks import HookRegistry, apply_group_offloading
from diffusers.hooks.group_offloading import (
    _GROUP_OFFLOADING,
    _LAYER_EXECUTION_TRACKER,
    _LAZY_PREFETCH_GROUP_OFFLOADING,
    ModuleGroup,
)
from safetensors.torch import load_file
from torch import nn

from mtvcraft_cli.device.placement import STREAMED, Offload

CPU = torch.device("cpu")
ASIDE = "unconditional_motion_token"
"""A parameter that is read outside the forward: no group may take it away, or replace it by an empty tensor."""


def has_blocks(module: nn.Module) -> bool:
    """Whether a network is a row of blocks, as transformers are; VAEs are not."""
    return any(isinstance(child, nn.ModuleList) for child in module.children())


def attach(
    module: nn.Module, device: torch.device, offload: Offload, folder: Path | None = None, *, once: bool = False
) -> None:
    """Have the weights of a network come to the device while they are needed, from now on.

    On CUDA the next ones are on their way while the present ones work.

    Args:
        module: a network in RAM, see `has_blocks`.
        device: where it works.
        offload: "group" brings blocks, "sequential" layers, "disk" blocks out of files.
        folder: an empty folder for those files.
        once: whether it works only for a moment: then it isn't worth locking all of its weights in RAM.
    """
    streams = device.type == "cuda"
    pinned = streams and offload == "group" and not once
    if pinned:
        _pin(module)
    size: dict[str, Any] = {"offload_type": "block_level", "num_blocks_per_group": 1}
    with _aside(module), on_card(device):
        apply_group_offloading(
            module,
            onload_device=device,
            offload_device=CPU,
            use_stream=streams,
            low_cpu_mem_usage=not pinned,
            offload_to_disk_path=None if folder is None else str(folder),
            **({"offload_type": "leaf_level"} if offload == "sequential" else size),
        )
    if folder is not None and device.type == "cpu":
        for group in groups_of(module):  # a file is mapped to where it may, and by that a CPU's last bits differ
            group.onload_ = partial(_read_back, group)


def attached(module: nn.Module) -> bool:
    """Whether `attach` has been at work."""
    return bool(groups_of(module))


def release(module: nn.Module) -> None:
    """Undo `attach`, even in the middle of a forward that failed: every weight is in RAM afterwards."""
    for group in groups_of(module):
        if group.offload_to_disk_path is None:
            group.offload_()
        else:
            _read_back(group)
    registry = HookRegistry.check_if_exists_or_initialize(module)
    for name in (_GROUP_OFFLOADING, _LAYER_EXECUTION_TRACKER, _LAZY_PREFETCH_GROUP_OFFLOADING):
        registry.remove_hook(name, recurse=True)


def groups_of(module: nn.Module) -> list[ModuleGroup]:
    """What comes and goes together, in the order of the network's parts."""
    registries = (getattr(part, "_diffusers_hook", None) for part in module.modules())
    hooks = (registry.get_hook(_GROUP_OFFLOADING) for registry in registries if registry is not None)
    return list({id(hook.group): hook.group for hook in hooks if hook is not None}.values())


@contextmanager
def lent(module: nn.Module, device: torch.device, offload: Offload) -> Iterator[nn.Module]:
    """Have a network on the device for a moment; afterwards it is in RAM as it was.

    Args:
        module: one that works once, as the text encoder does.
        device: where it works.
        offload: how the other networks are placed. Files are not worth while for this one: what was read from a file
            is mapped from there anyway.
    """
    if offload in STREAMED and has_blocks(module):
        attach(module, device, "sequential" if offload == "sequential" else "group", once=True)
        try:
            with on_card(device):
                yield module
        finally:
            release(module)
        return
    module.to(device)
    try:
        yield module
    finally:
        module.to(CPU)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _pin(module: nn.Module) -> None:
    """Lock weights in RAM one after the other; diffusers alone would hold all of them twice for a while."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.pin_memory()


def _read_back(group: ModuleGroup) -> None:
    tensors = load_file(group.safetensors_file_path)
    for tensor, key in group.tensor_to_key.items():
        tensor.data = tensors[key].clone()


@contextmanager
def _aside(module: nn.Module) -> Iterator[None]:
    kept = dict(module._parameters)
    module._parameters.pop(ASIDE, None)
    try:
        yield
    finally:
        module._parameters.clear()
        module._parameters.update(kept)


def on_card(device: torch.device) -> Any:
    """Make a card the current one: streams and files loaded by its kind's name would go to the first one otherwise."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
