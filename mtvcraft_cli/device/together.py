"""What of the ways to place a network, to share it and to store it can't be had together."""

from mtvcraft_cli.device.placement import Quantize
from mtvcraft_cli.errors import Exit, MtvcraftError


def check_together(*, quantize: Quantize, cards: int = 0, ranks: int = 1) -> None:
    """Refuse what works alone and has never been shown to work with the rest.

    Args:
        quantize: how matrices are stored.
        cards: how many share the layers; 0 where none are named.
        ranks: processes that work together.

    Raises:
        MtvcraftError: exit 2.
    """
    if quantize == "none":
        return
    if ranks > 1:
        raise MtvcraftError(
            f"`--quantize {quantize}` works in one process, and torchrun has started {ranks}",
            hint="leave out `--quantize`, or start one process",
            exit=Exit.USAGE,
        )
    if cards > 1:
        raise MtvcraftError(
            f"`--quantize {quantize}` works on one card, and {cards} are named",
            hint="leave out `--quantize`, or name one card",
            exit=Exit.USAGE,
        )
