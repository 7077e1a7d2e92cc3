"""How ffmpeg has to decode a video so that its frames come out the way they are seen, from any frame on."""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.video.ffmpeg import input_of, running_ffmpeg
from mtvcraft_cli.video.hdr import write_table
from mtvcraft_cli.video.listing import KEY, Listing, Packet, Shown

HDR = {"smpte2084": "PQ", "arib-std-b67": "HLG"}
FIELDS = re.compile(r"(top|bottom)( coded)? first")
ALPHA = re.compile(r"(yuva|gbrap|rgba|bgra|argb|abgr|ya8|ya16|pal8|vuya|ayuv)")
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""ffmpeg's own decoders of these leave the transparency out."""
HD_PX = (1280, 576)
"""Untagged videos of this width, or higher than this, have the colours of BT.709; smaller ones those of BT.601."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a video's frames are like, by ffmpeg's line about it."""

    width_px: int
    height_px: int
    """As shown: after rotation, with square pixels."""
    square: bool
    """Whether pixels were square already."""
    pixel_format: str
    matrix: str
    """How R'G'B' became Y'CbCr; `unknown` where the file doesn't tell."""
    primaries: str
    transfer: str
    interlaced: bool
    alpha: bool
    decoder: str | None
    """What has to decode it; None for ffmpeg's own choice."""

    @staticmethod
    def of(listing: Listing) -> "Look":
        """Read what ffmpeg says about the pictures of a file."""
        assert listing.pictures is not None
        about, codec = listing.pictures.about, listing.pictures.codec
        inner = r"(?:\(((?:[^()]|\([^()]*\))*)\))?"
        found = re.search(rf"Video: .*?, (\w+){inner}, (\d+)x(\d+)(?:,? \[?SAR (\d+):(\d+))?", about)
        if found is None:
            raise ValueError(f"ffmpeg describes a video in words not known here: {about}")
        words = (found[2] or "").split(", ")
        colours = [word for word in words if word not in ("", "tv", "pc", "progressive") and not FIELDS.match(word)]
        spoken = next((word.split("/") for word in colours if not word.endswith("bpc")), ["unknown"])
        matrix, primaries, transfer = spoken if len(spoken) == 3 else spoken[:1] * 3
        aspect = Fraction(int(found[5]), int(found[6])) if found[5] else Fraction(1)
        size = max(1, round(int(found[3]) * aspect)), int(found[4])
        turned = listing.turned_deg
        if turned is not None and not isnan(turned) and round(turned) % 180 == 90:
            size = size[1], size[0]
        decoder = ALPHA_DECODERS.get(codec) if re.search(r"alpha_mode\s*: 1", listing.said) else None
        return Look(
            width_px=size[0],
            height_px=size[1],
            square=aspect == 1,
            pixel_format=found[1],
            matrix=matrix,
            primaries=primaries,
            transfer=transfer,
            interlaced=any(FIELDS.match(word) for word in words),
            alpha=decoder is not None or ALPHA.match(found[1]) is not None,
            decoder=decoder,
        )

    @property
    def table(self) -> str | None:
        """The transfer whose table of `hdr` the colours need; None where they are those of a usual screen."""
        return self.transfer if self.transfer in HDR or self.primaries == "bt2020" else None

    @property
    def plain(self) -> bool:
        """Whether frames need no more than decoding."""
        return self.square and not (self.interlaced or self.alpha or self.table or self.silent_hd)

    @property
    def silent_hd(self) -> bool:
        """Whether it is high definition and doesn't say its colours: ffmpeg and decord would take it for BT.601."""
        large = max(self.width_px, self.height_px) >= HD_PX[0] or min(self.width_px, self.height_px) > HD_PX[1]
        return self.matrix == "unknown" and large and self.pixel_format.startswith("yuv")

    def assumed(self, rate: Fraction) -> Iterator[str]:
        """Say what is done to the frames beyond decoding."""
        if self.interlaced:
            yield f"interlaced: made into {float(rate):g} whole frames a second"
        if self.transfer in HDR:
            yield f"HDR ({HDR[self.transfer]}) tone-mapped to SDR"
        if self.decoder or self.pixel_format.startswith(("yuva", "gbrap")):
            yield "transparent: shown on the background"

    def filters(self, table: Path | None) -> list[str]:
        """The filters that bring decoded frames to what is seen."""
        size = f"scale={self.width_px}:{self.height_px}"
        if table is not None:
            matrix = ":in_color_matrix=bt2020" if self.matrix in ("unknown", "bt2020nc", "bt2020c") else ""
            deep = "gbrap16le" if self.alpha else "gbrp16le"
            colours = [f"{size}{matrix}", f"format={deep}", f"lut3d=file={_escaped(table)}:interp=tetrahedral"]
        else:
            colours = [size + (":in_color_matrix=bt709" if self.silent_hd else "")]
        return [*colours, "setsar=1"]


@dataclass(frozen=True, kw_only=True)
class Film:
    """A video that ffmpeg reads, frame after frame."""

    path: Path
    look: Look
    shown: Shown
    """When each frame is shown."""
    time_base: Fraction
    packets: Sequence[Packet]
    background: tuple[int, int, int]

    def frames(self, first: int = 0) -> Generator[Picture, None, None]:
        """Decode frames from number `first` on, (H, W, 3) RGB, 0..255; one and the same memory each time."""
        shape = (self.look.height_px, self.look.width_px)
        one = np.empty((*shape, 4 if self.look.alpha else 3), np.uint8)
        with self._table() as table:
            before, skip = self._way_to(first)
            if self.look.decoder:
                before = ["-c:v", self.look.decoder, *before]
            # Fields are told apart before frames are left out: each needs its neighbours.
            whole = ["bwdif=mode=send_frame:deint=interlaced"] if self.look.interlaced else []
            chain = ",".join([*whole, *skip, *self.look.filters(table)])
            raw = ["-pix_fmt", "rgba" if self.look.alpha else "rgb24", "-f", "rawvideo", "-"]
            with running_ffmpeg(
                *("-v", "error", *before, *input_of(self.path), "-map", "0:V:0"),
                *("-fps_mode", "passthrough", "-vf", chain, *raw),
            ) as ffmpeg:
                while ffmpeg.fill(one):
                    yield on_background(one, self.background) if self.look.alpha else one

    @contextmanager
    def _table(self) -> Iterator[Path | None]:
        """Lend the file with the table of colours, where one is needed."""
        if self.look.table is None:
            yield None
            return
        with TemporaryDirectory(prefix="mtvcraft-") as folder:
            path = Path(folder) / "to-sdr.cube"
            write_table(path, self.look.table)
            yield path

    def _way_to(self, first: int) -> tuple[list[str], list[str]]:
        """Find the quickest safe way to a frame: options before the input, and a filter that drops the rest.

        Where the packets tell their times, ffmpeg jumps to a key frame before, and frames are dropped by their
        timestamps; otherwise it decodes from the start, and they are dropped by count.
        """
        if first == 0:
            return [], []
        if self.shown.decoded:
            return [], [f"trim=start_frame={first}"]
        ticks = self.shown.ticks
        wanted = int(ticks[first])
        between_s = (int(ticks[first - 1]) + wanted) * self.time_base / 2
        drop = [f"trim=start={float(between_s):.7f}"]
        # A frame needs the fields of the one before it, where it is interlaced.
        needed = int(ticks[first - 1]) if self.look.interlaced else wanted
        keys = (packet.shown for packet in self.packets if packet.flags & KEY)
        goal = max((shown for shown in keys if shown is not None and shown <= needed), default=0)
        if goal <= int(ticks[0]):
            return ["-copyts"], drop
        jump = ["-seek_timestamp", "1", "-noaccurate_seek", "-ss", f"{float(goal * self.time_base):.6f}"]
        return ["-copyts", *jump], drop


def on_background(pixels: np.ndarray, background: tuple[int, int, int]) -> Picture:
    """Show (H, W, 4) RGBA, 0..255, on a colour: (H, W, 3) RGB, 0..255."""
    alpha = pixels[..., 3:].astype(np.uint16)
    mixed = pixels[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _escaped(path: Path) -> str:
    """Write a path into a filter: once for the filter's options, once for the chain."""
    option = re.sub(r"([\\':])", r"\\\1", path.as_posix())
    return re.sub(r"([\\'\[\],;])", r"\\\1", option)
