"""The only place that prints: results to stdout, everything else to stderr."""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mtvcraft_cli.device.memory import peak_memory

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")
ProgressKind = Literal["auto", "bar", "plain", "json", "none"]
PLAIN_EVERY_S = 10.0
"""Without a terminal a long stage says one line this often."""


@dataclass
class Console:
    """How much is said, and in which form; set once per run from the common options."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    progress: ProgressKind = "auto"


console = Console()


def say(text: str) -> None:
    """A line for the person at the terminal, to stderr; silent under `-q`."""
    if not console.quiet:
        _to_stderr(text)


def detail(text: str) -> None:
    """A line that only `-v` shows."""
    if console.verbose:
        _to_stderr(text)


def warn(text: str) -> None:
    """A line that `-q` doesn't silence: something was assumed or may go wrong."""
    _to_stderr(f"warning: {text}")


def fail(message: str, hint: str) -> None:
    """The two lines that every error ends in."""
    _to_stderr(f"error: {message}")
    _to_stderr(f"hint: {hint}")


def answer(text: str, data: Any) -> None:
    """The result, to stdout: `text` for people and pipes, `data` under `--json`."""
    _print(json.dumps(data, indent=2, ensure_ascii=False) if console.json else text, sys.stdout)


def part_of_answer(text: str) -> None:
    """A line of a result that comes bit by bit, to stdout; nothing under `--json`, where `answer` gives all at once."""
    if not console.json:
        _print(text, sys.stdout)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Lay rows out under their column names, as wide as they need to be."""
    lines = [columns, *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _to_stderr(text: str) -> None:
    _print(text, sys.stderr)


def _print(text: str, stream: Any) -> None:
    """Print at once. Where whoever read it has gone, as `head` goes, work goes on and the rest is said to nobody."""
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def watch(items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
    """Show how far a loop has come, in the form that `--progress` asks for.

    Args:
        items: what the loop walks over; an item with a frame axis (a NumPy array) counts as that many.
        stage: a word or two for the user.
        total: how many units there will be, where that is known.
    """
    kind = _kind()
    if kind == "none":
        return iter(items)
    return {"bar": _bar, "plain": _plain, "json": _json}[kind](items, stage, total)


def _kind() -> ProgressKind:
    if console.progress == "auto":
        return "none" if console.quiet else "bar" if sys.stderr.isatty() else "plain"
    return console.progress


def _units(item: object) -> int:
    shape = getattr(item, "shape", None)
    return int(shape[0]) if shape else 1


_live: list["Progress"] = []
"""The display that is up; a bar within a bar belongs to the same."""


def _bar(items: Iterable[T], stage: str, total: int | None) -> Iterator[T]:
    with _display() as progress:
        task = progress.add_task(stage, total=total, speed="")
        started = time.monotonic()
        for item in items:
            yield item
            progress.advance(task, _units(item))
            passed = time.monotonic() - started
            progress.update(task, speed=f"{progress.tasks[task].completed / max(passed, 1e-9):.1f}/s")
        if len(_live) > 1:
            progress.remove_task(task)


@contextmanager
def _display() -> "Iterator[Progress]":
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    if _live:
        _live.append(_live[0])
        try:
            yield _live[0]
        finally:
            _live.pop()
        return
    # Results go to stdout: where that is a pipe, Rich must not lead them to the terminal.
    screen = RichConsole(stderr=True)
    with Progress(*columns, console=screen, redirect_stdout=sys.stdout.isatty()) as progress:
        _live.append(progress)
        try:
            yield progress
        finally:
            _live.pop()


def _plain(items: Iterable[T], stage: str, total: int | None) -> Iterator[T]:
    started = said = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += _units(item)
        now = time.monotonic()
        if now - said >= PLAIN_EVERY_S:
            said = now
            of = f" of {total}" if total else ""
            left_s = _left_s(done, total, now - started)
            left = "" if left_s is None else f", {left_s:.0f} s left"
            _to_stderr(f"{stage}: {done}{of}, {done / (now - started):.1f}/s{left}")


def _json(items: Iterable[T], stage: str, total: int | None) -> Iterator[T]:
    started = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += _units(item)
        line = {
            "stage": stage,
            "done": done,
            "total": total,
            "eta_s": _left_s(done, total, time.monotonic() - started),
            "peak_memory_bytes": peak_memory(),
        }
        _to_stderr(json.dumps(line))


class Board:
    """Shows how far several workers have come while `watch` shows how far all of them have, in the same form."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}
        self._begun: dict[tuple[str, str], float] = {}
        self._bars: dict[str, TaskID] = {}

    def show(self, worker: str, stage: str, done: int, total: int | None) -> None:
        """A worker has come so far."""
        kind = _kind()
        if kind == "json":
            passed_s = time.monotonic() - self._begun.setdefault((worker, stage), time.monotonic())
            left_s = _left_s(done, total, passed_s)
            _to_stderr(json.dumps({"worker": worker, "stage": stage, "done": done, "total": total, "eta_s": left_s}))
        elif kind == "bar" and _live:
            if worker not in self._bars:
                self._bars[worker] = _live[0].add_task(worker, total=total, speed="")
            _live[0].update(self._bars[worker], description=f"{worker}: {stage}", completed=done, total=total)
        elif kind == "plain" and time.monotonic() - self._said.get(worker, -PLAIN_EVERY_S) >= PLAIN_EVERY_S:
            self._said[worker] = time.monotonic()
            _to_stderr(f"{worker}: {stage}: {done}{f' of {total}' if total else ''}")


def _left_s(done: int, total: int | None, passed_s: float) -> float | None:
    return None if not total or not done else round(max(0, total - done) * passed_s / done, 1)
