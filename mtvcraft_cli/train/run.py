"""One training run: steps, log, checkpoints. What is trained is a `Stage`; accelerate spreads it over devices."""

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtvcraft_cli.device.ranks import PATIENCE
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.train.settings import Loop

KEPT = 2
"""Checkpoints that stay: the newest, and one in case the newest is lost with a disk's last seconds."""
LOG = "log.jsonl"
_outliving: list[nn.Module] = []
"""Networks that several processes trained. With the last of them gloo's threads are joined while Python's lock is held:
one that still puts its last message away waits for that lock, for ever. At the end of the program none does."""


@runtime_checkable
class Stage(Protocol):
    """What a run asks of the thing it trains."""

    @property
    def objective(self) -> nn.Module:
        """Takes a batch as keywords and gives scalars by name, of which `loss` is minimised."""
        ...

    def join(self, accelerator: Accelerator) -> None:
        """Learn what tensors are exchanged with other processes through; called once, before the first step."""
        ...

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Make the samples of a step, each a function of the seed, the step and its number, and of nothing else."""
        ...

    def after(self, step: int) -> dict[str, float]:
        """Do what is left of a step when the weights have moved, and give more to log."""
        ...

    def report(self, step: int, folder: Path) -> dict[str, float]:
        """Measure the network on what it was not trained on; may write samples into the folder."""
        ...

    def export(self, folder: Path, whole: Mapping[str, Tensor] | None = None) -> None:
        """Write the weights, and a preset that runs them; `whole` has those of `objective` if its own are in pieces."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How a run ended."""

    folder: Path
    step: int
    """Steps done, over all calls."""
    finished: bool
    """Whether these were all; otherwise the same call goes on where this one stopped."""
    stopped_by: int | None
    """The signal that stopped it."""


class Average:
    """A running mean of a network's weights."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.decay = decay
        self.means = [weight.detach().clone() for weight in self.weights]

    def add(self, step: int) -> None:
        """Take in the weights as they are after a step; the first steps weigh more, or they would stay for long."""
        torch._foreach_lerp_(
            self.means, [w.detach() for w in self.weights], 1 - min(self.decay, (1 + step) / (10 + step))
        )

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the means in the network's place for a while."""
        own = [weight.detach().clone() for weight in self.weights]
        self._put(self.means)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: Sequence[Tensor]) -> None:
        for weight, value in zip(self.weights, values, strict=True):
            weight.data.copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """For accelerate's checkpoints."""
        return {str(place): mean for place, mean in enumerate(self.means)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Likewise."""
        for place, mean in enumerate(self.means):
            mean.copy_(state[str(place)])


class Reached:
    """How far a run has come, as accelerate keeps it."""

    def __init__(self) -> None:
        self.step = 0

    def state_dict(self) -> dict[str, int]:
        """For accelerate's checkpoints."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Likewise."""
        self.step = state["step"]


def samples_rng(seed: int, *place: int) -> np.random.Generator:
    """Random numbers of one sample of one step: the same in whichever process and order they are asked for."""
    return np.random.default_rng([seed, *place])


def train(stage: Stage, loop: Loop, folder: Path, *, limit_s: float | None = None, watch: Watch = silent) -> Trained:
    """Train until all steps are done, a signal comes or the time is up; go on from the last checkpoint if there is one.

    Ctrl-C and SIGTERM end the run after the step at hand, with a checkpoint; what kills it at once costs the steps
    since the last one. On one device a run that was cut off ends with the very bits of one that was not.

    Args:
        stage: what is trained.
        loop: how.
        folder: gets `checkpoints/`, `log.jsonl`, `tensorboard/`, `samples/`, and in the end weights and a preset.
        limit_s: seconds after which to stop as if by a signal.
        watch: counts steps.

    Raises:
        MtvcraftError: the batch can't be shared out, the optimiser isn't installed, the loss is no number any more,
            or the checkpoint is of another network.
    """
    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    board = ["tensorboard"] if find_spec("tensorboard") else []
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or several processes on CPUs would each be alone
        mixed_precision="bf16" if loop.precision == "bfloat16" else "no",
        gradient_accumulation_steps=loop.accumulate,
        log_with=board or None,
        project_dir=folder,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    shares = accelerator.num_processes * loop.accumulate
    if loop.batch % shares:
        raise MtvcraftError(
            f"a batch of {loop.batch} can't be shared out to {accelerator.num_processes} processes in "
            f"{loop.accumulate} parts",
            hint=f"make `batch` a multiple of {shares}",
            exit=Exit.USAGE,
        )
    share = loop.batch // shares
    _tell_deepspeed(accelerator, share, loop.clip_norm)
    trained = [weight for weight in stage.objective.parameters() if weight.requires_grad]
    objective, optimiser = accelerator.prepare(stage.objective, make_optimiser(loop, trained))
    stage.join(accelerator)
    average = _average(loop, accelerator, objective)
    reached = Reached()
    accelerator.register_for_checkpointing(reached, *([average] if average else []))
    if latest := _latest(folder):
        _load(accelerator, latest)
    if accelerator.is_main_process:
        _cut_log(folder / LOG, reached.step)
    accelerator.init_trackers("tensorboard", init_kwargs={"tensorboard": {"purge_step": reached.step}} if board else {})
    saved_at, shown_at = time.monotonic(), (time.monotonic(), reached.step)
    with _signals() as seen:
        for step in watch(range(reached.step, loop.steps), "train", loop.steps - reached.step):
            for group in optimiser.param_groups:
                group["lr"] = loop.rate(step)
            made: list[dict[str, Tensor]] = []
            for part in range(loop.accumulate):
                first = (part * accelerator.num_processes + accelerator.process_index) * share
                batch = stage.batch(step, range(first, first + share))
                with accelerator.accumulate(objective), _quick_on_cpu(loop):
                    made.append(objective(**{name: value.to(accelerator.device) for name, value in batch.items()}))
                    accelerator.backward(made[-1]["loss"])
                    if loop.clip_norm and accelerator.sync_gradients:
                        # Asked for anew: FSDP puts others in the place of those that were made ready.
                        accelerator.clip_grad_norm_(objective.parameters(), loop.clip_norm)
                    optimiser.step()
                    optimiser.zero_grad()
            more = stage.after(step)
            if average:
                average.add(step)
            reached.step = step + 1
            if reached.step % loop.log_steps == 0 or reached.step == loop.steps:
                values = _mean(made, accelerator) | more
                now = time.monotonic()
                values |= {"rate": loop.rate(step), "step_s": (now - shown_at[0]) / (reached.step - shown_at[1])}
                shown_at = (now, reached.step)
                _log(folder, reached.step, values, accelerator)
                _check_loss(values["loss"], reached.step, folder)
            if reached.step % loop.report_steps == 0 and reached.step < loop.steps:
                _report(stage, average, reached.step, folder, accelerator)
            late = limit_s is not None and time.monotonic() - started > limit_s
            due = time.monotonic() - saved_at > loop.checkpoint_s
            due, stop = _agreed(accelerator, due, bool(seen) or late)
            if due or stop:
                _check_loss(_mean(made, accelerator)["loss"], reached.step, folder)  # or what is lost would be kept
                _save(accelerator, folder, reached.step)
                saved_at = time.monotonic()
            if stop:
                break
    finished = reached.step == loop.steps
    if finished and (latest is None or latest.name != _name(reached.step)):
        _save(accelerator, folder, reached.step)
    left = finished and accelerator.is_main_process and not _reported(folder / LOG, reached.step)
    if _agreed(accelerator, left)[0]:
        _report(stage, average, reached.step, folder, accelerator)
    whole = accelerator.get_state_dict(objective) if in_pieces(accelerator) else None
    if accelerator.is_main_process:
        with average.in_place() if average else _as_it_is():
            stage.export(folder, whole)
    accelerator.wait_for_everyone()
    if accelerator.num_processes > 1:
        _outliving.append(objective)
    accelerator.end_training()
    return Trained(folder=folder, step=reached.step, finished=finished, stopped_by=seen[0] if seen else None)


def make_optimiser(loop: Loop, weights: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimiser that the settings name.

    Raises:
        MtvcraftError: it isn't installed.
    """
    kwargs = {"lr": loop.rate(0), "betas": loop.betas, "weight_decay": loop.weight_decay}
    if loop.optimiser == "adamw":
        return torch.optim.AdamW(weights, fused=True, **kwargs)  # type: ignore[arg-type]
    try:
        kind = import_module("bitsandbytes.optim").AdamW8bit
    except ImportError as error:
        raise MtvcraftError(
            "the 8-bit optimiser needs bitsandbytes",
            hint="install it with `pip install bitsandbytes`, or set `optimiser: adamw`",
            exit=Exit.USAGE,
        ) from error
    made: torch.optim.Optimizer = kind(weights, **kwargs)
    return made


def in_pieces(accelerator: Accelerator) -> bool:
    """Whether no process holds all weights: under FSDP, and under DeepSpeed's third stage."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return int(accelerator.state.deepspeed_plugin.zero_stage) == 3
    return accelerator.distributed_type == DistributedType.FSDP


def check_whole(accelerator: Accelerator, what: str) -> None:
    """Refuse to cut a small network into pieces.

    Raises:
        MtvcraftError: exit 2; it would be.
    """
    if in_pieces(accelerator):
        raise MtvcraftError(
            f"{what} is too small to be cut into pieces by {accelerator.distributed_type.value}",
            hint="launch it without FSDP and DeepSpeed: one process, or several that each hold all of it",
            exit=Exit.USAGE,
        )


def _tell_deepspeed(accelerator: Accelerator, share: int, clip_norm: float) -> None:
    """DeepSpeed cuts gradients itself, and wants to know the batch that other programs have a loader for."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        config = accelerator.state.deepspeed_plugin.deepspeed_config
        config["train_micro_batch_size_per_gpu"] = share
        config["gradient_clipping"] = clip_norm


def _average(loop: Loop, accelerator: Accelerator, objective: nn.Module) -> Average | None:
    if not loop.ema:
        return None
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise MtvcraftError(
            f"the mean of weights is not kept where {accelerator.distributed_type.value} cuts them into pieces",
            hint="set `ema: 0`",
            exit=Exit.USAGE,
        )
    return Average(objective, loop.ema)


def _mean(made: Sequence[Mapping[str, Tensor]], accelerator: Accelerator) -> dict[str, float]:
    """Each scalar's mean over the parts of a step and all processes."""
    names = list(made[0])
    values = torch.stack([torch.stack([part[name].detach().float() for name in names]) for part in made]).mean(0)
    return dict(zip(names, accelerator.reduce(values, "mean").tolist(), strict=True))


def _agreed(accelerator: Accelerator, *wishes: bool) -> tuple[bool, ...]:
    """What any process wants, so that all do the same."""
    if accelerator.num_processes == 1:
        return wishes
    asked = torch.tensor([float(wish) for wish in wishes], device=accelerator.device)
    return tuple(bool(total) for total in accelerator.reduce(asked, "sum").tolist())


def _report(stage: Stage, average: Average | None, step: int, folder: Path, accelerator: Accelerator) -> None:
    if in_pieces(accelerator):
        return  # one process alone can't run a network that all of them hold
    if accelerator.is_main_process:
        with average.in_place() if average else _as_it_is(), torch.no_grad():
            stage.objective.eval()
            values = stage.report(step, folder)
            stage.objective.train()
        _log(folder, step, values, accelerator, kind="report")
    accelerator.wait_for_everyone()


def _reported(path: Path, step: int) -> bool:
    """Whether the log tells how good the network was after a step."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return any((told["kind"], told["step"]) == ("report", step) for told in map(json.loads, lines))


def _check_loss(loss: float, step: int, folder: Path) -> None:
    """Refuse to go on with a network that is lost, and to keep it.

    Raises:
        MtvcraftError: the loss is no number any more.
    """
    if not np.isfinite(loss):
        raise MtvcraftError(
            f"the loss is {loss} after step {step}",
            hint=f"the checkpoints in `{folder}` are older: go on from them with a lower learning rate",
        )


def _log(folder: Path, step: int, values: Mapping[str, float], accelerator: Accelerator, kind: str = "train") -> None:
    accelerator.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)
    if accelerator.is_main_process:
        with (folder / LOG).open("a", encoding="utf-8") as log:
            log.write(
                json.dumps({"step": step, "kind": kind, **{k: float(f"{v:.6g}") for k, v in values.items()}}) + "\n"
            )


def _cut_log(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint, since it comes again, and a last line that was cut off."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    write_text_whole(path, "".join(f"{line}\n" for line in kept))


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _latest(folder: Path) -> Path | None:
    return max((folder / "checkpoints").glob("step-*"), default=None)


def _load(accelerator: Accelerator, checkpoint: Path) -> None:
    try:
        accelerator.load_state(str(checkpoint))
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise MtvcraftError(
            f"the checkpoint `{checkpoint}` can't be used: {str(error).strip().splitlines()[0]}",
            hint="train into another folder, or remove the checkpoint to start from the one before",
            exit=Exit.WEIGHTS,
        ) from error


def _save(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Write a checkpoint under another name and rename it when it is whole; drop the oldest."""
    parent = folder / "checkpoints"
    draft, final = parent / f".{_name(step)}", parent / _name(step)
    if accelerator.is_main_process:
        for left in parent.glob(".step-*"):
            shutil.rmtree(left)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(draft))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for file in draft.rglob("*"):
            if file.is_file():
                with file.open("rb") as written:
                    os.fsync(written.fileno())  # or a power cut could leave the new name with nothing behind it
        if final.exists():
            shutil.rmtree(final)
        draft.rename(final)
        for old in sorted(parent.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


@contextmanager
def _quick_on_cpu(loop: Loop) -> Iterator[None]:
    """Where precision allows, let a CPU multiply in bfloat16 and add in float32, in layers that insist on float32 too.

    Attention is then two plain products: its fused kernel takes twice as long there to come back with gradients.
    """
    if loop.precision != "bfloat16" or torch.accelerator.is_available():
        yield
        return
    mkldnn: Any = torch.backends.mkldnn  # its parts are made as they are asked for
    kinds = (mkldnn.conv, mkldnn.matmul)
    before = [kind.fp32_precision for kind in kinds]
    exact = not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    for kind in kinds:
        kind.fp32_precision = "bf16"
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # for CPUs too, whatever its name says
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(not exact)
        for kind, was in zip(kinds, before, strict=True):
            kind.fp32_precision = was


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of dying of them; the second one is no longer caught."""
    seen: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        seen.append(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
