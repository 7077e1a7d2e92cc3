"""Panels stand side by side, whole, in order and in step."""

from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.video.panels import GROUND, Panels, paced
from mtvcraft_cli.video.read import probe
from mtvcraft_cli.video.write import VideoWriter
from tests.clips import number_of, source_frames

CAPTIONS = ("reference", "driver", "skeleton", "after tokens", "result")
COLOURS = ((220, 40, 40), (40, 220, 40), (40, 40, 220), (220, 220, 40), (40, 220, 220))
SIZES_PX = ((96, 96), (64, 128), (320, 180), (90, 60), (96, 96))


def _plain(colour: tuple[int, int, int], size_px: tuple[int, int], count: int = 2) -> np.ndarray:
    return np.full((count, size_px[1], size_px[0], 3), colour, np.uint8)


def _boxes(row: np.ndarray, colours: tuple[tuple[int, int, int], ...]) -> list[tuple[int, int, int, int]]:
    """Left, top, width, height of each colour."""
    boxes = []
    for colour in colours:
        rows, columns = np.nonzero((np.abs(row.astype(int) - colour) <= 2).all(axis=-1))
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)  # one whole rectangle
        boxes.append((columns.min(), rows.min(), columns.max() - columns.min() + 1, rows.max() - rows.min() + 1))
    return boxes


@pytest.mark.parametrize("shown", [(0, 1, 2, 3, 4), (0, 2, 3, 4), (4,)], ids=["all", "without driver", "result only"])
@pytest.mark.parametrize("height_px", [61, 180])
def test_every_stream_is_whole_in_order_as_high_as_the_others_and_in_its_own_shape(
    shown: tuple[int, ...], height_px: int
) -> None:
    sizes_px = [SIZES_PX[index] for index in shown]
    panels = Panels([CAPTIONS[index] for index in shown], sizes_px, height_px)
    rows = panels.compose([_plain(COLOURS[index], SIZES_PX[index]) for index in shown])
    assert rows.shape == (2, panels.size_px[1], panels.size_px[0], 3)
    assert all(side % 2 == 0 for side in panels.size_px)
    boxes = _boxes(rows[1], tuple(COLOURS[index] for index in shown))
    assert [box[0] for box in boxes] == sorted(box[0] for box in boxes)
    for (_, _, width, height), (own_width, own_height) in zip(boxes, sizes_px, strict=True):
        assert abs(width / height - own_width / own_height) < 1.5 / height
        assert height == pytest.approx(height_px, abs=1) or own_height / own_width > 16 / 9


def test_a_panorama_gets_bars_and_leaves_room_for_the_others() -> None:
    panels = Panels(["driver", "result"], [(800, 100), (100, 100)], 120)
    (_, top, width, height), (_, other_top, _, _) = _boxes(
        panels.compose([_plain(COLOURS[0], (800, 100)), _plain(COLOURS[1], (100, 100))])[0], COLOURS[:2]
    )
    assert abs(width / height - 8) < 0.3
    assert width <= 120 * 16 / 9 + 1
    assert top > other_top + 30


def test_each_stream_has_its_caption_above_it() -> None:
    panels = Panels(CAPTIONS, SIZES_PX, 180)
    rows = panels.compose([_plain(colour, size) for colour, size in zip(COLOURS, SIZES_PX, strict=True)])
    for left, top, width, _ in _boxes(rows[0], COLOURS):
        above = rows[0, :top, left : left + width]
        ink = (np.abs(above.astype(int) - GROUND).max(axis=-1) > 60).sum()
        assert 20 < ink < 0.5 * above[..., 0].size
    np.testing.assert_array_equal(
        rows[0][:, :: panels.size_px[0] - 1], np.broadcast_to(GROUND, (panels.size_px[1], 2, 3))
    )


def test_frames_stay_in_step_and_a_still_picture_may_be_given_once() -> None:
    frames = source_frames(3)
    still = np.broadcast_to(source_frames(1)[0], frames.shape)
    panels = Panels(["reference", "driver"], [(160, 96)] * 2, 96)
    rows = panels.compose([still, frames])
    (left, top) = 160 + 2 * 4, panels.size_px[1] - 96 - 4
    assert [number_of(row[top : top + 96, left : left + 160]) for row in rows] == [0, 1, 2]
    np.testing.assert_array_equal(rows[2, top : top + 96, 4:164], still[0])


def test_panels_make_a_video(tmp_path) -> None:
    panels = Panels(["driver", "result"], [(97, 61), (61, 97)], 75)
    with VideoWriter(tmp_path / "compare.mp4", panels.size_px, Fraction(30)) as writer:
        for _ in range(2):
            writer.write(panels.compose([_plain(COLOURS[0], (97, 61), 4), _plain(COLOURS[1], (61, 97), 4)]))
    clip = probe(tmp_path / "compare.mp4")
    assert (clip.frames, (clip.width_px, clip.height_px)) == (8, panels.size_px)


@pytest.mark.parametrize(
    ("captions", "sizes_px", "height_px"), [([], [], 9), (["a"], [(1, 1), (2, 2)], 9), (["a"], [(0, 5)], 9)]
)
def test_panels_that_make_no_sense_are_a_mistake(captions: list[str], sizes_px: list, height_px: int) -> None:
    with pytest.raises(ValueError, match="don't fit"):
        Panels(captions, sizes_px, height_px)


def test_streams_of_another_length_or_size_are_a_mistake() -> None:
    panels = Panels(["a", "b"], [(8, 8), (8, 8)], 32)
    for other in (_plain(COLOURS[0], (8, 8), 3), _plain(COLOURS[0], (9, 8))):
        with pytest.raises(ValueError, match="don't fit panels"):
            panels.compose([_plain(COLOURS[0], (8, 8)), other])


@pytest.mark.parametrize(
    ("rate", "wanted", "count", "numbers"),
    [
        (Fraction(30), Fraction(30), 6, [0, 1, 2, 3, 4, 5]),
        (Fraction(30), Fraction(15), 3, [0, 2, 4]),
        (Fraction(10), Fraction(30), 8, [0, 0, 1, 1, 1, 2, 2, 2]),
        (Fraction(30), Fraction(30), 8, [0, 1, 2, 3, 4, 5, 5, 5]),
        (Fraction(30000, 1001), Fraction(24), 5, [0, 1, 2, 4, 5]),
    ],
)
def test_a_clip_is_paced_by_time(rate: Fraction, wanted: Fraction, count: int, numbers: list[int]) -> None:
    frames = source_frames(6)
    assert [number_of(frame) for frame in paced([frames[:4], frames[4:]], rate, wanted, count)] == numbers


def test_a_clip_without_frames_cannot_be_paced() -> None:
    with pytest.raises(ValueError, match="without frames"):
        next(paced([], Fraction(30), Fraction(30), 1))
