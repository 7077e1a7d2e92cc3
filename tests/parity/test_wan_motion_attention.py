"""Motion attention with the released weights' keys gives the reference's numbers, step by step."""

from functools import lru_cache

import torch
from torch import Tensor

from mtvcraft_cli.latents.rope import Rotary, wan_visual_table
from mtvcraft_cli.latents.wan import KeySplit, MotionAttention, from_released, split_keys
from tests.parity.golden import assert_close, golden

NAME = "motion_attn_17b"
LIMIT = 2e-5


@lru_cache
def attended(key_split: KeySplit) -> dict[str, Tensor]:
    """Under the golden's names."""
    config, inputs = golden(NAME).config, golden(NAME).inputs
    attn = MotionAttention(config["dim"], config["num_heads"], config["eps"], key_split).eval()
    layer = "blocks.0.motion_attn."
    tensors = from_released({f"{layer}{name}": tensor for name, tensor in golden(NAME).weights.items()})
    attn.load_state_dict({name.removeprefix(layer): tensor for name, tensor in tensors.items()})
    places = (
        wan_visual_table(*config["grid_fhw"], config["head_dim"]),
        Rotary(inputs["motion_cos"], inputs["motion_sin"]),
    )
    with torch.inference_mode():
        projected = attn.norm_k(attn.to_k(inputs["motion_tokens"]))
        return {
            "key_projected": projected,
            "key_heads": split_keys(projected, config["num_heads"], key_split).transpose(1, 2),
            "output": attn(inputs["x"], inputs["motion_tokens"], None, places),
        }


def test_keys_are_split_into_heads_as_in_the_reference() -> None:
    for name in ("key_projected", "key_heads"):
        assert_close(attended("released")[name], golden(NAME).outputs[name], LIMIT, name)


def test_the_output_is_that_of_the_reference() -> None:
    assert_close(attended("released")["output"], golden(NAME).outputs["output"], LIMIT)


def test_the_plain_split_gives_something_else() -> None:
    expected = golden(NAME).outputs["output"]
    assert (attended("plain")["output"] - expected).abs().max() > 0.05


def test_no_tensor_of_the_golden_is_left_out() -> None:
    assert golden(NAME).outputs.keys() == attended("released").keys()
