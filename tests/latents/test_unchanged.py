"""What stands still is the picture itself, to the last level; what moved is left to the model."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from mtvcraft_cli.latents.unchanged import Unchanged, unchanged_from
from mtvcraft_cli.latents.vae import decode, encode_reference, to_frames, to_video
from tests.tiny import picture, tiny_vae

LEVELS = 16.0


def looking(seen: np.ndarray) -> Unchanged:
    return Unchanged(picture=to_video(picture()[None]), seen=to_video(seen[None]), levels=LEVELS)


@pytest.fixture
def blurred() -> np.ndarray:
    return gaussian_filter(picture().astype(float), (2, 2, 0)).astype(np.uint8)


def test_a_clip_in_which_nothing_moves_is_the_picture(blurred: np.ndarray) -> None:
    frames = to_frames(looking(blurred)(to_video(np.repeat(blurred[None], 5, 0))))
    assert np.array_equal(frames, np.repeat(picture()[None], 5, 0))


def test_what_moved_is_left_alone_and_all_else_is_the_picture(blurred: np.ndarray) -> None:
    made = np.repeat(blurred[None], 3, 0)
    made[1, 8:20, 8:20] = np.where(made[1, 8:20, 8:20] < 128, 255, 0)
    frames = to_frames(looking(blurred)(to_video(made)))
    assert np.array_equal(frames[[0, 2]], np.repeat(picture()[None], 2, 0))
    assert np.abs(frames[1, 10:18, 10:18].astype(int) - made[1, 10:18, 10:18]).max() <= 1
    far = np.ones((32, 32), dtype=bool)
    far[2:26, 2:26] = False
    assert np.array_equal(frames[1][far], picture()[far])


@pytest.mark.parametrize("off", [0, 8, 16, 32, 64])
def test_the_share_of_the_picture_falls_as_a_bell_does(off: int) -> None:
    place = np.full((32, 32, 3), 100, dtype=np.uint8)
    look = Unchanged(picture=to_video(place[None] + 100), seen=to_video(place[None]), levels=LEVELS)
    mixed = float(look(to_video(place[None] + off)).mean() + 1) * 127.5
    share = np.exp(-((off / LEVELS) ** 2) / 2)
    assert mixed == pytest.approx(share * 200 + (1 - share) * (100 + off), abs=0.01)


def test_what_the_vae_makes_of_the_picture_is_what_clips_are_held_against() -> None:
    vae = tiny_vae()
    look = unchanged_from(vae, picture(), LEVELS)
    still = encode_reference(vae, picture(), 17, sample=False, scaled=True, generator=torch.Generator())
    frames = to_frames(look(decode(vae, still)))
    assert np.array_equal(frames[8:], np.repeat(picture()[None], 9, 0))
