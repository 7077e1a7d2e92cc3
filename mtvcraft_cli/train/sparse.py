"""Trains a transformer on some patches of its clips only: those near the figure, and a few of the others.

Two thirds of a picture are background that a network learns to copy in no time. Patches left out cost nothing, so more
clips are seen. Attention then has fewer keys than in use; it bears that, and the last steps can be taken with all.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer


class Sparse:
    """Lets a transformer see only the patches of `kept`, (b, s') places among its s, while that is set."""

    def __init__(self, transformer: CogVideoXMotionTransformer) -> None:
        self.kept: Tensor | None = None
        self.patch: int = transformer.config.patch_size
        self.whole = 0
        transformer.patch_embed.register_forward_hook(self._leave_out)
        transformer.rope.register_forward_hook(self._leave_out_places)
        transformer.proj_out.register_forward_hook(self._put_back)

    def choose(self, figure: Tensor, count: int, chance: Tensor) -> Tensor:
        """Draw `count` patches of each latent frame, those that the figure is in before others.

        Args:
            figure: (b, f, h, w) bool, at latent pixels.
            count: at least 1.
            chance: (b, f, h/p * w/p), 0..1: of two that are alike otherwise the one with more goes first.

        Returns:
            (b, f * count) places among the f * h/p * w/p patches.
        """
        at = functional.max_pool2d(figure.float(), self.patch).flatten(2)  # (b, f, patches of a frame)
        best = (at + chance).topk(min(count, at.shape[-1]), dim=-1).indices
        return (best + at.shape[-1] * torch.arange(at.shape[1], device=at.device)[:, None]).flatten(1)

    def seen(self, figure: Tensor) -> Tensor:
        """(b, f, h, w), 1 at the latent pixels that are seen."""
        if self.kept is None:
            return torch.ones_like(figure, dtype=torch.float32)
        batch, frames, height, width = figure.shape
        rows, columns = height // self.patch, width // self.patch
        mask = torch.zeros(batch, frames * rows * columns, device=figure.device).scatter(1, self.kept, 1.0)
        mask = mask.view(batch, frames, rows, 1, columns, 1).expand(-1, -1, -1, self.patch, -1, self.patch)
        return mask.reshape(figure.shape)

    def _leave_out(self, _module: nn.Module, _inputs: object, patches: Tensor) -> Tensor:
        self.whole = patches.shape[1]
        return patches if self.kept is None else taken(patches, self.kept)

    def _leave_out_places(self, _module: nn.Module, _inputs: object, tables: tuple[Tensor, Tensor]) -> object:
        return tables if self.kept is None else (tables[0][self.kept], tables[1][self.kept])

    def _put_back(self, _module: nn.Module, _inputs: object, patches: Tensor) -> Tensor:
        if self.kept is None:
            return patches
        whole = patches.new_zeros(len(patches), self.whole, patches.shape[-1])
        return whole.scatter(1, self.kept[..., None].expand_as(patches), patches)


def taken(patches: Tensor, kept: Tensor) -> Tensor:
    """(b, s, ...) to those of (b, s')."""
    return patches[torch.arange(len(patches), device=patches.device)[:, None], kept]
