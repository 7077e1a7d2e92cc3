"""The large MV-DiT gives the reference's numbers: its output and every activation that the goldens hold."""

import re
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtvcraft_cli.latents.rope import Rotary, wan_visual_table
from mtvcraft_cli.latents.wan import WanMotionTransformer, build_transformer, to_released
from tests.parity.golden import assert_close, cases, golden

NAMES = ("dit_17b_small", "dit_17b_small_text512")
LIMIT = 5e-5
LOWVAR = "lowvar."
"""Before the activations of a second call, with very small latents and picture tokens."""
PLACES = {
    "norm1": "norm1",
    "self_attn": "attn1",
    "norm3": "norm2",
    "cross_attn": "attn2",
    "norm4": "norm4",
    "motion_attn": "motion_attn",
    "norm2": "norm3",
    "ffn": "ffn",
}
OUTSIDE = {
    "sample": "",
    "head": "proj_out",
    "img_emb": "condition_embedder.image_embedder",
    "text_embedding": "condition_embedder.text_embedder",
    "time_embedding": "condition_embedder.time_embedder",
    "time_projection": "condition_embedder.time_proj",
}


def tensors(name: str, part: str) -> dict[str, Tensor]:
    """A golden's own, with those that it borrows."""
    found = golden(name)
    return found.shared.get(f"shared_{part}_file", {}) | getattr(found, part)


@lru_cache
def small_transformer(name: str) -> WanMotionTransformer:
    config = golden(name).config
    weights, inputs = golden(name).weights, tensors(name, "inputs")
    sizes = {
        "image_dim": weights["img_emb.proj.0.weight"].shape[0],
        "motion_token_dim": inputs["motion_tokens"].shape[2],
    }
    return build_transformer(config["constructor"] | sizes, weights)


@lru_cache
def walked(name: str, latents: float = 1.0, picture: float = 1.0) -> dict[str, Tensor]:
    """What every part makes of the golden's inputs, latents and picture tokens scaled, under its name here."""
    transformer, inputs, seen = small_transformer(name), tensors(name, "inputs"), {}
    hooks = [
        part.register_forward_hook(lambda _part, _given, made, name=name: seen.__setitem__(name, made))
        for name, part in transformer.named_modules()
    ]
    contexts = sorted((key for key in inputs if re.fullmatch(r"context\d+", key)), key=lambda key: int(key[7:]))
    joined = torch.cat([inputs["x"], inputs["y"]], dim=1) * latents
    sizes = transformer.config
    grid = [side // patch for side, patch in zip(joined.shape[2:], sizes.patch_size, strict=True)]
    with torch.inference_mode():
        transformer(
            joined,
            inputs["t"],
            inputs["motion_tokens"],
            pad_sequence([inputs[key] for key in contexts], batch_first=True),
            inputs["clip_fea"].expand(len(joined), -1, -1) * picture,
            wan_visual_table(*grid, sizes.attention_head_dim),
            Rotary(inputs["motion_cos"], inputs["motion_sin"]),
        )
    for hook in hooks:
        hook.remove()
    return seen


def place(name: str) -> str:
    """Where in the transformer a tensor of the golden is made."""
    if block := re.fullmatch(r"block(\d+)(?:\.(\w+))?", name):
        layer = f"blocks.{block[1]}"
        return f"{layer}.{PLACES[block[2]]}" if block[2] else layer
    return OUTSIDE[name]


def outputs(name: str) -> list[tuple[str, str]]:
    """The golden's name and the tensor's, for each tensor."""
    found = cases(name, lambda found: found.outputs)
    return [(name, output) for output in found]


@pytest.mark.parametrize(("name", "output"), [case for name in NAMES for case in outputs(name)])
def test_the_activation_is_that_of_the_reference(name: str, output: str) -> None:
    expected = golden(name).outputs[output]
    scales = ()
    if output.startswith(LOWVAR):
        said = golden(name).config["call"]["lowvar"]
        scales = tuple(float(number) for number in re.findall(r"\* *([\d.e-]*\d)", said))
        assert len(scales) == 2, said
    found = walked(name, *scales)[place(output.removeprefix(LOWVAR))]
    if output.endswith("img_emb"):  # every so manieth token of the first sample
        found = found[:1, :: -(-found.shape[1] // expected.shape[1])]
    assert_close(found, expected, LIMIT, output)


@pytest.mark.parametrize("name", NAMES)
def test_motion_attention_is_in_the_blocks_that_the_config_names(name: str) -> None:
    wanted = golden(name).config.get("motion_attention_blocks", golden(NAMES[0]).config["motion_attention_blocks"])
    blocks = small_transformer(name).blocks
    assert [layer for layer, block in enumerate(blocks) if block.motion_attn is not None] == wanted


def test_the_plain_split_of_motion_keys_gives_something_else() -> None:
    name = NAMES[0]
    released = small_transformer(name)
    sample = golden(name).outputs["sample"]
    for block in released.blocks:
        if block.motion_attn is not None:
            block.motion_attn.key_split = "plain"
    try:
        walked.cache_clear()
        assert (walked(name)[""] - sample).abs().max() > 0.05
    finally:
        small_transformer.cache_clear()
        walked.cache_clear()


def test_saved_in_the_released_layout_it_has_the_released_tensors() -> None:
    weights = golden(NAMES[0]).weights
    saved = to_released(small_transformer(NAMES[0]).state_dict())
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in weights.items())
    assert sum(tensor.numel() for tensor in saved.values()) == golden(NAMES[0]).config["parameter_count"]
