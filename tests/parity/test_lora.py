"""A LoRA is merged as in the reference: every parameter of every case of the golden, and what the merged model says."""

import re
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtvcraft_cli.latents.rope import Rotary, wan_visual_table
from mtvcraft_cli.latents.wan import build_transformer
from mtvcraft_cli.latents.wanvideo.lora import Report, merge_lora
from tests.parity.golden import Golden, assert_close, cases, golden

NAME = "lora_wan"
WEIGHTS, FORWARD, ONE_BFLOAT16_STEP = 1e-6, 5e-5, 2**-7
CASE = re.compile(r"(bf16_)?alpha([\d.]+)")
SAMPLE = "forward.sample"


def named_cases(found: Golden) -> list[str]:
    return list(found.config["cases"])


def outputs(case: str) -> dict[str, Tensor]:
    """Of one case, by the parameter's name."""
    dot = f"{case}."
    return {name.removeprefix(dot): tensor for name, tensor in golden(NAME).outputs.items() if name.startswith(dot)}


@lru_cache
def merged(case: str) -> tuple[dict[str, Tensor], Report]:
    low, strength = CASE.fullmatch(case).groups()
    shared = golden(NAME).shared
    weights = shared["base_weights_file"]
    tensors = {name: tensor.to(torch.bfloat16 if low else torch.float32) for name, tensor in weights.items()}
    return tensors, merge_lora(tensors, shared["lora_file"], float(strength), "released")


@pytest.mark.parametrize("case", cases(NAME, named_cases))
def test_weights_are_merged_as_in_the_reference(case: str) -> None:
    tensors, _ = merged(case)
    expected = {name: tensor for name, tensor in outputs(case).items() if name != SAMPLE}
    assert expected
    for name, tensor in expected.items():
        if case.startswith("bf16"):
            off = (tensors[name].float() - tensor).abs() / tensor.abs().clamp_min(1e-6)
            assert off.max() <= ONE_BFLOAT16_STEP, name
        else:
            assert_close(tensors[name], tensor, WEIGHTS, name)


@pytest.mark.parametrize("case", cases(NAME, named_cases))
def test_what_is_changed_and_what_is_left_out_is_what_the_config_says(case: str) -> None:
    tensors, report = merged(case)
    config, before = golden(NAME).config, golden(NAME).shared["base_weights_file"]
    assert sorted(report.merged) == sorted(config["applied_parameters"])
    assert sorted((*report.unmatched, *report.misshaped)) == sorted(config["ignored_lora_keys"])
    changed = [name for name in tensors if not torch.equal(tensors[name], before[name].to(tensors[name].dtype))]
    assert set(changed) <= set(config["applied_parameters"])
    assert len(changed) == len(config["applied_parameters"])


@pytest.mark.parametrize(
    "case", cases(NAME, lambda found: (name.removesuffix(f".{SAMPLE}") for name in found.outputs if SAMPLE in name))
)
def test_the_merged_model_says_what_the_merged_reference_says(case: str) -> None:
    tensors, _ = merged(case)
    base = golden(golden(NAME).config["base_weights_file"].removesuffix(".weights.safetensors"))
    inputs, constructor = base.inputs, base.config["constructor"]
    contexts = [inputs[f"context{row}"] for row in range(len(inputs["x"]))]
    sizes = {"image_dim": inputs["clip_fea"].shape[2], "motion_token_dim": inputs["motion_tokens"].shape[2]}
    grid = [side // patch for side, patch in zip(inputs["x"].shape[2:], constructor["patch_size"], strict=True)]
    with torch.no_grad():
        sample = build_transformer(constructor | sizes, tensors)(
            torch.cat([inputs["x"], inputs["y"]], dim=1),
            inputs["t"],
            inputs["motion_tokens"],
            pad_sequence(contexts, batch_first=True),
            inputs["clip_fea"].expand(len(contexts), -1, -1),
            wan_visual_table(*grid, constructor["dim"] // constructor["num_heads"]),
            Rotary(inputs["motion_cos"], inputs["motion_sin"]),
        )
    assert_close(sample, outputs(case)[SAMPLE], FORWARD, case)


def test_no_tensor_of_the_golden_is_left_out() -> None:
    known = {f"{case}.{name}" for case in golden(NAME).config["cases"] for name in outputs(case)}
    assert set(golden(NAME).outputs) == known
    assert all(CASE.fullmatch(case) for case in golden(NAME).config["cases"])
