"""Scores -> the table that people read, and the CSV with a row per clip."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from mtvcraft_cli.eval.bench import Bench
from mtvcraft_cli.eval.protocols import DIGITS, TABLE, TITLES, best_of
from mtvcraft_cli.files import write_text_whole

if TYPE_CHECKING:
    from mtvcraft_cli.eval.run import EvalReport

COLUMNS: Final = (
    *("id", "frames", "width", "height", "psnr", "psnr_uint8_wrap", "ssim", "lpips", "l1", "pieces"),
    *("fvd_mean_term", "model"),
)


@dataclass(frozen=True)
class TableRow:
    """A line of the table."""

    model: str
    cells: Sequence[str]
    mark: str
    kind: Literal["published", "measured", "floor"]
    best: frozenset[int] = frozenset()
    """Cells that hold the best measured value of their column."""


@dataclass(frozen=True)
class Table:
    """What is printed."""

    title: str
    columns: Sequence[str]
    rows: Sequence[TableRow]
    notes: Sequence[str]


def table_of(report: "EvalReport") -> Table:
    """Lay out what was published, then what was measured; only measured values compete for the best."""
    job = report.prepared.job
    metrics = [metric for metric in dict.fromkeys((*TABLE, *job.metrics)) if metric in job.metrics]
    rows = [
        TableRow(row.model, [cell(row.values.get(metric), metric) for metric in metrics], row.mark, "published")
        for row in report.published
    ]
    best = _best(report, metrics)
    for system in report.systems:
        values = system.totals.values
        cells = [cell(values.get(metric), metric) for metric in metrics]
        intervals = system.totals.intervals or {}
        for place, metric in enumerate(metrics):
            if metric in intervals:
                low, high = (cell(side, metric) for side in intervals[metric])
                cells[place] += f" [{low}, {high}]"
        own = frozenset(place for place, metric in enumerate(metrics) if system.name in best.get(metric, ()))
        rows.append(TableRow(system.name, cells, "", "measured", own))
    if report.floor is not None:
        values = report.floor.values
        rows.append(TableRow("floor", [cell(values.get(metric), metric) for metric in metrics], "", "floor"))
    columns = ["model", *map(_head, metrics)]
    return Table(_title(report), columns, rows, _notes(report, rows))


def published_table(bench: Bench, protocol: str, rows: str) -> Table:
    """What was published on a bench under a protocol, with nothing measured beside it."""
    published = bench.published.get(protocol)
    shown = published.shown(rows) if published else []  # type: ignore[arg-type]
    columns = ["model", *map(_head, TABLE)]
    lines = [
        TableRow(row.model, [cell(row.values[metric], metric) for metric in TABLE], row.mark, "published")
        for row in shown
    ]
    notes = [published.note] if published else [f"Nothing was published on it under the protocol {protocol}."]
    if published:
        marks = {mark for row in shown for mark in row.mark}
        notes = [*(f"{mark} {what}" for mark, what in published.marks.items() if mark in marks), *notes]
    return Table(f"{bench.title}, protocol {protocol}", columns, lines, notes)


def _head(metric: str) -> str:
    return f"{TITLES.get(metric, metric)} {best_of(metric).arrow}"


def _title(report: "EvalReport") -> str:
    samples = [system.totals.samples for system in report.systems]
    most = max(samples, key=lambda sample: int(sample["frames"]))
    parts = [report.title, f"{most['frames']} frames"]
    if "pieces" in most:
        parts.append(f"{most['pieces']} pieces")
    return ", ".join(parts)


def _best(report: "EvalReport", metrics: Sequence[str]) -> dict[str, list[str]]:
    """For each metric the names of the systems with the best value; baselines are no rivals."""
    found: dict[str, list[str]] = {}
    rivals = [system for system in report.systems if system.prepared.system.baseline is None]
    for metric in metrics:
        values = {each.name: value for each in rivals if (value := each.totals.values.get(metric)) is not None}
        if values:
            goodness = {name: best_of(metric).key(value) for name, value in values.items()}
            found[metric] = [name for name, good in goodness.items() if good == max(goodness.values())]
    return found


def _notes(report: "EvalReport", rows: Sequence[TableRow]) -> list[str]:
    job = report.prepared.job
    notes = []
    published = job.bench.published.get(job.protocol.name) if job.bench else None
    if published is not None and report.published:
        shown = {mark for row in rows for mark in row.mark}
        marks = [f"{mark} {what}" for mark, what in published.marks.items() if mark in shown]
        notes += ["   ".join(marks)] if marks else []
        notes.append(f"{published.note} `mtvcraft eval --bench {job.bench.name} --explain` says more.")  # type: ignore[union-attr]
    for system in report.systems:
        samples = system.totals.samples
        sides = {key: samples[key] for key in ("fid", "fvd", "fid_vid") if "made" in samples.get(key, {})}
        told = ", ".join(f"{TITLES[key]} {side['made']} against {side['truth']}" for key, side in sides.items())
        if told:
            notes.append(f"{system.name}: rows behind the distances: {told}")
        if (control := system.totals.values.get("motion_follow_other")) is not None:
            notes.append(f"{system.name}: motion-follow {control:.3f} against another clip's motion, in legs' lengths")
    if job.protocol.fvd == "prefixes" and "fvd" in job.metrics:
        notes.append("FVD of this protocol is a squared distance of two vectors per clip and length, averaged.")
    if videos := [system.name for system in report.systems if system.from_video]:
        notes.append(f"decoded from video: {', '.join(videos)}")
    if report.floor is not None:
        notes.append("floor: the ground truth's even pieces of 16 frames against its odd ones")
    if job.intervals:
        notes.append("[low, high]: 95 % of bootstrap samples over clips")
    return notes


def cell(value: float | None, metric: str) -> str:
    """Write a value with the digits that its metric has; `-` where there is none."""
    return "-" if value is None else f"{value:.{DIGITS.get(metric, 2)}f}"


def write_csv(path: Path, report: "EvalReport") -> None:
    """Write a row per clip and system; what wasn't measured stays empty."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for system in report.systems:
        for clip in system.totals.clips:
            known = {**clip, **clip["values"], "model": system.name}
            writer.writerow({key: known.get(key, "") if known.get(key) is not None else "" for key in COLUMNS})
    write_text_whole(path, text.getvalue())
