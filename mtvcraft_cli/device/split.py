"""`--gpus`: the transformer's layers one after the other over several cards, where one is too small."""

import warnings
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    import torch
    from torch import nn


def read_cards(text: str) -> tuple[int, ...]:
    """Numbers of cards from `0,1`.

    Raises:
        MtvcraftError: exit 2; they are no numbers, or one is named twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words):
        raise MtvcraftError(f"`{text}` names no cards", hint="write their numbers like `--gpus 0,1`", exit=Exit.USAGE)
    cards = tuple(map(int, words))
    if len(set(cards)) < len(cards):
        raise MtvcraftError(f"`--gpus {text}` names a card twice", hint="name each card once", exit=Exit.USAGE)
    return cards


def check_cards(cards: Sequence[int], count: int, device: str, ranks: int) -> None:
    """Refuse cards that aren't there, or that others would work on; `check_together` knows what doesn't go with them.

    Args:
        cards: their numbers.
        count: how many there are.
        device: what `--device` says.
        ranks: processes that work together.

    Raises:
        MtvcraftError: exit 2.
    """
    if ranks > 1:
        raise MtvcraftError(
            "`--gpus` splits the layers of one process, and torchrun has started several",
            hint="leave out `--gpus`: each process takes a card of its own",
            exit=Exit.USAGE,
        )
    if device not in ("auto", "cuda", f"cuda:{cards[0]}"):
        raise MtvcraftError(
            f"`--gpus` and `--device {device}` name different devices",
            hint="leave out `--device`",
            exit=Exit.USAGE,
        )
    if missing := [card for card in cards if card >= count]:
        named = ", ".join(f"`cuda:{card}`" for card in missing)
        raise MtvcraftError(
            f"`--gpus` names {named}, and PyTorch sees {count} card(s)",
            hint="`mtvcraft doctor` lists the cards; CUDA_VISIBLE_DEVICES hides some",
            exit=Exit.USAGE,
        )


def shares_of(whole: int, free: Sequence[int]) -> tuple[int, ...]:
    """Cut weights in proportion to what is free on each card.

    Args:
        whole: bytes of the weights.
        free: bytes on each card beside what else is there.

    Returns:
        Bytes on each card; where there is too little, more than is free.
    """
    room = [max(each, 0) for each in free]
    total = sum(room)
    if total < whole:
        return tuple(each + (whole - total) // len(room) for each in room)
    return tuple(int(whole * each / total) for each in room)


def split(module: "nn.Module", devices: "Sequence[torch.device]", shares: Sequence[int]) -> dict[str, int]:
    """Spread a network's layers over devices, the first layers on the first one.

    Args:
        module: a transformer with its weights in RAM.
        devices: where inputs come in and results go out, and then the others.
        shares: bytes of weights that are meant for each.

    Returns:
        The place in `devices` of each part.
    """
    from accelerate import dispatch_model

    places = places_of(module, shares)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*do not match any submodules.*")  # the network's own parameters
        on = {name: devices[place] for name, place in places.items()}
        dispatch_model(module, on, main_device=devices[0], force_hooks=True)
    for parameter in module.parameters(recurse=False):  # which accelerate leaves where they are
        parameter.data = parameter.data.to(devices[0])
    return places


def places_of(module: "nn.Module", shares: Sequence[int]) -> dict[str, int]:
    """Which share each part of a network belongs to: blocks stay whole, and no share is exceeded by more than one.

    accelerate's own `infer_auto_device_map` fills the first card to the brim, and by two blocks more than it was told.
    """
    places = {name: 0 for name, _ in module.named_parameters(recurse=False)}
    ends, before = list(accumulate(shares)), sum(tensor.nbytes for tensor in module.parameters(recurse=False))
    for name, part in _parts(module):
        size = sum(tensor.nbytes for tensor in part.parameters())
        middle = before + size / 2
        places[name] = next((place for place, end in enumerate(ends) if middle <= end), len(ends) - 1)
        before += size
    return places


def _parts(module: "nn.Module") -> "Iterator[tuple[str, nn.Module]]":
    from torch import nn

    for name, child in module.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", block) for index, block in enumerate(child))
        else:
            yield name, child


def join(module: "nn.Module") -> None:
    """Undo `split`: the whole network is in RAM afterwards."""
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(module, recurse=True)
    if hasattr(module, "hf_device_map"):
        del module.hf_device_map
    module.to("cpu")
