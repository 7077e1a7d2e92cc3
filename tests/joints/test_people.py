"""A scene is listed, one person is chosen from it, and all of it is kept in a file."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Person, Scene, Smpl
from mtvcraft_cli.joints.people import (
    choose_person,
    describe_choice,
    load_scene,
    people_rows,
    save_scene,
)
from mtvcraft_cli.joints.sheet import CELL_PX, FRAME, GAP_PX, PAPER, best_frame, contact_sheet
from tests.joints.people import scene

RATE = Fraction(20)
THREE = scene((0, 40, 600, 100), (10, 40, 300, 200), (20, 30, 50, 300))


@pytest.mark.parametrize(("rule", "number"), [("largest", 2), ("left", 3), ("right", 1), ("1", 1), ("3", 3)])
def test_every_rule_takes_whom_it_says(rule: str, number: int) -> None:
    chosen, person = choose_person(THREE, rule, RATE)
    assert chosen == number
    assert person is THREE.people[number - 1]


@pytest.mark.parametrize("rule", ["biggest", "0", "-1", "1.5", "", "²"])
def test_a_rule_that_is_none_is_a_usage_error(rule: str) -> None:
    with pytest.raises(MtvcraftError, match="neither largest, left, right nor a number") as caught:
        choose_person(THREE, rule, RATE)
    assert caught.value.exit is Exit.USAGE
    assert "--list" in caught.value.hint


def test_a_number_that_nobody_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(MtvcraftError) as caught:
        choose_person(THREE, "4", RATE, "party.mp4")
    assert caught.value.message == (
        "there is no person 4 in `party.mp4`, only 1 (0.00 to 2.00 s), 2 (0.50 to 2.00 s), 3 (1.00 to 1.50 s)"
    )
    assert caught.value.exit is Exit.INPUT
    with pytest.raises(MtvcraftError, match=r"no person in any of the 7 frames of `sea\.mp4`"):
        choose_person(Scene(frames=7, people=()), "2", RATE, "sea.mp4")


def test_the_list_tells_when_how_large_and_how_sure() -> None:
    rows = people_rows(THREE, (1000, 1000), RATE)
    assert [row.number for row in rows] == [1, 2, 3]
    last = rows[-1]
    assert (last.start_s, last.end_s, last.seen) == (Fraction(1), Fraction(3, 2), 0.25)
    assert last.height == pytest.approx(0.6)
    assert last.confidence == pytest.approx(0.8)
    assert last.sentence() == (
        "person 3: 1.00 to 1.50 s, seen in 25% of frames, 60% of the picture's height, confidence 0.80"
    )


def test_the_choice_is_told_where_there_was_one() -> None:
    assert describe_choice(scene((0, 40, 0, 9)), "largest", 1, RATE) == []
    assert describe_choice(THREE, "largest", 2, RATE) == ["3 people: took person 2 (largest); choose with `--person`"]
    assert describe_choice(THREE, "2", 2, RATE) == ["3 people: took person 2; choose with `--person`"]


def test_cuts_are_told_with_what_was_assumed() -> None:
    alone = scene((0, 40, 0, 9), cuts=(10,))
    assert describe_choice(alone, "largest", 1, RATE) == [
        "a shot cut at 0.50 s: took the only person before and after for the same one"
    ]
    apart = scene((0, 10, 0, 9), (10, 40, 0, 9), (10, 40, 0, 9), cuts=(10, 30))
    assert describe_choice(apart, "1", 1, RATE)[1] == (
        "shot cuts at 0.50, 1.50 s: who is seen after may have another number"
    )


def test_a_scene_comes_back_from_its_file_bit_by_bit(tmp_path: Path) -> None:
    smpl = Smpl(*(np.random.default_rng(0).random((40, width)).astype(np.float32) for width in (72, 10, 3)))
    first = THREE.people[0]
    with_smpl = Person(replace(first.estimate, smpl=smpl), first.boxes_px)
    kept = Scene(frames=40, people=(with_smpl, *THREE.people[1:]), cuts=(7, 19))
    save_scene(tmp_path / "scene.npz", kept)
    back = load_scene(tmp_path / "scene.npz")
    assert (back.frames, back.cuts, len(back.people)) == (40, (7, 19), 3)
    for ours, theirs in zip(kept.people, back.people, strict=True):
        for name in ("joints_mm", "confidence", "found"):
            np.testing.assert_array_equal(getattr(ours.estimate, name), getattr(theirs.estimate, name))
        np.testing.assert_array_equal(ours.boxes_px, theirs.boxes_px)
    assert back.people[0].estimate.smpl is not None
    np.testing.assert_array_equal(back.people[0].estimate.smpl.pose, smpl.pose)
    assert back.people[1].estimate.smpl is None
    save_scene(tmp_path / "nobody.npz", Scene(frames=3, people=()))
    assert load_scene(tmp_path / "nobody.npz") == Scene(frames=3, people=())


@pytest.mark.parametrize("content", [b"", b"not a file of arrays", "pickled", "cut off"])
def test_another_file_is_no_scene(content: bytes | str, tmp_path: Path) -> None:
    path = tmp_path / "scene.npz"
    if content == "pickled":
        np.savez(path, frames=3, people=1, cuts=np.array([{}], object), allow_pickle=True)
    elif content == "cut off":
        save_scene(path, THREE)
        path.write_bytes(path.read_bytes()[:-200])
    else:
        path.write_bytes(content)  # type: ignore[arg-type]
    with pytest.raises(MtvcraftError, match="holds no people, or is cut off"):
        load_scene(path)


def test_the_contact_sheet_shows_everyone_in_their_best_frame_with_a_number() -> None:
    asked = []

    def frame_at(index: int) -> np.ndarray:
        asked.append(index)
        return np.full((1000, 1000, 3), index, np.uint8)

    for person, best in zip(THREE.people, (33, 12, 25), strict=True):
        person.estimate.confidence[best] = 0.95
    sheet = contact_sheet(THREE, frame_at)
    assert asked == [12, 25, 33]  # in the order of the clip, so that it is read once
    assert [best_frame(person) for person in THREE.people] == [33, 12, 25]
    width, height = CELL_PX
    assert sheet.shape == (height + 2 * GAP_PX, 3 * width + 4 * GAP_PX, 3)
    for column, colour in enumerate((33, 12, 25)):
        left = GAP_PX + column * (width + GAP_PX)
        cell = sheet[GAP_PX : GAP_PX + height, left : left + width]
        assert (cell[height // 2 :, width // 2] == colour).all(axis=-1).any()
        assert (cell[:60, :80] == 255).all(axis=-1).any()  # the number
        assert (cell == FRAME).all(axis=-1).any()
    third = sheet[GAP_PX:, -GAP_PX - width : -GAP_PX]
    assert (third[height // 2, 2] == PAPER).all()  # past the left edge of the picture


def test_a_sheet_of_nobody_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="nobody to show"):
        contact_sheet(Scene(frames=1, people=()), lambda index: np.zeros((1, 1, 3), np.uint8))
