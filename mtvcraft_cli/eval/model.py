"""A preset as the small bench measures it: joints in memory to frames in memory, by the program's own stages."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from mtvcraft_cli.eval.mini import MiniReport, run_mini_bench
from mtvcraft_cli.jobs.mini import KeptClips, PreparedMini
from mtvcraft_cli.jobs.timing import plan_timing
from mtvcraft_cli.latents.walk import Models, Settings, walk
from mtvcraft_cli.pipeline import retimed
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.runs.models import load_tokenizer, settings_of, small_models
from mtvcraft_cli.runs.motion import seen_joints, sure_motion, to_tokens
from mtvcraft_cli.shapes import Frames, JointsMm, Picture
from mtvcraft_cli.tokens.tokenise import motion_tokens
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.windows import plan_windows

SEED = 0
"""Of the noise, in every clip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PresetModel:
    """Animates with a preset's models, all on the device; see `eval.mini.Animate`."""

    preset: Preset
    tokenizer: MotionTokenizer
    models: Models
    settings: Settings

    def __call__(self, reference: Picture, joints_mm: JointsMm | None, rate: Fraction, frames: int) -> Frames:
        """Make a clip of the reference's size, at the driver's rate."""
        timing = plan_timing(frames, rate, None, self.preset)
        windows = plan_windows(timing.model_frames, self.preset.frames, self.preset.overlap)
        settings = self.settings
        tokens: Iterator[Tensor]
        if joints_mm is None:
            settings = replace(settings, guidance=1.0)  # both halves would be the same
            unmoved = self.models.transformer.unconditional_tokens(windows[0].latent_frames).detach()
            tokens = (unmoved for _ in windows)
        else:
            height_px, width_px = reference.shape[:2]
            motion = sure_motion(joints_mm, rate, (width_px, height_px))
            if self.models.dynamic:
                settings = replace(settings, joint_mean_mm=seen_joints(motion, self.preset, timing, None)[0])
            made = to_tokens(motion, self.preset, timing, self.tokenizer, str(settings.device), None, silent)
            tokens = (motion_tokens(made.tokens, self.tokenizer, window.index)[0] for window in windows)
        made_frames = walk(self.models, reference, tokens, windows, settings, SEED)
        return np.concatenate(list(retimed(made_frames, timing)))


def load_model(prepared: PreparedMini) -> PresetModel:
    """Load a preset's parts and bring them to the device."""
    preset, device = prepared.job.preset, torch.device(prepared.device)
    models = small_models(preset, prepared.parts, device, prepared.job.quantize)
    for model in (models.transformer, models.vae):
        model.to(device)
    tokenizer = load_tokenizer(preset, prepared.parts["tokenizer"]).to(device)
    return PresetModel(preset=preset, tokenizer=tokenizer, models=models, settings=settings_of(preset, device))


def measure_mini(prepared: PreparedMini, watch: Watch) -> MiniReport:
    """Measure a preset on the small bench; clips of an earlier run are not made again."""
    job, preset = prepared.job, prepared.job.preset
    return run_mini_bench(
        load_model(prepared),
        job.clips,
        preset.size_px,
        job.lengths,
        preset.trained_on,
        prepared.motions,
        watch,
        KeptClips(prepared),
    )
