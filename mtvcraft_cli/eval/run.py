"""`mtvcraft eval` of videos, the work: every clip of every system, one after the other or several at once."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.bench import Row
from mtvcraft_cli.eval.extract import Looks, Networks
from mtvcraft_cli.eval.score import ClipParts, Scorer
from mtvcraft_cli.eval.totals import Totals, floor_of, totals_of
from mtvcraft_cli.eval.views import Pair
from mtvcraft_cli.jobs.evaluation import PreparedEval, PreparedSystem
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.sidecar import versions


@dataclass(frozen=True, kw_only=True)
class SystemReport:
    """What a system got."""

    prepared: PreparedSystem
    totals: Totals
    failed: dict[str, str]
    """Clips that have no score, and why."""

    @property
    def name(self) -> str:
        """As the table calls it."""
        return self.prepared.system.name

    @property
    def from_video(self) -> bool:
        """Whether some of its frames had to be decoded from videos."""
        return any(pair.made.source.kind == "video" for pair in self.prepared.pairs)


@dataclass(kw_only=True)
class EvalReport:
    """What all systems got."""

    prepared: PreparedEval
    systems: list[SystemReport] = field(default_factory=list)
    floor: Totals | None = None
    seconds: float = 0.0

    @property
    def partly(self) -> bool:
        """Whether some clips have no score."""
        return any(system.failed for system in self.systems)

    @property
    def title(self) -> str:
        """What was measured, in a few words."""
        return self.prepared.title(max(len(system.totals.clips) for system in self.systems))

    @property
    def published(self) -> list[Row]:
        """The rows that belong beside these."""
        job = self.prepared.job
        rows = job.bench.published.get(job.protocol.name) if job.bench else None
        return [] if rows is None else rows.shown(job.rows)

    @property
    def warnings(self) -> list[str]:
        """Everything that a reader of the numbers should know, each thing once."""
        lines = [*self.prepared.warnings]
        for system in self.systems:
            lines += [*system.prepared.warnings, *system.totals.warnings]
        lines += [f"floor: {line}" for line in (self.floor.warnings if self.floor else ())]
        return list(dict.fromkeys(lines))

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain data: the same run gives the same, but for `times`."""
        from PIL import __version__ as pillow

        job, bench = self.prepared.job, self.prepared.job.bench
        published = bench.published.get(job.protocol.name) if bench else None
        return {
            **self.prepared.told(),
            "title": self.title,
            "versions": {**versions(), "pillow": pillow},
            "systems": [
                {
                    "name": system.name,
                    "preset": system.prepared.system.preset,
                    "baseline": system.prepared.system.baseline,
                    "decoded_from_video": system.from_video,
                    "totals": system.totals.values,
                    "intervals": system.totals.intervals,
                    "samples": system.totals.samples,
                    "clips": system.totals.clips,
                    "failed": system.failed,
                    "warnings": [*system.prepared.warnings, *system.totals.warnings],
                }
                for system in self.systems
            ],
            "floor": self.floor and {"totals": self.floor.values, "samples": self.floor.samples},
            "published": published
            and {
                "source": published.source,
                "psnr_scale": published.psnr_scale,
                "note": published.note,
                "marks": dict(published.marks),
                "rows": [{"model": row.model, **row.values, "mark": row.mark} for row in self.published],
            },
            "warnings": self.warnings,
            "times": {"wall_s": round(self.seconds, 3)},
        }


def run_evaluation(prepared: PreparedEval, watch: Watch, looks: Looks | None = None) -> EvalReport:
    """Score every system.

    Args:
        prepared: the checked job.
        watch: counts frames.
        looks: what asks the networks; None for the real ones.
    """
    started, job = time.monotonic(), prepared.job
    device = torch.device(prepared.device)
    scorer = Scorer(
        protocol=job.protocol,
        metrics=prepared.metrics,
        looks=looks or Networks(prepared.files, prepared.hashes, device),
        device=device.type,
        cache=prepared.cache,
        estimator=prepared.estimator,
    )
    report = EvalReport(prepared=prepared)
    everything = [(system, pair) for system in prepared.systems for pair in system.pairs]
    frames = sum(len(pair.truth.places) for _, pair in everything)
    scored = _scored([pair for _, pair in everything], scorer, job.jobs)
    results = list(watch(_counted(everything, scored), "score", frames))
    best: list[ClipParts] = []
    for system in prepared.systems:
        own = [result for result in results if result.system is system]
        clips = [result.clip for result in own if result.clip is not None]
        failed = {result.pair.truth.source.id: result.why for result in own if result.clip is None}
        totals = totals_of(clips, scorer, system.system.name, intervals=job.intervals)
        report.systems.append(SystemReport(prepared=system, totals=totals, failed={**system.failed, **failed}))
        best = max(best, clips, key=len)
    if job.floor:
        report.floor = floor_of(best, scorer)
    if not best:
        first = next(why for system in report.systems for why in system.failed.values())
        raise MtvcraftError(f"no clip could be scored: {first}", hint="mend the clips and run it again")
    report.seconds = time.monotonic() - started
    return report


@dataclass(frozen=True)
class _Result:
    """A clip that was scored or failed; counts as so many frames while it is watched."""

    system: PreparedSystem
    pair: Pair
    clip: ClipParts | None
    why: str = ""

    @property
    def shape(self) -> tuple[int]:
        return (len(self.pair.truth.places),)


def _counted(
    everything: list[tuple[PreparedSystem, Pair]], scored: Iterator[ClipParts | MtvcraftError]
) -> Iterator[_Result]:
    for (system, pair), result in zip(everything, scored, strict=True):
        if isinstance(result, MtvcraftError):
            yield _Result(system, pair, None, result.message)
        else:
            yield _Result(system, pair, result)


def _scored(pairs: list[Pair], scorer: Scorer, jobs: int) -> Iterator[ClipParts | MtvcraftError]:
    """Score clips in order; with several jobs the next ones are worked on meanwhile."""
    if jobs == 1:
        yield from map(_one(scorer), pairs)
        return
    with ThreadPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(_one(scorer), pairs)
        finally:
            scorer.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _one(scorer: Scorer) -> Callable[[Pair], ClipParts | MtvcraftError]:
    def score(pair: Pair) -> ClipParts | MtvcraftError:
        try:
            return scorer.score(pair)
        except MtvcraftError as error:
            return error

    return score
