"""`eval --html`: one page with the table, plots, and the worst and best clips side by side; it loads nothing."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from mtvcraft_cli.eval.plots import COLOURS, Bar, bars, dots
from mtvcraft_cli.eval.protocols import TABLE, TITLES, best_of
from mtvcraft_cli.eval.report import Table, cell, table_of
from mtvcraft_cli.eval.run import EvalReport
from mtvcraft_cli.eval.views import Pair
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.progress import Watch, silent

PAGE: Final = Path(__file__).with_name("page.html")
SHOWN_CLIPS: Final = 2
"""So many of the worst, and so many of the best."""
MOST_FRAMES: Final = 60
PANEL_PX: Final = 220
"""Height of each picture, at most."""
PLOTTED_CLIPS: Final = 40
RATE: Final = 15
"""Frames a second of the clips on the page."""
STRENGTH: Final = 4
JPEG: Final = 80


def write_page(path: Path, report: EvalReport, watch: Watch = silent) -> None:
    """Write the page, whole or not at all. It may run no script but its own and may load nothing.

    Args:
        path: where it goes.
        report: what was scored; the frames of a few clips are read again.
        watch: counts those clips.
    """
    table = table_of(report)
    clips = list(_chosen(report))
    shown = [_told(*each) for each in watch(clips, "page", len(clips))]
    page = PAGE.read_text(encoding="utf-8")
    data = json.dumps({"rate": RATE, "clips": shown}, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "policy": _policy(page),
        "title": html.escape(table.title),
        "about": _paragraphs(_about(report)),
        "table": _table(table),
        "notes": _paragraphs([*table.notes, *report.warnings]),
        "systems": "".join(_by_system(report)),
        "clips": "".join(_by_clip(report)),
        "hidden": "" if shown else " hidden",
        "data": data,
    }
    write_text_whole(path, re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page))


def _about(report: EvalReport) -> list[str]:
    from mtvcraft_cli import __version__

    prepared = report.prepared
    told = f"mtvcraft {__version__}, on {prepared.device}"
    files = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in sorted(prepared.hashes.items()))
    return [f"{told}; networks: {files}" if files else told]


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in (*table.columns, "", ""))
    rows = []
    for row in table.rows:
        cells = "".join(
            f'<td class="best">{html.escape(text)}</td>' if place in row.best else f"<td>{html.escape(text)}</td>"
            for place, text in enumerate(row.cells)
        )
        words = "".join(f'<td class="words">{html.escape(text)}</td>' for text in (row.mark, row.kind))
        rows.append(f'<tr class="{row.kind}"><td>{html.escape(row.model)}</td>{cells}{words}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _metrics(report: EvalReport) -> list[str]:
    asked = report.prepared.job.metrics
    return [metric for metric in dict.fromkeys((*TABLE, *asked)) if metric in asked]


def _by_system(report: EvalReport) -> list[str]:
    plots = []
    for metric in _metrics(report):
        rows = [
            Bar(row.model, value, cell(value, metric), "published")
            for row in report.published
            if (value := row.values.get(metric)) is not None
        ]
        rows += [
            Bar(system.name, value, cell(value, metric), f"s{number % COLOURS}")
            for number, system in enumerate(report.systems)
            if (value := system.totals.values.get(metric)) is not None
        ]
        if rows:
            plots.append(bars(TITLES.get(metric, metric), rows, best_of(metric).words))
    return plots


def _by_clip(report: EvalReport) -> list[str]:
    plots = []
    ids = sorted({clip["id"] for system in report.systems for clip in system.totals.clips})
    shown = ids[:PLOTTED_CLIPS]
    names = {key: TITLES.get(key, key) for key in _metrics(report)}
    names["fvd_mean_term"] = "FVD, the part of the means alone"
    for key, title in names.items():
        series = []
        for system in report.systems:
            known = {clip["id"]: clip for clip in system.totals.clips}
            series.append([_value(known.get(clip), key) for clip in shown])
        if any(value is not None for values in series for value in values):
            plots.append(dots(title, shown, series))
    if plots and len(ids) > len(shown):
        plots.insert(0, f"<p>The first {len(shown)} of {len(ids)} clips.</p>")
    return plots


def _chosen(report: EvalReport) -> list[tuple[Pair, str]]:
    """The worst and best clips by PSNR, or by what else has a value per clip, of the first system with a folder."""
    systems = sorted(report.systems, key=lambda system: system.prepared.system.folder is None)
    system = systems[0]
    key = next((key for key in ("psnr", "ssim", "lpips") if key in system.totals.values), None)
    if key is None:
        return []
    ranked = sorted(system.totals.clips, key=lambda clip: best_of(key).key(clip["values"][key]))
    few = min(SHOWN_CLIPS, (len(ranked) + 1) // 2)
    pairs = {pair.truth.source.id: pair for pair in system.prepared.pairs}
    picked = [("worst", clip) for clip in ranked[:few]]
    picked += [("best", clip) for clip in ranked[max(few, len(ranked) - few) :][::-1]]
    values = [cell(clip["values"][key], key) for _, clip in picked]
    return [
        (pairs[clip["id"]], f"{word}: {clip['id']}, {TITLES[key]} {value}, {system.name}")
        for (word, clip), value in zip(picked, values, strict=True)
    ]


def _value(clip: Mapping[str, Any] | None, key: str) -> float | None:
    if clip is None:
        return None
    value: float | None = clip.get(key) if key == "fvd_mean_term" else clip["values"].get(key)
    return value


def _told(pair: Pair, caption: str) -> dict[str, Any]:
    """A clip as JPEG pictures, each with truth, result and difference beside one another."""
    count = len(pair.truth.places)
    wanted = set(np.unique(np.linspace(0, count - 1, min(count, MOST_FRAMES)).round().astype(int)).tolist())
    frames, size, place = [], (0, 0), 0
    for truth, made in zip(pair.truth.batches(), pair.made.batches(), strict=True):
        for one, other in zip(truth, made, strict=True):
            if place in wanted:
                picture = _panels(one, other)
                size = picture.size
                out = BytesIO()
                picture.save(out, "JPEG", quality=JPEG)
                frames.append(base64.b64encode(out.getvalue()).decode("ascii"))
            place += 1
    return {"caption": caption, "size_px": list(size), "frames": frames}


def _panels(truth: npt.NDArray[np.uint8], made: npt.NDArray[np.uint8]) -> Image.Image:
    apart = np.clip(128 + STRENGTH * (made.astype(np.int16) - truth), 0, 255).astype(np.uint8)
    height, width = truth.shape[:2]
    scale = min(1.0, PANEL_PX / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    panels = [Image.fromarray(each).resize(size, Image.Resampling.BOX) for each in (truth, made, apart)]
    whole = Image.new("RGB", (3 * size[0] + 8, size[1]))
    for number, panel in enumerate(panels):
        whole.paste(panel, (number * (size[0] + 4), 0))
    return whole


def _policy(page: str) -> str:
    """Let the page's own script and style run, by their hashes, show pictures inside of it, and nothing else at all."""
    hashes = {}
    for kind in ("script", "style"):
        [own] = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        hashes[kind] = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode("ascii")
    own = "; ".join(f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items())
    return f"default-src 'none'; img-src data:; {own}"
