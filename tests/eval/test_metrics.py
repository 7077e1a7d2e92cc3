"""PSNR, SSIM and silhouettes where the answer is known without any golden."""

import numpy as np
import pytest

from mtvcraft_cli.eval.psnr import EQUAL, psnr
from mtvcraft_cli.eval.silhouette import overlap, silhouettes
from mtvcraft_cli.eval.ssim import WINDOWS, ssim
from mtvcraft_cli.train.world.scenes import SPLITS, scene


def noise(seed: int = 0, shape: tuple[int, ...] = (2, 24, 20, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_two_flat_clips_sixteen_levels_apart_have_the_psnr_of_the_formula():
    flat = np.full((3, 8, 8, 3), 40, np.uint8)
    assert psnr(flat, flat + np.uint8(16)) == pytest.approx(20 * np.log10(255 / 16))
    assert psnr(flat + np.uint8(16), flat) == pytest.approx(20 * np.log10(255 / 16))  # no unsigned overflow


@pytest.mark.parametrize("window", WINDOWS)
def test_equal_clips_have_the_best_of_both(window):
    assert (psnr(noise(), noise()) == EQUAL).all()
    assert ssim(noise(), noise(), window) == pytest.approx(1)


@pytest.mark.parametrize("window", WINDOWS)
def test_two_flat_frames_are_alike_as_far_as_their_brightness_is(window):
    if WINDOWS[window].padded:
        pytest.skip("a flat frame isn't flat beside the zeros around it")
    one, other = np.full((1, 16, 16, 3), 100, np.uint8), np.full((1, 16, 16, 3), 140, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(one, other, window) == pytest.approx((2 * 100 * 140 + c1) / (100**2 + 140**2 + c1))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_clips_of_unequal_shapes_are_refused(measure):
    with pytest.raises(ValueError, match="can't be compared"):
        measure(noise(), noise()[:1])


def test_frames_smaller_than_the_window_are_refused():
    small = noise(shape=(1, 10, 40, 3))
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(small, small, "rgb_gauss11")
    assert ssim(small, small, "gray7") == pytest.approx(1)


def test_the_silhouettes_of_true_clips_are_nearly_their_masks():
    found = []
    for split in SPLITS[1:]:
        for seed in range(4):
            clip = scene(seed, split, (96, 96), 4)
            found.append(overlap(silhouettes(clip.frames, clip.empty), clip.masks).mean())
    assert np.mean(found) > 0.9
    assert min(found) > 0.7


def test_a_shadow_is_no_silhouette_and_a_figure_is():
    empty = np.full((32, 32, 3), 150, np.uint8)
    frames = np.stack([empty] * 2)
    frames[:, 20:, 4:20] = 130
    frames[:, 4:16, 8:14] = (60, 150, 150)
    masks = silhouettes(frames, empty)
    truth = np.zeros_like(masks)
    truth[:, 4:16, 8:14] = True
    assert overlap(masks, truth).min() > 0.9  # the corners go to the majority around them


def test_overlap_is_that_of_sets():
    one, other = np.zeros((2, 3, 3, 4), bool)
    one[:2, 0], other[0, 0, :2], other[1] = True, True, True
    assert overlap(one, other).tolist() == pytest.approx([2 / 4, 4 / 12, 1])
