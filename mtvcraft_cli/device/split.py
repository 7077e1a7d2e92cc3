"""`--gpus`: the transformer's layers one after the other over several cards, where one is too small."""

import warnings
from collections.abc import Sequence
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


def check_cards(cards: Sequence[int], count: int, device: str, offload: str, ranks: int) -> None:
    """Refuse cards that can't be worked on together.

    Args:
        cards: their numbers.
        count: how many there are.
        device: what `--device` says.
        offload: what `--offload` says.
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
    if len(cards) > 1 and offload not in ("auto", "none"):
        raise MtvcraftError(
            f"`--gpus` keeps all layers on cards, and `--offload {offload}` takes them away",
            hint="give one of the two",
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
    """Spread a network's layers over devices, the first layers on the first one; blocks stay whole.

    Args:
        module: a transformer with its weights in RAM.
        devices: where inputs come in and results go out, and then the others.
        shares: bytes of weights that are meant for each.

    Returns:
        The place in `devices` of each part.

    Raises:
        MtvcraftError: exit 5; the blocks don't fill the cards so that all find room.
    """
    from accelerate import dispatch_model, infer_auto_device_map

    largest = max(_bytes(block) for blocks in module.children() for block in blocks.children())
    # A block more than its share for each, since blocks don't end where shares do, and one that accelerate sets aside.
    limits = {place: share + largest * (2 if place == 0 else 1) for place, share in enumerate(shares)}
    places = infer_auto_device_map(
        module, max_memory=limits, no_split_module_classes=module._no_split_modules, clean_result=False
    )
    if left := [name for name, place in places.items() if place == "disk"]:
        raise MtvcraftError(
            f"the transformer does not fit on the cards: no room for `{left[0]}` and {len(left) - 1} more",
            hint="name more cards with `--gpus`, or let one stream its weights with `--offload group`",
            exit=Exit.FIT,
        )
    on = {name: devices[place] for name, place in places.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*do not match any submodules.*")  # the network's own parameters
        dispatch_model(module, on, main_device=devices[0], force_hooks=True)
    for parameter in module.parameters(recurse=False):  # which accelerate leaves where they are
        parameter.data = parameter.data.to(devices[0])
    return dict(places)


def join(module: "nn.Module") -> None:
    """Undo `split`: the whole network is in RAM afterwards."""
    from accelerate.hooks import remove_hook_from_module

    remove_hook_from_module(module, recurse=True)
    if hasattr(module, "hf_device_map"):
        del module.hf_device_map
    module.to("cpu")


def _bytes(module: "nn.Module") -> int:
    return sum(tensor.nbytes for tensor in module.parameters())
