"""Who is who from frame to frame.

What was seen in a frame is assigned to the people followed so far: by how their boxes overlap and how far their joints
are apart in the room, where each person is expected to go on as fast as before. The assignment is the one of least
cost in total. Who isn't seen is kept in mind for some time and found again where they would be by then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

KEPT_S: Final = 2.0
"""How long who isn't seen is kept in mind."""
MEMORY_S: Final = 0.25
"""Speeds are means over about this time."""
GOES_ON_S: Final = 1.0
"""Who isn't seen is expected to slow down over this time."""
NEAR_MM: Final = 800.0
"""Joints that far from where they are expected belong to somebody else..."""
NEAR_MM_S: Final = 1500.0
"""...and farther by so much for every second since the person was seen."""
NEW_SHARE: Final = 0.5
"""How much of a step in depth is believed: bodies of unknown size shake along the line of sight."""
GHOST_S: Final = 0.3
"""Who is seen for less is no person, unless it is a quarter of the shot..."""
GHOST_CONFIDENCE: Final = 0.35
"""...nor who is seen no better than this."""


@dataclass(eq=False)
class Sighting:
    """Somebody in one frame."""

    box_px: Array
    """(4,) x, y, width, height."""
    points_mm: Array
    """(K, 3) points of the body in camera space, the same ones in every sighting."""
    sure: float
    """0..1."""
    row: Any
    """What the estimator said of them."""


@dataclass(eq=False)
class Track:
    """One person through one shot."""

    seen: dict[int, Sighting] = field(default_factory=dict)
    """By frame."""
    speed_mm: Array = field(default_factory=lambda: np.zeros(3))
    """(3,) a frame."""
    speed_px: Array = field(default_factory=lambda: np.zeros(2))

    @property
    def last(self) -> int:
        """The last frame the person was seen in."""
        return next(reversed(self.seen))

    def expected(self, frame: int, rate: float) -> tuple[Array, Array]:
        """Return the box (4,) in px and the points (K, 3) in mm that are expected in a later frame."""
        last, slow = self.seen[self.last], GOES_ON_S * rate
        ahead = slow * (1 - np.exp((self.last - frame) / slow))
        box_px = last.box_px.copy()
        box_px[:2] += ahead * self.speed_px
        return box_px, last.points_mm + ahead * self.speed_mm

    def add(self, frame: int, sighting: Sighting, rate: float) -> None:
        """Go on with what was seen of this person in `frame`."""
        if self.seen:
            last, passed = self.seen[self.last], frame - self.last
            share = 1 - np.exp(-passed / (MEMORY_S * rate))
            for name, new in (
                ("speed_mm", (sighting.points_mm - last.points_mm).mean(axis=0) * _BELIEVED),
                ("speed_px", _middle(sighting.box_px) - _middle(last.box_px)),
            ):
                old = getattr(self, name)
                setattr(self, name, old + share * (new / passed - old))
        self.seen[frame] = sighting


_BELIEVED: Final = np.array([1, 1, NEW_SHARE])


class Tracker:
    """Follows people through the frames of a clip.

    Args:
        rate: frames a second.
    """

    def __init__(self, rate: Fraction) -> None:
        self.rate = float(rate)
        self.frame = -1
        self.shots: list[list[Track]] = [[]]
        self.starts = [0]
        self.alive: list[Track] = []

    def cut(self) -> None:
        """End the shot: nobody is followed into the next."""
        self.alive = []
        self.shots.append([])
        self.starts.append(self.frame + 1)

    def step(self, sightings: Sequence[Sighting]) -> list[Track | None]:
        """Take what was seen in the next frame.

        Returns:
            Whose each sighting is; None for those that show somebody who was seen better.
        """
        self.frame += 1
        self.alive = [track for track in self.alive if self.frame - track.last <= KEPT_S * self.rate + 1]
        costs = self._costs(sightings)
        owners: list[Track | None] = [None] * len(sightings)
        paid = np.full(len(sightings), np.inf)
        for row, column in assign(costs):
            owners[column], paid[column] = self.alive[row], costs[row, column]
        order = np.lexsort((np.array([-each.sure for each in sightings]), paid))  # those who were expected most first
        kept: list[int] = []
        for index in order.tolist():
            if any(same_body(sightings[index], sightings[other]) for other in kept):
                owners[index] = None
                continue
            kept.append(index)
            if (owner := owners[index]) is None:
                owner = owners[index] = Track()
                self.alive.append(owner)
                self.shots[-1].append(owner)
            owner.add(self.frame, sightings[index], self.rate)
        return owners

    def people(self) -> list[dict[int, Sighting]]:
        """Return everyone who was seen for long and well enough, first seen first, then from left to right.

        From shot to shot a person is followed only where there is exactly one in each.
        """
        lengths = np.diff([*self.starts, self.frame + 1]).tolist()
        shots = [
            [track.seen for track in shot if not self._ghost(track, length)]
            for shot, length in zip(self.shots, lengths, strict=True)
        ]
        if not any(shots):  # better a doubtful person than none
            everyone = [track.seen for shot in self.shots for track in shot]
            return sorted(everyone, key=len)[-1:]
        people: list[dict[int, Sighting]] = []
        alone: dict[int, Sighting] | None = None
        for shot in filter(None, shots):
            if len(shot) == 1 and alone is not None:
                alone.update(shot[0])
                continue
            people += shot
            alone = shot[0] if len(shot) == 1 else None
        return sorted(people, key=lambda seen: (first := next(iter(seen)), seen[first].box_px[0]))

    def _costs(self, sightings: Sequence[Sighting]) -> Array:
        """Return how badly each sighting (columns) fits each person (rows); infinity where it can't be them."""
        costs = np.full((len(self.alive), len(sightings)), np.inf)
        for row, track in enumerate(self.alive):
            box_px, points_mm = track.expected(self.frame, self.rate)
            near_mm = NEAR_MM + NEAR_MM_S * (self.frame - track.last) / self.rate
            for column, sighting in enumerate(sightings):
                apart_mm = np.linalg.norm((points_mm - sighting.points_mm) * _BELIEVED, axis=-1).mean()
                if apart_mm < near_mm:
                    costs[row, column] = 1 - overlap(box_px, sighting.box_px) + apart_mm / NEAR_MM
        return costs

    def _ghost(self, track: Track, length: int) -> bool:
        """Whether a track is too short or too unsure to be somebody in a shot of so many frames."""
        long = min(GHOST_S * self.rate, length / 4)
        sure = float(np.mean([each.sure for each in track.seen.values()]))
        return len(track.seen) < long or sure < GHOST_CONFIDENCE


def same_body(one: Sighting, other: Sighting) -> bool:
    """Whether two sightings of one frame show the same person."""
    apart_mm = np.linalg.norm((one.points_mm - other.points_mm) * _BELIEVED, axis=-1)
    return overlap(one.box_px, other.box_px) > 0.4 and float(np.median(apart_mm)) < 150


def overlap(one: Array, other: Array) -> float:
    """Return how much of two boxes is in both, 0..1 of what is in either; x, y, width, height each."""
    shared = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    both = float(shared.clip(0).prod())
    return both / max(float(one[2:].prod() + other[2:].prod()) - both, 1e-6)


def assign(costs: npt.NDArray[np.floating]) -> list[tuple[int, int]]:
    """Pair rows with columns, each at most once, so that as many as can are paired and the sum of costs is least.

    The Hungarian method as shortest augmenting paths (Jonker and Volgenant 1987): rows come in one by one, and each
    pushes those before it to other columns where that is cheapest.

    Args:
        costs: (rows, columns); infinity where a pair is out of the question.

    Returns:
        (row, column) of every pair, rows in order.
    """
    if costs.shape[0] > costs.shape[1]:
        return sorted((row, column) for column, row in assign(costs.T))
    finite = costs[np.isfinite(costs)]
    never = 1.0 + 2 * float(np.abs(finite).sum())  # dearer than all that is possible together
    table = np.where(np.isfinite(costs), costs, never).astype(np.float64)
    rows, columns = table.shape
    owner = np.full(columns + 1, -1)  # of each column; the one past the last is where new rows wait
    of_row, of_column = np.zeros(rows), np.zeros(columns + 1)
    for row in range(rows):
        owner[columns], column = row, columns
        least, came_from = np.full(columns, np.inf), np.full(columns, columns)
        visited = np.zeros(columns + 1, bool)
        while owner[column] >= 0:
            visited[column] = True
            slack = table[owner[column]] - of_row[owner[column]] - of_column[:-1]
            better = ~visited[:-1] & (slack < least)
            least[better], came_from[better] = slack[better], column
            nearest = int(np.where(visited[:-1], np.inf, least).argmin())
            step = least[nearest]
            of_row[owner[visited]] += step
            of_column[visited] -= step
            least[~visited[:-1]] -= step
            column = nearest
        while column != columns:
            owner[column] = owner[came_from[column]]
            column = came_from[column]
    return sorted(
        (int(owner[column]), column)
        for column in range(columns)
        if owner[column] >= 0 and np.isfinite(costs[owner[column], column])
    )


def _middle(box_px: Array) -> Array:
    return box_px[:2] + box_px[2:] / 2
