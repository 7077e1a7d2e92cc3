"""`mtvcraft animate`: the whole way."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mtvcraft_cli.cli.console import answer, detail, say, warn, watch
from mtvcraft_cli.cli.options import (
    Backend,
    Device,
    DryRun,
    Force,
    MaxGap,
    PresetName,
    TrustFile,
    Weights,
    read_audio,
    read_colour,
    read_rate,
    stem_of,
    typed,
)

if TYPE_CHECKING:
    from mtvcraft_cli.jobs.animation import AnimateJob


def animate(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Picture of the character.")],
    drive: Annotated[
        Path, typer.Argument(metavar="DRIVE", help="Video whose motion is followed, or joints, or tokens.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the new video goes; default REFERENCE.DRIVE.mp4.")
    ] = None,
    preset: PresetName = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; more is finer and slower.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same video.")] = 0,
    motion_guidance: Annotated[
        float | None, typer.Option(min=0, help="How hard the motion pulls; 1 is off and halves the work.")
    ] = None,
    scheduler: Annotated[Literal["dpm", "ddim"] | None, typer.Option(help="How noise is taken away.")] = None,
    reference_latent: Annotated[
        Literal["sample", "mean"] | None, typer.Option(help="What is taken of the picture's posterior.")
    ] = None,
    fps: Annotated[str | None, typer.Option(help="Another frame rate, such as 25 or 30000/1001.")] = None,
    audio: Annotated[str, typer.Option(metavar="keep|none|FILE", help="Sound of the new video.")] = "keep",
    crf: Annotated[int, typer.Option(min=0, max=51, help="H.264 quality; lower is better and larger.")] = 18,
    background: Annotated[str, typer.Option(help="Colour behind a transparent picture, as RRGGBB.")] = "ffffff",
    backend: Backend = "auto",
    max_gap: MaxGap = 0.5,
    trust_file: TrustFile = None,
    device: Device = "auto",
    offload: Annotated[
        Literal["auto", "none", "model"],
        typer.Option(help="`model` keeps on the card only the part that is working."),
    ] = "auto",
    two_passes: Annotated[
        bool, typer.Option("--two-passes", help="Guide in two passes instead of one batch: less memory, slower.")
    ] = False,
    weights: Weights = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make the character in REFERENCE move like the person in DRIVE."""
    from mtvcraft_cli.jobs.animation import AnimateJob
    from mtvcraft_cli.jobs.choice import choose_preset
    from mtvcraft_cli.jobs.drive import PoseSettings

    chosen, why = choose_preset(preset, weights, device)
    sampler = chosen.sampler
    sampler = replace(
        sampler,
        scheduler=scheduler or sampler.scheduler,
        steps=steps or sampler.steps,
        motion_guidance=sampler.motion_guidance if motion_guidance is None else motion_guidance,
    )
    chosen = replace(chosen, sampler=sampler, reference_latent=reference_latent or chosen.reference_latent)
    job = AnimateJob(
        reference=reference,
        drive=drive,
        output=output or Path(f"{reference.stem}.{stem_of(drive)}.mp4"),
        preset=chosen,
        seed=seed,
        rate=read_rate(fps) if fps else None,
        audio=read_audio(audio),
        crf=crf,
        background=read_colour(background),
        pose=PoseSettings(backend=backend, max_gap_s=Fraction(str(max_gap)), trust_file=trust_file, weights=weights),
        device=device,
        offload=offload,
        two_passes=two_passes,
        weights=weights,
        force=force,
        command=typed(),
    )
    run_job(job, dry_run=dry_run, why=why)


def run_job(job: "AnimateJob", *, dry_run: bool, why: str = "") -> None:
    """Prepare, say `why` this preset, show the plan, work, and print where the result is."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.animation import prepare_animation

    prepared = prepare_animation(job, open_cache())
    for line in filter(None, (why, *prepared.remarks)):
        say(line)
    if dry_run:
        return answer(prepared.plan_text(), prepared.told())
    if prepared.made and not job.force:
        say(f"`{job.output}` is already made from these inputs and settings: left alone")
        return answer(str(job.output), prepared.told())
    say(prepared.plan_text())
    from mtvcraft_cli.pipeline import run_animation

    report = run_animation(prepared, watch)
    for line in report.remarks:
        detail(line)
    for line in report.warnings:
        warn(line)
    say(
        f"wrote `{job.output}`: {report.frames} frames in {report.seconds:.0f} s"
        + (f", {report.kept_windows} window(s) from an earlier run" if report.kept_windows else "")
    )
    return answer(str(job.output), report.told())
