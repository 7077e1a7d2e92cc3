"""Merges a LoRA (small changes to many layers, made for a style or for fewer steps) into the large model's weights."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.latents.checkpoint import named
from mtvcraft_cli.latents.wan import our_name, released_name

Rules = Literal["all", "released"]
"""Which LoRAs are understood, and how.

"all": in the names of peft, diffusers, kohya and Wan itself, with alpha, computed in float32. "released": as the
released code does it: only `lora_down` with `lora_up`, `diff` and `diff_b` of Wan's own layers under
`diffusion_model.`, without alpha, everything rounded to bfloat16 first and then computed in the model's dtype.
"""
PREFIX = re.compile(r"^(?:base_model\.model\.|model\.|diffusion_model\.|transformer\.|lora_(?:unet|transformer)_+)*")
"""What programs put before a layer's name."""
PAIR = re.compile(r"(?P<layer>.+)\.lora[._](?P<half>down|up|A|B)(?:\.\w+)?\.weight")
"""Half of a pair, in peft perhaps with the name of an adapter."""
HALVES = {"down": "down", "A": "down", "up": "up", "B": "up"}
WHOLE = {".diff": ".weight", ".diff_b": ".bias", ".diff_m": ".modulation"}
"""Changes as they are, and what of a layer they change."""
RELEASED = re.compile(r"diffusion_model\.(?P<layer>.+)\.(?:lora_down\.weight|lora_up\.weight|diff|diff_b)")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of a LoRA's tensors."""

    merged: tuple[str, ...]
    """Parameters of the model that were changed."""
    unmatched: tuple[str, ...]
    """Names in the LoRA that belong to nothing in the model, or lack their other half."""
    misshaped: tuple[str, ...]
    """Names in the LoRA whose shapes don't fit the model's layer; skipped."""

    def __str__(self) -> str:
        told = [f"parameters changed: {len(self.merged)}"]
        for names, why in (
            (self.unmatched, "belong to no layer or lack their other half"),
            (self.misshaped, "are of another shape than the layer"),
        ):
            if names:
                told.append(f"tensors left out that {why}: {len(names)} ({named(names, most=3)})")
        return "; ".join(told)


@torch.no_grad()
def merge_lora(
    tensors: MutableMapping[str, Tensor],
    lora: Mapping[str, Tensor],
    scale: float = 1.0,
    rules: Rules = "all",
    *,
    alpha: float | None = None,
    name: str = "the LoRA",
) -> Report:
    """Put W + scale * alpha / rank * up @ down in the place of each weight W that the LoRA changes.

    One parameter after the other, so that no more than one of them is in memory twice. Several LoRAs are merged by
    several calls.

    Args:
        tensors: the transformer's checkpoint, in the released layout or ours; changed parameters are replaced in it.
        lora: the LoRA's file.
        scale: how strongly it acts.
        rules: which names are understood; see `Rules`.
        alpha: for pairs without an alpha of their own, from `alpha_of`; None makes alpha / rank 1.
        name: what the user calls the file.

    Raises:
        MtvcraftError: nothing in it belongs to this model, or it is a DoRA (exit 4).
    """
    if odd := [key for key in lora if "dora_scale" in key or "lora_magnitude_vector" in key]:
        raise _beyond(odd)
    changes, unmatched = _by_parameter(tensors, lora, rules)
    merged: list[str] = []
    misshaped: list[str] = []
    for key, parts in changes.items():
        found = {part: lora[given] for part, given in parts.items()}
        if not _fit(tensors[key], found):
            misshaped += parts.values()
        else:
            tensors[key] = _changed(tensors[key], found, scale, alpha, rules)
            merged.append(key)
    if not merged:
        why = (
            f"the shapes of {named(misshaped, 3)} are others"
            if misshaped
            else f"it has {named(unmatched, 3) or 'nothing'}"
        )
        raise MtvcraftError(
            f"{name} fits nothing in this model: {why}",
            hint="it was made for another model: use one for Wan 2.1 14B, or leave `--lora` out",
        )
    return Report(merged=tuple(sorted(merged)), unmatched=tuple(sorted(unmatched)), misshaped=tuple(sorted(misshaped)))


def alpha_of(config: Mapping[str, Any]) -> float | None:
    """Read the alpha that holds for all pairs of a file of peft's.

    Args:
        config: the `adapter_config.json` beside it, or what diffusers keeps in its header under
            `lora_adapter_metadata`.

    Raises:
        MtvcraftError: it asks for another sum than W + scale * alpha / rank * up @ down (exit 4).
    """
    plain = {key.rpartition(".")[2]: value for key, value in config.items()}
    if odd := [key for key in ("use_dora", "use_rslora", "alpha_pattern") if plain.get(key)]:
        raise _beyond(odd)
    return None if plain.get("lora_alpha") is None else float(plain["lora_alpha"])


def _beyond(names: Collection[str]) -> MtvcraftError:
    return MtvcraftError(
        f"a LoRA with {named(names, most=3)} is more than up @ down and can't be merged",
        hint="merge it with the program that made it, and name the merged checkpoint in a preset of your own",
    )


def _by_parameter(
    tensors: Mapping[str, Tensor], lora: Mapping[str, Tensor], rules: Rules
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """For each parameter that changes which name of the LoRA plays which part, and the names that play none."""
    places = {our_name(key): key for key in tensors}
    for ours, place in list(places.items()):
        for spelled in (ours, released_name(ours)):
            layer, _, kind = spelled.rpartition(".")
            places.setdefault(f"{layer.replace('.', '_')}.{kind}", place)  # as kohya spells it
    changes: dict[str, dict[str, str]] = defaultdict(dict)
    left: list[str] = []
    for given in lora:
        parameter, part = _meant(given)
        key: str | None = places.get(our_name(parameter))
        own = RELEASED.fullmatch(given) and released_name(our_name(parameter)) == parameter
        if rules == "released" and not own:
            key = None
        if key is None or part is None or part in changes.get(key, {}):
            left.append(given)
        else:
            changes[key][part] = given
    for parts in changes.values():
        if not {"down", "up"} <= parts.keys():
            left += [parts.pop(part) for part in ("down", "up", "alpha") if part in parts]
    return {key: parts for key, parts in changes.items() if parts}, left


def _meant(given: str) -> tuple[str, str | None]:
    """The parameter that a name of a LoRA speaks of, and the part that its tensor plays there; None is no part."""
    bare = PREFIX.sub("", given, count=1)
    if pair := PAIR.fullmatch(bare):
        return f"{pair['layer']}.weight", HALVES[pair["half"]]
    if bare.endswith(".alpha"):
        return f"{bare.removesuffix('.alpha')}.weight", "alpha"
    for ending, kind in WHOLE.items():
        if bare.endswith(ending):
            return bare.removesuffix(ending) + kind, "whole"
    return bare, None


def _fit(weight: Tensor, found: Mapping[str, Tensor]) -> bool:
    if "whole" in found and found["whole"].shape != weight.shape:
        return False
    if "up" not in found:
        return True
    up, down = found["up"].flatten(1), found["down"].flatten(1)  # kernels of convolutions are matrices then
    return up.shape[1] == len(down) and (len(up), down.shape[1]) == weight.flatten(1).shape


def _changed(weight: Tensor, found: Mapping[str, Tensor], scale: float, alpha: float | None, rules: Rules) -> Tensor:
    """The weight with what was found added."""
    dtype = weight.dtype if rules == "released" else torch.float32
    exact = {part: (tensor.bfloat16() if rules == "released" else tensor).to(dtype) for part, tensor in found.items()}
    changed = weight.to(dtype)
    if "up" in found:
        alpha = float(found["alpha"]) if "alpha" in found else alpha
        share = 1.0 if alpha is None else alpha / len(found["down"])
        product = exact["up"].flatten(1) @ exact["down"].flatten(1)
        changed = changed + scale * share * product.view_as(weight)
    if "whole" in found:
        changed = changed + scale * exact["whole"]
    return changed.to(weight.dtype)
