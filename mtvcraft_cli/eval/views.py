"""A clip as a protocol looks at it: which of its frames, cut and brought to which size."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval import geometry
from mtvcraft_cli.eval.pieces import humanvid_choice
from mtvcraft_cli.eval.protocols import Protocol
from mtvcraft_cli.eval.sources import Source
from mtvcraft_cli.shapes import Frames

BATCH_BYTES: Final = 32 * 2**20
MOST_FRAMES: Final = 16
"""So many are handed out at once at most."""
Resize = Literal["keep", "bicubic", "bilinear", "square256"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class View:
    """Frames of a source as they are compared."""

    source: Source
    frames: int
    """So many from the first count."""
    chosen: tuple[int, ...] | None = None
    """Places of those that are looked at; None for all that count."""
    box: Box | None = None
    """Left, top, right and bottom of what is cut out before anything else."""
    aspect_px: tuple[int, int] | None = None
    """Width and height whose aspect the largest middle part has that is cut out then."""
    resize: Resize = "keep"
    size_px: tuple[int, int]
    """Width and height that the frames come out with."""

    @property
    def places(self) -> list[int]:
        """Places of the frames that are looked at."""
        return list(range(self.frames)) if self.chosen is None else list(self.chosen)

    @property
    def numbers(self) -> list[int]:
        """Their numbers."""
        numbers = self.source.frame_numbers()
        return [numbers[place] for place in self.places]

    @cached_property
    def sha256(self) -> str:
        """Of what the source is made of."""
        return self.source.sha256()

    def told(self) -> dict[str, Any]:
        """Everything that the frames depend on, as plain data."""
        return {
            "source": self.sha256,
            "frames": self.frames,
            "chosen": self.chosen and list(self.chosen),
            "box": self.box and list(self.box),
            "aspect_px": self.aspect_px and list(self.aspect_px),
            "resize": self.resize,
            "size_px": list(self.size_px),
        }

    def batches(self) -> Iterator[Frames]:
        """Read the frames, a few at a time, (n, height, width, 3)."""
        width, height = self.size_px
        most = max(1, min(MOST_FRAMES, BATCH_BYTES // (3 * width * height)))
        ready: list[npt.NDArray[np.uint8]] = []
        for picture in self.source.frames(frozenset(self.places)):
            ready.append(self._seen(picture[None])[0])
            if len(ready) == most:
                yield np.stack(ready)
                ready = []
        if ready:
            yield np.stack(ready)

    def _seen(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if self.box is not None:
            left, top, right, bottom = self.box
            frames = frames[:, top:bottom, left:right]
        if self.aspect_px is not None:
            frames = geometry.cropped(frames, self.aspect_px)
        if self.resize == "square256":
            return geometry.squared(frames)
        if self.resize == "keep":
            return frames
        return geometry.stretched(
            frames, self.size_px, geometry.BICUBIC if self.resize == "bicubic" else geometry.BILINEAR
        )


@dataclass(frozen=True)
class Pair:
    """Both sides of a clip, with frames of one size and number."""

    truth: View
    made: View
    warnings: tuple[str, ...] = ()


def pair_up(
    truth: Source,
    made: Source,
    protocol: Protocol,
    *,
    fit: Literal["stretch", "crop"],
    box: Box | None,
    allow_length_mismatch: bool,
) -> Pair:
    """Look at both sides as the protocol says.

    Args:
        truth: the ground truth.
        made: a system's result.
        protocol: the way to measure.
        fit: whether the truth is cut to the result's aspect, or one of them is stretched.
        box: what our own run cut out of the truth.
        allow_length_mismatch: whether clips may differ by more than a tenth of their frames.

    Raises:
        MtvcraftError: the lengths are too far apart, or there is no frame.
    """
    counts = len(truth.frame_numbers()), len(made.frame_numbers())
    frames, apart = min(counts), abs(counts[0] - counts[1])
    warnings = []
    if apart > max(counts) / 10 and not allow_length_mismatch:
        raise MtvcraftError(
            f"clip `{truth.id}` has {counts[0]} frames in the ground truth and {counts[1]} in `{made.where}`",
            hint="make the missing frames, or compare the first ones with `--allow-length-mismatch`",
        )
    if apart > 2:
        warnings.append(f"clip `{truth.id}`: {counts[0]} frames against {counts[1]}; the first {frames} are compared")
    chosen = tuple(humanvid_choice(frames).tolist()) if protocol.choice == "humanvid24" else None
    one = View(source=truth, frames=frames, chosen=chosen, box=box, size_px=_size_of_box(truth, box))
    other = View(source=made, frames=frames, chosen=chosen, size_px=made.frame_size_px())
    if fit == "crop":
        one = replace(one, aspect_px=other.size_px, size_px=_size_after_crop(one.size_px, other.size_px))
    change = geometry.aspect_change(one.size_px, other.size_px)
    # A square result is what systems that work on the largest square give.
    squared = protocol.size == "square256" and other.size_px[0] == other.size_px[1]
    if change > 0.02 and not squared:
        names = (f"{width} x {height}" for width, height in (one.size_px, other.size_px))
        warnings.append(
            f"clip `{truth.id}`: the aspect changes by {change:.0%} between {' and '.join(names)}; "
            "`--fit crop` cuts the truth instead"
        )
    if protocol.size == "truth":
        other = _brought(other, "bicubic", one.size_px)
    elif protocol.size == "result":
        one = _brought(one, "bilinear", other.size_px)
    else:
        square = (geometry.DISCO_PX, geometry.DISCO_PX)
        one, other = (replace(view, resize="square256", size_px=square) for view in (one, other))
    return Pair(one, other, tuple(warnings))


def _brought(view: View, resize: Resize, size_px: tuple[int, int]) -> View:
    return view if view.size_px == size_px else replace(view, resize=resize, size_px=size_px)


def _size_of_box(source: Source, box: Box | None) -> tuple[int, int]:
    """Width and height of what is cut out.

    Raises:
        MtvcraftError: the box doesn't lie in the frames.
    """
    width, height = source.frame_size_px()
    if box is None:
        return width, height
    left, top, right, bottom = box
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise MtvcraftError(
            f"the crop {list(box)} in the result's sidecar doesn't fit `{source.where}`, "
            f"whose frames are {width} x {height}",
            hint="check that the result was made from this clip",
        )
    return right - left, bottom - top


def _size_after_crop(size_px: tuple[int, int], aspect_px: tuple[int, int]) -> tuple[int, int]:
    like = np.broadcast_to(np.uint8(0), (1, size_px[1], size_px[0], 3))
    height, width = geometry.cropped(like, aspect_px).shape[1:3]
    return width, height
