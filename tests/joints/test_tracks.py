"""Who is who is decided by place and speed, at the least cost in total."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from mtvcraft_cli.joints.tracks import Sighting, Tracker, assign, overlap

RATE = Fraction(30)


def _seen(x_mm: float, z_mm: float = 3000, sure: float = 0.9, row: object = None) -> Sighting:
    """A body of 500 x 1700 mm seen by a camera of 1000 px focal length."""
    corners = np.array([(x_mm + x, y, z_mm) for x in (-250, 250) for y in (-850, 850)], np.float64)
    image = corners[:, :2] / z_mm * 1000
    box_px = np.concatenate([image.min(axis=0), np.ptp(image, axis=0)])
    return Sighting(box_px=box_px, points_mm=corners, sure=sure, row=row)


def _followed(frames: Sequence[Sequence[Sighting]], rate: Fraction = RATE, cuts: Sequence[int] = ()) -> list[dict]:
    tracker = Tracker(rate)
    for frame, sightings in enumerate(frames):
        if frame in cuts:
            tracker.cut()
        tracker.step(sightings)
    return [{frame: sighting.row for frame, sighting in seen.items()} for seen in tracker.people()]


def test_an_assignment_pairs_as_many_as_can_be_at_the_least_cost() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        costs = rng.random(rng.integers(1, 5, 2))
        costs[rng.random(costs.shape) < 0.3] = np.inf
        pairs = assign(costs)
        assert len({row for row, _ in pairs}) == len({column for _, column in pairs}) == len(pairs)
        table = costs if costs.shape[0] <= costs.shape[1] else costs.T
        ways = [table[np.arange(len(table)), list(way)] for way in permutations(range(table.shape[1]), len(table))]
        best = min((-np.isfinite(way).sum(), way[np.isfinite(way)].sum()) for way in ways)
        assert (-len(pairs), sum(costs[pair] for pair in pairs)) == pytest.approx(best)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (2, 0)])
def test_nobody_is_assigned_to_nobody(shape: tuple[int, int]) -> None:
    assert assign(np.zeros(shape)) == []


def test_boxes_overlap_by_what_both_share() -> None:
    one = np.array([0.0, 0, 10, 10])
    assert overlap(one, one) == 1
    assert overlap(one, np.array([5.0, 0, 10, 10])) == pytest.approx(1 / 3)
    assert overlap(one, np.array([10.0, 0, 10, 10])) == 0


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(30), Fraction(120)])
def test_people_go_on_through_a_crossing_in_which_one_is_hidden(rate: Fraction) -> None:
    frames = []
    for time_s in np.arange(0, 3, 1 / rate).tolist():
        near, far = _seen(-900 + 600 * time_s, 2600, row="near"), _seen(900 - 600 * time_s, 3600, row="far")
        frames.append([near] if 1.2 < time_s < 1.9 else [far, near] if len(frames) % 2 else [near, far])
    people = _followed(frames, rate)
    assert [set(person.values()) for person in people] == [{"near"}, {"far"}]


def test_one_who_comes_back_is_the_same_until_they_were_away_too_long() -> None:
    for away, expected in ((50, 1), (70, 2)):
        frames = [[_seen(0)]] * 20 + [[]] * away + [[_seen(100)]] * 20
        assert len(_followed(frames)) == expected


def test_somebody_far_from_where_one_was_is_somebody_else() -> None:
    assert len(_followed([[_seen(0)]] * 20 + [[_seen(2000)]] * 20)) == 2


def test_two_sightings_of_one_body_are_one_person() -> None:
    people = _followed([[_seen(0, row="a"), _seen(20, row="b", sure=0.5)]] * 20)
    assert [list(person.values()) for person in people] == [["a"] * 20]


def test_ghosts_are_dropped_unless_there_is_nobody_else() -> None:
    short = [[_seen(0), _seen(2000)] if 10 <= frame < 14 else [_seen(0)] for frame in range(60)]
    unsure = [[_seen(0), _seen(2000, sure=0.2)]] * 60
    assert [len(_followed(frames)) for frames in (short, unsure, [[_seen(0, sure=0.2)]] * 60)] == [1, 1, 1]
    assert [len(_followed(frames)) for frames in ([[]] * 5, [[_seen(0)]])] == [0, 1]


def test_a_person_is_followed_over_a_cut_only_where_nobody_else_is() -> None:
    alone, two = [[_seen(0, row="a")]] * 20, [[_seen(0, row="b"), _seen(1500, row="c")]] * 20
    landscape: list[list[Sighting]] = [[]] * 20
    assert [len(person) for person in _followed(alone + alone, cuts=[20])] == [40]
    assert [len(person) for person in _followed(alone + landscape + alone, cuts=[20, 40])] == [40]
    assert [len(person) for person in _followed(alone + two, cuts=[20])] == [20, 20, 20]
    assert [len(person) for person in _followed(two + alone + alone, cuts=[20, 40])] == [20, 20, 40]
    assert [len(person) for person in _followed(alone, cuts=range(4, 20, 4))] == [20]  # a person in short shots


def test_people_are_numbered_by_first_sight_and_then_from_left_to_right() -> None:
    frames = [[_seen(900, row="right"), _seen(-900, row="left")]] * 20
    frames += [[_seen(-1800, row="late"), _seen(900, row="right"), _seen(-900, row="left")]] * 20
    assert [next(iter(person.values())) for person in _followed(frames)] == ["left", "right", "late"]
