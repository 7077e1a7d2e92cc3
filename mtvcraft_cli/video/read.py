"""Clips: what a file holds, and its frames in the order and the way they are seen."""

import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from math import isnan
from pathlib import Path
from queue import Empty, Queue
from shlex import quote
from threading import Event, Lock, Thread
from typing import Any, Literal, TypeVar

import numpy as np

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.quiet import silence
from mtvcraft_cli.shapes import Frames, Picture
from mtvcraft_cli.video.ffmpeg import input_of, running_ffmpeg
from mtvcraft_cli.video.kind import Kind, kind_of
from mtvcraft_cli.video.listing import DISCARDED, Listing, Shown, Stream, list_packets, shown_frames
from mtvcraft_cli.video.rate import Ticks, constant_grid, constant_rate, printed_rates

T = TypeVar("T")
BATCH_BYTES = 64 * 2**20
IN_STEP_S = Fraction(1, 1000)
"""Sound that starts this close to the first picture starts with it; clocks of milliseconds are no better."""
# Where decord's frames equal ffmpeg's to the bit. It converts 10 bits more coarsely and fails on AV1, GIF and some TS.
DECORD_CONTAINERS = ("mov", "matroska")
DECORD_CODECS = ("h264", "hevc", "mpeg4", "vp8", "vp9")
DECORD_FORMATS = ("yuv420p", "yuvj420p")
DECORD_BYTES = 512 * 2**20
"""decord decodes ahead of whoever reads, without limit: it only gets clips that may lie in memory whole."""


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What a clip is like when it's shown."""

    path: Path
    width_px: int
    height_px: int
    """After rotation tags, and with square pixels."""
    rate: Fraction
    """Frames a second, exact."""
    frames: int
    """How many come out."""
    sound: bool
    sound_offset_s: Fraction
    """How much later than the first picture the sound starts; negative where it starts before."""
    codec: str
    pixel_format: str
    turned_deg: float
    """The rotation tag; 0 without one."""
    variable: bool
    """Whether the frame rate varies in the file; then frames are repeated or left out to make it constant."""
    reader: Literal["decord", "ffmpeg"]

    @property
    def size_px(self) -> tuple[int, int]:
        """Width, height."""
        return self.width_px, self.height_px

    @property
    def duration_s(self) -> Fraction:
        """From the first frame to the end of the last."""
        return self.frames / self.rate


def probe(path: Path) -> ClipInfo:
    """Look at a clip, as a rule without decoding it.

    Raises:
        MtvcraftError: missing (exit 2); no video, cut off, or damaged (exit 4).
    """
    return _look(path)[0]


def probe_sound(path: Path) -> Listing:
    """Look at a file whose sound is wanted.

    Raises:
        MtvcraftError: missing (exit 2); it has no sound, or is damaged (exit 4).
    """
    kind = kind_of(path)
    listing = list_packets(path)
    if listing.sound is None or not listing.sound.packets:
        what = "" if kind is Kind.VIDEO else f": it is {kind.value}"
        raise MtvcraftError(f"`{path}` has no sound{what}", hint="name a file with sound, or none at all")
    return listing


def open_clip(path: Path) -> "Clip":
    """Open a clip for reading.

    Raises:
        MtvcraftError: missing (exit 2); no video, cut off, or damaged (exit 4).
    """
    info, order = _look(path)
    reader = _decord_reader(info) if info.reader == "decord" else None
    return Clip(info if reader else replace(info, reader="ffmpeg"), order, reader)


class Clip:
    """A video's frames: in order, batch after batch, or one by its number.

    Args:
        info: what the clip is like.
        order: (info.frames,) which frame of the file each frame of the clip shows.
        reader: decord's, where it can read the file.
    """

    def __init__(self, info: ClipInfo, order: Ticks, reader: Any = None) -> None:
        self.info = info
        self._order = order
        self._reader = reader
        self._lock = Lock()

    def batches(self, size: int = 32) -> Iterator[Frames]:
        """Read all frames, a few at a time.

        Args:
            size: frames of a batch at most; fewer where they would take more than 64 MB.

        Yields:
            (n, H, W, 3) RGB, 0..255; its own memory each time.

        Raises:
            MtvcraftError: the file can be read no further (exit 4).
        """
        frame_bytes = self.info.width_px * self.info.height_px * 3
        size = max(1, min(size, BATCH_BYTES // frame_bytes))
        for first in range(0, self.info.frames, size):
            batch = self._by_decord(range(first, min(first + size, self.info.frames)))
            if batch is None:
                yield from self._by_ffmpeg(size, first)
                return
            yield batch

    def frame(self, index: int) -> Picture:
        """Read one frame, (H, W, 3) RGB, 0..255; far into a file that decord can't read, this is slow.

        Raises:
            IndexError: the clip has no such frame.
            MtvcraftError: it can't be read (exit 4).
        """
        if not 0 <= index < self.info.frames:
            raise IndexError(f"frame {index} of {self.info.frames}")
        batch = self._by_decord(range(index, index + 1))
        return (next(self._by_ffmpeg(1, index)) if batch is None else batch)[0]

    def _by_decord(self, indices: range) -> Frames | None:
        """Decode some frames; None where decord can't, now or ever."""
        with self._lock:  # one reader, maybe several threads
            if self._reader is None:
                return None
            try:
                frames: Frames = self._reader.get_batch(list(indices)).asnumpy()
            except _decord_errors():
                self._reader = None
                return None
        return frames

    def _by_ffmpeg(self, size: int, first: int) -> Generator[Frames, None, None]:
        """Decode from the file's start, and hand out what comes from frame `first` on."""
        width, height = self.info.size_px
        shape = (f"scale={width}:{height},setsar=1", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
        one, batch, used = np.empty((height, width, 3), np.uint8), None, 0
        with running_ffmpeg(
            "-v", "error", *input_of(self.info.path), "-map", "0:V:0", "-fps_mode", "passthrough", "-vf", *shape
        ) as ffmpeg:
            source = -1
            for index, wanted in enumerate(self._order.tolist()):
                while source < wanted:
                    if not ffmpeg.fill(one):
                        raise _broken_off(self.info.path, index, self.info.frames)
                    source += 1
                if index < first:
                    continue
                if batch is None:
                    batch, used = np.empty((min(size, self.info.frames - index), *one.shape), np.uint8), 0
                batch[used] = one
                used += 1
                if used == len(batch):
                    yield batch
                    batch = None


def read_ahead(batches: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Walk over `batches` in a thread of its own, so that decoding goes on while the last batch is worked on.

    Args:
        batches: what to walk over; an error in it is raised here, after what came before it.
        depth: how many may lie ready.

    Yields:
        The same items in the same order. When the caller stops early, the thread stops too.
    """
    ready: Queue[tuple[str, Any]] = Queue(maxsize=depth)
    stopped = Event()

    def fill() -> None:
        walk = iter(batches)
        try:
            for item in walk:
                ready.put(("item", item))
                if stopped.is_set():
                    return
            ready.put(("end", None))
        except BaseException as error:
            ready.put(("error", error))
        finally:
            if isinstance(walk, Generator):
                walk.close()

    thread = Thread(target=fill, name="read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            what, value = ready.get()
            if what == "error":
                raise value
            if what == "end":
                return
            yield value
    finally:
        stopped.set()
        while thread.is_alive():  # it may be waiting for room in the queue
            try:
                ready.get(timeout=0.01)
            except Empty:
                continue


def _look(path: Path) -> tuple[ClipInfo, Ticks]:
    """Look at a clip; returns what it's like, and which frame of the file each of its frames shows."""
    kind = kind_of(path)
    if kind not in (Kind.VIDEO, Kind.ANIMATION, Kind.OTHER):
        raise MtvcraftError(f"`{path}` is {kind.value}, not a video", hint="name a video, such as an mp4")
    listing = list_packets(path)
    pictures, sound = listing.pictures, listing.sound
    if listing.cut_off and kind is not Kind.OTHER:
        raise _cut_off(path, listing)
    if pictures is None:
        raise _without_pictures(path, listing)
    shown = shown_frames(path, listing.container, pictures)
    if not len(shown.ticks):
        raise MtvcraftError(f"`{path}` has no frames that can be read", hint="copy or download it again")
    rate, order = _timing(shown, pictures)
    width_px, height_px, square, pixel_format = _shape(pictures.about, listing.turned_deg)
    variable = len(order) != len(shown.ticks) or bool((np.diff(order) != 1).any())
    offset_s = sound.start_s - int(shown.ticks[0]) * pictures.time_base if sound else Fraction(0)
    easy = (
        listing.container.startswith(DECORD_CONTAINERS)
        and pictures.codec in DECORD_CODECS
        and pixel_format in DECORD_FORMATS
        and square
        and listing.turned_deg is None
        and not variable
        and not shown.decoded
        and not any(packet.flags & DISCARDED for packet in pictures.packets)
        and len(order) * height_px * width_px * 3 <= DECORD_BYTES
    )
    info = ClipInfo(
        path=path,
        width_px=width_px,
        height_px=height_px,
        rate=rate,
        frames=len(order),
        sound=sound is not None and len(sound.packets) > 0,
        sound_offset_s=offset_s if abs(offset_s) >= IN_STEP_S else Fraction(0),
        codec=pictures.codec,
        pixel_format=pixel_format,
        turned_deg=listing.turned_deg or 0.0,
        variable=variable,
        reader="decord" if easy and find_spec("decord") else "ffmpeg",
    )
    return info, order


def _timing(shown: Shown, pictures: Stream) -> tuple[Fraction, Ticks]:
    """Find the exact rate, and which frame of the file is shown at each place of it."""
    printed = printed_rates(pictures.about)
    count = len(shown.ticks)
    if count == 1:
        return (printed[0] if printed else 1 / (max(1, shown.last_length) * pictures.time_base)), np.zeros(1, np.int64)
    rate = constant_rate(shown.ticks, pictures.time_base, printed)
    if rate is None:
        return constant_grid(shown.ticks, shown.last_length, pictures.time_base)
    return rate, np.arange(count)


def _shape(about: str, turned_deg: float | None) -> tuple[int, int, bool, str]:
    """Return width and height as shown, whether pixels are square, and the pixel format."""
    found = re.search(r"Video: .*?, (\w+)(?:\([^)]*\))?, (\d+)x(\d+)(?:,? \[?SAR (\d+):(\d+))?", about)
    if found is None:
        raise ValueError(f"ffmpeg describes a video in words not known here: {about}")
    aspect = Fraction(int(found[4]), int(found[5])) if found[4] else Fraction(1)
    size = max(1, round(int(found[2]) * aspect)), int(found[3])
    quarter = turned_deg is not None and not isnan(turned_deg) and round(turned_deg) % 180 == 90
    return (*(reversed(size) if quarter else size), aspect == 1, found[1])


def _decord_reader(info: ClipInfo) -> Any:
    """Open a clip with decord; None where decord is missing, refuses it or sees it differently."""
    with silence():  # a file that it refuses costs native lines that no setting stops
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(info.path.absolute()), num_threads=1)  # more are no faster
            shape = reader.get_batch([0]).shape[1:]
        except _decord_errors():
            return None
    same = len(reader) == info.frames and tuple(shape) == (info.height_px, info.width_px, 3)
    return reader if same else None


def _decord_errors() -> tuple[type[Exception], ...]:
    from decord.base import DECORDError

    return RuntimeError, DECORDError


def _without_pictures(path: Path, listing: Listing) -> MtvcraftError:
    if listing.sound is not None:
        return MtvcraftError(f"`{path}` is sound without pictures, not a video", hint="name a video, such as an mp4")
    if listing.container:
        return MtvcraftError(f"`{path}` has no frames", hint="copy or download it again")
    return MtvcraftError(f"`{path}` can't be read as a video", hint="turn it into an mp4 first, or name another")


def _cut_off(path: Path, listing: Listing) -> MtvcraftError:
    """Tell how much of a file is there."""
    if listing.pictures is None:
        return MtvcraftError(
            f"`{path}` is cut off: its index, which comes last, is missing", hint="copy or download it again"
        )
    found = len(listing.pictures.packets)
    rates = printed_rates(listing.pictures.about)
    wanted = max(found, round(listing.length_s * rates[0])) if rates else found
    mend = f"ffmpeg -i {quote(str(path))} -c copy mended{path.suffix}"
    return MtvcraftError(
        f"`{path}` is cut off: {found} of about {wanted} frames are there",
        hint=f"copy or download it again, or keep what is there: {mend}",
    )


def _broken_off(path: Path, found: int, wanted: int) -> MtvcraftError:
    mend = f"ffmpeg -i {quote(str(path))} mended{path.suffix}"
    return MtvcraftError(
        f"`{path}` is damaged: {found} of {wanted} frames could be read",
        hint=f"copy or download it again, or keep what can be read: {mend}",
    )
