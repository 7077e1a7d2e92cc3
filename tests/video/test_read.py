import os
import pickle
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video import look, read
from mtvcraft_cli.video.read import Clip, open_clip, probe, probe_sound, read_ahead
from mtvcraft_cli.video.timecode import read_time
from tests import clips
from tests.clips import H264, make_clip, number_of
from tests.video.test_kinds_of_video import CASES, HEVC


@pytest.mark.parametrize("name", ["plain", "webm", "hevc", "full range", "bt709", "bt601"])
def test_decord_and_ffmpeg_see_the_same_colours(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    clip = open_clip(make_clip(tmp_path / case.file, case.options, frames=10))
    assert clip.info.reader == "decord"
    by_ffmpeg = Clip(clip.info, np.arange(10), clip._source)
    for one, other in zip(clip.batches(), by_ffmpeg.batches(), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (-90, 3)])
def test_a_turned_clip_comes_out_as_it_is_shown(degrees: int, quarters: int, tmp_path: Path) -> None:
    clip = open_clip(clips.make_turned(tmp_path / "turned.mp4", degrees))
    assert clip.info.size_px == (clips.SIZE_PX if quarters == 2 else clips.SIZE_PX[::-1])
    frames = np.concatenate(list(clip.batches()))
    upright = np.rot90(frames, -quarters, axes=(1, 2))
    assert [number_of(frame) for frame in upright] == list(range(60))


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    clip = open_clip(make_clip(tmp_path / "wide.mp4", (*H264, "-vf", "setsar=4/3"), frames=5))
    assert clip.info.size_px == (213, 96)
    assert [number_of(frame) for frame in next(clip.batches())] == list(range(5))


def test_a_varying_rate_is_put_on_a_constant_grid_of_the_same_duration(tmp_path: Path) -> None:
    clip = open_clip(clips.make_variable(tmp_path / "variable.mp4"))
    assert clip.info.variable
    assert clip.info.rate == 30
    assert clip.info.duration_s == 2
    numbers = [number_of(frame) for batch in clip.batches(7) for frame in batch]
    assert numbers == [number - (number % 4 == 2) for number in range(60)]
    assert number_of(clip.frame(42)) == 41


def test_frames_hidden_by_an_edit_list_stay_hidden_and_the_sound_in_step(tmp_path: Path) -> None:
    clip = open_clip(clips.make_edited(tmp_path / "edited.mp4"))
    numbers = [number_of(frame) for batch in clip.batches() for frame in batch]
    assert numbers == list(range(12, 60))
    assert clip.info.frames == 48
    assert abs(clip.info.sound_offset_s) < Fraction(1, 40)


@pytest.mark.parametrize(
    ("moved", "offset_s"), [(("-vf", "setpts=PTS+0.5/TB"), -0.5), (("-af", "asetpts=PTS+0.25/TB"), 0.25)]
)
@pytest.mark.parametrize("file", ["late.mp4", "late.mkv"])
def test_a_late_start_of_pictures_or_sound_is_noted(
    file: str, moved: tuple[str, ...], offset_s: float, tmp_path: Path
) -> None:
    info = probe(make_clip(tmp_path / file, sound=moved))
    assert info.frames == 60
    assert float(info.sound_offset_s) == pytest.approx(offset_s, abs=0.03)  # AAC starts with a packet of nothing


def make_png(path: Path) -> Path:
    clips.ffmpeg("-f", "lavfi", "-i", "color=red:s=32x32", "-frames:v", "1", "-f", "image2", "-c:v", "png", path)
    return path


def make_cut_fast(path: Path) -> Path:
    return clips.make_cut(path, clips.make_plain(path.with_name("whole.mp4")))


def make_without_frames(path: Path) -> Path:
    clips.ffmpeg("-f", "lavfi", "-i", "testsrc=s=32x32", "-t", "0", "-c:v", "libx264", path)
    return path


def make_noise(path: Path) -> Path:
    path.write_bytes(b"\x00\x01\x02" + np.random.default_rng(0).bytes(5000))
    return path


BAD: dict[str, tuple[str, Callable[[Path], object], Exit, str]] = {
    "missing": ("no.mp4", lambda path: None, Exit.USAGE, "there is no"),
    "folder": ("folder.mp4", Path.mkdir, Exit.INPUT, "is a folder without pictures"),
    "pattern": ("no-*.png", lambda path: None, Exit.USAGE, "no file fits"),
    "pickle": (
        "a.pkl",
        lambda path: path.write_bytes(pickle.dumps([1])),
        Exit.INPUT,
        "is a Python pickle, not a video",
    ),
    "empty": ("empty.mp4", clips.make_empty, Exit.INPUT, "is empty"),
    "text": ("text.mp4", clips.make_text, Exit.INPUT, "is text, not a video"),
    "noise": ("noise.mp4", make_noise, Exit.INPUT, "can't be read as a video"),
    "sound only": ("sound.m4a", clips.make_sound_only, Exit.INPUT, "sound without pictures"),
    "sound only, as video": ("sound.mp4", clips.make_sound_only, Exit.INPUT, "sound without pictures"),
    "picture": ("picture.mp4", make_png, Exit.INPUT, "is a picture, not a video"),
    "no index": ("cut.mp4", clips.make_without_index, Exit.INPUT, "its index, which comes last, is missing"),
    "no end": ("cut.mp4", make_cut_fast, Exit.INPUT, "frames are there"),
    "no frames": ("none.mp4", make_without_frames, Exit.INPUT, "has no frames"),
}


@pytest.mark.parametrize(("file", "make", "exit", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_whole_video_is_refused_with_a_way_out(
    file: str, make: Callable[[Path], object], exit: Exit, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / file
    make(path)
    for reader in (probe, open_clip):
        with pytest.raises(MtvcraftError, match=words) as caught:
            reader(path)
        assert caught.value.exit is exit
        assert str(path) in caught.value.message
        assert caught.value.hint
    assert capfd.readouterr() == ("", "")


def test_the_hint_for_a_cut_file_mends_it(tmp_path: Path) -> None:
    cut = make_cut_fast(tmp_path / "cut.mp4")
    with pytest.raises(MtvcraftError, match=r"\d+ of about 60 frames") as caught:
        probe(cut)
    found = int(re.findall(r"(\d+) of", caught.value.message)[0])
    words = caught.value.hint.split("ffmpeg ")[1].split()
    clips.ffmpeg(*words[:-1], tmp_path / words[-1])
    assert 10 < found < 50
    mended = open_clip(tmp_path / "mended.mp4")
    assert found <= mended.info.frames <= found + 4  # B-frames missing near the end are held over
    assert sum(len(batch) for batch in mended.batches()) == mended.info.frames


def test_a_file_that_breaks_off_while_it_is_read_says_how_far_it_went(tmp_path: Path) -> None:
    clip = open_clip(clips.make_plain(tmp_path / "plain.mp4"))
    longer = Clip(replace(clip.info, frames=80), np.arange(80), clip._source)
    with pytest.raises(MtvcraftError, match="60 of 80 frames could be read"):
        list(longer.batches())


def test_what_decord_refuses_is_read_by_ffmpeg_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(look, "DECORD_CODECS", ("av1",))
    case = CASES["av1"]
    path = make_clip(tmp_path / case.file, case.options, frames=5)
    assert probe(path).reader == "decord"
    clip = open_clip(path)
    assert clip.info.reader == "ffmpeg"
    assert len(next(clip.batches())) == 5
    assert capfd.readouterr() == ("", "")


def test_damaged_frames_are_shown_as_well_as_can_be_or_counted_in_our_own_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = clips.make_plain(tmp_path / "damaged.mp4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"X" * 64
    path.write_bytes(content)
    words = "60 of 60 frames could be read"
    try:
        assert sum(len(batch) for batch in open_clip(path).batches()) == 60
    except MtvcraftError as error:
        words = error.message
    assert re.search(r"(60|is damaged: 5\d) of 60 frames could be read", words)
    assert capfd.readouterr() == ("", "")


def test_reading_goes_on_with_ffmpeg_where_decord_gives_up(tmp_path: Path) -> None:
    clip = open_clip(clips.make_plain(tmp_path / "plain.mp4"))
    batches = clip.batches(8)
    seen = [next(batches)]
    clip._reader = None
    seen.extend(batches)
    assert [number_of(frame) for batch in seen for frame in batch] == list(range(60))


@pytest.mark.parametrize("name", ["plain", "av1"])
def test_a_clip_is_never_in_memory_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    clip = open_clip(make_clip(tmp_path / case.file, case.options))
    frame_bytes = 160 * 96 * 3
    monkeypatch.setattr(read, "BATCH_BYTES", 4 * frame_bytes)
    tracemalloc.start()
    assert [len(batch) for batch in clip.batches()] == [4] * 15
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 12 * frame_bytes + 200_000


def test_decord_gets_no_clip_that_it_could_fill_the_memory_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.make_plain(tmp_path / "plain.mp4")
    monkeypatch.setattr(look, "DECORD_BYTES", 60 * 160 * 96 * 3)
    assert probe(path).reader == "decord"
    monkeypatch.setattr(look, "DECORD_BYTES", 60 * 160 * 96 * 3 - 1)
    assert probe(path).reader == "ffmpeg"


def test_a_reader_that_stops_early_leaves_no_process_behind(tmp_path: Path) -> None:
    batches = open_clip(make_clip(tmp_path / "small.gif", ("-f", "gif"), rate="10")).batches(1)
    next(batches)
    assert isinstance(batches, Iterator)
    batches.close()  # type: ignore[attr-defined]
    with pytest.raises(ChildProcessError):  # no child, dead or alive
        os.waitpid(-1, os.WNOHANG)


def test_a_frame_that_is_not_there_is_an_index_error(tmp_path: Path) -> None:
    clip = open_clip(make_clip(tmp_path / "one.mp4", frames=2))
    with pytest.raises(IndexError, match="frame 2 of 2"):
        clip.frame(2)


def test_a_file_without_sound_is_refused_where_sound_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="has no sound"):
        probe_sound(make_clip(tmp_path / "silent.mp4", frames=2))
    with pytest.raises(MtvcraftError, match="has no sound: it is text"):
        probe_sound(clips.make_text(tmp_path / "text.mp3"))
    assert probe_sound(clips.make_sound_only(tmp_path / "sound.mp3")).sound is not None


def reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read-ahead"]


class Walk:
    """Counts to `last`, then raises; knows whether it was closed."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.given = 0
        self.closed = False

    def __call__(self) -> Iterator[int]:
        try:
            for number in range(self.last):
                self.given += 1
                yield number
            raise OSError("the end of the world")
        finally:
            self.closed = True


def test_reading_ahead_keeps_order_and_errors() -> None:
    walk = Walk(5)
    ahead = read_ahead(walk())
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="end of the world"):
        next(ahead)
    assert walk.closed
    assert not reading()
    assert list(read_ahead(range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("reason", [GeneratorExit, KeyboardInterrupt, ValueError])
def test_reading_ahead_stops_its_thread_when_the_caller_stops(reason: type[BaseException]) -> None:
    walk = Walk(1000)
    ahead = read_ahead(walk(), depth=2)
    assert next(ahead) == 0
    with pytest.raises(reason):
        ahead.throw(reason)  # type: ignore[attr-defined]
    assert not reading()
    assert walk.closed
    assert walk.given <= 6


CUT = Fraction(3, 10), Fraction(17, 10)
KEYS = ("-g", "12", "-bf", "3")
CUTS: dict[str, Callable[[Path], Path]] = {
    "by decord": lambda folder: make_clip(folder / "plain.mp4", (*H264, *KEYS)),
    "hevc with open groups": lambda folder: make_clip(
        folder / "a.mp4", (*HEVC[:-1], "log-level=error:keyint=12:open-gop=1", "-pix_fmt", "yuv422p10le")
    ),
    "h264 with open groups": lambda folder: make_clip(
        folder / "a.mkv", (*H264[:-1], "yuv444p", *KEYS, "-x264-params", "open-gop=1")
    ),
    "few frames a second, many b-frames": lambda folder: make_clip(
        folder / "a.mp4", (*H264[:-1], "yuv444p", "-g", "9", "-bf", "8", "-b_strategy", "0"), rate="3", frames=30
    ),
    "key frames close together": lambda folder: make_clip(
        folder / "a.mp4", (*H264[:-1], "yuv444p", "-force_key_frames", "expr:between(n,13,15)"), rate="3", frames=30
    ),
    "av1": lambda folder: make_clip(folder / "a.mp4", CASES["av1"].options),
    "vp9 with alpha": lambda folder: make_clip(folder / "a.webm", (*CASES["vp9 with alpha"].options, "-g", "12")),
    "interlaced": lambda folder: make_clip(folder / "a.mp4", (*CASES["interlaced"].options, *KEYS)),
    "edit list": lambda folder: clips.make_edited(folder / "a.mp4"),
    "varying rate": lambda folder: clips.make_variable(folder / "a.mp4"),
    "turned": lambda folder: clips.make_turned(folder / "a.mp4"),
    "late pictures": lambda folder: make_clip(folder / "a.mkv", (*H264[:-1], "yuv444p", *KEYS), sound=LATE),
    "times that don't begin at 0": lambda folder: make_clip(
        folder / "a.mkv", (*H264[:-1], "yuv444p", *KEYS, "-output_ts_offset", "100")
    ),
    "transport stream": lambda folder: make_clip(folder / "a.ts", (*H264, *KEYS)),
    "avi": lambda folder: make_clip(folder / "a.avi", ("-c:v", "mpeg4", "-bf", "2", "-g", "12", "-q:v", "2")),
    "gif": lambda folder: make_clip(folder / "a.gif", ("-f", "gif"), rate="20"),
    "moving webp": lambda folder: make_clip(folder / "a.webp", ("-c:v", "libwebp_anim", "-lossless", "1"), rate="20"),
}
LATE = ("-vf", "setpts=PTS+0.5/TB")


@pytest.mark.parametrize("make", CUTS.values(), ids=CUTS.keys())
def test_a_cut_has_the_very_frames_that_lie_in_it(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    clip = open_clip(path)
    whole = np.concatenate(list(clip.batches()))
    times_s = [index / clip.info.rate for index in range(clip.info.frames)]
    step_s = 1 / clip.info.rate
    half_s = clip.info.duration_s / 2
    for start_s, end_s in [(0 * step_s, step_s), CUT, (13 * step_s, 14 * step_s), (step_s / 2, None), (half_s, None)]:
        cut = open_clip(path, start_s=start_s, end_s=end_s)
        inside = [index for index, time_s in enumerate(times_s) if start_s <= time_s < (end_s or 1000)]
        assert cut.info.frames == len(inside)
        assert cut.info.start_s == times_s[inside[0]]
        assert cut.info.duration_s == len(inside) / clip.info.rate
        np.testing.assert_array_equal(np.concatenate(list(cut.batches(5))), whole[inside])
        np.testing.assert_array_equal(cut.frame(len(inside) - 1), whole[inside[-1]])
        assert probe(path, start_s=start_s, end_s=end_s) == replace(cut.info, reader=clip.info.reader)


def test_a_cut_far_into_a_long_clip_is_found_without_decoding_what_is_before(tmp_path: Path) -> None:
    second = make_clip(tmp_path / "second.mkv", (*H264[:-1], "yuv444p"), frames=30, size_px=(640, 384))
    long = tmp_path / "long.mkv"
    clips.ffmpeg("-stream_loop", "299", "-i", second, "-c", "copy", long)
    clip = open_clip(long, start_s=Fraction(290), end_s=Fraction(290) + Fraction(1, 10))
    assert clip.info.reader == "ffmpeg"
    before_s = sum(os.times()[2:4])
    assert [number_of(frame) for batch in clip.batches() for frame in batch] == [0, 1, 2]
    assert sum(os.times()[2:4]) - before_s < 2  # all frames before it take ten times as long


def test_a_cut_in_a_timecode_begins_with_that_frame(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", rate="30000/1001")
    cut = open_clip(path, start_s=read_time("00:00:01:05"), end_s=read_time("00:00:01:07"))
    assert [number_of(frame) for batch in cut.batches() for frame in batch] == [35, 36]
    assert cut.info.start_s == 35 * Fraction(1001, 30000)


@pytest.mark.parametrize(
    ("start_s", "end_s", "exit", "words", "hint"),
    [
        ("2", None, Exit.INPUT, "is 2 s long: nothing is left from 2 s on", "`--start` before 2 s"),
        ("70.25", "80", Exit.INPUT, "is 2 s long: nothing is left from 70.25 s on", "`--start` before 2 s"),
        ("1", "1", Exit.USAGE, "ends at 1 s, and starts at 1 s", "`--end` after `--start`"),
        ("1", "0.5", Exit.USAGE, "ends at 0.5 s, and starts at 1 s", "`--end` after `--start`"),
        (None, "0", Exit.USAGE, "ends at 0 s, and starts at 0 s", "`--end` after `--start`"),
        ("00:00:01:05", "1", Exit.USAGE, "ends at 1 s, and starts at 1.167 s", "`--end` after `--start`"),
        ("1.01", "1.02", Exit.INPUT, "begins from 1.01 s to 1.02 s", "30 frames a second"),
        ("1.99", None, Exit.INPUT, "begins from 1.99 s to 2 s", "2 s at 30 frames a second"),
    ],
)
def test_a_cut_without_frames_tells_how_long_the_clip_is(
    start_s: str | None, end_s: str | None, exit: Exit, words: str, hint: str, tmp_path: Path
) -> None:
    path = make_clip(tmp_path / "a.mp4")
    with pytest.raises(MtvcraftError, match=words) as caught:
        probe(path, start_s=start_s and read_time(start_s), end_s=end_s and read_time(end_s))
    assert caught.value.exit is exit
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["cut.mkv", "cut.avi"])
def test_a_recording_that_broke_off_is_read_as_far_as_it_goes_and_that_is_said(name: str, tmp_path: Path) -> None:
    options = ("-c:v", "mpeg4", "-q:v", "2") if name.endswith("avi") else (*H264, "-cluster_time_limit", "200")
    path = clips.make_cut(tmp_path / name, make_clip(tmp_path / f"whole-{name}", options))
    clip = open_clip(path)
    assert 10 < clip.info.frames < 55
    assert len(clip.info.assumed) == 1
    assert re.match(r"cut off(: \d+ of about| after \d+)", clip.info.assumed[0])
    numbers = [number_of(frame) for batch in clip.batches() for frame in batch]
    assert numbers == list(range(clip.info.frames))


def test_uneven_times_are_said(tmp_path: Path) -> None:
    info = probe(clips.make_variable(tmp_path / "a.mp4"))
    assert info.assumed == ("frames come at uneven times: put on an even 30 a second",)


def test_fields_of_different_moments_are_made_into_one(tmp_path: Path) -> None:
    moments = np.full((40, 96, 160, 3), 60, np.uint8)
    for moment, picture in enumerate(moments):
        picture[:, 4 * moment // 2 + 20 :][:, :40] = 200  # a wall that moves by 2 pixels a field
    woven = moments[0::2].copy()
    woven[:, 1::2] = moments[1::2, 1::2]
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "160x96", "-r", "25", "-i", "-")
    clips.ffmpeg(*raw, *CASES["interlaced"].options, "-crf", "5", tmp_path / "a.mp4", feed=woven.tobytes())
    clip = open_clip(tmp_path / "a.mp4")
    frames = np.concatenate(list(clip.batches())).astype(int)
    assert len(frames) == 20

    def comb(frames: np.ndarray) -> float:
        """How much neighbouring rows differ."""
        return float(np.abs(np.diff(frames.astype(int), axis=1)).mean())

    assert comb(woven) > 3
    assert comb(frames[1:-1]) < 0.5
    np.testing.assert_allclose(frames[1:-1].mean(axis=(1, 2, 3)), moments[0::2][1:-1].mean(axis=(1, 2, 3)), atol=4)
