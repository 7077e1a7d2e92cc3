"""Clips: what a file holds, and its frames in the order and the way they are seen."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from queue import Empty, Queue
from shlex import quote
from threading import Event, Lock, Thread
from typing import Any, TypeVar

import numpy as np

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.quiet import silence
from mtvcraft_cli.shapes import Frames, Picture
from mtvcraft_cli.video.kind import Kind, kind_of
from mtvcraft_cli.video.listing import Listing, list_packets
from mtvcraft_cli.video.look import ClipInfo, Found, Source, look
from mtvcraft_cli.video.picture import WHITE
from mtvcraft_cli.video.rate import Ticks
from mtvcraft_cli.video.timecode import Time

__all__ = ["Clip", "ClipInfo", "open_clip", "probe", "probe_sound", "read_ahead"]

T = TypeVar("T")
BATCH_BYTES = 64 * 2**20


def probe(
    path: Path, *, start_s: Time | None = None, end_s: Time | None = None, rate: Fraction | None = None
) -> ClipInfo:
    """Look at a clip, as a rule without decoding it.

    Args:
        path: a video, a moving picture, a folder of pictures, or a pattern such as `frames/*.png`.
        start_s: only frames from this time on, counted from the first picture.
        end_s: only frames before this time.
        rate: frames a second of a folder or pattern, which has none of its own; None for 25. Others ignore it.

    Raises:
        MtvcraftError: missing, or the cut ends before it starts (exit 2); no video, cut off, or damaged, or the cut
            starts after its end (exit 4).
    """
    return look(path, start_s, end_s, rate, WHITE).info


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


def open_clip(
    path: Path,
    *,
    start_s: Time | None = None,
    end_s: Time | None = None,
    rate: Fraction | None = None,
    background: tuple[int, int, int] = WHITE,
) -> "Clip":
    """Open a clip for reading.

    Args:
        path: a video, a moving picture, a folder of pictures, or a pattern such as `frames/*.png`.
        start_s: only frames from this time on, counted from the first picture.
        end_s: only frames before this time.
        rate: frames a second of a folder or pattern; None for 25.
        background: RGB, 0..255, behind what is transparent.

    Raises:
        MtvcraftError: as `probe` does.
    """
    found = look(path, start_s, end_s, rate, background)
    reader = _decord_reader(found) if found.info.reader == "decord" else None
    info = replace(found.info, reader="ffmpeg") if found.info.reader == "decord" and not reader else found.info
    return Clip(info, found.order, found.source, reader)


class Clip:
    """A video's frames: in order, batch after batch, or one by its number.

    Args:
        info: what the clip is like.
        order: (info.frames,) which frame of the file each frame of the clip shows, ascending.
        source: decodes the file's frames one after the other, from a number on.
        reader: decord's, where it can read the file.
    """

    def __init__(self, info: ClipInfo, order: Ticks, source: Source, reader: Any = None) -> None:
        self.info = info
        self._order = order
        self._source = source
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
                yield from self._one_by_one(size, first)
                return
            yield batch

    def frame(self, index: int) -> Picture:
        """Read one frame, (H, W, 3) RGB, 0..255; in files without key frames that can be found, this is slow.

        Raises:
            IndexError: the clip has no such frame.
            MtvcraftError: it can't be read (exit 4).
        """
        if not 0 <= index < self.info.frames:
            raise IndexError(f"frame {index} of {self.info.frames}")
        batch = self._by_decord(range(index, index + 1))
        return (next(self._one_by_one(1, index)) if batch is None else batch)[0]

    def _by_decord(self, indices: range) -> Frames | None:
        """Decode some frames; None where decord can't, now or ever."""
        with self._lock:  # one reader, maybe several threads
            if self._reader is None:
                return None
            try:
                frames: Frames = self._reader.get_batch(self._order[indices.start : indices.stop].tolist()).asnumpy()
            except _decord_errors():
                self._reader = None
                return None
        return frames

    def _one_by_one(self, size: int, first: int) -> Generator[Frames, None, None]:
        """Decode one frame after the other, and hand out what comes from frame `first` on."""
        shape = (self.info.height_px, self.info.width_px, 3)
        source = int(self._order[first]) - 1
        batch, used, one = np.empty((0, *shape), np.uint8), 0, None
        with closing(self._source(source + 1)) as frames:
            for index in range(first, self.info.frames):
                while source < self._order[index]:
                    one = next(frames, None)
                    source += 1
                if one is None:
                    raise _broken_off(self.info.path, int(index), self.info.frames)
                if used == len(batch):
                    batch, used = np.empty((min(size, self.info.frames - index), *shape), np.uint8), 0
                batch[used] = one
                used += 1
                if used == len(batch):
                    yield batch


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


def _decord_reader(found: Found) -> Any:
    """Open a clip with decord; None where decord is missing, refuses it or sees it differently."""
    with silence():  # a file that it refuses costs native lines that no setting stops
        try:
            import decord
        except (ImportError, OSError, RuntimeError):  # installed, and can't be loaded
            return None

        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(found.info.path.absolute()), num_threads=1)  # more are no faster
            shape = reader.get_batch([0]).shape[1:]
        except _decord_errors():
            return None
    same = len(reader) == found.in_file and tuple(shape) == (found.info.height_px, found.info.width_px, 3)
    return reader if same else None


def _decord_errors() -> tuple[type[Exception], ...]:
    from decord.base import DECORDError

    return RuntimeError, DECORDError


def _broken_off(path: Path, found: int, wanted: int) -> MtvcraftError:
    mend = f"ffmpeg -i {quote(str(path))} mended{path.suffix}"
    return MtvcraftError(
        f"`{path}` is damaged: {found} of {wanted} frames could be read",
        hint=f"copy or download it again, or keep what can be read: {mend}",
    )
