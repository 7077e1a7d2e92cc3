"""Layers over several cards: accelerate's own maps and hooks, with the CPU in the place of every card."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mtvcraft_cli.device.depot import Depot
from mtvcraft_cli.device.placement import Placement
from mtvcraft_cli.device.split import check_cards, join, places_of, read_cards, shares_of, split
from mtvcraft_cli.errors import Exit, MtvcraftError
from tests.latents import test_cogvideox, test_wan
from tests.tiny import tiny_transformer
from tests.tiny_wan import tiny_wan_transformer

CPU = torch.device("cpu")
MODELS = [
    pytest.param(tiny_transformer, test_cogvideox.run, id="small"),
    pytest.param(tiny_wan_transformer, test_wan.run, id="large"),
]


@pytest.mark.parametrize(("make", "run"), MODELS)
def test_a_split_transformer_gives_the_same_bits_and_can_be_joined(
    make: Callable[[], nn.Module], run: Callable[[nn.Module], Tensor]
) -> None:
    module = make()
    before = run(module)
    whole = sum(parameter.nbytes for parameter in module.parameters())
    places = split(module, [CPU, CPU], [whole // 2, whole // 2])
    assert set(places.values()) == {0, 1}
    in_order = [places[name] for name in places if name.rpartition(".")[0] in ("blocks", "transformer_blocks")]
    assert len(in_order) == 4, "blocks stay whole"
    assert in_order == sorted(in_order), "the first layers are on the first card"
    assert len(set(in_order)) == 2
    assert module.hf_device_map.keys() == places.keys()
    hooked = [part for part in module.modules() if hasattr(part, "_hf_hook")]
    assert len(hooked) > 4
    assert torch.equal(run(module), before)
    join(module)
    assert not any(hasattr(part, "_hf_hook") for part in module.modules())
    assert not hasattr(module, "hf_device_map")
    assert torch.equal(run(module), before)


@pytest.mark.parametrize("cards", [2, 3, 5])
def test_no_card_gets_more_than_a_block_beyond_its_share(cards: int) -> None:
    module = tiny_transformer(num_layers=20)
    whole = sum(parameter.nbytes for parameter in module.parameters())
    shares = shares_of(whole, [10 * whole - place * whole for place in range(cards)])
    largest = max(sum(tensor.nbytes for tensor in block.parameters()) for block in module.transformer_blocks)
    held = dict.fromkeys(range(cards), 0)
    for name, place in places_of(module, shares).items():
        part = module.get_parameter(name) if name == "unconditional_motion_token" else module.get_submodule(name)
        held[place] += part.nbytes if isinstance(part, Tensor) else sum(each.nbytes for each in part.parameters())
    assert sum(held.values()) == whole
    assert all(held[place] <= share + largest for place, share in enumerate(shares))


def test_shares_follow_what_is_free() -> None:
    assert shares_of(90, [100, 50]) == (60, 30)
    assert shares_of(90, [100, -5]) == (90, 0)
    assert all(share > free for share, free in zip(shares_of(90, [20, 10]), (20, 10), strict=True)), "it does not fit"


def test_cards_are_read() -> None:
    assert read_cards("0, 2") == (0, 2)
    for words in ("0,,1", "cuda:0", "-1", "0.5"):
        with pytest.raises(MtvcraftError, match="names no cards"):
            read_cards(words)
    with pytest.raises(MtvcraftError, match="twice"):
        read_cards("1,0,1")


@pytest.mark.parametrize(
    ("cards", "device", "ranks", "words"),
    [
        ((0, 3), "auto", 1, "`cuda:3`, and PyTorch sees 2"),
        ((0, 1), "cpu", 1, "--device cpu"),
        ((1, 0), "cuda:0", 1, "--device cuda:0"),
        ((0, 1), "auto", 2, "torchrun"),
    ],
)
def test_cards_that_cannot_work_together_are_refused(
    cards: tuple[int, ...], device: str, ranks: int, words: str
) -> None:
    with pytest.raises(MtvcraftError) as caught:
        check_cards(cards, 2, device, ranks)
    assert words in caught.value.message
    assert caught.value.exit == Exit.USAGE


def test_cards_that_can_work_together_are_taken() -> None:
    check_cards((1, 0), 2, "cuda:1", 1)
    check_cards((1,), 2, "auto", 1)


def test_layers_are_cut_anew_for_a_job_that_wants_them_quite_otherwise(tmp_path: Path) -> None:
    depot, cards = Depot(CPU, tmp_path), Placement(offload="none", cards=(0, 1))
    depot.become(cards, (100, 200), [])
    for shares, taken in (((105, 195), (100, 200)), ((250, 50), (250, 50)), ((), ())):
        depot.become(cards, shares, [])
        assert depot.shares == taken
