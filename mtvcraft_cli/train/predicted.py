"""What a trained transformer makes of clips, for the decoder that has to show it."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.painter import CogVideoXPainter, Models, Settings
from mtvcraft_cli.preset import Preset, load_preset
from mtvcraft_cli.runs.models import load_tokenizer, settings_of, small_models
from mtvcraft_cli.shapes import Latents, Picture
from mtvcraft_cli.train.examples import Example, Examples
from mtvcraft_cli.train.settings import VaeTraining
from mtvcraft_cli.train.shards import CLIPS, Shards, Tokeniser, fingerprint
from mtvcraft_cli.weights.locate import Located, locate, require
from mtvcraft_cli.windows import Window


def window_painter(models: Models, settings: Settings, reference: Picture, frames: int) -> CogVideoXPainter:
    """Make a painter of a window of `frames` frames that nothing comes before."""
    window = Window(index=0, start=0, frames=frames, carried=0, held=0)
    return CogVideoXPainter(models, settings, reference, window, nullcontext)


def predict(painter: CogVideoXPainter, tokens: Tensor, seed: int, *, bfloat16: bool) -> Latents:
    """Run the sampler on a window's (M, D) motion tokens: (1, F, C, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    character = painter.look(generator)
    with torch.autocast(painter.settings.device.type, torch.bfloat16, enabled=bfloat16):
        *_, latents = painter.denoise(character, tokens[None], None, generator)
    return latents


@dataclass(frozen=True, kw_only=True, eq=False)
class Predicted:
    """Clips, and what a preset's transformer makes of their references and their drivers' motion."""

    preset: Preset
    models: Models
    tokeniser: Tokeniser
    examples: Examples
    bfloat16: bool = False
    """Whether the transformer computes in it."""

    @torch.no_grad()
    def make(self, shard: int) -> dict[str, Tensor]:
        """Animate clips.

        Returns:
            Per clip: `frames` (T, H, W, 3) uint8, `figure` (T, H, W) bool, and `latents` (F, C, h, w) float16, what the
            transformer makes of them.
        """
        size_px, frames = (self.preset.size_px[0], self.preset.size_px[1]), self.preset.frames
        made: dict[str, list[Tensor]] = {"frames": [], "figure": [], "latents": []}
        for number in range(shard * CLIPS, (shard + 1) * CLIPS):
            clip = self.examples(number, size_px, frames)
            made["frames"].append(torch.from_numpy(clip.frames))
            made["figure"].append(torch.from_numpy(clip.figure))
            made["latents"].append(self._latents(clip, number).half().cpu())
        return {name: torch.stack(values) for name, values in made.items()}

    def to(self, device: torch.device) -> None:
        """Have the networks work there."""
        for network in (self.models.transformer, self.models.vae, self.tokeniser.tokenizer):
            network.to(device)

    def _latents(self, clip: Example, seed: int) -> Tensor:
        network = self.models.transformer
        settings = replace(settings_of(self.preset, network.device), dtype=network.dtype)
        joints_mm = torch.from_numpy(clip.joints_mm)
        if self.models.dynamic:
            settings = replace(settings, joint_mean_mm=self.tokeniser.on_body(joints_mm[:1])[0].numpy())
        painter = window_painter(self.models, settings, clip.reference, len(clip.frames))
        tokens = self.tokeniser.looked_up(self.tokeniser(joints_mm[None]))[0]
        return predict(painter, tokens, seed, bfloat16=self.bfloat16)[0]


def predicted_clips(settings: VaeTraining, folder: Path, examples: Examples) -> tuple[Predicted, Shards]:
    """Load the networks of a preset, and find what they have made of clips before.

    Args:
        settings: say which preset.
        folder: of the run; the clips are kept in it.
        examples: the clips.

    Raises:
        MtvcraftError: as for `find_predicted`.
    """
    preset, parts = find_predicted(settings)
    models = small_models(preset, parts, torch.device("cpu"))
    tokeniser = Tokeniser(
        tokenizer=load_tokenizer(preset, parts["tokenizer"]),
        stats=preset.statistics,
        kind=preset.differential,
        axes=preset.joint_axes,
        neutral=preset.body == "neutral",
    )
    bfloat16 = settings.loop.precision == "bfloat16"
    predicted = Predicted(preset=preset, models=models, tokeniser=tokeniser, examples=examples, bfloat16=bfloat16)
    networks = {"tokenizer": tokeniser.tokenizer, "transformer": models.transformer, "vae": models.vae}
    tensors = {f"{part}.{key}": value for part, each in networks.items() for key, value in each.state_dict().items()}
    made_from = fingerprint(tensors, preset.fingerprint, bfloat16, examples.told)
    return predicted, Shards(folder / "predicted", made_from, predicted.make)


def find_predicted(settings: VaeTraining) -> tuple[Preset, dict[str, Located]]:
    """Find the preset whose latents a decoder is to learn from, and its networks.

    Raises:
        MtvcraftError: exit 2; not the decoder alone is trained, or there is no such preset, or it is on another
            backbone or has no trained transformer. Exit 6; its weights are not here.
    """
    assert settings.predicted is not None
    if not settings.decoder_only:
        raise MtvcraftError(
            "`vae.predicted` trains a decoder that has an encoder already",
            hint="name the VAE that the transformer knows as `vae.base`, and set `vae.decoder_only: true`",
            exit=Exit.USAGE,
        )
    preset = load_preset(settings.predicted)
    if preset.backbone != "cogvideox":
        raise MtvcraftError(
            f"`vae.predicted` is on {preset.backbone}, whose VAE is another",
            hint="name a run of `mtvcraft train dit` on cogvideox",
            exit=Exit.USAGE,
        )
    parts = locate(preset, None)
    require(preset, parts)
    if random := [part for part in ("tokenizer", "transformer", "vae") if parts[part].seed is not None]:
        raise MtvcraftError(f"`vae.predicted` has no trained {random[0]}", hint="name a finished run", exit=Exit.USAGE)
    return preset, parts
