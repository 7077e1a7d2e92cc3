"""Checkpoints of torch into safetensors beside them, tensor by tensor, so that memory stays flat."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from mtvcraft_cli.files import write_text_whole, writing
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.weights.read import read_tensors

NAMES: Final = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls a kind of number."""
TORCH: Final = (".pt", ".bin", ".pth")
ALIGN: Final = 8


def convert(place: Path, watch: Watch = silent) -> list[Path]:
    """Write what torch wrote as safetensors, under the same name with that ending; the old files stay.

    Args:
        place: a file, or a folder with one or with shards and their index.
        watch: told of every file.

    Returns:
        The files written; nothing where all is safetensors already.

    Raises:
        MtvcraftError: a file can't be read, or the disk is full.
    """
    if place.is_file():
        files = [place] if place.suffix in TORCH and not place.with_suffix(".safetensors").is_file() else []
    elif any(place.glob("*.safetensors")) and not _unfinished(place):
        files = []
    else:
        files = sorted(path for path in place.iterdir() if path.suffix in TORCH)
    written = []
    for file in watch(files, "convert", len(files)):
        new = file.with_suffix(".safetensors")
        if not new.is_file():
            write_tensors(new, read_tensors(file, within="module"))
        written.append(new)
    for index in sorted(place.glob("*.index.json")) if place.is_dir() and written else []:
        ending = next((ending for ending in TORCH if index.name.endswith(f"{ending}.index.json")), None)
        if ending is not None:  # last, since it says that all are there
            told = json.loads(index.read_text(encoding="utf-8"))
            places = told["weight_map"].items()
            told["weight_map"] = {key: str(Path(shard).with_suffix(".safetensors")) for key, shard in places}
            new = index.with_name(index.name.replace(f"{ending}.index.json", ".safetensors.index.json"))
            write_text_whole(new, json.dumps(told, indent=1))
            written.append(new)
    return written


def _unfinished(folder: Path) -> bool:
    """Whether an earlier conversion was cut off: some shards are done, and their index isn't there."""
    return any(folder.glob("*.bin.index.json")) and not any(folder.glob("*.safetensors.index.json"))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, holding one tensor at a time.

    Args:
        path: appears when it is whole.
        tensors: by name; those that share memory are written once for each name.

    Raises:
        ValueError: a tensor is of a kind that safetensors doesn't have.
        MtvcraftError: exit 5; the disk is full.
    """
    if odd := sorted({str(tensor.dtype) for tensor in tensors.values()} - {str(kind) for kind in NAMES}):
        raise ValueError(f"safetensors has no {odd[0]}")
    head: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))  # so that each starts aligned
    for name, tensor in ordered.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        head[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % ALIGN)
    with writing(path) as draft, draft.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for tensor in ordered.values():
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
