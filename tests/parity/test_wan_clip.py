"""The picture encoder gives the reference's numbers: every picture of its golden, from Wan's names of its weights."""

import re
from functools import lru_cache

import pytest
from torch import Tensor
from transformers import CLIPVisionModel

from mtvcraft_cli.latents.wanvideo.picture import MEAN, STD, build_picture_encoder, encode_picture, preprocess
from tests.parity.golden import assert_close, cases, golden

NAME = "wan_clip_small"
PREPROCESSED, FEATURES = 1e-4, 5e-4
OUTPUT = re.compile(r"(preprocessed|features)(\d+)")


@lru_cache
def small_encoder() -> CLIPVisionModel:
    return build_picture_encoder(
        {"num_attention_heads": golden(NAME).config["constructor"]["num_heads"]}, golden(NAME).weights
    )


def picture(number: str) -> Tensor:
    """(1, 3, 1, H, W)."""
    return golden(NAME).inputs[f"picture{number}"][None]


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if OUTPUT.fullmatch(name))))
def test_pictures_are_seen_as_in_the_reference(name: str) -> None:
    what, number = OUTPUT.fullmatch(name).groups()
    if what == "preprocessed":
        side = golden(NAME).config["constructor"]["image_size"]
        assert_close(preprocess(picture(number)[:, :, 0], side), golden(NAME).outputs[name], PREPROCESSED, name)
    else:
        found = encode_picture(small_encoder(), picture(number))
        assert_close(found, golden(NAME).outputs[name], FEATURES, name)


def test_the_mean_picture_and_the_sizes_are_those_of_the_config() -> None:
    config = golden(NAME).config
    assert (list(MEAN), list(STD)) == (config["mean"], config["std"])
    sizes, wanted = small_encoder().config, config["constructor"]
    assert (sizes.image_size, sizes.patch_size) == (wanted["image_size"], wanted["patch_size"])
    assert sizes.num_hidden_layers == wanted["num_layers"] - 1


def test_no_tensor_of_the_golden_is_left_out() -> None:
    assert [name for name in golden(NAME).outputs if not OUTPUT.fullmatch(name)] == []
