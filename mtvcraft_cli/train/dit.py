"""Trains the MV-DiT: from noisy latents, the character's latents and motion tokens to the velocity (paper, stage 3)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX
from jaxtyping import Float32
from torch import Tensor, nn

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.cogvideox import (
    JOINTS,
    CogVideoXMotionTransformer,
    MotionProcessor,
    RotaryAttention,
    build_transformer,
    from_released,
    read_config,
)
from mtvcraft_cli.latents.painter import Models, Settings
from mtvcraft_cli.latents.rope import Rotary, motion_table, motion_tables, visual_table
from mtvcraft_cli.latents.sampler import make_scheduler
from mtvcraft_cli.latents.vae import build_vae, to_frames
from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.tokens.tokenizer import tokenizer_from_tensors
from mtvcraft_cli.train.clips import OnClips, in_relation, stacked
from mtvcraft_cli.train.examples import Example, Examples, WorldExamples
from mtvcraft_cli.train.outcome import Outcome
from mtvcraft_cli.train.parts import locate, locate_parts, needed, told_scale
from mtvcraft_cli.train.pointing import Pointing
from mtvcraft_cli.train.predicted import predict, window_painter
from mtvcraft_cli.train.run import samples_rng
from mtvcraft_cli.train.settings import DitTraining
from mtvcraft_cli.train.shards import CLIPS, Latents, Shards, Tokeniser, fingerprint
from mtvcraft_cli.train.sparse import Sparse
from mtvcraft_cli.train.start import start_from_reference
from mtvcraft_cli.train.trained import choose_trained, frozen_dtype
from mtvcraft_cli.weights.read import read_tensors

SPREAD_CLIPS: Final = 64
REPORT_SEED: Final = 1
PLACES: Final = 1 << 20
"""Number of the draw of latent frames, beyond those of a step's samples."""


class DitObjective(nn.Module):
    """Clean latents, noise and a time to the velocity's squared error.

    b clips, f latent frames, c channels, h x w latent pixels, n motion tokens, d width.
    """

    def __init__(
        self,
        transformer: CogVideoXMotionTransformer,
        alphas: Tensor,
        joint_mean_mm: Float32[np.ndarray, "24 3"],
        figure: float,
        pointing: float = 0.0,
        kept_patches: int = 0,
    ) -> None:
        super().__init__()
        self.transformer = transformer
        self.sparse = Sparse(transformer) if kept_patches else None
        self.kept_patches = kept_patches
        self.pointing = Pointing(transformer) if pointing else None
        self.pointing_weight = pointing
        self.register_buffer("alphas", alphas.float(), persistent=False)
        self.joint_mean_mm, self.figure = joint_mean_mm, figure

    def forward(
        self,
        latents: Tensor,
        reference: Tensor,
        tokens: Tensor,
        figure: Tensor,
        noise: Tensor,
        time: Tensor,
        dropped: Tensor,
        places: Tensor,
        first_mm: Tensor | None = None,
        joints: Tensor | None = None,
        masks: Tensor | None = None,
        chance: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """(b, f, c, h, w), (b, c, h, w), (b, n, d), (b, f, h, w), (b, f, c, h, w), (b), (b) and (f') to scalars.

        `places` are those of a window's f latent frames that are looked at. Where positions are dynamic the drivers'
        first poses `first_mm` (b, 24, 3) give them. `joints` and `masks` are for `Pointing`; with `chance`
        (b, f, patches) only some patches are seen.
        """
        visual, motion = (at(table, places, latents.shape[1]) for table in self.tables(latents, first_mm))
        clear = self.alphas[time][:, None, None, None, None]  # type: ignore[index]
        noisy = clear.sqrt() * latents + (1 - clear).sqrt() * noise
        velocity = clear.sqrt() * noise - (1 - clear).sqrt() * latents
        none = self.transformer.unconditional_tokens(latents.shape[1])[None].to(tokens.dtype)
        tokens = torch.where(dropped[:, None, None], none, tokens).unflatten(1, (-1, JOINTS))[:, places].flatten(1, 2)
        noisy, velocity, figure = (each[:, places] for each in (noisy, velocity, figure))
        seen = torch.cat([noisy, reference[:, None].expand_as(noisy)], dim=2)
        kept = None
        if self.sparse is not None:
            if chance is not None:
                kept = self.sparse.choose(figure, self.kept_patches, chance[:, places])
            self.sparse.kept = kept
        error = (self.transformer(seen, time, tokens, visual, motion).float() - velocity).square().mean(dim=2)
        looked_at = None if self.sparse is None else self.sparse.seen(figure)
        values = in_relation(error, figure, self.figure, looked_at)
        if self.sparse is not None:
            self.sparse.kept = None
        if self.pointing is not None and joints is not None and masks is not None:
            values |= self.pointing(joints[:, places], masks[:, places], ~dropped, kept)
            values["loss"] = values["loss"] + self.pointing_weight * values["pointing"]
        return values

    def tables(self, latents: Tensor, first_mm: Tensor | None = None) -> tuple[Rotary, Rotary]:
        """Rotary positions of the patches of latents (b, f, c, h, w), and of their motion tokens.

        Those of the tokens are the same in all clips, or come from the first pose of each, (b, 24, 3).
        """
        config, frames = self.transformer.config, latents.shape[1]
        rows, columns = (side // config.patch_size for side in latents.shape[-2:])
        visual = visual_table(frames, rows, columns, config.attention_head_dim)
        if first_mm is not None and self.transformer.dynamic:
            motion = motion_tables(frames, first_mm.cpu().numpy(), config.attention_head_dim)
        else:
            motion = motion_table(frames, self.joint_mean_mm, config.attention_head_dim)
        return visual.to(latents.device), motion.to(latents.device)


def at(table: Rotary, places: Tensor, frames: int) -> Rotary:
    """Positions of some of a window's latent frames, of tables (..., frames * n, k) to (..., len(places) * n, k)."""
    return Rotary(*(each.unflatten(-2, (frames, -1))[..., places, :, :].flatten(-3, -2) for each in table))


class DitStage(OnClips):
    """Everything about training a transformer on CogVideoX but the loop.

    Args:
        settings: how.
        preset: what it will be run with.
        stats: what joints are normalised with.
        examples: clips to train on.
        held: clips for the report.
        folder: latents and tokens are kept in it.
        parts: the weights of "tokenizer" and "vae", where the preset doesn't name them.

    Raises:
        MtvcraftError: a part is missing, or the base is no CogVideoX transformer of this size.
    """

    objective: DitObjective

    def __init__(
        self,
        settings: DitTraining,
        preset: Mapping[str, Any],
        stats: Statistics,
        examples: Examples,
        held: Examples,
        folder: Path,
        parts: Mapping[str, Path],
    ) -> None:
        located = locate_parts(preset, parts)
        used = {part: needed(located, part) for part in ("tokenizer", "vae")}
        if settings.kept_frames and preset["transformer"].get("motion_positions") == "learnable":
            raise MtvcraftError(
                "`dit.kept_frames` can't go with learnable positions, which are stretched over the frames at hand",
                hint="leave `kept_frames` out",
                exit=Exit.USAGE,
            )
        # Of our own world alone it is known where a character is.
        self.pointing = settings.pointing if isinstance(examples, WorldExamples) else 0.0
        self.settings, self.stats, self.held = settings, stats, held
        tensors = {part: read_tensors(path, within="module") for part, path in used.items()}
        tokenizer = tokenizer_from_tensors(preset["tokenizer"], tensors["tokenizer"])
        published = located["vae"].config().get("scaling_factor")
        factor = float(told_scale(used["vae"]) or published or preset["vae"]["scaling_factor"])
        self.preset = {**preset, "vae": {**preset["vae"], "scaling_factor": factor}}
        self.vae: AutoencoderKLCogVideoX = build_vae(self.preset["vae"], tensors["vae"], torch.float32)
        named = {part: found.source for part, found in located.items() if part not in parts}
        self.outcome = Outcome(self.preset, stats, parts, named)
        self.scheduler = make_scheduler(preset["sampler"]["scheduler"], preset["scheduler"])
        self.frames, self.kind, self.axes = preset["frames"], preset["differential"], preset.get("joint_axes", "xyz")
        self.buckets = settings.buckets or ((preset["size_px"][0], preset["size_px"][1]),)
        maker = Latents(
            vae=self.vae,
            examples=examples,
            buckets=self.buckets,
            frames=self.frames,
            scaled=preset["reference_scaled"],
            bfloat16=settings.loop.precision == "bfloat16",
        )
        of_latents = fingerprint(
            tensors["vae"], factor, self.buckets, self.frames, maker.scaled, maker.bfloat16, examples.told
        )
        self.latents = Shards(folder / "latents", of_latents, maker.make)
        neutral = preset.get("body") == "neutral"
        told = (
            self.kind if self.axes == "xyz" else [self.kind, self.axes],
            stats.mean_mm.tolist(),
            stats.std_mm.tolist(),
            *(["neutral"] if neutral else []),
        )
        of_tokens = fingerprint(tensors["tokenizer"], of_latents, *told)
        self.tokeniser = Tokeniser(tokenizer=tokenizer, stats=stats, kind=self.kind, axes=self.axes, neutral=neutral)
        self.tokens = Shards(folder / f"tokens-{of_tokens[:8]}", of_tokens, partial(self.tokeniser.make, self.latents))
        whole = CLIPS * len(self.buckets)
        self.clips = -(-settings.clips // whole) * whole
        torch.manual_seed(settings.loop.seed)
        transformer = self._transformer()
        choose_trained(transformer, settings)
        if settings.loop.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        alphas = self.scheduler.alphas_cumprod
        self.objective = DitObjective(
            transformer, alphas, stats.mean_mm, settings.figure, self.pointing, settings.kept_patches
        )

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Clips of one size, each with its own noise and time."""
        settings = self.settings
        names = ["latents", "reference", "figure", "first_mm", "tokens", "noise", "time", "dropped"]
        known = ["joints", "masks"] if self.pointing else []
        sparse = settings.kept_patches and (settings.whole_from is None or step < settings.whole_from)
        drawn = ["chance"] if sparse else []
        made: dict[str, list[Tensor]] = {name: [] for name in names + known + drawn}
        for number, rng in self.drawn(step, samples):
            clip = self.latents.clip(number)
            for name in ("latents", "reference", *known):
                made[name].append(clip[name].float())
            made["figure"].append(clip["figure"])
            made["first_mm"].append(clip["joints_mm"][0])
            made["tokens"].append(self.tokens.clip(number)["tokens"])
            made["noise"].append(torch.from_numpy(rng.standard_normal(clip["latents"].shape, dtype=np.float32)))
            made["time"].append(torch.tensor(min(999, int(1000 * rng.random() ** settings.time_power))))
            made["dropped"].append(torch.tensor(bool(rng.random() < settings.drop_motion)))
            if sparse:
                frames, _, height, width = clip["latents"].shape
                patches = height * width // self.objective.transformer.config.patch_size**2
                made["chance"].append(torch.from_numpy(rng.random((frames, patches), dtype=np.float32)))
        batch = stacked(made)
        batch["tokens"] = self.tokeniser.looked_up(batch["tokens"])
        batch["first_mm"] = self.tokeniser.on_body(batch["first_mm"])
        return batch | {"places": self._places(step)}

    def animate(self, clip: Example, tokens: Tensor) -> Frames:
        """Run the sampler on one window, as the preset says."""
        sampler, transformer = self.preset["sampler"], self.objective.transformer
        pose_mm = self.tokeniser.on_body(torch.from_numpy(clip.joints_mm[:1]))[0].numpy()
        settings = Settings(
            scheduler=self.scheduler,
            steps=sampler["steps"],
            guidance=float(sampler["motion_guidance"]),
            joint_mean_mm=pose_mm if transformer.dynamic else self.stats.mean_mm,
            sample_reference=False,
            scale_reference=self.preset["reference_scaled"],
            reference_kept=self.preset.get("reference_kept", 0.0),
            device=transformer.device,
        )
        painter = window_painter(Models(transformer=transformer, vae=self.vae), settings, clip.reference, self.frames)
        low = frozen_dtype(self.settings) == torch.bfloat16  # beside it, what is trained is float32
        return to_frames(painter.decode(predict(painter, tokens, REPORT_SEED, bfloat16=low)))

    def no_motion(self) -> Tensor:
        """(N, D) tokens that stand for no motion."""
        return self.objective.transformer.unconditional_tokens((self.frames + 3) // 4).detach()

    def encode_texts(self, watch: Watch = silent) -> None:
        """This backbone is told nothing."""

    def to(self, device: torch.device) -> None:
        """Have the VAE work there."""
        self.vae.to(device)

    def export(self, folder: Path, whole: Mapping[str, Tensor] | None = None) -> None:
        """Write the transformer, copies of what it was given, and a preset that runs them."""
        prefix = "transformer."
        weights = {
            name.removeprefix(prefix): tensor for name, tensor in (whole or {}).items() if name.startswith(prefix)
        }
        self.outcome.write(folder, transformer=weights or self.objective.transformer)

    def _places(self, step: int) -> Tensor:
        """Which latent frames a step sees, the same in all processes."""
        frames = (self.frames + 3) // 4
        rng = samples_rng(self.settings.loop.seed, step, PLACES)
        kept = int(rng.choice(self.settings.kept_frames)) if self.settings.kept_frames else frames
        return torch.from_numpy(np.sort(rng.permutation(frames)[:kept]))

    def _transformer(self) -> CogVideoXMotionTransformer:
        sizes, settings = self.preset["transformer"], self.settings
        if settings.base is not None:
            return from_base(settings.base, sizes, settings)
        transformer = CogVideoXMotionTransformer(**sizes)
        if settings.start == "reference":
            clips = [self.latents.clip(number) for number in range(SPREAD_CLIPS)]
            apart = [(clip["latents"].float() - clip["reference"].float()).square().mean().item() for clip in clips]
            start_from_reference(transformer, self.scheduler.alphas_cumprod, float(np.mean(apart)))
        return transformer


def from_base(name: str, sizes: Mapping[str, Any], settings: DitTraining) -> CogVideoXMotionTransformer:
    """Make the transformer of a checkpoint to start from, an MV-DiT's or the base model's.

    Raises:
        MtvcraftError: exit 6; it isn't there, or it is of another model or size.
    """
    base = locate("base", name)
    read_config({**base.config(), **sizes})
    tensors = widened(sizes, read_tensors(needed({"base": base}, "base")), all_trained=settings.trains == "all")
    return build_transformer(sizes, tensors, frozen_dtype(settings), silent=True)


def widened(sizes: Mapping[str, Any], base: Mapping[str, Tensor], *, all_trained: bool = True) -> dict[str, Tensor]:
    """Make an MV-DiT of a CogVideoX transformer: all its weights for pictures, and new ones where it has none.

    What only a text needs is left behind: `patch_embed.text_proj`, which makes tokens of it, and the half of each
    modulation that acts on them. Attention and feed-forward are shared by text and pictures and stay whole. The
    reference's input channels are new and begin at zero; so do the outputs of the motion attention. With them the first
    step computes what the base does with a text of no tokens. An MV-DiT's own checkpoint passes unchanged.

    Args:
        sizes: of the MV-DiT.
        base: tensors of the checkpoint.
        all_trained: whether new input channels will be trained.

    Raises:
        MtvcraftError: exit 2; the base has no channels for the reference, and they would stay at zero.
    """
    tensors = from_released(base)
    with init_empty_weights():
        empty = CogVideoXMotionTransformer(**sizes)
    for name, part in empty.named_modules():
        if name.endswith(".attn0") and f"{name}.to_q.weight" not in tensors:
            fresh = RotaryAttention(part.to_q.in_features, part.heads, MotionProcessor())
            for weight in fresh.to_out.parameters():
                nn.init.zeros_(weight)
            tensors |= {f"{name}.{key}": tensor for key, tensor in fresh.state_dict().items()}
    for name, weight in empty.named_parameters(recurse=False):
        start = torch.randn if name == "unconditional_motion_token" else torch.zeros
        tensors.setdefault(name, start(weight.shape))
    patch = tensors.get("patch_embed.proj.weight")
    if patch is not None and patch.shape[1] < empty.config.in_channels:
        if not all_trained:
            raise MtvcraftError(
                "the base has no input channels for the reference, and new ones would never be trained",
                hint="set `dit.trains: all`, or start from an MV-DiT",
                exit=Exit.USAGE,
            )
        new = patch.new_zeros(len(patch), empty.config.in_channels - patch.shape[1], *patch.shape[2:])
        tensors["patch_embed.proj.weight"] = torch.cat([patch, new], dim=1)
    return tensors
