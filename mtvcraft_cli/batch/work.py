"""The jobs of a batch, one after the other: models and pose backends are loaded once and handed on."""

import gc
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from mtvcraft_cli.batch.results import Ended
from mtvcraft_cli.cache import Cache
from mtvcraft_cli.device.memory import held_memory
from mtvcraft_cli.errors import Exit, MtvcraftError, explained, stops
from mtvcraft_cli.jobs.animation import (
    AnimateJob,
    PreparedAnimation,
    check_asked,
    check_names,
    device_of,
    find_parts,
    prepare_animation,
)
from mtvcraft_cli.jobs.drive import DriveSettings, Estimator, choose_estimator, files_of, holds_motion
from mtvcraft_cli.jobs.speed import settled
from mtvcraft_cli.jobs.text import prompts_of
from mtvcraft_cli.jobs.weights import Supply
from mtvcraft_cli.progress import Watch

if TYPE_CHECKING:
    from mtvcraft_cli.runs.models import Loaded


@dataclass(frozen=True, kw_only=True)
class Task:
    """One job of a batch."""

    row: int
    where: str
    """For errors: `row 3 (line 4 of jobs.csv)`."""
    job: AnimateJob


def check_tasks(tasks: Sequence[Task]) -> list[tuple[Task, MtvcraftError]]:
    """What is wrong with the words of jobs, each alone and all together; no file is opened.

    Returns:
        For each job that can't be done what is wrong with it, in the order of the jobs.
    """
    wrong, writers = list[tuple[Task, MtvcraftError]](), dict[Path, Task]()
    for task in tasks:
        try:
            check_names(task.job)
            check_asked(task.job)
            for target in _targets(task.job):
                other = writers.setdefault(target.resolve(), task)
                if other is not task:
                    raise MtvcraftError(
                        f"writes `{target}`, which {other.where} writes as well",
                        hint="give each row an `output` of its own",
                        exit=Exit.USAGE,
                    )
        except MtvcraftError as error:
            wrong.append((task, error))
    for task in tasks:
        for path in (*task.job.inputs.values(), *_pictures_of(task.job.drive)):
            writer = writers.get(path.resolve())
            if writer is not None and writer is not task:
                found = MtvcraftError(
                    f"reads `{path}`, which {writer.where} writes",
                    hint="run the two one after the other, or give the output another name",
                    exit=Exit.USAGE,
                )
                wrong.append((task, found))
    return sorted(wrong, key=lambda each: each[0].row)


def check_devices(tasks: Sequence[Task]) -> tuple[dict[str, list[Task]], list[tuple[Task, MtvcraftError]]]:
    """Where jobs would work, and which can't be done there or not so fast; those that ask alike are looked at once.

    Returns:
        The jobs of each device, and what is wrong with the others, in the order of the jobs.
    """
    found, wrong = dict[str, list[Task]](), list[tuple[Task, MtvcraftError]]()
    known = dict[object, str | MtvcraftError]()
    for task in tasks:
        job = task.job
        asked = (job.device, job.offload, job.gpus, job.quantize, job.speed, job.preset.precision)
        if asked not in known:
            try:
                known[asked] = device = device_of(job)
                settled(job.speed, job.preset, device)
            except MtvcraftError as error:
                known[asked] = error
        told = known[asked]
        if isinstance(told, MtvcraftError):
            wrong.append((task, told))
        else:
            found.setdefault(told, []).append(task)
    return found, wrong


def check_weights(
    tasks: Sequence[Task], device: str, cache: Cache, supply: Supply | None = None
) -> list[tuple[Task, MtvcraftError]]:
    """Which jobs lack weights that nobody supplies; presets that many share are looked at once."""
    wrong, known = list[tuple[Task, MtvcraftError]](), dict[object, MtvcraftError | None]()
    for task in tasks:
        job, sampler = task.job, task.job.preset.sampler
        own = (job.preset.name, job.preset.loras, job.weights, job.quantize, sampler.motion_guidance == 1)
        key = (*own, *prompts_of(job.preset))
        if key not in known:
            known[key] = None
            try:
                find_parts(job, device, cache, supply)
            except MtvcraftError as error:
                known[key], supply = error, None  # nothing will be begun, so nothing more is fetched
        if (found := known[key]) is not None:
            wrong.append((task, found))
    return wrong


def in_order(tasks: Iterable[Task]) -> list[Task]:
    """Jobs with the same models one after the other, so that each model is loaded once; else as they were."""
    from mtvcraft_cli.runs.models import models_wanted

    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(models_wanted(task.job), []).append(task)
    return [task for group in groups.values() for task in group]


def prompts_by_models(tasks: Iterable[Task]) -> dict[str, tuple[str, ...]]:
    """The texts that the jobs on each set of models need."""
    from mtvcraft_cli.runs.models import models_wanted

    prompts: dict[str, Counter[str]] = {}
    for task in tasks:
        prompts.setdefault(models_wanted(task.job), Counter()).update(prompts_of(task.job.preset))
    return {key: tuple(found) for key, found in prompts.items()}


class Workshop:
    """Does one job after the other; what was loaded for one is there for the next.

    Args:
        cache: where finished stages are kept.
        prompts: from `prompts_by_models`.
    """

    def __init__(self, cache: Cache, prompts: Mapping[str, tuple[str, ...]]) -> None:
        self.cache, self.prompts = cache, prompts
        self._loaded: Loaded | None = None
        self._estimators: dict[object, Estimator | None] = {}

    def prepared(self, job: AnimateJob) -> PreparedAnimation:
        """A job that has passed every check; one that is made already stays as it is, even with `force`.

        Raises:
            MtvcraftError: exit 2, 6, 4 or 5.
        """
        ready = prepare_animation(job, self.cache, estimator_for=self._estimator_for)
        return replace(ready, job=replace(ready.job, force=False)) if ready.finished else ready

    def work(self, task: Task, watch: Watch) -> Ended:
        """Do a job, or find out why it can't be done."""
        from mtvcraft_cli.pipeline import run_animation
        from mtvcraft_cli.runs.models import Loaded, models_wanted

        started = time.monotonic()
        try:
            prepared = self.prepared(task.job)
            if prepared.finished:
                return left_alone(task, prepared, time.monotonic() - started)
            self._loaded = self._loaded or Loaded()
            self._loaded.prompts = self.prompts.get(models_wanted(task.job), ())
            report = run_animation(prepared, watch, self._loaded)
        except Exception as error:
            if stops:  # an interrupt that native code has turned into an error of its own
                raise KeyboardInterrupt from error
            if not isinstance(error, MtvcraftError):  # nobody knows what state the models are in
                self.close()
                gc.collect()
            return _failed(task, error, time.monotonic() - started)
        return Ended(
            row=task.row,
            output=str(task.job.output),
            status="done",
            seconds=round(time.monotonic() - started, 3),
            frames=report.frames or prepared.timing.frames,
            windows_from_earlier_runs=report.kept_windows,
            fingerprint=prepared.fingerprint,
            memory_bytes=held_memory(),
            at=now(),
            remarks=(*prepared.remarks, *report.remarks),
            warnings=tuple(report.warnings),
        )

    def close(self) -> None:
        """Let the models go."""
        if self._loaded is not None:
            self._loaded.close()
        self._loaded = None

    def _estimator_for(self, drive: Path, settings: DriveSettings) -> Estimator | None:
        if holds_motion(drive):
            return None
        key = (settings.backend, settings.trust_file, settings.weights)
        if key not in self._estimators:
            self._estimators[key] = choose_estimator(drive, settings)
        return self._estimators[key]


def made_already(task: Task, workshop: Workshop) -> Ended | None:
    """Whether a job's output is there, made from the same inputs and settings.

    Raises:
        MtvcraftError: exit 2; it is there, and from others.
    """
    if not task.job.output.exists():
        return None
    started = time.monotonic()
    try:
        prepared = workshop.prepared(task.job)
    except MtvcraftError as error:
        if error.exit is Exit.USAGE:
            raise
        return None  # what is wrong with an input is told when its turn comes
    return left_alone(task, prepared, time.monotonic() - started) if prepared.finished else None


def run_here(tasks: Sequence[Task], workshop: Workshop, watch: Watch, *, keep_going: bool) -> Iterator[Ended]:
    """Do all jobs in this process; without `keep_going` the first that fails is the last."""
    try:
        for task in in_order(tasks):
            ended = workshop.work(task, watch)
            yield ended
            if ended.failed and not keep_going:
                return
    finally:
        workshop.close()


def left_alone(task: Task, prepared: PreparedAnimation, seconds: float) -> Ended:
    """How a job ended that was done before."""
    return Ended(
        row=task.row,
        output=str(task.job.output),
        status="done",
        left_alone=True,
        seconds=round(seconds, 3),
        frames=prepared.timing.frames,
        fingerprint=prepared.fingerprint,
        memory_bytes=held_memory(),
        at=now(),
    )


def _failed(task: Task, error: Exception, seconds: float) -> Ended:
    told = explained(error)
    return Ended(
        row=task.row,
        output=str(task.job.output),
        status="failed",
        seconds=round(seconds, 3),
        exit=int(told.exit),
        error=told.message,
        hint=told.hint,
        memory_bytes=held_memory(),
        at=now(),
        trace="".join(traceback.format_exception(error)),
    )


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _targets(job: AnimateJob) -> list[Path]:
    return [path for path in (job.output, job.compare, job.frames_dir) if path is not None]


def _pictures_of(drive: Path) -> list[Path]:
    try:
        return files_of(drive)
    except MtvcraftError:
        return []  # told when its turn comes
