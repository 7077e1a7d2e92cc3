"""`mtvcraft animate` and `replay`, before the work."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.device.placement import Quantize, Wanted
from mtvcraft_cli.device.plan import Plan, Task, make_plan
from mtvcraft_cli.device.ranks import rank_device, world_size
from mtvcraft_cli.device.split import check_cards
from mtvcraft_cli.device.together import check_together
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.drive import (
    Drive,
    DriveSettings,
    Estimator,
    Framing,
    check_drive,
    choose_estimator,
    description_of,
    files_of,
    hash_of,
    look_at_drive,
    tokenizer_identity,
)
from mtvcraft_cli.jobs.fit import (
    check_fit,
    free_disk,
    machine_of,
    peak_text,
    place_text,
    placement_of,
    rates_of,
    shared_out,
    sources_of,
    time_text,
)
from mtvcraft_cli.jobs.speed import Speed, settled
from mtvcraft_cli.jobs.text import TEXT_PARTS, kept_hashes, prompts_of, text_key, text_told
from mtvcraft_cli.jobs.timing import Timing, plan_timing
from mtvcraft_cli.jobs.weights import Supply, obtain
from mtvcraft_cli.preset import Preset, load_preset
from mtvcraft_cli.sidecar import (
    check_ending,
    check_folders,
    check_input,
    check_target,
    fingerprint,
    is_ours,
    made_already,
    read_sidecar,
    sidecar_path,
)
from mtvcraft_cli.weights.locate import Located, locate, size_text
from mtvcraft_cli.windows import Window, plan_windows

if TYPE_CHECKING:
    from mtvcraft_cli.shapes import Picture
    from mtvcraft_cli.tokens.files import TokenFile
    from mtvcraft_cli.video.write import Sound

Audio = Literal["keep", "none"] | Path


@dataclass(frozen=True, kw_only=True)
class AnimateJob:
    """What `mtvcraft animate` was asked to do."""

    reference: Path
    drive: Path
    output: Path
    preset: Preset
    seed: int = 0
    rate: Fraction | None = None
    audio: Audio = "keep"
    crf: int = 18
    background: tuple[int, int, int] = (255, 255, 255)
    fit: Literal["crop", "pad"] = "crop"
    compare: Path | None = None
    """Where reference, driver, skeletons and result are written side by side."""
    frames_dir: Path | None = None
    """Folder for the frames as PNG files, which lose nothing."""
    driver: DriveSettings = field(default_factory=DriveSettings)
    motion: Framing = field(default_factory=Framing)
    device: str = "auto"
    offload: Wanted = "auto"
    gpus: tuple[int, ...] = ()
    """Cards that may share the transformer's layers; () takes `device`."""
    quantize: Quantize = "none"
    """How matrices of transformer and text encoder are stored."""
    speed: Speed = field(default_factory=Speed)
    fuse: bool = True
    """Whether projections are fused where the placement allows it; a replay does what was done."""
    two_passes: bool = False
    weights: Path | None = None
    force: bool = False
    command: str = ""
    """The words that were typed, for the sidecar."""
    expected_weights: Mapping[str, str] | None = None
    """SHA-256 that weight files must have, by name: those that a replayed video was made with."""

    @property
    def inputs(self) -> dict[str, Path]:
        """Every file that is read; the driver may be a folder or a pattern."""
        files = {"reference": self.reference, "drive": self.drive, **self.driver.files}
        if isinstance(self.audio, Path):
            files["audio"] = self.audio
        for description in description_of(self.drive):
            files["description"] = description
        return files

    def told(self) -> dict[str, Any]:
        """The settings that the frames depend on, as plain data; what `replay` needs to do it again."""
        return {
            "preset": self.preset.name,
            "steps": self.preset.sampler.steps,
            "scheduler": self.preset.sampler.scheduler,
            "motion_guidance": self.preset.sampler.motion_guidance,
            "text_guidance": self.preset.sampler.text_guidance,
            "guidance_range": list(self.preset.sampler.guidance_range),
            "reference_latent": self.preset.reference_latent,
            "prompt": self.preset.prompt,
            "negative_prompt": self.preset.negative_prompt,
            "clip_from": self.preset.clip_from,
            "color_match": self.preset.color_match,
            "loras": list(self.preset.loras),
            "size_px": list(self.preset.size_px),
            "seed": self.seed,
            "fps": _text(self.rate),
            "audio": "file" if isinstance(self.audio, Path) else self.audio,
            "crf": self.crf,
            "background": list(self.background),
            "fit": self.fit,
            "two_passes": self.two_passes,
            "quantize": self.quantize,
            "speed": self.speed.told(),
            "driver": self.driver.told(),
            "motion": self.motion.told(),
        }


@dataclass(frozen=True, kw_only=True)
class PreparedAnimation:
    """A job that has passed every check, with what is known before a model is loaded."""

    job: AnimateJob
    drive: Drive
    picture: "Picture"
    sound: "Sound | None"
    timing: Timing
    windows: list[Window]
    parts: Mapping[str, Located]
    hashes: Mapping[str, str]
    """SHA-256 of every input and weight file."""
    estimator: Estimator | None
    device: str
    plan: Plan
    """Where every part will live, and what the run takes."""
    cache: Cache
    fingerprint: str
    made: bool
    """Whether the output is there already, made from the same inputs and settings."""
    compared: bool
    """The same of the comparison; True where none is wanted."""
    framed: bool = True
    """The same of the folder of frames."""

    @property
    def finished(self) -> bool:
        """Whether all that was asked for is there already, made from the same inputs and settings."""
        return self.made and self.compared and self.framed

    @property
    def two_passes(self) -> bool:
        """Whether the branches of guidance run one after the other; those that run on different ranks need not."""
        return self.plan.task.two_passes

    @property
    def remarks(self) -> list[str]:
        """What was assumed, and what the user may not expect."""
        lines = list(self.drive.assumed)
        if self.drive.kind == "tokens" and self.job.motion != Framing():
            lines.append("`--mirror`, `--motion-strength` and `--root` have no effect on tokens")
        if self.job.driver.body_model is not None and self.drive.kind == "video" and self.job.preset.body != "neutral":
            lines.append(f"`--body-model` has no effect: preset {self.job.preset.name} takes the person's own body")
        width_px, height_px = self.job.preset.size_px
        ratio = self.picture.shape[1] / self.picture.shape[0] / (width_px / height_px)
        seen = min(ratio, 1 / ratio)
        if seen < 0.9 and self.job.fit == "crop":
            lines.append(
                f"the picture is cropped to {width_px}x{height_px}: its middle, {seen:.0%} of it, is seen; "
                "`--fit pad` shows all of it"
            )
        if self.job.preset.loras and self.job.preset.sampler.text_guidance == 1:
            lines.append(
                f"text guidance is off with the LoRA of preset {self.job.preset.name}: the prompt still acts, and a "
                "negative prompt does nothing; `--text-guidance` turns it on"
            )
        if self.job.preset.seeded:
            lines.append(
                f"preset {self.job.preset.name} has random weights: "
                "the video shows that every stage works, not what a trained model makes"
            )
        return lines

    @property
    def token_count(self) -> int:
        """Motion tokens over all windows."""
        return sum(window.latent_frames * 24 for window in self.windows)

    def told(self) -> dict[str, Any]:
        """The plan as plain data."""
        preset = self.job.preset
        return {
            "output": str(self.job.output),
            "made_already": self.made,
            "preset": preset.name,
            "device": self.device,
            **self.drive.told(),
            "frames": self.timing.frames,
            "fps": str(self.timing.rate),
            "duration_s": float(self.timing.frames / self.timing.rate),
            "size_px": list(preset.size_px),
            "windows": len(self.windows),
            "window_frames": self.windows[0].frames,
            "motion_tokens": self.token_count,
            "steps": preset.sampler.steps,
            "plan": self.plan.told(),
            "weights": [
                {
                    "part": part.part,
                    "source": part.source,
                    "bytes": part.released.bytes if part.released else None,
                    "licence": part.licence,
                }
                for part in self.parts.values()
            ],
        }

    def plan_text(self) -> str:
        """The plan in three lines."""
        preset, timing = self.job.preset, self.timing
        width_px, height_px = preset.size_px
        licences = ", ".join(sorted({part.licence for part in self.parts.values()}))
        return "\n".join(
            (
                f"{timing.frames} frames of {width_px}x{height_px} at {_rate_text(timing.rate)} fps "
                f"({float(timing.frames / timing.rate):.2f} s) from {self.drive.kind} `{self.drive.path}`",
                f"preset {preset.name} on {place_text(self.plan)}: {len(self.windows)} window(s) of "
                f"{self.windows[0].frames} frames, {self.plan.visual_tokens} visual tokens each, {self.token_count} "
                f"motion tokens, {preset.sampler.steps} steps, motion guidance {preset.sampler.motion_guidance:g}",
                f"{peak_text(self.plan)}, {time_text(self.plan)}; "
                f"weights: {', '.join(_weight_text(part) for part in self.parts.values())}; licences: {licences}",
            )
        )


ChooseEstimator = Callable[[Path, DriveSettings], Estimator | None]


def check_names(job: AnimateJob) -> None:
    """Refuse names that can't be right, before any file is opened.

    Raises:
        MtvcraftError: exit 2.
    """
    for what, path in job.inputs.items():
        if what != "drive":
            check_input(path, what.replace("_", " "))
    check_drive(job.drive, job.driver)
    check_folders(weights=job.weights, trust_file=job.driver.trust_file)
    inputs = [*job.inputs.values(), *files_of(job.drive)]
    for target in filter(None, (job.output, job.compare)):
        check_ending(target, ".mp4")
        beside = sidecar_path(target)
        for written in (target, beside):
            check_target(written, inputs, force=job.force, made=is_ours(beside))
    if job.compare is not None and job.compare.resolve() == job.output.resolve():
        raise MtvcraftError(
            f"`{job.compare}` is named twice", hint="give `--compare` another name than `-o`", exit=Exit.USAGE
        )
    if job.frames_dir is not None:
        from mtvcraft_cli.video.frames import check_frames_folder

        check_frames_folder(job.frames_dir, [*inputs, job.output, *([job.compare] if job.compare else [])])


def find_parts(
    job: AnimateJob, device: str, cache: Cache, supply: Supply | None = None
) -> tuple[dict[str, Located], dict[str, str]]:
    """Find the weights of a job, or get them.

    Args:
        job: whose preset needs them.
        device: that it would run on.
        cache: knows texts that are encoded already, for which no encoder is needed.
        supply: gets weights that are missing; None gets none.

    Returns:
        Every part that is needed, and the hashes of those that made what is kept and are not there any more.

    Raises:
        MtvcraftError: exit 6; some are missing.
    """
    parts = locate(job.preset, job.weights)
    made_by: dict[str, str] | None = None
    if any(parts[part].missing for part in TEXT_PARTS if part in parts):
        made_by = kept_hashes(job.preset, device, cache, job.quantize)
        parts = locate(job.preset, job.weights, leave_out=() if made_by is None else TEXT_PARTS)
    parts = obtain(job.preset, job.weights, parts, supply, leave_out=() if made_by is None else TEXT_PARTS)
    return parts, made_by or {}


def prepare_animation(
    job: AnimateJob,
    cache: Cache,
    supply: Supply | None = None,
    estimator_for: ChooseEstimator = choose_estimator,
) -> PreparedAnimation:
    """Check a job from the cheapest to the dearest question.

    Args:
        job: what was asked.
        cache: knows what earlier runs have left.
        supply: gets weights that are missing; None gets none.
        estimator_for: gives who finds the person in a driver; many jobs share what is loaded.

    Raises:
        MtvcraftError: exit 2, 6, 4 or 5, in this order.
    """
    check_names(job)
    device = device_of(job)
    job = replace(job, speed=settled(job.speed, job.preset, device, alone=world_size() == 1))
    parts, made_by = find_parts(job, device, cache, supply)
    estimator = estimator_for(job.drive, job.driver)
    hashes = _hashes(job, parts, cache) | made_by | dict(estimator.hashes if estimator else {})
    if job.expected_weights is not None:
        _check_weights(job.expected_weights, hashes)
    from mtvcraft_cli.video.frames import holds_frames, is_taken
    from mtvcraft_cli.video.picture import read_picture

    picture = read_picture(job.reference, background=job.background)
    job = replace(job, preset=sized(job.preset, picture))
    wanted = fingerprint(
        {
            "settings": job.told(),
            "preset": job.preset.fingerprint,
            "hashes": hashes,
            "pose": estimator and estimator.told(),
            "device": device.partition(":")[0],
        }
    )
    made = made_already(job.output, wanted)
    check_target(job.output, force=job.force, made=made)
    compared = job.compare is None or made_already(job.compare, wanted)
    if job.compare is not None:
        check_target(job.compare, force=job.force, made=compared)
    ours = job.frames_dir is None or holds_frames(job.frames_dir, wanted)
    framed = made and ours  # frames without their video are what an interrupted run leaves: both are made anew
    if job.frames_dir is not None and is_taken(job.frames_dir) and not ours and not job.force:
        raise MtvcraftError(
            f"`{job.frames_dir}` is already there, and not from these inputs and settings",
            hint="choose another name, or write over it with `--force`",
            exit=Exit.USAGE,
        )

    drive = look_at_drive(job.drive, job.driver, cache, job.preset, tokenizer_identity(parts["tokenizer"], hashes))
    sound = _sound(job, drive)
    if drive.tokens is not None:
        timing, windows = _timing_of_tokens(drive.tokens, drive.rate, job.rate), drive.tokens.plan
    else:
        timing = plan_timing(drive.frames, drive.rate, job.rate, job.preset)
        windows = plan_windows(timing.model_frames, job.preset.frames, job.preset.overlap)
    _check_room(job, timing)
    plan = _plan(job, parts, windows, drive if estimator else None, hashes, device, cache)
    if job.force or not framed:
        check_fit(plan, job.weights, cache.folder)
    return PreparedAnimation(
        job=job,
        drive=drive,
        picture=picture,
        sound=sound,
        timing=timing,
        windows=windows,
        parts=parts,
        hashes=hashes,
        estimator=estimator,
        device=device,
        plan=plan,
        cache=cache,
        fingerprint=wanted,
        made=made,
        compared=compared,
        framed=framed,
    )


def check_asked(job: AnimateJob) -> None:
    """Refuse what can't be had together, on whatever machine.

    Raises:
        MtvcraftError: exit 2.
    """
    check_together(
        offload=job.offload,
        cards=len(job.gpus),
        ranks=world_size(),
        quantize=job.quantize,
        level=job.speed.level,
        compiled=job.speed.compile,
        attention=job.speed.attention,
    )


def device_of(job: AnimateJob) -> str:
    """Where a job works; the first of several cards.

    Raises:
        MtvcraftError: exit 2; it isn't there, or can't do what was asked for, or not all of it together.
    """
    check_asked(job)
    import torch

    from mtvcraft_cli.device.place import choose_device
    from mtvcraft_cli.device.quantise import check_quantize

    if job.gpus:
        check_cards(job.gpus, torch.cuda.device_count(), job.device, world_size())
        device = torch.device("cuda", job.gpus[0])
    else:
        device = choose_device(rank_device(job.device, job.offload))
    check_quantize(job.quantize, device)
    return str(device)


def sized(preset: Preset, picture: "Picture") -> Preset:
    """Choose the size of the frames by the picture's shape, where the preset leaves that open."""
    if not preset.auto_size:
        return preset
    from mtvcraft_cli.latents.wanvideo.sizes import nearest_bucket

    return replace(preset, size_px=nearest_bucket((picture.shape[1], picture.shape[0])), auto_size=False)


def _hashes(job: AnimateJob, parts: Mapping[str, Located], cache: Cache) -> dict[str, str]:
    files = dict(job.inputs)
    for part in parts.values():
        files |= {f"{part.part}/{file.name}": file for file in part.files}
    hashes = {name: cache.sha256_of(path) for name, path in files.items() if name != "drive"}
    return {**hashes, "drive": hash_of(job.drive, cache)}


def _timing_of_tokens(tokens: "TokenFile", drive_rate: Fraction, rate: Fraction | None) -> Timing:
    out_rate = rate or drive_rate
    frames = tokens.meta.get("drive_frames", tokens.total_frames / tokens.rate * drive_rate)
    return Timing(
        drive_rate=drive_rate,
        model_rate=tokens.rate,
        model_frames=tokens.total_frames,
        rate=out_rate,
        frames=max(1, round(frames / drive_rate * out_rate)),
    )


def _sound(job: AnimateJob, drive: Drive) -> "Sound | None":
    """The sound of the result: the driver's own in step with its pictures, or that of another file from its start.

    Raises:
        MtvcraftError: exit 4; the file named has no sound.
    """
    if not isinstance(job.audio, Path):
        return drive.own_sound() if job.audio == "keep" else None
    from mtvcraft_cli.video.read import probe_sound
    from mtvcraft_cli.video.write import Sound

    probe_sound(job.audio)
    return Sound(path=job.audio)


def _check_room(job: AnimateJob, timing: Timing) -> None:
    """Refuse a video that is larger than the free disk."""
    width_px, height_px = job.preset.size_px
    needed_bytes = timing.frames * width_px * height_px // 4 + 2**20  # H.264 at the best useful quality stays below
    free_bytes = shutil.disk_usage(job.output.parent).free
    if free_bytes < needed_bytes:
        raise MtvcraftError(
            f"`{job.output.parent}` has {size_text(free_bytes)} free, and the video may take {size_text(needed_bytes)}",
            hint="free some space (`mtvcraft cache clear` empties the cache), or write to another disk",
            exit=Exit.FIT,
        )


def _plan(
    job: AnimateJob,
    parts: Mapping[str, Located],
    windows: list[Window],
    video: Drive | None,
    hashes: Mapping[str, str],
    device: str,
    cache: Cache,
) -> Plan:
    """Where every part will live, and what the run takes; a person is to be found in `video`."""
    told = [text_told(job.preset, prompt, hashes, device, job.quantize) for prompt in prompts_of(job.preset)]
    task = Task(
        preset=job.preset,
        windows=tuple(windows),
        sources=sources_of(parts),
        two_passes=job.two_passes,
        whole=job.speed.whole,
        skips=job.speed.skips,
        pose_frames=video.frames if video else 0,
        texts=sum(cache.find("text", text_key(each)) is None for each in told),
    )
    machine = replace(machine_of(device, job.gpus), scratch_free=free_disk(cache.folder))
    rates, wanted = rates_of(machine, cache.folder), placement_of(job.offload, job.quantize, len(job.gpus))
    return make_plan(shared_out(task, machine, rates, world_size()), machine, rates, wanted, job.quantize)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _rate_text(rate: Fraction) -> str:
    return str(rate.numerator) if rate.denominator == 1 else f"{float(rate):.3f}"


def _weight_text(part: Located) -> str:
    if part.seed is not None:
        return f"{part.part} from seed {part.seed}"
    size_bytes = part.size_bytes or (part.released.bytes if part.released else None)
    return f"{part.part} {size_text(size_bytes)}"


KEPT_AS_THEY_ARE = ("reference_latent", "prompt", "negative_prompt", "clip_from", "color_match")
"""Settings of a preset that a sidecar holds under their own names."""


def job_of_sidecar(
    path: Path,
    cache: Cache,
    *,
    output: Path | None,
    weights: Path | None,
    trust_file: Path | None,
    force: bool,
    command: str,
    offload: Wanted = "auto",
    gpus: tuple[int, ...] = (),
) -> AnimateJob:
    """Read from a sidecar what made its video, so that it can be made again.

    What runs code, a file for NLF, is never taken from a sidecar: it comes from anybody.

    Raises:
        MtvcraftError: exit 2 where the sidecar or an input is missing, 4 where an input or the preset has changed.
    """
    if path.is_file() and path.suffix != ".json" and sidecar_path(path).is_file():
        path = sidecar_path(path)  # the video itself was named
    content = read_sidecar(path)
    try:
        settings, inputs = content["settings"], content["inputs"]
        preset = load_preset(settings["preset"])
        sampler = replace(
            preset.sampler,
            scheduler=settings["scheduler"],
            steps=settings["steps"],
            motion_guidance=settings["motion_guidance"],
            text_guidance=settings["text_guidance"],
            guidance_range=tuple(settings["guidance_range"]),
        )
        preset = replace(
            preset,
            sampler=sampler,
            size_px=tuple(settings["size_px"]),
            auto_size=False,
            loras=tuple(settings["loras"]),
            **{key: settings[key] for key in KEPT_AS_THEY_ARE},
        )
        files = {name: _same_input(name, told, path, cache) for name, told in inputs.items()}
        folder = weights or (content["weights_folder"] and Path(content["weights_folder"]))
        job = AnimateJob(
            reference=files["reference"],
            drive=files["drive"],
            output=output or path.with_name(content["output"]["name"]),
            preset=preset,
            seed=settings["seed"],
            rate=settings["fps"] and Fraction(settings["fps"]),
            audio=files.get("audio", settings["audio"]),
            crf=settings["crf"],
            background=tuple(settings["background"]),
            fit=settings["fit"],
            driver=DriveSettings.of(settings["driver"], files, trust_file=trust_file, weights=folder),
            motion=Framing(**settings["motion"]),
            device="auto" if content["device"].startswith("cuda") and (world_size() > 1 or gpus) else content["device"],
            offload=offload,
            gpus=gpus,
            two_passes=settings["two_passes"],
            quantize=settings.get("quantize", "none"),
            speed=Speed(**settings.get("speed", {})),
            fuse=content.get("active", {}).get("fused_projections", True),
            weights=folder,
            force=force,
            command=command,
            expected_weights=content["weights"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise MtvcraftError(
            f"`{path}` lacks something that says how its video was made: {error!r}",
            hint="make the video again with `mtvcraft animate`; the `command` in the file says how it was made",
        ) from error
    if preset.fingerprint != content["preset_sha256"]:
        raise MtvcraftError(
            f"preset `{preset.name}` is not what it was when `{path.name}` was written",
            hint="use the version of mtvcraft that the file names, or make the video anew with `mtvcraft animate`",
        )
    return job


def _check_weights(expected: Mapping[str, str], hashes: Mapping[str, str]) -> None:
    """Refuse to replay with other weights than those that made the video."""
    for name in sorted(expected.keys() | {name for name in hashes if "/" in name}):
        if expected.get(name) != hashes.get(name):
            raise MtvcraftError(
                f"the weights `{name}` are not those that the video was made with",
                hint="name the folder of the old ones with `--weights DIR`, or animate anew",
                exit=Exit.WEIGHTS,
            )


def _same_input(name: str, told: Mapping[str, str], sidecar: Path, cache: Cache) -> Path:
    """Find an input where it was, or by its name beside the sidecar; its bytes must be the same."""
    from mtvcraft_cli.video.kind import is_pattern

    path = Path(told["path"])
    places = [path, sidecar.parent / path.name, sidecar.parent / path.parent.name / path.name]
    there = [place for place in places if place.exists() or (is_pattern(place) and glob(str(place)))]  # noqa: PTH207, absolute
    if not there:
        raise MtvcraftError(
            f"the {name} `{told['path']}` is no longer there",
            hint=f"put it back, or beside `{sidecar}`",
            exit=Exit.USAGE,
        )
    for place in there:
        if hash_of(place, cache) == told["sha256"]:
            return place
    raise MtvcraftError(
        f"the {name} `{there[0]}` is not the file that the video was made from",
        hint="put the old one back, or make a new video with `mtvcraft animate`",
    )
