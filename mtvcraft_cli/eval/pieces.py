"""Which frames of a clip make one sample of a distance between distributions.

P pieces, N = 16 frames of a piece. A piece is a row of places in the clip, so `frames[pieces]` is (P, N, H, W, 3).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.shapes import Pieces

LENGTH: Final = 16
"""Frames of a piece."""

HUMANVID_FRAMES: Final = 24
"""So many frames of a clip count in the protocol `humanvid`."""
HUMANVID_PREFIXES: Final = range(10, HUMANVID_FRAMES + 1)
"""Of the first so many frames its FVD takes the logits."""


def disjoint(numbers: Sequence[int]) -> Pieces:
    """Cut a clip into pieces one after the other, as `mtvcraft` does for FVD; what is left at the end is dropped.

    Args:
        numbers: of the frames, as their files are called, rising. A missing number ends a run: the next piece begins
            behind it.

    Returns:
        (P, 16); no row where no 16 numbers follow each other.
    """
    starts: list[int] = []
    for start in _whole(numbers):
        if not starts or start >= starts[-1] + LENGTH:
            starts.append(start)
    return _rows(starts)


def sliding(numbers: Sequence[int]) -> Pieces:
    """Begin a piece at every frame whose 15 successors exist by number, as `disco` does for FVD and FID-VID.

    Args:
        numbers: of the frames, as their files are called, rising.

    Returns:
        (P, 16); no row where no 16 numbers follow each other.
    """
    return _rows(_whole(numbers))


def filled(frames: int) -> Pieces:
    """Cut a clip into pieces and fill the last one up with the last frame, as `mtvcraft` does for FID-VID.

    Args:
        frames: how many the clip has, at least one; their numbers don't count.

    Returns:
        (P, 16), at least one row.

    Raises:
        ValueError: there is no frame.
    """
    if frames < 1:
        raise ValueError(f"a clip of {frames} frames can't be filled up")
    count = -(-frames // LENGTH)
    return np.minimum(np.arange(count * LENGTH), frames - 1).reshape(count, LENGTH)


def humanvid_choice(frames: int) -> npt.NDArray[np.int64]:
    """Choose the frames that count in the protocol `humanvid`.

    24 of them: every third from the first if the clip has more than 72, else every floor(T / 24)th. A clip of fewer
    than 24 frames has them all.

    Args:
        frames: T, how many the clip has.

    Returns:
        (K,) places, K at most 24.
    """
    step = 3 if frames > 72 else max(1, frames // HUMANVID_FRAMES)
    return np.arange(0, frames, step)[:HUMANVID_FRAMES]


def humanvid_prefixes(frames: int) -> list[int]:
    """Return the lengths whose first frames are compared in `humanvid`'s FVD: 10 to 24, as far as the clip goes.

    Args:
        frames: how many were chosen of the clip.
    """
    return [length for length in HUMANVID_PREFIXES if length <= frames]


def _whole(numbers: Sequence[int]) -> list[int]:
    """Places at which 16 numbers follow each other without a gap."""
    if any(later <= sooner for sooner, later in pairwise(numbers)):
        raise ValueError(f"frames numbered {list(numbers)[:6]}... don't rise")
    last = len(numbers) - LENGTH
    return [start for start in range(last + 1) if numbers[start + LENGTH - 1] == numbers[start] + LENGTH - 1]


def _rows(starts: Sequence[int]) -> Pieces:
    return np.asarray(starts, np.int64).reshape(-1, 1) + np.arange(LENGTH)
