"""The real models at toy size, with weights from a seed: milliseconds a call, and no branch idle."""

from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.vae import build_vae
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer

WIDTH = 32
"""Of the transformer and of a motion token."""
TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 4,
    "motion_every": 2,
    "unconditional_motion_shape": (24, WIDTH),
    "time_embed_dim": 16,
}
VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 16,
    "scaling_factor": 0.7,
}
SCHEDULER: dict[str, Any] = {
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
}
TOKENIZER: dict[str, Any] = {"channels": (32, 64), "width": WIDTH, "codes": 64}


def tiny_transformer(seed: int = 0, **changes: Any) -> CogVideoXMotionTransformer:
    config = TRANSFORMER | changes
    with init_empty_weights():
        empty = CogVideoXMotionTransformer(**config)
    return build_transformer(config, seeded_tensors(empty, seed))


def tiny_vae(seed: int = 0, **changes: Any) -> AutoencoderKLCogVideoX:
    config = VAE | changes
    with init_empty_weights():
        empty = AutoencoderKLCogVideoX(**config)
    return build_vae(config, seeded_tensors(empty, seed))


def tiny_tokenizer(seed: int = 0, **changes: Any) -> MotionTokenizer:
    tokenizer = MotionTokenizer(**(TOKENIZER | changes))
    tokenizer.load_state_dict(seeded_tensors(tokenizer, seed))
    return tokenizer.eval()


def joint_mean_mm() -> np.ndarray:
    """Mean joint positions as far apart as a person's, (24, 3) float32."""
    spread = torch.randn(24, 3, generator=torch.Generator().manual_seed(5)) * torch.tensor([80.0, 280.0, 40.0])
    return (spread + torch.tensor([0.0, 180.0, 1780.0])).numpy()


def picture(width: int = 32, height: int = 32) -> np.ndarray:
    """A reference picture of smooth colours, (H, W, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / 7 + shift) + np.cos(columns / 5 - shift) for shift in (0, 1, 2)]
    return (np.stack(waves, axis=-1) * 60 + 128).astype(np.uint8)
