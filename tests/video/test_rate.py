from fractions import Fraction

import numpy as np
import pytest

from mtvcraft_cli.video.rate import constant_grid, constant_rate, printed_rates

NTSC = Fraction(30000, 1001)


def rounded(rate: Fraction, count: int, ticks_a_second: int) -> np.ndarray:
    return np.array([round(index / rate * ticks_a_second) for index in range(count)], np.int64)


@pytest.mark.parametrize(
    ("about", "rates"),
    [
        ("h264, 29.97 fps, 29.97 tbr, 30k tbn", [NTSC, NTSC]),
        ("h264, 23.98 fps, 24 tbr, 1k tbn", [Fraction(24000, 1001), Fraction(24)]),
        ("h264, 12.50 fps, 1k tbr", [Fraction(25, 2), Fraction(1000)]),
        ("h264, 0 fps, 90k tbr", [Fraction(90000)]),
        ("h264, 1k tbn", []),
    ],
)
def test_printed_rates_are_made_exact(about: str, rates: list[Fraction]) -> None:
    assert printed_rates(about) == rates


@pytest.mark.parametrize(
    "rate", [NTSC, Fraction(24000, 1001), Fraction(43), Fraction(24), Fraction(59), Fraction(7, 2)]
)
@pytest.mark.parametrize("ticks_a_second", [600, 1000, 90000, 1_000_000])
@pytest.mark.parametrize("told", [True, False])
def test_rounded_timestamps_give_the_exact_rate(rate: Fraction, ticks_a_second: int, told: bool) -> None:
    ticks = rounded(rate, 400, ticks_a_second)
    assert constant_rate(ticks, Fraction(1, ticks_a_second), [rate] if told else []) == rate


def test_a_step_that_is_even_is_believed_rather_than_a_rate_near_it() -> None:
    ticks = np.arange(20, dtype=np.int64) * 3  # a GIF that shows each frame for 3 hundredths
    assert constant_rate(ticks, Fraction(1, 100), [Fraction("33.33")]) == Fraction(100, 3)


def test_a_rate_that_varies_is_none() -> None:
    ticks = np.array([0, 33, 67, 200, 233], np.int64)
    assert constant_rate(ticks, Fraction(1, 1000), [Fraction(30)]) is None


def test_jitter_neither_repeats_nor_loses_a_frame() -> None:
    jitter = np.random.default_rng(0).integers(-700, 700, 300)  # of steps of 3003
    rate, order = constant_grid(rounded(NTSC, 300, 90000) + jitter, 3003, Fraction(1, 90000))
    assert rate == NTSC
    np.testing.assert_array_equal(order, np.arange(300))


def test_a_pause_keeps_the_grid_fine() -> None:
    ticks = np.array([0, 10, 20, 30, 330, 340, 350], np.int64)
    rate, order = constant_grid(ticks, 10, Fraction(1, 100))
    assert rate == 10
    assert order.tolist() == [0, 1, 2, *[3] * 30, 4, 5, 6]


def test_frames_that_come_in_bursts_get_a_grid_that_can_be_worked_on() -> None:
    ticks = np.array([0, 1, 2, 3, 1000, 1001, 1002], np.int64)
    rate, order = constant_grid(ticks, 1, Fraction(1, 1000))
    assert rate == 240
    assert len(order) == round(1003 / 1000 * 240)
