"""`mtvcraft tokenize`: joints into motion tokens and back."""

from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.console import answer, say, warn, watch
from mtvcraft_cli.cli.download import supply
from mtvcraft_cli.cli.options import (
    Background,
    Device,
    DriveOptions,
    DryRun,
    Force,
    Fps,
    FramingOptions,
    PresetName,
    Weights,
    Yes,
    read_rate,
    stem_of,
    typed,
)


def tokenize(
    drive: Annotated[
        Path, typer.Argument(metavar="DRIVE", help="A file of motion, or a video to find it in; tokens with --decode.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the tokens go; default NAME.tokens.npy.")
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Write the joints that tokens stand for, to NAME.decoded.joints.npz.")
    ] = False,
    preset: PresetName = "auto",
    fps: Fps = None,
    background: Background = "ffffff",
    device: Device = "auto",
    weights: Weights = None,
    yes: Yes = False,
    force: Force = False,
    dry_run: DryRun = False,
    *,
    motion: FramingOptions,
    driver: DriveOptions,
) -> None:
    """Turn joints into the discrete motion tokens of a preset, and say what is lost on the way."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.files import TokenizeJob, prepare_tokenizing

    chosen, why = choose_preset(preset, weights, device)
    ending = ".decoded.joints.npz" if decode else ".tokens.npy"
    job = TokenizeJob(
        drive=drive,
        output=output or Path(f"{stem_of(drive)}{ending}"),
        decode=decode,
        preset=chosen,
        rate=read_rate(fps) if fps else None,
        driver=driver.settings(weights, background),
        motion=motion.settings(),
        device=device,
        weights=weights,
        force=force,
        command=typed(),
    )
    prepared = prepare_tokenizing(job, open_cache(), supply(yes=yes, dry_run=dry_run))
    for line in filter(None, (why, *prepared.drive.assumed)):
        say(line)
    if dry_run:
        say(f"would {'decode' if decode else 'tokenize'} {prepared.drive.frames} frames and write")
        return answer(str(job.output), prepared.told())
    if prepared.made and not force:
        say(f"`{job.output}` is already made from these inputs and settings: left alone")
        return answer(str(job.output), prepared.told())
    from mtvcraft_cli.pipeline import run_tokenizing

    report = run_tokenizing(prepared, watch)
    for line in report.remarks:
        say(line)
    for line in report.warnings:
        warn(line)
    return answer(str(job.output), report.told())
