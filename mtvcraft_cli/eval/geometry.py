"""Frames of one size -> frames of the size that a protocol or a network measures, by exactly its filter."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch.nn import functional

from mtvcraft_cli.shapes import Frames

BICUBIC: Final = Image.Resampling.BICUBIC
BILINEAR: Final = Image.Resampling.BILINEAR

I3D_PX: Final = 224
"""The side of what I3D looks at."""
RESNET_PX: Final = 112
"""The side of what the 3D ResNet looks at."""
DISCO_PX: Final = 256
"""The side of the squares that the protocol `disco` compares."""


def stretched(
    frames: Frames, size_px: tuple[int, int], resample: Image.Resampling = BICUBIC
) -> UInt8[np.ndarray, "_ _ _ 3"]:
    """Bring frames to a size without keeping the aspect, by Pillow's filter, which averages where it makes smaller.

    Args:
        frames: (T, H, W, 3).
        size_px: width and height.
        resample: `BICUBIC` in the protocol `mtvcraft`, `BILINEAR` in the others.

    Returns:
        (T, height, width, 3); the same frames where they have the size.
    """
    width, height = size_px
    if frames.shape[1:3] == (height, width):
        return frames
    return _each(frames, lambda frame: Image.fromarray(frame).resize(size_px, resample))


def aspect_change(size_px: tuple[int, int], other_px: tuple[int, int]) -> float:
    """Return by which share of itself the aspect changes when one width and height is stretched to another."""
    one, other = size_px[0] / size_px[1], other_px[0] / other_px[1]
    return max(one, other) / min(one, other) - 1


def cropped(frames: Frames, size_px: tuple[int, int]) -> UInt8[np.ndarray, "_ _ _ 3"]:
    """Cut the middle out of frames, as large as it can be with the aspect of a width and height.

    Args:
        frames: (T, H, W, 3).
        size_px: width and height whose aspect is wanted; the size itself isn't.

    Returns:
        (T, h, w, 3), the whole height or the whole width of it; a view.
    """
    height, width = frames.shape[1:3]
    across = min(width, max(1, round(height * size_px[0] / size_px[1])))
    down = height if across < width else min(height, max(1, round(width * size_px[1] / size_px[0])))
    top, left = (height - down) // 2, (width - across) // 2
    return frames[:, top : top + down, left : left + across]


def largest_square(height: int, width: int) -> tuple[int, int, int]:
    """Return top, left and side of the largest square in the middle; offsets are rounded down, as DisCo's are."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def squared(frames: Frames, side_px: int = DISCO_PX) -> UInt8[np.ndarray, "_ _ _ 3"]:
    """Cut the largest square out of the middle and bring it to a size by Pillow's bilinear, as `disco` does.

    Args:
        frames: (T, H, W, 3); square ones are only resized.
        side_px: S.

    Returns:
        (T, S, S, 3).
    """
    top, left, side = largest_square(*frames.shape[1:3])
    return stretched(frames[:, top : top + side, left : left + side], (side_px, side_px), BILINEAR)


def float_bicubic(frames: Frames, side_px: int) -> Float32[np.ndarray, "_ _ _ 3"]:
    """Bring frames to a square by Pillow's bicubic on floats, in front of I3D and the 3D ResNet.

    Each colour is a picture of its own, so that nothing is rounded and nothing clipped: the filter overshoots, and
    the networks see that. Resizing the bytes would be off by several grey levels.

    Args:
        frames: (T, H, W, 3).
        side_px: S.

    Returns:
        (T, S, S, 3) about 0..255, and beyond at edges.
    """
    result = np.empty((len(frames), side_px, side_px, 3), np.float32)
    for frame, into in zip(frames, result, strict=True):
        for colour in range(3):
            picture = Image.fromarray(frame[..., colour].astype(np.float32))
            into[..., colour] = picture.resize((side_px, side_px), BICUBIC)
    return result


def humanvid_i3d(frames: Frames) -> Float32[np.ndarray, "_ _ _ 3"]:
    """Bring frames to what I3D is given in the protocol `humanvid`.

    Bilinear without antialiasing, the short side to 224 and the long one in proportion, rounded up; then the middle.

    Args:
        frames: (T, H, W, 3).

    Returns:
        (T, 224, 224, 3) of -1..1.
    """
    height, width = frames.shape[1:3]
    short = min(height, width)
    size = [-(-side * I3D_PX // short) for side in (height, width)]
    top, left = ((side - I3D_PX) // 2 for side in size)
    result = np.empty((len(frames), I3D_PX, I3D_PX, 3), np.float32)
    for frame, into in zip(frames, result, strict=True):
        picture = torch.from_numpy(np.moveaxis(frame, -1, 0).astype(np.float32) / np.float32(255))
        resized = functional.interpolate(picture[None], size, mode="bilinear", align_corners=False, antialias=False)[0]
        middle = resized[:, top : top + I3D_PX, left : left + I3D_PX]
        into[:] = ((middle - 0.5) * 2).movedim(0, -1).numpy()
    return result


def _each(frames: Frames, change: Callable[[npt.NDArray[np.uint8]], Image.Image]) -> UInt8[np.ndarray, "_ _ _ 3"]:
    return np.stack([np.asarray(change(np.ascontiguousarray(frame))) for frame in frames])
