"""A ResNet-50 of 3D convolutions (Hara et al. 2018), trained on Kinetics: the network behind FID-VID."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS: Final = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
"""Width inside the bottlenecks, their number, and the first one's stride, of each of the four layers."""
WIDER: Final = 4
"""A bottleneck gives so many times the channels that it has inside."""


class Resnet3d(nn.Module):
    """Pieces of a video -> features, averaged over all that is left of space and time.

    p pieces, c channels, t frames, h x w pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 64, 7, (1, 2, 2), 3, bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        given = 64
        for number, (width, blocks, stride) in enumerate(LAYERS, start=1):
            layer = [Bottleneck(given, width, stride)]
            layer += [Bottleneck(width * WIDER, width) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(*layer))
            given = width * WIDER

    def forward(self, pieces: Tensor) -> Tensor:
        """Give (p, 2048) for (p, 3, t, 112, 112), 0..255 less the mean colour."""
        hidden = torch.relu_(self.bn1(self.conv1(pieces)))
        hidden = functional.max_pool3d(hidden, 3, 2, 1)
        for number in range(1, len(LAYERS) + 1):
            hidden = self.get_submodule(f"layer{number}")(hidden)
        return hidden.mean((2, 3, 4))


class Bottleneck(nn.Module):
    """Three convolutions and a way around them."""

    def __init__(self, given: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(given, width, 1, bias=False), nn.BatchNorm3d(width)
        self.conv2, self.bn2 = nn.Conv3d(width, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width)
        self.conv3, self.bn3 = nn.Conv3d(width, width * WIDER, 1, bias=False), nn.BatchNorm3d(width * WIDER)
        self.downsample = None
        if stride != 1 or given != width * WIDER:
            projection = nn.Conv3d(given, width * WIDER, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm3d(width * WIDER))

    def forward(self, hidden: Tensor) -> Tensor:
        """(p, c, t, h, w) to (p, 4 width, t / stride, h / stride, w / stride)."""
        around = hidden if self.downsample is None else self.downsample(hidden)
        hidden = torch.relu_(self.bn1(self.conv1(hidden)))
        hidden = torch.relu_(self.bn2(self.conv2(hidden)))
        return torch.relu_(self.bn3(self.conv3(hidden)) + around)
