"""The jobs of a batch on a Ray cluster: a worker for each card, or for some CPUs where there is no card.

Workers hold their models from job to job. A job whose worker dies is given to another one. Only this process writes
the results file, so every job ends exactly once there; an output is whole or not there, whoever dies.
"""

import logging
import os
import platform
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Final, TypeVar

from mtvcraft_cli import __version__
from mtvcraft_cli.batch.results import Ended
from mtvcraft_cli.batch.work import Task, Workshop, in_order, now, prompts_by_models
from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.quiet import silence, stdout_of_this_thread, without_hub_kernels

TIDY_S: Final = 10.0
"""How long to wait for workers to delete what they have put into files."""
ATTEMPTS: Final = 3
"""How many workers a job may take with it before it counts as failed."""
POLL_S: Final = 0.5
PATIENCE_S: Final = 30.0
"""After so long without any worker the user hears what is waited for."""
OURS: Final = ("MTVCRAFT_", "HF_HUB_OFFLINE")
"""Variables that a worker takes over from this process."""
LOCAL: Final = "local"

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """How far a worker has come with its job."""

    worker: str
    row: int
    stage: str
    done: int
    total: int | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker lives."""

    host: str
    pid: int
    version: str

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"


class Worker:
    """What runs in a Ray actor.

    Args:
        folder: the working folder, which the worker must see under the same name.
        cache: the folder of the cache.
        environment: variables of the process that started the batch.
        prompts: from `prompts_by_models`.
    """

    def __init__(
        self, folder: str, cache: str, environment: Mapping[str, str], prompts: Mapping[str, tuple[str, ...]]
    ) -> None:
        without_hub_kernels()
        os.environ.update(environment)
        os.chdir(folder)
        Path(cache).mkdir(parents=True, exist_ok=True)
        self._workshop = Workshop(Cache(Path(cache)), prompts)
        self._lock = threading.Lock()
        self._stage: tuple[str, int, int | None] | None = None

    def place(self) -> Place:
        """Where this worker lives; comes when it is ready."""
        return Place(host=platform.node(), pid=os.getpid(), version=__version__)

    def work(self, task: Task) -> Ended:
        """Do a job."""
        ended = self._workshop.work(task, self._watch)
        with self._lock:
            self._stage = None
        return ended

    def close(self) -> None:
        """Let the models go, and what of them lies in files: Ray ends a worker before it could do so by itself."""
        self._workshop.close()

    def stage(self) -> tuple[str, int, int | None] | None:
        """Stage, units done and units in all of the job that is being done."""
        with self._lock:
            return self._stage

    def _watch(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        done = 0
        for item in items:
            yield item
            shape = getattr(item, "shape", None)
            done += int(shape[0]) if shape else 1
            with self._lock:
                self._stage = stage, done, total


@dataclass(eq=False)
class Hand:
    """A worker as the scheduler sees it."""

    actor: Any
    place: Place | None = None
    task: Task | None = None
    seen: Any = None
    """The answer that is awaited on how far it has come."""


def run_on_ray(
    tasks: Sequence[Task], address: str, cache: Cache, *, cpus: int, keep_going: bool
) -> Iterator[Ended | Stage | str]:
    """Do all jobs on a cluster.

    Args:
        tasks: the jobs; every machine of the cluster must see their files under the same names.
        address: `local` starts Ray on this machine, for as long as the batch runs; else `auto` or where the head is.
        cache: where finished stages are kept; a folder of the same name is used on every machine.
        cpus: CPUs for a worker where the cluster has no card.
        keep_going: whether jobs are begun after one has failed.

    Yields:
        How each job ended, in the order in which they do; between them how far workers have come, and sentences.

    Raises:
        MtvcraftError: exit 2; Ray isn't installed, there is no such cluster, or no worker can be started on it.
    """
    ray = import_ray()
    with_stop = signal.getsignal(signal.SIGTERM)
    connect(ray, address)
    signal.signal(signal.SIGTERM, with_stop)  # Ray's own would end the program without a word
    with stdout_of_this_thread():
        try:
            crew = Crew(ray, tasks, cache, cpus)
            try:
                yield from crew.run(keep_going=keep_going)
            finally:
                crew.dismiss()
        finally:
            with silence():
                ray.shutdown()


def import_ray() -> Any:
    """Ray, which never reports home from here.

    Raises:
        MtvcraftError: exit 2; it isn't installed.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of its own future
    try:
        return import_module("ray")
    except ImportError as error:
        raise MtvcraftError(
            "`--ray` needs Ray, which isn't installed", hint="install it: pip install 'mtvcraft[ray]'", exit=Exit.USAGE
        ) from error


def connect(ray: Any, address: str) -> None:
    """Start Ray here, or join a cluster.

    Raises:
        MtvcraftError: exit 2; nobody answers.
    """
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.CRITICAL}
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with silence():
            if address == LOCAL:
                ray.init(num_cpus=os.cpu_count(), include_dashboard=False, object_store_memory=100 * 2**20, **quiet)
            else:
                ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MtvcraftError(
            f"no Ray cluster can be used at `{address}`: {said}",
            hint="start one (`ray start --head`), or let `--ray local` start one on this machine",
            exit=Exit.USAGE,
        ) from error


class Crew:
    """Hires workers, gives them jobs, and replaces those that die."""

    def __init__(self, ray: Any, tasks: Sequence[Task], cache: Cache, cpus: int) -> None:
        from mtvcraft_cli.runs.models import models_wanted

        self.ray = ray
        self.queue = deque(in_order(tasks))
        self.models = {task.row: models_wanted(task.job) for task in tasks}
        self.attempts: Counter[int] = Counter()
        self.waiting: dict[Any, Hand] = {}
        """What is awaited: a worker that gets ready, or one that works."""
        self.idle: list[Hand] = []
        self.dead_on_arrival = 0
        have = ray.cluster_resources()
        cards, slots = int(have.get("GPU", 0)), int(have.get("CPU", 0)) // cpus
        if not (cards or slots):
            raise MtvcraftError(
                f"the cluster has no card, and {have.get('CPU', 0):g} CPUs, fewer than `--ray-cpus {cpus}`",
                hint="ask for fewer with `--ray-cpus`",
                exit=Exit.USAGE,
            )
        self.size = min(cards or slots, len(tasks))
        self.what = "a card" if cards else f"{cpus} CPU(s)"
        actor = ray.remote(concurrency_groups={"stage": 1})(Worker)
        needs: dict[str, Any] = {"num_gpus": 1} if cards else {"num_cpus": cpus}
        self.hire_one = lambda: actor.options(**needs, max_restarts=0, max_task_retries=0).remote(
            os.getcwd(),  # noqa: PTH109 - a word that goes to another machine
            str(cache.folder.absolute()),
            {name: value for name, value in os.environ.items() if name.startswith(OURS)},
            prompts_by_models(tasks),
        )

    def run(self, *, keep_going: bool) -> Iterator[Ended | Stage | str]:
        """See `run_on_ray`."""
        yield f"{self.size} Ray worker(s), each on {self.what}"
        for _ in range(self.size):
            self.hire()
        said, alone_since = False, time.monotonic()
        while self.queue or any(hand.task for hand in self.waiting.values()):
            ready, _ = self.ray.wait(list(self.waiting), num_returns=1, timeout=POLL_S)
            for ref in ready:
                for told in self.answered(ref):
                    yield told
                    if isinstance(told, Ended) and told.failed and not keep_going:
                        self.queue.clear()
            yield from self.stages()
            if self.idle or any(hand.place for hand in self.waiting.values()):
                alone_since = time.monotonic()
            elif not said and time.monotonic() - alone_since > PATIENCE_S:
                said = True
                yield "waiting for a place in the cluster: others use it, or its machines are still starting"

    def hire(self) -> None:
        """Start a worker; it gets a job when it is ready."""
        hand = Hand(self.hire_one())
        self.waiting[hand.actor.place.remote()] = hand

    def give(self, hand: Hand) -> None:
        """Give a worker the next job, of those with the models that it holds if there are any."""
        held = self.models.get(hand.task.row) if hand.task else None
        hand.task = None
        if not self.queue:
            self.idle.append(hand)
            return
        task = next((each for each in self.queue if self.models[each.row] == held), self.queue[0])
        self.queue.remove(task)
        self.attempts[task.row] += 1
        hand.task = task
        self.waiting[hand.actor.work.remote(task)] = hand

    def answered(self, ref: Any) -> Iterator[Ended | str]:
        """Take what a worker has answered, or that it is dead."""
        hand = self.waiting.pop(ref)
        try:
            answer = self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            yield from self.lost(hand, error)
            return
        self.dead_on_arrival = 0
        if isinstance(answer, Place):
            if answer.version != __version__:
                raise MtvcraftError(
                    f"the worker on {answer.host} has mtvcraft {answer.version}, and this is {__version__}",
                    hint="install the same version on every machine of the cluster",
                    exit=Exit.USAGE,
                )
            hand.place = answer
            yield f"worker {answer} is ready"
        else:
            yield replace(answer, worker=str(hand.place), attempts=self.attempts[answer.row])
        self.give(hand)

    def lost(self, hand: Hand, error: Exception) -> Iterator[Ended | str]:
        """A worker is gone: its job goes to the next one, and another worker is hired in its place."""
        why = _cause(error) if isinstance(error, self.ray.exceptions.RayTaskError) else str(error).splitlines()[0]
        task = hand.task
        self.ray.kill(hand.actor)  # which is dead, or has failed at what it can't do: its place is needed
        if hand.place is None:
            self.dead_on_arrival += 1
            if self.dead_on_arrival >= ATTEMPTS:
                raise MtvcraftError(
                    f"no worker can be started on the cluster: {_cause(error)}",
                    hint="every machine needs mtvcraft, this folder and the files of the jobs under the same names",
                    exit=Exit.USAGE,
                ) from error
        if task is not None and self.attempts[task.row] >= ATTEMPTS:
            yield Ended(
                row=task.row,
                output=str(task.job.output),
                status="failed",
                exit=int(Exit.FAULT),
                error=f"{ATTEMPTS} workers died over it: {why}",
                hint="perhaps memory is too small: see Ray's logs, and try the job alone with `mtvcraft animate`",
                worker=str(hand.place),
                attempts=self.attempts[task.row],
                at=now(),
            )
        elif task is not None:
            yield f"worker {hand.place} died over row {task.row}, which another one begins again"
            self.queue.appendleft(task)
        if self.queue:
            self.hire()
            while self.idle and self.queue:
                self.give(self.idle.pop())

    def stages(self) -> Iterator[Stage]:
        """How far the workers have come that have answered since they were last asked."""
        for hand in list(self.waiting.values()):
            if hand.task is None:
                continue
            if hand.seen is None:
                hand.seen = hand.actor.stage.options(concurrency_group="stage").remote()
            answers, _ = self.ray.wait([hand.seen], timeout=0)
            if answers:
                hand.seen = None
                try:
                    found = self.ray.get(answers[0])
                except self.ray.exceptions.RayError:
                    continue  # it has died, which its job will tell
                if found is not None:
                    yield Stage(str(hand.place), hand.task.row, *found)

    def dismiss(self) -> None:
        """End all workers; those that rest tidy up first."""
        if tidying := [hand.actor.close.remote() for hand in self.idle]:
            self.ray.wait(tidying, num_returns=len(tidying), timeout=TIDY_S)
        for hand in (*self.waiting.values(), *self.idle):
            self.ray.kill(hand.actor)


def _cause(error: Exception) -> str:
    """The last line of what Ray says of an actor that could not start: the exception itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
