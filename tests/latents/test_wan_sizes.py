"""Sizes and colours of the large model's frames; the table is proved in tests/parity."""

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.wanvideo.colour import match_colours
from mtvcraft_cli.latents.wanvideo.sizes import BUCKETS_PX, checked_size, nearest_bucket


def test_every_bucket_can_be_made_and_is_about_as_large_as_a_square_of_512() -> None:
    assert len(set(BUCKETS_PX)) == 40
    for size_px in BUCKETS_PX:
        assert checked_size(size_px) == size_px
        assert 0.85 < size_px[0] * size_px[1] / 512**2 <= 1.02


def test_a_picture_of_a_buckets_size_gets_that_bucket() -> None:
    for size_px in BUCKETS_PX:
        assert nearest_bucket(size_px) == size_px


def test_shapes_beyond_the_last_bucket_get_the_last_one() -> None:
    assert nearest_bucket((10_000, 100)) == (1024, 256)
    assert nearest_bucket((100, 10_000)) == (256, 1024)


@pytest.mark.parametrize(
    ("size_px", "nearest"), [((500, 512), "496x512"), ((8, 8), "16x16"), ((520, 777), "528x784"), ((0, 512), "16x512")]
)
def test_a_size_that_frames_cannot_have_is_refused_with_the_nearest_one(size_px: tuple[int, int], nearest: str) -> None:
    with pytest.raises(MtvcraftError, match=f"{size_px[0]}x{size_px[1]}") as caught:
        checked_size(size_px)
    assert caught.value.exit == Exit.USAGE
    assert f"--size {nearest}" in caught.value.hint


def clip(frames: int, seed: int, low: float, high: float) -> Tensor:
    noise = torch.rand(1, 3, frames, 12, 16, generator=torch.Generator().manual_seed(seed))
    return low + (high - low) * noise


def test_a_drifted_clip_gets_the_colours_of_the_reference() -> None:
    reference = clip(1, 1, -0.5, 0.5)
    drifted = (reference.expand(-1, -1, 5, -1, -1) * 0.7 + torch.tensor([0.2, -0.1, 0.05]).view(3, 1, 1, 1)).clamp(
        -1, 1
    )
    torch.testing.assert_close(match_colours(drifted, reference), reference.expand_as(drifted), rtol=0, atol=1e-5)


def test_a_clip_in_the_right_colours_stays_as_it_is() -> None:
    reference = clip(1, 1, -0.5, 0.5)
    still = reference.repeat(1, 1, 4, 1, 1)
    torch.testing.assert_close(match_colours(still, reference), still, rtol=0, atol=1e-6)


def test_one_change_holds_for_all_frames_so_that_nothing_flickers() -> None:
    reference, video = clip(1, 1, -0.5, 0.5), clip(6, 2, -0.2, 0.3)
    matched = match_colours(video, reference)
    for frame in range(6):
        gain = matched[:, :, frame].std(dim=(-2, -1)) / video[:, :, frame].std(dim=(-2, -1))
        torch.testing.assert_close(gain, gain.clamp(1.5, 2.0))
        torch.testing.assert_close(gain, matched[:, :, 0].std(dim=(-2, -1)) / video[:, :, 0].std(dim=(-2, -1)))


def test_a_flat_clip_is_not_blown_up_and_no_colour_leaves_its_range() -> None:
    flat = torch.full((1, 3, 2, 12, 16), 0.3) + clip(2, 3, -1e-4, 1e-4)
    matched = match_colours(flat, clip(1, 1, -1.0, 1.0))
    assert matched.std() < 0.05
    bright = match_colours(clip(2, 4, -1.0, 1.0), clip(1, 1, 0.0, 1.0) + 0.0)
    assert bright.abs().max() <= 1
