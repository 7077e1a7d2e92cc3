"""Each kind of video beside the frames that it was made from: count, size, rate, order and colours."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.video.hdr import to_sdr
from mtvcraft_cli.video.read import open_clip
from tests import clips
from tests.clips import H264, SIZE_PX, make_clip, source_frames

BACKGROUND = (10, 200, 30)
VP9 = ("-c:v", "libvpx-vp9", "-crf", "10", "-b:v", "0", "-cpu-used", "8", "-pix_fmt", "yuv420p")
HEVC = ("-c:v", "libx265", "-crf", "10", "-preset", "ultrafast", "-x265-params", "log-level=error")
AV1 = ("-c:v", "libsvtav1", "-preset", "8", "-crf", "8", "-svtav1-params", "color-range=0", "-pix_fmt", "yuv420p")
FULL_709 = ("-vf", "scale=out_color_matrix=bt709:out_range=pc,format=yuvj420p", "-colorspace", "bt709")
TV_709 = ("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p", "-colorspace", "bt709")
TV_601 = ("-vf", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p", "-colorspace", "smpte170m")
UNTAGGED_709 = ("-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,setparams=colorspace=unknown:range=tv")
UNTAGGED_601 = ("-vf", "scale=out_color_matrix=bt601:out_range=tv,format=yuv420p,setparams=colorspace=unknown:range=tv")
GIF = ("-vf", "split[a][b];[a]palettegen[c];[b][c]paletteuse", "-f", "gif")
HALF = "geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='if(lt(X,80),255,0)'"
SHOWN_ON = "transparent: shown on the background"


def wide(transfer: str) -> tuple[str, ...]:
    """HEVC of 10 bits whose colours are BT.2020 in a transfer of that name."""
    colours = "scale=out_color_matrix=bt2020:out_range=tv,format=yuv420p10le"
    tags = f"setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}"
    return "-vf", f"{colours},{tags}", "-tag:v", "hvc1", *HEVC


def as_sdr(transfer: str) -> Callable[[Frames], Frames]:
    return lambda frames: np.rint(to_sdr(frames / 255, transfer) * 255).astype(np.uint8)


def half_on_background(frames: Frames) -> Frames:
    seen = frames.copy()
    seen[:, :, 80:] = BACKGROUND
    return seen


def saved(**options: object) -> Callable[[Path, Frames], None]:
    """With Pillow; the right half is transparent."""

    def save(path: Path, frames: Frames) -> None:
        alpha = np.full((*frames.shape[:3], 1), 255, np.uint8)
        alpha[:, :, 80:] = 0
        pictures = [Image.fromarray(frame) for frame in np.concatenate([frames, alpha], axis=-1)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)

    return save


def save_folder(path: Path, frames: Frames) -> None:
    """Numbers without leading zeros: by the alphabet, 10 would come before 2."""
    folder = path if path.suffix == "" else path.parent
    folder.mkdir(exist_ok=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"frame {number + 1}.png")


def piped(path: Path, frames: Frames) -> None:
    """To a pipe, where nothing can be filled in later: no duration, no index."""
    clips.ffmpeg("-i", make_clip(path.with_suffix(".mp4"), frames=len(frames)), "-c", "copy", "-live", "1", path)
    assert b"\x1c\x53\xbb\x6b" not in path.read_bytes()  # Matroska's index


def without_index(path: Path, frames: Frames) -> None:
    content = make_clip(path, ("-c:v", "mpeg4", "-q:v", "2"), frames=len(frames)).read_bytes()
    path.write_bytes(content[: content.rindex(b"idx1")])


@dataclass(frozen=True)
class Case:
    file: str
    options: tuple[str, ...] = H264
    rate: str = "30"
    frames: int = 30
    size_px: tuple[int, int] = SIZE_PX
    sound: tuple[str, ...] | None = None
    reader: str = "decord"
    error: float = 2
    """By how much a frame may differ from its source: mean over pixels and colours, in steps of 0..255."""
    assumed: tuple[str, ...] = ()
    wanted: Callable[[Frames], Frames] = lambda frames: frames
    """What the source frames become."""
    save: Callable[[Path, Frames], None] | None = None
    """How it's made, where not by ffmpeg."""


CASES = {
    "plain": Case("plain.mp4", rate="30000/1001", frames=60, sound=()),
    "43 a second": Case("43.mp4", rate="43"),
    "23.976": Case("film.mov", rate="24000/1001"),
    "12.5": Case("slow.mp4", rate="25/2"),
    "an odd rate": Case("odd-rate.mp4", rate="1234/37"),
    "one frame": Case("one.mp4", frames=1),
    "two frames and a clock of milliseconds": Case("two.mkv", rate="30000/1001", frames=2),
    "wrong ending": Case("film.txt", (*H264, "-f", "mp4")),
    "matroska": Case("plain.mkv", rate="30000/1001", sound=()),
    "matroska without duration": Case("live.mkv", reader="ffmpeg", save=piped),
    "webm": Case("vp9.webm", VP9, rate="30000/1001", sound=(), error=3),
    "59.94 in webm": Case("fast.webm", VP9, rate="60000/1001", error=3),
    "vp8": Case("vp8.webm", ("-c:v", "libvpx", "-crf", "4", "-b:v", "2M"), rate="24000/1001", reader="ffmpeg", error=4),
    "vp9 with alpha": Case(
        "alpha.webm",
        ("-vf", f"format=rgba,{HALF}", *VP9[:-1], "yuva420p"),
        reader="ffmpeg",
        error=3,
        assumed=(SHOWN_ON,),
        wanted=half_on_background,
    ),
    "avi": Case("b-frames.avi", ("-c:v", "mpeg4", "-bf", "2", "-q:v", "2"), sound=(), reader="ffmpeg", error=3),
    "avi without index": Case("broken.avi", reader="ffmpeg", error=3, save=without_index),
    "h264 in avi": Case("h264.avi", rate="30000/1001", reader="ffmpeg"),
    "transport stream": Case("plain.ts", rate="24000/1001", reader="ffmpeg"),
    "mpeg-2": Case("dvd.mpg", ("-c:v", "mpeg2video", "-q:v", "2"), rate="25", reader="ffmpeg", error=3),
    "wmv": Case("old.wmv", ("-c:v", "wmv2", "-q:v", "2"), rate="25", reader="ffmpeg", error=3),
    "h264 of 4:2:2 and 10 bits": Case("camera.mov", (*H264[:-1], "yuv422p10le"), reader="ffmpeg"),
    "hevc": Case("hevc.mp4", (*HEVC, "-pix_fmt", "yuv420p")),
    "hevc of 10 bits": Case("ten.mov", (*HEVC, "-pix_fmt", "yuv420p10le", "-tag:v", "hvc1"), reader="ffmpeg", error=3),
    "hdr (pq)": Case(
        "pq.mp4",
        wide("smpte2084"),
        reader="ffmpeg",
        error=3,
        assumed=("HDR (PQ) tone-mapped to SDR",),
        wanted=as_sdr("smpte2084"),
    ),
    "hdr (hlg)": Case(
        "hlg.mov",
        wide("arib-std-b67"),
        reader="ffmpeg",
        error=3,
        assumed=("HDR (HLG) tone-mapped to SDR",),
        wanted=as_sdr("arib-std-b67"),
    ),
    "wide colours without hdr": Case(
        "wide.mp4", wide("bt2020-10"), reader="ffmpeg", error=3, wanted=as_sdr("bt2020-10")
    ),
    "av1": Case("av1.mp4", AV1, rate="25", reader="ffmpeg", error=4),
    "prores": Case("edit.mov", ("-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"), rate="25", reader="ffmpeg"),
    "prores with alpha": Case(
        "cutout.mov",
        ("-vf", f"format=rgba,{HALF}", "-c:v", "prores_ks", "-profile:v", "4444", "-pix_fmt", "yuva444p10le"),
        reader="ffmpeg",
        assumed=(SHOWN_ON,),
        wanted=half_on_background,
    ),
    "interlaced": Case(
        "tv.mp4",
        ("-vf", "setfield=tff", "-flags", "+ilme+ildct", "-x264opts", "tff=1", *H264),
        rate="25",
        reader="ffmpeg",
        error=3,
        assumed=("interlaced: made into 25 whole frames a second",),
    ),
    "gif": Case("small.gif", GIF, rate="10", frames=20, reader="ffmpeg", error=1),
    "gif of 100/3": Case("fast.gif", GIF, rate="100/3", frames=20, reader="ffmpeg", error=1),
    "transparent gif": Case(
        "cutout.gif",
        reader="ffmpeg",
        rate="10",
        error=1,
        wanted=half_on_background,
        save=saved(duration=100, disposal=2, loop=0),
    ),
    "moving png": Case("moving.png", ("-f", "apng"), rate="10", frames=12, reader="ffmpeg", error=0),
    "transparent moving png": Case(
        "moving.png", rate="10", reader="ffmpeg", error=0, wanted=half_on_background, save=saved(duration=100)
    ),
    "moving webp": Case(
        "moving.webp",
        rate="25",
        reader="pillow",
        error=0,
        wanted=half_on_background,
        save=saved(duration=40, lossless=True),
    ),
    "moving avif": Case(
        "moving.avif",
        rate="25",
        reader="pillow",
        error=3,
        wanted=half_on_background,
        save=saved(duration=40, quality=90),
    ),
    "folder": Case(
        "frames",
        rate="25",
        reader="pillow",
        error=0,
        assumed=("frames of a folder: took 25 frames a second",),
        save=save_folder,
    ),
    "pattern": Case(
        "frame *.png",
        rate="25",
        reader="pillow",
        error=0,
        assumed=("frames of a folder: took 25 frames a second",),
        save=save_folder,
    ),
    "odd size": Case("odd.mp4", ("-c:v", "libx264", "-pix_fmt", "yuv444p"), size_px=(161, 97), reader="ffmpeg"),
    "full range": Case("full.mp4", (*FULL_709, "-color_range", "pc", "-c:v", "libx264", "-crf", "5")),
    "bt709": Case("hd.mp4", (*TV_709, *H264)),
    "bt601": Case("sd.mp4", (*TV_601, *H264)),
    "no word on colours, small": Case("sd.mp4", (*UNTAGGED_601, *H264)),
    "no word on colours, hd": Case("hd.mp4", (*UNTAGGED_709, *H264), frames=5, size_px=(1280, 80), reader="ffmpeg"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_clip_gives_each_frame_once_in_order_and_colour_at_the_exact_rate(case: Case, tmp_path: Path) -> None:
    source = source_frames(case.frames, case.size_px)
    path = tmp_path / case.file
    if case.save:
        case.save(path, source)
    else:
        make_clip(
            path, case.options, frames=case.frames, rate=case.rate, size_px=case.size_px, sound=case.sound, flash=False
        )
    clip = open_clip(path, background=BACKGROUND)
    assert clip.info.rate == Fraction(case.rate)
    assert clip.info.frames == case.frames
    assert clip.info.duration_s == case.frames / Fraction(case.rate)
    assert clip.info.size_px == case.size_px
    assert clip.info.sound == (case.sound is not None)
    assert abs(clip.info.sound_offset_s) < Fraction(1, 40)
    assert not clip.info.variable
    assert clip.info.reader == case.reader
    assert clip.info.assumed == case.assumed
    frames = np.concatenate(list(clip.batches(7)))
    assert frames.shape == source.shape
    errors = np.abs(frames.astype(int) - case.wanted(source)).mean(axis=(1, 2, 3))
    assert errors.max() <= case.error, errors.round(2).tolist()
    np.testing.assert_array_equal(clip.frame(case.frames * 2 // 3), frames[case.frames * 2 // 3])


def test_one_frame_taken_for_another_is_an_error_above_all_that_coding_may_do() -> None:
    """The table above would notice."""
    source = source_frames(30).astype(int)
    swapped = np.abs(source[1:] - source[:-1]).mean(axis=(1, 2, 3))
    assert swapped.min() > 15
    assert max(case.error for case in CASES.values()) < 5
