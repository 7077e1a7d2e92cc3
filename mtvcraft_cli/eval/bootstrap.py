"""How far a number over few clips can be trusted: it is taken again over clips drawn with replacement."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt


def interval(
    clips: int,
    statistic: Callable[[npt.NDArray[np.int64]], float],
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the middle part of what a number is over clips drawn anew: the percentile bootstrap, clips as the unit.

    With ten clips it is somewhat too narrow, as any such interval. A Frechet distance over drawn clips is larger than
    over all, since repeated clips add no spread: read its width, not its place.

    Args:
        clips: how many there are.
        statistic: the number over the clips at the places given, some of them several times.
        draws: how often clips are drawn.
        level: which part of the numbers lies inside.
        seed: the same seed gives the same interval.

    Returns:
        Its lower and upper end; None for fewer than two clips.
    """
    if clips < 2:
        return None
    places = np.random.default_rng(seed).integers(0, clips, (draws, clips))
    found = [statistic(row) for row in places]
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(
    values: Sequence[float],
    weights: Sequence[float] | Sequence[int] | None = None,
    *,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Return the interval of a mean over clips.

    Args:
        values: one a clip.
        weights: of the clips, as their frames where all frames count the same; None for clips that do.
        draws: how often clips are drawn.
        level: which part of the means lies inside.
        seed: the same seed gives the same interval.

    Returns:
        Its lower and upper end; None for fewer than two clips.
    """
    own = np.asarray(values, np.float64)
    heavy = np.ones(len(own)) if weights is None else np.asarray(weights, np.float64)
    return interval(
        len(own),
        lambda places: float(np.average(own[places], weights=heavy[places])),
        draws=draws,
        level=level,
        seed=seed,
    )
