"""Flow matching: what the transformer on Wan is asked in training, and how noisy its clips are."""

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from mtvcraft_cli.latents.rope import Rotary, wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.wan import WanMotionTransformer, no_motion_tokens
from mtvcraft_cli.latents.wanvideo.sampler import TIMES
from mtvcraft_cli.train.clips import in_relation
from mtvcraft_cli.train.settings import Levels


class WanObjective(nn.Module):
    """Clean latents, noise and a level of noise to the velocity's squared error.

    b clips, c channels, f latent frames, h x w latent pixels, n motion tokens of m numbers, l text tokens of e, and p
    picture tokens of a.

    Args:
        transformer: what is trained.
        no_motion: (24 or n, m) the small model's "no motion" tokens, for a transformer that has none of its own.
        joint_mean_mm: where the motion tokens' rotary positions come from.
        figure: by how much more a latent pixel counts where the figure is or was.
    """

    no_motion: Tensor | None

    def __init__(
        self,
        transformer: WanMotionTransformer,
        no_motion: Tensor | None,
        joint_mean_mm: Float32[np.ndarray, "24 3"],
        figure: float,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.register_buffer("no_motion", no_motion, persistent=False)
        self.joint_mean_mm, self.figure = joint_mean_mm, figure

    def forward(
        self,
        latents: Tensor,
        image: Tensor,
        picture: Tensor,
        text: Tensor,
        tokens: Tensor,
        figure: Tensor,
        noise: Tensor,
        level: Tensor,
        dropped: Tensor,
    ) -> dict[str, Tensor]:
        """Everything of a batch to scalars.

        Args:
            latents: (b, c, f, h, w), clean.
            image: (b, 4 + c, f, h, w), what is known of the frames.
            picture: (b, p, a), the character at a glance.
            text: (b, l, e).
            tokens: (b, n, m).
            figure: (b, f, h, w), where the figure is or was.
            noise: (b, c, f, h, w).
            level: (b), 0..1.
            dropped: (b), whose motion is replaced by none.
        """
        visual, motion = self.tables(latents)
        if (learned := self.learned) is not None:
            none = no_motion_tokens(learned, latents.shape[2])[None].to(tokens.dtype)
            tokens = torch.where(dropped[:, None, None], none, tokens)
        share = level[:, None, None, None, None]
        noisy = (1 - share) * latents + share * noise
        seen = torch.cat([noisy, image], dim=1)
        velocity = self.transformer(seen, TIMES * level, tokens, text, picture, visual, motion).float()
        error = (velocity - (noise - latents)).square().mean(dim=1)
        return in_relation(error, figure, self.figure)

    @property
    def learned(self) -> Tensor | None:
        """Learned "no motion" tokens: the transformer's own, else the small model's."""
        return getattr(self.transformer, "unconditional_motion_token", self.no_motion)

    def tables(self, latents: Tensor) -> tuple[Rotary, Rotary]:
        """Rotary positions of the patches of latents (b, c, f, h, w), and of their motion tokens."""
        config, (frames, height, width) = self.transformer.config, latents.shape[2:]
        _, rows, columns = config.patch_size
        visual = wan_visual_table(frames, height // rows, width // columns, config.attention_head_dim)
        motion = wan_motion_table(frames, self.joint_mean_mm, config.attention_head_dim)
        return visual.to(latents.device), motion.to(latents.device)


def draw_level(rng: np.random.Generator, levels: Levels, shift: float) -> float:
    """How noisy a clip is, 0..1.

    Args:
        rng: of the sample.
        levels: how it is drawn.
        shift: how far it is moved towards noise: s u / (1 + (s - 1) u), as the sampler moves its steps.
    """
    drawn = {
        "uniform": lambda: rng.random(),
        "logit_normal": lambda: 1 / (1 + np.exp(-rng.normal(levels.mean, levels.spread))),
    }[levels.draw]()
    return float(shift * drawn / (1 + (shift - 1) * drawn))
