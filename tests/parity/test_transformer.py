"""The MV-DiT gives the reference's numbers: its output and every activation that the golden holds."""

import re
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer, time_sinusoid, to_released
from mtvcraft_cli.latents.rope import Rotary
from tests.parity.golden import DIT_7B, assert_close, cases, golden

NAME = "dit_7b_small"
LOWVAR = "lowvar."
"""Before the activations of a second call, with very small latents."""
PLACES = {
    "norm1_modulated": "norm1",
    "norm2_modulated": "norm2",
    "attn1": "attn1",
    "attn0": "attn0",
    "ff": "ff",
}


@lru_cache
def small_transformer() -> CogVideoXMotionTransformer:
    return build_transformer(golden(NAME).config["constructor"], golden(NAME).weights)


def tables() -> tuple[Rotary, Rotary]:
    inputs = golden(NAME).inputs
    return Rotary(inputs["visual_cos"], inputs["visual_sin"]), Rotary(inputs["motion_cos"], inputs["motion_sin"])


@lru_cache
def walked(scale: float) -> dict[str, Tensor]:
    """What every part makes of the golden's latents times `scale`, under its name in the transformer."""
    transformer, inputs = small_transformer(), golden(NAME).inputs
    seen = {}

    def note(name: str, made: Tensor | tuple[Tensor, ...]) -> None:
        seen[name] = made[0] if isinstance(made, tuple) else made

    hooks = [
        part.register_forward_hook(lambda _part, _given, made, name=name: note(name, made))
        for name, part in transformer.named_modules()
    ]
    with torch.inference_mode():
        transformer(inputs["hidden_states"] * scale, inputs["timestep"], inputs["motion_emb"], *tables())
    for hook in hooks:
        hook.remove()
    return seen


def place(name: str) -> str:
    """Where in the transformer a tensor of the golden is made."""
    if block := re.fullmatch(r"block(\d+)(?:\.(\w+))?", name):
        layer = f"transformer_blocks.{block[1]}"
        return f"{layer}.{PLACES[block[2]]}" if block[2] else layer
    return {"sample": "", "temb": "time_embedding"}.get(name, name)


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if "sinusoid" not in name)))
def test_the_activation_is_that_of_the_reference(name: str) -> None:
    scale = 1.0
    if name.startswith(LOWVAR):
        scale = float(re.search(r"\* *([\d.e-]+\d)", golden(NAME).config["call"]["lowvar"])[1])
    seen = walked(scale)[place(name.removeprefix(LOWVAR))]
    assert_close(seen, golden(NAME).outputs[name], DIT_7B, name)


def test_the_times_are_those_of_the_reference() -> None:
    inputs, constructor = golden(NAME).inputs, golden(NAME).config["constructor"]
    sinusoid = time_sinusoid(
        inputs["timestep"],
        golden(NAME).outputs["time_sinusoid"].shape[1],
        cosines_first=constructor["flip_sin_to_cos"],
        shift=constructor["freq_shift"],
    )
    assert_close(sinusoid, golden(NAME).outputs["time_sinusoid"], DIT_7B)


def test_saved_in_the_released_layout_it_has_the_released_tensors() -> None:
    text_embed_dim = golden(NAME).config["constructor"]["text_embed_dim"]
    saved = to_released(small_transformer().state_dict(), text_embed_dim)
    assert {name: tensor.shape for name, tensor in saved.items()} == {
        name: tensor.shape for name, tensor in golden(NAME).weights.items()
    }
    assert sum(tensor.numel() for tensor in saved.values()) == golden(NAME).config["parameter_count"]
