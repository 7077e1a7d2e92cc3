"""Ways to place a network where memory is short, and what each of them takes."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

from mtvcraft_cli.device.sizes import Count

Offload: TypeAlias = Literal["none", "model", "group", "sequential", "disk"]
"""What stays on the card while a network works: "none" keeps every network there, "model" only the one that works,
"group" of that one two groups of blocks (one works, the next is on its way), "sequential" a single layer; "disk" is
like "group", with the rest in files and not in RAM."""
Wanted: TypeAlias = Literal["auto", "none", "model", "group", "sequential", "disk"]
"""What `--offload` takes; "auto" leaves it to the plan."""
STREAMED: Final = ("group", "sequential", "disk")
"""Placements whose weights come to the card anew in every forward of the transformer."""
Quantize: TypeAlias = Literal["none", "int8", "nf4", "fp8"]
"""How matrices of the blocks are stored; motion attention, norms and both ends stay as they are."""
Packing: TypeAlias = Literal["int8", "nf4", "fp8"]
"""The same but for none."""
QUANTISED_BYTES: Final[dict[str, float]] = {"int8": 1.0, "nf4": 0.5 + 4 / 64, "fp8": 1.0}
"""Bytes of a number; nf4 keeps a float32 scale for each 64."""
PIECE_BYTES: Final = 256 * 2**20
"""What an int8 layer takes at most beside its inputs and outputs: it goes through its inputs in pieces."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where networks live and how they are stored."""

    offload: Offload = "none"
    quantize: Quantize = "none"
    cards: tuple[int, ...] = ()
    """Numbers of the cards that the transformer's layers are split over, in sequence; () where one holds them all. The
    other networks then come to the first card one at a time."""


RUNNABLE: Final = tuple(Placement(offload=way) for way in get_args(Offload))
"""What the program can do on one card, the fastest first; a plan chooses among these."""


def is_roomy(placement: Placement, ranks: tuple[int, int] = (1, 1)) -> bool:
    """Whether the transformer is whole in one memory while it works, in numbers as they are: it may be rearranged."""
    whole = placement.offload not in STREAMED and not placement.cards and ranks == (1, 1)
    return whole and placement.quantize == "none"


def stored_bytes(count: Count, wide: int, quantize: Quantize) -> int:
    """What a whole network takes, where numbers that aren't quantised have `wide` bytes."""
    if quantize == "none":
        return count.bytes(wide)
    return count.bytes(wide) - int(count.linear * (wide - QUANTISED_BYTES[quantize]))


def unpacking_bytes(count: Count, wide: int, quantize: Quantize, step: int) -> int:
    """What a layer whose matrix is quantised takes while it works, beside what any other does.

    Args:
        count: numbers of its network.
        wide: bytes of a number that isn't quantised.
        quantize: how it is stored.
        step: bytes that the network takes beside its weights where nothing is quantised.
    """
    if quantize == "none":
        return 0
    return min(PIECE_BYTES, 2 * step) if quantize == "int8" else wide * count.matrix


def card_bytes(count: Count, wide: int, placement: Placement) -> int:
    """What a network's weights take on the card while it works."""
    whole = stored_bytes(count, wide, placement.quantize)
    if placement.offload in ("none", "model") or not count.blocks:
        return whole
    if placement.offload == "sequential":  # while one layer works the next is on its way
        return (count.leaf + min(count.leaf, count.block)) * wide
    share = whole / count.bytes(wide)
    return int(share * wide * (count.all - count.blocks + 2 * count.block))


def ram_bytes(count: Count, wide: int, placement: Placement) -> int:
    """What a network's weights take in RAM while it does not work, or works on a card that doesn't hold all of it."""
    if placement.offload == "none":
        return 0
    stored = stored_bytes(count, wide, placement.quantize)
    if placement.offload == "disk" and count.blocks:
        return card_bytes(count, wide, placement)
    if placement.offload == "group" and count.pinned:
        return stored + int((count.pinned - count.blocks) * wide * stored / count.bytes(wide))
    return stored


def smaller(offload: Offload) -> tuple[Offload, ...]:
    """The placements that take less of a card, the fastest first."""
    ways: tuple[Offload, ...] = ("none", "model", "group", "sequential")  # weights in files take no less of it
    return ways[ways.index(offload) + 1 :] if offload in ways else ("sequential",)
