"""The motion tokenizer gives the reference's numbers: every tensor and every row of the table of its golden."""

from collections import defaultdict
from functools import lru_cache
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from mtvcraft_cli.tokens.tokenizer import Block, MotionTokenizer, as_tokens, tokenizer_from_tensors
from tests.parity.golden import (
    TOKENIZER_LATENT,
    TOKENIZER_LOSS,
    TOKENIZER_LOWVAR_LATENT,
    TOKENIZER_TOKENS,
    Golden,
    assert_close,
    cases,
    golden,
)

NAME = "tokenizer_small"
LIMITS = {"latent": TOKENIZER_LATENT, "recon": TOKENIZER_LATENT, "tokens": TOKENIZER_TOKENS, "vq_loss": TOKENIZER_LOSS}


@lru_cache
def small_tokenizer() -> MotionTokenizer:
    sizes = golden(NAME).config["classes"]
    config = {
        "channels": sizes["encoder"]["mid_channels"],
        "width": sizes["vq"]["code_dim"],
        "codes": sizes["vq"]["nb_code"],
    }
    return tokenizer_from_tensors(config, golden(NAME).weights)


@lru_cache
def walked(case: str) -> dict[str, Tensor]:
    """All that the golden may ask of the input `case`, in the reference's layout and under its names."""
    tokenizer = small_tokenizer()
    calls = defaultdict(list)
    hooks = [
        part.register_forward_hook(lambda _part, _given, made, name=name: calls[name].append(made))
        for name, part in tokenizer.named_modules()
        if name
    ]
    joints = golden(NAME).inputs[f"{case}.joints"]
    with torch.inference_mode():
        latents = tokenizer.encode(joints)
        codes = tokenizer.quantise(latents)
        rows = tokenizer.look_up(codes)
        found = {
            "latent": rearrange(latents, "b f j d -> b d f j"),
            "indices": codes.flatten(1),
            "tokens": as_tokens(rows),
            "vq_loss": (latents - rows).square().mean(),
            "recon": tokenizer.decode(rows),
        }
    for hook in hooks:
        hook.remove()
    for name, made in calls.items():
        if made[0].ndim == 4:
            # The first call saw the first slice, the second one all further slices of all samples.
            slices = [made[0], *(batch for rest in made[1:] for batch in _by_slice(rest, len(joints)))]
            found |= {f"trace.{name}.call{call}": seen for call, seen in enumerate(slices)}
    return found


def _by_slice(batch: Tensor, samples: int) -> Tensor:
    return rearrange(batch, "(b s) c f j -> s b c f j", b=samples)


def _whole_outputs(found: Golden) -> list[str]:
    return sorted(found.outputs)


@pytest.mark.parametrize("output", cases(NAME, _whole_outputs))
def test_each_stored_tensor_is_reproduced(output: str) -> None:
    expected = golden(NAME).outputs[output]
    case, _, what = output.partition(".")
    actual = walked(case)[what]
    if not expected.is_floating_point():
        assert torch.equal(actual, expected.to(actual.dtype))
    elif case.startswith("lowvar"):
        assert_close(actual, expected, TOKENIZER_LOWVAR_LATENT, output)
    else:
        assert_close(actual, expected, LIMITS.get(what, TOKENIZER_LATENT), output)


@pytest.mark.parametrize("case", cases(NAME, lambda found: [f"f{length}" for length in found.config["lengths"]]))
def test_each_length_of_the_config_has_an_input_and_its_outputs(case: str) -> None:
    stored = {output.partition(".")[2] for output in golden(NAME).outputs if output.startswith(f"{case}.")}
    assert f"{case}.joints" in golden(NAME).inputs
    assert stored >= {"latent", "indices", "vq_loss", "recon"}


@pytest.mark.parametrize("row", cases(NAME, lambda found: found.config.get("length_table", [])), ids=lambda row: row[0])
def test_each_number_of_frames_gives_the_lengths_of_the_table(row: list[Any]) -> None:
    table = golden(NAME).config
    expected = dict(zip(table["length_table_columns"], row, strict=False))
    joints = torch.zeros(1, expected["frames"], small_tokenizer().joints, 3)
    with torch.inference_mode():
        if expected["latent_frames"] is None:
            assert row[-1] == "ValueError"
            with pytest.raises(ValueError):
                small_tokenizer().encode(joints)
            return
        latents = small_tokenizer().encode(joints)
        made = {
            "frames": joints.shape[1],
            "latent_frames": latents.shape[1],
            "tokens": as_tokens(latents).shape[1],
            "reconstructed_frames": small_tokenizer().decode(latents).shape[1],
        }
    assert made == expected


@pytest.mark.parametrize("channels", cases(NAME, lambda found: found.config.get("resblock_dilation", {})))
def test_each_width_is_dilated_as_the_config_says(channels: str) -> None:
    dilation = golden(NAME).config["resblock_dilation"][channels]
    assert Block(int(channels), int(channels)).block[2].dilation == (dilation, dilation)
