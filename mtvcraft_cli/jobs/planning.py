"""`mtvcraft plan`: what a run would take, without any input."""

from dataclasses import dataclass, replace
from pathlib import Path

from mtvcraft_cli.cache import default_folder
from mtvcraft_cli.device.placement import Quantize, Wanted
from mtvcraft_cli.device.plan import CONTEXT_BYTES, Machine, Plan, make_plan
from mtvcraft_cli.device.together import check_together
from mtvcraft_cli.jobs.fit import BEST_FIRST, free_disk, machine_of, nearest, placement_of, rates_of, task_of
from mtvcraft_cli.preset import Preset, load_preset, preset_names
from mtvcraft_cli.weights.locate import hub_cache


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """What `mtvcraft plan` was asked."""

    frames: int | None = None
    """Frames that the model makes; None for one full window."""
    vram_gib: tuple[float, ...] = ()
    """Memory of cards that need not be here; () looks at this machine."""
    ram_gib: float | None = None
    device: str = "auto"
    offload: Wanted = "auto"
    quantize: Quantize = "none"
    two_passes: bool = False
    weights: Path | None = None


def machine_for(job: PlanJob) -> Machine:
    """The machine that is asked about; torch is only loaded to look for a card here.

    Raises:
        MtvcraftError: exit 2; what is asked for can't be had together.
    """
    check_together(offload=job.offload, quantize=job.quantize, cards=len(job.vram_gib))
    ram = None if job.ram_gib is None else int(job.ram_gib * 2**30)
    if job.vram_gib:
        here = machine_of("cpu")
        free = tuple(max(0, int(size_gib * 2**30) - CONTEXT_BYTES) for size_gib in job.vram_gib)
        machine = replace(here, card="a card", card_free=free[0])
        if len(free) > 1:
            machine = replace(machine, card=f"{len(free)} cards", cards_free=free, cards=tuple(range(len(free))))
    else:
        from mtvcraft_cli.device.place import choose_device

        machine = machine_of(str(choose_device(job.device)))
    machine = replace(machine, disk_free=free_disk(hub_cache()), scratch_free=free_disk(default_folder()))
    return replace(machine, ram_free=ram or machine.ram_free)


def plan_preset(preset: Preset, job: PlanJob, machine: Machine, cache: Path) -> Plan:
    """What a run of a preset would take, joints found in a video included."""
    frames = job.frames or preset.frames
    task = task_of(preset, job.weights, frames, two_passes=job.two_passes, pose_frames=frames)
    placement = placement_of(job.offload, job.quantize, len(job.vram_gib))
    return make_plan(task, machine, rates_of(machine, cache), placement, job.quantize)


def plan_all(job: PlanJob, machine: Machine, cache: Path) -> list[Plan]:
    """The same for every preset of the package, the best first."""
    names = sorted(preset_names(), key=lambda name: BEST_FIRST.index(name) if name in BEST_FIRST else len(BEST_FIRST))
    return [plan_preset(load_preset(name), job, machine, cache) for name in names]


def instead_of(plan: Plan, job: PlanJob, cache: Path) -> tuple[str, Plan] | None:
    """The nearest setting that fits, where a plan doesn't: the options that ask for it, and its plan."""
    return nearest(plan, job.weights, cache) if plan.shortages else None
