"""Times as people write them: seconds, clock times, and the frame timecodes of editing programs."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import TypeAlias

from mtvcraft_cli.errors import Exit, MtvcraftError

CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")
FRAMES = re.compile(r"(\d+):(\d+):(\d+)([:;])(\d+)")


@dataclass(frozen=True)
class Timecode:
    """HH:MM:SS:FF, as editing programs count: a number of frames, whose time depends on the frame rate."""

    text: str
    whole_s: int
    frames: int
    dropping: bool
    """Whether it is drop-frame (HH:MM:SS;FF): at 29.97 and 59.94 a second, numbers are skipped to keep to the clock."""

    def at(self, rate: Fraction) -> Fraction:
        """Return the time in seconds at a rate, exactly that of the frame meant (SMPTE ST 12-1).

        Raises:
            MtvcraftError: a second hasn't so many frames (exit 2).
        """
        second = ceil(rate)
        if self.frames >= second:
            raise MtvcraftError(
                f"`{self.text}` asks for frame {self.frames} of a second that has {second}, 0 to {second - 1}",
                hint="write seconds instead, such as 12.5",
                exit=Exit.USAGE,
            )
        minutes = self.whole_s // 60
        left_out = round(rate / 15) * (minutes - minutes // 10) if self.dropping and rate.denominator == 1001 else 0
        return (self.whole_s * second + self.frames - left_out) / rate


Time: TypeAlias = Fraction | Timecode
"""Seconds, or a timecode that becomes seconds once the rate is known."""


def read_time(text: str) -> Time:
    """Read a time: seconds (`12.5`), a clock time (`1:02.5`, `00:01:02.250`), or a timecode (`00:01:02:12`).

    Raises:
        MtvcraftError: it is none of these (exit 2).
    """
    words = text.strip()
    if found := FRAMES.fullmatch(words):
        hours, minutes, seconds = (int(found[part]) for part in (1, 2, 3))
        if minutes < 60 and seconds < 60:
            return Timecode(words, hours * 3600 + minutes * 60 + seconds, int(found[5]), dropping=found[4] == ";")
    elif found := CLOCK.fullmatch(words):
        hours, minutes, seconds_s = int(found[1] or 0), int(found[2] or 0), Fraction(found[3])
        if (found[1] is None or minutes < 60) and (found[2] is None or seconds_s < 60):
            return hours * 3600 + minutes * 60 + seconds_s
    raise MtvcraftError(
        f"`{text}` is no time",
        hint="write seconds (12.5), minutes and seconds (1:02.5), or a timecode with frames (00:01:02:12)",
        exit=Exit.USAGE,
    )


def check_order(start_s: Time | None, end_s: Time | None) -> None:
    """Refuse a cut that ends before it starts; timecodes wait until they have become seconds.

    Raises:
        MtvcraftError: `end_s` isn't after `start_s` (exit 2).
    """
    if isinstance(start_s, Timecode) or isinstance(end_s, Timecode) or end_s is None:
        return
    if end_s <= (start_s or 0):
        raise MtvcraftError(
            f"the cut ends at {spoken(end_s)}, and starts at {spoken(start_s or Fraction(0))}",
            hint="choose an `--end` after `--start`",
            exit=Exit.USAGE,
        )


def spoken(time_s: Fraction) -> str:
    """Write a time for the user, to the millisecond: `12.5 s`."""
    return f"{float(time_s):.3f}".rstrip("0").rstrip(".") + " s"
