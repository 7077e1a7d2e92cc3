"""LPIPS v0.1 (Zhang et al. 2018): how unlike two pictures look to a network that knows what pictures show."""

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from mtvcraft_cli.eval.networks.exact import as_channels, device_of, exact
from mtvcraft_cli.shapes import Frames

SHIFT: Final = (-0.030, -0.088, -0.188)
SCALE: Final = (0.458, 0.448, 0.450)
"""What pictures are brought to before the network: (x - shift) / scale, by colour."""
_TINY: Final = 1e-10
_BATCH_PX: Final = 1 << 18
"""So many pixels of each clip at once: what VGG16 makes of them in its first part takes some 250 MB."""


class Lpips:
    """Compares the features of two clips' frames.

    Args:
        network: VGG16 or AlexNet, a `networks.tapped.Tapped` as `networks.read.read_network` gives it.
        heads: how much each channel counts, (C,) for each tap, see `networks.read.read_heads`.
    """

    def __init__(self, network: nn.Module, heads: Sequence[Tensor]) -> None:
        device = device_of(network)
        self.network = network
        self.heads = [head.to(device).view(1, -1, 1, 1) for head in heads]
        self.shift, self.scale = (torch.tensor(each, device=device).view(1, 3, 1, 1) for each in (SHIFT, SCALE))

    def __call__(
        self,
        result: Frames,
        truth: UInt8[np.ndarray, "_ _ _ 3"],
        scaled: bool = False,
        batch: int | None = None,
    ) -> npt.NDArray[np.float64]:
        """Return the distance of each frame.

        Args:
            result: (T, H, W, 3).
            truth: the same shape.
            scaled: whether frames are shown as -1..1, as the authors of LPIPS mean it, or as 0..1, as nearly all papers
                on this task do: a few per cent apart.
            batch: frames at once; None finds a number that keeps memory small.

        Returns:
            (T,), 0 for equal frames.

        Raises:
            ValueError: the shapes differ, or frames are too small for the network.
        """
        if result.shape != truth.shape:
            raise ValueError(f"clips of shapes {result.shape} and {truth.shape} can't be compared")
        height, width = truth.shape[1:3]
        if min(height, width) < 32:
            raise ValueError(f"frames of {width} x {height} are too small for LPIPS: 32 pixels are needed")
        batch = batch or max(1, _BATCH_PX // (height * width))
        found = np.zeros(len(truth))
        with exact():
            for start in range(0, len(truth), batch):
                part = slice(start, start + batch)
                found[part] = self._of(result[part], truth[part], "-1..1" if scaled else "0..1")
        return found

    def _of(self, result: Frames, truth: Frames, scale: Literal["-1..1", "0..1"]) -> npt.NDArray[np.float64]:
        """Both go through the network side by side, so that only one tap's features are held."""
        sides = (self.network(self._shown(frames, scale)) for frames in (result, truth))
        total = torch.zeros(len(truth), dtype=torch.float64, device=self.shift.device)
        for one, other, head in zip(*sides, self.heads, strict=True):
            apart = (_unit(one) - _unit(other)).square_()
            total += (apart * head).sum(1).double().mean((1, 2))
        return total.cpu().numpy()

    def _shown(self, frames: Frames, scale: Literal["-1..1", "0..1"]) -> Tensor:
        pictures = as_channels(frames.astype(np.float32), self.shift.device) / 255
        return ((2 * pictures - 1 if scale == "-1..1" else pictures) - self.shift) / self.scale


def _unit(features: Tensor) -> Tensor:
    """Each position's channels as a direction."""
    return features / (features.square().sum(1, keepdim=True).sqrt() + _TINY)
