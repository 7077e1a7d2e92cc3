"""`--preset`: by name, or the one that fits this machine."""

from pathlib import Path

from mtvcraft_cli.preset import Preset, load_preset, preset_names
from mtvcraft_cli.weights.locate import locate


def choose_preset(name: str, weights: Path | None, device: str) -> tuple[Preset, str]:
    """Read the preset that was named; for `auto`, choose one.

    Without a graphics card that is `mini`; with one, the largest preset whose weights are there, else `mini`.

    Returns:
        The preset, and a line that says which was chosen and why (empty where the user named it).
    """
    if name != "auto":
        return load_preset(name), ""
    from mtvcraft_cli.device.place import choose_device

    if choose_device(device).type != "cuda":
        return load_preset("mini"), "preset mini: there is no CUDA card here"
    ready = [preset for preset in map(load_preset, preset_names()) if not _missing(preset, weights)]
    largest = max(  # of two on the same weights, the one without a LoRA that trades quality for speed
        ready,
        key=lambda preset: (
            sum(part.size_bytes for name, part in locate(preset, weights).items() if not name.startswith("lora")),
            not preset.loras,
        ),
    )
    if largest.name == "mini":
        return largest, "preset mini: no weights of a larger one are on this machine (see `mtvcraft presets`)"
    return largest, f"preset {largest.name}: the largest whose weights are on this machine"


def _missing(preset: Preset, weights: Path | None) -> bool:
    return any(part.missing for part in locate(preset, weights).values())
