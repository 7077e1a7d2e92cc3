"""Clips to learn from, by number: whoever is asked for the same number twice gives the same clip."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from mtvcraft_cli.joints.skeleton import project
from mtvcraft_cli.shapes import Frames, Picture
from mtvcraft_cli.train.world.motions import RECORDED, Motions, load_motions
from mtvcraft_cli.train.world.scenes import WORLD, Split, scene

Size = tuple[int, int]
CARRY_ON = 16
"""Frames from window to window that windows which carry on lie after their clip's first frame."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A window of a video, the character's picture, and what the driver did."""

    frames: Frames
    reference: Picture
    figure: Bool[np.ndarray, "T H W"]
    """Where the character is, or was in the reference."""
    joints_mm: Float32[np.ndarray, "_ 24 3"]
    """(1 + T, 24, 3) of the driver, camera space: the first frame of its clip, then the window."""
    truth: "Truth | None" = None
    """Where the character really is, where that is known."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Where a character is in the frames of a window."""

    masks: Bool[np.ndarray, "T H W"]
    joints: Float32[np.ndarray, "T 24 2"]
    """Shares of width and height."""


@runtime_checkable
class Examples(Protocol):
    """Where clips come from."""

    told: tuple[Any, ...]
    """What tells their clips from others', as plain data."""

    def __call__(self, number: int, size_px: Size, frames: int) -> Example:
        """Make or read clip `number`, a window of `frames` frames of size `size_px`."""
        ...


@runtime_checkable
class Captioned(Protocol):
    """Clips that come with words; `Examples` may be this as well."""

    def caption(self, number: int, size_px: Size) -> str:
        """What clip `number` of that size shows; empty where nobody said. Found without reading its frames."""
        ...


class WorldExamples:
    """Clips of our own world.

    Args:
        motion: a recorded motion set, mixed with dances of our own; None for these alone.
        split: which characters.
        before: how long before its window a clip may have begun, frames; half of the windows begin their clip.
        recorded: share of the windows that are of the recorded set.
    """

    def __init__(
        self, motion: Path | None = None, split: Split = "train", before: int = 0, recorded: float = RECORDED
    ) -> None:
        self.motions: Motions | None = None if motion is None else load_motions(motion, recorded)
        self.split: Split = split
        self.before = before
        self.told: tuple[Any, ...] = (motion and hashlib.sha256(motion.read_bytes()).hexdigest(), before, WORLD)
        if motion is not None and recorded != RECORDED:
            self.told += (recorded,)

    def __call__(self, number: int, size_px: Size, frames: int) -> Example:
        """Film clip `number`."""
        rng = np.random.default_rng([number, 41])
        late, steps = 0, self.before // CARRY_ON
        if steps and rng.random() < 0.5:
            late = CARRY_ON * int(rng.integers(1, steps + 1))
        made = scene(number, self.split, size_px, late + frames, self.motions)
        return Example(
            frames=made.frames[late:],
            reference=made.reference,
            figure=made.masks[late:] | made.reference_mask,
            joints_mm=np.concatenate([made.joints_mm[:1], made.joints_mm[late:]]),
            truth=Truth(
                masks=made.masks[late:],
                joints=(project(made.own_joints_mm[late:], size_px) / size_px).astype(np.float32),
            ),
        )
