"""How far two sets of features are apart as if each were a Gaussian: the distance behind FID, FVD and FID-VID.

n samples, d features of each.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Num

from mtvcraft_cli.errors import MtvcraftError

Array = npt.NDArray[np.float64]

_FEWEST: Final = 256
"""Rows are gathered to this many before they are folded in: folding costs the same for one as for many."""


class Moments:
    """Mean and covariance of features that come clip by clip, in memory that doesn't grow with them.

    The covariance is kept as the R factor of the centred samples, which new rows are folded into by another QR: no
    covariance matrix is ever made, whose condition would be that of the samples squared. The order of the clips changes
    nothing beyond float noise.

    Args:
        name: of the whole set in messages, as "ground truth".
    """

    def __init__(self, name: str = "features") -> None:
        self.name = name
        self.count = 0
        """Samples so far, n."""
        self._mean: Array = np.zeros(0)
        self._root: Array = np.zeros((0, 0))
        self._waiting: list[Array] = []
        self._clips: list[str] = []

    def add(self, features: Num[np.ndarray, "n d"], clip: str = "") -> None:
        """Take in the samples of one clip.

        Args:
            features: (n, d), of any number type; none at all is fine.
            clip: its name, for messages.

        Raises:
            MtvcraftError: a feature is NaN or infinite.
            ValueError: d is another than before.
        """
        if not np.isfinite(features).all():
            where = f" of clip `{clip}`" if clip else ""
            raise MtvcraftError(
                f"{self.name}: the features{where} hold NaN or infinity, so there is no distance",
                hint="look at its frames; fetch the network again with `mtvcraft download metrics`",
            )
        if self.count and features.shape[1] != self.width:
            raise ValueError(f"{self.name}: features of {features.shape[1]} values and of {self.width}{_of(clip)}")
        if not len(features):
            return
        self._waiting.append(features.astype(np.float64))
        self.count += len(features)
        self._clips.append(clip)
        if sum(map(len, self._waiting)) >= max(_FEWEST, self.width):
            self._fold()

    @property
    def width(self) -> int:
        """Features of a sample, d; 0 before the first one."""
        return int(self._waiting[0].shape[1] if self._waiting else len(self._mean))

    @property
    def mean(self) -> Array:
        """(d,)."""
        self._fold()
        return self._mean

    @property
    def root(self) -> Array:
        """A matrix R, (at most d, d), with R^T R the covariance, divided by n - 1.

        Raises:
            MtvcraftError: there are fewer than two samples.
        """
        self._fold()
        if self.count < 2:
            only = f", from clip `{self._clips[0]}`" if self._clips and self._clips[0] else ""
            raise MtvcraftError(
                f"{self.name}: a covariance needs 2 samples at least, and there {_are(self.count)}{only}",
                hint="score more clips, or longer ones: a clip of fewer than 16 frames gives no piece",
            )
        return self._root / np.sqrt(self.count - 1)

    @property
    def variance(self) -> float:
        """The trace of the covariance: what a distance of equal sets is small against."""
        return float(np.square(self.root).sum())

    def _fold(self) -> None:
        """Join what waits: centred rows of both parts, and one row for the way between their means."""
        if not self._waiting:
            return
        rows = np.concatenate(self._waiting)
        self._waiting = []
        before, more = self.count - len(rows), len(rows)
        mean = rows.mean(0)
        parts = [rows - mean]
        if before:
            step = mean - self._mean
            parts += [self._root, np.sqrt(before * more / self.count) * step[None]]
            mean = self._mean + step * (more / self.count)
        self._root = np.asarray(np.linalg.qr(np.concatenate(parts), mode="r"))
        self._mean = mean


def distance(one: Moments, other: Moments) -> float:
    """Return the Frechet distance, squared as all papers print it.

    |mean - mean|^2 + tr A + tr B - 2 tr (A B)^(1/2), where the last trace is the sum of the singular values of Ra Rb^T
    (R^T R is the covariance): exact with fewer samples than features too, and without a matrix square root.

    Returns:
        At least 0; what rounding makes smaller is 0.

    Raises:
        MtvcraftError: a side has fewer than two samples.
        ValueError: they have features of unequal number.
    """
    if one.count and other.count and one.width != other.width:
        raise ValueError(f"{one.name} has {one.width} features a sample, {other.name} {other.width}")
    shared = np.linalg.svd(one.root @ other.root.T, compute_uv=False).sum()
    apart = float(np.square(one.mean - other.mean).sum() + one.variance + other.variance - 2 * shared)
    return max(0.0, apart)


def frechet(
    a: Num[np.ndarray, "n d"],
    b: Num[np.ndarray, "m e"],
    names: tuple[Sequence[str], Sequence[str]] | None = None,
) -> float:
    """Return the Frechet distance of two feature matrices.

    Args:
        a: (n, d), a sample a row.
        b: (m, d).
        names: the clip of every row of `a`, and of `b`, for messages.

    Returns:
        At least 0.

    Raises:
        MtvcraftError: a side has fewer than two samples, or one that isn't finite.
        ValueError: they have features of unequal number.
    """
    sides = []
    for place, features in enumerate((a, b)):
        side = Moments(("the first set", "the second set")[place])
        if names is None or np.isfinite(features).all():
            side.add(features, names[place][0] if names and names[place] else "")
        else:
            for row, clip in zip(features, names[place], strict=True):
                side.add(row[None], clip)
        sides.append(side)
    return distance(*sides)


def mean_term(a: Num[np.ndarray, "n d"], b: Num[np.ndarray, "m d"]) -> float:
    """Return the squared distance of two sets' means alone: all that a single clip has of a Frechet distance."""
    return float(np.square(a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)).sum())


def _of(clip: str) -> str:
    return f" (clip `{clip}`)" if clip else ""


def _are(count: int) -> str:
    return "is 1" if count == 1 else "are none"
