"""Which device works, in what precision, and which model is on it at what time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from torch import nn

from mtvcraft_cli.errors import Exit, MtvcraftError

Offload = Literal["none", "model"]
Module = TypeVar("Module", bound=nn.Module)


def choose_device(name: str) -> torch.device:
    """The device for `--device`: "auto", "cpu", "cuda", "cuda:N" or "mps".

    "auto" takes the first CUDA card, else Apple's, else the CPU.

    Raises:
        MtvcraftError: there is no such device, here or at all.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise MtvcraftError(
            f"no device is called `{name}`", hint="use `auto`, `cpu`, `cuda`, `cuda:N` or `mps`", exit=Exit.USAGE
        )
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}[device.type]
    if (device.index or 0) >= count:
        raise MtvcraftError(
            f"there is no device `{name}` on this machine: PyTorch sees {count} of kind `{device.type}`",
            hint="use `--device auto`, or install a driver and a PyTorch build that know the card",
            exit=Exit.USAGE,
        )
    return device


def choose_dtype(device: torch.device, precision: Literal["float32", "bfloat16"]) -> torch.dtype:
    """What the transformer and the VAE compute in: a preset's precision, and always float32 on a CPU."""
    return torch.bfloat16 if precision == "bfloat16" and device.type != "cpu" else torch.float32


@contextmanager
def working(module: Module, device: torch.device, offload: Offload) -> Iterator[Module]:
    """Have a module on the device while it works.

    Args:
        module: a component of the pipeline.
        device: where it works.
        offload: "model" takes it back to the CPU afterwards, so that the next one finds the memory free; "none"
            leaves it there.
    """
    module.to(device)
    try:
        yield module
    finally:
        if offload == "model":
            module.to("cpu")
            if device.type == "cuda":
                torch.cuda.empty_cache()
