"""`mtvcraft pose`: where the person's joints are."""

from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.console import answer, say, warn, watch
from mtvcraft_cli.cli.options import Backend, DryRun, Force, MaxGap, TrustFile, Weights, stem_of, typed


def pose(
    video: Annotated[
        Path, typer.Argument(metavar="VIDEO", help="Video of a person moving, or joints to check and convert.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the joints go; default NAME.joints.npz.")
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Also write a video with the skeleton drawn over it.")] = None,
    backend: Backend = "auto",
    max_gap: MaxGap = 0.5,
    trust_file: TrustFile = None,
    weights: Weights = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Find the 24 SMPL joints of the person in VIDEO, frame by frame, in millimetres before the camera."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.drive import PoseSettings
    from mtvcraft_cli.jobs.files import PoseJob, prepare_pose

    job = PoseJob(
        video=video,
        output=output or Path(f"{stem_of(video)}.joints.npz"),
        overlay=overlay,
        settings=PoseSettings(
            backend=backend, max_gap_s=Fraction(str(max_gap)), trust_file=trust_file, weights=weights
        ),
        force=force,
        command=typed(),
    )
    prepared = prepare_pose(job, open_cache())
    for line in prepared.drive.assumed:
        say(line)
    paths = "\n".join(str(path) for path in prepared.targets)
    if dry_run:
        say(f"would find joints in {prepared.drive.frames} frames and write")
        return answer(paths, prepared.told())
    if prepared.made and not force:
        say(f"`{job.output}` is already made from this input and these settings: left alone")
        return answer(paths, prepared.told())
    from mtvcraft_cli.pipeline import run_pose

    report = run_pose(prepared, watch)
    for line in report.remarks:
        say(line)
    for line in report.warnings:
        warn(line)
    return answer(paths, report.told())
