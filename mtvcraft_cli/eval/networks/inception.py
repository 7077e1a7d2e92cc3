"""Inception-v3 as TensorFlow published it in 2015: the network behind FID.

It differs from the Inception of other libraries in its pools, its 1008 classes and its weights. The layer that gives
the classes isn't part of it here: features are what it would have been given.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON: Final = 1e-3
"""Of the batch norms."""

Side = int | tuple[int, int]


class Inception(nn.Module):
    """Pictures -> features, averaged over the picture.

    t pictures, c channels, h x w pixels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2, padding=0)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, padding=0)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, padding=0)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c = BlockC(768, 128), BlockC(768, 160)
        self.Mixed_6d, self.Mixed_6e = BlockC(768, 160), BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, largest=False), BlockE(2048, largest=True)

    def forward(self, pictures: Tensor) -> Tensor:
        """Give (t, 2048) for (t, 3, 299, 299) of -1..1."""
        hidden = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pictures)))
        hidden = functional.max_pool2d(hidden, 3, 2)
        hidden = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(hidden))
        hidden = functional.max_pool2d(hidden, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            hidden = self.get_submodule(f"Mixed_{name}")(hidden)
        return hidden.mean((2, 3))


class Unit(nn.Module):
    """A convolution, a batch norm, a ReLU; padded to keep the size unless said otherwise."""

    def __init__(self, given: int, out: int, side: Side, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        down, across = (side, side) if isinstance(side, int) else side
        around = (down // 2, across // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(given, out, (down, across), stride, around, bias=False)
        self.bn = nn.BatchNorm2d(out, EPSILON)

    def forward(self, hidden: Tensor) -> Tensor:
        """(t, c, h, w) to (t, out, h', w')."""
        return torch.relu_(self.bn(self.conv(hidden)))


class BlockA(nn.Module):
    """Ways of 1, 5, and twice 3 pixels, and an average."""

    def __init__(self, given: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(given, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Unit(given, 48, 1), Unit(48, 64, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(given, 64, 1), Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3)
        self.branch_pool = Unit(given, pooled, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(t, c, h, w) to (t, 224 + pooled, h, w)."""
        five = self.branch5x5_2(self.branch5x5_1(hidden))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(hidden)))
        return torch.cat([self.branch1x1(hidden), five, three, self.branch_pool(_average(hidden))], 1)


class BlockB(nn.Module):
    """Half the size: once 3 and twice 3 pixels, and the largest."""

    def __init__(self, given: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(given, 384, 3, stride=2, padding=0)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(given, 64, 1), Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2, padding=0)

    def forward(self, hidden: Tensor) -> Tensor:
        """(t, c, h, w) to (t, 480 + c, h / 2, w / 2)."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(hidden)))
        return torch.cat([self.branch3x3(hidden), three, functional.max_pool2d(hidden, 3, 2)], 1)


class BlockC(nn.Module):
    """Ways of 1, 7 and twice 7 pixels, across and down by turns, and an average."""

    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        across, down = (1, 7), (7, 1)
        self.branch1x1 = Unit(given, 192, 1)
        self.branch7x7_1, self.branch7x7_2 = Unit(given, width, 1), Unit(width, width, across)
        self.branch7x7_3 = Unit(width, 192, down)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Unit(given, width, 1), Unit(width, width, down)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = Unit(width, width, across), Unit(width, width, down)
        self.branch7x7dbl_5 = Unit(width, 192, across)
        self.branch_pool = Unit(given, 192, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(t, c, h, w) to (t, 768, h, w)."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(hidden)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(hidden)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(hidden), seven, twice, self.branch_pool(_average(hidden))], 1)


class BlockD(nn.Module):
    """Half the size: 3, and 7 then 3 pixels, and the largest."""

    def __init__(self, given: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(given, 192, 1), Unit(192, 320, 3, stride=2, padding=0)
        self.branch7x7x3_1, self.branch7x7x3_2 = Unit(given, 192, 1), Unit(192, 192, (1, 7))
        self.branch7x7x3_3, self.branch7x7x3_4 = Unit(192, 192, (7, 1)), Unit(192, 192, 3, stride=2, padding=0)

    def forward(self, hidden: Tensor) -> Tensor:
        """(t, c, h, w) to (t, 512 + c, h / 2, w / 2)."""
        three = self.branch3x3_2(self.branch3x3_1(hidden))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(hidden))))
        return torch.cat([three, seven, functional.max_pool2d(hidden, 3, 2)], 1)


class BlockE(nn.Module):
    """Ways of 1, 3 and twice 3 pixels that end across and down side by side, and a pool.

    Args:
        given: channels that go in.
        largest: the pool takes the largest, as in the network's last block, or the average.
    """

    def __init__(self, given: int, *, largest: bool) -> None:
        super().__init__()
        across, down = (1, 3), (3, 1)
        self.largest = largest
        self.branch1x1 = Unit(given, 320, 1)
        self.branch3x3_1 = Unit(given, 384, 1)
        self.branch3x3_2a, self.branch3x3_2b = Unit(384, 384, across), Unit(384, 384, down)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(given, 448, 1), Unit(448, 384, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = Unit(384, 384, across), Unit(384, 384, down)
        self.branch_pool = Unit(given, 192, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """(t, c, h, w) to (t, 2048, h, w)."""
        once = self.branch3x3_1(hidden)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(hidden))
        pooled = functional.max_pool2d(hidden, 3, 1, 1) if self.largest else _average(hidden)
        ways = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        ways += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(hidden), *ways, self.branch_pool(pooled)], 1)


def _average(hidden: Tensor) -> Tensor:
    """Of the pixels around each; padding isn't one of them."""
    return functional.avg_pool2d(hidden, 3, 1, 1, count_include_pad=False)
