"""How far a download has come: one bar for all files, in the form that `--progress` asks for."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

from mtvcraft_cli.cli.console import PLAIN_EVERY_S, ProgressKind, console
from mtvcraft_cli.device.memory import peak_memory

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S: Final = 0.5
"""At most this often `--progress json` says a line."""


class Bytes:
    """Counts bytes from any thread, and shows them."""

    def __init__(self, stage: str, kind: ProgressKind, bar: "Progress | None") -> None:
        self.stage, self.kind, self.bar = stage, kind, bar
        self.total = self.done = self.before = 0
        self.started = self.said = time.monotonic()
        self.lock = Lock()
        self.task = None if bar is None else bar.add_task(stage, total=None)

    def begin(self, total: int, done: int) -> None:
        """Start, or start anew; see `Meter`."""
        self.total, self.done, self.before = total, done, done
        self.started = self.said = time.monotonic()
        if self.bar is not None and self.task is not None:
            self.bar.reset(self.task, total=total or None, completed=done)

    def advance(self, count: int) -> None:
        """Tell of bytes that came; see `Meter`."""
        with self.lock:
            self.done += count
            self.total = max(self.total, self.done)  # where a size was not known
            if self.bar is not None and self.task is not None:
                self.bar.update(self.task, completed=self.done, total=self.total)
            now = time.monotonic()
            if now - self.said >= {"json": LINE_EVERY_S, "plain": PLAIN_EVERY_S}.get(self.kind, float("inf")):
                self.said = now
                self._say(now)

    def end(self) -> None:
        """Say the last line, where lines are said and bytes came."""
        if self.kind == "json" and self.total:
            self._say(time.monotonic())

    def _say(self, now: float) -> None:
        speed = (self.done - self.before) / max(now - self.started, 1e-9)
        left_s = round((self.total - self.done) / speed, 1) if speed > 0 else None
        if self.kind == "json":
            line = {"stage": self.stage, "done": self.done, "total": self.total, "eta_s": left_s}
            print(json.dumps({**line, "peak_memory_bytes": peak_memory()}), file=sys.stderr, flush=True)
            return
        left = "" if left_s is None else f", {left_s:.0f} s left"
        of = f"{self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB"
        print(f"{self.stage}: {of}, {speed / 1e6:.1f} MB/s{left}", file=sys.stderr, flush=True)


@contextmanager
def metered(stage: str) -> Iterator[Bytes]:
    """Show the bytes of one stage."""
    kind = console.progress
    if kind == "auto":
        kind = "none" if console.quiet else "bar" if sys.stderr.isatty() else "plain"
    if kind != "bar":
        meter = Bytes(stage, kind, None)
        yield meter
        meter.end()
        return
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=RichConsole(stderr=True), transient=True) as bar:
        yield Bytes(stage, kind, bar)
