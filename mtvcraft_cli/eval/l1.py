"""The mean absolute difference, in the odd unit of DisCo's tables."""

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8

from mtvcraft_cli.shapes import Frames


def l1(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"]) -> npt.NDArray[np.float64]:
    """Return the mean absolute difference of each frame, 0..255, divided by height times width.

    Args:
        result: (T, H, W, 3).
        truth: the same shape.

    Returns:
        (T,).

    Raises:
        ValueError: the shapes differ.
    """
    if result.shape != truth.shape:
        raise ValueError(f"clips of shapes {result.shape} and {truth.shape} can't be compared")
    pixels = truth.shape[1] * truth.shape[2]
    pairs = zip(result, truth, strict=True)
    return np.asarray([np.abs(one.astype(np.int16) - other).mean() / pixels for one, other in pairs], np.float64)
