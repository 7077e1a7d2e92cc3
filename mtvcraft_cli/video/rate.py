"""Timestamps to an exact frame rate, or to a constant grid where the rate varies."""

import re
from fractions import Fraction
from math import ceil

import numpy as np
import numpy.typing as npt

Ticks = npt.NDArray[np.int64]
LARGEST_DENOMINATOR = 8000  # ffmpeg takes rates of up to 1001000 / 1001000
FASTEST = Fraction(240)
JITTER = 0.1
BROADCAST = tuple(Fraction(whole * 1000, 1001) for whole in (24, 30, 48, 60, 120))


def printed_rates(about: str) -> list[Fraction]:
    """Find the rates in ffmpeg's line about a stream: the average, then its guess; rounded to two decimals."""
    return [
        _standard(Fraction(number) * (1000 if kilo else 1))
        for number, kilo in re.findall(r"([\d.]+)(k?) (?:fps|tbr)", about)
        if Fraction(number) > 0
    ]


def _standard(printed: Fraction) -> Fraction:
    """Undo the rounding of a printed rate: 29.97 is 30000/1001, 23.98 is 24000/1001."""
    broadcast = Fraction(round(printed * 1001 / 1000) * 1000, 1001)
    return broadcast if printed.denominator > 1 and _prints_alike(broadcast, printed) else printed


def _prints_alike(one: Fraction, other: Fraction) -> bool:
    return abs(one - other) <= Fraction(51, 10000)


def timing(ticks: Ticks, last_length: int, time_base: Fraction, printed: list[Fraction]) -> tuple[Fraction, Ticks]:
    """Find the rate at which frames come out, and which frame of the file is shown at each place.

    Args:
        ticks: (T,) when each frame is shown, in ticks, ascending; at least one.
        last_length: how long the last one is shown; 0 where unknown.
        time_base: seconds of a tick.
        printed: what `printed_rates` found.

    Returns:
        The exact rate, and the file's frames in order; where the rate varies, those of `constant_grid`.
    """
    if len(ticks) == 1:
        return (printed[0] if printed else 1 / (max(1, last_length) * time_base)), np.zeros(1, np.int64)
    rate = constant_rate(ticks, time_base, printed)
    return constant_grid(ticks, last_length, time_base) if rate is None else (rate, np.arange(len(ticks)))


def constant_rate(ticks: Ticks, time_base: Fraction, printed: list[Fraction]) -> Fraction | None:
    """Find the exact rate that explains all timestamps.

    Clocks of milliseconds (Matroska, WebM) or hundredths (GIF) round each timestamp: a rate that ffmpeg prints, then
    the simplest one, is believed where it explains each within a tick.

    Args:
        ticks: (T,) when each frame is shown, in ticks, ascending; at least two.
        time_base: seconds of a tick.
        printed: what `printed_rates` found.

    Returns:
        The rate; None where it varies.
    """
    since = ticks - ticks[0]
    steps = np.diff(since)
    even = None
    if (steps == steps[0]).all():
        even = (1 / (int(steps[0]) * time_base)).limit_denominator(LARGEST_DENOMINATOR)
        if any(_prints_alike(even, rate) for rate in printed):
            return even
    counts = np.arange(len(ticks))
    for rate in printed:
        if (np.abs(since - counts * float(1 / (rate * time_base))) <= 1).all():
            return rate
    if even is not None:
        return even
    shortest, longest = ((since[1:] - 1) / counts[1:]).max(), ((since[1:] + 1) / counts[1:]).min()
    if shortest > longest:
        return None
    second = float(1 / time_base)
    return _simplest(second / longest, second / shortest)


def _simplest(slowest: float, fastest: float) -> Fraction | None:
    """The simplest rate between two: whole, of broadcasting, or the fraction of smallest denominator."""
    for unit in (Fraction(1), Fraction(1000, 1001), *(Fraction(1, below) for below in range(2, 1001))):
        rate = ceil(slowest / float(unit)) * unit
        if rate <= fastest:
            return rate
    return None


def constant_grid(ticks: Ticks, last_length: int, time_base: Fraction) -> tuple[Fraction, Ticks]:
    """Put frames of varying rate on a constant grid of the same duration.

    The grid is that of the average where frames only jitter, and of the usual step where there are pauses: these don't
    slow it down, so no motion is lost. Each place shows what is seen at its middle, which forgives half a step.

    Args:
        ticks: (T,) when each frame is shown, in ticks, strictly ascending; at least two.
        last_length: how long the last one is shown; 0 where unknown.
        time_base: seconds of a tick.

    Returns:
        The rate, and for each place of the grid the index of the frame that it shows.
    """
    step = float(np.median(np.diff(ticks)))
    average = float(np.mean(np.diff(ticks)))
    if abs(average / step - 1) < JITTER:
        step = average
    usual = min(FASTEST, 1 / (Fraction(step) * time_base))
    rate = min(*BROADCAST, Fraction(max(1, round(usual))), key=lambda rate: abs(rate - usual))
    length_s = (int(ticks[-1] - ticks[0]) + (last_length or step)) * float(time_base)
    frames = max(1, round(length_s * float(rate)))
    middles = (np.arange(frames) + 0.5) / float(rate * time_base)
    return rate, np.searchsorted(ticks - ticks[0], middles, side="right") - 1
