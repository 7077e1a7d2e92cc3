"""The whole way on one screen: each room called once, in order; below it, the stages with what is kept of them."""

import glob
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from jaxtyping import Float32
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.cache import Cache, key_of
from mtvcraft_cli.device.memory import peak_memory
from mtvcraft_cli.device.place import Offload, choose_dtype, working
from mtvcraft_cli.device.rates import Kind, keep_rates
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.animation import AnimateJob, PreparedAnimation
from mtvcraft_cli.jobs.drive import Drive, DriveSettings, Estimator, Framing, tokenizer_identity
from mtvcraft_cli.jobs.files import PreparedList, PreparedPose, PreparedTokens
from mtvcraft_cli.jobs.text import TEXT_PARTS, prompts_of, text_key, text_told
from mtvcraft_cli.jobs.timing import Timing, plan_timing
from mtvcraft_cli.joints.backend import Scene
from mtvcraft_cli.joints.files import Motion, resample, save_motion
from mtvcraft_cli.joints.framing import framing_remarks, mirror, rooted
from mtvcraft_cli.joints.gaps import describe, fill
from mtvcraft_cli.joints.neutral import neutral_joints
from mtvcraft_cli.joints.overlay import draw_alone, draw_over
from mtvcraft_cli.joints.own.body import load_body
from mtvcraft_cli.joints.own.write import write_motion
from mtvcraft_cli.joints.people import choose_person, describe_choice, load_scene, people_rows, save_scene
from mtvcraft_cli.joints.sheet import contact_sheet
from mtvcraft_cli.joints.skeleton import PARTS
from mtvcraft_cli.joints.smooth import smooth, smooth_pose
from mtvcraft_cli.joints.strength import strengthened
from mtvcraft_cli.joints.view import write_view
from mtvcraft_cli.latents import wan
from mtvcraft_cli.latents.checkpoint import arguments_of
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.painter import Working
from mtvcraft_cli.latents.sampler import make_scheduler
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.vae import build_vae
from mtvcraft_cli.latents.walk import Models, Settings, WanModels, WanSettings, walk, window_seed
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.latents.wanvideo import vae as wan_vae
from mtvcraft_cli.latents.wanvideo.lora import alpha_of, merge_lora
from mtvcraft_cli.latents.wanvideo.picture import build_picture_encoder
from mtvcraft_cli.latents.wanvideo.sampler import Guidance
from mtvcraft_cli.latents.wanvideo.sampler import make_scheduler as make_flow_scheduler
from mtvcraft_cli.latents.wanvideo.text import build_text_encoder, encode_text
from mtvcraft_cli.latents.wanvideo.text import load_tokenizer as load_text_tokenizer
from mtvcraft_cli.latents.wanvideo.text import tokenise as tokenise_text
from mtvcraft_cli.preset import AUTO_PX, Preset, Sampler, lora_of
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.shapes import Frames, JointsMm, Picture
from mtvcraft_cli.sidecar import fingerprint, versions, write_sidecar
from mtvcraft_cli.tokens.files import TokenFile, save_tokens
from mtvcraft_cli.tokens.tokenise import OriginMm, Tokenised, TokensFile, detokenise, motion_tokens, tokenise
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, tokenizer_from_tensors
from mtvcraft_cli.video.figure import figure_box
from mtvcraft_cli.video.frames import FrameWriter
from mtvcraft_cli.video.kind import is_pattern
from mtvcraft_cli.video.panels import Panels, paced
from mtvcraft_cli.video.picture import crop_box, fit_picture, write_picture
from mtvcraft_cli.video.read import open_clip, read_ahead
from mtvcraft_cli.video.write import VideoWriter
from mtvcraft_cli.weights.locate import ALONE, Located
from mtvcraft_cli.weights.read import read_lora_config, read_tensor, read_tensors
from mtvcraft_cli.windows import plan_windows

WORKERS: Final[Mapping[type[nn.Module], Kind]] = {
    CogVideoXMotionTransformer: "denoise",
    WanMotionTransformer: "denoise",
    AutoencoderKLCogVideoX: "code",
    AutoencoderKLWan: "code",
}
"""What of a plan's work each network does; the others work for moments."""
COMPARED_PX: Final = 384
"""Height of the panels of `--compare`."""


def run_animation(prepared: PreparedAnimation, watch: Watch, loaded: "Loaded | None" = None) -> "AnimationReport":
    """Draw the character of the reference in the poses of the driver, from files to a file.

    T frames of the driver, W windows of F latent frames each, H x W pixels. Many jobs share what is `loaded`.
    """
    job, preset = prepared.job, prepared.job.preset
    report = AnimationReport(prepared=prepared)
    loaded = loaded or Loaded()
    with report.stage("load"):
        tokenizer = loaded.tokenizer_for(prepared)
        report.handed_on = loaded.models is not None
        wanted = None
        if job.force or not (prepared.made and prepared.framed):
            wanted = loaded.models_for(prepared, report.remarks)
    window = prepared.windows[0]
    if wanted and preset.sampler.motion_guidance != 1 and wanted[0].resamples(window.latent_frames):
        report.warnings.append(
            f"the no-motion tokens were learned for windows of {preset.frames} frames "
            f"and are stretched to {window.frames}"
        )
    picture = fit_picture(prepared.picture, preset.size_px, job.fit, job.background)  # (H, W, 3)
    with report.stage("pose"):
        motion = find_motion(prepared.drive, prepared.estimator, job.driver, prepared.cache, report.remarks, watch)
        motion = motion and framed(motion, job.motion)  # (T, 24, 3) mm
        if motion is not None:
            report.remarks += framing_remarks(motion, figure_box(picture), preset.size_px)
    with report.stage("tokenize"):
        tokens = find_tokens(prepared, motion, tokenizer, report, watch)  # (W, F, 24) codes
    if wanted is not None:
        models, settings = wanted
        if models.dynamic:
            first_mm = first_pose(prepared, motion, tokens, tokenizer, report.remarks)
            settings = replace(settings, joint_mean_mm=first_mm)
        animate(prepared, models, settings, picture, tokens, tokenizer, report, watch)
        write_sidecar(job.output, report.sidecar())
        report.keep_rates()
    if job.compare is not None:
        with report.stage("compare"):
            write_comparison(prepared, motion, tokens, tokenizer, watch)
    return report


def animate(
    prepared: PreparedAnimation,
    models: Models | WanModels,
    settings: Settings | WanSettings,
    picture: Picture,
    tokens: "MotionInTokens",
    tokenizer: MotionTokenizer,
    report: "AnimationReport",
    watch: Watch,
) -> None:
    """Tokens to frames, window by window, written as they are made."""
    job, timing = prepared.job, prepared.timing
    with (
        report.stage("animate"),
        VideoWriter(job.output, job.preset.size_px, timing.rate, crf=job.crf, sound=prepared.sound) as writer,
        FrameWriter(job.frames_dir) if job.frames_dir is not None else nullcontext() as lossless,
    ):
        frames = walk(
            models,
            picture,
            (motion_tokens(tokens.tokens, tokenizer, window.index)[0] for window in prepared.windows),  # (F * 24, D)
            prepared.windows,
            settings,
            job.seed,
            kept=report.keep(tokens, picture, settings.joint_mean_mm),
            watch=watch,
            working=report.timed(partial(working, device=settings.device, offload=offload_of(prepared))),
        )
        for batch in retimed(frames, timing):
            writer.write(batch)  # (n, H, W, 3)
            if lossless is not None:
                lossless.write(batch)
            report.frames += len(batch)


def settled(path: Path) -> Path:
    """A path that means the same from any folder; only the pattern's own part of a pattern stays one."""
    if not is_pattern(path):
        return path.resolve()
    parts = path.parts
    fixed = next(index for index, part in enumerate(parts) if is_pattern(Path(part)))
    return Path(glob.escape(str(Path(*parts[:fixed]).resolve())), *parts[fixed:])


def retimed(frames: Iterator[Frames], timing: Timing) -> Iterator[Frames]:
    """Show each of the model's frames when its time comes: held, dropped, or one for one."""
    start = shown = 0
    for batch in frames:
        chosen = []
        while shown < timing.frames and timing.model_frame(shown) < start + len(batch):
            chosen.append(timing.model_frame(shown) - start)
            shown += 1
        start += len(batch)
        if chosen:
            yield batch[chosen]


def find_motion(
    drive: Drive,
    estimator: Estimator | None,
    settings: DriveSettings,
    cache: Cache,
    remarks: list[str],
    watch: Watch,
) -> Motion | None:
    """The driver's joints: read, or found in a video; tokens have none. What is to be said goes to `remarks`."""
    if estimator is None:
        motion = drive.motion
    else:
        scene = find_people(drive, estimator, settings, cache, watch)
        number, person = choose_person(scene, settings.person, drive.rate, drive.path.name)
        remarks += describe_choice(scene, settings.person, number, drive.rate)
        filled = fill(person.estimate, drive.rate, settings.max_gap_s, drive.path.name)
        assert drive.clip is not None
        motion = Motion(
            joints_mm=filled.joints_mm,
            confidence=filled.confidence,
            observed=filled.found,
            rate=drive.rate,
            size_px=drive.clip.size_px,
            smpl_pose=filled.smpl and filled.smpl.pose,
            smpl_betas=filled.smpl and filled.smpl.betas,
            smpl_transl=filled.smpl and filled.smpl.transl,
            meta={
                "source": {"name": drive.path.name, "sha256": drive.sha256},
                "backend": estimator.told(),
                "person": number,
                "settings": settings.told(),
            },
        )
    if motion is None:
        return None
    remarks += describe(motion).sentences()
    return calmed(motion) if settings.smooth else motion


def calmed(motion: Motion) -> Motion:
    """A motion smoothed, SMPL's parameters along with the joints."""
    root = motion.smpl_transl
    return replace(
        motion,
        joints_mm=smooth(motion.joints_mm, motion.rate),
        smpl_pose=None if motion.smpl_pose is None else smooth_pose(motion.smpl_pose, motion.rate),
        smpl_transl=None if root is None else smooth(1000 * root[:, None], motion.rate)[:, 0] / np.float32(1000),
    )


def find_people(drive: Drive, estimator: Estimator, settings: DriveSettings, cache: Cache, watch: Watch) -> Scene:
    """Everyone in a video, found in an earlier run or now."""
    assert drive.clip is not None
    part = {name: str(value) for name, value in settings.part.items() if name != "rate"}
    behind = str(settings.background) if drive.clip.transparent else None
    key = key_of(
        "joints",
        {"drive": drive.sha256, "part": part, "rate": str(drive.rate), "behind": behind, "by": estimator.told()},
    )
    if (kept := cache.find("joints", key)) is not None:
        return load_scene(kept / "people.npz")
    clip = open_clip(drive.path, **settings.seen)
    scene = estimator.backend.see(read_ahead(clip.batches()), clip.info.size_px, drive.rate, watch, drive.frames)
    with cache.make("joints", key) as folder:
        save_scene(folder / "people.npz", scene)
    return scene


def framed(motion: Motion, how: Framing) -> Motion:
    """The driver's motion as it is to be followed."""
    motion = mirror(motion) if how.mirror else motion
    return rooted(strengthened(motion, how.motion_strength), how.root)


def find_tokens(
    prepared: PreparedAnimation,
    motion: Motion | None,
    tokenizer: MotionTokenizer,
    report: "AnimationReport",
    watch: Watch,
) -> "MotionInTokens":
    """The driver's motion tokens, read or made."""
    if motion is None:
        assert prepared.drive.tokens is not None
        return MotionInTokens(prepared.drive.tokens.tokens, prepared.drive.tokens.origin_mm)
    preset, timing, body = prepared.job.preset, prepared.timing, prepared.job.driver.body_model
    seen = [motion.joints_mm, *([motion.smpl_pose, motion.smpl_betas] if body else [])]
    key = key_of(
        "tokens",
        {
            "joints": [hashlib.sha256(each.tobytes()).hexdigest() for each in seen if each is not None],
            "body": prepared.hashes.get("body_model"),
            "times": [str(motion.rate), str(timing.model_rate), timing.model_frames],
            "preset": preset.fingerprint,
            "tokenizer": tokenizer_identity(prepared.parts["tokenizer"], prepared.hashes),
            "device": torch.device(prepared.device).type,
        },
    )
    if (kept := prepared.cache.find("tokens", key)) is not None:
        report.warnings += json.loads((kept / "warnings.json").read_text(encoding="utf-8"))
        origin = kept / "origin_mm.npy"
        return MotionInTokens(
            np.load(kept / "tokens.npy", allow_pickle=False),
            np.load(origin, allow_pickle=False) if origin.is_file() else None,
        )
    tokenised = to_tokens(motion, preset, timing, tokenizer, prepared.device, body, watch)
    warnings = [] if preset.seeded else tokenised.report.warnings()
    with prepared.cache.make("tokens", key) as folder:
        np.save(folder / "tokens.npy", tokenised.tokens, allow_pickle=False)
        if tokenised.origin_mm is not None:
            np.save(folder / "origin_mm.npy", tokenised.origin_mm, allow_pickle=False)
        (folder / "warnings.json").write_text(json.dumps(warnings), encoding="utf-8")
    report.warnings += warnings
    return MotionInTokens(tokenised.tokens, tokenised.origin_mm)


@dataclass(frozen=True)
class MotionInTokens:
    """The driver's motion as the model sees it, and what it takes to make joints of it again."""

    tokens: TokensFile
    origin_mm: OriginMm | None


def to_tokens(
    motion: Motion,
    preset: Preset,
    timing: Timing,
    tokenizer: MotionTokenizer,
    device: str,
    body_model: Path | None,
    watch: Watch,
) -> Tokenised:
    """Joints at the driver's rate to tokens at the model's."""
    joints_mm = seen_joints(motion, preset, timing, body_model)
    windows = plan_windows(timing.model_frames, preset.frames, preset.overlap)
    torch.backends.cudnn.allow_tf32 = False  # ten bits of a float would choose other codes
    with working(tokenizer, torch.device(device), "model"):
        return tokenise(joints_mm, tokenizer, windows, preset.statistics, preset.differential, watch, preset.joint_axes)


def seen_joints(motion: Motion, preset: Preset, timing: Timing, body_model: Path | None) -> JointsMm:
    """The driver's joints as a preset's tokenizer gets them: at the model's rate, on the body that it knows."""
    motion = resample(motion, timing.model_rate, timing.model_frames)
    if preset.body == "neutral":
        return neutral_joints(motion, load_body(body_model) if body_model else None)
    return motion.joints_mm


def first_pose(
    prepared: PreparedAnimation,
    motion: Motion | None,
    tokens: "MotionInTokens",
    tokenizer: MotionTokenizer,
    remarks: list[str],
) -> Float32[np.ndarray, "24 3"]:
    """The joints of the driver's first frame, millimetres, where motion tokens lie in a `dynamic` model."""
    job, preset = prepared.job, prepared.job.preset
    if motion is not None:
        first_mm = seen_joints(motion, preset, prepared.timing, job.driver.body_model)[0]
        return np.round(first_mm.astype(np.float64), 2).astype(np.float32)  # as precise as a file of tokens keeps it
    if tokens.origin_mm is not None:
        return tokens.origin_mm[0]
    remarks.append("where the driver's joints are at first is not in the tokens: it is taken from what they decode to")
    some = tokens.tokens[:1], tokenizer, prepared.windows[:1], preset.statistics, preset.differential
    return detokenise(*some, axes=preset.joint_axes)[0]


def load_tokenizer(preset: Preset, part: Located) -> MotionTokenizer:
    """The 4DMoT tokenizer of a preset, in float32 on the CPU."""
    if part.seed is not None:
        with init_empty_weights():
            empty = MotionTokenizer(**preset.tokenizer)
        return tokenizer_from_tensors(preset.tokenizer, seeded_tensors(empty, part.seed))
    assert part.path is not None
    return tokenizer_from_tensors(preset.tokenizer, read_tensors(part.path, within="module"))


@dataclass(kw_only=True)
class Loaded:
    """The models that one job leaves for the next; only those of one preset are held at a time."""

    prompts: tuple[str, ...] = ()
    """Texts that later jobs will need: the text encoder reads them along with the first job's, and is gone then."""
    tokenizer: MotionTokenizer | None = None
    models: Models | WanModels | None = None
    offload: Offload = "none"
    """Whether the last job left them on the card."""
    remarks: tuple[str, ...] = ()
    """What was said when they were loaded."""
    made_of: str = ""
    """What tells the models from others."""

    def tokenizer_for(self, prepared: PreparedAnimation) -> MotionTokenizer:
        """The tokenizer of a job's preset; models of another preset are let go first."""
        made_of = fingerprint(
            {
                "models": models_wanted(prepared.job),
                "hashes": {name: prepared.hashes[name] for name in weights_of(prepared)},
                "device": prepared.device,
            }
        )
        if made_of != self.made_of:
            self.tokenizer = self.models = None
            self.made_of = made_of
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer(prepared.job.preset, prepared.parts["tokenizer"])
        return self.tokenizer

    def models_for(
        self, prepared: PreparedAnimation, remarks: list[str]
    ) -> tuple[Models | WanModels, Settings | WanSettings]:
        """The other models, and how a job runs them; asked for after the tokenizer."""
        backbone, offload = BACKBONES[prepared.job.preset.backbone], offload_of(prepared)
        settings = backbone.settings(prepared, () if self.models else self.prompts)  # before the large models come
        if self.models is None:
            said = list[str]()
            self.models, self.remarks = backbone.load(prepared, said), tuple(said)
        elif (self.offload, offload) == ("none", "model"):  # a job that needs the room of those that only wait
            for part in vars(self.models).values():
                if isinstance(part, nn.Module):
                    part.to("cpu")
        self.offload = offload
        remarks += self.remarks
        return self.models, settings


RUN_BY_RUN = frozenset(
    {
        *("reference", "drive", "output", "seed", "rate", "audio", "crf", "background", "fit", "compare", "frames_dir"),
        *("driver", "motion", "two_passes", "force", "command", "expected_weights", "preset"),
    }
)
"""What of a job may change while its models stay as they are."""


def models_wanted(job: AnimateJob) -> str:
    """What tells the models that a job needs from others, before a file is opened."""
    preset = replace(
        job.preset,
        sampler=Sampler(),
        size_px=AUTO_PX,
        auto_size=False,
        reference_latent="sample",
        prompt="",
        negative_prompt="",
        clip_from="reference",
        color_match=False,
    )
    rest = {item.name: getattr(job, item.name) for item in fields(job) if item.name not in RUN_BY_RUN}
    return fingerprint({"preset": preset.fingerprint, "folder": preset.folder, **rest})


def weights_of(prepared: PreparedAnimation) -> list[str]:
    """The names of the weight files that the models are made of, but for the pose backend's."""
    return [name for name in prepared.hashes if "/" in name and not name.startswith("pose/")]


def load_small(prepared: PreparedAnimation, _remarks: list[str]) -> Models:
    """The parts of a job's preset on CogVideoX, on the CPU."""
    return small_models(prepared.job.preset, prepared.parts, torch.device(prepared.device))


def small_models(preset: Preset, parts: Mapping[str, Located], device: torch.device) -> Models:
    """The same for whoever has a preset and its parts."""
    dtype = choose_dtype(device, preset.precision)
    transformer = _config_and_tensors(CogVideoXMotionTransformer, preset.transformer, parts["transformer"])
    vae = _config_and_tensors(AutoencoderKLCogVideoX, preset.vae, parts["vae"])
    return Models(transformer=build_transformer(*transformer, dtype), vae=build_vae(*vae, dtype))


def small_settings(prepared: PreparedAnimation, _prompts: Sequence[str] = ()) -> Settings:
    """How a job runs the parts of a preset on CogVideoX."""
    return settings_of(prepared.job.preset, torch.device(prepared.device), two_passes=prepared.job.two_passes)


def settings_of(preset: Preset, device: torch.device, *, two_passes: bool = False) -> Settings:
    """The same for whoever has a preset."""
    return Settings(
        scheduler=make_scheduler(preset.sampler.scheduler, preset.scheduler),
        steps=preset.sampler.steps,
        guidance=preset.sampler.motion_guidance,
        joint_mean_mm=preset.statistics.mean_mm,
        sample_reference=preset.reference_latent == "sample",
        scale_reference=preset.reference_scaled,
        color_match=preset.color_match,
        two_passes=two_passes,
        dtype=choose_dtype(device, preset.precision),
        device=device,
    )


def load_large(prepared: PreparedAnimation, remarks: list[str]) -> WanModels:
    """The parts of a preset on Wan, on the CPU, but for the text encoder."""
    preset, parts = prepared.job.preset, prepared.parts
    dtype = choose_dtype(torch.device(prepared.device), preset.precision)
    config, tensors = _config_and_tensors(WanMotionTransformer, preset.transformer, parts["transformer"])
    for number, words in enumerate(preset.loras, start=1):
        path = parts[f"lora-{number}"].path
        assert path is not None  # a LoRA is never seeded
        alpha, (source, scale) = alpha_of(read_lora_config(path)), lora_of(words)
        remarks.append(f"LoRA `{source}`: {merge_lora(tensors, read_tensors(path), scale, alpha=alpha, name=source)}")
    transformer = wan.build_transformer(config, tensors, dtype)
    vae = wan_vae.build_vae(*_config_and_tensors(AutoencoderKLWan, preset.vae, parts["vae"]), dtype)
    clip = parts["picture_encoder"]
    assert clip.path is not None
    no_motion = parts.get("no_motion")
    return WanModels(
        transformer=transformer,
        vae=vae,
        picture_encoder=build_picture_encoder(
            {**preset.picture_encoder, **clip.config()}, read_tensors(clip.path), torch.float32
        ),
        no_motion=read_tensor(no_motion.path, ALONE["no_motion"]) if no_motion and no_motion.path else None,
    )


def large_settings(prepared: PreparedAnimation, prompts: Sequence[str] = ()) -> WanSettings:
    """How a job runs the parts of a preset on Wan; the text encoder is gone when this returns.

    Args:
        prepared: the job.
        prompts: texts that later jobs need, encoded with its own.
    """
    preset, device, sampler = prepared.job.preset, torch.device(prepared.device), prepared.job.preset.sampler
    text, negative = [*find_text(prepared, prompts), None][:2]
    start, end = sampler.guidance_range
    return WanSettings(
        scheduler=make_flow_scheduler(sampler.scheduler, {**preset.scheduler, "shift": sampler.shift}),
        steps=sampler.steps,
        guidance=Guidance(text=sampler.text_guidance, motion=sampler.motion_guidance, start=start, end=end),
        joint_mean_mm=preset.statistics.mean_mm,
        text=text,
        negative=negative,
        clip_from=preset.clip_from,
        color_match=preset.color_match,
        two_passes=prepared.job.two_passes,
        dtype=choose_dtype(device, preset.precision),
        device=device,
    )


@dataclass(frozen=True)
class Backbone:
    """How the models of a backbone are loaded, and how a job runs them."""

    load: Callable[[PreparedAnimation, list[str]], Models | WanModels]
    settings: Callable[[PreparedAnimation, Sequence[str]], Settings | WanSettings]


BACKBONES: Final[Mapping[str, Backbone]] = {
    "cogvideox": Backbone(load_small, small_settings),
    "wan": Backbone(load_large, large_settings),
}


def find_text(prepared: PreparedAnimation, more: Sequence[str] = ()) -> list[Tensor]:
    """What the model reads of the texts of a run, (1, L, E) each: the prompt, then perhaps the negative one.

    The text encoder is only loaded where one of them is not kept, and is gone afterwards; while it is there it reads
    `more` prompts, and they are kept.
    """
    preset, cache, parts, device = prepared.job.preset, prepared.cache, prepared.parts, torch.device(prepared.device)
    own = prompts_of(preset)
    later = [each for each in more if each not in own and "text_encoder" in parts]
    wanted = [text_told(preset, prompt, prepared.hashes, prepared.device) for prompt in (*own, *later)]
    new = [told for told in wanted if cache.find("text", text_key(told)) is None]
    if new:
        words, weights = parts["text_tokenizer"].path, parts["text_encoder"]
        assert words is not None
        assert weights.path is not None
        tokenizer = load_text_tokenizer(words)
        prompts = [tokenise_text(tokenizer, told["prompt"], told["length"]) for told in new]
        dtype = choose_dtype(device, preset.precision)
        config = {**preset.text_encoder, **weights.config()}
        encoder = build_text_encoder(config, read_tensors(weights.path), dtype)
        with working(encoder, device, "model"):
            made = [encode_text(encoder, [prompt], len(prompt))[0].cpu() for prompt in prompts]  # (L, E), unfilled
        del encoder
        for told, features in zip(new, made, strict=True):
            with cache.make("text", text_key(told)) as folder:
                save_file({"text": features.contiguous()}, folder / "text.safetensors")
                (folder / "told.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    found = []
    for told in wanted[: len(own)]:
        kept = cache.find("text", text_key(told))
        assert kept is not None
        features = load_file(kept / "text.safetensors")["text"]
        found.append(functional.pad(features, (0, 0, 0, told["length"] - len(features)))[None])
    return found


def _config_and_tensors(
    kind: type[nn.Module], sizes: Mapping[str, Any], part: Located
) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The sizes and the weights of one part, read or drawn."""
    if part.seed is not None:
        with init_empty_weights():
            empty = kind(**arguments_of(kind, sizes, part.part))
        return sizes, seeded_tensors(empty, part.seed)
    assert part.path is not None
    return {**sizes, **part.config()}, read_tensors(part.path)


def write_comparison(
    prepared: PreparedAnimation,
    motion: Motion | None,
    tokens: MotionInTokens,
    tokenizer: MotionTokenizer,
    watch: Watch,
) -> None:
    """Write reference, driver, skeleton, skeleton after tokens and result side by side, from the finished result."""
    job, preset, timing, drive = prepared.job, prepared.job.preset, prepared.timing, prepared.drive
    result = open_clip(job.output)
    given = motion or drive.motion
    size_px = given.size_px if given else (drive.tokens and drive.tokens.size_px) or preset.size_px
    with working(tokenizer, torch.device(prepared.device), "model"):
        after_mm = detokenise(
            tokens.tokens,
            tokenizer,
            prepared.windows,
            preset.statistics,
            preset.differential,
            tokens.origin_mm,
            axes=preset.joint_axes,
        )
    after = sure_motion(after_mm, timing.model_rate, size_px)
    after = replace(after, fov_deg=given.fov_deg) if given else after
    streams: dict[str, tuple[tuple[int, int], Iterator[Picture]]] = {}
    picture = fit_picture(prepared.picture, preset.size_px, job.fit, job.background)
    streams["reference"] = preset.size_px, repeat(picture, timing.frames)
    if drive.clip is not None:
        clip = open_clip(job.drive, **job.driver.seen)
        frames = paced(read_ahead(clip.batches()), drive.rate, timing.rate, timing.frames)
        streams["driver"] = clip.info.size_px, frames
    cell_px = max(1, round(COMPARED_PX * size_px[0] / size_px[1])), COMPARED_PX
    for caption, shown in (("skeleton", motion), ("after tokens", after)):
        if shown is not None:
            streams[caption] = cell_px, draw_alone(resample(shown, timing.rate, timing.frames), cell_px)
    streams["result"] = result.info.size_px, (frame for batch in read_ahead(result.batches()) for frame in batch)
    panels = Panels(list(streams), [size for size, _ in streams.values()], COMPARED_PX)
    assert job.compare is not None
    rows = zip(*(frames for _, frames in streams.values()), strict=True)
    with VideoWriter(job.compare, panels.size_px, timing.rate, sound=prepared.sound) as writer:
        for row in watch(rows, "compare", timing.frames):
            writer.write(panels.compose([frame[None] for frame in row]))
    made = {"settings": job.told(), "fingerprint": prepared.fingerprint, "command": job.command}
    write_sidecar(job.compare, {**made, "versions": versions()})


def sure_motion(joints_mm: JointsMm, rate: Fraction, size_px: tuple[int, int]) -> Motion:
    """Joints that nobody looked for, and so nobody doubts."""
    ones = np.ones(joints_mm.shape[:2], np.float32)
    return Motion(joints_mm=joints_mm, confidence=ones, observed=ones[:, 0] > 0, rate=rate, size_px=size_px)


def offload_of(prepared: PreparedAnimation) -> Offload:
    """What stays on the card, by the plan or as it was asked for."""
    return "model" if prepared.plan.placement.offload == "model" else "none"


@dataclass(kw_only=True)
class AnimationReport:
    """What was done; becomes the sidecar."""

    prepared: PreparedAnimation
    frames: int = 0
    kept_windows: int = 0
    """Windows that an earlier run had finished."""
    times_s: dict[str, float] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    worked_s: dict[Kind, float] = field(default_factory=dict)
    """How long transformer and VAE worked."""
    looked: bool = False
    """Whether an earlier run's character or windows were found, so that less was done than planned."""
    handed_on: bool = False
    """Whether the models were there already, left by the job before."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of one stage."""
        started = time.monotonic()
        yield
        self.times_s[name] = round(time.monotonic() - started, 3)

    def timed(self, work: Working) -> Working:
        """Take the time for which each network works, while `work` has it on the device."""

        @contextmanager
        def watched(module: nn.Module) -> Iterator[nn.Module]:
            kind = WORKERS.get(type(module))
            started = time.monotonic()
            with work(module) as there:
                yield there
                if self.prepared.device.startswith("cuda"):
                    torch.cuda.synchronize()
            if kind is not None:
                self.worked_s[kind] = self.worked_s.get(kind, 0) + time.monotonic() - started

        return watched

    def keep_rates(self) -> None:
        """Note how fast this machine was, where all that was planned was really done."""
        plan = self.prepared.plan
        if self.looked:
            return
        took: dict[Kind, float] = dict(self.worked_s)
        if not self.handed_on:
            took["load"] = self.times_s["load"]
        if plan.task.pose_frames and self.times_s["pose"] > plan.task.pose_frames / 1000:  # else it was kept
            took["pose"] = self.times_s["pose"]
        found = {kind: plan.work[kind] / seconds for kind, seconds in took.items() if seconds and plan.work[kind]}
        with suppress(MtvcraftError, OSError):  # the video is made, and this is only a memory of speeds
            keep_rates(self.prepared.cache.folder, plan.machine.card, plan.task.preset.name, found)

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self.started

    def keep(self, tokens: MotionInTokens, picture: Picture, places_mm: Float32[np.ndarray, "24 3"]) -> "KeptWindows":
        """Where the windows of this job are kept, under everything that their latents depend on."""
        prepared, preset = self.prepared, self.prepared.job.preset
        own = (
            "transformer/",
            "vae/",
            "lora-",
            "no_motion/",
            "picture_encoder/",
            *TEXT_PARTS,
        )  # besides tokens and picture
        inputs = {name: sha256 for name, sha256 in prepared.hashes.items() if name.startswith(own)}
        parts = {
            "inputs": inputs,
            "picture": hashlib.sha256(picture.tobytes()).hexdigest(),
            "places": hashlib.sha256(places_mm.tobytes()).hexdigest(),
            "preset": preset.fingerprint,
            "seed": prepared.job.seed,
            "two_passes": prepared.job.two_passes,
            "frames": prepared.windows[0].frames,
            "overlap": prepared.windows[-1].carried,
            "device": torch.device(prepared.device).type,
            "versions": {name: version for name, version in versions().items() if name in ("torch", "diffusers")},
        }
        return KeptWindows(report=self, parts=parts, tokens=tokens.tokens)

    def _crop_px(self) -> list[int] | None:
        """What of the reference is seen, so that a ground truth of its size can be cut alike; None for all of it."""
        job, (height_px, width_px) = self.prepared.job, self.prepared.picture.shape[:2]
        return list(crop_box((width_px, height_px), job.preset.size_px)) if job.fit == "crop" else None

    def told(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            **self.prepared.told(),
            "frames": self.frames,
            "seconds": round(self.seconds, 3),
            "windows_from_earlier_runs": self.kept_windows,
            "times_s": self.times_s,
            "peak_memory_bytes": peak_memory(self.prepared.device),
            "remarks": self.remarks,
            "warnings": self.warnings,
        }

    def sidecar(self) -> dict[str, Any]:
        """All that is needed to judge the result and to make it again."""
        prepared, job = self.prepared, self.prepared.job
        licences = {part.part: part.licence for part in prepared.parts.values()}
        if prepared.estimator is not None:
            licences["pose"] = prepared.estimator.licence
        return {
            "command": job.command,
            "versions": versions(),
            "fingerprint": prepared.fingerprint,
            "settings": job.told(),
            "preset_sha256": job.preset.fingerprint,
            "device": prepared.device,
            "weights_folder": job.weights and str(job.weights.resolve()),
            "inputs": {
                name: {"path": str(settled(path)), "sha256": prepared.hashes[name]} for name, path in job.inputs.items()
            },
            "weights": {name: sha256 for name, sha256 in prepared.hashes.items() if "/" in name},
            "pose": prepared.estimator and prepared.estimator.told(),
            "licences": licences,
            "window_seeds": [window_seed(job.seed, window.index) for window in prepared.windows],
            "frames": self.frames,
            "fps": str(prepared.timing.rate),
            "crop_px": self._crop_px(),
            "times_s": self.times_s,
            "peak_memory_bytes": peak_memory(prepared.device),
            "remarks": [*prepared.remarks, *self.remarks],
            "warnings": self.warnings,
        }


@dataclass(kw_only=True)
class KeptWindows:
    """Finished work in the cache: "reference", and "window-N" with "tail-N", which depend on the tokens up to N."""

    report: AnimationReport
    parts: dict[str, Any]
    tokens: TokensFile

    def get(self, name: str, /) -> Tensor | None:
        """What an earlier run kept under the name, or None."""
        folder = self.report.prepared.cache.find(*self._place(name))
        if folder is None:
            return None
        self.report.kept_windows += name.startswith("window")
        self.report.looked = True
        return load_file(folder / "kept.safetensors")["kept"]

    def __setitem__(self, name: str, tensor: Tensor, /) -> None:
        """Keep a tensor of the CPU."""
        with self.report.prepared.cache.make(*self._place(name)) as folder:
            save_file({"kept": tensor.contiguous()}, folder / "kept.safetensors")

    def _place(self, name: str) -> tuple[str, str]:
        if name == "reference":
            return "reference", key_of("reference", self.parts)
        window = int(name.partition("-")[2])
        seen = hashlib.sha256(self.tokens[: window + 1].tobytes()).hexdigest()
        return "windows", key_of("windows", {**self.parts, "name": name, "tokens": seen})


@dataclass(kw_only=True)
class FileReport:
    """What `mtvcraft pose` or `tokenize` did."""

    output: Path
    remarks: list[str]
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """The result as plain data."""
        return {"output": str(self.output), **self.figures, "remarks": self.remarks, "warnings": self.warnings}


def run_pose(prepared: PreparedPose, watch: Watch) -> FileReport:
    """Find the joints in a video, or check those of a file; write them, and what else was asked for."""
    job, remarks = prepared.job, list[str]()
    motion = find_motion(prepared.drive, prepared.estimator, job.settings, prepared.cache, remarks, watch)
    assert motion is not None
    made = {"fingerprint": prepared.fingerprint, "command": job.command, "versions": versions()}
    meta = {**motion.meta, "assumed": list(prepared.drive.assumed), **made}
    motion = replace(motion, meta=meta)
    timed = (
        motion if job.rate is None else resample(motion, job.rate, max(1, round(len(motion) / motion.rate * job.rate)))
    )
    record = {"settings": job.settings.told(), **meta}
    if prepared.to_make(job.output):
        write_motion(job.output, timed)
        if job.output.suffix.lower() != ".npz":  # which holds the same itself
            write_sidecar(job.output, record)
    if job.view is not None and prepared.to_make(job.view):
        write_view(job.view, timed, prepared.drive.path.name)
        write_sidecar(job.view, record)
    if job.overlay is not None and prepared.to_make(job.overlay):
        clip = open_clip(job.drive, **job.settings.seen)
        with VideoWriter(job.overlay, clip.info.size_px, motion.rate, sound=prepared.drive.own_sound()) as writer:
            for batch in watch(draw_over(read_ahead(clip.batches()), motion), "overlay", len(motion)):
                writer.write(batch)
        write_sidecar(job.overlay, record)
    seen = describe(motion)
    return FileReport(
        output=job.output,
        remarks=[*remarks, *framing_remarks(motion)],
        figures={
            "assumed": list(prepared.drive.assumed),
            "frames": len(timed),
            "filled": seen.filled,
            "unsure": seen.unsure,
            "out_of_view": seen.out_of_view,
        },
    )


def run_list(prepared: PreparedList, watch: Watch) -> FileReport:
    """Look who is in a video, and write a picture with each of them."""
    drive = prepared.drive
    scene = find_people(drive, prepared.estimator, prepared.settings, prepared.cache, watch)
    number, _ = choose_person(scene, "largest", drive.rate, drive.path.name)
    assert drive.clip is not None
    start_s = drive.clip.start_s  # of the part that was looked at
    if not prepared.made:
        clip = open_clip(drive.path, **prepared.settings.seen)
        write_picture(prepared.sheet, contact_sheet(scene, clip.frame))
        made = {"settings": prepared.settings.told(), "fingerprint": prepared.fingerprint}
        write_sidecar(prepared.sheet, {**made, "versions": versions()})
    return FileReport(
        output=prepared.sheet,
        remarks=[f"their pictures are in `{prepared.sheet}`; `--person` takes a number, by default {number} (largest)"],
        figures={
            "people": [
                {
                    "person": row.number,
                    "from_s": float(start_s + row.start_s),
                    "to_s": float(start_s + row.end_s),
                    "seen": row.seen,
                    "height": row.height,
                    "confidence": row.confidence,
                }
                for row in people_rows(scene, drive.clip.size_px, drive.rate)
            ]
        },
    )


def run_tokenizing(prepared: PreparedTokens, watch: Watch) -> FileReport:
    """Joints into tokens with a report of what is lost, or tokens back into joints."""
    job, preset = prepared.job, prepared.job.preset
    tokenizer = load_tokenizer(preset, prepared.part)
    meta = {"fingerprint": prepared.fingerprint, "command": job.command, "versions": versions()}
    if (tokens := prepared.drive.tokens) is not None:
        joints_mm = detokenise(
            tokens.tokens,
            tokenizer,
            tokens.plan,
            preset.statistics,
            tokens.differential,
            tokens.origin_mm,
            watch,
            preset.joint_axes,
        )
        motion = sure_motion(joints_mm, tokens.rate, tokens.size_px or preset.size_px)
        save_motion(job.output, replace(motion, meta={**meta, "source": {"name": job.drive.name}}))
        return FileReport(output=job.output, remarks=[], figures={"frames": len(motion)})

    remarks = list[str]()
    motion_found = find_motion(prepared.drive, prepared.estimator, job.driver, prepared.cache, remarks, watch)
    assert motion_found is not None
    motion_found = framed(motion_found, job.motion)
    timing = plan_timing(prepared.drive.frames, prepared.drive.rate, job.rate, preset)
    body_model = job.driver.body_model
    tokenised = to_tokens(motion_found, preset, timing, tokenizer, prepared.device, body_model, watch)
    lost = tokenised.report
    save_tokens(
        job.output,
        TokenFile(
            tokens=tokenised.tokens,
            preset=preset.name,
            tokenizer_sha256=prepared.identity,
            frames=plan_windows(timing.model_frames, preset.frames, preset.overlap)[0].frames,
            overlap=preset.overlap,
            total_frames=timing.model_frames,
            rate=timing.model_rate,
            differential=preset.differential,
            origin_mm=tokenised.origin_mm,
            size_px=motion_found.size_px,
            round_trip_mm=lost.mean_mm,
            quantisation_loss=lost.loss,
            meta={
                **meta,
                "drive_rate": str(prepared.drive.rate),
                "drive_frames": prepared.drive.frames,
                "source": {"name": job.drive.name},
            },
        ),
    )
    parts = {part: round(error_mm, 1) for part, error_mm in lost.by_part(PARTS).items()}
    remarks += [f"round trip {lost.mean_mm:.1f} mm: " + ", ".join(f"{part} {error}" for part, error in parts.items())]
    if prepared.part.seed is not None:
        remarks.append(f"the tokenizer of preset {preset.name} has random weights: its figures mean nothing yet")
    if lost.codes is not None:
        remarks.append(f"{lost.codes_used} of {lost.codes} codes used, quantisation loss {lost.loss:.4f}")
    return FileReport(
        output=job.output,
        remarks=remarks,
        warnings=[] if prepared.part.seed is not None else lost.warnings(),
        figures={
            "windows": len(tokenised.tokens),
            "round_trip_mm": round(lost.mean_mm, 2),
            "round_trip_mm_by_part": parts,
            "codes_used": lost.codes_used,
            "codes": lost.codes,
            "quantisation_loss": lost.loss,
        },
    )
