"""The clips of a system -> one row of the table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.bootstrap import mean_interval
from mtvcraft_cli.eval.frechet import Moments, distance, mean_term
from mtvcraft_cli.eval.fvd import prefix_distances
from mtvcraft_cli.eval.pieces import HUMANVID_PREFIXES, LENGTH, disjoint, filled, sliding
from mtvcraft_cli.eval.poses import followed
from mtvcraft_cli.eval.protocols import TITLES, Protocol
from mtvcraft_cli.eval.psnr import EQUAL
from mtvcraft_cli.eval.score import ClipParts, Scorer
from mtvcraft_cli.eval.views import View

Array = npt.NDArray[np.float64]
Rows = Iterator[tuple[str, npt.NDArray[Any]]]
"""Features clip by clip, each with the clip's id."""


@dataclass(kw_only=True)
class Totals:
    """What a system got."""

    values: dict[str, float | None]
    """By metric; None where there is nothing to compute it from."""
    samples: dict[str, Any]
    """How many of what: frames, pieces, rows on each side of every distance."""
    clips: list[dict[str, Any]] = field(default_factory=list)
    """Values of every clip, as plain data."""
    intervals: dict[str, tuple[float, float]] | None = None
    """Where 95 % of bootstrap samples lie, of what is averaged over clips; None where that wasn't asked for."""
    warnings: list[str] = field(default_factory=list)


def totals_of(clips: Sequence[ClipParts], scorer: Scorer, name: str, *, intervals: bool = False) -> Totals:
    """Average what has a value per frame, and pool what is a distance of distributions over all clips.

    Features are read clip by clip, so memory doesn't grow with the clips.

    Args:
        clips: in any order.
        scorer: that scored them.
        name: of the system.
        intervals: whether to draw clips anew many times, to see how far the averages spread.
    """
    ordered = sorted(clips, key=lambda clip: clip.id)
    values: dict[str, float | None] = {}
    for key in ordered[0].values if ordered else []:
        each = [clip.values[key] for clip in ordered]
        values[key] = float(
            np.mean([one.mean() for one in each]) if scorer.protocol.average == "clips" else np.concatenate(each).mean()
        )
    found = Totals(
        values=values,
        samples={
            "clips": len(ordered),
            "frames": sum(len(clip.pair.truth.places) for clip in ordered),
            "frames_equal_to_the_truth": sum(_equal(clip) for clip in ordered),
        },
        clips=[_told(clip, scorer) for clip in ordered],
        warnings=[line for clip in ordered for line in clip.pair.warnings],
    )
    if "flicker" in scorer.metrics:
        _add_flicker(ordered, found)
    if scorer.estimator is not None:
        _add_follow(ordered, scorer, found)
    more = {key for told in found.clips for key in told["values"]} - found.values.keys()
    found.values |= {key: _mean_over_clips(found.clips, key, scorer.protocol.average) for key in sorted(more)}
    if intervals:
        found.intervals = _intervals(found, scorer.protocol.average)
    for key, sides in _distances(ordered, scorer).items():
        found.values[key] = _distance(key, sides, name, found)
    if "fvd" in scorer.metrics and scorer.protocol.fvd == "prefixes":
        terms = {clip.id: _prefix_terms(clip) for clip in ordered}
        every = [term for own in terms.values() for term in own]
        found.values["fvd"] = float(np.mean(every)) if every else None
        found.samples["fvd"] = {"values": len(every)}
        _tell_of_short([id for id, own in terms.items() if not own], f"{HUMANVID_PREFIXES[0]} frames", name, found)
    elif "fvd" in scorer.metrics:
        counts = {clip.id: len(fvd_pieces(clip.pair.truth, scorer.protocol)) for clip in ordered}
        found.samples["pieces"] = sum(counts.values())
        short = [id for id, count in counts.items() if not count]
        _tell_of_short(short, f"{LENGTH} frames that follow each other", name, found)
    return found


def _tell_of_short(short: list[str], needed: str, name: str, found: Totals) -> None:
    """List the clips that are too short for FVD."""
    found.samples["clips_without_a_piece"] = short
    if short:
        found.warnings.append(f"{name}: {len(short)} clips have no {needed}, and no part in FVD: {', '.join(short)}")


def _add_flicker(clips: Sequence[ClipParts], found: Totals) -> None:
    for clip, told in zip(clips, found.clips, strict=True):
        made, truth = (clip.features("restless", side) for side in ("made", "truth"))
        if len(made) and len(truth):  # two frames don't flicker
            told["values"]["flicker"] = float(made.mean() - truth.mean())


def _add_follow(clips: Sequence[ClipParts], scorer: Scorer, found: Totals) -> None:
    """Each result's motion against its driver's, and against the next clip's as the control; in lengths of a leg."""
    for place, (clip, told) in enumerate(zip(clips, found.clips, strict=True)):
        made, own = scorer.pose(clip.pair.made), scorer.pose(clip.pair.truth)
        near = followed(made, own)
        if near is None:
            found.warnings.append(f"clip `{clip.id}`: nobody to follow was found")
            continue
        told["values"] |= {"motion_follow": near.legs, "motion_follow_mm": near.mm, "motion_follow_found": near.found}
        other = clips[(place + 1) % len(clips)]
        control = followed(made, scorer.pose(other.pair.truth)) if len(clips) > 1 else None
        if control is not None:
            told["values"]["motion_follow_other"] = control.legs


def _mean_over_clips(clips: Sequence[Mapping[str, Any]], key: str, average: str) -> float | None:
    known = [(clip["values"][key], clip["frames"]) for clip in clips if key in clip["values"]]
    if not known:
        return None
    values, frames = zip(*known, strict=True)
    return float(np.average(values, weights=frames if average == "frames" else None))


def _intervals(found: Totals, average: str) -> dict[str, tuple[float, float]]:
    intervals = {}
    for key in found.values:
        known = [(clip["values"][key], clip["frames"]) for clip in found.clips if key in clip["values"]]
        weights = [frames for _, frames in known] if average == "frames" else None
        if (ends := mean_interval([value for value, _ in known], weights)) is not None:
            intervals[key] = ends
    return intervals


def floor_of(clips: Sequence[ClipParts], scorer: Scorer) -> Totals:
    """Measure the ground truth's even pieces of 16 frames against its odd ones: what even a perfect system may get."""
    found = Totals(values={}, samples={})
    ordered = sorted(clips, key=lambda clip: clip.id)
    for key, sides in _distances(ordered, scorer, halves=True).items():
        found.values[key] = _distance(key, sides, "floor", found)
    return found


def fvd_pieces(view: View, protocol: Protocol) -> list[tuple[int, ...]]:
    """The pieces of one side of a clip that count in FVD: each side has numbers, and gaps, of its own."""
    cut = sliding if protocol.fvd == "sliding" else disjoint
    return list(map(tuple, cut(view.numbers).tolist()))


def _distances(clips: Sequence[ClipParts], scorer: Scorer, *, halves: bool = False) -> dict[str, tuple[Rows, Rows]]:
    """For each distance the features of both sides; with `halves` even against odd pieces of the truth."""
    protocol, metrics = scorer.protocol, scorer.metrics
    found: dict[str, Any] = {}
    if "fid" in metrics:
        found["fid"] = lambda clip, side, half: _frames(clip, side, half)
    if "fvd" in metrics and protocol.fvd != "prefixes":
        found["fvd"] = lambda clip, side, half: _pieces(clip, side, half, scorer, fvd_pieces(clip.side(side), protocol))
        if protocol.fid_vid == "mean":
            found["fid_vid_i3d"] = lambda clip, side, half: _mean(
                _pieces(clip, side, half, scorer, list(map(tuple, filled(len(clip.pair.truth.places)).tolist())))
            )
    if "fid_vid" in metrics and protocol.fid_vid == "mean":
        found["fid_vid"] = lambda clip, side, half: _mean(_rows_of(clip.features("resnet3d", side), half))
    elif "fid_vid" in metrics and protocol.fid_vid == "sliding":
        found["fid_vid"] = lambda clip, side, half: _windows(clip, side, half)
    sides = (("truth", 0), ("truth", 1)) if halves else (("truth", None), ("made", None))
    one, other = sides
    return {key: (_each(clips, rows, *one), _each(clips, rows, *other)) for key, rows in found.items()}


def _each(clips: Sequence[ClipParts], rows: Any, side: str, half: int | None) -> Rows:
    for clip in clips:
        yield clip.id, rows(clip, side, half)


def _frames(clip: ClipParts, side: str, half: int | None) -> npt.NDArray[Any]:
    rows = clip.features("inception", side)
    return rows if half is None else rows[np.arange(len(rows)) // LENGTH % 2 == half]


def _pieces(
    clip: ClipParts, side: str, half: int | None, scorer: Scorer, wanted: Sequence[tuple[int, ...]]
) -> npt.NDArray[Any]:
    rows = clip.features("i3d", side)
    places = {tuple(piece): place for place, piece in enumerate(scorer.pieces(clip.side(side)).tolist())}
    if half is not None:  # windows that overlap would stand on both sides
        wanted = [piece for piece in wanted if piece[0] % LENGTH == 0 and piece[0] // LENGTH % 2 == half]
    return rows[[places[piece] for piece in wanted]]


def _windows(clip: ClipParts, side: str, half: int | None) -> npt.NDArray[Any]:
    rows = clip.features("resnet3d", side)
    if half is None:
        return rows
    starts = sliding(clip.side(side).numbers)[:, 0]
    return rows[(starts % LENGTH == 0) & (starts // LENGTH % 2 == half)]


def _rows_of(rows: npt.NDArray[Any], half: int | None) -> npt.NDArray[Any]:
    return rows if half is None else rows[half::2]


def _mean(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A clip's one point."""
    return rows.mean(0, dtype=np.float64)[None] if len(rows) else rows


def _distance(key: str, sides: tuple[Rows, Rows], name: str, found: Totals) -> float | None:
    moments = [Moments("ground truth"), Moments(name)]
    for side, rows in zip(moments, sides, strict=True):
        for clip, features in rows:
            if len(features):
                side.add(features, clip)
    found.samples[key] = {"truth": moments[0].count, "made": moments[1].count}
    try:
        return distance(*moments)
    except MtvcraftError as error:
        found.warnings.append(f"{TITLES.get(key, key)} has no value: {error.message}")
        return None


def _prefix_terms(clip: ClipParts) -> list[float]:
    made, truth = (clip.features("prefixes", side).astype(np.float64) for side in ("made", "truth"))
    return prefix_distances(made, truth).tolist()


def _equal(clip: ClipParts) -> int:
    return int((clip.values["psnr"] == EQUAL).sum()) if "psnr" in clip.values else 0


def _told(clip: ClipParts, scorer: Scorer) -> dict[str, Any]:
    truth, made = clip.pair.truth, clip.pair.made
    width, height = truth.size_px
    told: dict[str, Any] = {
        "id": clip.id,
        "frames": len(truth.places),
        "width": width,
        "height": height,
        "truth": _side(truth),
        "made": _side(made),
        "equal_frames": _equal(clip),
        "values": {key: float(values.mean()) for key, values in sorted(clip.values.items())},
    }
    if "fvd" in scorer.metrics:
        if scorer.protocol.fvd == "prefixes":
            terms = _prefix_terms(clip)
            told |= {"pieces": len(terms), "fvd_mean_term": float(np.mean(terms)) if terms else None}
        else:
            sides = [
                _pieces(clip, side, None, scorer, fvd_pieces(clip.side(side), scorer.protocol))
                for side in ("made", "truth")
            ]
            term = mean_term(*sides) if all(map(len, sides)) else None
            told |= {"pieces": len(sides[1]), "fvd_mean_term": term}
    return told


def _side(view: View) -> Mapping[str, Any]:
    return {
        "path": view.source.where,
        "kind": view.source.kind,
        "frames": len(view.source.frame_numbers()),
        "size_px": list(view.source.frame_size_px()),
        "crop_px": view.box and list(view.box),
        "sha256": view.sha256,
    }
