"""How alike two clips are in structure (Wang et al. 2004), in each of the ways that papers of this field use."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import UInt8

from mtvcraft_cli.shapes import Frames

Array = npt.NDArray[np.float64]

_BAND: Final = 16
"""Rows that are looked at together."""


@dataclass(frozen=True)
class Window:
    """Over which neighbourhood the structure is compared, and on what."""

    weights: tuple[float, ...]
    """Along one side; they sum to 1."""
    grey: bool = False
    """Grey as OpenCV makes it, or each colour and then their mean."""
    sample: bool = False
    """Covariances of a sample (n - 1), or of all there is (n)."""
    padded: bool = False
    """Zeros around the picture and every pixel counted, or only windows that fit."""


def _gaussian(size: int, sigma: float) -> tuple[float, ...]:
    bell = np.exp(-0.5 * ((np.arange(size) - size // 2) / sigma) ** 2)
    return tuple((bell / bell.sum()).tolist())


WINDOWS: Final = {
    "rgb_gauss11": Window(_gaussian(11, 1.5)),
    "rgb_gauss11_zeropad": Window(_gaussian(11, 1.5), padded=True),
    "rgb7": Window((1 / 7,) * 7, sample=True),
    "gray7": Window((1 / 7,) * 7, grey=True, sample=True),
}
"""By the protocols' names: `mtvcraft` uses the first, `humanvid` the second, `disco` the last."""


def ssim(result: Frames, truth: UInt8[np.ndarray, "_ _ _ 3"], window: str = "rgb_gauss11") -> Array:
    """Return the structural similarity of each frame, at most 1, which is for equal ones.

    K1 = 0.01, K2 = 0.03, a range of 255, float64.

    Args:
        result: (T, H, W, 3).
        truth: the same shape.
        window: a name from `WINDOWS`.

    Returns:
        (T,).

    Raises:
        ValueError: the shapes differ, or the frames are smaller than the window.
    """
    if result.shape != truth.shape:
        raise ValueError(f"clips of shapes {result.shape} and {truth.shape} can't be compared")
    kind = WINDOWS[window]
    if min(truth.shape[1:3]) < len(kind.weights):
        raise ValueError(f"frames of {truth.shape[2]} x {truth.shape[1]} are smaller than the window of `{window}`")
    return np.asarray([_of_frame(one, other, kind) for one, other in zip(result, truth, strict=True)], np.float64)


def _of_frame(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8], window: Window) -> float:
    """Band by band, so that what lies between stays in the processor's own memory: some five times as fast."""
    reach = len(window.weights) // 2
    if window.padded:
        around = ((reach, reach), (reach, reach), (0, 0))
        one, other = np.pad(one, around), np.pad(other, around)
    rows = len(one) - 2 * reach
    maps = []
    for start in range(0, rows, _BAND):
        band = slice(start, min(start + _BAND, rows) + 2 * reach)
        x, y = (_grey(each[band]) if window.grey else each[band].astype(np.float64) for each in (one, other))
        maps.append(_map(x, y, window))
    return float(sum(each.sum() for each in maps) / sum(each.size for each in maps))


def _map(x: Array, y: Array, window: Window) -> Array:
    """The similarity at every place where the window fits."""
    mean_x, mean_y, xx, yy, xy = (_averaged(each, window.weights) for each in (x, y, x * x, y * y, x * y))
    count = len(window.weights) ** 2
    spread = count / (count - 1) if window.sample else 1.0
    var_x, var_y = spread * (xx - mean_x * mean_x), spread * (yy - mean_y * mean_y)
    both = spread * (xy - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return np.asarray(alike / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))


def _averaged(picture: Array, weights: tuple[float, ...]) -> Array:
    """Weighted means over all windows, down and then across; the two sides of a window weigh the same."""
    reach = len(weights) // 2
    for _ in range(2):
        length = len(picture) - 2 * reach
        total = weights[reach] * picture[reach : reach + length]
        for step in range(reach):
            far = 2 * reach - step
            total += weights[step] * (picture[step : step + length] + picture[far : far + length])
        picture = total.swapaxes(0, 1)
    return picture


def _grey(picture: npt.NDArray[np.uint8]) -> Array:
    """OpenCV's integer rule, exact for every colour."""
    red, green, blue = np.moveaxis(picture.astype(np.int64), -1, 0)
    return (9798 * red + 19235 * green + 3735 * blue + 16384 >> 15).astype(np.float64)
