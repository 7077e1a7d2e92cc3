"""Sizes and pieces where the answer is known without a golden."""

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.eval.geometry import (
    BILINEAR,
    aspect_change,
    cropped,
    float_bicubic,
    humanvid_i3d,
    squared,
    stretched,
)
from mtvcraft_cli.eval.pieces import disjoint, filled, humanvid_choice, humanvid_prefixes, sliding


def noise(height: int, width: int, frames: int = 2) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_frames_that_have_the_size_stay_as_they_are():
    frames = noise(20, 30)
    assert stretched(frames, (30, 20)) is frames
    assert (squared(noise(256, 256)) == noise(256, 256)).all()
    assert float_bicubic(noise(24, 24), 24) == pytest.approx(noise(24, 24))


def test_stretching_is_pillows_own_and_turns_width_and_height_the_right_way():
    frames = noise(20, 30)
    for resample in (Image.Resampling.BICUBIC, BILINEAR):
        made = stretched(frames, (12, 44), resample)
        assert made.shape == (2, 44, 12, 3)
        assert (made[1] == np.asarray(Image.fromarray(frames[1]).resize((12, 44), resample))).all()


@pytest.mark.parametrize(
    ("size", "wanted", "found"),
    [((30, 20), (512, 512), (20, 20)), ((20, 30), (512, 512), (20, 20)), ((40, 20), (3, 2), (30, 20))],
)
def test_cropping_takes_the_middle_with_the_aspect(size, wanted, found):
    frames = noise(size[1], size[0])
    made = cropped(frames, wanted)
    assert made.shape[2:0:-1] == found
    left, top = (size[0] - found[0]) // 2, (size[1] - found[1]) // 2
    assert (made == frames[:, top : top + found[1], left : left + found[0]]).all()
    assert aspect_change(found, wanted) < 0.01


def test_a_change_of_aspect_is_the_same_both_ways():
    assert aspect_change((102, 100), (100, 100)) == pytest.approx(0.02)
    assert aspect_change((100, 100), (102, 100)) == pytest.approx(0.02)
    assert aspect_change((512, 896), (256, 448)) == 0


def test_the_float_resize_leaves_the_range_where_bytes_would_be_clipped():
    step = np.zeros((1, 16, 16, 3), np.uint8)
    step[:, :, 8:] = 255
    made = float_bicubic(step, 40)
    assert made.min() < -5
    assert made.max() > 260


@pytest.mark.parametrize(("height", "width"), [(90, 56), (56, 90), (224, 224), (300, 448)])
def test_humanvids_input_is_a_square_of_minus_one_to_one_in_the_middle(height, width):
    flat = np.full((2, height, width, 3), 255, np.uint8)
    flat[..., 1], flat[..., 2] = 0, 51
    made = humanvid_i3d(flat)
    assert made.shape == (2, 224, 224, 3)
    assert made[..., 0] == pytest.approx(1)
    assert made[..., 1] == pytest.approx(-1)
    assert made[..., 2] == pytest.approx(-0.6)
    ramp = np.broadcast_to(np.linspace(0, 255, height).astype(np.uint8)[:, None, None], (1, height, width, 3))
    down = humanvid_i3d(ramp)[0, :, :, 0]
    assert down.mean() == pytest.approx(0, abs=0.01)
    assert (np.diff(down, axis=0) >= 0).all()
    assert np.diff(down, axis=1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("frames", "step", "count"), [(73, 3, 24), (72, 3, 24), (71, 2, 24), (300, 3, 24), (30, 1, 24)]
)
def test_humanvid_chooses_twenty_four_frames(frames, step, count):
    assert humanvid_choice(frames).tolist() == list(range(0, step * count, step))


@pytest.mark.parametrize("frames", [1, 9, 15])
def test_a_short_clip_gives_what_it_has(frames):
    numbers = list(range(frames))
    assert humanvid_choice(frames).tolist() == numbers
    assert humanvid_prefixes(frames) == list(range(10, frames + 1))
    assert disjoint(numbers).shape == sliding(numbers).shape == (0, 16)
    assert filled(frames).tolist() == [numbers + [frames - 1] * (16 - frames)]


def test_prefixes_are_ten_to_twenty_four():
    assert humanvid_prefixes(24) == list(range(10, 25))


def test_a_missing_number_breaks_pieces_and_numbers_that_do_not_rise_are_refused():
    numbers = [*range(10), *range(11, 40)]
    assert disjoint(numbers)[:, 0].tolist() == [10]
    assert sliding(numbers)[:, 0].tolist() == list(range(10, 24))
    with pytest.raises(ValueError, match="don't rise"):
        disjoint([3, 2, 1])
    with pytest.raises(ValueError, match="0 frames"):
        filled(0)
