"""Mean and spread of joints, gathered clip by clip."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.preset import Statistics

NAME = "joint_statistics.json"
Table = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spread:
    """Of so many frames: the mean, and the sum of squares about it, per joint and axis."""

    frames: int
    mean_mm: Table
    """(24, 3)"""
    squares: Table
    """(24, 3), square millimetres."""

    @staticmethod
    def of(joints_mm: npt.NDArray[np.floating]) -> "Spread":
        """Of one clip, (T, 24, 3)."""
        joints = joints_mm.astype(np.float64)
        mean_mm = joints.mean(axis=0)
        return Spread(len(joints), mean_mm, np.square(joints - mean_mm).sum(axis=0))

    def __add__(self, other: "Spread") -> "Spread":
        frames = self.frames + other.frames
        apart = other.mean_mm - self.mean_mm
        return Spread(
            frames,
            self.mean_mm + apart * (other.frames / frames),
            self.squares + other.squares + np.square(apart) * (self.frames * other.frames / frames),
        )

    @property
    def statistics(self) -> Statistics:
        """What joints are normalised with; a joint that never moves, as in one still clip, gets a spread of 1 mm."""
        std_mm = np.maximum(np.sqrt(self.squares / self.frames), 1.0)
        return Statistics(mean_mm=self.mean_mm.astype(np.float32), std_mm=std_mm.astype(np.float32))


def write_spread(folder: Path, spread: Spread) -> None:
    """Write `joint_statistics.json`, which a preset may name as it is."""
    std_mm = np.sqrt(spread.squares / spread.frames)
    tables = {"frames": spread.frames, "mean_mm": spread.mean_mm.tolist(), "std_mm": std_mm.tolist()}
    write_text_whole(folder / NAME, json.dumps(tables) + "\n")


def read_spread(folder: Path) -> Spread:
    """Read what `write_spread` wrote.

    Raises:
        MtvcraftError: it is missing or holds something else.
    """
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        frames = int(content["frames"])
        mean_mm, std_mm = (np.array(content[name], np.float64) for name in ("mean_mm", "std_mm"))
        if frames < 1 or any(t.shape != (24, 3) or not np.isfinite(t).all() for t in (mean_mm, std_mm)):
            raise ValueError("24 rows of three numbers are needed")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MtvcraftError(
            f"`{folder / NAME}` can't be read: {error}",
            hint="run the same `mtvcraft train prepare` again: it writes the statistics anew",
        ) from error
    return Spread(frames, mean_mm, np.square(std_mm) * frames)
