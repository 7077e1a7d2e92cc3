"""A recipe of toy size: every stage real, a step in a few hundredths of a second."""

from pathlib import Path
from typing import Any

import yaml

LOOP: dict[str, Any] = {
    "phases": [[60, 1e-3, 1e-3], [40, 1e-3, 1e-4]],
    "warmup": 5,
    "batch": 2,
    "clip_norm": 1.0,
    "log_steps": 1,
    "report_steps": 1000,
    "checkpoint_s": 0.0,
}


def toy_recipe(folder: Path, **changes: Any) -> Path:
    """Write `toy.yaml`; `changes` go into every stage's loop."""
    loop = LOOP | changes
    blocks = ["CogVideoXDownBlock3D"] * 3
    content = yaml.safe_load((Path(__file__).parents[2] / "mtvcraft_cli/train/recipes/mini.yaml").read_text("utf-8"))
    preset = content["preset"] | {
        "size_px": [16, 16],
        "frames": 9,
        "overlap": 1,
        "sampler": {"scheduler": "dpm", "steps": 1, "motion_guidance": 1.0},
        "tokenizer": {"channels": [32, 32], "width": 48, "codes": 16},
        "transformer": {
            "num_attention_heads": 3,
            "attention_head_dim": 16,
            "in_channels": 8,
            "out_channels": 4,
            "num_layers": 2,
            "motion_every": 2,
            "time_embed_dim": 16,
            "unconditional_motion_shape": [24, 48],
        },
        "vae": {
            "down_block_types": blocks,
            "up_block_types": [block.replace("Down", "Up") for block in blocks],
            "block_out_channels": [8, 8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "latent_channels": 4,
            "scaling_factor": 1.0,
        },
    }
    recipe = {
        "preset": preset,
        "tokenizer": {"loop": loop, "motion": {"dances": 4, "frames": [9, 17], "strides": [1, 2]}},
        "vae": {"loop": loop | {"ema": 0.9}, "start": "noise", "frames": [9], "world": {"before": 0}},
        "dit": {
            "loop": loop | {"ema": 0.9},
            "clips": 128,
            "first_clips": 64,
            "uses": 1,
            "start": "reference",
            "drop_motion": 0.5,
            "figure": 2.0,
            "pointing": 0.1,
            "kept_patches": 3,
            "world": {"before": 0},
        },
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path
