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
    return _decibels(mse(result, truth))


def psnr_wrapped(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"]) -> npt.NDArray[np.float64]:
    """Return what DisCo's code gave until April 2024 for each frame: no PSNR, but many tables are made of it.

    The difference and its square were both kept in uint8, so both wrapped modulo 256 before the mean was taken: 16
    levels apart counts as equal.

    Args:
        result: (T, H, W, 3).
        truth: the same shape.

    Returns:
        (T,), in decibels; `EQUAL` where the wrapped mean is 0.

    Raises:
        ValueError: the shapes differ.
    """
    _compared(result, truth)
    apart = (one - other for one, other in zip(result, truth, strict=True))
    return _decibels(np.asarray([(each * each).mean(dtype=np.float64) for each in apart], np.float64))


def mse(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"]) -> npt.NDArray[np.float64]:
    """Return the mean squared error of each frame, (T,), on the scale of 0..255 squared.

    Raises:
        ValueError: the shapes differ.
    """
    _compared(result, truth)
    # One frame at a time: float64 of a whole clip is eight times its size.
    pairs = zip(result, truth, strict=True)
    return np.asarray([np.square(one.astype(np.float64) - other).mean() for one, other in pairs], np.float64)


def _compared(result: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> None:
    if result.shape != truth.shape:
        raise ValueError(f"clips of shapes {result.shape} and {truth.shape} can't be compared")


def _decibels(error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.where(error > 0, 20 * np.log10(255 / np.sqrt(error)), EQUAL)
