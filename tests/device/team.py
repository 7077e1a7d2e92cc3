"""Run by `torchrun`: both toy transformers shared by two processes, once by branch and once by patches."""

import sys

import torch
from torch import nn

from mtvcraft_cli.device.parallel import Order, Team, hear, meet, part, say
from mtvcraft_cli.device.ranks import rank
from tests.latents import test_cogvideox, test_wan
from tests.tiny import tiny_transformer
from tests.tiny_wan import tiny_wan_transformer

torch.set_num_threads(1)
CPU = torch.device("cpu")


def measured(name: str, module: nn.Module, given: tuple[object, ...], ranks: tuple[int, int]) -> None:
    """Rank 0 compares three steps, of which the last has a single branch, with those of one process."""
    latents, *rest = given
    steps = [(latents, *rest), (latents + 1, *rest), tuple(row[:1] if torch.is_tensor(row) else row for row in given)]
    with torch.no_grad():
        wanted = [module(*step) for step in steps]
    team = Team(ranks, CPU)
    seen: list[tuple[int, ...]] = []
    blocks = getattr(module, "blocks", None) or module.transformer_blocks
    blocks[1].register_forward_pre_hook(lambda _part, inputs: seen.append(tuple(inputs[0].shape[:2])))
    if rank():
        team.cut(module)
        return team.follow(module)
    team.lead(module)
    with torch.no_grad():
        off = max((module(*step) - want).abs().max().item() for step, want in zip(steps, wanted, strict=True))
    say(Order())
    print(f"{name} | {ranks} | {seen[0][0]} {seen[0][1]} | {off:.1e}", flush=True)
    return None


meet()
small, large = test_cogvideox.inputs(batch=2), test_wan.inputs(batch=2)
for ranks in ((2, 1), (1, 2)):
    measured("small", tiny_transformer(), tuple(small.values()), ranks)
    measured("large", tiny_wan_transformer(), tuple(large.values()), ranks)
if rank():
    assert hear().told == "done"
else:
    say(Order("done"))
part()
sys.exit(0)
