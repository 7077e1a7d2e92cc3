"""From a Wan transformer to an MV-DiT before its first step, and from a trained one to a checkpoint."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn

from mtvcraft_cli.latents import wan
from mtvcraft_cli.latents.wan import MotionAttention, WanMotionTransformer

SHARD_BYTES: Final = 5 * 10**9


def with_motion(
    config: Mapping[str, Any], base: Mapping[str, Tensor], no_motion: Tensor | None = None
) -> dict[str, Tensor]:
    """Make an MV-DiT of a Wan transformer: all its weights, and new motion attention whose output is zero at first.

    With it the first step computes what the base does. An MV-DiT's own checkpoint passes unchanged.

    Args:
        config: of the MV-DiT.
        base: tensors of the checkpoint, in the released layout or ours.
        no_motion: what learned "no motion" tokens start from, where the transformer has its own and these fit.
    """
    tensors = wan.from_released(base)
    with init_empty_weights():
        empty = WanMotionTransformer(**wan.read_config(config))
    if not any(".motion_attn." in name for name in tensors):
        for name, block in empty.blocks.named_children():
            if block.motion_attn is None:
                continue
            attn: MotionAttention = block.motion_attn
            fresh = MotionAttention(empty.dim, attn.heads, empty.config.eps, attn.key_split)
            for weight in fresh.to_out.parameters():
                nn.init.zeros_(weight)
            tensors |= {f"blocks.{name}.motion_attn.{key}": tensor for key, tensor in fresh.state_dict().items()}
            tensors[f"blocks.{name}.norm4.weight"] = torch.ones(empty.dim)
            tensors[f"blocks.{name}.norm4.bias"] = torch.zeros(empty.dim)
    if (shape := empty.config.unconditional_motion_shape) is not None:
        fits = no_motion is not None and tuple(no_motion.shape) == tuple(shape)
        tensors.setdefault("unconditional_motion_token", no_motion if fits else torch.randn(*shape))  # type: ignore[arg-type]
    return tensors


def write_checkpoint(
    folder: Path, transformer: WanMotionTransformer, whole: Mapping[str, Tensor] | None = None
) -> None:
    """Write all weights in shards, with their sizes beside them; the old folder stays until the new one is whole.

    Args:
        folder: where.
        transformer: the network.
        whole: all its weights by name, where its own are cut into pieces.
    """
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    tensors = {name: tensor.detach() for name, tensor in (whole or transformer.state_dict()).items()}
    pattern = "diffusion_pytorch_model{suffix}.safetensors"
    save_torch_state_dict(tensors, draft, filename_pattern=pattern, max_shard_size=SHARD_BYTES)
    config = {key: value for key, value in transformer.config.items() if not key.startswith("_")}
    (draft / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
