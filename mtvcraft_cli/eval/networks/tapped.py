"""A row of layers that is listened to on the way: what VGG and AlexNet are for LPIPS."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn


class Tapped(nn.Module):
    """Convolutions, ReLUs and pools one after the other.

    n pictures, c channels, h x w pixels.

    Args:
        layers: in order; a tensor's name is `features.PLACE.weight` or `.bias`.
        taps: places of the layers after which features are handed out.
    """

    def __init__(self, layers: Sequence[nn.Module], taps: Sequence[int]) -> None:
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.taps = tuple(taps)

    def forward(self, pictures: Tensor) -> Iterator[Tensor]:
        """Give the features (n, c, h, w) of (n, 3, H, W) at each tap, as far as they are asked for."""
        hidden = pictures
        for place, layer in enumerate(self.features):
            hidden = layer(hidden)
            if place in self.taps:
                yield hidden
