"""Codes that are running means of the latents given to them (paper, stage 2)."""

from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

Reseed = Literal["unused", "released", "never"]


@runtime_checkable
class Draws(Protocol):
    """Where a step's random numbers come from."""

    def noise(self, rows: int, width: int) -> Tensor:
        """(rows, width) unit normal."""
        ...

    def order(self, rows: int) -> Tensor:
        """A permutation of `rows`."""
        ...


class SeededDraws:
    """The same numbers in every process and after every resumption."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def noise(self, rows: int, width: int) -> Tensor:
        """(rows, width) unit normal."""
        return torch.from_numpy(self.rng.standard_normal((rows, width), dtype=np.float32))

    def order(self, rows: int) -> Tensor:
        """A permutation of `rows`."""
        return torch.from_numpy(self.rng.permutation(rows))


class MovingCodebook(nn.Module):
    """What codes are made of while they are trained; its buffers go into the checkpoints.

    k codes, d width, n latents of a step, of all processes.

    Args:
        codes: k.
        width: d.
        decay: of the running sums; 0.99 in the paper.
        reseed: `unused` gives codes that no latent was given in the last `every` steps a latent's place, sum and count
            together; `released` does as the reference's code, where a code counts as used for ever, the few that aren't
            are moved in every 21st step, and their old sums put them back in the step after; `never` moves none.
        every: steps between two looks at what is unused.
    """

    code_sum: Tensor
    code_count: Tensor
    usage: Tensor
    age: Tensor
    started: Tensor

    def __init__(self, codes: int, width: int, decay: float = 0.99, reseed: Reseed = "unused", every: int = 20) -> None:
        super().__init__()
        self.decay, self.reseed, self.every = decay, reseed, every
        self.register_buffer("code_sum", torch.zeros(codes, width))
        self.register_buffer("code_count", torch.ones(codes))
        self.register_buffer("usage", torch.zeros(codes))
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))
        self.register_buffer("started", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def start(self, codebook: Tensor, rows: Tensor, draws: Draws) -> None:
        """Take the first latents for codes where there are none yet; done once, before the first step's look-up.

        Args:
            codebook: (k, d), written to.
            rows: (n, d) latents of all processes.
            draws: for the noise that tells copies of too few latents apart, and the order of the latents.
        """
        if self.started:
            return
        if not codebook.any():
            rows = self._enough(rows, draws)
            order = torch.arange(len(rows)) if self.reseed == "released" else draws.order(len(rows))
            codebook.copy_(rows[order[: len(codebook)].to(rows.device)])
        self.code_sum.copy_(codebook)
        self.started.fill_(1)

    @torch.no_grad()
    def update(
        self, codebook: Tensor, rows: Tensor, index: Tensor, draws: Draws, accelerator: Accelerator | None
    ) -> float:
        """Move the codes towards the latents they were given.

        Args:
            codebook: (k, d), written to.
            rows: (n', d) latents of this process.
            index: (n',) the code of each.
            draws: the same in all processes.
            accelerator: adds up over the processes; None where there is one.

        Returns:
            Perplexity: how many codes, if all were used alike, would tell as much.
        """
        count = torch.bincount(index, minlength=len(codebook)).float()
        total = torch.zeros_like(self.code_sum).index_add_(0, index, rows)
        if accelerator is not None and accelerator.num_processes > 1:
            count, total = accelerator.reduce(count, "sum"), accelerator.reduce(total, "sum")
        self.code_sum.mul_(self.decay).add_(total, alpha=1 - self.decay)
        self.code_count.mul_(self.decay).add_(count, alpha=1 - self.decay)
        if self.reseed == "released":
            self._as_released(codebook, rows, draws)
        else:
            self.age += 1
            self.usage += count
            if self.reseed == "unused" and self.age >= self.every:
                self._reseed(accelerator.gather(rows) if accelerator is not None else rows, draws)
            codebook.copy_(self.code_sum / self.code_count.clamp(min=1e-8)[:, None])
        share = count / count.sum()
        return float((-(share * (share + 1e-6).log()).sum()).exp())

    def _reseed(self, rows: Tensor, draws: Draws) -> None:
        """Give idle codes the places of latents drawn at random, and look anew from now on."""
        idle = (self.usage == 0).nonzero().flatten()
        rows = self._enough(rows, draws)
        self.code_sum[idle] = rows[draws.order(len(rows))[: len(idle)].to(rows.device)]
        self.code_count[idle] = 1
        self.usage.zero_()
        self.age.zero_()

    def _as_released(self, codebook: Tensor, rows: Tensor, draws: Draws) -> None:
        alive = (self.code_count >= 1) | (self.usage > 0)
        rows = self._enough(rows, draws)
        taken = rows[draws.order(len(rows))[: len(codebook)].to(rows.device)]
        codebook.copy_(self.code_sum / self.code_count[:, None])
        if self.age < self.every:
            self.age += 1
            self.usage.copy_(alive)
        else:
            self.age.zero_()
            codebook.copy_(torch.where(alive[:, None], codebook, taken))

    def _enough(self, rows: Tensor, draws: Draws) -> Tensor:
        """At least as many latents as codes: too few are repeated, with noise of 0.01 / sqrt(d)."""
        codes, width = self.code_sum.shape
        if len(rows) >= codes:
            return rows
        tiled = rows.repeat(-(-codes // len(rows)), 1)
        return tiled + draws.noise(*tiled.shape).to(rows.device) * (0.01 / width**0.5)
