"""Trains the MV-DiT: from noisy latents, the character's latents and motion tokens to the velocity (paper, stage 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLCogVideoX
from jaxtyping import Float32
from torch import Tensor, nn

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer, from_released
from mtvcraft_cli.latents.rope import Rotary, motion_table, motion_tables, visual_table
from mtvcraft_cli.latents.sampler import Condition, denoise, make_scheduler
from mtvcraft_cli.latents.vae import build_vae, decode, encode_reference, to_frames
from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.tokens.normalise import normalise, seen
from mtvcraft_cli.tokens.tokenizer import as_tokens, tokenizer_from_tensors
from mtvcraft_cli.train.examples import Example, Examples
from mtvcraft_cli.train.outcome import Outcome
from mtvcraft_cli.train.run import samples_rng
from mtvcraft_cli.train.settings import DitTraining
from mtvcraft_cli.train.shards import CLIPS, Latents, Shards, Tokens, fingerprint
from mtvcraft_cli.train.start import start_from_reference
from mtvcraft_cli.train.vae import psnr_db, sheet
from mtvcraft_cli.weights.read import read_tensors

REPORTED_CLIPS: Final = 6
SPREAD_CLIPS: Final = 64
REPORT_SEED: Final = 1


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
    ) -> None:
        super().__init__()
        self.transformer = transformer
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
        first_mm: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """(b, f, c, h, w), (b, c, h, w), (b, n, d), (b, f, h, w), (b, f, c, h, w), (b) and (b) to scalars.

        Where positions are dynamic the drivers' first poses (b, 24, 3) give them.
        """
        visual, motion = self.tables(latents, first_mm)
        kept = self.alphas[time][:, None, None, None, None]  # type: ignore[index]
        noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        none = self.transformer.unconditional_tokens(latents.shape[1])[None].to(tokens.dtype)
        tokens = torch.where(dropped[:, None, None], none, tokens)
        seen = torch.cat([noisy, reference[:, None].expand_as(noisy)], dim=2)
        error = (self.transformer(seen, time, tokens, visual, motion).float() - velocity).square().mean(dim=2)
        # Weights are set in relation clip by clip, so that it doesn't matter which clips share a process.
        weight = 1 + self.figure * figure.float()
        loss = (error * weight / weight.mean((1, 2, 3), keepdim=True)).mean()
        there = (error * figure).sum((1, 2, 3)) / figure.sum((1, 2, 3)).clamp(min=1)
        return {"loss": loss, "error": error.mean(), "figure": there.mean()}

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


class DitStage:
    """Everything about training a transformer but the loop.

    Args:
        settings: how.
        preset: what it will be run with.
        stats: what joints are normalised with.
        examples: clips to train on.
        held: clips for the report.
        folder: latents and tokens are kept in it.
        parts: the weights of "tokenizer" and "vae".

    Raises:
        MtvcraftError: a part is missing, or the base is no CogVideoX transformer of this size.
    """

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
        if missing := [part for part in ("tokenizer", "vae") if part not in parts]:
            raise MtvcraftError(
                f"the transformer can't be trained without a {missing[0]}",
                hint=f"train one with `mtvcraft train {missing[0]}`, or name the folder of its run",
                exit=Exit.WEIGHTS,
            )
        self.settings, self.stats, self.held = settings, stats, held
        tensors = {part: read_tensors(path) for part, path in parts.items()}
        self.tokenizer = tokenizer_from_tensors(preset["tokenizer"], tensors["tokenizer"])
        factor = scale_of(parts["vae"], preset)
        self.preset = {**preset, "vae": {**preset["vae"], "scaling_factor": factor}}
        self.vae: AutoencoderKLCogVideoX = build_vae(self.preset["vae"], tensors["vae"])
        self.outcome = Outcome(self.preset, stats, parts)
        self.scheduler = make_scheduler(preset["sampler"]["scheduler"], preset["scheduler"])
        self.frames, self.kind, self.axes = preset["frames"], preset["differential"], preset.get("joint_axes", "xyz")
        buckets = settings.buckets or ((preset["size_px"][0], preset["size_px"][1]),)
        maker = Latents(
            vae=self.vae,
            examples=examples,
            buckets=buckets,
            frames=self.frames,
            scaled=preset["reference_scaled"],
            quick=settings.loop.precision == "bfloat16",
        )
        world = (settings.world.motion and Path(settings.world.motion).name, settings.world.before)
        of_latents = fingerprint(tensors["vae"], factor, buckets, self.frames, preset["reference_scaled"], world)
        self.latents = Shards(folder / "latents", of_latents, maker.make)
        of_tokens = fingerprint(
            tensors["tokenizer"],
            of_latents,
            self.kind if self.axes == "xyz" else [self.kind, self.axes],
            stats.mean_mm.tolist(),
            stats.std_mm.tolist(),
        )
        tokeniser = Tokens(tokenizer=self.tokenizer, latents=self.latents, stats=stats, kind=self.kind, axes=self.axes)
        self.tokens = Shards(folder / f"tokens-{of_tokens[:8]}", of_tokens, tokeniser.make)
        self.buckets = len(buckets)
        self.clips = -(-settings.clips // (CLIPS * self.buckets)) * CLIPS * self.buckets
        torch.manual_seed(settings.loop.seed)
        transformer = self._transformer()
        if settings.loop.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        alphas = self.scheduler.alphas_cumprod
        self.objective = DitObjective(transformer, alphas, stats.mean_mm, settings.figure)

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Clips of one size, each with its own noise and time."""
        loop, power = self.settings.loop, self.settings.time_power
        bucket = int(samples_rng(loop.seed, step).integers(self.buckets))
        there = self._there(step) // (CLIPS * self.buckets)
        made: dict[str, list[Any]] = {
            name: [] for name in ("latents", "reference", "figure", "tokens", "noise", "time", "first_mm")
        }
        dropped = []
        for sample in samples:
            rng = samples_rng(loop.seed, step, sample)
            shard = bucket + self.buckets * int(rng.integers(there))
            number = CLIPS * shard + int(rng.integers(CLIPS))
            clip = self.latents.clip(number)
            for name in ("latents", "reference"):
                made[name].append(clip[name].float())
            made["figure"].append(clip["figure"])
            made["first_mm"].append(clip["joints_mm"][0])
            made["tokens"].append(self.tokens.clip(number)["tokens"])
            made["noise"].append(torch.from_numpy(rng.standard_normal(clip["latents"].shape, dtype=np.float32)))
            made["time"].append(torch.tensor(min(999, int(1000 * rng.random() ** power))))
            dropped.append(bool(rng.random() < self.settings.drop_motion))
        batch = {name: torch.stack(values) for name, values in made.items()}
        batch["tokens"] = as_tokens(self._looked_up(batch["tokens"]))
        return batch | {"dropped": torch.tensor(dropped)}

    def join(self, accelerator: Accelerator) -> None:
        """Nothing is exchanged but gradients."""

    def after(self, step: int) -> dict[str, float]:
        """Nothing is left to do but to tell how many clips there are."""
        return {"clips": float(self._there(step))}

    def report(self, step: int, folder: Path) -> dict[str, float]:
        """Animate held-out clips: decibels of the result, with another clip's motion, with none, and standing still."""
        clips = [self.held(number, self._size_px(), self.frames) for number in range(REPORTED_CLIPS)]
        kinds: dict[str, list[float]] = {"psnr_db": [], "still_db": [], "other_motion_db": [], "no_motion_db": []}
        rows: list[Frames] = []
        for number, clip in enumerate(clips):
            none = self.objective.transformer.unconditional_tokens((self.frames + 3) // 4).detach()
            other = self.clip_tokens(clips[number - 1])
            made = self.animate(clip, self.clip_tokens(clip))
            kinds["psnr_db"].append(psnr_db(clip.frames, made))
            kinds["still_db"].append(psnr_db(clip.frames, np.broadcast_to(clip.reference, clip.frames.shape)))
            kinds["other_motion_db"].append(psnr_db(clip.frames, self.animate(clip, other)))
            kinds["no_motion_db"].append(psnr_db(clip.frames, self.animate(clip, none)))
            rows += [clip.frames[::4], made[::4]]
        sheet(folder / "samples" / f"step-{step:08d}.png", rows)
        return {name: float(np.mean(values)) for name, values in kinds.items()}

    def animate(self, clip: Example, tokens: Tensor) -> Frames:
        """Run the sampler on one window, as the preset says."""
        sampler, transformer = self.preset["sampler"], self.objective.transformer
        generator = torch.Generator().manual_seed(REPORT_SEED)
        scaled = self.preset["reference_scaled"]
        reference = encode_reference(
            self.vae, clip.reference, self.frames, sample=False, scaled=scaled, generator=generator
        ).to(transformer.device)
        visual, motion = self.objective.tables(reference, torch.from_numpy(clip.joints_mm[:1]))
        condition = Condition(
            reference=reference, tokens=tokens[None].to(transformer.device), visual=visual, motion=motion
        )
        steps, guidance = sampler["steps"], float(sampler["motion_guidance"])
        *_, latents = denoise(
            transformer, self.scheduler, condition, steps=steps, guidance=guidance, generator=generator
        )
        return to_frames(decode(self.vae, latents))

    @torch.no_grad()
    def clip_tokens(self, clip: Example) -> Tensor:
        """(N, D) motion tokens of a clip's driver."""
        joints = normalise(torch.from_numpy(clip.joints_mm), self.stats)[None]
        origin = {"none": 0.0, "window": joints[:, 1:2], "reference": joints[:, :1]}[self.kind]
        found = self.tokenizer.encode(seen(joints[:, 1:] - origin, self.axes))
        if self.tokenizer.codes is not None:
            found = self.tokenizer.look_up(self.tokenizer.quantise(found))
        return as_tokens(found)[0]

    def export(self, folder: Path) -> None:
        """Write the transformer, copies of what it was trained with, and a preset that runs them."""
        self.outcome.write(folder, transformer=self.objective.transformer)

    def _there(self, step: int) -> int:
        """Clips that a step draws from: a function of the step, so that a run can be repeated."""
        settings, whole = self.settings, CLIPS * self.buckets
        if not settings.first_clips:
            return self.clips
        grown = settings.first_clips + step * settings.loop.batch / settings.uses
        return min(self.clips, max(whole, int(grown) // whole * whole))

    def _looked_up(self, tokens: Tensor) -> Tensor:
        return tokens.float() if self.tokenizer.codes is None else self.tokenizer.look_up(tokens)

    def _size_px(self) -> tuple[int, int]:
        return self.preset["size_px"][0], self.preset["size_px"][1]

    def _transformer(self) -> CogVideoXMotionTransformer:
        sizes, start = self.preset["transformer"], self.settings.start
        if self.settings.base is not None:
            return build_transformer(sizes, widened(sizes, read_tensors(Path(self.settings.base))), torch.float32)
        transformer = CogVideoXMotionTransformer(**sizes)
        if start == "reference":
            clips = [self.latents.clip(number) for number in range(SPREAD_CLIPS)]
            apart = [(clip["latents"].float() - clip["reference"].float()).square().mean().item() for clip in clips]
            start_from_reference(transformer, self.scheduler.alphas_cumprod, float(np.mean(apart)))
        return transformer


def widened(sizes: Mapping[str, Any], base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make an MV-DiT of a CogVideoX transformer: all its weights, and new ones where it has none.

    The reference's input channels are new and begin at zero; so do the outputs of the motion attention. With them the
    first step computes what the base does without a text. An MV-DiT's own checkpoint passes unchanged.

    Args:
        sizes: of the MV-DiT.
        base: tensors of the checkpoint.
    """
    tensors = from_released(base)
    fresh = CogVideoXMotionTransformer(**sizes).state_dict()
    for name, tensor in fresh.items():
        if name not in tensors:
            silent = ".attn0.to_out." in name
            tensors[name] = torch.zeros_like(tensor) if silent and name.endswith("bias") else tensor
            if silent and name.endswith("weight"):
                tensors[name] = tensor * 1e-4  # nothing but zeros is refused as a checkpoint that lost its motion
    patch = tensors["patch_embed.proj.weight"]
    if patch.shape[1] < sizes["in_channels"]:
        new = patch.new_zeros(len(patch), sizes["in_channels"] - patch.shape[1], *patch.shape[2:])
        tensors["patch_embed.proj.weight"] = torch.cat([patch, new], dim=1)
    return tensors


def scale_of(vae: Path, preset: Mapping[str, Any]) -> float:
    """The scaling factor that training found for a VAE: in the preset beside its weights, else in ours."""
    import yaml

    beside = vae.parent / "preset.yaml"
    content = yaml.safe_load(beside.read_text(encoding="utf-8")) if beside.is_file() else preset
    return float(content["vae"]["scaling_factor"])
