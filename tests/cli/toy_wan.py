"""The large model at toy size, in the layouts and under the names that it is published in."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from mtvcraft_cli.latents.cogvideox import to_released as to_released_small
from mtvcraft_cli.latents.wan import to_released
from mtvcraft_cli.preset import BUILT_IN
from tests import tiny
from tests.cli.toy import _plain
from tests.latents.test_wan_picture import as_original as picture_as_original
from tests.latents.test_wan_text import as_original as text_as_original
from tests.latents.test_wan_vae import as_original as vae_name
from tests.tiny_wan import WAN_TRANSFORMER, tiny_wan_tensors
from tests.tiny_wan_parts import (
    PICTURE_ENCODER,
    TEXT_ENCODER,
    WAN_VAE,
    tiny_picture_tensors,
    tiny_text_tensors,
    tiny_wan_vae,
    write_tiny_tokenizer,
)

TEXT_TOKENS = 80
"""Longest prompt, in tokens: a letter each where the toy tokenizer has seen nothing like it."""
SIZES = WAN_TRANSFORMER | {"text_len": TEXT_TOKENS}


def toy_wan_preset(folder: Path, like: str = "17b", name: str = "toy-wan", **changes: Any) -> Path:
    """Write `NAME/preset.yaml`: a preset of the package at toy size and 32 x 32 pixels; `changes` go into it."""
    content = yaml.safe_load((BUILT_IN / f"{like}.yaml").read_text(encoding="utf-8"))
    sampler = content["sampler"] | {"steps": 2}
    split = {key: content["transformer"][key] for key in ("motion_every", "motion_key_split")}
    content |= {
        "size_px": [32, 32],
        "sampler": sampler,
        "tokenizer": _plain(tiny.TOKENIZER),
        "transformer": SIZES | split,
        "vae": WAN_VAE,
        "picture_encoder": PICTURE_ENCODER,
        "statistics": str(BUILT_IN / "joint_statistics.json"),
        **changes,
    }
    path = folder / name / "preset.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def released_wan_weights(folder: Path, seed: int, *, motion_every: int = 4, diffusers: bool = False) -> Path:
    """All that `17b` needs: the tokenizer, the transformer in shards, and the base model's parts around it.

    Args:
        folder: where.
        seed: of the random numbers.
        motion_every: motion attention in every how manieth block.
        diffusers: whether the base model's parts are laid out in folders as diffusers does it, or in Wan's own files.
    """
    (folder / "4DMoT").mkdir(parents=True, exist_ok=True)
    state = {"module": tiny.tiny_tokenizer(seed).state_dict(), "ds_version": "0.0", "mp_world_size": 1}
    torch.save(state, folder / "4DMoT" / "mp_rank_00_model_states.pt")
    tensors = to_released(tiny_wan_tensors(seed, motion_every=motion_every))
    config = {
        "_class_name": "WanTransformer3DModel",
        "model_type": "i2v",
        "dim": SIZES["num_attention_heads"] * SIZES["attention_head_dim"],
        "num_heads": SIZES["num_attention_heads"],
        "in_dim": 36,
        "out_dim": 16,
        **{key: SIZES[key] for key in ("text_len", "text_dim", "freq_dim", "ffn_dim", "num_layers")},
        "eps": 1e-6,
        "in_channels": 16,
        "hidden_size": 2048,
    }
    write_shards(folder / "MV-DiT" / "Wan-2-1", tensors, config)
    write_no_motion(folder / "MV-DiT" / "CogVideoX", seed)
    if diffusers:
        tiny_wan_vae(seed).save_pretrained(folder / "vae")
        write_tiny_tokenizer(folder / "tokenizer")
        write_folder(folder / "text_encoder", tiny_text_tensors(seed), TEXT_ENCODER)
        write_folder(folder / "image_encoder", tiny_picture_tensors(seed), PICTURE_ENCODER)
        return folder
    vae = {
        vae_name(name, WAN_VAE["num_res_blocks"]): tensor for name, tensor in tiny_wan_vae(seed).state_dict().items()
    }
    torch.save(vae, folder / "Wan2.1_VAE.pth")
    torch.save(text_as_original(tiny_text_tensors(seed)), folder / "models_t5_umt5-xxl-enc-bf16.pth")
    clip = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
    torch.save(picture_as_original(tiny_picture_tensors(seed)), folder / clip)
    write_tiny_tokenizer(folder / "google" / "umt5-xxl")
    return folder


def write_no_motion(folder: Path, seed: int) -> None:
    """The small model's checkpoint in shards, one of which holds its "no motion" tokens."""
    tensors = to_released_small(tiny.tiny_transformer(seed).state_dict(), text_embed_dim=8)
    write_shards(folder, tensors, _plain(tiny.TRANSFORMER))


def write_shards(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    shards = {f"diffusion_pytorch_model-0000{shard + 1}-of-00002.safetensors": names[shard::2] for shard in range(2)}
    for name, own in shards.items():
        save_file({key: tensors[key].contiguous() for key in own}, folder / name)
    index = {"metadata": {}, "weight_map": {key: name for name, own in shards.items() for key in own}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))


def write_folder(folder: Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def write_toy_lora(path: Path, seed: int = 3) -> Path:
    """A LoRA in Wan's own naming that changes every block's queries and feed-forward."""
    generator = torch.Generator().manual_seed(seed)
    width, hidden = SIZES["num_attention_heads"] * SIZES["attention_head_dim"], SIZES["ffn_dim"]
    tensors: dict[str, Tensor] = {}
    for layer in range(SIZES["num_layers"]):
        for name, rows in (("self_attn.q", width), ("ffn.0", hidden)):
            place = f"diffusion_model.blocks.{layer}.{name}"
            tensors[f"{place}.lora_down.weight"] = torch.randn(2, width, generator=generator) / width**0.5
            tensors[f"{place}.lora_up.weight"] = torch.randn(rows, 2, generator=generator)
    save_file(tensors, path)
    return path
