"""Videos -> clips of one person each, in shards."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.jobs.drive import Drive, DriveSettings, Estimator, look_at_drive
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.train.dataset.cut import CutSettings, Losses, Piece, cut
from mtvcraft_cli.train.dataset.index import FORMAT, INDEX, ClipSet, Record, identity_of
from mtvcraft_cli.train.dataset.journal import Journal
from mtvcraft_cli.train.dataset.spread import Spread, write_spread
from mtvcraft_cli.train.dataset.store import Film, Shards, as_jpeg
from mtvcraft_cli.video.picture import fit_picture
from mtvcraft_cli.video.read import open_clip, read_ahead

T = TypeVar("T")
CAPTION: Final = ".txt"
"""Text files that are called like a video say what it shows."""
LOOKED_AT: Final = 9
"""Frames of a clip whose sharpness is measured; the median counts."""
GREY: Final = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, kw_only=True)
class VideoSettings:
    """How videos become clips."""

    drive: DriveSettings = field(default_factory=DriveSettings)
    """Who finds people; its gaps are not looked at."""
    cut: CutSettings = field(default_factory=CutSettings)
    side_px: int = 512
    """Shorter side of the stored frames; smaller videos keep their size."""
    least_blur: float = 100.0
    """Clips whose Laplacian varies less are dropped (paper: 100); 0 drops none."""
    unsure: float = 0.1
    """Share of the clips that is dropped because their joints are least sure (paper: 10 %)."""
    shard_bytes: int = 2**30
    """A shard that is larger is closed."""

    def told(self, estimator: Estimator) -> dict[str, Any]:
        """What each clip depends on; `unsure` only decides which of them are listed."""
        return {
            "kind": "videos",
            "backend": estimator.told(),
            "max-gap": str(self.cut.max_gap_s),
            "min-frames": self.cut.min_frames,
            "max-frames": self.cut.max_frames,
            "clip-fps": self.cut.rate and str(self.cut.rate),
            "side": self.side_px,
            "blur": self.least_blur,
            "shard-mb": self.shard_bytes // 2**20,
        }


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What became of all inputs."""

    clips: int
    frames: int
    seconds: float
    inputs: int
    dropped: dict[str, dict[str, int]]
    unreadable: dict[str, str]
    """Why, by the input's name."""
    about: dict[str, Any]

    def told(self) -> dict[str, Any]:
        """As plain data: the content of `report.json`."""
        return {
            "inputs": self.inputs,
            "clips": self.clips,
            "frames": self.frames,
            "seconds": round(self.seconds, 2),
            "dropped": self.dropped,
            "unreadable": self.unreadable,
            "settings": self.about,
        }


def prepare_videos(
    inputs: Sequence[tuple[str, Path]],
    folder: Path,
    settings: VideoSettings,
    estimator: Estimator,
    cache: Cache,
    watch: Watch,
) -> Prepared:
    """Make a data set of videos, or go on with it after the last video that is done.

    Args:
        inputs: names and paths, in the order in which they go into the shards.
        folder: of the data set.
        settings: how.
        estimator: who finds people.
        cache: keeps where people are, so that a video that was cut off isn't looked at twice.
        watch: counts the frames of each video.

    Raises:
        MtvcraftError: the folder was begun with other settings, or no clip is left. A video that can't be used is no
            error: it is left out, and tried again by the next run.
    """
    about = settings.told(estimator)
    journal = Journal(folder, about)
    journal.begin()
    unreadable: dict[str, str] = {}
    captions: dict[str, str] = {}
    done = journal.done
    with closing(Shards(folder, journal.entries, settings.shard_bytes)) as shards:
        for number, (name, path) in enumerate(inputs, start=1):
            sha256, caption = cache.sha256_of(path), caption_beside(path)
            captions[sha256] = captions.get(sha256) or caption
            if sha256 in done:
                continue
            before = shards.state
            counted = partial(_counted, watch, f"{number} of {len(inputs)}")
            try:
                noted = work(path, sha256, settings, estimator, cache, shards, counted)
            except MtvcraftError as error:
                if error.exit is not Exit.INPUT:
                    raise
                shards.back_to(before)
                unreadable[name] = error.message
                continue
            shards.keep()
            journal.add({"input": name, "sha256": sha256, "caption": caption, **noted, "state": shards.state})
            done.add(sha256)
        shards.end()
    journal.tell_captions(captions, {name for name, _ in inputs})
    return finish(folder, journal, settings.unsure, about, unreadable)


def caption_beside(video: Path) -> str:
    """What `NAME.txt` beside a video says of it, on one line; nothing where there is none.

    Raises:
        MtvcraftError: exit 4; it is no text.
    """
    path = video.with_suffix(CAPTION)
    if path == video:
        return ""
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except (FileNotFoundError, IsADirectoryError):
        return ""
    except (OSError, ValueError) as error:
        raise MtvcraftError(
            f"`{path}` can't be read as the caption of a video: {error}", hint="write it in UTF-8, or rename it"
        ) from error


def _counted(watch: Watch, which: str, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
    return watch(items, f"{stage} {which}", total)


def work(
    path: Path,
    sha256: str,
    settings: VideoSettings,
    estimator: Estimator,
    cache: Cache,
    shards: Shards,
    watch: Watch,
) -> dict[str, Any]:
    """Put the clips of one video into the shards; what is to be noted of them."""
    from mtvcraft_cli.runs.motion import find_people  # brings in torch, so only when there is work

    drive = look_at_drive(path, settings.drive, cache)
    scene = find_people(drive, estimator, settings.drive, cache, watch)
    losses, clips = Losses(), []
    for film in filmed(path, cut(scene, drive.rate, settings.cut, losses), settings):
        if film.blur < settings.least_blur:
            losses.add("blurred", len(film.coded))
            continue
        clips.append(shards.add(film, told_of(drive, sha256, film.piece, settings.cut.rate)).told())
    return {"frames": scene.frames, "clips": clips, "dropped": losses.told()}


def told_of(drive: Drive, sha256: str, piece: Piece, most: Fraction | None) -> dict[str, Any]:
    """Where a clip comes from."""
    rate = drive.rate if most is None else min(drive.rate, most)
    source = {"name": drive.path.name, "sha256": sha256}
    return {"source": source, "first_frame": int(piece.places[0]), "rate": str(rate)}


def filmed(path: Path, pieces: Iterable[Piece], settings: VideoSettings) -> Iterator[Film]:
    """Read a video once more, and code the frames of each piece at the size that they are stored at."""
    pieces = iter(pieces)
    first = next(pieces, None)
    if first is None:
        return  # nobody to be seen, and so no need to look
    clip = open_clip(path, **settings.drive.seen)
    frames = enumerate(frame for batch in read_ahead(clip.batches()) for frame in batch)
    size_px = stored_size_px(clip.info.size_px, settings.side_px)
    for piece in chain([first], pieces):
        wanted = piece.places.tolist()
        looked_at = set(np.linspace(0, len(wanted) - 1, LOOKED_AT).round().astype(int).tolist())
        coded: list[bytes] = []
        edges = []
        for place, frame in frames:
            if place == wanted[len(coded)]:
                shown = fit_picture(frame, size_px)
                if len(coded) in looked_at:
                    edges.append(sharpness(shown))
                coded.append(as_jpeg(shown))
                if len(coded) == len(wanted):
                    break
        yield Film(piece=piece, coded=coded, size_px=size_px, blur=float(np.median(edges)))


def stored_size_px(size_px: tuple[int, int], shorter_px: int) -> tuple[int, int]:
    """Width and height at which frames are stored: the same shape, the shorter side at most so long."""
    scale = min(Fraction(1), Fraction(shorter_px, min(size_px)))
    return round(size_px[0] * scale), round(size_px[1] * scale)


def sharpness(frame: Picture) -> float:
    """The variance of the grey picture's Laplacian, of four neighbours."""
    grey = frame.astype(np.float32) @ GREY
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * grey[1:-1, 1:-1]).var(dtype=np.float64))


def finish(
    folder: Path, journal: Journal, unsure: float, about: dict[str, Any], unreadable: dict[str, str]
) -> Prepared:
    """Choose among all clips, and write the index, the statistics and the report.

    Raises:
        MtvcraftError: no clip is left.
    """
    losses = Losses()
    records = []
    for entry in journal.entries:
        losses.take(entry["dropped"])
        records += [Record.of({**told, "caption": entry.get("caption", "")}) for told in entry["clips"]]
    ranked = sorted(records, key=lambda record: (-record.unsure, record.name))
    out = {record.name for record in ranked[: int(unsure * len(records))]}
    for record in records:
        if record.name in out:
            losses.add("unsure", record.frames)
    kept = [record for record in records if record.name not in out]
    prepared = Prepared(
        clips=len(kept),
        frames=sum(record.frames for record in kept),
        seconds=float(sum(record.frames / Fraction(record.rate) for record in kept)),
        inputs=len(journal.entries) + len(unreadable),
        dropped=losses.told(),
        unreadable=unreadable,
        about={**about, "drop-unsure": unsure},
    )
    write_text_whole(folder / "report.json", json.dumps(prepared.told(), indent=2, ensure_ascii=False) + "\n")
    if not kept:
        lost = ", ".join(f"{reason} {told['clips']}" for reason, told in losses.told().items())
        more = f", unreadable {len(unreadable)}" if unreadable else ""
        raise MtvcraftError(
            f"no clip is left of {prepared.inputs} videos ({(lost + more).lstrip(', ') or 'there were none'})",
            hint=f"`{folder / 'report.json'}` says why; `--min-frames`, `--max-gap` and `--blur` decide",
        )
    spread: Spread | None = None
    clips = ClipSet(folder, tuple(kept), identity_of(kept))
    for record in kept:
        own = Spread.of(clips.joints_mm(record))
        spread = own if spread is None else spread + own
    assert spread is not None
    write_spread(folder, spread)
    content = {"format": FORMAT, "about": prepared.about, "clips": [record.told() for record in kept]}
    write_text_whole(folder / INDEX, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return prepared
