"""What of the ways to place a network, to share it, to store it and to spare it can't be had together."""

from mtvcraft_cli.device.placement import STREAMED, Quantize, Wanted
from mtvcraft_cli.errors import Exit, MtvcraftError


def check_together(
    *,
    offload: Wanted = "auto",
    cards: int = 0,
    ranks: int = 1,
    quantize: Quantize = "none",
    level: str = "best",
    compiled: bool = False,
    attention: str = "auto",
) -> None:
    """Refuse what works alone and has never been shown to work with the rest.

    Args:
        offload: what stays on the card.
        cards: how many share the layers; 0 where none are named.
        ranks: processes that work together.
        quantize: how matrices are stored.
        level: of `--speed`.
        compiled: whether blocks are compiled.
        attention: what computes it.

    Raises:
        MtvcraftError: exit 2.
    """
    packed = [f"`--quantize {quantize}`"] * (quantize != "none")
    compiling = ["`--compile`"] * compiled
    skipping = [f"`--speed {level}`"] * (level != "best")
    whole = skipping + compiling
    away = [f"`--offload {offload}`"] * (offload not in ("auto", "none"))
    kernel = [f"`--attention {attention}`"] * (attention in ("flash", "sage"))
    clashes = (
        (packed + whole + kernel, ranks > 1, f"works in one process, and torchrun has started {ranks}"),
        (packed + whole, cards > 1, f"works on one card, and {cards} are named"),
        (away, cards > 1, f"takes layers off a card, and each of the {cards} named keeps its own"),
        (whole, offload in STREAMED, f"wants the whole transformer in memory, and `--offload {offload}` streams it"),
        (compiling, quantize != "none", f"compiles plain matrices, and `--quantize {quantize}` packs them"),
    )
    for asked, clashing, why in clashes:
        if asked and clashing:
            raise MtvcraftError(f"{asked[0]} {why}", hint="give one of the two", exit=Exit.USAGE)
