"""Files -> tensors, without running anything that a file says."""

import json
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from zipfile import ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.weights.locate import ENDINGS


def read_tensors(path: Path, *, within: str | None = None) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint, on the CPU, mapped from the file where it allows.

    Args:
        path: a `.safetensors` file, a file of `torch.save`, the `.index.json` of a sharded checkpoint, or a folder that
            holds one of these. Files are told apart by what is in them.
        within: key of a `torch.save` file under which the tensors lie, "module" for a DeepSpeed state; a file that
            holds nothing but tensors needs none.

    Returns:
        Name to tensor; every tensor that is there.

    Raises:
        MtvcraftError: the file is missing, cut off, of another kind, or holds something else; a shard is missing.
    """
    if path.is_dir():
        path = _in_folder(path)
    if not path.is_file():
        raise _unusable(path, "there is no such file")
    if path.name.endswith(".index.json"):
        return _read_shards(path, within)
    with path.open("rb") as source:
        head = source.read(16)
    if head[8:9] == b"{":  # asked first: the length before it may begin as a pickle does
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise _unusable(path, str(error)) from error
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _tensors_of(_read_torch(path, zipped=head.startswith(b"PK")), path, within)
    if head.startswith(b"version https://"):
        raise _unusable(path, "it is only the Git LFS pointer to the weights")
    raise _unusable(path, "it is neither safetensors nor written by torch")


def read_tensor(path: Path, name: str) -> Tensor:
    """Read one tensor of a checkpoint; the others stay in their file.

    Args:
        path: as `read_tensors` takes it.
        name: the tensor's name in the checkpoint.

    Raises:
        MtvcraftError: as `read_tensors` does; or the checkpoint has no such tensor.
    """
    index = _in_folder(path) if path.is_dir() else path
    file = index
    if index.name.endswith(".index.json"):
        places = _places(index)
        if name not in places:
            raise _unusable(index, f"it lists no `{name}`")
        file = index.parent / places[name]
        if not file.is_file():
            raise _unusable(index, f"the shard `{places[name]}` is missing")
    if _is_safetensors(file):
        try:
            with safe_open(file, framework="pt") as opened:
                if name in opened.keys():  # noqa: SIM118 - it is no dict
                    return opened.get_tensor(name)
        except (SafetensorError, ValueError, OSError) as error:
            raise _unusable(file, str(error)) from error
    elif name in (tensors := read_tensors(file)):  # mapped from the file: only what is touched is read
        return tensors[name].clone()
    raise _unusable(file, f"it holds no `{name}`")


def read_lora_config(path: Path) -> dict[str, Any]:
    """What is written beside or at the head of a LoRA: rank, alpha and the like; nothing where nothing is.

    Args:
        path: its file, or a folder of peft's with an `adapter_config.json`.

    Raises:
        MtvcraftError: what is written is not JSON.
    """
    beside = (path if path.is_dir() else path.parent) / "adapter_config.json"
    file = _in_folder(path) if path.is_dir() else path
    try:
        if beside.is_file():
            return dict(json.loads(beside.read_text(encoding="utf-8")))
        if not _is_safetensors(file):
            return {}
        with safe_open(file, framework="pt") as opened:
            return dict(json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}")))
    except (SafetensorError, ValueError, TypeError, OSError) as error:
        raise _unusable(path, f"its settings are not JSON ({_first_line(error)})") from error


def _is_safetensors(file: Path) -> bool:
    with file.open("rb") as source:
        return source.read(9)[8:] == b"{"


def _in_folder(folder: Path) -> Path:
    """The one checkpoint of a folder: its index, or else its only weight file."""
    # An index first, of whatever kind: beside it others may be what an interrupted conversion left.
    for ending in (*(f"{ending}.index.json" for ending in ENDINGS), *ENDINGS):
        found = sorted(folder.glob(f"*{ending}"))
        if len(found) > 1:
            names = ", ".join(f"`{path.name}`" for path in found[:4])
            raise _unusable(folder, f"it has {len(found)} weight files and no single index: {names}")
        if found:
            return found[0]
    raise _unusable(folder, f"no file in it ends in {', '.join(ENDINGS)}")


def _read_shards(index: Path, within: str | None) -> dict[str, Tensor]:
    places = _places(index)
    shards = sorted(set(places.values()))
    if missing := [shard for shard in shards if not (index.parent / shard).is_file()]:
        raise _unusable(index, f"{len(missing)} of {len(shards)} shards are missing: {_some(missing)}")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        found = read_tensors(index.parent / shard, within=within)
        listed = {key for key, place in places.items() if place == shard}
        if lost := sorted(listed - set(found)):
            raise _unusable(index.parent / shard, f"it lacks {_some(lost)}, which `{index.name}` lists")
        if strange := sorted(set(found) - listed):
            raise _unusable(index.parent / shard, f"it holds {_some(strange)}, which `{index.name}` doesn't list there")
        tensors |= found
    return tensors


def _places(index: Path) -> dict[str, str]:
    """Which file beside the index holds each tensor."""
    try:
        places = {key: str(shard) for key, shard in json.loads(index.read_text("utf-8"))["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(index, f"it is no index of shards ({type(error).__name__}: {error})") from error
    if outside := [shard for shard in places.values() if Path(shard).name != shard]:
        raise _unusable(index, f"it names a file outside its folder: `{min(outside)}`")
    return places


def _read_torch(path: Path, *, zipped: bool) -> object:
    """What `torch.save` wrote. Objects of unknown classes come back as stand-ins, and nothing of theirs is run."""
    restricted = ModuleType("inert")
    restricted.Unpickler = Inert  # type: ignore[attr-defined]
    restricted.load = lambda source, **options: Inert(source, **options).load()  # type: ignore[attr-defined]
    try:
        if zipped and _is_torchscript(path):
            raise _unusable(path, "it is a TorchScript program")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells of older and newer pickle protocols
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
            except pickle.UnpicklingError:  # a DeepSpeed state is full of Namespaces and configurations
                return torch.load(path, map_location="cpu", weights_only=False, pickle_module=restricted, mmap=zipped)
    except MtvcraftError:
        raise
    except Exception as error:  # a broken or hostile pickle can make its reader fail in any way
        raise _unusable(path, _first_line(error)) from error


def _is_torchscript(path: Path) -> bool:
    with ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class StandIn:
    """Takes the place of an object whose class isn't trusted: swallows its state, does and keeps nothing."""

    def __new__(cls, *_arguments: object, **_named: object) -> "StandIn":
        """Make one, whatever the class would have wanted."""
        return super().__new__(cls)

    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _item: object) -> None:
        """Swallow an item, as `extend`, `add` and `update` do."""

    extend = add = update = append


class Inert(pickle.Unpickler):
    """Builds tensors and plain containers; everything else that a pickle names becomes a `StandIn`."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what rebuilds tensors, or a class of stand-ins; a new one, since a pickle can set attributes on it."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch", "Size"):
            return torch.Size
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if (module, name) in REBUILDERS:
            return _only_called(REBUILDERS[module, name])
        return type("StandIn", (StandIn,), {})


REBUILDERS: Final[dict[tuple[str, str], Callable[..., object]]] = {
    ("torch._utils", name): getattr(torch._utils, name)
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")
}
"""The only functions that a pickle may call: they make a view of a storage that `torch.load` has read."""


def _only_called(function: Callable[..., object]) -> Callable[..., object]:
    return lambda *arguments: function(*arguments)


def _tensors_of(content: object, path: Path, within: str | None) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and within is not None and within in content:
        content = content[within]
    if not isinstance(content, Mapping) or not content:
        raise _unusable(path, f"it holds a {type(content).__name__} and no tensors by name")
    if odd := [str(key) for key, value in content.items() if not isinstance(key, str) or not isinstance(value, Tensor)]:
        wanted = f" and no `{within}`" if within is not None else ""
        raise _unusable(path, f"beside tensors it holds {_some(odd)}{wanted}")
    return {key: tensor.detach() for key, tensor in content.items()}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(f"`{name}`" for name in names[:4]) + more


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _unusable(path: Path, why: str) -> MtvcraftError:
    return MtvcraftError(
        f"weights `{path}` can't be read: {why}",
        hint="download them again with `mtvcraft download`, or check the path",
        exit=Exit.WEIGHTS,
    )
