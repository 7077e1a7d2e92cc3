"""Clips made ready for the transformer: encoded once, kept in files, each a function of its number.

`latents/` holds what the VAE made of frames and references, with the joints; `tokens-HASH/` what a tokenizer made of
those joints, so that several tokenizers share the costly part. A shard that is missing is made when it is asked for; a
process that makes shards ahead of a run can be stopped and started at will.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLCogVideoX
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole, writing
from mtvcraft_cli.joints.neutral import on_neutral_body
from mtvcraft_cli.latents.vae import to_video
from mtvcraft_cli.preset import Differential, JointAxes, Statistics
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import MotionTokens
from mtvcraft_cli.tokens.normalise import normalise, seen
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, as_tokens
from mtvcraft_cli.train.examples import Examples, Size
from mtvcraft_cli.train.pointing import ends, silhouette

CLIPS: Final = 64
"""In a shard."""
OPEN: Final = 64
"""Shards kept open; they are mapped, so this costs no memory."""


def fingerprint(tensors: Mapping[str, Tensor], *settings: object) -> str:
    """Hash weights and settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(eq=False)
class Shards:
    """A folder of numbered safetensors files with `CLIPS` clips each.

    Args:
        folder: where.
        made_from: hash of all that the content depends on.
        make: makes the tensors of one shard, each (CLIPS, ...).
    """

    folder: Path
    made_from: str
    make: Callable[[int], dict[str, Tensor]]
    opened: OrderedDict[int, Any] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        note = self.folder / "made_from.txt"
        if note.is_file() and note.read_text(encoding="utf-8").strip() != self.made_from:
            raise MtvcraftError(
                f"`{self.folder}` was made with other weights or settings",
                hint="remove the folder to have it made anew, or train into another one",
                exit=Exit.USAGE,
            )
        write_text_whole(note, self.made_from + "\n")

    def path(self, shard: int) -> Path:
        """Where a shard lies."""
        return self.folder / f"shard-{shard:05d}.safetensors"

    def complete(self, shard: int) -> bool:
        """Make a shard unless it is there; whether it had to be made."""
        if self.path(shard).is_file():
            return False
        with writing(self.path(shard)) as draft:
            save_file(self.make(shard), draft)
        return True

    def clip(self, number: int) -> dict[str, Tensor]:
        """Read one clip; its shard is made if it is missing."""
        shard, row = divmod(number, CLIPS)
        if shard not in self.opened:
            self.complete(shard)
            self.opened[shard] = safe_open(self.path(shard), "pt")
            if len(self.opened) > OPEN:
                self.opened.popitem(last=False)
        self.opened.move_to_end(shard)
        file = self.opened[shard]
        return {name: file.get_slice(name)[row] for name in file.keys()}  # noqa: SIM118 - no mapping

    def whole(self, shard: int) -> dict[str, Tensor]:
        """Read a shard; it is made if it is missing."""
        self.complete(shard)
        with safe_open(self.path(shard), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@dataclass(frozen=True, kw_only=True, eq=False)
class Latents:
    """Makes shards of latents."""

    vae: AutoencoderKLCogVideoX
    examples: Examples
    buckets: tuple[Size, ...]
    """Shard after shard takes the next of them."""
    frames: int
    scaled: bool
    """Whether reference latents are scaled as noisy ones are."""
    bfloat16: bool = False
    """Whether to encode in it: seven times as fast on a processor that has it."""

    def bucket(self, shard: int) -> Size:
        """Width and height of a shard's clips."""
        return self.buckets[shard % len(self.buckets)]

    @torch.no_grad()
    def make(self, shard: int) -> dict[str, Tensor]:
        """Encode clips.

        Returns:
            Per clip: `latents` (F, C, h, w) and `reference` (C, h, w) float16, `figure` (F, h, w) bool, `joints_mm`
            (1 + T, 24, 3); where the truth is known `masks` (F, y, x) and `joints` (F, 2, 24, 2), see `pointing`.
        """
        clips = [
            self.examples(number, self.bucket(shard), self.frames)
            for number in range(shard * CLIPS, (shard + 1) * CLIPS)
        ]
        made: dict[str, list[Tensor]] = {"latents": [], "reference": [], "figure": [], "joints_mm": []}
        factor = self.vae.config.scaling_factor
        for clip in clips:
            latents = self._mean(to_video(clip.frames)) * factor  # (1, C, F, h, w)
            # A picture that stands still has the same latents in all frames, so one frame of them is enough.
            still = self._mean(to_video(clip.reference[None]))[:, :, 0] * (factor if self.scaled else 1.0)
            made["latents"].append(latents[0].transpose(0, 1).half())
            made["reference"].append(still[0].half())
            made["figure"].append(shrunk(torch.from_numpy(clip.figure), latents.shape[2:]))
            made["joints_mm"].append(torch.from_numpy(clip.joints_mm))
            if clip.truth is not None:
                masks = torch.from_numpy(clip.truth.masks)
                made.setdefault("masks", []).append(silhouette(masks, *latents.shape[2:]).half())
                made.setdefault("joints", []).append(ends(torch.from_numpy(clip.truth.joints), latents.shape[2]))
        return {name: torch.stack(values) for name, values in made.items()}

    def _mean(self, video: Tensor) -> Tensor:
        with torch.autocast(self.vae.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.vae.encode(video.to(self.vae.device)).latent_dist.mode().float().cpu()


def shrunk(figure: Tensor, shape: torch.Size) -> Tensor:
    """(T, H, W) to (F, h, w): whether the figure is anywhere in what a latent pixel stands for."""
    first = figure[:1].float()[None]
    rest = figure[1:].float()[None]
    size = (1, *shape[1:])
    parts = [functional.adaptive_max_pool3d(first, size)]
    if len(figure) > 1:
        parts.append(functional.adaptive_max_pool3d(rest, (shape[0] - 1, *shape[1:])))
    return torch.cat(parts, dim=1)[0] > 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokeniser:
    """What a driver's joints become before a transformer sees them."""

    tokenizer: MotionTokenizer
    stats: Statistics
    kind: Differential
    axes: JointAxes = "xyz"
    neutral: bool = False
    """Whether the driver's bones get the neutral body's lengths."""

    @torch.no_grad()
    def __call__(self, joints_mm: Tensor) -> Tensor:
        """Tokenise clips, (B, 1 + T, 24, 3) mm: (B, F, 24) codes, or (B, F, 24, D) latents without a codebook."""
        found = torch.cat([self.tokenizer.encode(some) for some in self.moved(joints_mm).split(8)])
        return found if self.tokenizer.codes is None else self.tokenizer.quantise(found)

    def looked_up(self, tokens: Tensor) -> MotionTokens:
        """(B, F, 24) codes or (B, F, 24, D) latents to (B, M, D)."""
        return as_tokens(tokens.float() if self.tokenizer.codes is None else self.tokenizer.look_up(tokens))

    def moved(self, joints_mm: Tensor) -> Tensor:
        """Joints of clips as the tokenizer sees them, (B, 1 + T, 24, 3) mm to (B, T, 24, 3) without unit."""
        joints_mm = self.on_body(joints_mm.flatten(0, 1)).view_as(joints_mm)
        joints = normalise(joints_mm.to(self.tokenizer.device), self.stats)
        origin = {"none": 0.0, "window": joints[:, 1:2], "reference": joints[:, :1]}[self.kind]
        return seen(joints[:, 1:] - origin, self.axes)

    def on_body(self, joints_mm: Tensor) -> Tensor:
        """Poses (T, 24, 3) mm on the body that the tokenizer knows: the driver's own or the neutral one."""
        return torch.from_numpy(on_neutral_body(joints_mm.cpu().numpy())) if self.neutral else joints_mm

    def make(self, latents: Shards, shard: int) -> dict[str, Tensor]:
        """Tokenise the clips whose latents are in a shard."""
        tokens = self(latents.whole(shard)["joints_mm"])
        return {"tokens": (tokens.half() if self.tokenizer.codes is None else tokens.int()).cpu()}


def prepare(latents: Shards, tokens: Shards, clips: int, watch: Watch = silent) -> None:
    """Make all shards of a run ahead of it.

    Args:
        latents: what the VAE makes.
        tokens: what the tokenizer makes of the same clips.
        clips: how many there must be.
        watch: counts clips.
    """

    def made() -> Iterator[npt.NDArray[np.int64]]:
        for shard in range(-(-clips // CLIPS)):
            latents.complete(shard)
            tokens.complete(shard)
            yield np.arange(CLIPS)

    for _ in watch(made(), "encode", clips):
        pass
