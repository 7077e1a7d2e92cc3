"""`mtvcraft batch`: many animations, with the models loaded once."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mtvcraft_cli.cli.animate import animation_job
from mtvcraft_cli.cli.console import Board, answer, say, table, watch
from mtvcraft_cli.cli.download import supply
from mtvcraft_cli.cli.front import with_options_of
from mtvcraft_cli.cli.options import DryRun, Force, Yes, stem_of
from mtvcraft_cli.cli.rows import read_rows, refuse, rows_of
from mtvcraft_cli.cli.tally import Tally
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.batch.results import Ended
    from mtvcraft_cli.batch.work import Task, Workshop
    from mtvcraft_cli.cache import Cache
    from mtvcraft_cli.jobs.weights import Supply


@with_options_of(animation_job, but=("reference", "drive", "output", "compare", "frames_dir", "force"))
def batch(
    tables: Annotated[
        list[Path],
        typer.Argument(
            metavar="TABLE|REFERENCES DRIVES",
            help="A table of jobs (CSV or JSON lines, - for standard input), or two patterns in quotes.",
        ),
    ],
    pair: Annotated[
        Literal["zip", "product"] | None,
        typer.Option(help="Of two patterns: the first with the first and so on, or each with each."),
    ] = None,
    out_dir: Annotated[Path | None, typer.Option(help="Folder of the videos that no row names an output for.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="How each job ended, one JSON object a line; default TABLE.results.jsonl.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", "-k", help="Go on after a job that failed, as `make -k` does.")
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Work on a Ray cluster: local, auto, or the address of its head."),
    ] = None,
    ray_cpus: Annotated[int, typer.Option(min=1, help="CPUs for each Ray worker where there is no card.")] = 1,
    *,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    **settings: Any,  # noqa: ARG001 - those that were typed become words of the rows
) -> None:
    """Animate every row of a table, or every pair of pictures and drivers. Models are loaded once.

    A table has a column `reference` and a column `drive`, and may have one for every option of `mtvcraft animate`.
    The options given here hold for every row that says nothing else. A batch that was stopped goes on where it was.
    """
    from mtvcraft_cli.cache import open_cache

    if ray is not None and yes:
        raise MtvcraftError(
            "`--yes` fetches weights to this machine, and Ray workers have their own",
            hint="run `mtvcraft download` on the machines of the cluster",
            exit=Exit.USAGE,
        )
    rows, remarks = rows_of(tables, pair)
    check_folder(out_dir)
    tasks, whys = read_rows(rows, out_dir, force=force, ray=ray is not None)
    for line in (*remarks, *whys):
        say(line)
    path = results or Path(
        f"{stem_of(tables[0]) if len(tables) == 1 and str(tables[0]) != '-' else 'batch'}.results.jsonl"
    )
    check_results(path, tables)
    cache = open_cache()
    check_all(tasks, cache, ray, supply(yes=yes, dry_run=dry_run))
    if dry_run:
        return show_plan(tasks, cache, path, ray)
    return run_all(tasks, cache, path, ray, ray_cpus, keep_going=keep_going)


def check_folder(folder: Path | None) -> None:
    """Refuse a folder to write to that isn't there.

    Raises:
        MtvcraftError: exit 2.
    """
    if folder is not None and not folder.is_dir():
        make = f"mkdir -p {shlex.quote(str(folder))}"
        raise MtvcraftError(f"there is no folder `{folder}`", hint=f"make it first: {make}", exit=Exit.USAGE)


def check_results(path: Path, tables: Sequence[Path]) -> None:
    """Refuse a results file that can't be one.

    Raises:
        MtvcraftError: exit 2.
    """
    check_folder(path.parent)
    if path.is_dir() or any(path.exists() and each.exists() and path.samefile(each) for each in tables):
        raise MtvcraftError(f"`{path}` can't hold the results", hint="name another with `--results`", exit=Exit.USAGE)


def check_all(tasks: Sequence["Task"], cache: "Cache", ray: str | None, supplied_by: "Supply | None") -> None:
    """Check words, devices and weights of every job, in this order, before the first begins.

    On a cluster it is the workers that have the weights, the cards and what makes them fast.

    Raises:
        MtvcraftError: exit 2 or 6.
    """
    from mtvcraft_cli.batch.work import check_devices, check_tasks, check_weights

    refuse([(task.where, error) for task, error in check_tasks(tasks)], len(tasks))
    if ray is not None:
        return
    by_device, wrong = check_devices(tasks)
    refuse([(task.where, error) for task, error in wrong], len(tasks))
    for device, own in by_device.items():
        refuse([(task.where, error) for task, error in check_weights(own, device, cache, supplied_by)], len(tasks))


def show_plan(tasks: Sequence["Task"], cache: "Cache", path: Path, ray: str | None) -> None:
    """Print what would be done with each job; on a cluster, whose workers look at the inputs, only that it is one.

    Raises:
        MtvcraftError: exit 3; some jobs would fail; exit 2; an output is there, and from other inputs.
    """
    from mtvcraft_cli.batch.work import Workshop

    workshop, lines, data = Workshop(cache, {}), list[list[str]](), list[dict[str, Any]]()
    wrong = list[tuple[str, MtvcraftError]]()
    for task in watch(tasks, "check", len(tasks)):
        told: dict[str, Any] = {"row": task.row, "output": str(task.job.output), "preset": task.job.preset.name}
        if ray is not None:
            what = f"for a Ray worker ({ray})"
        else:
            try:
                prepared = workshop.prepared(task.job)
            except MtvcraftError as error:
                wrong.append((task.where, error))
                what, told["error"], told["hint"] = f"fails: {error.message}", error.message, error.hint
            else:
                what = "already made, left alone" if prepared.finished else "to do"
                told |= prepared.told()
        lines.append([str(task.row), str(task.job.output), task.job.preset.name, what])
        data.append(told)
    say(f"results would go to `{path}`")
    answer(table(["row", "output", "preset", "what"], lines), data)
    refuse([each for each in wrong if each[1].exit is Exit.USAGE], len(tasks))
    if wrong:
        where, first = wrong[0]
        raise MtvcraftError(
            f"{len(wrong)} of {len(tasks)} jobs would fail, the first {where}: {first.message}",
            hint=first.hint,
            exit=Exit.PARTLY,
        )


def run_all(
    tasks: Sequence["Task"], cache: "Cache", path: Path, ray: str | None, ray_cpus: int, *, keep_going: bool
) -> None:
    """Do the jobs that are not done, and write down how each ended.

    Raises:
        MtvcraftError: exit 3; some failed; exit 2; an output is there, and from other inputs.
    """
    from mtvcraft_cli.batch.results import Results
    from mtvcraft_cli.batch.work import Workshop, prompts_by_models, run_here

    workshop = Workshop(cache, prompts_by_models(tasks))
    done = [] if ray is not None else done_before(tasks, workshop)
    rows = {ended.row for ended in done}
    todo = [task for task in tasks if task.row not in rows]
    with Results(path) as file:
        tally = Tally(file, {task.row: task.where for task in tasks}, len(tasks))
        for ended in done:
            tally.add(ended)
        say(f"{len(todo)} of {len(tasks)} jobs to do; how each ends goes to `{path}`")
        if ray is None:
            coming = run_here(todo, workshop, watch, keep_going=keep_going)
        else:
            from mtvcraft_cli.batch.cluster import run_on_ray

            coming = shown(run_on_ray(todo, ray, cache, cpus=ray_cpus, keep_going=keep_going))
        try:
            for ended in watch(coming, "jobs", len(todo)):
                tally.add(ended)
        except KeyboardInterrupt:
            say(
                f"{tally.done} of {len(tasks)} jobs are done, as `{path}` says; of the others finished windows are kept"
            )
            raise
        tally.close()


def done_before(tasks: Sequence["Task"], workshop: "Workshop") -> list["Ended"]:
    """The jobs whose outputs are there, made from the same inputs and settings.

    Raises:
        MtvcraftError: exit 2; some are there, and from others.
    """
    from mtvcraft_cli.batch.work import made_already

    done, wrong = list["Ended"](), list[tuple[str, MtvcraftError]]()
    for task in watch([task for task in tasks if task.job.output.exists()], "check"):
        try:
            ended = made_already(task, workshop)
        except MtvcraftError as error:
            wrong.append((task.where, error))
        else:
            done += [] if ended is None else [ended]
    refuse(wrong, len(tasks))
    return done


def shown(told: Iterator[Any]) -> Iterator["Ended"]:
    """Pass on how jobs ended; show what else a cluster tells."""
    from mtvcraft_cli.batch.cluster import Stage
    from mtvcraft_cli.batch.results import Ended

    board = Board()
    for each in told:
        if isinstance(each, Ended):
            yield each
        elif isinstance(each, Stage):
            board.show(each.worker, f"row {each.row}, {each.stage}", each.done, each.total)
        else:
            say(each)
