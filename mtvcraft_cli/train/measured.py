"""A trained preset on the small bench: joints in memory to frames in memory, by the program's own stages."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from mtvcraft_cli.eval.mini import MiniReport, run_mini_bench
from mtvcraft_cli.latents.walk import Models, Settings, walk
from mtvcraft_cli.pipeline import load_tokenizer, small_models
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames, JointsMm, Picture
from mtvcraft_cli.tokens.tokenise import motion_tokens, tokenise
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.train.world.motions import Motions
from mtvcraft_cli.weights.locate import locate, require
from mtvcraft_cli.windows import plan_windows

SEED = 0
"""Of the noise, in every clip."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PresetModel:
    """Animates with a preset's models on the CPU; see `eval.mini.Animate`."""

    preset: Preset
    tokenizer: MotionTokenizer
    models: Models
    settings: Settings

    def __call__(self, reference: Picture, joints_mm: JointsMm | None, rate: Fraction, frames: int) -> Frames:  # noqa: ARG002
        """Make a clip; the model takes whatever rate the driver has."""
        preset, settings = self.preset, self.settings
        windows = plan_windows(frames, preset.frames, preset.overlap)
        tokens: Iterator[Tensor]
        if joints_mm is None:
            settings = replace(settings, guidance=1.0)  # both halves would be the same
            unmoved = self.models.transformer.unconditional_tokens(windows[0].latent_frames).detach()
            tokens = (unmoved for _ in windows)
        else:
            if self.models.dynamic:
                settings = replace(settings, joint_mean_mm=joints_mm[0])
            made = tokenise(
                joints_mm, self.tokenizer, windows, preset.statistics, preset.differential, axes=preset.joint_axes
            )
            tokens = (motion_tokens(made.tokens, self.tokenizer, window.index)[0] for window in windows)
        return np.concatenate(list(walk(self.models, reference, tokens, windows, settings, SEED)))


def measure(preset: Preset, clips: int, motions: Motions | None, watch: Watch = silent) -> MiniReport:
    """Measure a preset on the CPU, on clips of one window of its own size.

    Args:
        preset: on cogvideox, at the driver's rate, without a stride.
        clips: of each split.
        motions: recorded motion that it hasn't seen; None for dances alone.
        watch: counts clips.

    Raises:
        MtvcraftError: exit 6; weights are missing.
    """
    parts = locate(preset, None)
    require(preset, parts)
    models, settings = small_models(preset, parts, torch.device("cpu"))
    tokenizer = load_tokenizer(preset, parts["tokenizer"])
    model = PresetModel(preset=preset, tokenizer=tokenizer, models=models, settings=settings)
    return run_mini_bench(model, clips, preset.size_px, preset.frames, "cpu", motions, watch)
