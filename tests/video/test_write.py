import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video import write
from mtvcraft_cli.video.ffmpeg import run_ffmpeg
from mtvcraft_cli.video.read import open_clip, probe
from mtvcraft_cli.video.write import Sound, VideoWriter
from tests import clips
from tests.clips import BARS, H264, SIZE_PX, bars_of, make_clip, names_in, number_of, source_frames


def said_of(path: Path) -> str:
    return run_ffmpeg("-i", str(path)).said


def duration_s(path: Path) -> float:
    found = re.search(r"Duration: 00:00:([\d.]+)", said_of(path))
    assert found
    return float(found[1])


def beep_s(path: Path) -> float:
    """When the sound of a file first gets loud, seconds after its first picture."""
    filters = ("-map", "0:a:0", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "48000", "-f", "f32le", "-")
    loud = np.flatnonzero(np.abs(np.frombuffer(run_ffmpeg("-v", "error", "-i", str(path), *filters).out, "f4")) > 0.2)
    return loud[0] / 48000


def flash_s(path: Path) -> float:
    clip = open_clip(path)
    brightness = [frame[: frame.shape[0] // 2].mean() for batch in clip.batches() for frame in batch]
    return float(np.argmax(brightness) / clip.info.rate)


@pytest.mark.parametrize("rate", ["30000/1001", "24000/1001", "43", "15", "25/2", "90000/3001", "1"])
def test_frames_written_are_read_back_at_the_exact_rate_and_colour(rate: str, tmp_path: Path) -> None:
    path, frames = tmp_path / "out.mp4", source_frames(21)
    with VideoWriter(path, SIZE_PX, Fraction(rate)) as writer:
        writer.write(frames[:8])
        writer.write(frames[8:])
    clip = open_clip(path)
    assert clip.info.rate == Fraction(rate)
    assert clip.info.reader == "decord"
    assert duration_s(path) == pytest.approx(21 / Fraction(rate), abs=0.011)
    seen = np.concatenate(list(clip.batches()))
    assert [number_of(frame) for frame in seen] == list(range(21))
    np.testing.assert_allclose(bars_of(seen[20]), BARS, atol=4)
    assert "yuv420p(tv, bt709, progressive)" in said_of(path)
    assert names_in(tmp_path) == ["out.mp4"]


def test_the_index_comes_first_so_that_a_browser_can_start_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(
        path, SIZE_PX, Fraction(30), sound=Sound(path=clips.make_sound_only(tmp_path / "a.m4a"))
    ) as writer:
        writer.write(source_frames(30))
    content = path.read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_an_odd_side_is_made_even_by_doubling_its_last_pixels(tmp_path: Path) -> None:
    path, frames = tmp_path / "out.mp4", source_frames(3, (161, 97))
    with VideoWriter(path, (161, 97), Fraction(30), crf=5) as writer:
        writer.write(frames)
    seen = open_clip(path).frame(2)
    assert seen.shape == (98, 162, 3)
    np.testing.assert_allclose(seen[-1].astype(int), seen[-2], atol=30)
    assert number_of(seen) == 2


def make_mp3_in_mp4(path: Path) -> Path:
    return make_clip(path.with_suffix(".mp4"), sound=("-c:a", "libmp3lame"))


def make_late_sound(path: Path) -> Path:
    late = ("-af", "atrim=start=0.3")  # the beep stays where it is, the silence before it goes
    return make_clip(path.with_suffix(".mp4"), sound=late)


def make_late_pictures(path: Path) -> Path:
    late = make_clip(path.with_name("both.mp4"), sound=())
    clips.ffmpeg("-i", late, "-itsoffset", "0.4", "-i", late, "-map", "1:v", "-map", "0:a", "-c", "copy", path)
    return path


def make_late_pictures_in_mkv(path: Path) -> Path:
    return make_late_pictures(path.with_suffix(".mkv"))


def sounding(name: str, *options: str, video: tuple[str, ...] = H264, rate: str = "30") -> Callable[[Path], Path]:
    return lambda path: make_clip(path.with_name(name), video, rate=rate, sound=options)


VP9 = ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-pix_fmt", "yuv420p")
# how the driver is made, the sound of the result, how much earlier than the flash its beep is
SOUNDS: dict[str, tuple[Callable[[Path], Path], str, float]] = {
    "aac is copied": (sounding("a.mp4"), "aac", 0),
    "aac at 60 a second": (sounding("a.mp4", rate="60"), "aac", 0),
    "mp3 is copied": (make_mp3_in_mp4, "mp3", 0),
    "matroska": (sounding("a.mkv", "-c:a", "aac"), "aac", 0),
    "opus becomes aac": (sounding("a.webm", video=VP9), "aac", 0),
    "pcm becomes aac": (sounding("a.mov", "-c:a", "pcm_s16le"), "aac", 0),
    "avi": (sounding("a.avi", video=("-c:v", "mpeg4", "-q:v", "2")), "mp3", 0),
    "transport stream": (sounding("a.ts"), "aac", 0),
    "sound starts late": (make_late_sound, "aac", 0),
    "pictures start late": (make_late_pictures, "aac", 0.4),
    "pictures start late in mkv": (make_late_pictures_in_mkv, "aac", 0.4),
    "edit list": (clips.make_edited, "aac", 0),
}


@pytest.mark.parametrize(("make", "codec", "early_s"), SOUNDS.values(), ids=SOUNDS.keys())
def test_the_drivers_sound_stays_in_step_and_ends_with_the_pictures(
    make: Callable[[Path], Path], codec: str, early_s: float, tmp_path: Path
) -> None:
    drive, path = make(tmp_path / "drive.mp4"), tmp_path / "out.mp4"
    clip = open_clip(drive)
    with VideoWriter(path, SIZE_PX, clip.info.rate, sound=Sound.of(clip.info)) as writer:
        for batch in clip.batches():
            writer.write(batch)
    out = probe(path)
    assert (out.rate, out.frames, out.sound) == (clip.info.rate, clip.info.frames, True)
    assert f"Audio: {codec}" in said_of(path)
    assert duration_s(path) == pytest.approx(float(clip.info.duration_s), abs=float(1 / clip.info.rate))
    assert flash_s(path) - beep_s(path) == pytest.approx(early_s, abs=0.03)


@pytest.mark.parametrize(("frames", "file"), [(15, "long.m4a"), (15, "long.wav"), (90, "short.mp3"), (90, "short.wav")])
def test_other_sound_is_cut_or_padded_to_the_pictures(frames: int, file: str, tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path, SIZE_PX, Fraction(30), sound=Sound(path=clips.make_sound_only(tmp_path / file))) as writer:
        writer.write(source_frames(frames))
    assert duration_s(path) == pytest.approx(frames / 30, abs=1 / 30)
    assert probe(path).sound


def test_a_driver_without_sound_gives_none(tmp_path: Path) -> None:
    assert Sound.of(probe(make_clip(tmp_path / "silent.mp4", frames=2))) is None


def test_sound_that_is_none_fails_before_the_long_work(tmp_path: Path) -> None:
    sound = Sound(path=make_clip(tmp_path / "silent.mp4", frames=2))
    with (
        pytest.raises(MtvcraftError, match="has no sound"),
        VideoWriter(tmp_path / "out.mp4", SIZE_PX, Fraction(30), sound=sound),
    ):
        pytest.fail("too late")
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MtvcraftError("no", hint="way")])
@pytest.mark.parametrize("with_sound", [False, True])
def test_a_failure_leaves_the_old_file_and_nothing_else(error: BaseException, with_sound: bool, tmp_path: Path) -> None:
    path, file = tmp_path / "out.mp4", clips.make_sound_only(tmp_path / "a.m4a")
    path.write_bytes(b"old")

    def fail() -> None:
        with VideoWriter(path, SIZE_PX, Fraction(30), sound=Sound(path=file) if with_sound else None) as writer:
            writer.write(source_frames(40))
            assert len(names_in(tmp_path)) == 3
            raise error

    with pytest.raises(error if isinstance(error, type) else type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.m4a", "out.mp4"]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert not [thread for thread in threading.enumerate() if thread.name == "ffmpeg-errors"]


def test_a_whole_file_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"old")
    with VideoWriter(path, SIZE_PX, Fraction(30)) as writer:
        writer.write(source_frames(2))
        assert path.read_bytes() == b"old"
    assert probe(path).frames == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
@pytest.mark.parametrize("frames", [1, 300])
def test_a_full_disk_is_said_and_nothing_is_left(frames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def writing_to_a_full_disk(path: Path) -> Iterator[Path]:
        draft = path.with_name("draft.mp4")
        draft.symlink_to("/dev/full")
        yield draft

    monkeypatch.setattr(write, "writing", writing_to_a_full_disk)
    noise = np.random.default_rng(0).integers(0, 256, (frames, 96, 160, 3), np.uint8)
    with pytest.raises(MtvcraftError, match="no space left for") as caught:
        with VideoWriter(tmp_path / "out.mp4", SIZE_PX, Fraction(30), crf=0) as writer:
            writer.write(noise)
    assert caught.value.exit is Exit.FIT
    assert "free some space" in caught.value.hint
    assert not (tmp_path / "out.mp4").exists()


def test_an_encoder_that_dies_is_an_error_for_the_user(tmp_path: Path) -> None:
    def write_to_the_dead() -> None:
        with VideoWriter(tmp_path / "out.mp4", SIZE_PX, Fraction(30)) as writer:
            writer._encoder.process.kill()
            writer._encoder.process.wait()
            writer.write(source_frames(90))

    with pytest.raises(MtvcraftError, match="could not be written: ffmpeg was stopped") as caught:
        write_to_the_dead()
    assert caught.value.exit is Exit.FIT
    assert names_in(tmp_path) == []


def test_wrong_frames_are_a_programmers_mistake(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="frames of 80 x 48 pixels"),
        VideoWriter(tmp_path / "out.mp4", SIZE_PX, Fraction(30)) as writer,
    ):
        writer.write(source_frames(2, (80, 48)))
    with (
        pytest.raises(ValueError, match="no frame was written"),
        VideoWriter(tmp_path / "out.mp4", SIZE_PX, Fraction(30)),
    ):
        pass
    with pytest.raises(ValueError, match="above 0"):
        VideoWriter(tmp_path / "out.mp4", SIZE_PX, Fraction(0))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("name", "late"), [("a.mp4", ()), ("late.mp4", ("-af", "atrim=start=0.5"))])
@pytest.mark.parametrize("start_s", ["0.3", "0.55", "1/2"])
def test_sound_stays_in_step_with_a_cut(name: str, late: tuple[str, ...], start_s: str, tmp_path: Path) -> None:
    path, cut = make_clip(tmp_path / name, sound=late), tmp_path / "cut.mp4"
    clip = open_clip(path, start_s=Fraction(start_s), end_s=Fraction(3, 2))
    with VideoWriter(cut, SIZE_PX, clip.info.rate, sound=Sound.of(clip.info)) as writer:
        for batch in clip.batches():
            writer.write(batch)
    assert flash_s(cut) == pytest.approx(0.6 - float(clip.info.start_s), abs=1e-6)
    assert beep_s(cut) == pytest.approx(0.6 - float(clip.info.start_s), abs=0.025)
    assert duration_s(cut) == pytest.approx(float(clip.info.duration_s), abs=0.03)


def test_a_cut_far_into_a_clip_has_the_sound_of_that_place(tmp_path: Path) -> None:
    once, long, cut = make_clip(tmp_path / "once.mkv", sound=("-c:a", "flac")), tmp_path / "a.mkv", tmp_path / "cut.mp4"
    clips.ffmpeg("-stream_loop", "59", "-i", once, "-c", "copy", long)
    clip = open_clip(long, start_s=Fraction(100), end_s=Fraction(102))
    with VideoWriter(cut, SIZE_PX, clip.info.rate, sound=Sound.of(clip.info)) as writer:
        for batch in clip.batches():
            writer.write(batch)
    assert beep_s(cut) == pytest.approx(flash_s(cut), abs=0.025)
    assert flash_s(cut) == pytest.approx(0.6, abs=0.035)


def test_a_cut_after_the_end_of_the_sound_is_silent_and_whole(tmp_path: Path) -> None:
    path, cut = make_clip(tmp_path / "a.mp4", sound=("-t", "2", "-af", "atrim=end=0.8")), tmp_path / "cut.mp4"
    clip = open_clip(path, start_s=Fraction(1))
    with VideoWriter(cut, SIZE_PX, clip.info.rate, sound=Sound.of(clip.info)) as writer:
        for batch in clip.batches():
            writer.write(batch)
    assert duration_s(cut) == pytest.approx(1, abs=0.03)
    assert open_clip(cut).info.frames == 30
