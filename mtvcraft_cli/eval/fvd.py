"""FVD: logits of pieces of video; in two protocols their Frechet distance is the number, in one it is simpler."""

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Float64
from torch import nn

from mtvcraft_cli.eval.geometry import I3D_PX, float_bicubic
from mtvcraft_cli.eval.networks.exact import of_pieces
from mtvcraft_cli.shapes import Frames, Pieces


def i3d_logits(network: nn.Module, frames: Frames, pieces: Pieces, batch: int = 1) -> Float64[np.ndarray, "_ 400"]:
    """Return I3D's logits of pieces of a clip, averaged over time, before any softmax.

    Args:
        network: `networks.i3d.I3d`.
        frames: (T, H, W, 3); brought to 224 x 224 by `geometry.float_bicubic`, which may leave -1..1.
        pieces: as `pieces.disjoint` or `pieces.sliding` cuts them.
        batch: pieces at once.

    Returns:
        (P, 400).
    """
    found = of_pieces(network, frames, pieces, for_i3d, batch)
    return found.reshape(len(pieces), 400)


def prefix_distances(made: Float64[np.ndarray, "K d"], true: Float64[np.ndarray, "K d"]) -> npt.NDArray[np.float64]:
    """Return the squared distance of two clips' logits at every length, (K,): the mean of all clips' is the number.

    It is no distance of distributions, since one clip a side has no covariance.
    """
    return np.square(made - true).sum(1)


def for_i3d(frames: Frames) -> Float32[np.ndarray, "_ _ _ 3"]:
    """(n, H, W, 3) to (n, 224, 224, 3) about -1..1; the filter overshoots."""
    return float_bicubic(frames, I3D_PX) / np.float32(127.5) - np.float32(1)
