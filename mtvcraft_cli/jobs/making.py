"""`mtvcraft eval --run`: what is to be animated before it is scored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.device.placement import Quantize, Wanted
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.bench import Bench
from mtvcraft_cli.eval.layout import Clips, find_clips
from mtvcraft_cli.eval.sources import FrameFolder, Source, VideoFile
from mtvcraft_cli.jobs.animation import AnimateJob, PreparedAnimation, prepare_animation
from mtvcraft_cli.jobs.drive import DriveSettings
from mtvcraft_cli.jobs.weights import Supply, obtain
from mtvcraft_cli.preset import Preset, checked
from mtvcraft_cli.weights.locate import locate

STEPS, MOTION_GUIDANCE, TEXT_GUIDANCE, PROMPT = 50, 3.0, 6.0, "a person is dancing"
"""The paper's (A.3)."""
USUAL_RATE: Final = Fraction(30)


@dataclass(frozen=True, kw_only=True)
class MakingJob:
    """What was asked for."""

    preset: Preset
    truth: Path
    output: Path
    """Folder of the results: `ID/` with frames, and `ID.mp4` to look at."""
    bench: Bench | None = None
    seed: int = 0
    device: str = "auto"
    offload: Wanted = "auto"
    quantize: Quantize = "none"
    weights: Path | None = None
    command: str = ""


def as_in_the_paper(preset: Preset) -> tuple[Preset, str]:
    """Give a preset the settings that the paper measured with, where they are for it.

    A preset that wants fewer steps than the paper's, as a small or a distilled one does, keeps its own.

    Returns:
        The preset, and a line that says what was done.
    """
    sampler = preset.sampler
    if sampler.steps < STEPS:
        return preset, f"preset {preset.name} keeps its own settings: it is made for {sampler.steps} steps"
    sampler = replace(sampler, steps=STEPS, motion_guidance=MOTION_GUIDANCE)
    words = f"{STEPS} steps, motion guidance {MOTION_GUIDANCE:g}"
    if preset.backbone != "wan":
        return checked(replace(preset, sampler=sampler)), f"preset {preset.name} as in the paper: {words}"
    sampler = replace(sampler, text_guidance=TEXT_GUIDANCE)
    words += f', text guidance {TEXT_GUIDANCE:g}, "{PROMPT}"'
    return checked(replace(preset, sampler=sampler, prompt=PROMPT)), f"preset {preset.name} as in the paper: {words}"


@dataclass(frozen=True, kw_only=True)
class PreparedMaking:
    """A job that has passed the checks that come before the first clip."""

    job: MakingJob
    clips: Sequence[Source]
    cache: Cache
    broken: Mapping[str, str]

    def told(self) -> dict[str, Any]:
        """What would be made, as plain data."""
        return {
            "preset": self.job.preset.name,
            "output": str(self.job.output),
            "clips": [{"id": clip.id, "frames": len(clip.frame_numbers())} for clip in self.clips],
            "failed": dict(self.broken),
        }

    def plan_text(self) -> str:
        """What would be made, in a line."""
        frames = sum(len(clip.frame_numbers()) for clip in self.clips)
        return f"{len(self.clips)} clips, {frames} frames, by preset {self.job.preset.name} into `{self.job.output}`"

    def animations(self) -> Iterator[tuple[str, PreparedAnimation | MtvcraftError]]:
        """Check the animation of each clip when its turn comes; one that can't be done doesn't stop the others.

        Raises:
            MtvcraftError: something is wrong that is so with all clips: weights are missing (exit 6), something doesn't
                fit (exit 5), or the folder holds results of other settings (exit 2).
        """
        for clip in self.clips:
            try:
                yield clip.id, prepare_animation(self._job_of(clip), self.cache)
            except MtvcraftError as error:
                if error.exit is not Exit.INPUT:
                    raise
                yield clip.id, error

    def _job_of(self, clip: Source) -> AnimateJob:
        job = self.job
        inputs = job.output / ".inputs"
        inputs.mkdir(parents=True, exist_ok=True)
        from mtvcraft_cli.video.picture import write_picture

        reference = inputs / f"{clip.id}.png"
        write_picture(reference, next(iter(clip.frames([0]))))
        drive, rate = _drive_of(clip, inputs), None
        if drive.is_dir():
            rate = _own_rate(clip) or (Fraction(job.bench.rate) if job.bench and job.bench.rate else USUAL_RATE)
        return AnimateJob(
            reference=reference,
            drive=drive,
            output=job.output / f"{clip.id}.mp4",
            frames_dir=job.output / clip.id,
            preset=job.preset,
            seed=job.seed,
            audio="none",
            driver=DriveSettings(rate=rate, weights=job.weights),
            device=job.device,
            offload=job.offload,
            quantize=job.quantize,
            weights=job.weights,
            command=job.command,
        )


def _own_rate(clip: Source) -> Fraction | None:
    from mtvcraft_cli.video.read import probe

    return probe(clip.path).rate if isinstance(clip, VideoFile) else None


def _drive_of(clip: Source, inputs: Path) -> Path:
    """A path that the program follows frame by frame: the clip itself, or its frames laid out in a folder."""
    if isinstance(clip, FrameFolder):
        return clip.folder
    if isinstance(clip, VideoFile):
        from mtvcraft_cli.video.read import probe

        if probe(clip.path).frames == len(clip.frame_numbers()):
            return clip.path  # of a varying rate, frames would be repeated or left out
    from mtvcraft_cli.video.frames import FrameWriter, holds_frames

    folder = inputs / f"{clip.id}-{clip.sha256()[:12]}"
    if not holds_frames(folder):
        with FrameWriter(folder) as writer:
            for picture in clip.frames():
                writer.write(picture[None])
    return folder


def prepare_making(job: MakingJob, cache: Cache, supply: Supply | None = None) -> PreparedMaking:
    """Check what can be checked before the first clip.

    Args:
        job: what was asked.
        cache: knows what earlier runs have left.
        supply: gets weights that are missing; None gets none.

    Raises:
        MtvcraftError: weights are missing (exit 6), there is no clip (exit 4), or the folder is taken (exit 2).
    """
    from mtvcraft_cli.device.place import choose_device
    from mtvcraft_cli.device.quantise import check_quantize

    if not job.output.parent.is_dir():
        raise MtvcraftError(
            f"there is no folder `{job.output.parent}`", hint="create it first, or name another", exit=Exit.USAGE
        )
    if job.output.exists() and not job.output.is_dir():
        raise MtvcraftError(
            f"`{job.output}` is a file", hint="name a folder for the results with `--pred`", exit=Exit.USAGE
        )
    check_quantize(job.quantize, choose_device(job.device))
    obtain(job.preset, job.weights, locate(job.preset, job.weights), supply)
    found: Clips = find_clips(job.truth)
    ids = sorted([*found.sources, *found.broken])
    if job.bench is not None:
        ids, _ = job.bench.wanted(ids, job.truth)
    broken = {id: found.broken[id].message for id in ids if id in found.broken}
    clips = []
    for source in (found.sources[id] for id in ids if id in found.sources):
        try:
            source.frame_numbers()
        except MtvcraftError as error:
            broken[source.id] = error.message
        else:
            clips.append(source)
    if not clips:
        why = f": {next(iter(broken.values()))}" if broken else ""
        raise MtvcraftError(
            f"`{job.truth}` holds no clip that can be animated{why}",
            hint="`mtvcraft eval --explain` shows the layout",
        )
    return PreparedMaking(job=job, clips=clips, cache=cache, broken=broken)
