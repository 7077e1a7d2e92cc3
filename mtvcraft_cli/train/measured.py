"""A trained preset on the small bench."""

import torch

from mtvcraft_cli.eval.mini import MiniReport, run_mini_bench
from mtvcraft_cli.eval.model import PresetModel
from mtvcraft_cli.preset import Preset
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.runs.models import load_tokenizer, settings_of, small_models
from mtvcraft_cli.train.world.motions import Motions
from mtvcraft_cli.weights.locate import locate, require


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
    parts, device = locate(preset, None), torch.device("cpu")
    require(preset, parts)
    model = PresetModel(
        preset=preset,
        tokenizer=load_tokenizer(preset, parts["tokenizer"]),
        models=small_models(preset, parts, device),
        settings=settings_of(preset, device),
    )
    return run_mini_bench(model, clips, preset.size_px, (preset.frames,), preset.trained_on, motions, watch)
