"""Makes a model of a checkpoint, and lets no tensor be missing, left over or of another shape."""

import difflib
import inspect
import re
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, TypeVar

from torch import Tensor, nn

from mtvcraft_cli.errors import Exit, MtvcraftError

Model = TypeVar("Model", bound=nn.Module)


def arguments_of(
    kind: type, config: Mapping[str, Any], what: str, unused: Collection[str] = frozenset()
) -> dict[str, Any]:
    """Pick a class's constructor arguments from a preset or a checkpoint's `config.json`.

    Other programs write keys of their own, so unknown ones are dropped; those that look misspelt are refused.

    Args:
        kind: the class.
        config: the settings.
        what: what they are for, e.g. "transformer".
        unused: keys that are right, and of no use to `kind`.

    Raises:
        MtvcraftError: an unknown key looks like one that the class takes.
    """
    known = inspect.signature(kind).parameters
    for key in config.keys() - known.keys() - set(unused):
        if near := difflib.get_close_matches(key, known, n=1, cutoff=0.8):
            raise MtvcraftError(
                f"the {what}'s config has an unknown key `{key}`",
                hint=f"did you mean `{near[0]}`?",
                exit=Exit.WEIGHTS,
            )
    return {key: value for key, value in config.items() if key in known}


def fill(model: Model, tensors: Mapping[str, Tensor], what: str) -> Model:
    """Give a model made under `accelerate.init_empty_weights` its weights, without a copy.

    A parameter that a checkpoint lacks would stay on the meta device, where a CPU computes on with garbage.

    Args:
        model: the empty model.
        tensors: its whole state dict; the model keeps these very tensors, in their dtype.
        what: what the checkpoint is, for the user, e.g. "transformer".

    Raises:
        MtvcraftError: names are missing or left over, or shapes differ; they are named.
    """
    wanted = model.state_dict()
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    for trouble, names in (
        ("lacks", wanted.keys() - tensors.keys()),
        ("has other shapes than wanted:", shapes),
        ("has more than wanted:", tensors.keys() - wanted.keys()),
    ):
        if names:
            raise MtvcraftError(
                f"the {what} checkpoint {trouble} {named(names)}",
                hint=f"it belongs to another preset or is damaged: choose its own preset, or fetch the {what} again",
                exit=Exit.WEIGHTS,
            )
    model.load_state_dict(dict(tensors), strict=True, assign=True)
    return model


def motion_pattern(tensors: Mapping[str, Tensor], blocks: str, layer: str, wanted: int | None) -> int:
    """Every how manieth block of an MV-DiT has motion attention.

    Args:
        tensors: its checkpoint.
        blocks: what its blocks are called.
        layer: what the motion attention in a block is called.
        wanted: how many it must be; None takes what there is.

    Raises:
        MtvcraftError: exit 6; blocks lack it, or others have it than is wanted.
    """
    own = re.compile(rf"{blocks}\.(\d+)\.(?:({layer})\.)?")
    places = [place for name in tensors if (place := own.match(name))]
    layers = sorted({int(place[1]) for place in places})
    found = sorted({int(place[1]) for place in places if place[2]})
    every = wanted or min((b - a for a, b in pairwise(found)), default=max(layers, default=0) + 1)
    expected = [number for number in layers if number % every == 0]
    if lacking := [f"{blocks}.{number}.{layer}" for number in expected if number not in found]:
        raise MtvcraftError(
            f"the transformer checkpoint lacks the motion layers {named(lacking)}",
            hint="without them the character can't follow the driver: fetch the MV-DiT's weights, not the base model's",
            exit=Exit.WEIGHTS,
        )
    if found != expected:
        raise MtvcraftError(
            f"the transformer checkpoint has motion layers in blocks {', '.join(map(str, found))}, and the preset "
            f"wants them in every {every}",
            hint="choose the preset that the checkpoint belongs to, or mend `transformer: motion_every` in your own",
            exit=Exit.WEIGHTS,
        )
    return every


def check_motion_layers(tensors: Mapping[str, Tensor], layer: str) -> None:
    """Refuse motion layers that can do nothing, as a conversion that lost them leaves them behind.

    Raises:
        MtvcraftError: exit 6.
    """
    layers = [name for name in tensors if f".{layer}.to_" in name and name.endswith(".weight")]
    if zero := [name for name in layers if not tensors[name].any()]:
        raise MtvcraftError(
            f"the transformer checkpoint has nothing but zeros in the motion layers {named(zero)}",
            hint="the checkpoint was converted badly or never trained: fetch it again, or train it",
            exit=Exit.WEIGHTS,
        )


def named(names: Collection[str], most: int = 6) -> str:
    """The first few names in a sentence, and how many more there are."""
    first = ", ".join(f"`{name}`" for name in sorted(names)[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")
