"""`mtvcraft eval`: numbers for videos, and for models."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mtvcraft_cli.cli.console import answer, say, table, watch
from mtvcraft_cli.cli.options import Device, DryRun, PresetName, Weights


def eval_(
    bench: Annotated[Literal["mini"], typer.Option(help="What is measured.")] = "mini",  # noqa: ARG001
    preset: PresetName = "auto",
    clips: Annotated[int, typer.Option(min=2, help="Clips of each split of bench mini.")] = 10,
    frames: Annotated[
        int | None, typer.Option(min=2, help="Frames of its clips; by default those of one window and of two, in turn.")
    ] = None,
    motion: Annotated[
        Path | None, typer.Option(help="Recorded motion for it, an `.npz`; without it only dances of our own.")
    ] = None,
    device: Device = "auto",
    weights: Weights = None,
    dry_run: DryRun = False,
) -> None:
    """Measure how near videos come to the truth."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.mini import MiniJob, prepare_mini

    chosen, why = choose_preset(preset, weights, device)
    job = MiniJob(preset=chosen, clips=clips, frames=frames, motion=motion, device=device, weights=weights)
    prepared = prepare_mini(job, open_cache())
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
    rows = [
        [name, *(f"{values[metric]:.{digits[metric]}f}" for metric in METRICS)]
        for name, values in {**report.splits, "all": report.totals}.items()
    ]
    return answer(table(["split", *METRICS], rows), {**report.as_json(), "settings": prepared.told()})
