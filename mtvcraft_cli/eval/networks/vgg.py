"""VGG16 (Simonyan & Zisserman 2014), its convolutions."""

from typing import Final

from torch import nn

from mtvcraft_cli.eval.networks.tapped import Tapped

CHANNELS: Final = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Of the convolutions of each part; between the parts the size is halved."""


def vgg16() -> Tapped:
    """Build it without weights, listened to after the last ReLU of every part: 1_2, 2_2, 3_3, 4_3 and 5_3."""
    layers: list[nn.Module] = []
    taps, given = [], 3
    for part in CHANNELS:
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for out in part:
            layers += [nn.Conv2d(given, out, 3, padding=1), nn.ReLU(inplace=True)]
            given = out
        taps.append(len(layers) - 1)
    return Tapped(layers, taps)
