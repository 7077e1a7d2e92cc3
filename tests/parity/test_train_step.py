"""The reference's codebook update and training step, number by number, with `reseed: released`."""

import re
from functools import lru_cache

import pytest
import torch
from einops import rearrange
from torch import Tensor

from mtvcraft_cli.tokens.tokenizer import Quantiser, tokenizer_from_tensors
from mtvcraft_cli.train.codebook import MovingCodebook
from mtvcraft_cli.train.run import make_optimiser
from mtvcraft_cli.train.settings import Loop
from mtvcraft_cli.train.tokenizer import TokenizerObjective
from tests.parity.golden import assert_close, cases, golden

NAME = "tokenizer_train_step"
# From the goldens' own table.
UPDATE = 2e-5
PERPLEXITY = 1e-4
LOSS = 1e-5
RECON = 5e-5
GRADIENT = 2e-6
PARAMETER = 2e-6


class StoredDraws:
    """The random numbers that the reference drew; an order that isn't stored had no effect."""

    def __init__(self, noise: list[Tensor], order: Tensor | None) -> None:
        self.left, self.stored = noise, order

    def noise(self, rows: int, width: int) -> Tensor:
        drawn = self.left.pop(0)
        assert drawn.shape == (rows, width)
        return drawn

    def order(self, rows: int) -> Tensor:
        if self.stored is None:
            return torch.arange(rows)
        assert len(self.stored) == rows
        return self.stored.long()


def steps_of(case: str) -> int:
    config = golden(NAME).config[case]
    return config.get("steps", 2)


@lru_cache
def walked(case: str) -> dict[str, Tensor]:
    """Everything that the golden may ask of the updates of one case, under its names."""
    given, config = golden(NAME), golden(NAME).config[case]
    quantiser = Quantiser(config["nb_code"], config["code_dim"])
    if (codebook := given.inputs.get(f"{case}.codebook0")) is not None:
        quantiser.codebook.copy_(codebook)
    moving = MovingCodebook(config["nb_code"], config["code_dim"], decay=0.99, reseed="released", every=20)
    inputs = sorted(name for name in given.inputs if name.startswith(f"{case}.x")) or sorted(
        name for name in given.inputs if name.startswith("ema.x")
    )
    found: dict[str, Tensor] = {}
    for step in range(1, steps_of(case) + 1):
        x = given.inputs[inputs[(step - 1) % len(inputs)]]
        rows = rearrange(x, "b d f j -> (b f j) d")
        head = f"{case}.step{step}"
        noise = [given.outputs[name] for name in sorted(given.outputs) if name.startswith(f"{head}.noise")]
        order = given.outputs.get(f"{head}.perm", given.outputs.get(f"{head}.perm0"))
        draws = StoredDraws(noise, order)
        moving.start(quantiser.codebook, rows, draws)
        index = quantiser(rows)
        taken = quantiser.codebook[index]
        perplexity = moving.update(quantiser.codebook, rows, index, draws, None)
        found |= {
            f"{head}.indices": index,
            f"{head}.commit_loss": (rows - taken).square().mean(),
            f"{head}.quantised": rearrange(rows + (taken - rows), "(b f j) d -> b d f j", b=len(x), f=x.shape[2]),
            f"{head}.replaced_mask": (quantiser.codebook != moving.code_sum / moving.code_count[:, None]).any(dim=1),
            f"{head}.perplexity": torch.tensor(perplexity),
            f"{head}.codebook": quantiser.codebook.clone(),
            f"{head}.code_sum": moving.code_sum.clone(),
            f"{head}.code_count": moving.code_count.clone(),
            f"{head}.usage": moving.usage[:, None].clone(),
            f"{head}.reset_count": moving.age.clone(),
        }
    return found


def named(*prefixes: str) -> list[str]:
    """The golden's outputs of some cases, without the draws."""
    draws = re.compile(r".*\.(noise|perm)\d*")
    return cases(NAME, lambda it: sorted(n for n in it.outputs if n.startswith(prefixes) and not draws.fullmatch(n)))


@pytest.mark.parametrize("name", named("ema.", "reset.", "tile."))
def test_codes_move_as_the_references_do(name: str) -> None:
    expected = golden(NAME).outputs[name]
    limit = PERPLEXITY if name.endswith("perplexity") else UPDATE
    assert_close(walked(name.split(".")[0])[name], expected, limit, name)


@lru_cache
def trained() -> dict[str, Tensor]:
    """Three optimiser steps of the whole tokenizer."""
    given, config = golden(NAME), golden(NAME).config["full"]
    sizes = golden("tokenizer_small").config["classes"]
    weights = dict(golden("tokenizer_small").weights)
    weights["vq.codebook"] = torch.zeros_like(weights["vq.codebook"])
    shape = {
        "channels": sizes["encoder"]["mid_channels"],
        "width": sizes["vq"]["code_dim"],
        "codes": sizes["vq"]["nb_code"],
    }
    # Copies: the golden's own tensors are shared by the tests.
    tokenizer = tokenizer_from_tensors(shape, {name: tensor.clone() for name, tensor in weights.items()}).train()
    moving = MovingCodebook(shape["codes"], shape["width"], reseed="released")
    objective = TokenizerObjective(tokenizer, moving, config["commit_ratio"], seed=0)
    rate, settings = config["optimiser"]["lr"], config["optimiser"]
    loop = Loop(
        phases=((1000, rate, rate),),
        warmup=config["warm_up_iterations"],
        batch=3,
        betas=tuple(settings["betas"]),
        weight_decay=settings["weight_decay"],
    )
    optimiser = make_optimiser(loop, list(objective.parameters()))
    found: dict[str, Tensor] = {}
    for step in range(3):
        optimiser.param_groups[0]["lr"] = loop.rate(step)
        made = objective(given.inputs[f"full.batch{step + 1}"])
        optimiser.zero_grad()
        made["loss"].backward()
        head = f"full.step{step + 1}"
        gradients = {
            name: weight.grad.clone() for name, weight in tokenizer.named_parameters() if weight.grad is not None
        }
        found |= {f"{head}.grad.{name}": gradient for name, gradient in gradients.items()}
        found[f"{head}.grad_norm"] = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
        optimiser.step()
        rows, index = objective.given.pop()
        perplexity = moving.update(tokenizer.vq.codebook, rows, index, StoredDraws([], None), None)
        found |= {f"{head}.param.{name}": weight.detach().clone() for name, weight in tokenizer.named_parameters()}
        found |= {
            f"{head}.loss": made["loss"],
            f"{head}.recon_l1": made["l1"],
            f"{head}.commit_loss": made["commit"],
            f"{head}.lr": torch.tensor(loop.rate(step)),
            f"{head}.perplexity": torch.tensor(perplexity),
            f"{head}.recon": objective.decoded,
            f"{head}.codebook": tokenizer.vq.codebook.clone(),
            f"{head}.code_count": moving.code_count.clone(),
        }
    return found


@pytest.mark.parametrize("name", named("full."))
def test_a_training_step_gives_the_references_numbers(name: str) -> None:
    kind = name.split(".")[2]
    limits = {"recon": RECON, "perplexity": PERPLEXITY, "grad": GRADIENT, "param": PARAMETER, "lr": 1e-9}
    limits |= {"grad_norm": LOSS, "codebook": UPDATE, "code_count": UPDATE}
    assert_close(trained()[name], golden(NAME).outputs[name], limits.get(kind, LOSS), name)
