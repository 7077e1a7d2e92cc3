"""FID: features of single frames; their Frechet distance is the number."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.eval.networks.exact import as_channels, device_of, exact
from mtvcraft_cli.shapes import Frames

SIDE_PX = 299
"""What the network looks at."""


def inception_features(network: nn.Module, frames: Frames, batch: int = 8) -> Float32[np.ndarray, "_ 2048"]:
    """Return what the Inception network of 2015 makes of every frame.

    Args:
        network: `networks.inception.Inception`.
        frames: (T, H, W, 3); stretched to 299 x 299 by plain bilinear interpolation, without antialiasing.
        batch: frames at once.

    Returns:
        (T, 2048).
    """
    found = np.empty((len(frames), 2048), np.float32)
    with exact():
        for start in range(0, len(frames), batch):
            part = slice(start, start + batch)
            found[part] = network(_shown(frames[part], device_of(network))).cpu().numpy()
    return found


def _shown(frames: Frames, device: torch.device) -> Tensor:
    pictures = as_channels(frames.astype(np.float32), device) / 255
    size = (SIDE_PX, SIDE_PX)
    resized = functional.interpolate(pictures, size, mode="bilinear", align_corners=False, antialias=False)
    return 2 * resized - 1
