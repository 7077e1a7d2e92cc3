"""I3D (Carreira & Zisserman 2017): the video network behind FVD, as its TensorFlow original computes."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON: Final = 1e-3
"""Of the batch norms; ports that take PyTorch's 1e-5 give another FVD."""

MIXED: Final = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Channels that go in, and those of the six units."""


class I3d(nn.Module):
    """Pieces of a video -> logits of the 400 classes of Kinetics.

    p pieces, c channels, t frames, h x w pixels.

    Args:
        pool_frames: over how many of the last layer's frames, of which each stands for eight of the video, the features
            are averaged before the classes: 2 in the original, 1 in DisCo's code. For 16 frames both are the same.
    """

    def __init__(self, pool_frames: int = 2) -> None:
        super().__init__()
        self.pool_frames = pool_frames
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, (width, channels) in MIXED.items():
            self.add_module(name, Mixed(width, channels))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, 400, 1)})

    def forward(self, pieces: Tensor) -> Tensor:
        """Give (p, 400) for (p, 3, t, 224, 224) of -1..1; t at least 9 where the last pool takes two frames."""
        hidden = self.Conv3d_1a_7x7(pieces)
        hidden = _max_pool(hidden, (1, 3, 3), (1, 2, 2))
        hidden = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(hidden))
        hidden = _max_pool(hidden, (1, 3, 3), (1, 2, 2))
        for name in MIXED:
            if name == "Mixed_4b":
                hidden = _max_pool(hidden, (3, 3, 3), (2, 2, 2))
            elif name == "Mixed_5b":
                hidden = _max_pool(hidden, (2, 2, 2), (2, 2, 2))
            hidden = self.get_submodule(name)(hidden)
        pooled = functional.avg_pool3d(hidden, (self.pool_frames, 7, 7), 1)
        return self.logits["conv3d"](pooled).mean((2, 3, 4))


class Unit(nn.Module):
    """A convolution with TensorFlow's padding, a batch norm, a ReLU."""

    def __init__(self, width: int, out: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(width, out, side, stride, bias=False)
        self.bn = nn.BatchNorm3d(out, EPSILON)
        self.window, self.stride = (side,) * 3, (stride,) * 3

    def forward(self, hidden: Tensor) -> Tensor:
        """(p, c, t, h, w) to (p, out, t / stride, h / stride, w / stride), rounded up."""
        return torch.relu_(self.bn(self.conv3d(_padded(hidden, self.window, self.stride, 0.0))))


class Mixed(nn.Module):
    """Four ways side by side, their channels behind one another."""

    def __init__(self, width: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Unit(width, channels[0], 1)
        self.b1a, self.b1b = Unit(width, channels[1], 1), Unit(channels[1], channels[2], 3)
        self.b2a, self.b2b = Unit(width, channels[3], 1), Unit(channels[3], channels[4], 3)
        self.b3b = Unit(width, channels[5], 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(p, c, t, h, w) to (p, sum, t, h, w)."""
        largest = _max_pool(hidden, (3, 3, 3), (1, 1, 1))
        ways = self.b0(hidden), self.b1b(self.b1a(hidden)), self.b2b(self.b2a(hidden)), self.b3b(largest)
        return torch.cat(ways, 1)


def _padded(hidden: Tensor, window: Sequence[int], stride: Sequence[int], value: float) -> Tensor:
    """Pad as TensorFlow's "same": what is missing to whole steps, the odd one at the end."""
    pads: list[int] = []
    for length, side, step in zip(hidden.shape[2:], window, stride, strict=True):
        missing = max(side - (length % step or step), 0)
        pads = [missing // 2, missing - missing // 2, *pads]  # PyTorch counts axes from the last
    return functional.pad(hidden, pads, value=value) if any(pads) else hidden


def _max_pool(hidden: Tensor, window: Sequence[int], stride: Sequence[int]) -> Tensor:
    return functional.max_pool3d(_padded(hidden, window, stride, -torch.inf), tuple(window), tuple(stride))
