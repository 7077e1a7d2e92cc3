"""Ways to run a loaded transformer faster; none of them changes what it computes by more than rounding, but `sage`."""

from typing import Any, Final

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import AttentionBackendName, _check_attention_backend_requirements
from torch import nn

from mtvcraft_cli.errors import Exit, MtvcraftError

GRAPHS: Final = 64
"""How many variants of a block may be compiled: with and without motion attention, guided or not, size by size."""


QKV: Final = ("to_q", "to_k", "to_v")


@torch.no_grad()
def fuse(transformer: Any) -> None:
    """Let self attention make query, key and value by one matrix. The three matrices it replaces are let go.

    Other attentions make keys and values once a window, and are left alone. LoRAs have to be merged before.
    """
    for layer in transformer.modules():
        if isinstance(layer, AttentionModuleMixin) and not layer.is_cross_attention and not layer.fused_projections:
            layer.fuse_projections()
            del layer.to_q, layer.to_k, layer.to_v


@torch.no_grad()
def unfuse(transformer: Any) -> None:
    """Undo `fuse`: query, key and value have matrices of their own again, the same to the bit."""
    for layer in transformer.modules():
        if isinstance(layer, AttentionModuleMixin) and layer.fused_projections:
            joined: nn.Linear = layer.to_qkv
            for name, weight, bias in zip(QKV, joined.weight.chunk(3), joined.bias.chunk(3), strict=True):
                with torch.device("meta"):
                    single = nn.Linear(weight.shape[1], weight.shape[0])
                single.load_state_dict({"weight": weight.clone(), "bias": bias.clone()}, assign=True)
                setattr(layer, name, single.train(joined.training).requires_grad_(joined.weight.requires_grad))
            layer.unfuse_projections()


def is_fused(transformer: Any) -> bool:
    """Whether `fuse` has been at work."""
    return any(isinstance(layer, AttentionModuleMixin) and layer.fused_projections for layer in transformer.modules())


def set_attention(transformer: Any, backend: str) -> None:
    """Have attention computed by "native" (PyTorch), "flash" or "sage", in this transformer only.

    Raises:
        MtvcraftError: exit 2; its package is missing or too old.
    """
    try:
        _check_attention_backend_requirements(AttentionBackendName(backend))
    except RuntimeError as error:
        raise MtvcraftError(
            f"attention by `{backend}` can't be used: {error}",
            hint="update that package, or use `--attention native`",
            exit=Exit.USAGE,
        ) from error
    for layer in transformer.modules():
        if isinstance(layer, AttentionModuleMixin):
            layer.set_attention_backend(backend)


def compile_blocks(transformer: Any, device: torch.device) -> None:
    """Have blocks compiled when they are first run; equal ones share what is compiled.

    Raises:
        MtvcraftError: exit 2; PyTorch can't compile for this device here.
    """
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))  # seconds: before the long work, not in it
    except Exception as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MtvcraftError(
            f"PyTorch can't compile for {device.type} on this machine: {why}",
            hint="install a C++ compiler and Python's headers (for a CUDA card also Triton), or leave `--compile` out",
            exit=Exit.USAGE,
        ) from error
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    transformer.compile_repeated_blocks()
