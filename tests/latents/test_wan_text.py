"""Prompts at toy size; the encoder's numbers are proved in tests/parity."""

from pathlib import Path

import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.wanvideo.text import (
    ORIGINAL,
    build_text_encoder,
    encode_text,
    from_original,
    load_tokenizer,
    tokenise,
)
from tests.tiny_wan_parts import TEXT_ENCODER, tiny_text_encoder, tiny_text_tensors, write_tiny_tokenizer


def as_original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the names of Wan's own file, which holds the words' table once."""
    originals = {ours: original for original, ours in ORIGINAL.items()}
    renamed = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if module == "encoder.embed_tokens":
            continue
        if module.startswith("encoder.block."):
            layer, inner = module.removeprefix("encoder.block.").split(".", 1)
            renamed[f"blocks.{layer}.{originals[inner]}.{kind}"] = tensor
        else:
            renamed[f"{originals[module]}.{kind}"] = tensor
    return renamed


def test_the_full_size_has_the_released_count() -> None:
    sizes = {"vocab_size": 256384, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with init_empty_weights():
        full = UMT5EncoderModel(UMT5Config(**sizes))
    full.tie_weights()
    assert sum(parameter.numel() for parameter in full.parameters()) == 5_680_910_336


def test_the_file_of_wan_and_the_folder_of_diffusers_give_the_same_bits() -> None:
    tensors = tiny_text_tensors()
    folder = build_text_encoder(UMT5Config(**TEXT_ENCODER).to_dict(), tensors)
    file = build_text_encoder({}, as_original(tensors))
    once = {name: tensor for name, tensor in tensors.items() if name != "encoder.embed_tokens.weight"}
    found = [encode_text(model, [[5, 9, 1]], 8) for model in (folder, file, build_text_encoder(TEXT_ENCODER, once))]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert from_original(as_original(tensors)).keys() == once.keys()


def test_a_prompt_is_encoded_the_same_in_any_company_and_filled_up_with_zeros() -> None:
    encoder = tiny_text_encoder()
    together = encode_text(encoder, [[7, 8, 9, 10, 11, 1], [3, 1]], 12)
    alone = encode_text(encoder, [[3, 1]], 12)
    assert together.shape == (2, 12, TEXT_ENCODER["d_model"])
    assert torch.equal(together[1:], alone)
    assert not together[0, 6:].any()
    assert not together[1, 2:].any()
    assert together[1, :2].abs().min() > 0


def test_an_encoder_in_bfloat16_stays_near_the_exact_one() -> None:
    low = build_text_encoder(TEXT_ENCODER, tiny_text_tensors(), torch.bfloat16)
    found, exact = encode_text(low, [[7, 8, 1]], 4), encode_text(tiny_text_encoder(), [[7, 8, 1]], 4)
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.05 * exact.norm()


def test_the_tokenizer_follows_its_file_to_the_letter(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tiny_tokenizer(tmp_path))
    plain = tokenise(tokenizer, "a person is dancing")
    assert tokenise(tokenizer, "a person is ｄａｎｃｉｎｇ") == plain  # full-width letters: the file's NFKC
    assert tokenizer.decode(plain) == "a person is dancing</s>"


@pytest.mark.parametrize("ends", [True, False])
def test_the_end_mark_comes_once_whether_or_not_the_file_puts_it(tmp_path: Path, ends: bool) -> None:
    tokenizer = load_tokenizer(write_tiny_tokenizer(tmp_path, ends=ends))
    for prompt in ("the owl moves", ""):
        assert tokenise(tokenizer, prompt).count(1) == 1
        assert tokenise(tokenizer, prompt)[-1] == 1


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(write_tiny_tokenizer(tmp_path))
    with pytest.raises(MtvcraftError, match=r"has .* tokens, and the model reads 16") as caught:
        tokenise(tokenizer, "a person is dancing in the street, the owl too", 16)
    assert caught.value.exit == Exit.USAGE


@pytest.mark.parametrize("content", [None, "{", '{"version": "1.0"}'])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(MtvcraftError, match=r"tokenizer\.json") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.exit == Exit.WEIGHTS


def test_a_checkpoint_of_something_else_is_refused_by_name() -> None:
    tensors = tiny_text_tensors()
    tensors.pop("encoder.final_layer_norm.weight")
    with pytest.raises(
        MtvcraftError, match=r"text encoder checkpoint lacks `encoder.final_layer_norm.weight`"
    ) as caught:
        build_text_encoder(TEXT_ENCODER, tensors)
    assert caught.value.exit == Exit.WEIGHTS
    with pytest.raises(MtvcraftError, match="holds no umT5 encoder") as caught:
        build_text_encoder({}, {"conv1.weight": torch.zeros(3)})
    assert caught.value.exit == Exit.WEIGHTS
