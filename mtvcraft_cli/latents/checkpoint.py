"""Makes a model of a checkpoint, and lets no tensor be missing, left over or of another shape."""

import difflib
import inspect
from collections.abc import Collection, Mapping
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


def named(names: Collection[str], most: int = 6) -> str:
    """The first few names in a sentence, and how many more there are."""
    first = ", ".join(f"`{name}`" for name in sorted(names)[:most])
    return first + (f" and {len(names) - most} more" if len(names) > most else "")
