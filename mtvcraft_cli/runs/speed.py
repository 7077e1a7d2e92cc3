"""Makes loaded models fast in the way that a job wants, and tells what of it was really at work."""

from typing import Any

import torch

from mtvcraft_cli.device.depot import Depot
from mtvcraft_cli.device.placement import is_roomy
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.jobs.speed import COSTS, THRESHOLDS
from mtvcraft_cli.latents.faster import compile_blocks, fuse, is_fused, set_attention, unfuse
from mtvcraft_cli.latents.spare import Spare, Tally, set_cache
from mtvcraft_cli.latents.walk import Models, WanModels


def roomy(prepared: PreparedAnimation) -> bool:
    """Whether by the plan the transformer may be rearranged."""
    return is_roomy(prepared.plan.placement, prepared.plan.task.ranks)


def fusing(prepared: PreparedAnimation) -> bool:
    """Whether projections are fused, which changes results by rounding; so a replay does as was done."""
    return prepared.job.fuse and roomy(prepared)


def quicken(models: Models | WanModels, prepared: PreparedAnimation) -> None:
    """Do what is done once to loaded models, however many jobs they are handed on to."""
    if prepared.job.speed.compile:
        compile_blocks(models.transformer, torch.device(prepared.device))


def pace(models: Models | WanModels, prepared: PreparedAnimation, depot: Depot) -> Spare:
    """Do what each job may want otherwise, and give what its windows are spared."""
    speed, backbone = prepared.job.speed, prepared.job.preset.backbone
    if is_fused(models.transformer) != fusing(prepared):
        depot.fetch_back(models.transformer)  # an earlier job may have left it in parts
        if not fusing(prepared):
            unfuse(models.transformer)
        else:
            if depot.placement.offload == "none":
                models.transformer.to(depot.device)  # before weights that are only mapped would be copied into RAM
            fuse(models.transformer)
    set_attention(models.transformer, speed.attention)
    set_cache(models.transformer, THRESHOLDS[backbone].get(speed.level))
    return Spare(keys=roomy(prepared) and is_roomy(depot.placement))


def key_of_speed(prepared: PreparedAnimation) -> dict[str, Any]:
    """What of all this changes a bit of the latents: equal but for rounding isn't equal."""
    return {**prepared.job.speed.told(), "fused": fusing(prepared), "processes": prepared.plan.task.ranks}


def active(prepared: PreparedAnimation, spare: Spare) -> dict[str, Any]:
    """What was really at work, as plain data."""
    speed, tally = prepared.job.speed, spare.tally
    return {
        "attention": speed.attention,
        "compiled": speed.compile,
        "fused_projections": fusing(prepared),
        "kept_keys": spare.keys,
        "speed": speed.level,
        "steps": tally.steps,
        "guided_steps": tally.guided,
        "forwards": tally.forwards,
        "skipped_forwards": tally.skipped,
        "measured_cost": COSTS[prepared.job.preset.backbone].get(speed.level),
    }


def active_text(prepared: PreparedAnimation, spare: Spare) -> str:
    """The same in a line."""
    speed, tally = prepared.job.speed, spare.tally
    parts = [f"{speed.attention} attention"]
    parts += ["compiled blocks"] * speed.compile
    parts += ["fused projections"] * fusing(prepared)
    parts += ["keys and values kept over a window's steps"] * spare.keys
    parts += [_guidance_text(tally)] * (tally.steps > 0)
    if cost := COSTS[prepared.job.preset.backbone].get(speed.level):
        done = f"{tally.skipped} of {tally.forwards} forwards" if tally.forwards else "no forward was needed"
        parts.append(f"--speed {speed.level} skipped the blocks of {done} (measured cost: {cost})")
    return f"active: {', '.join(parts)}"


def _guidance_text(tally: Tally) -> str:
    return f"guidance in {tally.guided} of {tally.steps} steps"
