"""Who is seen where in a video -> the stretches that can be learned from, and why the rest can't."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.backend import Estimate, Person, Scene, Smpl
from mtvcraft_cli.joints.gaps import fill

Reason = Literal["nobody", "several people", "gap", "too short", "blurred", "unsure"]
REASONS: Final[dict[Reason, str]] = {
    "nobody": "shots without a person",
    "several people": "shots with more than one person",
    "gap": "stretches without the person, within a shot or at its ends",
    "too short": "what is left between cuts and gaps",
    "blurred": "the variance of the Laplacian is too low",
    "unsure": "the estimator was least sure of them",
}
"""Why clips are dropped, in the order in which it is found out."""


@dataclass
class Losses:
    """What was dropped and why: clips and frames by reason."""

    clips: dict[str, int] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)

    def add(self, reason: Reason, frames: int, clips: int = 1) -> None:
        """Note a loss."""
        self.clips[reason] = self.clips.get(reason, 0) + clips
        self.frames[reason] = self.frames.get(reason, 0) + frames

    def told(self) -> dict[str, dict[str, int]]:
        """As plain data, in order."""
        return {
            reason: {"clips": self.clips[reason], "frames": self.frames[reason]}
            for reason in REASONS
            if reason in self.clips
        }

    def take(self, told: dict[str, dict[str, int]]) -> None:
        """Add what another one told."""
        for reason, lost in told.items():
            self.clips[reason] = self.clips.get(reason, 0) + lost["clips"]
            self.frames[reason] = self.frames.get(reason, 0) + lost["frames"]


@dataclass(frozen=True, kw_only=True)
class CutSettings:
    """What a clip has to be like."""

    max_gap_s: Fraction = Fraction(1, 2)
    """The longest stretch without the person that is filled in."""
    min_frames: int = 33
    """Fewer are no clip (paper: its shortest windows)."""
    max_frames: int = 600
    """Longer ones are cut evenly (paper: clips have about so many)."""
    rate: Fraction | None = None
    """Frames a second at most: faster videos are thinned. None keeps every frame."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A clip to be: some frames of a video, one person in all of them."""

    places: npt.NDArray[np.int64]
    """(T,) which frames of the video."""
    estimate: Estimate
    """T rows, gaps filled in."""

    @property
    def unsure(self) -> float:
        """1 - mean confidence over joints and the frames that were seen."""
        return float(1 - self.estimate.confidence[self.estimate.found].mean(dtype=np.float64))


def cut(scene: Scene, rate: Fraction, settings: CutSettings, losses: Losses) -> Iterator[Piece]:
    """Cut a video at its shots and at gaps, and keep what shows exactly one person.

    Args:
        scene: everyone who was seen.
        rate: frames a second.
        settings: what is wanted.
        losses: told of what is dropped.

    Yields:
        Pieces in the order of the video.
    """
    for start, stop in pairwise([0, *scene.cuts, scene.frames]):
        there = [person for person in scene.people if person.estimate.found[start:stop].any()]
        if len(there) != 1:
            losses.add("several people" if there else "nobody", stop - start)
            continue
        for first, last in _runs(there[0], start, stop, rate, settings.max_gap_s, losses):
            places = _thinned(first, last, rate, settings.rate)
            if len(places) < settings.min_frames:
                losses.add("too short", last + 1 - first)
                continue
            filled = fill(_rows(there[0].estimate, np.arange(first, last + 1)), rate, settings.max_gap_s)
            for part in np.array_split(places, -(-len(places) // settings.max_frames)):
                piece = Piece(part, _rows(filled, part - first))
                if piece.estimate.found.any():
                    yield piece
                else:  # all of it was filled in
                    losses.add("gap", len(part))


def _runs(
    person: Person, start: int, stop: int, rate: Fraction, max_gap_s: Fraction, losses: Losses
) -> Iterator[tuple[int, int]]:
    """First and last frame of each stretch of a shot in which the person is never missed for too long."""
    found = start + np.flatnonzero(person.estimate.found[start:stop])
    split = np.flatnonzero([(gap - 1) / rate > max_gap_s for gap in np.diff(found).tolist()])
    runs = [(int(run[0]), int(run[-1])) for run in np.split(found, split + 1)]
    ends = [start - 1, *(place for run in runs for place in run), stop]
    for before, after in zip(ends[::2], ends[1::2], strict=True):
        if after - before > 1:
            losses.add("gap", after - before - 1)
    yield from runs


def _thinned(first: int, last: int, rate: Fraction, most: Fraction | None) -> npt.NDArray[np.int64]:
    """The frames from first to last that are shown at a rate of at most `most`."""
    if most is None or rate <= most:
        return np.arange(first, last + 1)
    count = int((last - first) * most / rate) + 1
    return first + np.array([math.ceil(index * rate / most - Fraction(1, 2)) for index in range(count)], np.int64)


def _rows(estimate: Estimate, rows: npt.NDArray[np.int64]) -> Estimate:
    smpl = estimate.smpl
    return Estimate(
        joints_mm=estimate.joints_mm[rows],
        confidence=estimate.confidence[rows],
        found=estimate.found[rows],
        smpl=smpl and Smpl(pose=smpl.pose[rows], betas=smpl.betas[rows], transl=smpl.transl[rows]),
    )
