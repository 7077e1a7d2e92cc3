"""The parts of a run on Wan at toy size, in the layouts they are published in, and a recipe for them."""

from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file

from mtvcraft_cli.latents.wan import to_released
from mtvcraft_cli.preset import BUILT_IN
from tests import tiny
from tests.cli.toy_wan import write_folder
from tests.tiny_wan import TOKEN, WAN_TRANSFORMER, tiny_wan_tensors
from tests.tiny_wan_parts import (
    PICTURE_ENCODER,
    TEXT_ENCODER,
    WAN_VAE,
    tiny_picture_tensors,
    tiny_text_tensors,
    tiny_wan_vae,
    write_tiny_tokenizer,
)
from tests.train.toy import LOOP

TEXT_TOKENS = 40
"""Longest prompt; the toy tokenizer spells words that it doesn't know."""
SIZES = WAN_TRANSFORMER | {"text_len": TEXT_TOKENS}


def toy_wan_parts(folder: Path) -> dict[str, Path]:
    """Write every part, the base as diffusers has it, and an MV-DiT as it is released, `mvdit`."""
    parts = {
        part: folder / part for part in ("vae", "text_encoder", "text_tokenizer", "picture_encoder", "base", "mvdit")
    }
    tiny_wan_vae(1).save_pretrained(parts["vae"])
    write_folder(parts["text_encoder"], tiny_text_tensors(1), TEXT_ENCODER)
    write_folder(parts["picture_encoder"], tiny_picture_tensors(1), PICTURE_ENCODER)
    write_tiny_tokenizer(parts["text_tokenizer"])
    parts["tokenizer"], parts["no_motion"] = folder / "tokenizer.safetensors", folder / "no_motion.safetensors"
    save_file(tiny.tiny_tokenizer(1).state_dict(), parts["tokenizer"])
    learned = torch.randn(24, TOKEN, generator=torch.Generator().manual_seed(4))
    save_file({"unconditional_motion_token": learned}, parts["no_motion"])
    base_model().save_pretrained(parts["base"])
    parts["mvdit"].mkdir()
    save_file(to_released(tiny_wan_tensors(2)), parts["mvdit"] / "diffusion_pytorch_model.safetensors")
    return parts


def base_model() -> WanTransformer3DModel:
    sizes = {key: value for key, value in WAN_TRANSFORMER.items() if key != "text_len" and "motion" not in key}
    base = WanTransformer3DModel(**sizes, in_channels=36, out_channels=16, added_kv_proj_dim=48).eval()
    kept = {
        name: tensor
        for name, tensor in tiny_wan_tensors(2).items()
        if ".motion_attn." not in name and ".norm4." not in name
    }
    base.load_state_dict(kept)
    return base


def toy_wan_recipe(folder: Path, parts: dict[str, Path], loop: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write `wan.yaml`; `loop` goes into its loop, `changes` into its section `dit` and, by `preset`, into that."""
    content = yaml.safe_load((BUILT_IN / "18b.yaml").read_text("utf-8"))
    preset = {key: value for key, value in content.items() if key not in ("weights", "statistics")} | {
        "size_px": [16, 16],
        "frames": 9,
        "overlap": 1,
        "body": "person",
        "sampler": {"scheduler": "euler", "steps": 1, "text_guidance": 1.0, "motion_guidance": 1.0, "shift": 3.0},
        "tokenizer": {"channels": [32, 64], "width": TOKEN, "codes": 64},
        "transformer": SIZES,
        "vae": WAN_VAE,
        "negative_prompt": "the owl",
        **changes.pop("preset", {}),
    }
    dit = {
        "loop": LOOP | {"ema": 0.9} | (loop or {}),
        "world": {"before": 0},
        "clips": 64,
        "base": str(parts["base"]),
        "prediction": "flow",
        "trains": "motion",
        "figure": 1.0,
        "report_clips": 1,
        **changes,
    }
    path = folder / "wan.yaml"
    path.write_text(yaml.safe_dump({"preset": preset, "dit": dit}), encoding="utf-8")
    return path


def given(parts: dict[str, Path]) -> dict[str, Path]:
    """The parts without the two that a run can start from."""
    return {part: path for part, path in parts.items() if part not in ("base", "mvdit")}
