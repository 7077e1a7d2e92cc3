"""Trains a small video VAE, for models whose pictures are too small for the released one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKLCogVideoX
from PIL import Image
from torch import Tensor, nn

from mtvcraft_cli.device.sizes import latent_size
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.vae import build_vae, decode, encode_video, to_frames, to_video
from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.train.examples import Examples
from mtvcraft_cli.train.outcome import Outcome
from mtvcraft_cli.train.parts import told_scale, trained_before
from mtvcraft_cli.train.predicted import Predicted, predicted_clips
from mtvcraft_cli.train.run import check_whole, samples_rng
from mtvcraft_cli.train.settings import VaeTraining, check_lengths
from mtvcraft_cli.train.shards import CLIPS, Shards
from mtvcraft_cli.train.start import start_from_averages
from mtvcraft_cli.weights.read import read_tensors

REPORTED_CLIPS = 8
SCALED_CLIPS = 24
"""Clips of training that the latents' spread is taken from."""


class VaeObjective(nn.Module):
    """A video to the loss of its round trip."""

    def __init__(self, vae: AutoencoderKLCogVideoX, settings: VaeTraining) -> None:
        super().__init__()
        self.vae, self.settings = vae, settings

    def forward(
        self,
        video: Tensor,
        figure: Tensor,
        noise: Tensor,
        predicted: Tensor | None = None,
        encoded: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """(B, 3, T, H, W) in -1..1, (B, 1, T, H, W) 0 or 1, and noise of the latents' shape, to scalars.

        With `predicted` latents, scaled as the encoder gives them, the decoder gets to see those but for the clips of
        `encoded`, (B) bool.
        """
        frozen = self.settings.decoder_only
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            posterior = self.vae.encode(video).latent_dist
        # Transformers are trained on means, so that is what a decoder alone gets to see.
        latents = posterior.mean if frozen else posterior.mean + posterior.std * noise
        if predicted is not None and encoded is not None:
            latents = torch.where(encoded[:, None, None, None, None], latents, predicted)
        made = self.vae.decode(latents).sample.float()
        weight = 1 + self.settings.figure * figure
        weight = weight / weight.mean((1, 2, 3, 4), keepdim=True)  # clip by clip, whoever computes it
        l1 = ((made - video).abs() * weight).mean()
        sharp = torch.stack([(slope(made, axis) - slope(video, axis)).abs().mean() for axis in (-1, -2)]).mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = l1 + self.settings.sharpness * sharp + self.settings.kl * kl
        if self.settings.squared:
            loss = loss + self.settings.squared * ((made - video).square() * weight).mean()
        return {"loss": loss, "l1": l1, "sharp": sharp, "kl": kl, "spread": mean.detach().std()}


def slope(video: Tensor, axis: int) -> Tensor:
    """What changes from a pixel to the next."""
    return video.diff(dim=axis)


class VaeStage:
    """Everything about training a VAE but the loop."""

    def __init__(
        self,
        settings: VaeTraining,
        preset: Mapping[str, Any],
        stats: Statistics,
        examples: Examples,
        held: Examples,
        folder: Path,
    ) -> None:
        check_lengths(settings.frames, "vae.frames", least=1)
        self.settings, self.examples, self.held = settings, examples, held
        self.size_px = (preset["size_px"][0], preset["size_px"][1])
        self.config = preset["vae"]
        self.outcome = Outcome(preset, stats)
        self.base = trained_before("vae", settings.base, decoder_only=settings.decoder_only)
        torch.manual_seed(settings.loop.seed)
        vae = self._vae()
        if settings.loop.gradient_checkpointing:
            vae.enable_gradient_checkpointing()
        self.objective = VaeObjective(vae, settings)
        self.predicted: tuple[Predicted, Shards] | None = None
        if settings.predicted is not None:
            self.predicted = self._predicted(vae, folder)

    def _predicted(self, vae: AutoencoderKLCogVideoX, folder: Path) -> tuple[Predicted, Shards]:
        found, shards = predicted_clips(self.settings, folder, self.examples)
        known, own = found.models.vae.encoder.state_dict(), vae.encoder.state_dict()
        if known.keys() != own.keys() or not all(torch.equal(known[key].float(), own[key]) for key in own):
            raise _unfit("its transformer knows another VAE's latents", "name a run on the VAE of `vae.base`")
        if max(self.settings.frames) > found.preset.frames or self.size_px != tuple(found.preset.size_px):
            width, height = found.preset.size_px[0], found.preset.size_px[1]
            raise _unfit(
                f"it makes windows of {found.preset.frames} frames of {width} x {height}",
                "set `vae.frames` and `preset.size_px` accordingly",
            )
        return found, shards

    def _vae(self) -> AutoencoderKLCogVideoX:
        settings = self.settings
        if self.base is not None:
            vae = build_vae(self.config, read_tensors(self.base), torch.float32).train()
            vae.encoder.requires_grad_(not settings.decoder_only)
            return vae
        vae = AutoencoderKLCogVideoX(**self.config)
        if settings.start == "averages":
            start_from_averages(vae)
        return vae

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Clips that were never seen before, all of one length."""
        loop = self.settings.loop
        frames = int(samples_rng(loop.seed, step).choice(self.settings.frames))
        if self.predicted is not None:
            return self._predicted_batch(step, samples, frames)
        clips = [self.examples(step * loop.batch + sample, self.size_px, frames) for sample in samples]
        shape = latent_shape(self.config, self.size_px, frames)
        noise = [samples_rng(loop.seed, step, sample).standard_normal(shape, dtype=np.float32) for sample in samples]
        return {
            "video": torch.cat([to_video(clip.frames) for clip in clips]),
            "figure": torch.stack([torch.from_numpy(clip.figure)[None].float() for clip in clips]),
            "noise": torch.from_numpy(np.stack(noise)),
        }

    def _predicted_batch(self, step: int, samples: Sequence[int], frames: int) -> dict[str, Tensor]:
        """Clips that a transformer animated, each from its first frame on."""
        assert self.predicted is not None
        found, shards = self.predicted
        shape = latent_shape(self.config, self.size_px, frames)
        names = ("video", "figure", "noise", "predicted", "encoded")
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        for sample in samples:
            rng = samples_rng(self.settings.loop.seed, step, sample)
            clip = shards.clip(int(rng.integers(-(-self.settings.predicted_clips // CLIPS) * CLIPS)))
            latents = clip["latents"][: shape[1]].float().transpose(0, 1)
            made["video"].append(to_video(clip["frames"][:frames].numpy())[0])
            made["figure"].append(clip["figure"][None, :frames].float())
            made["noise"].append(torch.zeros(shape))  # what encodes stays as it is, and gives means
            made["predicted"].append(latents / found.models.vae.config.scaling_factor)
            made["encoded"].append(torch.tensor(bool(rng.random() < self.settings.encoded)))
        return {name: torch.stack(values) for name, values in made.items()}

    def join(self, accelerator: Accelerator) -> None:
        """Nothing is exchanged but gradients."""
        check_whole(accelerator, "the VAE")
        if self.predicted is not None:
            self.predicted[0].to(accelerator.device)

    def after(self, step: int) -> dict[str, float]:  # noqa: ARG002
        """Nothing is left to do."""
        return {}

    def report(self, step: int, folder: Path) -> dict[str, float]:
        """Round trips of held-out clips: decibels of them and of their first frame repeated."""
        frames = self.outcome.preset["frames"]
        made, still, rows = [], [], []
        for number in range(REPORTED_CLIPS):
            clip = self.held(number, self.size_px, frames)
            video = to_video(clip.frames)
            found = to_frames(decode(self.objective.vae, encode_video(self.objective.vae, video)))
            made.append(psnr_db(clip.frames, found))
            still.append(psnr_db(clip.frames, np.broadcast_to(clip.reference, clip.frames.shape)))
            rows += [clip.frames[::8], found[::8]]
        sheet(folder / "samples" / f"step-{step:08d}.png", rows[:16])
        return {"psnr_db": float(np.mean(made)), "still_db": float(np.mean(still))}

    def export(self, folder: Path, whole: Mapping[str, Tensor] | None = None) -> None:  # noqa: ARG002
        """Write the VAE and a preset that scales its latents to unit spread, or as transformers on them know it."""
        kept = told_scale(self.base) if self.base and self.settings.decoder_only else None
        factor = self.scaling_factor() if kept is None else kept
        config = {**self.config, "scaling_factor": factor}
        self.outcome.write(folder, {"vae": config}, vae=self.objective.vae)

    @torch.no_grad()
    def scaling_factor(self) -> float:
        """One over the root mean square of the latents of training clips."""
        total = [
            self.objective.vae.encode(
                to_video(self.examples(number, self.size_px, self.outcome.preset["frames"]).frames).to(
                    self.objective.vae.device
                )
            )
            .latent_dist.mode()
            .square()
            .mean()
            .item()
            for number in range(SCALED_CLIPS)
        ]
        return round(float(np.mean(total)) ** -0.5, 4)


def _unfit(why: str, hint: str) -> MtvcraftError:
    return MtvcraftError(f"`vae.predicted` doesn't fit: {why}", hint=hint, exit=Exit.USAGE)


def latent_shape(config: Mapping[str, Any], size_px: tuple[int, int], frames: int) -> tuple[int, int, int, int]:
    """(C, F, h, w) of a clip's latents."""
    width, height = latent_size(config, size_px)
    return config["latent_channels"], (frames + 3) // 4, height, width


def psnr_db(true: Frames, made: Frames) -> float:
    """Peak signal to noise over a whole clip, decibels."""
    error = np.square(true.astype(np.float64) - made).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-10)))


def sheet(path: Path, rows: Sequence[Frames]) -> None:
    """Write clips as rows of one picture."""
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows])).save(path)
