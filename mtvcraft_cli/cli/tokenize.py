"""`mtvcraft tokenize`: joints into motion tokens and back."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.console import answer, say, warn, watch
from mtvcraft_cli.cli.options import (
    Backend,
    Device,
    DryRun,
    Force,
    MaxGap,
    PresetName,
    TrustFile,
    Weights,
    stem_of,
    typed,
)


def tokenize(
    drive: Annotated[
        Path, typer.Argument(metavar="DRIVE", help="Joints, or a video to find them in; tokens with --decode.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the tokens go; default NAME.tokens.npy.")
    ] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Write the joints that tokens stand for, to NAME.decoded.joints.npz.")
    ] = False,
    preset: PresetName = "auto",
    backend: Backend = "auto",
    max_gap: MaxGap = 0.5,
    trust_file: TrustFile = None,
    device: Device = "auto",
    weights: Weights = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Turn joints into the discrete motion tokens of a preset, and say what is lost on the way."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.drive import PoseSettings
    from mtvcraft_cli.jobs.files import TokenizeJob, prepare_tokenizing

    chosen, why = choose_preset(preset, weights, device)
    ending = ".decoded.joints.npz" if decode else ".tokens.npy"
    job = TokenizeJob(
        drive=drive,
        output=output or Path(f"{stem_of(drive)}{ending}"),
        decode=decode,
        preset=chosen,
        pose=PoseSettings(backend=backend, max_gap_s=Fraction(str(max_gap)), trust_file=trust_file, weights=weights),
        device=device,
        weights=weights,
        force=force,
        command=typed(),
    )
    prepared = prepare_tokenizing(job, open_cache())
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
