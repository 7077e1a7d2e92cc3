"""The whole way on one screen: each room called once, in order; below it, the stages with what is kept of them."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtvcraft_cli.cache import Cache, key_of, sha256_of
from mtvcraft_cli.device.memory import peak_memory
from mtvcraft_cli.device.place import choose_dtype, working
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.jobs.drive import Drive, Estimator, PoseSettings, tokenizer_identity
from mtvcraft_cli.jobs.files import PreparedPose, PreparedTokens
from mtvcraft_cli.jobs.timing import Timing, plan_timing
from mtvcraft_cli.joints.files import Motion, load_motion, resample, save_motion
from mtvcraft_cli.joints.gaps import describe, fill
from mtvcraft_cli.joints.neutral import on_neutral_body
from mtvcraft_cli.joints.overlay import draw_over
from mtvcraft_cli.joints.skeleton import PARTS
from mtvcraft_cli.latents.checkpoint import arguments_of
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.sampler import make_scheduler
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.vae import build_vae
from mtvcraft_cli.latents.walk import Models, Settings, walk, window_seed
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.sidecar import versions, write_sidecar
from mtvcraft_cli.tokens.files import TokenFile, save_tokens
from mtvcraft_cli.tokens.tokenise import Tokenised, TokensFile, detokenise, motion_tokens, tokenise
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, tokenizer_from_tensors
from mtvcraft_cli.video.picture import fit_picture
from mtvcraft_cli.video.read import open_clip, read_ahead
from mtvcraft_cli.video.write import VideoWriter
from mtvcraft_cli.weights.locate import Located
from mtvcraft_cli.weights.read import read_tensors
from mtvcraft_cli.windows import plan_windows


def run_animation(prepared: PreparedAnimation, watch: Watch) -> "AnimationReport":
    """Draw the character of the reference in the poses of the driver, from files to a file.

    T frames of the driver, W windows of F latent frames each, H x W pixels.
    """
    job, preset, timing = prepared.job, prepared.job.preset, prepared.timing
    report = AnimationReport(prepared=prepared)
    with report.stage("load"):
        tokenizer = load_tokenizer(preset, prepared.parts["tokenizer"])
        models, settings = load_models(prepared)
    window = prepared.windows[0]
    if settings.guidance != 1 and models.transformer.resamples(window.latent_frames):
        report.warnings.append(
            f"the no-motion tokens were learned for windows of {preset.frames} frames "
            f"and are stretched to {window.frames}"
        )
    with report.stage("pose"):
        motion = find_motion(prepared.drive, prepared.estimator, job.pose, prepared.cache, watch)  # (T, 24, 3) mm
    with report.stage("tokenize"):
        tokens = find_tokens(prepared, motion, tokenizer, report, watch)  # (W, F, 24) codes
    with (
        report.stage("animate"),
        VideoWriter(job.output, preset.size_px, timing.rate, crf=job.crf, sound=prepared.sound) as writer,
    ):
        frames = walk(
            models,
            fit_picture(prepared.picture, preset.size_px),  # (H, W, 3)
            (motion_tokens(tokens, tokenizer, window.index)[0] for window in prepared.windows),  # (F * 24, D) each
            prepared.windows,
            settings,
            job.seed,
            kept=report.keep(tokens),
            watch=watch,
            working=partial(working, device=settings.device, offload=offload_of(prepared)),
        )
        for batch in retimed(frames, timing):
            writer.write(batch)  # (n, H, W, 3)
            report.frames += len(batch)
    write_sidecar(job.output, report.sidecar())
    return report


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
    drive: Drive, estimator: Estimator | None, settings: PoseSettings, cache: Cache, watch: Watch
) -> Motion | None:
    """The driver's joints: read, found in an earlier run, or found now. Tokens have none."""
    if estimator is None:
        return drive.motion
    backend, by = estimator.backend, estimator.told()
    source = {"name": drive.path.name, "sha256": sha256_of(drive.path)}
    meta = {"source": source, "backend": by, "person": "the first"}
    key = key_of("joints", {"drive": source["sha256"], "by": by, "max_gap_s": str(settings.max_gap_s)})
    if (kept := cache.find("joints", key)) is not None:
        return replace(load_motion(kept / "clip.joints.npz")[0], meta=meta)
    clip = open_clip(drive.path)
    size_px = (clip.info.width_px, clip.info.height_px)
    estimate = backend.estimate(read_ahead(clip.batches()), size_px, drive.rate, watch, drive.frames)
    filled = fill(estimate, drive.rate, settings.max_gap_s, drive.path.name)
    motion = Motion(
        joints_mm=filled.joints_mm,
        confidence=filled.confidence,
        observed=filled.found,
        rate=drive.rate,
        size_px=size_px,
        smpl_pose=filled.smpl and filled.smpl.pose,
        smpl_betas=filled.smpl and filled.smpl.betas,
        smpl_transl=filled.smpl and filled.smpl.transl,
        meta=meta,
    )
    with cache.make("joints", key) as folder:
        save_motion(folder / "clip.joints.npz", motion)
    return motion


def find_tokens(
    prepared: PreparedAnimation,
    motion: Motion | None,
    tokenizer: MotionTokenizer,
    report: "AnimationReport",
    watch: Watch,
) -> TokensFile:
    """The driver's motion tokens, read or made."""
    if motion is None:
        assert prepared.drive.tokens is not None
        return prepared.drive.tokens.tokens
    report.remarks += describe(motion).sentences()
    preset, timing = prepared.job.preset, prepared.timing
    key = key_of(
        "tokens",
        {
            "joints": hashlib.sha256(motion.joints_mm.tobytes()).hexdigest(),
            "times": [str(motion.rate), str(timing.model_rate), timing.model_frames],
            "preset": preset.fingerprint,
            "tokenizer": tokenizer_identity(prepared.parts["tokenizer"], prepared.hashes),
            "device": torch.device(prepared.device).type,
        },
    )
    if (kept := prepared.cache.find("tokens", key)) is not None:
        report.warnings += json.loads((kept / "warnings.json").read_text(encoding="utf-8"))
        return np.load(kept / "tokens.npy", allow_pickle=False)
    tokenised = to_tokens(motion, preset, timing, tokenizer, prepared.device, watch)
    warnings = [] if preset.seeded else tokenised.report.warnings()
    with prepared.cache.make("tokens", key) as folder:
        np.save(folder / "tokens.npy", tokenised.tokens, allow_pickle=False)
        (folder / "warnings.json").write_text(json.dumps(warnings), encoding="utf-8")
    report.warnings += warnings
    return tokenised.tokens


def to_tokens(
    motion: Motion, preset: Preset, timing: Timing, tokenizer: MotionTokenizer, device: str, watch: Watch
) -> Tokenised:
    """Joints at the driver's rate to tokens at the model's."""
    joints_mm = resample(motion, timing.model_rate, timing.model_frames).joints_mm
    if preset.body == "neutral":
        joints_mm = on_neutral_body(joints_mm)
    windows = plan_windows(timing.model_frames, preset.frames, preset.overlap)
    torch.backends.cudnn.allow_tf32 = False  # ten bits of a float would choose other codes
    with working(tokenizer, torch.device(device), "model"):
        return tokenise(joints_mm, tokenizer, windows, preset.statistics, preset.differential, watch)


def load_tokenizer(preset: Preset, part: Located) -> MotionTokenizer:
    """The 4DMoT tokenizer of a preset, in float32 on the CPU."""
    if part.seed is not None:
        with init_empty_weights():
            empty = MotionTokenizer(**preset.tokenizer)
        return tokenizer_from_tensors(preset.tokenizer, seeded_tensors(empty, part.seed))
    assert part.path is not None
    return tokenizer_from_tensors(preset.tokenizer, read_tensors(part.path, within="module"))


def load_models(prepared: PreparedAnimation) -> tuple[Models, Settings]:
    """The transformer and the VAE of a preset on the CPU, and how they are run."""
    preset, parts, device = prepared.job.preset, prepared.parts, torch.device(prepared.device)
    dtype = choose_dtype(device, preset.precision)
    transformer = _config_and_tensors(CogVideoXMotionTransformer, preset.transformer, parts["transformer"])
    vae = _config_and_tensors(AutoencoderKLCogVideoX, preset.vae, parts["vae"])
    settings = Settings(
        scheduler=make_scheduler(preset.sampler.scheduler, preset.scheduler),
        steps=preset.sampler.steps,
        guidance=preset.sampler.motion_guidance,
        joint_mean_mm=preset.statistics.mean_mm,
        sample_reference=preset.reference_latent == "sample",
        scale_reference=preset.reference_scaled,
        two_passes=prepared.job.two_passes,
        dtype=dtype,
        device=device,
    )
    return Models(transformer=build_transformer(*transformer, dtype), vae=build_vae(*vae, dtype)), settings


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


def offload_of(prepared: PreparedAnimation) -> Literal["none", "model"]:
    """What `--offload auto` means: on a card whose free memory the models would fill, one at a time."""
    if prepared.job.offload != "auto":
        return prepared.job.offload
    if not prepared.device.startswith("cuda"):
        return "none"
    free_bytes, _ = torch.cuda.mem_get_info(torch.device(prepared.device))
    return "model" if sum(part.size_bytes for part in prepared.parts.values()) > free_bytes // 2 else "none"


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

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Take the time of one stage."""
        started = time.monotonic()
        yield
        self.times_s[name] = round(time.monotonic() - started, 3)

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self.started

    def keep(self, tokens: TokensFile) -> "KeptWindows":
        """Where the windows of this job are kept, under everything that their latents depend on."""
        prepared, preset = self.prepared, self.prepared.job.preset
        own = ("reference", "transformer/", "vae/")  # what latents depend on besides the tokens
        inputs = {name: sha256 for name, sha256 in prepared.hashes.items() if name.startswith(own)}
        parts = {
            "inputs": inputs,
            "background": prepared.job.background,
            "preset": preset.fingerprint,
            "seed": prepared.job.seed,
            "two_passes": prepared.job.two_passes,
            "frames": prepared.windows[0].frames,
            "overlap": prepared.windows[-1].carried,
            "device": torch.device(prepared.device).type,
            "versions": {name: version for name, version in versions().items() if name in ("torch", "diffusers")},
        }
        return KeptWindows(report=self, parts=parts, tokens=tokens)

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
                name: {"path": str(path.resolve()), "sha256": prepared.hashes[name]}
                for name, path in job.inputs.items()
            },
            "weights": {name: sha256 for name, sha256 in prepared.hashes.items() if "/" in name},
            "pose": prepared.estimator and prepared.estimator.told(),
            "licences": licences,
            "window_seeds": [window_seed(job.seed, window.index) for window in prepared.windows],
            "frames": self.frames,
            "fps": str(prepared.timing.rate),
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
    """Find the joints in a video, or check those of a file; write them, and the overlay that was asked for."""
    job = prepared.job
    motion = find_motion(prepared.drive, prepared.estimator, job.settings, prepared.cache, watch)
    assert motion is not None
    meta = {**motion.meta, "fingerprint": prepared.fingerprint, "command": job.command, "versions": versions()}
    if job.force or not prepared.joints_made:
        save_motion(job.output, replace(motion, meta=meta))
    if job.overlay is not None and (job.force or not prepared.overlay_made):
        clip = open_clip(job.video)
        size_px = (clip.info.width_px, clip.info.height_px)
        with VideoWriter(job.overlay, size_px, motion.rate, sound=prepared.drive.own_sound()) as writer:
            for batch in watch(draw_over(read_ahead(clip.batches()), motion), "overlay", len(motion)):
                writer.write(batch)
        write_sidecar(job.overlay, {"settings": job.settings.told(), **meta})
    seen = describe(motion)
    return FileReport(
        output=job.output,
        remarks=seen.sentences(),
        figures={"frames": seen.frames, "filled": seen.filled, "unsure": seen.unsure, "out_of_view": seen.out_of_view},
    )


def run_tokenizing(prepared: PreparedTokens, watch: Watch) -> FileReport:
    """Joints into tokens with a report of what is lost, or tokens back into joints."""
    job, preset = prepared.job, prepared.job.preset
    tokenizer = load_tokenizer(preset, prepared.part)
    meta = {"fingerprint": prepared.fingerprint, "command": job.command, "versions": versions()}
    if (tokens := prepared.drive.tokens) is not None:
        joints_mm = detokenise(
            tokens.tokens, tokenizer, tokens.plan, preset.statistics, tokens.differential, tokens.origin_mm, watch
        )
        shape = joints_mm.shape[:2]
        motion = Motion(
            joints_mm=joints_mm,
            confidence=np.ones(shape, np.float32),
            observed=np.ones(shape[0], bool),
            rate=tokens.rate,
            size_px=tokens.size_px or preset.size_px,
            meta={**meta, "source": {"name": job.drive.name}},
        )
        save_motion(job.output, motion)
        return FileReport(output=job.output, remarks=[], figures={"frames": len(motion)})

    motion_found = find_motion(prepared.drive, prepared.estimator, job.pose, prepared.cache, watch)
    assert motion_found is not None
    timing = plan_timing(prepared.drive.frames, prepared.drive.rate, None, preset)
    tokenised = to_tokens(motion_found, preset, timing, tokenizer, prepared.device, watch)
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
    remarks = [f"round trip {lost.mean_mm:.1f} mm: " + ", ".join(f"{part} {error}" for part, error in parts.items())]
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
