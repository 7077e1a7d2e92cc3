"""The driver's motion and its tokens: read, found in a video, or kept from an earlier run."""

import hashlib
import json
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from mtvcraft_cli.cache import Cache, key_of
from mtvcraft_cli.device.place import working
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.jobs.drive import Drive, DriveSettings, Estimator, Framing, tokenizer_identity
from mtvcraft_cli.jobs.timing import Timing
from mtvcraft_cli.joints.backend import Scene
from mtvcraft_cli.joints.files import Motion, resample
from mtvcraft_cli.joints.framing import mirror, rooted
from mtvcraft_cli.joints.gaps import describe, fill
from mtvcraft_cli.joints.neutral import neutral_joints
from mtvcraft_cli.joints.own.body import load_body
from mtvcraft_cli.joints.people import choose_person, describe_choice, load_scene, save_scene
from mtvcraft_cli.joints.smooth import smooth, smooth_pose
from mtvcraft_cli.joints.strength import strengthened
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.progress import Watch
from mtvcraft_cli.shapes import JointsMm
from mtvcraft_cli.tokens.tokenise import OriginMm, Tokenised, TokensFile, detokenise, tokenise
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.video.read import open_clip, read_ahead
from mtvcraft_cli.windows import plan_windows


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


@dataclass(frozen=True)
class MotionInTokens:
    """The driver's motion as the model sees it, and what it takes to make joints of it again."""

    tokens: TokensFile
    origin_mm: OriginMm | None


def find_tokens(
    prepared: PreparedAnimation,
    motion: Motion | None,
    tokenizer: MotionTokenizer,
    warnings: list[str],
    watch: Watch,
) -> MotionInTokens:
    """The driver's motion tokens, read or made; what is to be warned of goes to `warnings`."""
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
        warnings += json.loads((kept / "warnings.json").read_text(encoding="utf-8"))
        origin = kept / "origin_mm.npy"
        return MotionInTokens(
            np.load(kept / "tokens.npy", allow_pickle=False),
            np.load(origin, allow_pickle=False) if origin.is_file() else None,
        )
    tokenised = to_tokens(motion, preset, timing, tokenizer, prepared.device, body, watch)
    said = [] if preset.seeded else tokenised.report.warnings()
    with prepared.cache.make("tokens", key) as folder:
        np.save(folder / "tokens.npy", tokenised.tokens, allow_pickle=False)
        if tokenised.origin_mm is not None:
            np.save(folder / "origin_mm.npy", tokenised.origin_mm, allow_pickle=False)
        (folder / "warnings.json").write_text(json.dumps(said), encoding="utf-8")
    warnings += said
    return MotionInTokens(tokenised.tokens, tokenised.origin_mm)


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
    tokens: MotionInTokens,
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


def sure_motion(joints_mm: JointsMm, rate: Fraction, size_px: tuple[int, int]) -> Motion:
    """Joints that nobody looked for, and so nobody doubts."""
    ones = np.ones(joints_mm.shape[:2], np.float32)
    return Motion(joints_mm=joints_mm, confidence=ones, observed=ones[:, 0] > 0, rate=rate, size_px=size_px)
