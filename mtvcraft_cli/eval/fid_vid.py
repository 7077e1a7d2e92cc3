"""FID-VID, which DisCo's code calls FVD-3DRN50: features of pieces of video from a network that sees motion."""

from typing import Final

import numpy as np
from jaxtyping import Float32, Float64
from torch import nn

from mtvcraft_cli.eval.geometry import RESNET_PX, float_bicubic
from mtvcraft_cli.eval.networks.exact import of_pieces
from mtvcraft_cli.shapes import Frames, Pieces

MEAN_COLOUR: Final = (114.7748, 107.7354, 99.4750)
"""Of the videos that the network was trained on, 0..255; nothing is divided."""


def resnet_features(
    network: nn.Module, frames: Frames, pieces: Pieces, batch: int = 1
) -> Float64[np.ndarray, "_ 2048"]:
    """Return what the 3D ResNet-50 makes of pieces of a clip.

    Args:
        network: `networks.resnet3d.Resnet3d`.
        frames: (T, H, W, 3); brought to 112 x 112 by `geometry.float_bicubic`.
        pieces: as `pieces.filled` cuts them for `mtvcraft`, where their mean is the clip's one row, or `sliding` for
            `disco`.
        batch: pieces at once.

    Returns:
        (P, 2048).
    """
    return of_pieces(network, frames, pieces, for_resnet3d, batch).reshape(len(pieces), 2048)


def for_resnet3d(frames: Frames) -> Float32[np.ndarray, "_ _ _ 3"]:
    """(n, H, W, 3) to (n, 112, 112, 3) about 0..255, less the mean colour."""
    return float_bicubic(frames, RESNET_PX) - np.asarray(MEAN_COLOUR, np.float32)
