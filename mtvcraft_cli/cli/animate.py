"""`mtvcraft animate`: the whole way."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mtvcraft_cli.cli.console import answer, say, warn, watch
from mtvcraft_cli.cli.download import supply
from mtvcraft_cli.cli.front import grouped, with_options_of
from mtvcraft_cli.cli.options import (
    Background,
    Device,
    DriveOptions,
    DryRun,
    Force,
    Fps,
    FramingOptions,
    Gpus,
    LookOptions,
    Offload,
    PresetName,
    Quantize,
    SpeedOptions,
    Weights,
    Yes,
    read_audio,
    read_colour,
    read_rate,
    stem_of,
    typed,
)

if TYPE_CHECKING:
    from mtvcraft_cli.jobs.animation import AnimateJob


def animation_job(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Picture of the character.")],
    drive: Annotated[
        Path,
        typer.Argument(
            metavar="DRIVE", help="What moves: a video, a folder or pattern of pictures, a file of motion, or tokens."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where the new video goes; default REFERENCE.DRIVE.mp4.")
    ] = None,
    preset: PresetName = "auto",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; more is finer and slower.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same video.")] = 0,
    motion_guidance: Annotated[
        float | None, typer.Option(min=0, help="How hard the motion pulls; 1 is off and saves a pass.")
    ] = None,
    scheduler: Annotated[
        Literal["dpm", "ddim", "euler", "unipc"] | None, typer.Option(help="How noise is taken away.")
    ] = None,
    reference_latent: Annotated[
        Literal["sample", "mean"] | None, typer.Option(help="What is taken of the picture's posterior.")
    ] = None,
    fps: Fps = None,
    audio: Annotated[str, typer.Option(metavar="keep|none|FILE", help="Sound of the new video.")] = "keep",
    crf: Annotated[int, typer.Option(min=0, max=51, help="H.264 quality; lower is better and larger.")] = 18,
    background: Background = "ffffff",
    fit: Annotated[
        Literal["crop", "pad"],
        typer.Option(help="Crop the picture to the preset's shape, or show all of it on ground."),
    ] = "crop",
    compare: Annotated[
        Path | None, typer.Option(help="Also write reference, driver, skeletons and result side by side.")
    ] = None,
    frames_dir: Annotated[
        Path | None, typer.Option(help="Also write the frames as PNG files into this folder; they lose nothing.")
    ] = None,
    device: Device = "auto",
    offload: Offload = "auto",
    gpus: Gpus = None,
    quantize: Quantize = "none",
    two_passes: Annotated[
        bool, typer.Option("--two-passes", help="Guide in two passes instead of one batch: less memory, slower.")
    ] = False,
    weights: Weights = None,
    force: Force = False,
    *,
    pace: SpeedOptions,
    look: LookOptions,
    motion: FramingOptions,
    driver: DriveOptions,
) -> tuple[Any, str]:
    """What the words ask for: an `AnimateJob`, and a line that says why its preset, where that was left open."""
    from mtvcraft_cli.device.split import read_cards
    from mtvcraft_cli.jobs.animation import AnimateJob
    from mtvcraft_cli.jobs.choice import choose_preset

    cards, speed = read_cards(gpus) if gpus else (), pace.settings()
    chosen, why = choose_preset(
        preset,
        weights,
        device,
        cards,
        quantize,
        offload=offload,
        two_passes=two_passes,
        whole=speed.whole,
        skips=speed.skips,
    )
    sampler = chosen.sampler
    sampler = replace(
        sampler,
        scheduler=scheduler or sampler.scheduler,
        steps=steps or sampler.steps,
        motion_guidance=sampler.motion_guidance if motion_guidance is None else motion_guidance,
    )
    chosen = replace(chosen, sampler=sampler, reference_latent=reference_latent or chosen.reference_latent)
    chosen = look.applied(chosen)
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
        fit=fit,
        compare=compare,
        frames_dir=frames_dir,
        driver=driver.settings(weights, background),
        motion=motion.settings(),
        device=device,
        offload=offload,
        gpus=cards,
        quantize=quantize,
        speed=speed,
        two_passes=two_passes,
        weights=weights,
        force=force,
        command=typed(),
    )
    return job, why


@with_options_of(animation_job)
def animate(*, yes: Yes = False, dry_run: DryRun = False, **settings: Any) -> None:
    """Make the character in REFERENCE move like the person in DRIVE."""
    job, why = animation_job(**grouped(animation_job, settings))
    run_job(job, dry_run=dry_run, yes=yes, why=why)


def run_job(job: "AnimateJob", *, dry_run: bool, yes: bool, why: str = "") -> None:
    """Prepare, say `why` this preset, show the plan, work, and print where the result is."""
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.animation import prepare_animation

    prepared = prepare_animation(job, open_cache(), supply(yes=yes, dry_run=dry_run))
    for line in filter(None, (why, *prepared.remarks)):
        say(line)
    paths = "\n".join(str(path) for path in (job.output, job.compare, job.frames_dir) if path is not None)
    if dry_run:
        left = (
            f"\n`{job.output}` is already made so and would be left alone"
            if prepared.finished and not job.force
            else ""
        )
        return answer(prepared.plan_text() + left, prepared.told())
    if prepared.finished and not job.force:
        say(f"`{job.output}` is already made from these inputs and settings: left alone")
        return answer(paths, prepared.told())
    say(prepared.plan_text())
    from mtvcraft_cli.pipeline import run_animation

    report = run_animation(prepared, watch)
    for line in report.remarks:
        say(line)
    for line in report.warnings:
        warn(line)
    if prepared.made and prepared.framed and not job.force:
        say(f"wrote `{job.compare}` from the finished `{job.output}` in {report.seconds:.0f} s")
    else:
        earlier = f", {report.kept_windows} window(s) from an earlier run" if report.kept_windows else ""
        say(f"wrote `{job.output}`: {report.frames} frames in {report.seconds:.0f} s{earlier}")
    return answer(paths, report.told())
