"""One transformer in several processes: rank 0 leads, and the others work on every call that it makes.

Only rank 0 knows of pictures, motion and files. It tells the others what to load, and then hands them the inputs of
each forward. The branches of guidance run on different groups of processes; within a group patches are cut among the
processes by diffusers' context parallelism, while all of them hold all motion tokens.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.context_parallel import apply_context_parallel
from diffusers.models._modeling_parallel import ParallelConfig
from diffusers.models.attention import AttentionModuleMixin
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from mtvcraft_cli.device.ranks import PATIENCE, rank, world_size
from mtvcraft_cli.errors import Exit, MtvcraftError

CPU: Final = torch.device("cpu")
LEADING: Final = "mtvcraft_leading"


def meet() -> None:
    """Wait until all processes are there."""
    cards = torch.cuda.is_available()
    if cards and _number() < torch.cuda.device_count():
        torch.cuda.set_device(_number())
    dist.init_process_group("cpu:gloo,cuda:nccl" if cards else "gloo", timeout=PATIENCE)
    # torch tells diffusers so in every forward.
    warnings.filterwarnings("ignore", message=".*all_gather_tensor.*", category=FutureWarning)


def part() -> None:
    """Take leave, when nothing is waited for any more."""
    dist.destroy_process_group()


def own_device(kind: str) -> torch.device:
    """The device of this process: of cards that of its number on this machine.

    Raises:
        MtvcraftError: exit 2; there are fewer cards than processes.
    """
    if kind != "cuda":
        return torch.device(kind)
    if _number() >= (cards := torch.cuda.device_count()):
        raise MtvcraftError(
            f"torchrun has started more processes on this machine than it has cards, {cards}",
            hint=f"start {cards} with `--nproc-per-node {cards}`, or work on the CPU with `--device cpu`",
            exit=Exit.USAGE,
        )
    return torch.device(kind, _number())


def _number() -> int:
    """Which of this machine's processes this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@dataclass(frozen=True)
class Order:
    """What rank 0 says: to load a transformer, or to go."""

    told: Any = None
    """What is to be loaded; None to go."""
    ranks: tuple[int, int] = (1, 1)
    kind: str = "cpu"
    """Kind of device."""


def say(order: Order) -> None:
    """Tell the others, from rank 0."""
    dist.broadcast_object_list([order], src=0, device=CPU)


def hear() -> Order:
    """Wait for what rank 0 says."""
    heard: list[Any] = [None]
    dist.broadcast_object_list(heard, src=0, device=CPU)
    return heard[0]


@dataclass
class Team:
    """How processes share a transformer; made in all of them at the same time.

    Args:
        ranks: groups for the branches of guidance, and processes in each.
        device: of this process.
    """

    ranks: tuple[int, int]
    device: torch.device
    busy: bool = False
    """Whether a forward is under way, so that nothing else may be said."""
    mesh: DeviceMesh = field(init=False)

    def __post_init__(self) -> None:
        groups, sharing = self.ranks
        names = ("branch", "ring", "ulysses")
        self.mesh = init_device_mesh(self.device.type, (groups, 1, sharing), mesh_dim_names=names)

    def cut(self, module: nn.Module) -> None:
        """Have the processes of a group cut the patches among them, in every forward from now on."""
        _, sharing = self.ranks
        if sharing == 1:
            return
        # diffusers' own `enable_parallelism` does this, and divides by the number of cards, which may be 0.
        context = ContextParallelConfig(ulysses_degree=sharing, mesh=self.mesh)
        config = ParallelConfig(context_parallel_config=context)
        config.setup(rank(), world_size(), self.device, mesh=self.mesh)
        for part in module.modules():
            if isinstance(part, AttentionModuleMixin) and hasattr(part.processor, "_parallel_config"):
                part.processor._parallel_config = config
        apply_context_parallel(module, context, module._cp_plan)

    def lead(self, module: nn.Module) -> None:
        """Have the others work on every forward of rank 0."""
        self.cut(module)
        HookRegistry.check_if_exists_or_initialize(module).register_hook(Leading(self), LEADING)

    def run(self, forward: Callable[..., Tensor], inputs: tuple[Any, ...]) -> Tensor:
        """A forward of all branches.

        Args:
            forward: of the transformer.
            inputs: tensors have a row per branch; tables, tuples of tensors, are the same for all.

        Returns:
            Its result, whole in every process.
        """
        groups, _ = self.ranks
        rows = len(inputs[0])
        if groups == 1 or rows % groups:
            return forward(*inputs)
        each, group = rows // groups, self.mesh.get_local_rank("branch")
        own = slice(group * each, (group + 1) * each)
        made = forward(*(given[own] if isinstance(given, Tensor) else given for given in inputs)).contiguous()
        parts = [torch.empty_like(made) for _ in range(groups)]
        dist.all_gather(parts, made, group=self.mesh.get_group("branch"))
        return torch.cat(parts)

    def follow(self, module: nn.Module) -> None:
        """Work on every forward of rank 0, until it says that there will be none."""
        inputs: list[Any] = []
        with torch.no_grad():
            while (news := _receive(inputs, self.device)) is not None:
                inputs = news
                self.run(module, tuple(inputs))


class Leading(ModelHook):
    """Hands the inputs of each forward to the other processes, and joins what they make of them."""

    def __init__(self, team: Team) -> None:
        super().__init__()
        self.team = team
        self.sent: list[tuple[Any, int]] = []
        """What the others hold, with the version in which it was sent."""

    def new_forward(self, _module: nn.Module, *inputs: Any) -> Tensor:
        """In the place of the transformer's own."""
        self.team.busy = True
        self.sent = _send(inputs, self.sent)
        result = self.team.run(self.fn_ref.original_forward, inputs)
        self.team.busy = False
        return result


@dataclass(frozen=True)
class Parcel:
    """An input of a forward as it is announced: nothing, a tensor that comes next, or what is there already."""

    known: bool = False
    shapes: tuple[tuple[tuple[int, ...], torch.dtype], ...] = ()
    table: type | None = None
    """The type of a tuple of tensors; None for a single one."""


def _tensors(given: Any) -> tuple[Tensor, ...]:
    return () if given is None else (given,) if isinstance(given, Tensor) else tuple(given)


def _send(inputs: tuple[Any, ...], sent: list[tuple[Any, int]]) -> list[tuple[Any, int]]:
    """Send what the others don't hold; conditions stay the same over many steps."""
    parcels, news, now = [], list[Tensor](), []
    for place, given in enumerate(inputs):
        tensors = _tensors(given)
        version = sum(tensor._version for tensor in tensors)
        known = place < len(sent) and sent[place][0] is given and sent[place][1] == version
        shapes = tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        parcels.append(Parcel(known, shapes, None if given is None or isinstance(given, Tensor) else type(given)))
        news += [] if known else tensors
        now.append((given, version))
    dist.broadcast_object_list([parcels], src=0, device=CPU)
    for tensor in news:
        dist.broadcast(tensor.contiguous(), src=0)
    return now


def _receive(held: list[Any], device: torch.device) -> list[Any] | None:
    """The inputs of the next forward; None where there will be none."""
    heard: list[Any] = [None]
    dist.broadcast_object_list(heard, src=0, device=CPU)
    if isinstance(heard[0], Order):
        return None
    inputs: list[Any] = []
    for place, parcel in enumerate(heard[0]):
        if parcel.known:
            inputs.append(held[place])
            continue
        tensors = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in parcel.shapes]
        for tensor in tensors:
            dist.broadcast(tensor, src=0)
        inputs.append(parcel.table(*tensors) if parcel.table else tensors[0] if tensors else None)
    return inputs
