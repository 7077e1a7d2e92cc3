"""The text encoder gives the reference's numbers: every prompt of its golden, from Wan's own names of its weights."""

import re
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from transformers import UMT5EncoderModel

from mtvcraft_cli.latents.wanvideo.text import build_text_encoder, encode_text
from tests.parity.golden import assert_close, cases, golden

NAME = "wan_t5_small"
LIMIT = 5e-5
BUCKETS = re.compile(r"bucket_for_relative_position_minus(\d+)_to_(\d+)")
IDS = {"hidden": "input_ids", "long_hidden": "long_input_ids"}


@lru_cache
def small_encoder() -> UMT5EncoderModel:
    return build_text_encoder({}, golden(NAME).weights)


def prompts(output: str) -> tuple[list[list[int]], Tensor]:
    """Token numbers of each prompt without padding, and where they are in the golden's rows."""
    inputs = golden(NAME).inputs
    ids = inputs[IDS[output]]
    mask = inputs.get(IDS[output].replace("input_ids", "attention_mask"), torch.ones_like(ids)).bool()
    return [row[seen].tolist() for row, seen in zip(ids, mask, strict=True)], mask


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if name in IDS)))
def test_prompts_are_encoded_as_in_the_reference(name: str) -> None:
    given, mask = prompts(name)
    expected = golden(NAME).outputs[name]
    found = encode_text(small_encoder(), given, expected.shape[1])
    assert_close(found[mask], expected[mask], LIMIT, name)
    assert not found[~mask].any()


def test_the_lengths_are_those_of_the_config() -> None:
    given, mask = prompts("hidden")
    assert [len(prompt) for prompt in given] == golden(NAME).config["lengths"]
    assert mask.shape[1] == golden(NAME).config["padded_length"]


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if BUCKETS.fullmatch(name))))
def test_distances_fall_into_the_buckets_of_the_reference(name: str) -> None:
    before, after = (int(number) for number in BUCKETS.fullmatch(name).groups())
    attention = small_encoder().encoder.block[0].layer[0].SelfAttention
    found = attention._relative_position_bucket(torch.arange(-before, after + 1))
    assert found.tolist() == golden(NAME).outputs[name].tolist()


def test_no_tensor_of_the_golden_is_left_out() -> None:
    assert [name for name in golden(NAME).outputs if name not in IDS and not BUCKETS.fullmatch(name)] == []
