"""Whether a file of weights is whole, told without reading the weights; finds what a lost hash can't."""

import json
import struct
import zipfile
from pathlib import Path

from mtvcraft_cli.weights.locate import ENDINGS


def why_broken(path: Path, name: str = "") -> str:
    """What is wrong with a file of weights, JSON or TorchScript; nothing where nothing is seen.

    Args:
        path: the file.
        name: what it is called, where that tells more than its path.
    """
    name = name or path.name
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "it is only the Git LFS pointer to the weights"
    if head.lstrip()[:9].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    if name.endswith(".json"):
        return _why_no_json(path)
    if name.endswith(".safetensors"):
        return _why_no_safetensors(path)
    if name.endswith((*ENDINGS, ".torchscript")) and head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return "its end is missing"
    return ""


def _why_no_json(path: Path) -> str:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        return f"it is not JSON ({error})"
    return ""


def _why_no_safetensors(path: Path) -> str:
    """The head says where the last tensor ends, and that is the end of the file."""
    size_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            (head_bytes,) = struct.unpack("<Q", file.read(8))
            if head_bytes > size_bytes - 8:
                return "it is cut off, or no safetensors"
            head = json.loads(file.read(head_bytes))
        ends = [entry["data_offsets"][1] for key, entry in head.items() if key != "__metadata__"]
    except (ValueError, struct.error, KeyError, TypeError, IndexError, AttributeError):
        return "it is no safetensors"
    wanted = 8 + head_bytes + max(ends, default=0)
    return "" if wanted == size_bytes else f"its tensors end at byte {wanted}, and it has {size_bytes}"
