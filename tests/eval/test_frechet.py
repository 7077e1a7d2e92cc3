"""The distance between two sets of features where it is known without a golden."""

import numpy as np
import pytest

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.frechet import Moments, distance, frechet, mean_term


def features(seed: int, count: int, width: int = 12) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return draw.normal(size=(count, width)) @ draw.normal(size=(width, width)) + draw.normal(size=width)


def gathered(rows: np.ndarray, sizes: list[int]) -> Moments:
    moments, at = Moments(), 0
    for size in sizes:
        moments.add(rows[at : at + size])
        assert moments.width == rows.shape[1]
        at += size
    assert moments.count == len(rows)
    return moments


@pytest.mark.parametrize("count", [2, 5, 40, 700])
def test_a_set_is_no_way_from_itself(count):
    rows = features(0, count).astype(np.float32)
    assert frechet(rows, rows) < 1e-12 * np.var(rows, axis=0).sum()
    assert frechet(rows, rows[::-1]) < 1e-12 * np.var(rows, axis=0).sum()


def test_moments_are_those_of_all_samples_however_they_come():
    rows = features(1, 900)
    for sizes in ([900], [300, 300, 300], [1, 5, 294, 0, 600], [256] * 3 + [132]):
        moments = gathered(rows, sizes)
        assert moments.mean == pytest.approx(rows.mean(0), abs=1e-12)
        assert moments.root.T @ moments.root == pytest.approx(np.cov(rows.T), abs=1e-12 * moments.variance)
        assert moments.variance == pytest.approx(np.trace(np.cov(rows.T)))


def test_memory_does_not_grow_with_the_samples():
    moments = Moments()
    for clip in range(200):
        moments.add(features(clip, 20))
    assert moments.root.shape == (12, 12)
    assert sum(map(len, moments._waiting)) < 256


def test_the_order_of_clips_is_float_noise():
    clips = [features(seed, 17) for seed in range(40)]
    other = gathered(features(99, 64), [64])
    one, turned = Moments(), Moments()
    for clip in clips:
        one.add(clip)
    for clip in clips[::-1]:
        turned.add(clip)
    assert distance(turned, other) == pytest.approx(distance(one, other), rel=1e-10)


def test_two_gaussians_of_one_dimension_have_the_formula():
    a, b = features(2, 50, 1), features(3, 30, 1)
    formula = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet(a, b) == pytest.approx(formula)
    assert mean_term(a, b) == pytest.approx((a.mean() - b.mean()) ** 2)


def test_what_is_refused_names_the_clip():
    good, bad = features(4, 6), features(4, 6)
    bad[4, 3] = np.inf
    names = [f"clip{row // 2}" for row in range(6)]
    with pytest.raises(MtvcraftError, match="`clip2` hold NaN or infinity"):
        frechet(good, bad, (names, names))
    with pytest.raises(MtvcraftError, match="2 samples at least, and there is 1, from clip `clip0`"):
        frechet(good[:1], good, (names[:1], names))
    with pytest.raises(MtvcraftError, match="ground truth: a covariance needs 2 samples at least, and there are none"):
        distance(Moments("ground truth"), gathered(good, [6]))
    with pytest.raises(ValueError, match="12 features a sample, the second set 5"):
        frechet(good, good[:, :5])
    with pytest.raises(ValueError, match=r"5 values and of 12 \(clip `late`\)"):
        gathered(good, [6]).add(good[:, :5], "late")
