from fractions import Fraction

import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video.timecode import Timecode, check_order, read_time, spoken

NTSC = Fraction(30000, 1001)


@pytest.mark.parametrize(
    ("text", "time_s"),
    [
        ("3", Fraction(3)),
        ("12.5", Fraction(25, 2)),
        (".5", Fraction(1, 2)),
        ("0.1", Fraction(1, 10)),
        ("90", Fraction(90)),
        ("1:02.5", Fraction(125, 2)),
        ("75:00", Fraction(4500)),
        ("00:01:02.250", Fraction(249, 4)),
        ("1:00:00", Fraction(3600)),
        (" 7 ", Fraction(7)),
    ],
)
def test_seconds_and_clock_times_are_exact(text: str, time_s: Fraction) -> None:
    assert read_time(text) == time_s


@pytest.mark.parametrize(
    ("text", "rate", "frame"),
    [
        ("00:01:02:12", Fraction(25), 62 * 25 + 12),
        ("00:00:10:00", NTSC, 300),
        ("01:00:00:00", NTSC, 108000),
        ("01:00:00;00", NTSC, 107892),  # drop-frame: 108 numbers an hour are skipped
        ("00:01:00;02", NTSC, 1800),
        ("00:10:00;00", NTSC, 17982),
        ("00:10:00;00", Fraction(60000, 1001), 35964),
        ("00:00:01;05", Fraction(25), 30),
        ("00:00:01:23", Fraction(24000, 1001), 47),
    ],
)
def test_a_timecode_names_a_frame(text: str, rate: Fraction, frame: int) -> None:
    time = read_time(text)
    assert isinstance(time, Timecode)
    assert time.at(rate) == frame / rate


def test_a_frame_that_no_second_has_is_refused() -> None:
    time = read_time("00:00:01:25")
    assert isinstance(time, Timecode)
    assert time.at(Fraction(30)) == Fraction(55, 30)
    with pytest.raises(MtvcraftError, match="asks for frame 25 of a second that has 25, 0 to 24") as caught:
        time.at(Fraction(25))
    assert caught.value.exit is Exit.USAGE


@pytest.mark.parametrize("text", ["", "soon", "-1", "1:60", "1:60:00", "00:60:00:00", "1:2:3:4:5", "1,5", "nan", "1e3"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(MtvcraftError, match="is no time") as caught:
        read_time(text)
    assert caught.value.exit is Exit.USAGE
    assert "00:01:02:12" in caught.value.hint


def test_a_cut_that_ends_before_it_starts_is_refused_before_any_file_is_opened() -> None:
    with pytest.raises(MtvcraftError, match=r"ends at 1\.5 s, and starts at 2 s") as caught:
        check_order(Fraction(2), Fraction(3, 2))
    assert caught.value.exit is Exit.USAGE
    check_order(None, Fraction(1))
    check_order(Fraction(5), None)
    check_order(read_time("00:00:02:00"), Fraction(1))  # told once the rate is known


def test_times_are_spoken_to_the_millisecond() -> None:
    assert [spoken(time_s) for time_s in (Fraction(2), Fraction(5, 4), Fraction(1, 3))] == ["2 s", "1.25 s", "0.333 s"]
