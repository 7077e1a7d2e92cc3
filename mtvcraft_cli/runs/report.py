"""What a run did: what is told of it, what stands in its sidecar, what it leaves for the next."""

import glob
import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from jaxtyping import Float32
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mtvcraft_cli.cache import key_of
from mtvcraft_cli.device.memory import peak_memory
from mtvcraft_cli.device.placement import STREAMED, Placement
from mtvcraft_cli.device.plan import known_as
from mtvcraft_cli.device.rates import Kind, keep_rates
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.jobs.text import TEXT_PARTS
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.painter import Working
from mtvcraft_cli.latents.walk import window_seed
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.runs.motion import MotionInTokens
from mtvcraft_cli.runs.speed import key_of_speed
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.sidecar import versions
from mtvcraft_cli.tokens.tokenise import TokensFile
from mtvcraft_cli.video.kind import is_pattern
from mtvcraft_cli.video.picture import crop_box

WORKERS: Final[Mapping[type[nn.Module], Kind]] = {
    CogVideoXMotionTransformer: "denoise",
    WanMotionTransformer: "denoise",
    AutoencoderKLCogVideoX: "code",
    AutoencoderKLWan: "code",
}
"""What of a plan's work each network does; the others work for moments."""


@dataclass(kw_only=True)
class AnimationReport:
    """What was done; becomes the sidecar."""

    prepared: PreparedAnimation
    frames: int = 0
    kept_windows: int = 0
    """Windows that an earlier run had finished."""
    times_s: dict[str, float] = field(default_factory=dict)
    active: dict[str, Any] = field(default_factory=dict)
    """What made the run faster, from `runs.speed.active`."""
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    worked_s: dict[Kind, float] = field(default_factory=dict)
    """How long transformer and VAE worked."""
    looked: bool = False
    """Whether an earlier run's character or windows were found, so that less was done than planned."""
    handed_on: bool = False
    """Whether the models were there already, left by the job before."""
    placement: Placement | None = None
    """Where networks lived at the end; another than planned where memory was too small. None where none were needed."""

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
        if self.placement != plan.placement or plan.placement.offload in STREAMED or plan.task.ranks != (1, 1):
            took.pop("denoise", None)  # that was not the transformer's own speed
        elif self.active.get("skipped_forwards") or self.active.get("compiled"):
            took.pop("denoise", None)  # less than was planned, or with the time of the compiler in it
        if not self.handed_on:
            took["load"] = self.times_s["load"]
        if plan.task.pose_frames and self.times_s["pose"] > plan.task.pose_frames / 1000:  # else it was kept
            took["pose"] = self.times_s["pose"]
        found = {kind: plan.work[kind] / seconds for kind, seconds in took.items() if seconds and plan.work[kind]}
        with suppress(MtvcraftError, OSError):  # the video is made, and this is only a memory of speeds
            name = known_as(plan.task.preset, plan.placement.quantize)
            keep_rates(self.prepared.cache.folder, plan.machine.card, name, found)

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self.started

    def keep(self, tokens: MotionInTokens, picture: Picture, places_mm: Float32[np.ndarray, "24 3"]) -> "KeptWindows":
        """Where the windows of this job are kept, under everything that their latents depend on."""
        prepared, preset = self.prepared, self.prepared.job.preset
        own = (
            "tokenizer/",  # codes alone don't say what they stand for
            "transformer/",
            "vae/",
            "lora-",
            "no_motion/",
            "picture_encoder/",
            *TEXT_PARTS,
        )  # besides tokens and picture
        inputs = {name: sha256 for name, sha256 in prepared.hashes.items() if name.startswith(own)}
        counted = ("torch", "diffusers", *(["bitsandbytes"] if prepared.job.quantize != "none" else []))
        parts = {
            "inputs": inputs,
            "picture": hashlib.sha256(picture.tobytes()).hexdigest(),
            "places": hashlib.sha256(places_mm.tobytes()).hexdigest(),
            "preset": preset.fingerprint,
            "seed": prepared.job.seed,
            "quantize": prepared.job.quantize,
            "speed": key_of_speed(prepared),
            "two_passes": prepared.two_passes,
            "frames": prepared.windows[0].frames,
            "overlap": prepared.windows[-1].carried,
            "device": torch.device(prepared.device).type,
            "versions": {name: version for name, version in versions().items() if name in counted},
        }
        return KeptWindows(report=self, parts=parts, tokens=tokens.tokens)

    def _crop_px(self) -> list[int] | None:
        """What of the reference is seen, so that a ground truth of its size can be cut alike; None for all of it."""
        job, (height_px, width_px) = self.prepared.job, self.prepared.picture.shape[:2]
        return list(crop_box((width_px, height_px), job.preset.size_px)) if job.fit == "crop" else None

    def _placed(self) -> dict[str, Any] | None:
        """Where networks really lived, and what was planned."""
        if self.placement is None:
            return None
        planned, (groups, sharing) = self.prepared.plan.placement, self.prepared.plan.task.ranks
        return {
            "offload": self.placement.offload,
            "planned_offload": planned.offload,
            "cards": list(self.placement.cards),
            "processes": {"branches_apart": groups, "patches_cut_in": sharing},
        }

    def told(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            **self.prepared.told(),
            "frames": self.frames or self.prepared.timing.frames,
            "seconds": round(self.seconds, 3),
            "windows_from_earlier_runs": self.kept_windows,
            "active": self.active,
            "times_s": self.times_s,
            "placement": self._placed(),
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
            "active": self.active,
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
            "placement": self._placed(),
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


def settled(path: Path) -> Path:
    """A path that means the same from any folder; only the pattern's own part of a pattern stays one."""
    if not is_pattern(path):
        return path.resolve()
    parts = path.parts
    fixed = next(index for index, part in enumerate(parts) if is_pattern(Path(part)))
    return Path(glob.escape(str(Path(*parts[:fixed]).resolve())), *parts[fixed:])


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
