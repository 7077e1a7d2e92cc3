"""What surrounds the large model's transformer, at toy size with weights from a seed."""

from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.wanvideo.picture import build_picture_encoder
from mtvcraft_cli.latents.wanvideo.text import END, build_text_encoder
from mtvcraft_cli.latents.wanvideo.vae import build_vae
from tests.tiny_wan import WAN_TRANSFORMER

WAN_VAE: dict[str, Any] = {"base_dim": 4, "num_res_blocks": 1}
WORDS = ["a", "person", "is", "dancing", "in", "the", "owl", "moves", "like"]
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 80,
    "d_model": WAN_TRANSFORMER["text_dim"],
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 3,
}
PICTURE_ENCODER: dict[str, Any] = {
    "hidden_size": WAN_TRANSFORMER["image_dim"],
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "hidden_act": "gelu",
}


def tiny_wan_vae(seed: int = 0, **changes: Any) -> AutoencoderKLWan:
    config = WAN_VAE | changes
    with init_empty_weights():
        empty = AutoencoderKLWan(**config)
    return build_vae(config, seeded_tensors(empty, seed))


def tiny_text_tensors(seed: int = 0) -> dict[str, Tensor]:
    with init_empty_weights():
        empty = UMT5EncoderModel(UMT5Config(**TEXT_ENCODER))
    tensors = seeded_tensors(empty, seed)
    tensors["shared.weight"] = tensors["encoder.embed_tokens.weight"]
    return tensors


def tiny_text_encoder(seed: int = 0) -> UMT5EncoderModel:
    return build_text_encoder(TEXT_ENCODER, tiny_text_tensors(seed))


def tiny_picture_tensors(seed: int = 0) -> dict[str, Tensor]:
    with init_empty_weights():
        empty = CLIPVisionModel(CLIPVisionConfig(**PICTURE_ENCODER))
    tensors = seeded_tensors(empty, seed)
    return {name.removeprefix("vision_model."): tensor for name, tensor in tensors.items()}


def tiny_picture_encoder(seed: int = 0) -> CLIPVisionModel:
    return build_picture_encoder(PICTURE_ENCODER, tiny_picture_tensors(seed))


def write_tiny_tokenizer(folder: Path, *, ends: bool = True) -> Path:
    """A `tokenizer.json` of the kind that umT5 has; `ends` says whether the file itself puts the end mark."""
    words = [(f"▁{word}", -3.0) for word in WORDS]
    letters = [(letter, -8.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,."]
    vocabulary = [("<pad>", 0.0), (END, 0.0), ("<unk>", 0.0), *words, *letters]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))  # trained ones differ from run to run
    tokenizer.add_special_tokens(["<pad>", END, "<unk>"])
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    if ends:
        tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
