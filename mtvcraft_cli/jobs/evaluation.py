"""`mtvcraft eval` of videos, before the work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.bench import Bench, Rows
from mtvcraft_cli.eval.files import NEEDS, metric_files
from mtvcraft_cli.eval.layout import Clips, check_pairing, crop_box_of, find_clips, some
from mtvcraft_cli.eval.protocols import MORE, TABLE, TITLES, Protocol
from mtvcraft_cli.eval.sources import Made, Source
from mtvcraft_cli.eval.views import Pair, pair_up
from mtvcraft_cli.jobs.drive import Estimator
from mtvcraft_cli.jobs.weights import Supply
from mtvcraft_cli.sidecar import check_ending, check_folders, check_target

Baseline = Literal["still", "ground-truth", "shift1"]
BASELINES: Final = get_args(Baseline)


@dataclass(frozen=True)
class System:
    """Whose results are scored: those in a folder, or a baseline that needs none."""

    name: str
    folder: Path | None = None
    baseline: Baseline | None = None
    preset: str | None = None
    """Of our own run, where one made the results."""


@dataclass(frozen=True, kw_only=True)
class EvalJob:
    """What was asked for."""

    truth: Path
    systems: Sequence[System]
    protocol: Protocol
    bench: Bench | None = None
    metrics: Sequence[str] = TABLE
    fit: Literal["stretch", "crop"] = "stretch"
    rows: Rows = "key"
    allow_missing: bool = False
    allow_length_mismatch: bool = False
    floor: bool = False
    intervals: bool = False
    jobs: int = 1
    device: str = "auto"
    weights: Path | None = None
    csv: Path | None = None
    html: Path | None = None
    force: bool = False
    command: str = ""
    made_failed: Mapping[str, str] = field(default_factory=dict)
    """Clips that our own run could not make, and why."""

    def told(self) -> dict[str, Any]:
        """The settings that numbers depend on, as plain data."""
        return {
            "metrics": list(self.metrics),
            "fit": self.fit,
            "allow_missing": self.allow_missing,
            "allow_length_mismatch": self.allow_length_mismatch,
        }


@dataclass(frozen=True)
class PreparedSystem:
    """The clips of a system that are to be scored."""

    system: System
    pairs: Sequence[Pair]
    failed: Mapping[str, str]
    """Clips that can't be scored, and why."""
    warnings: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class PreparedEval:
    """A job that has passed every check."""

    job: EvalJob
    systems: Sequence[PreparedSystem]
    missing: Sequence[str]
    """Clips of the bench that the ground truth lacks."""
    warnings: Sequence[str]
    metrics: frozenset[str]
    """What is computed: what was asked for, and what comes with it."""
    files: Mapping[str, Path]
    """Networks, by name."""
    hashes: Mapping[str, str]
    device: str
    cache: Cache
    estimator: Estimator | None = None
    """Who finds people, for motion-follow."""

    @property
    def clips(self) -> int:
        """How many clips the ground truth has of those wanted."""
        return len({id for system in self.systems for id in _ids(system)})

    @property
    def wanted(self) -> int:
        """How many clips there should be: those of the bench, or all of the ground truth."""
        if self.job.bench is not None:
            return self.job.bench.count
        return len({id for system in self.systems for id in (*system.failed, *_ids(system))})

    def title(self, clips: int) -> str:
        """Say what is measured in a few words, on so many clips."""
        name = self.job.bench.title if self.job.bench else self.job.truth.resolve().name
        count = f"{clips} of {self.wanted}" if self.job.bench or clips < self.wanted else str(clips)
        return f"{name}, protocol {self.job.protocol.name}, {count} clips"

    def told(self) -> dict[str, Any]:
        """What would be done, as plain data."""
        return {
            "bench": self.job.bench and self.job.bench.name,
            "protocol": self.job.protocol.told(),
            "settings": self.job.told(),
            "device": self.device,
            "networks": {
                name: {"file": path.name, "sha256": self.hashes[name]} for name, path in sorted(self.files.items())
            },
            "clips": self.clips,
            "clips_missing": list(self.missing),
            "systems": [
                {"name": each.system.name, "clips": [pair.truth.source.id for pair in each.pairs]}
                for each in self.systems
            ],
        }

    def plan_text(self) -> str:
        """What would be done, in a few lines."""
        lines = [self.title(self.clips)]
        for each in self.systems:
            frames = sum(len(pair.truth.places) for pair in each.pairs)
            lines.append(f"{each.system.name}: {len(each.pairs)} clips, {frames} frames")
        lines.append(f"metrics: {', '.join(self.job.metrics)}; on {self.device}")
        return "\n".join(lines)


def _ids(system: PreparedSystem) -> list[str]:
    return [pair.truth.source.id for pair in system.pairs]


@dataclass
class _Truth:
    """The ground truth as it was found."""

    clips: Clips
    ids: list[str]
    missing: list[str]
    warnings: list[str] = field(default_factory=list)


def prepare_eval(job: EvalJob, cache: Cache, supply: Supply | None = None) -> PreparedEval:
    """Check a job from the cheapest to the dearest question.

    Args:
        job: what was asked.
        cache: where features are kept.
        supply: gets networks that are missing; None gets none.

    Raises:
        MtvcraftError: exit 2, 6 or 4, in this order.
    """
    means = find_means(job, supply)
    truth = _find_truth(job)
    systems = [_prepare_system(job, system, truth) for system in job.systems]
    if not any(system.pairs for system in systems):
        reasons = [f"{id}: {why}" for system in systems for id, why in system.failed.items()]
        raise MtvcraftError(
            f"no clip can be scored: {reasons[0] if reasons else 'there is none'}",
            hint="mend the clips; `mtvcraft eval --explain` shows the layout",
        )
    return PreparedEval(
        job=job,
        systems=systems,
        missing=truth.missing,
        warnings=truth.warnings,
        metrics=means.metrics,
        files=means.files,
        hashes={name: cache.sha256_of(path) for name, path in means.files.items()},
        device=means.device,
        cache=cache,
        estimator=means.estimator,
    )


@dataclass(frozen=True, kw_only=True)
class Means:
    """With what it is measured; known before there is anything to measure."""

    device: str
    metrics: frozenset[str]
    """What is computed: what was asked for, and what comes with it."""
    files: Mapping[str, Path]
    """Networks, by name."""
    estimator: Estimator | None
    """Who finds people, for motion-follow."""


def find_means(job: EvalJob, supply: Supply | None = None) -> Means:
    """Check what can be checked of a job before a clip is looked at, and before results are made.

    Args:
        job: what was asked; the folder of results that our own run makes needn't be there.
        supply: gets networks that are missing; None gets none.

    Raises:
        MtvcraftError: exit 2 or 6, in this order.
    """
    check_folders(weights=job.weights, trust_file=None)
    _check_usage(job)
    from mtvcraft_cli.device.place import choose_device

    device = str(choose_device(job.device))
    metrics = needed(job)
    files = metric_files(metrics, job.weights, supply)
    if "lpips" in metrics and job.protocol.name == "mtvcraft":
        try:
            files |= metric_files(["lpips_alex"], job.weights)
            metrics.add("lpips_alex")
        except MtvcraftError:  # an alternative that nobody asked for
            pass
    estimator = None
    if "motion_follow" in metrics:
        from mtvcraft_cli.jobs.drive import DriveSettings, choose_estimator

        folder = job.truth if job.truth.is_dir() else job.truth.parent
        estimator = choose_estimator(folder, DriveSettings(weights=job.weights))
    return Means(device=device, metrics=frozenset(metrics), files=files, estimator=estimator)


def needed(job: EvalJob) -> set[str]:
    """The metrics that are computed of those asked for: a protocol may not have one."""
    return {metric for metric in job.metrics if metric != "fid_vid" or job.protocol.fid_vid is not None}


def _check_usage(job: EvalJob) -> None:
    """Refuse what can't be meant (exit 2)."""
    if not job.metrics:
        raise MtvcraftError("no metric is named", hint="write it like `--metrics psnr,ssim`", exit=Exit.USAGE)
    known = (*TABLE, *MORE, *NEEDS)
    for metric in job.metrics:
        if metric not in known:
            told = ", ".join(name.replace("_", "-") for name in dict.fromkeys(known))
            raise MtvcraftError(f"no metric is called `{metric}`", hint=f"there are {told}", exit=Exit.USAGE)
    if not needed(job):
        raise MtvcraftError(
            f"protocol {job.protocol.name} has no {TITLES[job.metrics[0]]}",
            hint="choose others with `--metrics`, or another `--protocol`",
            exit=Exit.USAGE,
        )
    names = [system.name for system in job.systems]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MtvcraftError(
            f"two systems are called `{twice[0]}`", hint="name them apart: `--pred NAME=DIR`", exit=Exit.USAGE
        )
    given = [system.folder for system in job.systems if system.folder is not None and system.preset is None]
    for folder in (job.truth, *given):
        if not folder.exists():
            raise MtvcraftError(f"there is no folder `{folder}`", hint="check the path", exit=Exit.USAGE)
    for path, ending in ((job.csv, ".csv"), (job.html, ".html")):
        if path is not None:
            check_ending(path, ending)
            check_target(path, force=job.force, made=False)


def _find_truth(job: EvalJob) -> _Truth:
    clips = find_clips(job.truth)
    ids = sorted([*clips.sources, *clips.broken])
    truth = _Truth(clips, ids, [], list(clips.remarks))
    if job.bench is not None:
        truth.ids, truth.missing = job.bench.wanted(ids, job.truth)
        others = sorted(set(ids) - set(truth.ids))
        if not truth.ids:
            raise MtvcraftError(
                f"`{job.truth}` holds no clip of bench {job.bench.name}: {some(ids)}",
                hint=f"`mtvcraft eval --bench {job.bench.name} --explain` lists them",
            )
        if others:
            truth.warnings.append(f"left out, as they don't belong to bench {job.bench.name}: {some(others)}")
        if truth.missing:
            truth.warnings.append(f"missing in the ground truth: {some(truth.missing)}")
    return truth


def _prepare_system(job: EvalJob, system: System, truth: _Truth) -> PreparedSystem:
    failed: dict[str, str] = {}
    warnings: list[str] = []
    made: dict[str, Source] = {}
    if system.baseline is not None:
        sources = truth.clips.sources
        made = {id: Made(sources[id], system.baseline) for id in truth.ids if id in sources}
        failed = {id: error.message for id, error in truth.clips.broken.items() if id in truth.ids}
    else:
        assert system.folder is not None
        found = find_clips(system.folder)
        everything = sorted([*found.sources, *found.broken])
        wanted = [id for id in everything if job.bench is None or id not in truth.clips.sources or id in truth.ids]
        expected = [id for id in truth.ids if system.preset is None or id not in job.made_failed]
        both, left_out = check_pairing(expected, wanted, system.name, allow_missing=job.allow_missing)
        remarks = found.remarks if system.preset is None else ()  # our own run leaves both
        warnings += [f"{system.name}: {line}" for line in remarks] + left_out
        broken = {**truth.clips.broken, **found.broken}
        failed = {id: broken[id].message for id in both if id in broken}
        failed |= job.made_failed if system.preset is not None else {}
        made = {id: found.sources[id] for id in both if id not in broken}
    pairs = []
    for id, source in made.items():
        box = crop_box_of(system.folder, id) if system.folder is not None and system.folder.is_dir() else None
        try:
            pairs.append(
                pair_up(
                    truth.clips.sources[id],
                    source,
                    job.protocol,
                    fit=job.fit,
                    box=box,
                    allow_length_mismatch=job.allow_length_mismatch,
                )
            )
        except MtvcraftError as error:
            failed[id] = error.message
    bench = job.bench
    if job.protocol.size == "result" and bench is not None:
        others = [pair for pair in pairs if pair.made.source.frame_size_px() != bench.humanvid_px]
        if others:
            width, height = bench.humanvid_px
            warnings.append(
                f"{system.name}: the protocol's results are {width} x {height} pixels, and those of "
                f"{len(others)} clips are not"
            )
    return PreparedSystem(system, pairs, failed, warnings)
