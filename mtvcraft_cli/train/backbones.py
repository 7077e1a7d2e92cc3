"""Which file trains the transformer of which backbone; after this nobody asks."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.train.dit import DitStage
from mtvcraft_cli.train.dit_wan import WanStage
from mtvcraft_cli.train.examples import Examples
from mtvcraft_cli.train.settings import DitTraining

STAGES: Final[Mapping[str, type[DitStage] | type[WanStage]]] = {"cogvideox": DitStage, "wan": WanStage}
PREDICTIONS: Final = {"cogvideox": "v", "wan": "flow"}
"""What each backbone's sampler follows, and so what its network has to say."""
OWN: Final = {
    "cogvideox": ("start", "time_power", "kept_frames", "kept_patches", "whole_from", "pointing"),
    "wan": ("levels", "lora", "drop_text", "no_text"),
}
"""By backbone the settings that would do nothing on the other one, which therefore refuses them."""


def make_stage(
    settings: DitTraining,
    preset: Mapping[str, Any],
    stats: Statistics,
    examples: Examples,
    held: Examples,
    folder: Path,
    parts: Mapping[str, Path],
) -> DitStage | WanStage:
    """Make what trains the transformer of the preset's backbone; the arguments are those of every such stage.

    Raises:
        MtvcraftError: a setting means nothing to the backbone, a part is missing, or the base is of another kind.
    """
    backbone = preset["backbone"]
    if settings.prediction not in (None, PREDICTIONS[backbone]):
        raise MtvcraftError(
            f"`dit.prediction` is `{settings.prediction}`, and the sampler of {backbone} follows "
            f"`{PREDICTIONS[backbone]}`",
            hint="leave it out",
            exit=Exit.USAGE,
        )
    for other, keys in OWN.items():
        changed = [item.name for item in fields(DitTraining) if item.name in keys and _changed(settings, item.name)]
        if other != backbone and (changed or (other == "wan" and settings.trains == "lora")):
            raise MtvcraftError(
                f"`dit.{changed[0] if changed else 'trains: lora'}` means nothing to a transformer on {backbone}",
                hint=f"leave it out: it is for {other}",
                exit=Exit.USAGE,
            )
    return STAGES[backbone](settings, preset, stats, examples, held, folder, parts)


def _changed(settings: DitTraining, name: str) -> bool:
    """Whether a setting is not at its default."""
    item = next(item for item in fields(DitTraining) if item.name == name)
    default = item.default if item.default_factory is MISSING else item.default_factory()
    return bool(getattr(settings, name) != default)
