"""Motion to learn from: recorded clips where there are any, and dances of our own."""

import zlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, Int64

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.skeleton import mirror_order
from mtvcraft_cli.shapes import JointsMm
from mtvcraft_cli.train.world.dance import MOVES, dance

DANCED_RATE: Final = Fraction(30)
RECORDED: Final = 0.75
Whole = npt.NDArray[np.int64]
_MIRROR: Final = list(mirror_order())


@dataclass(frozen=True)
class Motions:
    """Recorded clips of one skeleton: world axes, y up, the floor at 0, one clip after the other."""

    joints_mm: Float32[np.ndarray, "N 24 3"]
    start: Int64[np.ndarray, " C"]
    length: Int64[np.ndarray, " C"]
    rate: Fraction
    share: float = RECORDED
    """How many of the windows to learn from are of these clips; the others are dances of our own."""

    def window(self, rng: np.random.Generator, frames: int, stride: int) -> JointsMm:
        """Draw a window of every `stride`-th frame, all places alike; a clip that is too short rests at its end."""
        room = np.maximum(self.length - (frames - 1) * stride, 0)
        if not room.any():
            room = self.length
        clip = int(rng.choice(len(room), p=room / room.sum()))
        first = int(rng.integers(room[clip]))
        inside = np.minimum(first + stride * np.arange(frames), self.length[clip] - 1)
        return self.joints_mm[self.start[clip] + inside]


def load_motions(path: Path, share: float = RECORDED) -> Motions:
    """Read recorded motion.

    Args:
        path: a motion set with `fps`, see `read_set`.
        share: of the windows to learn from, 0..1.

    Raises:
        MtvcraftError: as for `read_set`.
    """
    joints_mm, start, length, more = read_set(path, "fps")
    fps = more.get("fps", np.zeros(1))
    if fps.size != 1 or fps.dtype.kind not in "iuf" or not 0 < fps.item() < np.inf:
        raise _no_set(path, "its `fps` is no number above 0, or missing")
    return Motions(joints_mm, start, length, Fraction(str(fps.item())).limit_denominator(1001), share)


def read_set(path: Path, *more: str) -> tuple[JointsMm, Whole, Whole, dict[str, npt.NDArray[Any]]]:
    """Read a motion set: clips one after the other.

    Args:
        path: an `.npz` with `joints` (N, 24, 3) in metres, SMPL's order, y up, the floor at 0, and `clip_start` and
            `clip_length` (C); `docs/mini.md` says how to make one.
        more: other arrays that it may have.

    Returns:
        Joints in mm, where clips start, how long they are, and of `more` what there is.

    Raises:
        MtvcraftError: exit 2, there is no such file; exit 4, it holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            joints, start, length = (file[name] for name in ("joints", "clip_start", "clip_length"))
            told = {name: file[name] for name in more if name in file}
    except FileNotFoundError as problem:
        raise MtvcraftError(f"there is no motion set `{path}`", hint="check the path", exit=Exit.USAGE) from problem
    except (OSError, KeyError, ValueError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error) as problem:
        raise _no_set(path, str(problem)) from problem
    fits = joints.ndim == 3 and joints.shape[1:] == (24, 3) and start.shape == length.shape and len(start) > 0
    if not fits or length.min() < 1 or start.min() < 0 or (start + length).max() > len(joints):
        raise _no_set(path, "its arrays don't fit each other")
    if joints.dtype.kind not in "iuf" or not np.isfinite(joints).all():
        raise _no_set(path, "`joints` has NaN, infinite values or no numbers")
    return (1000 * joints).astype(np.float32), start.astype(np.int64), length.astype(np.int64), told


def _no_set(path: Path, why: str) -> MtvcraftError:
    return MtvcraftError(
        f"`{path}` is no motion set: {why}",
        hint="it has to be an `.npz` with `joints` (N, 24, 3), `clip_start`, `clip_length` and `fps`",
    )


def draw_motion(
    rng: np.random.Generator, frames: int, motions: Motions | None
) -> tuple[npt.NDArray[np.float32], Fraction]:
    """Draw a window of motion and its frames a second: a recorded one, or a dance.

    Every first, second or third frame is taken, so that slow and quick motion are both seen; left and right are
    swapped half the time.
    """
    stride = int(rng.choice((1, 2, 3), p=(0.3, 0.45, 0.25)))
    if motions is not None and rng.random() < motions.share:
        rate, joints = motions.rate / stride, motions.window(rng, frames, stride)
    else:
        rate, beats = DANCED_RATE / stride, float(rng.uniform(70, 140))
        skipped = int(rng.integers(int(6 * rate)))
        bars = int((frames + skipped) / rate * beats / 60 / 4) + 1
        joints = dance(frames + skipped, float(rate), rng, beats, [str(rng.choice(list(MOVES))) for _ in range(bars)])
        joints = joints[skipped:]
    if rng.random() < 0.5:
        joints = joints[:, _MIRROR] * np.asarray((-1, 1, 1), np.float32)
    return joints, rate
