"""Motion to learn from: clips of joints in the world, cut into windows and put before random cameras."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.neutral import on_neutral_body
from mtvcraft_cli.joints.skeleton import mirror_order
from mtvcraft_cli.train.dataset.index import is_clip_set, load_clip_set
from mtvcraft_cli.train.dataset.spread import Spread
from mtvcraft_cli.train.world.dance import dance
from mtvcraft_cli.train.world.motions import Whole, read_set
from mtvcraft_cli.train.world.place import place

Clip: TypeAlias = Float32[np.ndarray, "_ 24 3"]
"""Joints of any number of frames, mm."""
DANCE_FRAMES = 300
SPREAD_SEED = 7


@dataclass(frozen=True, eq=False)
class MotionSet:
    """Clips of motion one after the other, in the world (y up, the floor at 0) or as a camera saw them."""

    joints_mm: Clip
    start: Whole
    """(C,) where each clip begins."""
    length: Whole
    """(C,) frames of each clip."""
    weight: npt.NDArray[np.float64]
    """(C,) how often a clip is drawn; they sum to 1."""
    seen: npt.NDArray[np.bool_]
    """(C,) whether a clip is in camera space."""
    source: tuple[str, ...]
    """(C,) what each was cut from."""

    @staticmethod
    def of(
        clips: Sequence[Clip],
        weights: npt.NDArray[np.float64] | None = None,
        seen: Sequence[bool] | None = None,
        source: Sequence[str] | None = None,
    ) -> "MotionSet":
        """Lay clips one after the other; without weights each is drawn as often as it is long."""
        length = np.array([len(clip) for clip in clips], np.int64)
        weight = length.astype(np.float64) if weights is None else weights
        return MotionSet(
            np.concatenate(clips),
            np.cumsum(length) - length,
            length,
            weight / weight.sum(),
            np.zeros(len(clips), bool) if seen is None else np.array(seen, bool),
            tuple(map(str, range(len(clips)))) if source is None else tuple(source),
        )

    def clips(self) -> list[Clip]:
        """Return the clips one by one."""
        return [self.joints_mm[start : start + length] for start, length in zip(self.start, self.length, strict=True)]

    def only(self, wanted: Sequence[bool]) -> "MotionSet":
        """Some of the clips."""
        chosen = np.flatnonzero(wanted)
        clips = self.clips()
        source = [self.source[clip] for clip in chosen]
        return MotionSet.of([clips[clip] for clip in chosen], self.weight[chosen], self.seen[chosen].tolist(), source)

    def on_neutral_body(self) -> "MotionSet":
        """The same without the people's proportions."""
        return replace(self, joints_mm=on_neutral_body(self.joints_mm))


def read_motion(files: Sequence[str]) -> MotionSet:
    """Read motion sets, and the joints of sets of videos.

    Where clips have a category, one with four times the frames is drawn only twice as often, so that the most filmed
    kind of motion doesn't hide the others.

    Args:
        files: `.npz` files with `joints` (N, 24, 3) in metres, y up, `clip_start`, `clip_length` and perhaps
            `clip_category`; or folders of them; or folders that `mtvcraft train prepare` made of videos.

    Raises:
        MtvcraftError: a file is missing or no motion set.
    """
    clips: list[Clip] = []
    weights: list[float] = []
    seen: list[bool] = []
    source: list[str] = []
    for name in files:
        if is_clip_set(Path(name)):
            videos = load_clip_set(Path(name))
            clips += [videos.joints_mm(record) for record in videos.records]
            total = sum(record.frames for record in videos.records)
            weights += [record.frames / total**0.5 for record in videos.records]
            seen += [True] * len(videos.records)
            source += [record.source for record in videos.records]
            continue
        for path in sorted(Path(name).glob("*.npz")) or [Path(name)]:
            of_file = _read_file(path)
            clips += of_file.clips()
            weights += of_file.weight.tolist()
            seen += [False] * len(of_file.start)
            source += of_file.source
    return MotionSet.of(clips, np.array(weights), seen, source)


def _read_file(path: Path) -> MotionSet:
    """Read one motion set; its weights don't sum to 1."""
    names = ("clip_source_sha256", "clip_take", "clip_name")
    joints_mm, start, length, more = read_set(path, "clip_category", *names)
    kinds = more["clip_category"].tolist() if "clip_category" in more else [""] * len(start)
    named = next((more[name].tolist() for name in names if name in more), range(len(start)))
    total = {kind: sum(n for n, of in zip(length, kinds, strict=True) if of == kind) for kind in set(kinds)}
    weight = np.array([count / total[kind] ** 0.5 for count, kind in zip(length, kinds, strict=True)])
    source = tuple(f"{path.name} {clip}" for clip in named)
    return MotionSet(joints_mm, start, length, weight, np.zeros(len(start), bool), source)


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
    return MotionSet.of(
        [*found.clips(), *dreamt.clips()],
        np.concatenate([0.8 * found.weight, 0.2 * dreamt.weight]),
        [*found.seen.tolist(), *dreamt.seen.tolist()],
        [*found.source, *(f"dance {clip}" for clip in dreamt.source)],
    )


def draw_window(motion: MotionSet, rng: np.random.Generator, frames: int, stride: int, before: int) -> Clip:
    """Draw a window and the frame that its clip began with, in the axes of its clip.

    Half of the windows begin their clip; the others lie up to `before` frames after its beginning. Where a clip is too
    short its last pose is held.

    Returns:
        (1 + frames, 24, 3) mm: the clip's first frame, then the window. Half of them mirrored.
    """
    return _window(motion, int(rng.choice(len(motion.start), p=motion.weight)), rng, frames, stride, before)


def draw_seen(motion: MotionSet, rng: np.random.Generator, frames: int, stride: int, before: int) -> Clip:
    """Draw a window, see `draw_window`, as a camera sees it: its clip's own, else a random one."""
    clip = int(rng.choice(len(motion.start), p=motion.weight))
    window = _window(motion, clip, rng, frames, stride, before)
    return window if motion.seen[clip] else seen_by_camera(window, rng)


def spread_of(motion: MotionSet, windows: int = 2000) -> Spread:
    """Mean and spread of joints as cameras see them: over all frames where they are known, else over random windows."""
    if motion.seen.all():
        return reduce(operator.add, map(Spread.of, motion.clips()))
    rng = np.random.default_rng(SPREAD_SEED)
    return reduce(operator.add, (Spread.of(draw_seen(motion, rng, 9, 1, 0)[1:]) for _ in range(windows)))


def _window(motion: MotionSet, clip: int, rng: np.random.Generator, frames: int, stride: int, before: int) -> Clip:
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
