"""Frames to an mp4 that plays everywhere: H.264 with the exact rate, true colours and the driver's sound in step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import disk_full, writing
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.video.ffmpeg import Running, input_of, run_ffmpeg, running_ffmpeg
from mtvcraft_cli.video.listing import Listing
from mtvcraft_cli.video.read import ClipInfo, probe_sound

COPIED = ("aac", "mp3")
"""Sound that every player finds in an mp4; other kinds are turned into AAC."""
FULL = ("No space left on device", "Disk quota exceeded", "There is not enough space on the disk")
# Untagged, players guess the colours by the size. The pixels are converted and tagged so that they needn't.
COLOURS = (
    "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,"
    "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """The sound that a new video gets, cut or padded to the pictures."""

    path: Path
    """A video or a sound file."""
    offset_s: Fraction = Fraction(0)
    """How much later than the first picture the file's sound starts; what comes before the picture is cut."""

    @staticmethod
    def of(clip: ClipInfo) -> "Sound | None":
        """Return a clip's own sound, in step with its pictures; None where it has none."""
        return Sound(path=clip.path, offset_s=clip.sound_offset_s) if clip.sound else None


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Writes frames to an mp4 as they come.

    The file takes its place when the block ends well; if it fails, Ctrl-C included, an older file stays as it was. The
    sound is looked at when the block begins, so that a bad one fails before the long work.

    Args:
        path: where the video goes.
        size_px: width, height of the frames; where one is odd, its last row or column is doubled, as H.264 wants even
            sides.
        rate: frames a second.
        crf: quality of H.264: 0 is lossless, 18 can't be told from it, 51 is worst.
        sound: what is heard, if anything.

    Raises:
        MtvcraftError: no such folder (exit 2); the sound can't be used (exit 4); the disk is full (exit 5).
    """

    def __init__(
        self, path: Path, size_px: tuple[int, int], rate: Fraction, *, crf: int = 18, sound: Sound | None = None
    ) -> None:
        if min(size_px) < 1 or rate <= 0:
            raise ValueError(f"a video has a size and a rate above 0, not {size_px} and {rate}")
        self.path = path
        self.size_px = size_px
        self.rate = rate
        self.crf = crf
        self.sound = sound
        self.frames = 0
        """How many have been written."""
        self._whole = self._writing()

    def __enter__(self) -> "VideoWriter":
        return self._whole.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._whole.__exit__(kind, error, trace)

    def write(self, frames: Frames) -> None:
        """Add frames, (T, H, W, 3) RGB, 0..255, of the size that was promised."""
        height, width = frames.shape[1:3]
        if (width, height) != self.size_px:
            raise ValueError(f"frames of {width} x {height} pixels don't fit into a video of {self.size_px}")
        even = np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        try:
            self._encoder.stdin.write(np.ascontiguousarray(even).data)
        except BrokenPipeError as error:  # ffmpeg is gone, and has said why
            self._encoder.wait()
            raise self._failed(list(self._encoder.said)) from error
        self.frames += len(frames)

    @contextmanager
    def _writing(self) -> Iterator["VideoWriter"]:
        heard = probe_sound(self.sound.path) if self.sound else None
        with writing(self.path) as draft:
            silent = draft.with_suffix(".silent.mp4")
            try:
                with self._encoding(silent if heard else draft) as self._encoder:
                    yield self
                    self._finish()
                if self.sound and heard:
                    self._add_sound(silent, self.sound, heard, draft)
            finally:
                silent.unlink(missing_ok=True)

    def _encoding(self, path: Path) -> AbstractContextManager[Running]:
        width, height = (side + side % 2 for side in self.size_px)
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(self.rate))
        coded = ("-vf", COLOURS, "-c:v", "libx264", "-crf", str(self.crf), "-movflags", "+faststart", "-f", "mp4")
        return running_ffmpeg("-v", "error", *raw, "-i", "pipe:0", *coded, "-y", f"file:{path}", feed=True)

    def _finish(self) -> None:
        """Let the encoder write its last frames and the index."""
        if not self.frames:
            raise ValueError(f"no frame was written to {self.path}")
        with suppress(BrokenPipeError):  # its exit code tells
            self._encoder.stdin.close()
        if self._encoder.wait() != 0:
            raise self._failed(list(self._encoder.said))

    def _add_sound(self, silent: Path, sound: Sound, heard: Listing, whole: Path) -> None:
        """Join the finished pictures with the sound, whose first moment goes to `sound.offset_s`."""
        assert heard.sound is not None
        duration_s = self.frames / self.rate
        # ffmpeg moves each file so that the earliest of its streams starts at 0.
        moved_s = sound.offset_s - (heard.sound.start_s - heard.start_s)
        if heard.sound.codec in COPIED and sound.offset_s >= 0:
            # A packet that starts in time may still end too late: none starts in the last packet's length.
            longest_s = max(packet.length for packet in heard.sound.packets) * heard.sound.time_base
            kept, heard_as = ["-t", _seconds(max(longest_s, duration_s - longest_s))], ["-c:a", "copy"]
        else:
            filled = f"aresample=async=1:first_pts=0,apad,atrim=end={_seconds(duration_s)}"
            kept, heard_as = [], ["-af", filled, "-c:a", "aac", "-b:a", "192k"]
        inputs = ["-i", f"file:{silent}", "-itsoffset", _seconds(moved_s), *kept, *input_of(sound.path)]
        joined = ["-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", *heard_as, "-movflags", "+faststart", "-f", "mp4"]
        ran = run_ffmpeg("-v", "error", *inputs, *joined, "-map_metadata", "-1", "-y", f"file:{whole}")
        if ran.code != 0:
            raise self._failed(ran.said.splitlines())

    def _failed(self, said: list[str]) -> MtvcraftError:
        """Turn ffmpeg's last words into an error for the user."""
        if any(words in line for line in said for words in FULL):
            return disk_full(self.path)
        return MtvcraftError(
            f"`{self.path}` could not be written: {said[-1] if said else 'ffmpeg was stopped'}",
            hint="check the disk, or name an output on another one",
            exit=Exit.FIT,
        )


def _seconds(time_s: Fraction) -> str:
    """Write a time as ffmpeg reads it, to the microsecond that it counts in."""
    return f"{float(time_s):.6f}"
