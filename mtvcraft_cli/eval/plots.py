"""Plots as SVG text: bars for systems, dots for clips."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 340
_LEFT, _RIGHT, _TOP, _ROW = 120, 52, 24, 20
COLOURS: Final = 4
"""Systems take turns through so many."""


@dataclass(frozen=True)
class Bar:
    """One system's value."""

    name: str
    value: float
    text: str
    style: str
    """A class of the page: `published`, or `s0` to `s3`."""


def bars(title: str, rows: Sequence[Bar], best: str) -> str:
    """Draw a bar per system, from 0 to the largest.

    Args:
        title: the metric's name.
        rows: at least one; none of them negative, or all start at the least.
        best: which way is better, in a word or two.
    """
    height = _TOP + _ROW * len(rows) + 6
    low, high = min(0.0, *(row.value for row in rows)), max(row.value for row in rows)
    span = (high - low) or 1.0
    parts = [_text(4, 15, f"{title} ({best})", "", bold=True)]
    for place, row in enumerate(rows):
        y = _TOP + _ROW * place
        wide = (WIDTH - _LEFT - _RIGHT) * (row.value - low) / span
        parts += [
            _text(_LEFT - 8, y + 12, _short(row.name), "faint" if row.style == "published" else "", end=True),
            f'<rect class="{row.style}" x="{_LEFT}" y="{y}" width="{wide:.1f}" height="{_ROW - 6}" rx="3"/>',
            _text(_LEFT + wide + 6, y + 12, row.text, ""),
        ]
    return _svg(height, title, parts)


def dots(title: str, clips: Sequence[str], series: Sequence[Sequence[float | None]]) -> str:
    """Draw a row per clip with a dot per system.

    Args:
        title: the metric's name.
        clips: their ids.
        series: of each system a value per clip; None where there is none.
    """
    known = [value for values in series for value in values if value is not None]
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    height = _TOP + _ROW * len(clips) + 20
    parts = [_text(4, 15, title, "", bold=True)]
    right = WIDTH - 16
    for place, clip in enumerate(clips):
        y = _TOP + _ROW * place + 8
        parts += [
            _text(_LEFT - 8, y + 4, _short(clip), "", end=True),
            f'<line class="line" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"/>',
        ]
        for number, values in enumerate(series):
            value = values[place]
            if value is not None:
                x = _LEFT + 6 + (right - _LEFT - 12) * (value - low) / span
                told = html.escape(f"{clip}: {value:.4g}")
                parts.append(
                    f'<circle class="s{number % COLOURS}" cx="{x:.1f}" cy="{y}" r="5"><title>{told}</title></circle>'
                )
    parts += [
        _text(_LEFT, height - 4, f"{low:.4g}", "faint"),
        _text(right, height - 4, f"{high:.4g}", "faint", end=True),
    ]
    return _svg(height, title, parts)


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{html.escape(title)}">'
    return head + "".join(parts) + "</svg>"


def _text(x: float | int, y: float | int, words: str, style: str, *, end: bool = False, bold: bool = False) -> str:
    kind = (f' class="{style}"' if style else "") + (' text-anchor="end"' if end else "")
    kind += ' font-weight="600"' if bold else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}">{html.escape(words)}</text>'


def _short(name: str) -> str:
    return name if len(name) <= 19 else f"{name[:18]}…"
