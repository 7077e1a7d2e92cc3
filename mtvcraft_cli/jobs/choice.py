"""`--preset`: by name, or the one that fits this machine."""

from collections.abc import Sequence
from pathlib import Path

from mtvcraft_cli.cache import default_folder
from mtvcraft_cli.device.placement import Quantize, Wanted
from mtvcraft_cli.device.ranks import world_size
from mtvcraft_cli.jobs.fit import best_fitting, machine_of
from mtvcraft_cli.preset import Preset, load_preset


def choose_preset(
    name: str,
    weights: Path | None,
    device: str,
    cards: Sequence[int] = (),
    quantize: Quantize = "none",
    *,
    offload: Wanted = "auto",
    two_passes: bool = False,
    whole: bool = False,
    skips: bool = False,
) -> tuple[Preset, str]:
    """Read the preset that was named; for `auto`, choose one.

    Without a graphics card that is `mini`; with one, the best preset whose weights are there and that fits by the plan
    as it is asked for, else `mini`.

    Returns:
        The preset, and a line that says which was chosen and why (empty where the user named it).
    """
    if name != "auto":
        return load_preset(name), ""
    from mtvcraft_cli.device.place import choose_device

    chosen = choose_device(f"cuda:{cards[0]}" if cards else device)
    if chosen.type != "cuda":
        return load_preset("mini"), "preset mini: there is no CUDA card here"
    best = best_fitting(
        weights,
        machine_of(str(chosen), cards),
        default_folder(),
        quantize,
        offload=offload,
        two_passes=two_passes,
        whole=whole,
        skips=skips,
        ranks=world_size(),
    )
    if best is not None:
        return best, f"preset {best.name}: the best whose weights are on this machine and that fits its card"
    why = "no larger one has its weights on this machine and fits its card (see `mtvcraft presets` and `mtvcraft plan`)"
    return load_preset("mini"), f"preset mini: {why}"
