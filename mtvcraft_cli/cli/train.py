"""`mtvcraft train`: data sets, and the three networks."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mtvcraft_cli.cli.console import answer, console, say, table, warn, watch
from mtvcraft_cli.cli.options import DryRun, Force, TrustFile, Weights, read_rate
from mtvcraft_cli.errors import Exit, MtvcraftError, explained

if TYPE_CHECKING:
    from mtvcraft_cli.train.plan import Plan
    from mtvcraft_cli.train.settings import Recipe
    from mtvcraft_cli.train.stages import Kind

HELP = "Train the tokenizer, the VAE or the transformer on your own videos."
LESS_MEMORY = (
    "the same command goes on from the last checkpoint; a larger `--set loop.accumulate=N` holds fewer clips at once, "
    "`loop.gradient_checkpointing=true` less of each (`dit`), `loop.optimiser=adamw8bit` smaller moments"
)
"""What helps where memory runs out in training."""
SHOWN = 5
"""Inputs of which it is said why they can't be used."""


def prepare(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUTS...", help="Videos, or files of motion (BVH, AMASS, joints), or folders of them."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the data set.")],
    side: Annotated[
        int, typer.Option(min=32, max=4096, help="Shorter side of the stored frames, pixels; never enlarged.")
    ] = 512,
    clip_fps: Annotated[
        str | None, typer.Option(help="Frames a second: faster videos are thinned; of motion all get it (30).")
    ] = None,
    max_gap: Annotated[
        float, typer.Option(min=0, max=86400, help="Seconds without the person that are filled in; clips end at more.")
    ] = 0.5,
    min_frames: Annotated[int, typer.Option(min=9, help="Shorter clips are dropped.")] = 33,
    max_frames: Annotated[int, typer.Option(min=18, help="Longer clips of videos are cut evenly.")] = 600,
    blur: Annotated[
        float, typer.Option(min=0, help="Clips whose Laplacian varies less are dropped as blurred; 0 drops none.")
    ] = 100.0,
    drop_unsure: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the clips that is dropped: those with the least sure joints."),
    ] = 0.1,
    shard_mb: Annotated[int, typer.Option(min=1, help="Size at which a shard is closed, MB.")] = 1024,
    backend: Annotated[Literal["auto", "nlf", "mediapipe"], typer.Option(help="What finds people in videos.")] = "auto",
    trust_file: TrustFile = None,
    joint_map: Annotated[
        Path | None, typer.Option(help="YAML or JSON: which joint of the BVH files is which of SMPL's.")
    ] = None,
    body_model: Annotated[Path | None, typer.Option(help="SMPL body file of your own, for SMPL parameters.")] = None,
    weights: Weights = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a data set of INPUTS: clips of one person with frames and joints, or motion alone.

    Interrupted, the same command goes on after the last finished video; with more INPUTS it adds them.
    """
    from mtvcraft_cli.cache import open_cache
    from mtvcraft_cli.jobs.drive import DriveSettings
    from mtvcraft_cli.joints.own.read import OwnMotion
    from mtvcraft_cli.train.dataset.cut import CutSettings
    from mtvcraft_cli.train.dataset.job import PrepareJob, prepare_job, run_job
    from mtvcraft_cli.train.dataset.motions import MotionSettings
    from mtvcraft_cli.train.dataset.videos import VideoSettings

    rate = read_rate(clip_fps) if clip_fps else None
    job = PrepareJob(
        inputs=inputs,
        output=output,
        videos=VideoSettings(
            drive=DriveSettings(backend=backend, trust_file=trust_file, weights=weights),
            cut=CutSettings(max_gap_s=Fraction(str(max_gap)), min_frames=min_frames, max_frames=max_frames, rate=rate),
            side_px=side,
            least_blur=blur,
            unsure=drop_unsure,
            shard_bytes=shard_mb * 2**20,
        ),
        motion=MotionSettings(
            own=OwnMotion(joint_map=joint_map, body_model=body_model), rate=rate or Fraction(30), min_frames=min_frames
        ),
        force=force,
    )
    prepared = prepare_job(job)
    if prepared.passed_over:
        say(f"{prepared.passed_over} files are neither videos nor motion, and are passed over")
    if prepared.done:
        say(f"{prepared.done} inputs were done by earlier runs")
    what = "videos" if prepared.sort == "videos" else "files of motion"
    if dry_run:
        say(f"would make a data set of {len(prepared.inputs)} {what} in")
        return answer(str(output), prepared.told())
    report = run_job(prepared, open_cache(), watch)
    for name, why in list(report.unreadable.items())[:SHOWN]:
        warn(f"`{name}` is left out: {why}")
    if len(report.unreadable) > SHOWN:
        warn(f"and {len(report.unreadable) - SHOWN} more: see `{output / 'report.json'}`")
    rows = [[reason, str(lost["clips"]), str(lost["frames"])] for reason, lost in report.dropped.items()]
    rows.append(["kept", str(report.clips), str(report.frames)])
    say(table(["", "clips", "frames"], rows))
    return answer(str(output), {"output": str(output), **report.told()})


_of_the_run = partial(typer.Option, rich_help_panel="The run")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What every stage is told."""

    output: Annotated[
        Path, _of_the_run("--output", "-o", help="Folder of the run; the same folder goes on with the same run.")
    ]
    recipe: Annotated[
        str, _of_the_run(metavar="NAME|FILE", help="How everything is trained: a built-in recipe or a YAML file.")
    ] = "mini"
    data: Annotated[
        list[str] | None,
        _of_the_run(metavar="SET", help="A set that `train prepare` made, for the recipe's own data; may be repeated."),
    ] = None
    changes: Annotated[
        list[str] | None,
        _of_the_run("--set", metavar="KEY=VALUE", help="Another value than the recipe's, such as loop.batch=8."),
    ] = None
    motion: Annotated[Path, _of_the_run(help="Folder of the motion sets that the recipe names.")] = Path()

    def read(self, kind: "Kind") -> "Recipe":
        """The recipe with all changes.

        Raises:
            MtvcraftError: exit 2; there is none, or a change doesn't fit.
        """
        from mtvcraft_cli.train.settings import load_recipe, read_changes

        changes = read_changes(self.changes or (), kind)
        if self.data:
            changes["data.sets"] = list(self.data)
        return load_recipe(self.recipe, changes, self.motion)


Minutes = Annotated[
    float | None, _of_the_run(min=0, help="Stop after so long, with a checkpoint; the same command goes on.")
]
TokenizerRun = Annotated[
    Path | None, _of_the_run("--tokenizer", metavar="RUN", help="Run of the tokenizer, or its weights.")
]
VaeRun = Annotated[Path | None, _of_the_run("--vae", metavar="RUN", help="Run of the VAE, or its weights.")]


def tokenizer(run: RunOptions, minutes: Minutes = None, dry_run: DryRun = False) -> None:
    """Train 4DMoT, the motion tokenizer, on videos' joints or on motion alone."""
    _train("tokenizer", run, {}, minutes, dry_run=dry_run)


def vae(run: RunOptions, minutes: Minutes = None, dry_run: DryRun = False) -> None:
    """Train a small video VAE, for a model of your own whose pictures are too small for the released one."""
    _train("vae", run, {}, minutes, dry_run=dry_run)


def dit(
    run: RunOptions,
    tokenizer: TokenizerRun = None,
    vae: VaeRun = None,
    minutes: Minutes = None,
    dry_run: DryRun = False,
) -> None:
    """Train the transformer, on top of a tokenizer and a VAE."""
    _train("dit", run, _parts(tokenizer, vae), minutes, dry_run=dry_run)


def latents(
    run: RunOptions,
    tokenizer: TokenizerRun = None,
    vae: VaeRun = None,
    clips: Annotated[int | None, typer.Option(min=1, help="How many clips at most; the recipe's number.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Encode the clips of `train dit` ahead of it or beside it, into the folder of its run."""
    recipe, parts = run.read("dit"), _parts(tokenizer, vae)
    from mtvcraft_cli.train.plan import plan_run

    plan = plan_run("dit", recipe, run.output, parts)
    if dry_run:
        return _show_plan(plan, "encode the clips of")
    from mtvcraft_cli.train.stages import prepare_latents

    with _told_of_memory("close other programs; a smaller `preset.size_px` or fewer `preset.frames` take less"):
        count = prepare_latents(recipe, run.output, parts, limit_clips=clips, watch=watch)
    say(f"{count} clips are ready for `mtvcraft train dit -o {run.output}`")
    return answer(str(run.output / "latents"), {"latents": str(run.output / "latents"), "clips": count})


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run of `dit` on cogvideox.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="NAME.yaml", help="The new preset; its weights go to NAME/.")
    ],
    force: Force = False,
    dry_run: DryRun = False,
) -> None:
    """Make a preset of a run with weights in float16, at half the size, to ship or to give away."""
    from mtvcraft_cli.train.pack import pack, packable
    from mtvcraft_cli.weights.locate import size_text

    parts = packable(run, output, force=force)
    told = {"preset": str(output), "parts": list(parts)}
    if dry_run:
        say(f"would halve {', '.join(parts)}, {size_text(sum(part.size_bytes for part in parts.values()))}, into")
        return answer(str(output), told)
    size = pack(run, output, force=force)
    say(f"{', '.join(parts)}: {size_text(size)} in `{output.with_suffix('')}`")
    say(f"to use it: mtvcraft animate ref.png drive.mp4 --preset {output}")
    return answer(str(output), {**told, "bytes": size})


def _parts(tokenizer: Path | None, vae: Path | None) -> dict[str, Path]:
    given = {"tokenizer": tokenizer, "vae": vae}
    return {part: path for part, path in given.items() if path is not None}


def _train(kind: "Kind", run: RunOptions, parts: Mapping[str, Path], minutes: float | None, *, dry_run: bool) -> None:
    """Train, or say what would be trained."""
    if follows := int(os.environ.get("RANK", "0")) > 0:  # of several processes only the first one speaks
        console.quiet, console.progress = True, "none"
    recipe = run.read(kind)
    from mtvcraft_cli.train.plan import keep_recipe, plan_run, read_log

    plan = plan_run(kind, recipe, run.output, parts)
    if dry_run:
        return _show_plan(plan, "train")
    from mtvcraft_cli.train.stages import train_stage

    for line in plan.sentences():
        say(line)
    if not follows and (others := keep_recipe(recipe, run.output, kind)) and plan.done:
        say(f"from here on with other settings than the first {plan.done} steps: {', '.join(others)}")
    limit_s = None if minutes is None else 60 * minutes
    with _told_of_memory(LESS_MEMORY):
        done = train_stage(kind, recipe, run.output, parts=parts, limit_s=limit_s, watch=watch)
    if follows:
        return None
    report = read_log(run.output, "report")
    if report:
        say(table(["measured", f"after step {report['step']}"], _rows(report)))
    preset = run.output / "preset.yaml"
    if not done.finished:
        say(f"stopped after step {done.step} of {plan.steps}, with a checkpoint: the same command goes on from there")
    say(f"to use it: mtvcraft animate ref.png drive.mp4 --preset {preset}")
    answer(
        str(preset),
        {
            "preset": str(preset),
            "steps": done.step,
            "finished": done.finished,
            "report": report,
            "last": read_log(run.output, "train"),
        },
    )
    if done.stopped_by is not None:
        raise typer.Exit(Exit.INTERRUPTED)
    return None


@contextmanager
def _told_of_memory(hint: str) -> Iterator[None]:
    """Where memory runs out, name what makes training take less of it, and not what makes a video."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = explained(error)
        if told.exit is not Exit.FIT:
            raise
        raise MtvcraftError(told.message, hint=hint, exit=told.exit) from error


def _rows(values: Mapping[str, Any]) -> list[list[str]]:
    return [[name, f"{value:.4g}"] for name, value in values.items() if name not in ("step", "kind")]


def _show_plan(plan: "Plan", what: str) -> None:
    say(f"would {what} the {plan.kind}")
    for line in plan.sentences():
        say(line)
    answer(str(plan.folder), plan.told())
