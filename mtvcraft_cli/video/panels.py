"""Streams side by side, for `animate --compare`: reference, driver, skeleton, skeleton after tokens, result."""

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

Stream: TypeAlias = UInt8[np.ndarray, "_ _ _ 3"]
"""(T, H, W, 3) frames in order; the streams of one video differ in size. RGB, 0..255."""
Frame: TypeAlias = UInt8[np.ndarray, "_ _ 3"]

GROUND: Final = (24, 24, 27)
INK: Final = (228, 228, 231)
GAP_PX: Final = 4
WIDEST: Final = Fraction(16, 9)
"""What is wider than this, or narrower than its inverse, gets bars, so that no stream takes all the room."""


class Panels:
    """Lays frames of several streams out in one row under their captions.

    Args:
        captions: a word or two for each stream; as many streams as are there, so a missing driver is left out.
        sizes_px: width, height of each stream's frames.
        height_px: of every cell; the captions come above.

    Raises:
        ValueError: no stream, not a caption for each, or a size below one pixel.
    """

    def __init__(self, captions: Sequence[str], sizes_px: Sequence[tuple[int, int]], height_px: int) -> None:
        if not captions or len(captions) != len(sizes_px):
            raise ValueError(f"{len(captions)} captions don't fit {len(sizes_px)} streams")
        if min(height_px, *(side for size_px in sizes_px for side in size_px)) < 1:
            raise ValueError(f"streams of {list(sizes_px)} pixels don't fit into cells {height_px} pixels high")
        self.sizes_px = tuple(sizes_px)
        self._above_px = max(16, round(height_px / 14))
        self._cells = []  # left edge, width and height of the picture in each cell
        right_px = GAP_PX
        for width, height in sizes_px:
            shape = min(max(Fraction(width, height), 1 / WIDEST), WIDEST)
            cell_px = max(1, round(height_px * shape))
            scale = min(Fraction(cell_px, width), Fraction(height_px, height))
            inner_px = (max(1, round(width * scale)), max(1, round(height * scale)))
            self._cells.append((right_px, cell_px, inner_px))
            right_px += cell_px + GAP_PX
        self.size_px = (right_px + right_px % 2, _even(self._above_px + height_px + GAP_PX))
        """Width, height of what `compose` returns: even, as video wants it."""
        self._height_px = height_px
        self._empty = self._drawn(captions)

    def compose(self, streams: Sequence[Stream]) -> Stream:
        """Lay out the same T moments of every stream.

        Args:
            streams: (T, H, W, 3) RGB, 0..255 each, of the size that was promised. One that doesn't change may be a
                `numpy.broadcast_to` of its picture; it's scaled once.

        Returns:
            (T, height, width, 3) of `size_px`.

        Raises:
            ValueError: a stream is missing, or has another length or size.
        """
        shapes = [(stream.shape[2], stream.shape[1]) for stream in streams]
        if shapes != list(self.sizes_px) or len({len(stream) for stream in streams}) != 1:
            raise ValueError(f"streams of {[stream.shape for stream in streams]} don't fit panels of {self.sizes_px}")
        rows = np.repeat(self._empty[None], len(streams[0]), axis=0)
        for stream, (left, cell_px, (width, height)) in zip(streams, self._cells, strict=True):
            left += (cell_px - width) // 2
            top = self._above_px + (self._height_px - height) // 2
            room = rows[:, top : top + height, left : left + width]
            if len(stream) and stream.strides[0] == 0:
                room[:] = _scaled(stream[0], (width, height))
                continue
            for place, frame in zip(room, stream, strict=True):
                place[:] = _scaled(frame, (width, height))
        return rows

    def _drawn(self, captions: Sequence[str]) -> Frame:
        """Return the (height, width, 3) ground with the captions, each as large as its cell lets it be."""
        image = Image.new("RGB", self.size_px, GROUND)
        pen = ImageDraw.Draw(image)
        for caption, (left, cell_px, _) in zip(captions, self._cells, strict=True):
            size_px = 0.62 * self._above_px
            wide_px = pen.textlength(caption, font=ImageFont.load_default(size_px))
            font = ImageFont.load_default(max(6.0, min(size_px, size_px * cell_px / max(wide_px, 1.0))))
            pen.text((left + cell_px / 2, self._above_px / 2), caption, fill=INK, font=font, anchor="mm")
        return np.array(image)


def paced(batches: Iterable[Stream], rate: Fraction, wanted_rate: Fraction, wanted_frames: int) -> Iterator[Frame]:
    """Show a clip at another rate: each wanted moment gets the frame nearest in time, the last one held.

    Args:
        batches: (n, H, W, 3) frames of the clip in order.
        rate: frames a second of the clip.
        wanted_rate: frames a second wanted.
        wanted_frames: how many are wanted from the start on.

    Yields:
        (H, W, 3) frames, one at a time.
    """
    frames = (frame for batch in batches for frame in batch)
    shown = next(frames, None)
    at = 0
    for index in range(wanted_frames):
        nearest = math.ceil(index * rate / wanted_rate - Fraction(1, 2))  # as `Timing` chooses frames
        while at < nearest and (following := next(frames, None)) is not None:
            shown, at = following, at + 1
        if shown is None:
            raise ValueError("a clip without frames can't be shown")
        yield shown


def _scaled(frame: Frame, size_px: tuple[int, int]) -> Frame:
    if frame.shape[1::-1] == size_px:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size_px, Image.Resampling.BICUBIC))


def _even(side_px: int) -> int:
    return side_px + side_px % 2
