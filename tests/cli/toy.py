"""A preset of toy size: every stage real, a window in a second."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from mtvcraft_cli.latents.cogvideox import to_released
from mtvcraft_cli.preset import BUILT_IN
from tests import tiny

PLACES = {"tokenizer": "4DMoT", "transformer": "MV-DiT/CogVideoX", "vae": "vae"}


def toy_preset(folder: Path, **changes: Any) -> Path:
    """Write `toy/preset.yaml`, with random weights at 32 x 32 pixels; `changes` go into it."""
    content = yaml.safe_load((BUILT_IN / "mini.yaml").read_text(encoding="utf-8"))
    content |= {
        "size_px": [32, 32],
        "frames": 49,
        "overlap": 9,
        "sampler": {"scheduler": "dpm", "steps": 2, "motion_guidance": 3.0},
        "tokenizer": _plain(tiny.TOKENIZER),
        "transformer": _plain(tiny.TRANSFORMER),
        "vae": _plain(tiny.VAE),
        "statistics": str(BUILT_IN / "joint_statistics.json"),
        "weights": dict.fromkeys(PLACES, "seeded:0"),
        **changes,
    }
    path = folder / "toy" / "preset.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _plain(sizes: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}


def released_weights(folder: Path, seed: int) -> Path:
    """Checkpoints of toy size under the names and in the layouts that they are published in."""
    parts = {name: folder / path for name, path in PLACES.items()}
    for place in parts.values():
        place.mkdir(parents=True, exist_ok=True)
    state = {"module": tiny.tiny_tokenizer(seed).state_dict(), "ds_version": "0.0", "mp_world_size": 1}
    torch.save(state, parts["tokenizer"] / "mp_rank_00_model_states.pt")

    transformer = tiny.tiny_transformer(seed)
    tensors = to_released(transformer.state_dict(), text_embed_dim=8)
    names = sorted(tensors)
    shards = {f"diffusion_pytorch_model-0000{shard + 1}-of-00002.safetensors": names[shard::2] for shard in range(2)}
    for name, own in shards.items():
        save_file({key: tensors[key].contiguous() for key in own}, parts["transformer"] / name)
    index = {"metadata": {}, "weight_map": {key: name for name, own in shards.items() for key in own}}
    (parts["transformer"] / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    config = _plain(tiny.TRANSFORMER) | {"_class_name": "AnyName", "use_learned_positional_embeddings": False}
    (parts["transformer"] / "config.json").write_text(json.dumps(config))
    tiny.tiny_vae(seed).save_pretrained(parts["vae"])
    return folder


def hub_cache(hub: Path, weights: Path) -> Path:
    """The same files as huggingface_hub keeps them: blobs, and snapshots that link to them."""
    for repo, names in (("yanboding/MTVCrafter", ("tokenizer", "transformer")), ("THUDM/CogVideoX-5b", ("vae",))):
        root = hub / f"models--{repo.replace('/', '--')}"
        (root / "blobs").mkdir(parents=True)
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text("0" * 40)
        for file in (path for name in names for path in (weights / PLACES[name]).iterdir()):
            blob = root / "blobs" / f"{PLACES['vae']}-{file.parent.name}-{file.name}"
            blob.write_bytes(file.read_bytes())
            link = root / "snapshots" / ("0" * 40) / file.relative_to(weights)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    return hub
