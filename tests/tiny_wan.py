"""The large model's transformer at toy size, with weights from a seed: milliseconds a call, and no branch idle."""

from typing import Any

from accelerate import init_empty_weights
from torch import Tensor

from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.wan import WanMotionTransformer, build_transformer

TOKEN = 32
"""Width of a motion token; the transformer's own is 48."""
WAN_TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "text_dim": 16,
    "text_len": 12,
    "image_dim": 20,
    "freq_dim": 16,
    "ffn_dim": 80,
    "num_layers": 4,
    "motion_every": 2,
    "motion_key_split": "plain",
    "motion_token_dim": TOKEN,
}


def tiny_wan_tensors(seed: int = 0, **changes: Any) -> dict[str, Tensor]:
    with init_empty_weights():
        empty = WanMotionTransformer(**(WAN_TRANSFORMER | changes))
    return seeded_tensors(empty, seed)


def tiny_wan_transformer(seed: int = 0, **changes: Any) -> WanMotionTransformer:
    return build_transformer(WAN_TRANSFORMER | changes, tiny_wan_tensors(seed, **changes))
