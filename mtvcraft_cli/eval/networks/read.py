"""Published files of feature networks -> networks, ready to be run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.networks.alexnet import alexnet
from mtvcraft_cli.eval.networks.archive import read_archive
from mtvcraft_cli.eval.networks.i3d import I3d
from mtvcraft_cli.eval.networks.inception import Inception
from mtvcraft_cli.eval.networks.resnet3d import Resnet3d
from mtvcraft_cli.eval.networks.vgg import vgg16
from mtvcraft_cli.weights.read import read_tensors as read_checkpoint

Name = Literal["i3d", "resnet3d", "inception", "vgg16", "alexnet"]

HEADS: Final = Path(__file__).with_name("lpips_heads.safetensors")
"""The linear heads of LPIPS v0.1, which come with this package; their licence lies beside them."""
_SAVED_BY_TORCH: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"
"""How the files begin that PyTorch wrote before it wrote zip files; JAX's are other pickles."""


@dataclass(frozen=True)
class Kind:
    """One network."""

    build: Callable[[], nn.Module]
    files: tuple[str, ...]
    """Files that hold its weights, any one of which will do; the first is the one that papers use."""
    beside: tuple[str, ...]
    """Layers that the files hold and nothing here needs."""


KINDS: Final[dict[Name, Kind]] = {
    "i3d": Kind(I3d, ("i3d_pretrained_400.pt", "i3d-kinetics-400.ckpt"), ()),
    "resnet3d": Kind(Resnet3d, ("resnet-50-kinetics.pth",), ("fc.",)),
    "inception": Kind(Inception, ("pt_inception-2015-12-05-6726825d.pth",), ("fc.",)),
    "vgg16": Kind(vgg16, ("vgg16-397923af.pth", "vgg16.ckpt"), ("classifier.", "lin")),
    "alexnet": Kind(alexnet, ("alexnet-owt-7be5be79.pth", "alexnet.ckpt"), ("classifier.", "lin")),
}


def read_network(name: Name, path: Path, device: torch.device | str = "cpu") -> nn.Module:
    """Build a network and fill it from one of its files.

    Args:
        name: a key of `KINDS`.
        path: a file of `KINDS[name].files`, or a safetensors copy of one.
        device: where it shall lie.

    Returns:
        The network in float32, for use and not for training.

    Raises:
        MtvcraftError: the file is missing, broken, or holds another network (exit 6).
    """
    return fill(name, read_tensors(name, path), str(path)).to(device)


def fill(name: Name, tensors: Mapping[str, Tensor], source: str = "the tensors given") -> nn.Module:
    """Build a network and put tensors into it, under the names of the published file.

    Args:
        name: a key of `KINDS`.
        tensors: all that the network has; what it hasn't is refused, too.
        source: where they come from, for messages.

    Raises:
        MtvcraftError: a tensor is missing, too many, or of another shape (exit 6).
    """
    with torch.device("meta"):
        network = KINDS[name].build()
    wanted = {key: tuple(value.shape) for key, value in network.state_dict().items() if not _counter(key)}
    shapes = {key: tuple(value.shape) for key, value in tensors.items()}
    wrong = sorted(key for key in wanted.keys() | shapes.keys() if wanted.get(key) != shapes.get(key))
    if wrong:
        key = wrong[0]
        told = f"it has {shapes[key]} where {wanted.get(key, 'nothing')} belongs" if key in shapes else "it is missing"
        raise MtvcraftError(
            f"`{source}` doesn't hold the network {name}: of `{key}`, {told} ({len(wrong)} tensors differ)",
            hint="fetch it again with `mtvcraft download metrics`",
            exit=Exit.WEIGHTS,
        )
    network.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=False, assign=True)
    for key, value in network.named_buffers():
        if _counter(key):  # how often a batch norm was trained: older files lack it, and nothing reads it
            owner, _, own = key.rpartition(".")
            setattr(network.get_submodule(owner), own, torch.zeros_like(value, device="cpu"))
    return network.eval().requires_grad_(False)


def read_tensors(name: Name, path: Path) -> dict[str, Tensor]:
    """Read what a network needs out of one of its files, on the CPU, under the names of the published PyTorch file.

    Args:
        name: a key of `KINDS`.
        path: a file of `torch.save`, of whatever age; one of the archives written by JAX; or safetensors.

    Raises:
        MtvcraftError: the file is missing or broken, or asks for more than arrays (exit 6).
    """
    if path.is_file() and _is_archive(path):
        try:
            tensors = read_archive(path)
        except Exception as error:  # a broken or hostile pickle can make its reader fail in any way
            raise MtvcraftError(
                f"weights `{path}` can't be read: {error}",
                hint="fetch them again with `mtvcraft download metrics`",
                exit=Exit.WEIGHTS,
            ) from error
    else:
        tensors = read_checkpoint(path, within="state_dict")
    plain = {key.removeprefix("module."): value for key, value in tensors.items()}
    return {key: value for key, value in plain.items() if not (_counter(key) or key.startswith(KINDS[name].beside))}


def read_heads(name: Literal["vgg16", "alexnet"]) -> list[Tensor]:
    """The linear heads of LPIPS v0.1 that come with this package: five, (C,) each, in the order of the taps."""
    tensors = load_file(HEADS)
    return [tensors[f"{name}.lin{number}"] for number in range(5)]


def _is_archive(path: Path) -> bool:
    with path.open("rb") as source:
        head = source.read(len(_SAVED_BY_TORCH))
    return head.startswith(b"\x80") and head != _SAVED_BY_TORCH


def _counter(key: str) -> bool:
    return key.endswith("num_batches_tracked")
