"""Where the character stands in its picture, as far as that can be told without a network."""

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtvcraft_cli.shapes import Picture

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom; shares 0..1 of width and height."""

GRID: Final = 128
"""The picture is looked at with this many pixels along its longer side: stars and grain are gone by then."""
DIFFERENT: Final = 28
"""Levels of 255 in any channel from which on a pixel isn't ground."""
ONE_THING: Final = 0.9
"""Share of what isn't ground that a figure has to hold together."""
FILLED: Final = (0.02, 0.6)
"""Shares of the picture between which a figure lies."""
FRAME: Final = 0.5
"""What fills two opposite sides of its box as fully as this is a picture within a picture."""


def figure_box(picture: Picture) -> Box | None:
    """Find the box of a figure that stands before a plain ground.

    The ground of each row goes evenly from the colour at its left end to that at its right end, so a wall above a
    floor, soft light and a studio's corner are plain too. A shadow counts as part of the figure. Where the picture
    lies in a plain frame, the frame is left out.

    Args:
        picture: (H, W, 3) RGB, 0..255; what was transparent shows a plain background.

    Returns:
        The box, or None where the ground is not plain enough to tell.
    """
    image = Image.fromarray(picture)
    image.thumbnail((GRID, GRID), Image.Resampling.BOX)
    seen = np.asarray(image).astype(np.float32)
    left, top, right, bottom = 0, 0, seen.shape[1], seen.shape[0]
    while min(right - left, bottom - top) >= GRID // 8:
        found = _thing_in(seen[top:bottom, left:right])
        if found is None:
            return None
        (low_x, low_y, high_x, high_y), framed = found
        left, top, right, bottom = left + low_x, top + low_y, left + high_x, top + high_y
        if not framed:
            across, down = seen.shape[1], seen.shape[0]
            return (left / across, top / down, right / across, bottom / down)
    return None


def _thing_in(seen: npt.NDArray[np.float32]) -> tuple[tuple[int, int, int, int], bool] | None:
    """Return the box of the one thing on the ground of `seen` (H, W, 3), and whether that is a framed picture."""
    height, width = seen.shape[:2]
    ends = np.stack([seen[:, :2].mean(axis=1), seen[:, -2:].mean(axis=1)])  # (2, H, 3)
    uneven = _apart(ends[0], ends[1]) > 2 * DIFFERENT
    broken = _apart(ends[:, 1:], ends[:, :-1]) > DIFFERENT  # a wall may meet a floor, but not again and again
    if uneven.mean() > 0.1 or broken.mean() > 0.03:
        return None
    across = np.linspace(0, 1, width, dtype=np.float32)[:, None]
    ground = ends[0][:, None] * (1 - across) + ends[1][:, None] * across
    different = _apart(seen, ground) > DIFFERENT
    thing = max(_things(different), key=len, default=None)
    if thing is None or len(thing) < ONE_THING * different.sum():
        return None
    (low_y, low_x), (high_y, high_x) = thing.min(axis=0), thing.max(axis=0) + 1
    box = (int(low_x), int(low_y), int(high_x), int(high_y))
    inside = different[low_y:high_y, low_x:high_x]
    inner = inside[1:-1, 1:-1] if min(inside.shape) > 4 else inside  # the edge itself may be mixed with the ground
    filled = [inner[0].mean(), inner[-1].mean(), inner[:, 0].mean(), inner[:, -1].mean()]
    if max(min(filled[:2]), min(filled[2:])) >= FRAME:
        return (box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), True
    return (box, False) if FILLED[0] <= len(thing) / (height * width) <= FILLED[1] else None


def _apart(first: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.abs(first - other).max(axis=-1)


def _things(mask: npt.NDArray[np.bool_]) -> Iterator[npt.NDArray[Any]]:
    """Yield the (n, 2) rows and columns of each connected part."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(mask), strict=True)}
    while left:
        reached = [left.pop()]
        for row, column in reached:  # grows while it's walked
            around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= around
            reached += around
        yield np.array(reached)
