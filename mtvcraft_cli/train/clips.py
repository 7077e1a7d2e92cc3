"""What is the same in training a transformer on any backbone: the clips of a step, their tokens, and the report."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.train.examples import Example, Examples, Size
from mtvcraft_cli.train.run import in_pieces, samples_rng
from mtvcraft_cli.train.settings import DitTraining
from mtvcraft_cli.train.shards import CLIPS, Shards, Tokeniser
from mtvcraft_cli.train.trained import leave_out_frozen
from mtvcraft_cli.train.vae import psnr_db, sheet


class OnClips(ABC):
    """A stage that trains a transformer on clips kept in shards. A backbone's own sets these, and draws the windows."""

    objective: nn.Module
    settings: DitTraining
    stats: Statistics
    held: Examples
    latents: Shards
    tokens: Shards
    tokeniser: Tokeniser
    frames: int
    clips: int
    """How many there are in all."""
    buckets: tuple[Size, ...]
    """Sizes of clips, which shard after shard takes in turn; clips of a report have the first."""

    @abstractmethod
    def animate(self, clip: Example, tokens: Tensor) -> Frames:
        """Run the sampler on one window with its (N, D) tokens, as the preset says."""

    @abstractmethod
    def no_motion(self) -> Tensor | None:
        """(N, D) tokens that stand for no motion; None where the model has none."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Have the networks that clips are made ready with work there."""

    @abstractmethod
    def encode_texts(self, watch: Watch = silent) -> None:
        """Make ready what is told of the clips, where something is."""

    def join(self, accelerator: Accelerator) -> None:
        """Nothing is exchanged but gradients; checkpoints are spared what never changes."""
        if not in_pieces(accelerator):
            leave_out_frozen(self.objective)
        self.to(accelerator.device)

    def after(self, step: int) -> dict[str, float]:
        """Nothing is left to do but to tell how many clips there are."""
        return {"clips": float(self.there(step))}

    def drawn(self, step: int, samples: Sequence[int]) -> Iterator[tuple[int, np.random.Generator]]:
        """The number of each sample's clip, all of one size, and the random numbers of the sample."""
        seed, buckets = self.settings.loop.seed, len(self.buckets)
        bucket = int(samples_rng(seed, step).integers(buckets))
        there = self.there(step) // (CLIPS * buckets)
        for sample in samples:
            rng = samples_rng(seed, step, sample)
            shard = bucket + buckets * int(rng.integers(there))
            yield CLIPS * shard + int(rng.integers(CLIPS)), rng

    def there(self, step: int) -> int:
        """Clips that a step draws from: a function of the step, so that a run can be repeated."""
        settings, whole = self.settings, CLIPS * len(self.buckets)
        if not settings.first_clips:
            return self.clips
        grown = settings.first_clips + step * settings.loop.batch / settings.uses
        return min(self.clips, max(whole, int(grown) // whole * whole))

    def clip_tokens(self, clip: Example) -> Tensor:
        """(N, D) motion tokens of a clip's driver."""
        return self.tokeniser.looked_up(self.tokeniser(torch.from_numpy(clip.joints_mm)[None]))[0]

    def report(self, step: int, folder: Path) -> dict[str, float]:
        """Animate held-out clips: decibels of the result, with another clip's motion, with none, and standing still."""
        clips = [self.held(number, self.buckets[0], self.frames) for number in range(self.settings.report_clips)]
        kinds: dict[str, list[float]] = {"psnr_db": [], "still_db": [], "other_motion_db": [], "no_motion_db": []}
        rows: list[Frames] = []
        none = self.no_motion()
        for number, clip in enumerate(clips):
            made = self.animate(clip, self.clip_tokens(clip))
            kinds["psnr_db"].append(psnr_db(clip.frames, made))
            kinds["still_db"].append(psnr_db(clip.frames, np.broadcast_to(clip.reference, clip.frames.shape)))
            if len(clips) > 1:
                other = self.clip_tokens(clips[number - 1])
                kinds["other_motion_db"].append(psnr_db(clip.frames, self.animate(clip, other)))
            if none is not None:
                kinds["no_motion_db"].append(psnr_db(clip.frames, self.animate(clip, none)))
            rows += [clip.frames[::4], made[::4]]
        if rows:
            sheet(folder / "samples" / f"step-{step:08d}.png", rows)
        return {name: float(np.mean(values)) for name, values in kinds.items() if values}


def in_relation(error: Tensor, figure: Tensor, strength: float, looked_at: Tensor | None = None) -> dict[str, Tensor]:
    """Squared errors (b, f, h, w) of latent pixels to the loss, which looks harder where the figure is.

    Args:
        error: mean over the channels.
        figure: (b, f, h, w), where the figure is or was.
        strength: by how much more it counts there.
        looked_at: (b, f, h, w), 1 at those that count at all; None is all.
    """
    # Weights are set in relation clip by clip, so that it doesn't matter which clips share a process.
    counted = torch.ones_like(error) if looked_at is None else looked_at
    weight, figure = (1 + strength * figure.float()) * counted, figure * counted
    loss = (error * weight / weight.mean((1, 2, 3), keepdim=True)).mean()
    there = (error * figure).sum((1, 2, 3)) / figure.sum((1, 2, 3)).clamp(min=1)
    return {"loss": loss, "error": (error * counted).sum() / counted.sum(), "figure": there.mean()}


def stacked(made: dict[str, list[Any]]) -> dict[str, Tensor]:
    """Samples by name to a batch."""
    return {name: torch.stack(values) for name, values in made.items()}
