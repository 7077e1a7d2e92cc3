"""Cuts are told from flashes, fades and fast pans."""

from collections.abc import Callable

import numpy as np
import pytest

from mtvcraft_cli.joints.shots import with_cuts

Frames = np.ndarray


def _scene(seed: int) -> Frames:
    """A picture 256 px high and 1024 px wide: blocks of colours."""
    blocks = np.random.default_rng(seed).integers(20, 236, (8, 32, 3))
    return blocks.repeat(32, axis=0).repeat(32, axis=1).astype(np.uint8)


def _still(seed: int, frames: int = 20) -> Frames:
    return np.stack([_scene(seed)[:, :256]] * frames)


def _pan(step_px: int, frames: int = 12) -> Frames:
    starts = [min(frame * step_px, 768) for frame in range(frames)]
    moved = [_scene(0)[:, start : start + 256] for start in starts]
    return np.stack([moved[0]] * 8 + moved + [moved[-1]] * 8)


def _flash(frames: int, add: int = 150) -> Frames:
    clip = _still(0)
    clip[8 : 8 + frames] = np.clip(clip[8 : 8 + frames].astype(int) + add, 0, 255)
    return clip


def _faded(first: int, second: int, over: int = 12) -> Frames:
    shares = np.linspace(0, 1, over)[:, None, None, None]
    out, back = (_still(seed, 1) * shares for seed in (first, second))
    return np.concatenate([_still(first), out[::-1].astype(np.uint8), back.astype(np.uint8), _still(second)])


def _dissolve() -> Frames:
    shares = np.linspace(0, 1, 12)[:, None, None, None]
    mixed = _still(0, 1) * (1 - shares) + _still(1, 1) * shares
    return np.concatenate([_still(0), mixed.astype(np.uint8), _still(1)])


CLIPS: dict[str, tuple[Callable[[], Frames], list[int]]] = {
    "nothing happens": (lambda: _still(0), []),
    "a cut": (lambda: np.concatenate([_still(0), _still(1)]), [20]),
    "two cuts": (lambda: np.concatenate([_still(0), _still(1, 6), _still(2)]), [20, 26]),
    "a cut after the first frame": (lambda: np.concatenate([_still(0, 1), _still(1)]), [1]),
    "a cut before the last frame": (lambda: np.concatenate([_still(0), _still(1, 1)]), [20]),
    "a flash of one frame": (lambda: _flash(1), []),
    "a flash of three frames": (lambda: _flash(3), []),
    "a lamp goes out for two frames": (lambda: _flash(2, -150), []),
    "a fade to black and back": (lambda: _faded(0, 0), []),
    "a dissolve": (_dissolve, []),
    "a slow pan": (lambda: _pan(16), []),
    "a fast pan": (lambda: _pan(100), []),
    "a cut out of a pan": (lambda: np.concatenate([_pan(16)[:14], _still(1)]), [14]),
    "one frame": (lambda: _still(0, 1), []),
}


@pytest.mark.parametrize("kind", CLIPS)
def test_only_cuts_are_cuts(kind: str) -> None:
    make, cuts = CLIPS[kind]
    clip = make()
    noisy = np.clip(clip + np.random.default_rng(1).normal(0, 4, clip.shape), 0, 255).astype(np.uint8)
    assert [frame for frame, (_, cut) in enumerate(with_cuts([noisy])) if cut] == cuts


def test_frames_come_through_untouched_whatever_the_batches() -> None:
    clip = np.random.default_rng(0).integers(0, 256, (11, 9, 7, 3), np.uint8)
    through = np.stack([frame for frame, _ in with_cuts([clip[:1], clip[1:1], clip[1:7], clip[7:]])])
    np.testing.assert_array_equal(through, clip)
    assert list(with_cuts([])) == []
