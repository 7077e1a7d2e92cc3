"""A second task that a transformer is given in training: to say where the figure and its joints are.

What moves is a small part of a picture, and a noisy latent says little of it, so a network is long in finding out what
motion tokens mean. A head that reads the states of a middle block and points at the joints teaches it that directly. It
is thrown away after training.
"""

from typing import Final

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.latents.cogvideox import JOINTS, CogVideoXMotionTransformer
from mtvcraft_cli.train.sparse import taken

CELLS: Final = 2
"""Cells of the silhouette along each side of a latent pixel."""
NEAR: Final = 1.5
"""How many patches away a joint may be for a patch to point at it."""


def silhouette(masks: Bool[Tensor, "T H W"], frames: int, height: int, width: int) -> Float[Tensor, "F y x"]:
    """Share of each cell that the figure takes up, over all frames that a latent frame stands for."""
    size = (CELLS * height, CELLS * width)
    parts = [functional.adaptive_avg_pool3d(masks[None, :1].float(), (1, *size))]
    if frames > 1:
        parts.append(functional.adaptive_avg_pool3d(masks[None, 1:].float(), (frames - 1, *size)))
    return torch.cat(parts, dim=1)[0]


def ends(joints: Float32[Tensor, "T 24 2"], frames: int) -> Float32[Tensor, "F 2 24 2"]:
    """Where joints are at the beginning and at the end of what each latent frame stands for."""
    step = (len(joints) - 1) // (frames - 1) if frames > 1 else 1
    last = torch.arange(frames) * step
    first = (last - step + 1).clamp(min=0)
    return torch.stack([joints[first], joints[last]], dim=1)


class Pointing(nn.Module):
    """Points at the joints from each patch near them, and draws the silhouette.

    b clips, f latent frames, h x w latent pixels, s patches, d width.

    Args:
        transformer: whose block two thirds of the way is read.
    """

    def __init__(self, transformer: CogVideoXMotionTransformer) -> None:
        super().__init__()
        self.patch = transformer.config.patch_size
        dim = transformer.config.num_attention_heads * transformer.config.attention_head_dim
        self.norm = nn.LayerNorm(dim)
        self.read = nn.Linear(dim, JOINTS * 5 + (CELLS * self.patch) ** 2)
        self.states: Tensor | None = None
        block = transformer.transformer_blocks[max(0, transformer.config.num_layers * 2 // 3 - 1)]
        block.register_forward_hook(self._keep)

    def _keep(self, _block: nn.Module, _inputs: object, output: Tensor) -> None:
        self.states = output

    def forward(self, joints: Tensor, shape: Tensor, known: Tensor, kept: Tensor | None = None) -> dict[str, Tensor]:
        """Ask the states of the transformer's last call.

        Args:
            joints: (b, f, 2, 24, 2), shares of width and height.
            shape: (b, f, CELLS * h, CELLS * w), shares of cells.
            known: (b), whether a clip counts: one without motion tells nobody where its joints are.
            kept: (b, s') places of the patches that the transformer saw; None is all.

        Returns:
            `pointing`, the loss, and `joint_error`, how far the pointers of all clips miss, in patches.
        """
        if self.states is None:
            raise RuntimeError("the transformer has not been called")
        said = self.read(self.norm(self.states)).float()
        self.states = None
        side = CELLS * self.patch
        cells = rearrange(shape, "b f (y p) (x q) -> b (f y x) (p q)", p=side, q=side)
        rows, columns = (length // side for length in shape.shape[-2:])
        grid = torch.stack(torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy"), dim=-1) + 0.5
        scale = torch.tensor([columns, rows], device=joints.device)
        away = (joints * scale)[:, :, None, None] - grid.to(joints.device)[..., None, None, :]  # (b, f, y, x, 2, 24, 2)
        away = rearrange(away, "b f y x e j c -> b (f y x) e j c")
        if kept is not None:
            away, cells = taken(away, kept), taken(cells, kept)
        here = away.mean(2).abs().amax(-1)  # (b, s, 24)
        presence, pointers, drawn = said.split([JOINTS, 4 * JOINTS, side**2], dim=-1)
        missed = (pointers.view_as(away) - away).abs().mean((2, 4))
        near = (here < NEAR).float()
        miss = (missed * near).sum((1, 2)) / near.sum((1, 2)).clamp(min=1)
        there = functional.binary_cross_entropy_with_logits(presence, (here < 0.5).float(), reduction="none")
        outline = functional.binary_cross_entropy_with_logits(drawn, cells, reduction="none")
        loss = ((miss + there.mean((1, 2)) + outline.mean((1, 2))) * known).mean()
        return {"pointing": loss, "joint_error": miss.mean()}
