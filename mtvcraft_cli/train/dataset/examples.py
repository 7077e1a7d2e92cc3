"""Clips of a data set as examples to learn from."""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.neutral import on_neutral_body
from mtvcraft_cli.shapes import Frames, JointsMm
from mtvcraft_cli.train.dataset.index import ClipSet, Record
from mtvcraft_cli.train.examples import Example, Size
from mtvcraft_cli.train.settings import Data
from mtvcraft_cli.video.picture import fit_picture

Clip = tuple[ClipSet, Record]


class SetExamples:
    """Windows of the clips of data sets.

    Frames are scaled and cropped to the size asked for; a clip is only ever shown at the size nearest to its own shape.
    Joints stay as the whole frame showed them, which is how `animate` follows a driver of another shape than its
    picture. Where the character is in a frame isn't known, so all of it counts alike.

    Args:
        clips: what to draw from.
        sizes_px: all sizes that will be asked for.
        settings: how windows are drawn.
        neutral: whether joints are shown on the neutral body.

    Raises:
        MtvcraftError: no clip is nearest to one of the sizes.
    """

    def __init__(self, clips: Sequence[Clip], sizes_px: Sequence[Size], settings: Data, *, neutral: bool) -> None:
        self.settings, self.neutral = settings, neutral
        self.by_size: dict[Size, list[Clip]] = {size: [] for size in sizes_px}
        for clips_of, record in clips:
            self.by_size[nearest(record.size_px, sizes_px)].append((clips_of, record))
        for size, own in self.by_size.items():
            if not own:
                raise MtvcraftError(
                    f"no clip of the data set has a shape nearest to {size[0]} x {size[1]}",
                    hint="take that size out of `dit.buckets`, or add videos of that shape",
                )
        lengths = {size: np.array([record.frames for _, record in own], float) for size, own in self.by_size.items()}
        self.shares = {size: length / length.sum() for size, length in lengths.items()}
        names = [(clips_of.identity, record.name) for clips_of, record in clips]
        self.told: tuple[Any, ...] = (
            hashlib.sha256(repr(names).encode()).hexdigest(),
            settings.strides,
            settings.before,
            settings.elsewhere,
            neutral,
        )

    def __call__(self, number: int, size_px: Size, frames: int) -> Example:
        """Cut window `number`; a clip that is too short holds its last frame."""
        rng = np.random.default_rng([number, 43])
        clips_of, record = self._drawn(rng, size_px)
        fitting = [stride for stride in self.settings.strides if (frames - 1) * stride < record.frames]
        stride = int(rng.choice(fitting or [min(self.settings.strides)]))
        begin = int(rng.integers(max(1, record.frames - (frames - 1) * stride)))
        first = begin if rng.random() < 0.5 else int(rng.integers(max(0, begin - self.settings.before), begin + 1))
        reference = int(rng.integers(record.frames)) if rng.random() < self.settings.elsewhere else first
        places = np.minimum(begin + stride * np.arange(frames), record.frames - 1)
        seen = clips_of.frames(record, [reference, *places.tolist()])
        fitted: Frames = np.stack([fit_picture(frame, size_px) for frame in seen])
        joints_mm: JointsMm = clips_of.joints_mm(record)[np.concatenate([[first], places])]
        return Example(
            frames=fitted[1:],
            reference=fitted[0],
            figure=np.ones(fitted[1:].shape[:3], bool),
            joints_mm=on_neutral_body(joints_mm) if self.neutral else joints_mm,
        )

    def caption(self, number: int, size_px: Size) -> str:
        """What the clip of window `number` shows; empty where nobody said."""
        return self._drawn(np.random.default_rng([number, 43]), size_px)[1].caption

    def _drawn(self, rng: np.random.Generator, size_px: Size) -> Clip:
        """Draw a clip, longer ones more often."""
        return self.by_size[size_px][int(rng.choice(len(self.shares[size_px]), p=self.shares[size_px]))]


def nearest(size_px: Size, sizes_px: Sequence[Size]) -> Size:
    """The size whose shape, and then whose area, is nearest to that of a frame."""

    def apart(other: Size) -> tuple[Fraction | float, float]:
        shapes = abs(math.log(Fraction(size_px[0] * other[1], size_px[1] * other[0])))
        return shapes, abs(math.log(size_px[0] * size_px[1] / (other[0] * other[1])))

    return min(sizes_px, key=apart)


def held_out(sources: Sequence[str], share: float) -> list[bool]:
    """Say which clips are only measured on.

    Args:
        sources: what each clip was cut from; all clips of one source go the same way.
        share: of the sources, 0..1. At least one is held out where there are two and `share` isn't 0.

    Returns:
        For each clip whether it is held out: by a hash of its source, so that who joins later moves nobody far.
    """
    different = sorted(set(sources), key=lambda source: hashlib.sha256(source.encode()).digest())
    count = min(len(different) - 1, max(1, round(share * len(different)))) if share else 0
    kept_back = set(different[:count])
    return [source in kept_back for source in sources]
