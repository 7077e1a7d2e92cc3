"""`mtvcraft eval`: numbers for videos, and for models."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mtvcraft_cli.cli.console import answer, say, table, warn, watch
from mtvcraft_cli.cli.download import supply
from mtvcraft_cli.cli.eval_table import laid_out
from mtvcraft_cli.cli.front import running
from mtvcraft_cli.cli.options import Device, DryRun, Force, Offload, Quantize, Weights, Yes, typed
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.device.placement import Wanted
    from mtvcraft_cli.eval.bench import Bench
    from mtvcraft_cli.jobs.evaluation import EvalJob, System

_measured = partial(typer.Option, rich_help_panel="How it is measured")
_reported = partial(typer.Option, rich_help_panel="The report")
_of_run = partial(typer.Option, rich_help_panel="Results that are made first")
_of_mini = partial(typer.Option, rich_help_panel="Bench mini")

ONLY_MINI = ("clips", "frames", "motion")
"""What means nothing to the other benches."""
NEVER_MINI = (
    *("pred", "gt", "name", "protocol", "metrics", "truth_fit", "baseline", "rows", "allow_missing"),
    *("allow_length_mismatch", "floor", "intervals", "run", "seed", "explain", "csv", "html", "jobs", "offload"),
)
"""What means nothing to bench mini, which keeps its model on the device."""
ONLY_RUN = ("preset", "seed", "offload", "quantize")
"""What means nothing where results are only scored."""


def eval_(
    bench: Annotated[
        Literal["tiktok", "tiktok-335", "fashion", "mini"] | None,
        typer.Option(help="Clips that many score on; `mini` makes its own, and measures a preset."),
    ] = None,
    pred: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR", help="Folder of results to score; may be repeated for several systems."),
    ] = None,
    gt: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Ground truth: a folder, DisCo's TSV or a zip; default: the setting bench.NAME."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the table calls the results of --pred or --run.")] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="still|ground-truth|shift1", help="A row that needs no model; may be repeated."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which clips a bench has, where they come from, and how it measures.")
    ] = False,
    protocol: Annotated[
        Literal["mtvcraft", "disco", "humanvid"],
        _measured(help="Which of the ways in use: sizes, frames, SSIM and FVD differ; see --explain."),
    ] = "mtvcraft",
    metrics: Annotated[
        str,
        _measured(help="With commas between; there are flicker, motion-follow and lpips-alex, too."),
    ] = "psnr,ssim,lpips,fid,fvd,fid-vid",
    truth_fit: Annotated[
        Literal["stretch", "crop"],
        _measured("--fit", help="Where the aspects differ: stretch, or cut the truth to that of the results."),
    ] = "stretch",
    allow_missing: Annotated[
        bool, _measured("--allow-missing", help="Score the clips that are on both sides, and leave the others out.")
    ] = False,
    allow_length_mismatch: Annotated[
        bool, _measured("--allow-length-mismatch", help="Score clips of very unequal length, as far as both go.")
    ] = False,
    jobs: Annotated[int, _measured(min=1, help="Clips scored at once.")] = 1,
    rows: Annotated[
        Literal["none", "key", "all"], _reported(help="Which published rows stand beside what was measured.")
    ] = "key",
    floor: Annotated[
        bool, _reported("--floor", help="Add the ground truth's even pieces against its odd ones.")
    ] = False,
    intervals: Annotated[
        bool, _reported("--intervals", help="Add bootstrap intervals over clips to what is averaged.")
    ] = False,
    csv: Annotated[Path | None, _reported(help="Also write a row per clip.")] = None,
    html: Annotated[Path | None, _reported(help="Also write a page with plots and clips side by side.")] = None,
    run: Annotated[
        bool, _of_run("--run", help="Make the results first, with --preset, into --pred; so does --bench alone.")
    ] = False,
    preset: Annotated[
        str, _of_run("--preset", help="Who makes them, or is measured by bench mini; see `mtvcraft presets`.")
    ] = "auto",
    seed: Annotated[int, _of_run(min=0, max=2**63 - 1, help="The same seed gives the same results.")] = 0,
    clips: Annotated[int, _of_mini(min=2, help="Clips of each split.")] = 10,
    frames: Annotated[
        int | None, _of_mini(min=2, help="Frames of its clips; by default those of one window and of two, in turn.")
    ] = None,
    motion: Annotated[
        Path | None, _of_mini(help="Recorded motion for it, an `.npz`; without it only dances of our own.")
    ] = None,
    device: Device = "auto",
    offload: Offload = "auto",
    quantize: Quantize = "none",
    weights: Weights = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Measure how near videos come to the truth, beside what others published."""
    if bench == "mini":
        _refuse(NEVER_MINI, "bench mini makes its clips itself, and measures them in its own way")
        return _mini(preset, clips, frames, motion, device, quantize, weights, yes=yes, dry_run=dry_run)
    _refuse(ONLY_MINI, "that is for bench mini")
    from mtvcraft_cli.eval.bench import explain as explained
    from mtvcraft_cli.eval.bench import load_bench

    chosen = load_bench(bench) if bench else None
    if explain:
        text = explained(chosen)
        return answer(text, {"bench": bench, "text": text})
    made = run or (bench is not None and not (pred or baseline))
    if not made:
        _refuse(ONLY_RUN, "nothing is made here, only scored")
    if not (made or pred):
        _refuse(["name"], "baselines have names of their own")
    truth = _truth(chosen, gt, protocol, rows)
    from mtvcraft_cli.eval.protocols import PROTOCOLS
    from mtvcraft_cli.jobs.evaluation import EvalJob

    systems = [*_systems(pred or [], name), *_baselines(baseline or [])]
    job = EvalJob(
        truth=truth,
        systems=systems,
        protocol=PROTOCOLS[protocol],
        bench=chosen,
        metrics=_metrics(metrics),
        fit=truth_fit,
        rows=rows,
        allow_missing=allow_missing,
        allow_length_mismatch=allow_length_mismatch,
        floor=floor,
        intervals=intervals,
        jobs=jobs,
        device=device,
        weights=weights,
        csv=csv,
        html=html,
        force=force,
        command=typed(),
    )
    if made:
        systems, failed = _make(job, preset, seed, offload, quantize, name, yes=yes, dry_run=dry_run)
        if dry_run:
            return None
        job = replace(job, systems=systems, made_failed=failed)
    elif not systems:
        raise MtvcraftError(
            "there is nothing to score",
            hint="name results with `--pred DIR`, or a bench with `--bench`",
            exit=Exit.USAGE,
        )
    return _score(job, yes=yes, dry_run=dry_run)


def _refuse(names: Sequence[str], why: str) -> None:
    """Refuse options that were typed and would do nothing.

    Raises:
        MtvcraftError: exit 2.
    """
    flags = [f"`--{name.removeprefix('truth_').replace('_', '-')}`" for name in names if name in running.by_flag]
    if flags:
        raise MtvcraftError(
            f"{', '.join(flags)} would do nothing: {why}",
            hint="leave it out" if len(flags) == 1 else "leave them out",
            exit=Exit.USAGE,
        )


def _score(job: "EvalJob", *, yes: bool, dry_run: bool) -> None:
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.evaluation import prepare_eval

    prepared = prepare_eval(job, open_cache(), supply(yes=yes, dry_run=dry_run))
    if dry_run:
        return answer(prepared.plan_text(), prepared.told())
    say(prepared.plan_text())
    from mtvcraft_cli.eval.report import table_of, write_csv
    from mtvcraft_cli.eval.run import run_evaluation

    report = run_evaluation(prepared, watch)
    for line in report.warnings:
        warn(line)
    for system in report.systems:
        for clip, why in system.failed.items():
            warn(f"{system.name}: clip `{clip}` has no score: {why}")
    if job.csv is not None:
        write_csv(job.csv, report)
        say(f"wrote `{job.csv}`")
    if job.html is not None:
        from mtvcraft_cli.eval.page import write_page

        write_page(job.html, report, watch)
        say(f"wrote `{job.html}`")
    answer(laid_out(table_of(report)), report.as_json())
    if report.partly:
        raise typer.Exit(int(Exit.PARTLY))
    return None


def _truth(bench: "Bench | None", gt: Path | None, protocol: str, rows: str) -> Path:
    """Where the ground truth is; where nobody says, tell what there is to know without it."""
    from mtvcraft_cli.cli.settings import bench_folder

    truth = gt or (bench_folder(bench.name) if bench else None)
    if truth is not None:
        return truth
    if bench is None:
        raise MtvcraftError(
            "there is no ground truth to compare with",
            hint="name its folder with `--gt`, or a bench with `--bench`",
            exit=Exit.USAGE,
        )
    from mtvcraft_cli.eval.bench import explain
    from mtvcraft_cli.eval.report import published_table

    shown = published_table(bench, protocol, rows)
    text = f"{laid_out(shown)}\n\n{explain(bench)}"
    answer(text, {"bench": bench.name, "published": [[row.model, *row.cells] for row in shown.rows], "text": text})
    raise MtvcraftError(
        f"the clips of bench {bench.name} are not on this machine",
        hint=f'get them as told above, then name their folder: `--gt DIR`, or {bench.name} = "DIR" under [bench] in '
        "mtvcraft.toml",
        exit=Exit.WEIGHTS,
    )


def _systems(pred: list[str], name: str | None) -> list["System"]:
    from mtvcraft_cli.jobs.evaluation import System

    systems = []
    for words in pred:
        own, equals, folder = words.partition("=")
        named = bool(equals) and not Path(words).exists()
        path = Path(folder if named else words)
        if named and name is not None:
            raise MtvcraftError(
                f"the results in `{path}` are called `{own}` and `{name}`", hint="leave out `--name`", exit=Exit.USAGE
            )
        systems.append(System(own if named else name or path.resolve().name, path))
    if name is not None and len(pred) > 1:
        raise MtvcraftError(
            "`--name` names one system, and there are several",
            hint="name each: `--pred NAME=DIR`",
            exit=Exit.USAGE,
        )
    return systems


def _baselines(baseline: list[str]) -> list["System"]:
    from mtvcraft_cli.jobs.evaluation import BASELINES, System

    for words in baseline:
        if words not in BASELINES:
            raise MtvcraftError(
                f"no baseline is called `{words}`", hint=f"there are {', '.join(BASELINES)}", exit=Exit.USAGE
            )
    return [System(words, baseline=words) for words in dict.fromkeys(baseline)]  # type: ignore[arg-type]


def _metrics(text: str) -> list[str]:
    return list(dict.fromkeys(word.strip().replace("-", "_") for word in text.split(",") if word.strip()))


def _make(
    job: "EvalJob",
    preset: str,
    seed: int,
    offload: "Wanted",
    quantize: Quantize,
    name: str | None,
    *,
    yes: bool,
    dry_run: bool,
) -> "tuple[list[System], dict[str, str]]":
    """Make the results that are to be scored; give the systems back, and the clips that failed."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.evaluation import System, find_means
    from mtvcraft_cli.jobs.making import MakingJob, as_in_the_paper, prepare_making

    folders = [system for system in job.systems if system.folder is not None]
    if len(folders) > 1:
        raise MtvcraftError("`--run` makes one system's results", hint="give one `--pred`", exit=Exit.USAGE)
    chosen, why = choose_preset(preset, job.weights, job.device, quantize=quantize, offload=offload)
    plain = chosen.name
    chosen, how = as_in_the_paper(chosen)
    stem = f"eval-{job.bench.name if job.bench else job.truth.name}-{Path(plain).stem}"
    output = (folders[0].folder if folders else None) or Path(stem)
    own = System(name or (folders[0].name if folders else f"ours ({Path(plain).stem})"), output, preset=plain)
    systems = [own, *(system for system in job.systems if system.folder is None)]
    find_means(replace(job, systems=systems), supply(yes=yes, dry_run=dry_run))  # better said now than after hours
    making = MakingJob(
        preset=chosen,
        truth=job.truth,
        output=output,
        bench=job.bench,
        seed=seed,
        device=job.device,
        offload=offload,
        quantize=quantize,
        weights=job.weights,
        command=job.command,
    )
    prepared = prepare_making(making, open_cache(), supply(yes=yes, dry_run=dry_run))
    for line in filter(None, (why, how)):
        say(line)
    if dry_run:
        answer(prepared.plan_text(), prepared.told())
        return [], {}
    say(prepared.plan_text())
    from mtvcraft_cli.pipeline import run_animation
    from mtvcraft_cli.runs.models import Loaded

    failed = dict(prepared.broken)
    with Loaded() as loaded:
        for clip, animation in prepared.animations():
            if isinstance(animation, MtvcraftError):
                failed[clip] = animation.message
                warn(f"clip `{clip}` can't be made: {animation.message}")
            elif not (animation.made and animation.framed):
                try:
                    report = run_animation(animation, watch, loaded)
                except MtvcraftError as error:
                    if error.exit is not Exit.INPUT:
                        raise
                    failed[clip] = error.message
                    warn(f"clip `{clip}` can't be made: {error.message}")
                else:
                    for line in report.warnings:
                        warn(f"clip `{clip}`: {line}")
                    say(f"made clip `{clip}`")
    return systems, failed


def _mini(
    preset: str,
    clips: int,
    frames: int | None,
    motion: Path | None,
    device: str,
    quantize: Quantize,
    weights: Path | None,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.mini import MiniJob, prepare_mini

    chosen, why = choose_preset(preset, weights, device, quantize=quantize)
    job = MiniJob(
        preset=chosen, clips=clips, frames=frames, motion=motion, device=device, quantize=quantize, weights=weights
    )
    prepared = prepare_mini(job, open_cache(), supply(yes=yes, dry_run=dry_run))
    if why:
        say(why)
    if dry_run:
        lengths = " and ".join(map(str, job.lengths))
        plan = f"{3 * clips} clips of {lengths} frames by preset {chosen.name}, each made 3 times"
        return answer(plan, prepared.told())
    from mtvcraft_cli.eval.mini import METRICS
    from mtvcraft_cli.eval.model import measure_mini

    report = measure_mini(prepared, watch)
    digits = {metric: 2 if metric.startswith("psnr") else 3 for metric in METRICS}
    lines = [
        [name, *(f"{values[metric]:.{digits[metric]}f}" for metric in METRICS)]
        for name, values in {**report.splits, "all": report.totals}.items()
    ]
    return answer(table(["split", *METRICS], lines), {**report.as_json(), "settings": prepared.told()})
