"""Makes clips of every odd kind with the bundled ffmpeg, from frames that know their own number."""

import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from mtvcraft_cli.shapes import Frames, Picture
from mtvcraft_cli.video.ffmpeg import ffmpeg_path

BARS = ((235, 235, 235), (200, 200, 20), (20, 200, 200), (20, 200, 20), (200, 20, 200), (200, 20, 20), (20, 20, 200))
BITS = 8
SIZE_PX = (160, 96)
FLASH_S = 0.6
"""When `source_frames` flash, and when the sound of `make_clip` beeps."""


def source_frames(count: int, size_px: tuple[int, int] = SIZE_PX, flash: int | None = None) -> Frames:
    """Return (count, H, W, 3): colour bars above, the frame's number below as eight black or white squares.

    The bars are white in frame `flash`.
    """
    width, height = size_px
    frames = np.zeros((count, height, width, 3), np.uint8)
    columns = np.arange(width)
    frames[:, : height // 2] = np.array(BARS, np.uint8)[columns * len(BARS) // width]
    if flash is not None:
        frames[flash, : height // 2] = 255
    bits = np.arange(count)[:, None] >> (columns * BITS // width) & 1  # (count, W)
    frames[:, height // 2 :] = bits[:, None, :, None] * 255
    return frames


def number_of(frame: Picture) -> int:
    """Read the number of a frame of `source_frames`, at any size."""
    height, width = frame.shape[:2]
    middles = frame[height * 3 // 4, [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]].mean(axis=-1)
    return sum(1 << bit for bit, value in enumerate(middles) if value > 127)


def bars_of(frame: Picture) -> np.ndarray:
    """Return (7, 3): the colour in the middle of each bar."""
    height, width = frame.shape[:2]
    middles = [(2 * bar + 1) * width // (2 * len(BARS)) for bar in range(len(BARS))]
    return np.array([np.median(frame[height // 8 : height * 3 // 8, at - 2 : at + 3], axis=(0, 1)) for at in middles])


def ffmpeg(*arguments: str | Path, feed: bytes = b"") -> None:
    command = [ffmpeg_path(), "-hide_banner", "-v", "error", "-y", *(str(argument) for argument in arguments)]
    done = subprocess.run(command, input=feed, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def make_clip(
    path: Path,
    options: Sequence[str] = (),
    *,
    frames: int = 60,
    rate: str = "30",
    size_px: tuple[int, int] = SIZE_PX,
    sound: Sequence[str] | None = None,
    flash: bool = True,
) -> Path:
    """Make a clip of numbered frames.

    Args:
        path: where it goes; the ending chooses the container.
        options: of the output, such as a codec.
        frames: how many.
        rate: frames a second.
        size_px: width, height.
        sound: options of the sound (may be empty): silence, but for a beep of a tenth of a second.
        flash: False to leave the picture as it is where the sound beeps.
    """
    width, height = size_px
    pictures = source_frames(frames, size_px, round(FLASH_S * Fraction(rate)) if sound is not None and flash else None)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "-"]
    beep = []
    if sound is not None:
        duration_s = float(frames / Fraction(rate))
        wave = f"aevalsrc='if(between(t,{FLASH_S},{FLASH_S + 0.1}),0.8*sin(2*PI*880*t),0)':d={duration_s}"
        beep = ["-f", "lavfi", "-i", wave]
    chosen = [*(options or H264), *(sound or ())]
    ffmpeg(*raw, *beep, *chosen, path, feed=pictures.tobytes())
    return path


H264 = ("-c:v", "libx264", "-crf", "10", "-pix_fmt", "yuv420p")


def make_plain(path: Path) -> Path:
    """H.264 and AAC, 60 frames at 30000/1001; the index comes first."""
    return make_clip(path, (*H264, "-movflags", "+faststart"), rate="30000/1001", sound=())


def make_turned(path: Path, degrees: int = 90) -> Path:
    """Make a clip with a rotation tag, as phones do."""
    upright = make_plain(path.with_name("upright.mp4"))
    ffmpeg("-display_rotation", str(degrees), "-i", upright, "-c", "copy", path)
    return path


def make_variable(path: Path) -> Path:
    """Leave out each fourth frame of 60 at 30 a second, as a camera in the dark does."""
    return make_clip(path, (*H264, "-vf", "select='mod(n,4)-2'", "-fps_mode", "vfr"))


def make_edited(path: Path) -> Path:
    """Cut the first 0.4 seconds off without coding again: an edit list hides frames that are still there."""
    whole = make_clip(path.with_name("whole.mp4"), (*H264, "-g", "30"), sound=())
    ffmpeg("-ss", "0.4", "-i", whole, "-c", "copy", path)
    return path


def make_sound_only(path: Path) -> Path:
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", path)
    return path


def make_cut(path: Path, whole: Path, share: float = 0.6) -> Path:
    """Keep the first part of a file's bytes only, as a download that broke off does."""
    content = whole.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def make_without_index(path: Path) -> Path:
    """Cut an mp4 whose index comes last."""
    return make_cut(path, make_clip(path.with_name("index-last.mp4")))


def make_empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def make_text(path: Path) -> Path:
    path.write_text("This is not a video.\n")
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
