"""What a file says about itself, without decoding it: ffmpeg copies its packets into a list of timestamps."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.video.ffmpeg import input_of, run_ffmpeg

KEY, DAMAGED, DISCARDED = 1, 2, 4
"""Packet flags, as libavcodec numbers them."""
NO_TIME = -(2**63)
MOST_REORDERED = 17
"""So many frames may come out of order: H.264 and HEVC allow 16 to be held."""
TELLING_CONTAINERS = ("mov", "matroska", "gif", "apng", "webp_anim")
"""Containers whose packets are frames, each with its timestamp."""


@dataclass(frozen=True)
class Packet:
    """One coded frame, or a short piece of sound; times in ticks of the stream's time base."""

    shown: int | None
    """When its frame is shown (None: the container doesn't say)."""
    sent: int
    """When it has to reach the decoder."""
    length: int
    flags: int


@dataclass(frozen=True)
class Stream:
    """The pictures or the sound of a file."""

    about: str
    """The line in which ffmpeg describes it."""
    time_base: Fraction
    """Seconds of a tick."""
    packets: list[Packet]

    @property
    def codec(self) -> str:
        """Its short name, e.g. `h264`."""
        return re.findall(r"(?:Video|Audio): (\w+)", self.about)[0]

    @property
    def start_s(self) -> Fraction:
        """When its first sound or picture comes; ffmpeg prints it to a microsecond, where it isn't 0.

        Before version 8 it doesn't print it for each stream: then the first packet tells. A time below 0 is the run-up
        of an encoder, which isn't heard.
        """
        start = re.search(r", start (-?[\d.]+)", self.about)
        first = self.packets[0].shown if self.packets else None
        return Fraction(start[1]) if start else max(Fraction(0), (first or 0) * self.time_base)


@dataclass(frozen=True)
class Listing:
    """All that a file says; None for what it doesn't have."""

    said: str
    """Every line of ffmpeg about it."""
    pictures: Stream | None
    sound: Stream | None
    turned_deg: float | None
    """How far the pictures have to be turned before they are shown."""

    @property
    def container(self) -> str:
        """ffmpeg's names for the kind of file, e.g. `mov,mp4,m4a,3gp,3g2,mj2`; empty where it knows none."""
        found = re.search(r"^Input #0, (.*), from ", self.said, re.MULTILINE)
        return found[1] if found else ""

    @property
    def start_s(self) -> Fraction:
        """When the first of all its streams starts."""
        found = re.search(r"^ +Duration:.*, start: (-?[\d.]+)", self.said, re.MULTILINE)
        return Fraction(found[1]) if found else Fraction(0)

    @property
    def length_s(self) -> Fraction:
        """How long it claims to be; 0 where it makes no claim."""
        found = re.search(r"^ +Duration: (\d+):(\d+):([\d.]+)", self.said, re.MULTILINE)
        return int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3]) if found else Fraction(0)

    @property
    def cut_off(self) -> bool:
        """Whether its end is missing, as after a download that broke off."""
        if re.search(r"partial file|File ended prematurely|moov atom not found", self.said):
            return True
        last = self.pictures.packets[-1:] if self.pictures else []
        return "mpegts" not in self.container and any(packet.flags & DAMAGED for packet in last)


def list_packets(path: Path) -> Listing:
    """List the packets of the first video stream (not a cover picture) and of the first sound, in file order."""
    copied = ["-map", "0:V:0?", "-map", "0:a:0?", "-c", "copy", "-copyts", "-f", "framecrc", "-"]
    ran = run_ffmpeg("-v", "info", *input_of(path), *copied)
    source = ran.said.split("Output #0")[0]
    streams: dict[str, Stream] = {}
    for number, (time_base, packets) in _parse(ran.out.decode()).items():
        mapped = re.search(rf"Stream #0:(\d+) -> #0:{number} ", ran.said)
        about = mapped and re.search(rf"^ +Stream #0:{mapped[1]}\b.*?: ((Video|Audio): .*)$", source, re.MULTILINE)
        if about:
            streams[about[2]] = Stream(about[1], time_base, packets)
    turned = re.search(r"(?:Display Matrix|displaymatrix): rotation of (-?[\d.]+|-?nan) degrees", source)
    return Listing(ran.said, streams.get("Video"), streams.get("Audio"), float(turned[1]) if turned else None)


@dataclass(frozen=True)
class Shown:
    """The frames of a file in the order they are shown."""

    ticks: npt.NDArray[np.int64]
    """(T,) when each is shown, ascending, in ticks of the stream's time base."""
    last_length: int
    """How long the last is shown; 0 where unknown."""
    decoded: bool
    """Whether they had to be decoded to be counted."""

    def whole_part(self, last: Packet) -> "Shown":
        """Leave out what a file that broke off has of its last frames.

        That is the last packet where only part of it is there, and frames after a gap: where frames aren't sent in the
        order they are shown, some later ones came first.
        """
        if last.flags & DAMAGED:
            return replace(self, ticks=self.ticks[:-1]).whole_part(replace(last, flags=0))
        steps = np.diff(self.ticks[-MOST_REORDERED:])
        gaps = np.flatnonzero(steps > 1.5 * np.median(np.diff(self.ticks))) if len(steps) else steps
        kept = len(self.ticks) - len(steps) + int(gaps[0]) if len(gaps) else len(self.ticks)
        return replace(self, ticks=self.ticks[:kept])


def shown_frames(path: Path, container: str, pictures: Stream) -> Shown:
    """Find the frames that will be shown: by the packets where these tell, otherwise by decoding them all."""
    packets = pictures.packets
    times = {packet.shown: packet.length for packet in packets if not packet.flags & DISCARDED}
    telling = (
        container.startswith(TELLING_CONTAINERS)
        and pictures.codec != "vp8"  # some of its packets are never shown
        and None not in times
        and len(times) == sum(not packet.flags & DISCARDED for packet in packets)
        and all(packet.flags & KEY for packet in packets[:1])
        and not any(packet.flags & DAMAGED for packet in packets)
    )
    if telling:
        ticks = sorted(time for time in times if time is not None)
        return Shown(np.array(ticks, np.int64), times[ticks[-1]] if ticks else 0, decoded=False)
    frames = _list_frames(path)
    ticks = sorted(frame.shown for frame in frames if frame.shown is not None)
    if ticks and None in times:
        # AVI knows the order only, and ffmpeg guesses a delay; the first frame belongs where the first packet is.
        ticks = [tick - ticks[0] + packets[0].sent for tick in ticks]
    return Shown(np.array(ticks, np.int64), frames[-1].length if frames else 0, decoded=True)


def _list_frames(path: Path) -> list[Packet]:
    shown = ["-map", "0:V:0", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-c:v", "wrapped_avframe"]
    ran = run_ffmpeg("-v", "error", *input_of(path), *shown, "-copyts", "-f", "framecrc", "-")
    return _parse(ran.out.decode()).get(0, (Fraction(1), []))[1]


def _parse(text: str) -> dict[int, tuple[Fraction, list[Packet]]]:
    """Read framecrc's lines: `#tb STREAM: SECONDS` and `STREAM, sent, shown, length, bytes, sum[, F=flags][, ...]`."""
    streams: dict[int, tuple[Fraction, list[Packet]]] = {}
    for line in text.splitlines():
        if line.startswith("#tb "):
            stream, time_base = line[4:].split(":")
            streams[int(stream)] = (Fraction(time_base.strip()), [])
        elif not line.startswith("#"):
            fields = line.split(",")
            number, sent, shown, length = (int(field) for field in fields[:4])
            flags = next((int(field[3:], 16) for field in fields[6:7] if field.startswith(" F=")), KEY)
            streams[number][1].append(Packet(None if shown == NO_TIME else shown, sent, length, flags))
    return streams
