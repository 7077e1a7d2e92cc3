"""Data sets made at once, by the code that `train prepare` writes with, of people whose joints are known."""

from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mtvcraft_cli.joints.backend import Estimate
from mtvcraft_cli.train.dataset.cut import Piece
from mtvcraft_cli.train.dataset.index import ClipSet, load_clip_set
from mtvcraft_cli.train.dataset.journal import Journal
from mtvcraft_cli.train.dataset.store import Film, Shards, as_jpeg
from mtvcraft_cli.train.dataset.videos import finish
from tests.joints.people import dancer


def frames_of(number: int, count: int, size_px: tuple[int, int]) -> list[np.ndarray]:
    """Frames that know their number: their red is 2 * place, their green the clip's."""
    width, height = size_px
    across = np.linspace(0, 255, width, dtype=np.uint8)
    made = []
    for place in range(count):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0], frame[..., 1], frame[..., 2] = 2 * place, 40 * number, across
        made.append(frame)
    return made


def joints_of(number: int, count: int) -> np.ndarray:
    """(T, 24, 3) mm: the dancer, a metre farther away in each clip."""
    return dancer(count, (0, 0, 2500 + 100 * number)).astype(np.float32)


def small_set(
    folder: Path,
    lengths: tuple[int, ...] = (40, 30, 20),
    sizes_px: tuple[tuple[int, int], ...] = ((24, 32),),
    *,
    unsure: float = 0.0,
    limit_bytes: int = 2**30,
) -> ClipSet:
    """Write a data set with a clip of each length, each of another video."""
    folder.mkdir()
    about: dict[str, Any] = {"kind": "videos"}
    journal = Journal(folder, about)
    journal.begin()
    with closing(Shards(folder, [], limit_bytes)) as shards:
        for number, length in enumerate(lengths):
            size_px = sizes_px[number % len(sizes_px)]
            confidence = np.full((length, 24), 0.9 - 0.1 * number, np.float32)
            estimate = Estimate(joints_of(number, length), confidence, np.ones(length, bool))
            told = {"source": {"name": f"{number}.mp4", "sha256": f"{number:064x}"}, "first_frame": 0, "rate": "25"}
            coded = [as_jpeg(frame) for frame in frames_of(number, length, size_px)]
            piece = Piece(np.arange(length), estimate)
            record = shards.add(Film(piece=piece, coded=coded, size_px=size_px, blur=200.0), told)
            shards.keep()
            entry = {"input": f"{number}.mp4", "sha256": f"{number:064x}", "clips": [record.told()], "dropped": {}}
            journal.add({**entry, "state": shards.state})
        shards.end()
    finish(folder, journal, unsure, about, {})
    assert Fraction(record.rate) == 25
    return load_clip_set(folder)
