"""`mtvcraft pose`: where the person's joints are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtvcraft_cli.cli.console import answer, say, table, warn, watch
from mtvcraft_cli.cli.front import running
from mtvcraft_cli.cli.options import (
    Background,
    DriveOptions,
    DryRun,
    Force,
    Fps,
    Weights,
    read_rate,
    stem_of,
    typed,
)
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.jobs.drive import DriveSettings


def pose(
    video: Annotated[
        Path,
        typer.Argument(
            metavar="DRIVE", help="A video, a folder or pattern of pictures, or a file of motion to check and convert."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the joints go: .npz, .npy or .bvh; default NAME.joints.npz."),
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="Also write a video with the skeleton drawn over it.")] = None,
    view: Annotated[Path | None, typer.Option(help="Also write a page (.html) with the skeleton to turn.")] = None,
    list_people: Annotated[
        bool, typer.Option("--list", help="List who is in the video, with a picture of each, and stop.")
    ] = False,
    fps: Fps = None,
    background: Background = "ffffff",
    weights: Weights = None,
    force: Force = False,
    dry_run: DryRun = False,
    *,
    driver: DriveOptions,
) -> None:
    """Find the 24 SMPL joints of the person in DRIVE, frame by frame, in millimetres before the camera."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.files import PoseJob, prepare_pose

    settings = driver.settings(weights, background)
    if list_people:
        if overlay or view or "fps" in running.by_flag:  # a settings file may well have a rate, for other commands
            raise MtvcraftError(
                "`--list` only lists who is there",
                hint="leave `--overlay`, `--view` and `--fps` out, or leave `--list` out",
                exit=Exit.USAGE,
            )
        return list_everyone(video, output, settings, force=force, dry_run=dry_run)
    job = PoseJob(
        drive=video,
        output=output or Path(f"{stem_of(video)}.joints.npz"),
        overlay=overlay,
        view=view,
        rate=read_rate(fps) if fps else None,
        settings=settings,
        force=force,
        command=typed(),
    )
    prepared = prepare_pose(job, open_cache())
    for line in prepared.drive.assumed:
        say(line)
    paths = "\n".join(str(path) for path in job.targets)
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


def list_everyone(video: Path, sheet: Path | None, settings: "DriveSettings", *, force: bool, dry_run: bool) -> None:
    """Print a table of the people in a video, and write a picture with each of them."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.files import prepare_list

    prepared = prepare_list(video, sheet or Path(f"{stem_of(video)}.people.png"), settings, open_cache(), force=force)
    for line in prepared.drive.assumed:
        say(line)
    if dry_run:
        say(f"would look for people in {prepared.drive.frames} frames and write")
        return answer(str(prepared.sheet), {"output": str(prepared.sheet), **prepared.drive.told()})
    from mtvcraft_cli.pipeline import run_list

    report = run_list(prepared, watch)
    for line in report.remarks:
        say(line)
    columns = ["person", "from", "to", "seen", "height", "confidence"]
    rows = [
        [
            str(row["person"]),
            f"{row['from_s']:.2f} s",
            f"{row['to_s']:.2f} s",
            f"{row['seen']:.0%}",
            f"{row['height']:.0%}",
            f"{row['confidence']:.2f}",
        ]
        for row in report.figures["people"]
    ]
    return answer(table(columns, rows), report.told())
