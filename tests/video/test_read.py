import os
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video import read
from mtvcraft_cli.video.read import Clip, open_clip, probe, probe_sound, read_ahead
from tests import clips
from tests.clips import H264, make_clip

NTSC = Fraction(30000, 1001)
VP9 = ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-cpu-used", "8", "-pix_fmt", "yuv420p")
HEVC = ("-c:v", "libx265", "-crf", "10", "-preset", "ultrafast", "-x265-params", "log-level=error")
AV1 = ("-c:v", "libsvtav1", "-preset", "10", "-crf", "20", "-svtav1-params", "color-range=0", "-pix_fmt", "yuv420p")
FULL_RANGE_709 = (
    *("-vf", "scale=out_color_matrix=bt709:out_range=pc,format=yuvj420p", "-color_range", "pc"),
    *("-colorspace", "bt709", "-c:v", "libx264", "-crf", "5"),
)
STUDIO_709 = ("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-colorspace", "bt709", *H264)
STUDIO_601 = ("-vf", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p", "-colorspace", "smpte170m", *H264)


@dataclass(frozen=True)
class Case:
    file: str
    options: tuple[str, ...] = H264
    rate: str = "30"
    frames: int = 60
    size_px: tuple[int, int] = clips.SIZE_PX
    sound: tuple[str, ...] | None = None
    reader: str = "decord"
    colours: float = 12
    """How far a bar's colour may be off; GIF has few colours."""


CASES = {
    "plain": Case("plain.mp4", rate="30000/1001", sound=()),
    "43 a second": Case("43.mp4", rate="43"),
    "23.976": Case("film.mov", rate="24000/1001"),
    "12.5": Case("slow.mp4", rate="25/2", frames=20),
    "an odd rate": Case("odd-rate.mp4", rate="1234/37", frames=40),
    "one frame": Case("one.mp4", frames=1),
    "two frames and a clock of milliseconds": Case("two.mkv", rate="30000/1001", frames=2),
    "matroska": Case("plain.mkv", rate="30000/1001", sound=()),
    "webm": Case("vp9.webm", VP9, rate="30000/1001", sound=()),
    "59.94 in webm": Case("fast.webm", VP9, rate="60000/1001"),
    "vp8": Case("vp8.webm", ("-c:v", "libvpx", "-crf", "4", "-b:v", "2M"), rate="24000/1001", reader="ffmpeg"),
    "avi": Case("b-frames.avi", ("-c:v", "mpeg4", "-bf", "2", "-q:v", "2"), sound=(), reader="ffmpeg"),
    "h264 in avi": Case("h264.avi", rate="30000/1001", reader="ffmpeg"),
    "transport stream": Case("plain.ts", rate="24000/1001", reader="ffmpeg"),
    "av1": Case("av1.mp4", AV1, rate="25", reader="ffmpeg"),
    "hevc": Case("hevc.mp4", (*HEVC, "-pix_fmt", "yuv420p")),
    "hevc of 10 bits": Case("ten.mov", (*HEVC, "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1"), reader="ffmpeg"),
    "gif": Case("small.gif", ("-f", "gif"), rate="10", frames=20, reader="ffmpeg", colours=40),
    "gif of 100/3": Case("fast.gif", ("-f", "gif"), rate="100/3", frames=20, reader="ffmpeg", colours=40),
    "moving png": Case("moving.png", ("-f", "apng"), rate="10", frames=12, reader="ffmpeg"),
    "odd size": Case("odd.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv444p"), size_px=(161, 97), reader="ffmpeg"),
    "full range": Case("full.mp4", FULL_RANGE_709),
    "bt709": Case("hd.mp4", STUDIO_709),
    "bt601": Case("sd.mp4", STUDIO_601),
    "wrong ending": Case("film.txt", (*H264, "-f", "mp4")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_clip_gives_each_frame_once_in_order_and_colour_at_the_exact_rate(case: Case, tmp_path: Path) -> None:
    path = make_clip(
        tmp_path / case.file,
        case.options,
        frames=case.frames,
        rate=case.rate,
        size_px=case.size_px,
        sound=case.sound,
    )
    clip = open_clip(path)
    assert clip.info.rate == Fraction(case.rate)
    assert clip.info.frames == case.frames
    assert clip.info.duration_s == case.frames / Fraction(case.rate)
    assert clip.info.size_px == case.size_px
    assert clip.info.sound == (case.sound is not None)
    assert abs(clip.info.sound_offset_s) < Fraction(1, 40)
    assert not clip.info.variable
    assert clip.info.reader == case.reader
    frames = np.concatenate(list(clip.batches(7)))
    assert frames.shape == (case.frames, case.size_px[1], case.size_px[0], 3)
    assert [clips.number_of(frame) for frame in frames] == list(range(case.frames))
    np.testing.assert_allclose(clips.bars_of(frames[0]), clips.BARS, atol=case.colours)
    np.testing.assert_array_equal(clip.frame(case.frames * 2 // 3), frames[case.frames * 2 // 3])


@pytest.mark.parametrize("name", ["plain", "webm", "hevc", "full range", "bt709", "bt601"])
def test_decord_and_ffmpeg_see_the_same_colours(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    clip = open_clip(make_clip(tmp_path / case.file, case.options, frames=10))
    assert clip.info.reader == "decord"
    by_ffmpeg = Clip(clip.info, np.arange(10))
    for one, other in zip(clip.batches(), by_ffmpeg.batches(), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 2


@pytest.mark.parametrize(("degrees", "quarters"), [(90, 1), (180, 2), (-90, 3)])
def test_a_turned_clip_comes_out_as_it_is_shown(degrees: int, quarters: int, tmp_path: Path) -> None:
    clip = open_clip(clips.make_turned(tmp_path / "turned.mp4", degrees))
    assert clip.info.size_px == (clips.SIZE_PX if quarters == 2 else clips.SIZE_PX[::-1])
    frames = np.concatenate(list(clip.batches()))
    upright = np.rot90(frames, -quarters, axes=(1, 2))
    assert [clips.number_of(frame) for frame in upright] == list(range(60))


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    clip = open_clip(make_clip(tmp_path / "wide.mp4", (*H264, "-vf", "setsar=4/3"), frames=5))
    assert clip.info.size_px == (213, 96)
    assert [clips.number_of(frame) for frame in next(clip.batches())] == list(range(5))


def test_a_varying_rate_is_put_on_a_constant_grid_of_the_same_duration(tmp_path: Path) -> None:
    clip = open_clip(clips.make_variable(tmp_path / "variable.mp4"))
    assert clip.info.variable
    assert clip.info.rate == 30
    assert clip.info.duration_s == 2
    numbers = [clips.number_of(frame) for batch in clip.batches(7) for frame in batch]
    assert numbers == [number - (number % 4 == 2) for number in range(60)]
    assert clips.number_of(clip.frame(42)) == 41


def test_frames_hidden_by_an_edit_list_stay_hidden_and_the_sound_in_step(tmp_path: Path) -> None:
    clip = open_clip(clips.make_edited(tmp_path / "edited.mp4"))
    numbers = [clips.number_of(frame) for batch in clip.batches() for frame in batch]
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
    "folder": ("folder.mp4", Path.mkdir, Exit.INPUT, "is a folder"),
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
    for look in (probe, open_clip):
        with pytest.raises(MtvcraftError, match=words) as caught:
            look(path)
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
    info = probe(clips.make_plain(tmp_path / "plain.mp4"))
    longer = Clip(replace(info, frames=80), np.arange(80))
    with pytest.raises(MtvcraftError, match="60 of 80 frames could be read"):
        list(longer.batches())


def test_what_decord_refuses_is_read_by_ffmpeg_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(read, "DECORD_CODECS", ("av1",))
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
    assert [clips.number_of(frame) for batch in seen for frame in batch] == list(range(60))


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
    monkeypatch.setattr(read, "DECORD_BYTES", 60 * 160 * 96 * 3)
    assert probe(path).reader == "decord"
    monkeypatch.setattr(read, "DECORD_BYTES", 60 * 160 * 96 * 3 - 1)
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
