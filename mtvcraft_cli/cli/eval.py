"""`mtvcraft eval`: numbers for videos, and for models."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mtvcraft_cli.cli.console import answer, say, table, warn, watch
from mtvcraft_cli.cli.download import supply
from mtvcraft_cli.cli.eval_table import laid_out
from mtvcraft_cli.cli.options import Device, DryRun, Force, Offload, PresetName, Weights, Yes, typed
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.device.placement import Wanted
    from mtvcraft_cli.eval.bench import Bench
    from mtvcraft_cli.jobs.evaluation import EvalJob, System

_of_mini = partial(typer.Option, rich_help_panel="Bench mini")


def eval_(
    bench: Annotated[
        Literal["tiktok", "tiktok-335", "fashion", "mini"] | None,
        typer.Option(help="Clips that many score on; `mini` needs none, and measures a preset."),
    ] = None,
    pred: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]DIR", help="Results to score; may be given several times for several systems."),
    ] = None,
    gt: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Ground truth: a folder, DisCo's TSV or a zip; default: the setting bench.NAME."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="What the table calls the results of --pred.")] = None,
    protocol: Annotated[
        Literal["mtvcraft", "disco", "humanvid"], typer.Option(help="How it is measured; see --explain.")
    ] = "mtvcraft",
    metrics: Annotated[
        str,
        typer.Option(help="Which, with commas; more: flicker, motion-follow, lpips-alex."),
    ] = "psnr,ssim,lpips,fid,fvd,fid-vid",
    truth_fit: Annotated[
        Literal["stretch", "crop"],
        typer.Option("--fit", help="Where the aspects differ: stretch, or cut the truth to that of the results."),
    ] = "stretch",
    baseline: Annotated[
        list[str] | None,
        typer.Option(metavar="still|ground-truth|shift1", help="A row without a model; may be given several times."),
    ] = None,
    rows: Annotated[Literal["none", "key", "all"], typer.Option(help="Which published rows are shown.")] = "key",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score the clips that are on both sides.")
    ] = False,
    allow_length_mismatch: Annotated[
        bool, typer.Option("--allow-length-mismatch", help="Score clips of very unequal length, as far as both go.")
    ] = False,
    floor: Annotated[
        bool, typer.Option("--floor", help="Add the ground truth's even pieces against its odd ones.")
    ] = False,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Add bootstrap intervals over clips to what is averaged.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Make the results first, with --preset, into --pred.")] = False,
    preset: PresetName = "auto",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of --run.")] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Say what a bench is and how it is measured.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Also write a row per clip.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with plots and clips side by side.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Clips scored at once.")] = 1,
    clips: Annotated[int, _of_mini(min=2, help="Clips of each split.")] = 10,
    frames: Annotated[
        int | None, _of_mini(min=2, help="Frames of its clips; by default those of one window and of two, in turn.")
    ] = None,
    motion: Annotated[
        Path | None, _of_mini(help="Recorded motion for it, an `.npz`; without it only dances of our own.")
    ] = None,
    device: Device = "auto",
    offload: Offload = "auto",
    weights: Weights = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Measure how near videos come to the truth, beside what others published."""
    if bench == "mini":
        if pred or gt or baseline or explain or csv or html:
            raise MtvcraftError(
                "bench mini makes its clips itself, and takes no videos",
                hint="leave out `--pred`, `--gt`, `--baseline`, `--explain`, `--csv` and `--html`",
                exit=Exit.USAGE,
            )
        if offload not in ("auto", "none"):
            raise MtvcraftError(
                f"bench mini keeps its model on the device, and knows no `--offload {offload}`",
                hint="leave out `--offload`",
                exit=Exit.USAGE,
            )
        return _mini(preset, clips, frames, motion, device, weights, yes=yes, dry_run=dry_run)
    from mtvcraft_cli.eval.bench import explain as explained
    from mtvcraft_cli.eval.bench import load_bench

    chosen = load_bench(bench) if bench else None
    if explain:
        text = explained(chosen)
        return answer(text, {"bench": bench, "text": text})
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
    if run or (chosen is not None and not systems):
        made, failed = _make(job, preset, seed, name, offload, yes=yes, dry_run=dry_run)
        if dry_run:
            return None
        job = replace(job, systems=made, made_failed=failed)
    elif offload != "auto":
        raise MtvcraftError(
            f"`--offload {offload}` is for making results, and these are only scored",
            hint="leave it out, or make them first with `--run`",
            exit=Exit.USAGE,
        )
    elif not systems:
        raise MtvcraftError(
            "there is nothing to score",
            hint="name results with `--pred DIR`, or a bench with `--bench`",
            exit=Exit.USAGE,
        )
    return _score(job, yes=yes, dry_run=dry_run)


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
    job: "EvalJob", preset: str, seed: int, name: str | None, offload: "Wanted", *, yes: bool, dry_run: bool
) -> "tuple[list[System], dict[str, str]]":
    """Make the results that are to be scored; give the systems back, and the clips that failed."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.eval.files import metric_files
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.evaluation import System, needed
    from mtvcraft_cli.jobs.making import MakingJob, as_in_the_paper, prepare_making

    folders = [system for system in job.systems if system.folder is not None]
    if len(folders) > 1:
        raise MtvcraftError("`--run` makes one system's results", hint="give one `--pred`", exit=Exit.USAGE)
    metric_files(needed(job), job.weights, supply(yes=yes, dry_run=dry_run))  # better said now than after hours
    chosen, why = choose_preset(preset, job.weights, job.device)
    plain = chosen.name
    chosen, how = as_in_the_paper(chosen)
    stem = f"eval-{job.bench.name if job.bench else job.truth.name}-{Path(plain).stem}"
    output = folders[0].folder if folders else None
    making = MakingJob(
        preset=chosen,
        truth=job.truth,
        output=output or Path(stem),
        bench=job.bench,
        seed=seed,
        device=job.device,
        offload=offload,
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

    failed, loaded = dict(prepared.broken), Loaded()
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
    loaded.close()
    own = System(name or (folders[0].name if folders else f"ours ({Path(plain).stem})"), making.output, preset=plain)
    return [own, *(system for system in job.systems if system.folder is None)], failed


def _mini(
    preset: str,
    clips: int,
    frames: int | None,
    motion: Path | None,
    device: str,
    weights: Path | None,
    *,
    yes: bool,
    dry_run: bool,
) -> None:
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.mini import MiniJob, prepare_mini

    chosen, why = choose_preset(preset, weights, device)
    job = MiniJob(preset=chosen, clips=clips, frames=frames, motion=motion, device=device, weights=weights)
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
