"""Looks at clips: what each is like, which of its frames are wanted, and who decodes them."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from shlex import quote
from typing import Literal, TypeAlias

import numpy as np

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.video.decode import Film, Look
from mtvcraft_cli.video.kind import Kind, kind_of
from mtvcraft_cli.video.listing import DISCARDED, Listing, list_packets, shown_frames
from mtvcraft_cli.video.rate import Ticks, printed_rates, timing
from mtvcraft_cli.video.sequence import (
    MILLISECOND,
    USUAL_RATE,
    Colour,
    common_size_px,
    list_pictures,
    moving_frames,
    moving_ticks,
    picture_frames,
    size_px,
)
from mtvcraft_cli.video.timecode import Time, Timecode, check_order, spoken

Source: TypeAlias = Callable[[int], Generator[Picture, None, None]]
"""Decodes a file's frames one after the other, from a number on."""
IN_STEP_S = Fraction(1, 1000)
"""Sound that starts this close to the first picture starts with it; clocks of milliseconds are no better."""
RECORDINGS = ("matroska", "avi")
"""Containers that a recording which broke off leaves readable: what is there is taken, and said."""
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
    reader: Literal["decord", "ffmpeg", "pillow"]
    start_s: Fraction = Fraction(0)
    """The exact time of its first frame, where the clip is a cut; times count from the file's first picture."""
    transparent: bool = False
    """Whether a background may be seen through its frames."""
    assumed: tuple[str, ...] = ()
    """What the file doesn't say and was taken for granted, and what was done to its frames, in sentences."""

    @property
    def size_px(self) -> tuple[int, int]:
        """Width, height."""
        return self.width_px, self.height_px

    @property
    def duration_s(self) -> Fraction:
        """From the first frame to the end of the last."""
        return self.frames / self.rate


@dataclass(frozen=True, kw_only=True)
class Found:
    """A clip that was looked at."""

    info: ClipInfo
    order: Ticks
    """Which frame of the file each frame of the clip shows."""
    source: Source
    in_file: int
    """How many frames the file has."""


def look(path: Path, start_s: Time | None, end_s: Time | None, rate: Fraction | None, background: Colour) -> Found:
    """Look at a clip, or at a cut of it; see `read.open_clip`."""
    check_order(start_s, end_s)
    kind = kind_of(path)
    if kind is Kind.FOLDER:
        found = _look_at_pictures(path, rate, background)
    elif kind is Kind.ANIMATION and (form := _pillow_reads(path)):
        found = _look_at_moving(path, form, background)
    elif kind in (Kind.VIDEO, Kind.ANIMATION, Kind.OTHER):
        found = _look_at_film(path, kind, background)
    else:
        raise MtvcraftError(f"`{path}` is {kind.value}, not a video", hint="name a video, such as an mp4")
    return found if start_s is None and end_s is None else _cut(found, start_s, end_s)


def _cut(found: Found, start_s: Time | None, end_s: Time | None) -> Found:
    """Keep the frames whose time lies in [start, end)."""
    info = found.info
    start, end = (time.at(info.rate) if isinstance(time, Timecode) else time for time in (start_s, end_s))
    check_order(start, end)
    first = ceil((start or 0) * info.rate)
    last = info.frames if end is None else min(info.frames, ceil(end * info.rate))
    if start is not None and start >= info.duration_s:
        raise MtvcraftError(
            f"`{info.path}` is {spoken(info.duration_s)} long: nothing is left from {spoken(start)} on",
            hint=f"choose a `--start` before {spoken(info.duration_s)}",
        )
    if first >= last:
        length = f"{spoken(info.duration_s)} at {float(info.rate):g} frames a second"
        raise MtvcraftError(
            f"no frame of `{info.path}` begins from {spoken(start or Fraction(0))} to {spoken(end or info.duration_s)}",
            hint=f"it is {length} long: choose a longer cut",
        )
    begun_s = first / info.rate
    offset_s = info.sound_offset_s - begun_s
    info = replace(info, frames=last - first, start_s=begun_s, sound_offset_s=offset_s if info.sound else Fraction(0))
    return replace(found, info=info, order=found.order[first:last])


def _look_at_film(path: Path, kind: Kind, background: Colour) -> Found:
    """Look at what ffmpeg reads."""
    listing = list_packets(path)
    pictures, sound = listing.pictures, listing.sound
    recording = listing.container.startswith(RECORDINGS) and pictures is not None
    if listing.cut_off and kind is not Kind.OTHER and not recording:
        raise _cut_off(path, listing)
    if pictures is None:
        raise _without_pictures(path, listing)
    shown = shown_frames(path, listing.container, pictures)
    if listing.cut_off and pictures.packets:
        shown = shown.whole_part(pictures.packets[-1])
    if not len(shown.ticks):
        raise MtvcraftError(f"`{path}` has no frames that can be read", hint="copy or download it again")
    rate, order = timing(shown.ticks, shown.last_length, pictures.time_base, printed_rates(pictures.about))
    look = Look.of(listing)
    variable = len(order) != len(shown.ticks) or bool((np.diff(order) != 1).any())
    offset_s = sound.start_s - int(shown.ticks[0]) * pictures.time_base if sound else Fraction(0)
    easy = (
        listing.container.startswith(DECORD_CONTAINERS)
        and pictures.codec in DECORD_CODECS
        and look.pixel_format in DECORD_FORMATS
        and look.plain
        and listing.turned_deg is None
        and not variable
        and not shown.decoded
        and not any(packet.flags & DISCARDED for packet in pictures.packets)
        and len(order) * look.height_px * look.width_px * 3 <= DECORD_BYTES
    )
    assumed = [*([_there(listing, len(shown.ticks))] if listing.cut_off else []), *look.assumed(rate)]
    if variable:
        assumed.append(f"frames come at uneven times: put on an even {float(rate):g} a second")
    info = ClipInfo(
        path=path,
        width_px=look.width_px,
        height_px=look.height_px,
        rate=rate,
        frames=len(order),
        sound=sound is not None and len(sound.packets) > 0,
        sound_offset_s=offset_s if abs(offset_s) >= IN_STEP_S else Fraction(0),
        codec=pictures.codec,
        pixel_format=look.pixel_format,
        turned_deg=listing.turned_deg or 0.0,
        variable=variable,
        reader="decord" if easy and find_spec("decord") else "ffmpeg",
        transparent=look.alpha,
        assumed=tuple(assumed),
    )
    film = Film(
        path=path,
        look=look,
        shown=shown,
        time_base=pictures.time_base,
        packets=pictures.packets,
        background=background,
    )
    return Found(info=info, order=order, source=film.frames, in_file=len(shown.ticks))


def _pillow_reads(path: Path) -> str | None:
    """Name the form of a moving picture that ffmpeg can't read or whose transparency it leaves out."""
    with path.open("rb") as file:
        head = file.read(12)
    return "webp" if head[8:] == b"WEBP" else "avif" if head[4:8] == b"ftyp" else None


def _look_at_moving(path: Path, form: str, background: Colour) -> Found:
    """Look at a moving WebP or AVIF."""
    ticks, last_length = moving_ticks(path)
    rate, order = timing(ticks, last_length, MILLISECOND, [])
    info = _silent(path, size_px(path), rate, len(order), form)
    variable = len(order) != len(ticks) or bool((np.diff(order) != 1).any())
    if variable:
        info = replace(info, assumed=(f"frames come at uneven times: put on an even {float(rate):g} a second",))
    return Found(
        info=replace(info, variable=variable),
        order=order,
        source=lambda first: moving_frames(path, first, background),
        in_file=len(ticks),
    )


def _look_at_pictures(path: Path, rate: Fraction | None, background: Colour) -> Found:
    """Look at a folder or pattern of pictures."""
    pictures, said = list_pictures(path)
    size = common_size_px(pictures)
    if rate is None:
        said.insert(0, f"frames of a folder: took {USUAL_RATE} frames a second")
    info = _silent(path, size, rate or USUAL_RATE, len(pictures), pictures[0].suffix.lstrip(".").lower())
    return Found(
        info=replace(info, assumed=tuple(said)),
        order=np.arange(len(pictures)),
        source=lambda first: picture_frames(pictures, first, background),
        in_file=len(pictures),
    )


def _silent(path: Path, size: tuple[int, int], rate: Fraction, frames: int, codec: str) -> ClipInfo:
    """Describe a clip that Pillow reads."""
    return ClipInfo(
        path=path,
        width_px=size[0],
        height_px=size[1],
        rate=rate,
        frames=frames,
        sound=False,
        sound_offset_s=Fraction(0),
        codec=codec,
        pixel_format="rgb24",
        turned_deg=0.0,
        variable=False,
        reader="pillow",
        transparent=True,
    )


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
    mend = f"ffmpeg -i {quote(str(path))} -c copy mended{path.suffix}"
    return MtvcraftError(
        f"`{path}` is {_there(listing, len(listing.pictures.packets))}",
        hint=f"copy or download it again, or keep what is there: {mend}",
    )


def _there(listing: Listing, found: int) -> str:
    rates = printed_rates(listing.pictures.about) if listing.pictures else []
    wanted = max(found, round(listing.length_s * rates[0])) if rates else found
    return f"cut off: {found} of about {wanted} frames are there" if wanted > found else f"cut off after {found} frames"
