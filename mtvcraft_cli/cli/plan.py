"""`mtvcraft plan`: what a run would take, and whether it fits."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from mtvcraft_cli.cli.console import answer, say, table
from mtvcraft_cli.cli.front import running
from mtvcraft_cli.cli.options import Device, Offload, Quantize, Weights, read_size
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.device.plan import Plan


def plan(
    preset: Annotated[
        str | None, typer.Option(help="Model and settings; left out, or `auto`, every model of the package is planned.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frames that the model makes; default one full window.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Size of the frames; default the preset's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps; default the preset's.")] = None,
    vram: Annotated[
        str | None,
        typer.Option(metavar="GIB[,GIB]", help="Memory of a card in GiB, here or elsewhere: 24; of two: 24,24."),
    ] = None,
    ram: Annotated[float | None, typer.Option(min=0.1, help="RAM in GiB; default what is free here.")] = None,
    device: Device = "auto",
    offload: Offload = "auto",
    quantize: Quantize = "none",
    two_passes: Annotated[
        bool, typer.Option("--two-passes", help="Guide in two passes instead of one batch: less memory, slower.")
    ] = False,
    weights: Weights = None,
) -> None:
    """Say where every part of a model would live, how much memory and time a run takes, and whether that fits.

    Needs no inputs. Exit code 5 where it doesn't fit; then the nearest setting that does is named.
    """
    from mtvcraft_cli.cache import default_folder
    from mtvcraft_cli.jobs.fit import shortage_text
    from mtvcraft_cli.jobs.planning import PlanJob, instead_of, machine_for, plan_all, plan_preset
    from mtvcraft_cli.latents.wanvideo.sizes import checked_size
    from mtvcraft_cli.preset import checked, load_preset

    job = PlanJob(
        frames=frames,
        vram_gib=read_memory(vram) if vram else (),
        ram_gib=ram,
        device=device,
        offload=offload,
        quantize=quantize,
        two_passes=two_passes,
        weights=weights,
    )
    if preset is None or preset == "auto":
        if {"size", "steps"} & set(running.by_flag):  # a settings file may well have them, for other commands
            raise MtvcraftError(
                "`--size` and `--steps` belong to one model, and none is named",
                hint="name it with `--preset`; `mtvcraft presets` lists them",
                exit=Exit.USAGE,
            )
        if size is not None or steps is not None:
            say("size and steps from a variable or a settings file are for one model: each is planned with its own")
        plans = plan_all(job, machine_for(job), default_folder())
        return answer(_listed(plans), [each.told() for each in plans])
    chosen = load_preset(preset)
    if size is not None:
        chosen = replace(chosen, size_px=checked_size(read_size(size)), auto_size=False)
    if steps is not None:
        chosen = replace(chosen, sampler=replace(chosen.sampler, steps=steps))
    found = plan_preset(checked(chosen), job, machine_for(job), default_folder())
    near = instead_of(found, job, default_folder())
    told = {**found.told(), "nearest": near and {"options": near[0], **near[1].told()}}
    answer(_shown(found), told)
    if found.shortages:
        raise MtvcraftError(
            f"it does not fit: {shortage_text(found)}",
            hint=f"the nearest that fits: {near[0]}" if near else "no model of the package fits there",
            exit=Exit.FIT,
        )
    return None


def read_memory(text: str) -> tuple[float, ...]:
    """Gibibytes of each card from `24` or `12,12`.

    Raises:
        MtvcraftError: exit 2; they are no numbers from 0.1 on.
    """
    try:
        sizes = tuple(float(word) for word in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(0.1 <= size < 10_000 for size in sizes):
        raise MtvcraftError(
            f"`--vram {text}` is no memory of a card", hint="write GiB like 24, or 12,12 for two", exit=Exit.USAGE
        )
    return sizes


def _shown(plan: "Plan") -> str:
    """All of one plan."""
    from mtvcraft_cli.jobs.fit import fetch_text, memory_text, peak_text, place_text, time_text

    task, (width_px, height_px) = plan.task, plan.task.preset.size_px
    frames = task.windows[-1].start + task.windows[-1].frames - task.windows[-1].held
    on_card = plan.machine.card is not None
    rows = [
        [
            stage.name,
            ", ".join(stage.on_device),
            *([memory_text(stage.card)] if on_card else []),
            memory_text(stage.ram),
        ]
        for stage in plan.stages
    ]
    columns = ["stage", "on the card" if on_card else "works", *(["card"] if on_card else []), "RAM"]
    return "\n".join(
        (
            f"{frames} frames of {width_px}x{height_px} with preset {task.preset.name} on {place_text(plan)}",
            f"{len(task.windows)} window(s) of {task.windows[0].frames} frames, {plan.visual_tokens} visual and "
            f"{plan.motion_tokens} motion tokens each; {task.preset.sampler.steps} steps, "
            f"{plan.branches} pass(es) in a guided one; {_operations_text(plan.operations)}",
            table(columns, rows),
            f"{peak_text(plan)}; {time_text(plan)}",
            f"weights: {fetch_text(plan)}; licences: {', '.join(plan.licences)}",
        )
    )


def _listed(plans: "list[Plan]") -> str:
    """A line for each."""
    from mtvcraft_cli.jobs.fit import fetch_text, memory_text, shortage_text, time_text

    rows = [
        [
            plan.task.preset.name,
            "no: " + shortage_text(plan) if plan.shortages else "yes",
            plan.placement.offload,
            memory_text(plan.card_peak) if plan.machine.card else "",
            memory_text(plan.ram_peak),
            time_text(plan),
            fetch_text(plan),
        ]
        for plan in plans
    ]
    return table(["preset", "fits", "offload", "card", "RAM", "time", "weights"], rows)


def _operations_text(operations: float) -> str:
    """24.6 PFLOP."""
    for unit, size in (("PFLOP", 1e15), ("TFLOP", 1e12)):
        if operations >= size:
            return f"{operations / size:.1f} {unit}"
    return f"{operations / 1e9:.1f} GFLOP"
