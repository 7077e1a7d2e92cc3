"""A run in several processes: rank 0 runs the command, and the others help its transformer."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mtvcraft_cli.device.ranks import rank, world_size
from mtvcraft_cli.jobs.animation import PreparedAnimation
from mtvcraft_cli.latents.walk import Models, WanModels

if TYPE_CHECKING:
    from mtvcraft_cli.device.parallel import Team

_teams: "list[Team]" = []
"""The team of this process, once there is one."""


def run_as_rank(run: Callable[[], int]) -> int:
    """Work as one of the processes that torchrun started.

    Args:
        run: the command; only rank 0 runs it.

    Returns:
        The exit code.
    """
    from mtvcraft_cli.device.parallel import Order, meet, part, say

    meet()
    if rank():
        return _help()
    try:
        return run()
    finally:
        if not any(team.busy for team in _teams):  # else the others wait for something else, until this one ends
            say(Order())
            part()


def together(prepared: PreparedAnimation, load: Callable[[], Models | WanModels]) -> Models | WanModels:
    """Load the models of a job; where there are several processes, have the others load the transformer as well."""
    if world_size() == 1:
        return load()
    from mtvcraft_cli.device.parallel import Order, Team, own_device, say

    kind, ranks = prepared.device.partition(":")[0], prepared.plan.task.ranks
    say(Order(_slim(prepared), ranks, kind))
    team = Team(ranks, own_device(kind))
    _teams.append(team)
    models = load()
    team.lead(models.transformer)
    return models


def _slim(prepared: PreparedAnimation) -> PreparedAnimation:
    """A job without what only rank 0 works on."""
    drive = replace(prepared.drive, clip=None, motion=None, tokens=None)
    return replace(prepared, drive=drive, picture=prepared.picture[:1, :1], sound=None, estimator=None)


def _help() -> int:
    from mtvcraft_cli.device.parallel import Team, hear, own_device, part
    from mtvcraft_cli.runs.models import BACKBONES

    order = hear()
    if isinstance(order.told, PreparedAnimation):
        device = own_device(order.kind)
        team = Team(order.ranks, device)
        prepared = replace(order.told, device=str(device))
        transformer = BACKBONES[prepared.job.preset.backbone].load(prepared, []).transformer.to(device)
        team.cut(transformer)
        team.follow(transformer)
    part()
    return 0
