"""Motion to learn from: clips of joints in the world, cut into windows and put before random cameras."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.skeleton import mirror_order
from mtvcraft_cli.train.world.dance import dance
from mtvcraft_cli.train.world.place import place

Clip: TypeAlias = Float32[np.ndarray, "_ 24 3"]
"""Joints of any number of frames, mm."""
Whole = npt.NDArray[np.int64]
DANCE_FRAMES = 300


@dataclass(frozen=True, eq=False)
class MotionSet:
    """Clips of motion one after the other, in the world: y up, the floor at 0."""

    joints_mm: Clip
    start: Whole
    """(C,) where each clip begins."""
    length: Whole
    """(C,) frames of each clip."""
    weight: npt.NDArray[np.float64]
    """(C,) how often a clip is drawn; they sum to 1."""

    @staticmethod
    def of(clips: Sequence[Clip], weights: npt.NDArray[np.float64] | None = None) -> "MotionSet":
        """Lay clips one after the other; without weights each is drawn as often as it is long."""
        length = np.array([len(clip) for clip in clips], np.int64)
        weight = length.astype(np.float64) if weights is None else weights
        return MotionSet(np.concatenate(clips), np.cumsum(length) - length, length, weight / weight.sum())

    def clips(self) -> list[Clip]:
        """Return the clips one by one."""
        return [self.joints_mm[start : start + length] for start, length in zip(self.start, self.length, strict=True)]


def read_motion(files: Sequence[str]) -> MotionSet:
    """Read motion sets.

    Where clips have a category, one with four times the frames is drawn only twice as often, so that the most filmed
    kind of motion doesn't hide the others.

    Args:
        files: `.npz` files with `joints` (N, 24, 3) in metres, y up, `clip_start`, `clip_length` and perhaps
            `clip_category`; or folders of them.

    Raises:
        MtvcraftError: a file is missing or no motion set.
    """
    paths = [found for name in files for found in (sorted(Path(name).glob("*.npz")) or [Path(name)])]
    clips: list[Clip] = []
    weights: list[float] = []
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                joints = arrays["joints"].astype(np.float32) * 1000
                start, length = arrays["clip_start"].tolist(), arrays["clip_length"].tolist()
                kinds = arrays["clip_category"].tolist() if "clip_category" in arrays else [""] * len(start)
        except FileNotFoundError as error:
            raise MtvcraftError(f"there is no motion set `{path}`", hint="check the path", exit=Exit.USAGE) from error
        except (OSError, ValueError, KeyError) as error:
            raise MtvcraftError(
                f"`{path}` is no motion set: {error}",
                hint="it is an npz file with `joints`, `clip_start` and `clip_length`",
            ) from error
        clips += [joints[begin : begin + count] for begin, count in zip(start, length, strict=True)]
        total = {kind: sum(n for n, of in zip(length, kinds, strict=True) if of == kind) for kind in set(kinds)}
        weights += [count / total[kind] ** 0.5 for count, kind in zip(length, kinds, strict=True)]
    return MotionSet.of(clips, np.array(weights))


def made_up(count: int, seed: int) -> list[Clip]:
    """Make up dances of 300 frames, at 30 frames a second."""
    rngs = [np.random.default_rng([seed, number]) for number in range(count)]
    return [dance(DANCE_FRAMES, 30.0, rng, float(rng.uniform(80, 140))) for rng in rngs]


def gather(files: Sequence[str], dances: int, seed: int) -> MotionSet:
    """Join files and made-up dances; where there are both, the dances are drawn for a fifth of the windows."""
    dreamt = MotionSet.of(made_up(dances, seed)) if dances else None
    if not files:
        if dreamt is None:
            raise MtvcraftError("there is no motion to train on", hint="set `motion.files` or `motion.dances`")
        return dreamt
    found = read_motion(files)
    if dreamt is None:
        return found
    return MotionSet.of([*found.clips(), *dreamt.clips()], np.concatenate([0.8 * found.weight, 0.2 * dreamt.weight]))


def draw_window(motion: MotionSet, rng: np.random.Generator, frames: int, stride: int, before: int) -> Clip:
    """Draw a window and the frame that its clip began with, in the world.

    Half of the windows begin their clip; the others lie up to `before` frames after its beginning. Where a clip is too
    short its last pose is held.

    Returns:
        (1 + frames, 24, 3) mm: the clip's first frame, then the window. Half of them mirrored.
    """
    clip = int(rng.choice(len(motion.start), p=motion.weight))
    length, span = int(motion.length[clip]), (frames - 1) * stride
    begin = int(rng.integers(max(1, length - span)))
    first = begin if rng.random() < 0.5 else int(rng.integers(max(0, begin - before), begin + 1))
    places = np.minimum(begin + stride * np.arange(frames), length - 1)
    joints_mm = motion.joints_mm[motion.start[clip] + np.concatenate([[first], places])]
    if rng.random() < 0.5:
        joints_mm = joints_mm[:, mirror_order()] * np.array([-1, 1, 1], np.float32)
    return joints_mm


def seen_by_camera(motion_mm: Clip, rng: np.random.Generator) -> Clip:
    """Put a window (and before it the frame its clip began with) before a random camera; camera space, mm.

    Half of the cameras stand as they do for one dancer in full view.
    """
    return place(motion_mm[1:], rng, upright=bool(rng.random() < 0.5)).joints_mm(motion_mm)
