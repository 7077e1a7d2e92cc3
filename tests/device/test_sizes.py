"""Numbers of each network by formula, against the real classes on the meta device."""

from typing import Any

import pytest
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from mtvcraft_cli.device import sizes
from mtvcraft_cli.device.sizes import Count
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from tests import tiny
from tests.tiny_wan import WAN_TRANSFORMER
from tests.tiny_wan_parts import PICTURE_ENCODER, TEXT_ENCODER, WAN_VAE


def numbers(kind: type[nn.Module], config: dict[str, Any]) -> tuple[int, int]:
    """Of a real class: all of them, and those that its own list keeps in float32."""
    with init_empty_weights():
        module = kind(**config)
    if isinstance(module, UMT5EncoderModel):
        module.tie_weights()  # two names of one table
    whole = set(getattr(module, "_keep_in_fp32_modules", None) or ())
    tensors = dict(module.named_parameters())
    kept = sum(tensor.numel() for name, tensor in tensors.items() if whole & set(name.split(".")))
    return sum(tensor.numel() for tensor in tensors.values()), kept


@pytest.mark.parametrize(("name", "released"), [("7b", 7_157_411_904), ("6b", 6_364_425_024), ("mini", None)])
def test_the_small_transformer(name: str, released: int | None) -> None:
    config = dict(load_preset(name).transformer)
    count = sizes.small_transformer(config)
    assert (count.all, count.whole) == numbers(CogVideoXMotionTransformer, config)
    if released is not None:
        assert count.all + sizes.small_unused(config) == released


@pytest.mark.parametrize(("name", "released"), [("17b", 17_443_864_384), ("18b", 18_492_849_984)])
def test_the_large_transformer(name: str, released: int) -> None:
    config = dict(load_preset(name).transformer)
    count = sizes.large_transformer(config)
    assert count.all == released
    assert (count.all, count.whole) == numbers(WanMotionTransformer, config)


@pytest.mark.parametrize("name", ["7b", "17b"])
def test_what_is_pinned_is_the_next_power_of_two_of_each_matrix(name: str) -> None:
    preset = load_preset(name)
    kind = CogVideoXMotionTransformer if name == "7b" else WanMotionTransformer
    with init_empty_weights():
        module = kind(**preset.transformer)
    blocks = getattr(module, "blocks", None) or module.transformer_blocks
    tensors = list(blocks.parameters())
    exact = sum(tensor.numel() for tensor in tensors)
    pinned = sum(1 << (tensor.numel() - 1).bit_length() if tensor.ndim == 2 else tensor.numel() for tensor in tensors)
    count = (sizes.small_transformer if name == "7b" else sizes.large_transformer)(preset.transformer)
    assert (count.blocks, count.pinned) == (exact, pinned)


def test_other_shapes_of_transformers() -> None:
    learnable = tiny.TRANSFORMER | {"motion_positions": "learnable", "motion_every": 3}
    assert sizes.small_transformer(learnable).all == numbers(CogVideoXMotionTransformer, learnable)[0]
    own = WAN_TRANSFORMER | {"unconditional_motion_shape": (24, 32), "motion_every": 3}
    assert sizes.large_transformer(own).all == numbers(WanMotionTransformer, own)[0]


def test_blocks_and_layers_are_part_of_the_whole() -> None:
    for count, module in (
        (sizes.small_transformer(tiny.TRANSFORMER), CogVideoXMotionTransformer(**tiny.TRANSFORMER)),
        (sizes.large_transformer(WAN_TRANSFORMER), WanMotionTransformer(**WAN_TRANSFORMER)),
    ):
        blocks = module.transformer_blocks if hasattr(module, "transformer_blocks") else module.blocks
        assert count.blocks == sum(tensor.numel() for tensor in blocks.parameters())
        assert count.block == sum(tensor.numel() for tensor in blocks[0].parameters())
        linears = [
            layer.weight.numel()
            for name, layer in blocks.named_modules()
            if isinstance(layer, nn.Linear) and not {"attn0", "motion_attn", "norm1", "norm2"} & set(name.split("."))
        ]
        assert count.linear == sum(linears)
        assert count.leaf == max(
            sum(tensor.numel() for tensor in leaf.parameters())
            for leaf in blocks.modules()
            if isinstance(leaf, nn.Linear)
        )


@pytest.mark.parametrize("config", [load_preset("7b").vae, load_preset("mini").vae, tiny.VAE])
def test_cogvideox_vae(config: dict[str, Any]) -> None:
    assert sizes.small_vae(config).all == numbers(AutoencoderKLCogVideoX, dict(config))[0]
    assert sizes.small_vae(load_preset("7b").vae).all == 215_583_907


@pytest.mark.parametrize("config", [load_preset("17b").vae, WAN_VAE, {"base_dim": 8, "decoder_base_dim": 12}])
def test_wan_vae(config: dict[str, Any]) -> None:
    assert sizes.large_vae(config).all == numbers(AutoencoderKLWan, dict(config))[0]
    assert sizes.large_vae({}).all == 126_892_531


def test_the_text_encoder() -> None:
    assert sizes.text_encoder({}).all == 5_680_910_336
    assert sizes.text_encoder(TEXT_ENCODER).all == numbers(UMT5EncoderModel, {"config": UMT5Config(**TEXT_ENCODER)})[0]


def test_the_picture_encoder_without_its_last_block() -> None:
    shorter = PICTURE_ENCODER | {"num_hidden_layers": PICTURE_ENCODER["num_hidden_layers"] - 1}
    real = numbers(CLIPVisionModel, {"config": CLIPVisionConfig(**shorter)})[0]
    assert sizes.picture_encoder(PICTURE_ENCODER).all == real


@pytest.mark.parametrize("config", [load_preset("7b").tokenizer, tiny.TOKENIZER, tiny.TOKENIZER | {"codes": None}])
def test_the_tokenizer_with_its_codebook(config: dict[str, Any]) -> None:
    with init_empty_weights(include_buffers=True):
        module = MotionTokenizer(**config)
    assert sizes.tokenizer(config).all == sum(tensor.numel() for tensor in module.state_dict().values())


def test_bytes_keep_what_stays_float32() -> None:
    assert Count(10, whole=4).bytes(2) == 6 * 2 + 4 * 4
    assert Count(10, whole=4).bytes(4) == 40
