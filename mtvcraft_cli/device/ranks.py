"""Several processes that `torchrun` started for one run, as their environment tells; no torch."""

import os
from datetime import timedelta
from typing import Final

from mtvcraft_cli.errors import Exit, MtvcraftError

WITH_RANKS = ("animate", "replay")
"""Commands whose transformer can work in several processes; training has ways of its own."""


PATIENCE: Final = timedelta(days=7)
"""How long a process waits for what another one does: finding a person in a film, or measuring a network, takes one of
them a while."""


def world_size() -> int:
    """How many processes work together; 1 where nobody started several."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Which of them this is; rank 0 reads, writes and speaks."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def rank_device(name: str, offload: str) -> str:
    """What `--device` means here: of several processes each takes a card of its own.

    Raises:
        MtvcraftError: exit 2; one card is named for all, the device is alone, or weights would be streamed.
    """
    if world_size() == 1:
        return name
    if offload not in ("auto", "none", "model"):
        raise MtvcraftError(
            f"`--offload {offload}` streams the weights of one process, and torchrun has started {world_size()}",
            hint="leave out `--offload`, or start one process",
            exit=Exit.USAGE,
        )
    if name in ("auto", "cpu", "cuda"):
        return name
    raise MtvcraftError(
        f"`--device {name}` is one device, and torchrun has started {world_size()} processes",
        hint="leave out `--device`: each process takes the card of its number; CUDA_VISIBLE_DEVICES chooses cards",
        exit=Exit.USAGE,
    )


def arrange(ranks: int, branches: int, heads: int, tokens: int) -> tuple[int, int]:
    """Share the work of a transformer among processes.

    The branches of guidance run apart where the number of processes is a multiple of theirs; the processes of a group
    cut the patches among them (Ulysses: each has all patches of some heads while it attends).

    Args:
        ranks: processes.
        branches: forwards of a guided step.
        heads: of each attention.
        tokens: visual tokens of a window.

    Returns:
        Groups, and processes in each.

    Raises:
        MtvcraftError: exit 2; the work can't be cut so.
    """
    groups = _groups(ranks, branches)
    sharing = ranks // groups
    if heads % sharing == 0 and tokens % sharing == 0:
        return groups, sharing
    fitting = [count for count in range(2, 65) if _fits(count, branches, heads, tokens)]
    what = f"{heads} attention heads" if heads % sharing else f"{tokens} visual tokens"
    raise MtvcraftError(
        f"{what} can't be cut evenly among {sharing} of {ranks} processes",
        hint=f"start `torchrun --nproc-per-node` with one of {', '.join(map(str, fitting[:8]))}"
        if fitting
        else "start one process",
        exit=Exit.USAGE,
    )


def _groups(ranks: int, branches: int) -> int:
    return branches if ranks % branches == 0 else 1


def _fits(ranks: int, branches: int, heads: int, tokens: int) -> bool:
    sharing = ranks // _groups(ranks, branches)
    return heads % sharing == 0 and tokens % sharing == 0
