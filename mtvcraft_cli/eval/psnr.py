"""How far two clips are apart, pixel by pixel."""

from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8

from mtvcraft_cli.shapes import Frames

EQUAL: Final = 100.0
"""What equal frames get, where the formula gives infinity."""


def psnr(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"]) -> npt.NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each frame, in decibels.

    20 log10(255 / sqrt(mse)), the mean taken over height, width and colours in float64 (paper, appendix J); `EQUAL`
    where nothing differs.

    Args:
        result: (T, H, W, 3).
        truth: the same shape.

    Returns:
        (T,).

    Raises:
        ValueError: the shapes differ.
    """
    error = mse(result, truth)
    with np.errstate(divide="ignore"):
        return np.where(error > 0, 20 * np.log10(255 / np.sqrt(error)), EQUAL)


def mse(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"]) -> npt.NDArray[np.float64]:
    """Return the mean squared error of each frame, (T,), on the scale of 0..255 squared.

    Raises:
        ValueError: the shapes differ.
    """
    if result.shape != truth.shape:
        raise ValueError(f"clips of shapes {result.shape} and {truth.shape} can't be compared")
    # One frame at a time: float64 of a whole clip is eight times its size.
    pairs = zip(result, truth, strict=True)
    return np.asarray([np.square(one.astype(np.float64) - other).mean() for one, other in pairs], np.float64)
