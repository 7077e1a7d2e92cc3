"""The character's picture to what the large model sees of it at a glance: the picture half of CLIP."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import torch
from accelerate import init_empty_weights
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.checkpoint import fill
from mtvcraft_cli.shapes import Video

PictureFeatures: TypeAlias = Float[Tensor, "B P A"]
"""One token for the whole and one for each patch of the picture: P = 257."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on; RGB, 0..1."""
HEADS = 16
"""Of the only picture tower that Wan is published with (ViT-H/14)."""
ORIGINAL = {
    "patch_embedding.": "embeddings.patch_embedding.",
    "pre_norm.": "pre_layrnorm.",  # transformers spells it so
    "post_norm.": "post_layernorm.",
    "transformer.": "encoder.layers.",
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    ".attn.proj.": ".self_attn.out_proj.",
    ".mlp.0.": ".mlp.fc1.",
    ".mlp.2.": ".mlp.fc2.",
}
"""Parts of names in Wan's own file, and what transformers calls them."""


def build_picture_encoder(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None
) -> CLIPVisionModel:
    """Make CLIP's picture tower, ready to run, without its last block, which Wan leaves out.

    Args:
        config: the `config.json` of the folder `image_encoder`; empty for Wan's own file, whose sizes are read from its
            tensors.
        tensors: the checkpoint, in the layout of diffusers or in that of Wan's own file, whose text half is passed
            over.
        dtype: what to compute in; None keeps the checkpoint's.

    Raises:
        MtvcraftError: tensors are missing, left over or misshaped (exit 6).
    """
    if any(name.startswith("visual.") for name in tensors):
        named = from_original(tensors)
    else:
        named = {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}
        named.pop("visual_projection.weight", None)  # for comparing pictures with texts
    sizes = CLIPVisionConfig.from_dict(_sizes(named) | dict(config))
    last = sizes.num_hidden_layers = sizes.num_hidden_layers - 1
    with init_empty_weights():
        encoder = CLIPVisionModel(sizes)
    prefix = "vision_model." if hasattr(encoder, "vision_model") else ""  # transformers 4 has it and 5 hasn't
    cast = {
        prefix + name: tensor if dtype is None else tensor.to(dtype)
        for name, tensor in named.items()
        if not name.startswith(f"encoder.layers.{last}.") and not name.endswith("position_ids")
    }
    return fill(encoder, cast, "picture encoder").eval()


def from_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the picture half of `models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth` to transformers' names."""
    named: dict[str, Tensor] = {}
    for original, tensor in tensors.items():
        name = original.removeprefix("visual.")
        if name == original or name == "head":  # the text half; the map to what both halves share
            continue
        if name == "cls_embedding":
            named["embeddings.class_embedding"] = tensor.flatten()
        elif name == "pos_embedding":
            named["embeddings.position_embedding.weight"] = tensor.flatten(0, -2)
        else:
            for part, ours in ORIGINAL.items():
                name = name.replace(part, ours)
            if ".attn.to_qkv." in name:
                for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                    named[name.replace("attn.to_qkv", f"self_attn.{letter}_proj")] = third
            else:
                named[name] = tensor
    return named


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes as the tensors' shapes tell them, and what Wan's own file leaves unsaid."""
    try:
        width, _, patch, _ = tensors["embeddings.patch_embedding.weight"].shape
        places = len(tensors["embeddings.position_embedding.weight"])
        hidden = len(tensors["encoder.layers.0.mlp.fc1.weight"])
    except (KeyError, ValueError) as error:
        raise MtvcraftError(
            f"the picture encoder checkpoint holds no CLIP picture tower: it lacks {error}",
            hint="name `models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth`, or the folder `image_encoder` of a "
            "diffusers repository",
            exit=Exit.WEIGHTS,
        ) from error
    layers = {name.split(".")[2] for name in tensors if name.startswith("encoder.layers.")}
    return {
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": len(layers),
        "num_attention_heads": HEADS,
        "image_size": round((places - 1) ** 0.5) * patch,
        "patch_size": patch,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def preprocess(pictures: Float[Tensor, "B 3 H W"], side_px: int) -> Float[Tensor, "B 3 S S"]:
    """Squeeze pictures into the square that CLIP sees. Source: released code (bicubic, no crop, no antialiasing).

    Args:
        pictures: RGB, -1..1.
        side_px: the square's side.

    Returns:
        In spreads around CLIP's mean picture.
    """
    square = functional.interpolate(pictures, size=(side_px, side_px), mode="bicubic", align_corners=False)
    mean, std = (square.new_tensor(row).view(3, 1, 1) for row in (MEAN, STD))
    return (square * 0.5 + 0.5 - mean) / std


@torch.no_grad()
def encode_picture(encoder: CLIPVisionModel, video: Video) -> PictureFeatures:
    """Look at single pictures: the stream before CLIP's last block, without its final norm. Source: released code.

    Args:
        encoder: from `build_picture_encoder`, which has left the last block out.
        video: (B, 3, 1, H, W), RGB, -1..1; kept as floats, so that carried frames lose nothing on the way.

    Returns:
        (B, 257, 1280) at full size, in the encoder's dtype and on its device.
    """
    square = preprocess(video[:, :, 0].to(encoder.device, torch.float32), encoder.config.image_size)
    return encoder(pixel_values=square.to(encoder.dtype)).last_hidden_state
