"""Keeps the colours of a long video from drifting away from the character's picture."""

import torch
from jaxtyping import Float
from torch import Tensor

from mtvcraft_cli.shapes import Video

MOST_GAIN = 2.0
"""A nearly flat clip or picture is neither blown up nor flattened by more than this."""


def match_colours(video: Video, reference: Float[Tensor, "1 3 1 _ _"]) -> Video:
    """Give a clip the mean and the spread that each colour channel has in the reference.

    One shift and one gain per channel for the whole clip, so nothing flickers from frame to frame.

    Args:
        video: (1, 3, T, H, W), RGB, -1..1.
        reference: (1, 3, 1, h, w), RGB, -1..1.

    Returns:
        (1, 3, T, H, W) clamped to -1..1.
    """
    axes = (2, 3, 4)
    spread, mean = torch.std_mean(video, axes, correction=0, keepdim=True)
    wanted_spread, wanted_mean = torch.std_mean(reference.to(video), axes, correction=0, keepdim=True)
    gain = (wanted_spread / spread.clamp_min(1e-6)).clamp(1 / MOST_GAIN, MOST_GAIN)
    return ((video - mean) * gain + wanted_mean).clamp(-1, 1)
