"""Shot cuts: frames that show something else than the frames before, told apart from flashes, fades and pans.

Frames are compared as thumbnails and as histograms of colours. A cut is a frame where everything shortly before
differs from everything shortly after, in one step that stands out from the changes around it. A flash passes, so
frames before and after it are alike; in a fade or a fast pan every step is as large as the next. Hence a fade from one
shot into another is no cut here.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.backend import Batch

Frame = npt.NDArray[np.uint8]
Look = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
"""Thumbnail (S, S, 3) and histogram (B * B * B,) of a frame."""

AROUND: Final = 4
"""Frames compared on either side: a flash of one less is told from a cut."""
SIDE: Final = 16
SAMPLES: Final = 64
"""Every frame is thinned to about so many rows and columns first."""
BINS: Final = 4
LEAST: Final = 0.11
"""Shots differ by at least so much, 0..1."""
STANDS_OUT: Final = 2.5
"""A cut is so many times as large as the steps around it."""


def with_cuts(batches: Iterable[Batch]) -> Iterator[tuple[Frame, bool]]:
    """Hand frames on one by one, and say of each whether it begins a new shot.

    Args:
        batches: (n, H, W, 3) RGB 0..255, in order. A few frames are read ahead.
    """
    waiting: deque[Frame] = deque()
    looks: deque[Look] = deque()  # of up to AROUND frames that were handed on, then of those that wait
    frames = (frame for batch in batches for frame in batch)
    while True:
        while len(waiting) < AROUND and (frame := next(frames, None)) is not None:
            waiting.append(frame)
            looks.append(_look(frame))
        if not waiting:
            return
        before = len(looks) - len(waiting)
        yield waiting.popleft(), is_cut(list(looks), before)
        if before == AROUND:
            looks.popleft()


def is_cut(looks: list[Look], first: int) -> bool:
    """Whether frame `first` begins a new shot, judged by the frames around it."""
    before, after = looks[max(first - AROUND, 0) : first], looks[first : first + AROUND]
    if not before or (step := difference(before[-1], after[0])) < LEAST:
        return False
    if min(difference(one, other) for one in before for other in after) < LEAST:
        return False
    steps = [difference(*pair) for side in (before, after) for pair in pairwise(side)]
    return step > STANDS_OUT * max(steps, default=0.0)


def difference(one: Look, other: Look) -> float:
    """Return how unlike two frames are, 0..1: the mean of what thumbnails and histograms say."""
    return float(np.abs(one[0] - other[0]).mean() + np.abs(one[1] - other[1]).sum() / 2) / 2


def _look(frame: Frame) -> Look:
    height, width = frame.shape[:2]
    thin = frame[:: max(height // SAMPLES, 1), :: max(width // SAMPLES, 1)]
    rows, columns = (np.linspace(0, side, SIDE, endpoint=False).astype(int) for side in thin.shape[:2])
    counts = [
        np.diff([*starts.tolist(), side]).clip(1) for starts, side in zip((rows, columns), thin.shape, strict=False)
    ]
    sums = np.add.reduceat(np.add.reduceat(thin.astype(np.float32), rows, axis=0), columns, axis=1)
    thumbnail = sums / (255 * counts[0][:, None, None] * counts[1][None, :, None])
    bins = (thin // (256 // BINS)).astype(np.int64).reshape(-1, 3) @ (BINS * BINS, BINS, 1)
    histogram = np.bincount(bins, minlength=BINS**3) / len(bins)
    return thumbnail.astype(np.float32), histogram.astype(np.float32)
