"""AlexNet (Krizhevsky 2014, on one tower), its convolutions."""

from torch import nn

from mtvcraft_cli.eval.networks.tapped import Tapped


def alexnet() -> Tapped:
    """Build it without weights, listened to after each of its five ReLUs."""
    layers = [
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True)),
    ]
    return Tapped(layers, [place for place, layer in enumerate(layers) if isinstance(layer, nn.ReLU)])
