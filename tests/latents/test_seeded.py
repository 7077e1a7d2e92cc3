"""Weights from a seed."""

import torch
from accelerate import init_empty_weights

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.seeded import seeded_tensors
from tests.tiny import TRANSFORMER, tiny_tokenizer, tiny_transformer


def test_the_same_seed_gives_the_same_weights_whatever_else_is_drawn() -> None:
    with init_empty_weights():
        deeper = CogVideoXMotionTransformer(**TRANSFORMER | {"num_layers": 6})
    torch.randn(3)
    one, other = seeded_tensors(tiny_transformer(), 0), seeded_tensors(deeper, 0)
    assert one.keys() < other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_another_seed_or_another_name_gives_other_weights() -> None:
    one, other = seeded_tensors(tiny_transformer(), 0), seeded_tensors(tiny_transformer(), 1)
    assert not any(torch.equal(tensor, other[name]) for name, tensor in one.items())
    first, second = (one[f"transformer_blocks.{layer}.ff.net.2.weight"] for layer in (0, 1))
    assert not torch.equal(first, second)


def test_weights_neither_grow_nor_vanish() -> None:
    tensors = seeded_tensors(tiny_transformer(), 0) | seeded_tensors(tiny_tokenizer(), 0)
    assert torch.isclose(tensors["vq.codebook"].std(), torch.tensor(1.0), atol=0.1)
    assert torch.isclose(tensors["proj_out.weight"].std() * 32**0.5, torch.tensor(1.0), atol=0.1)
    assert torch.isclose(tensors["norm_final.weight"].mean(), torch.tensor(1.0), atol=0.1)
