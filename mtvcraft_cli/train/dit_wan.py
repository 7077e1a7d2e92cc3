"""Trains the MV-DiT on Wan by flow matching: from noisy latents, picture, text and motion tokens to the velocity.

`train.dit` is its sibling for CogVideoX.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from mtvcraft_cli.device.place import choose_dtype, working
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents import wan
from mtvcraft_cli.latents.painter import CPU
from mtvcraft_cli.latents.vae import to_frames
from mtvcraft_cli.latents.wan import WanMotionTransformer, no_motion_tokens
from mtvcraft_cli.latents.wanvideo.painter import WanModels, WanPainter, WanSettings
from mtvcraft_cli.latents.wanvideo.picture import build_picture_encoder
from mtvcraft_cli.latents.wanvideo.sampler import SHIFT, Guidance, make_scheduler
from mtvcraft_cli.latents.wanvideo.sizes import BUCKETS_PX
from mtvcraft_cli.latents.wanvideo.text import TEXT_TOKENS, build_text_encoder, load_tokenizer
from mtvcraft_cli.latents.wanvideo.vae import build_vae
from mtvcraft_cli.preset import Sampler, Statistics
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.shapes import Frames
from mtvcraft_cli.tokens.tokenizer import tokenizer_from_tensors
from mtvcraft_cli.train.base_wan import with_motion, write_checkpoint
from mtvcraft_cli.train.clips import OnClips, stacked
from mtvcraft_cli.train.clips_wan import WanLatents
from mtvcraft_cli.train.examples import Captioned, Example, Examples
from mtvcraft_cli.train.flow import WanObjective, draw_level
from mtvcraft_cli.train.outcome import Outcome
from mtvcraft_cli.train.parts import content_of, locate, locate_parts, needed
from mtvcraft_cli.train.settings import DitTraining
from mtvcraft_cli.train.shards import CLIPS, Shards, Tokeniser, fingerprint
from mtvcraft_cli.train.text import Texts
from mtvcraft_cli.train.trained import choose_trained, frozen_dtype, save_lora
from mtvcraft_cli.weights.locate import ALONE
from mtvcraft_cli.weights.read import read_tensor, read_tensors
from mtvcraft_cli.windows import Window

REPORT_SEED: Final = 1


class WanStage(OnClips):
    """Everything about training a transformer on Wan but the loop.

    Args:
        settings: how.
        preset: what it will be run with; its `weights` may name parts.
        stats: what joints are normalised with.
        examples: clips to train on.
        held: clips for the report.
        folder: latents, tokens and texts are kept in it.
        parts: the weights of "tokenizer", "vae", "text_encoder", "text_tokenizer" and "picture_encoder", and, for a
            transformer without "no motion" tokens of its own, of "no_motion".

    Raises:
        MtvcraftError: a part is missing, or the base is no Wan transformer of this size.
    """

    objective: WanObjective

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
        self.settings, self.preset, self.stats, self.examples, self.held = settings, preset, stats, examples, held
        self.parts = locate_parts(preset, parts)
        for part in ("tokenizer", "vae", "picture_encoder", "text_encoder", "text_tokenizer"):
            needed(self.parts, part)
        if preset.get("loras"):
            raise MtvcraftError(
                "a transformer can't be trained under the LoRAs of its preset",
                hint="leave out `preset.loras`, and merge them into the base where they are wanted",
                exit=Exit.USAGE,
            )
        copied = {part: path for part, path in parts.items() if part == "tokenizer"}
        named = {part: found.source for part, found in self.parts.items() if part not in copied}
        self.outcome = Outcome(preset, stats, copied, named)
        self.sampler = Sampler(**{**preset["sampler"], "guidance_range": (0.0, 1.0)})
        self.frames, self.device = preset["frames"], CPU
        self._keep_clips(folder)
        self._keep_tokens(folder)
        self._keep_texts(folder)
        torch.manual_seed(settings.loop.seed)
        given = self.parts.get("no_motion")
        no_motion = read_tensor(given.path, ALONE["no_motion"]).float() if given and given.path else None
        self.transformer = self._transformer(no_motion)
        choose_trained(self.transformer, settings)
        if settings.loop.gradient_checkpointing:
            self.transformer.enable_gradient_checkpointing()
        self.objective = WanObjective(self.transformer, no_motion, stats.mean_mm, settings.figure)
        if settings.drop_motion and self.objective.learned is None:
            raise MtvcraftError(
                "motion can't be dropped in training: there are no tokens that stand for none",
                hint="name a checkpoint that has them as the part `no_motion`, give the transformer its own "
                "(`preset.transformer.unconditional_motion_shape: [24, WIDTH]`), or set `dit.drop_motion: 0`",
                exit=Exit.USAGE,
            )

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, Tensor]:
        """Clips of one size, each with its own noise, level and text."""
        settings, shift = self.settings, self._shift()
        names = ("latents", "image", "picture", "figure", "tokens", "noise", "text", "level", "dropped")
        made: dict[str, list[Tensor]] = {name: [] for name in names}
        for number, rng in self.drawn(step, samples):
            clip = self.latents.clip(number)
            for name in ("latents", "image", "picture"):
                made[name].append(clip[name].float())
            made["figure"].append(clip["figure"])
            made["tokens"].append(self.tokens.clip(number)["tokens"])
            made["noise"].append(torch.from_numpy(rng.standard_normal(clip["latents"].shape, dtype=np.float32)))
            made["level"].append(torch.tensor(draw_level(rng, settings.levels, shift)))
            made["dropped"].append(torch.tensor(bool(rng.random() < settings.drop_motion)))
            told = rng.random() >= settings.drop_text
            made["text"].append(self.texts(self.prompt(number) if told else settings.no_text))
        batch = stacked(made)
        return batch | {"tokens": self.tokeniser.looked_up(batch["tokens"])}

    def prompt(self, number: int) -> str:
        """What the transformer is told of a clip, unless it is told nothing."""
        own = ""
        if isinstance(self.examples, Captioned):
            own = self.examples.caption(number, self.maker.bucket(number // CLIPS))
        return own or self.preset.get("prompt", "")

    def to(self, device: torch.device) -> None:
        """Have the networks that clips are made ready with work there."""
        self.device = self.maker.device = device

    def join(self, accelerator: Accelerator) -> None:
        """One process after the other sees to the texts, so that the first one makes them."""
        super().join(accelerator)
        with accelerator.main_process_first():
            self.encode_texts()

    def encode_texts(self, watch: Watch = silent) -> None:
        """Make what is missing of the texts; the text encoder is loaded at most once, and gone afterwards."""
        told = {self.prompt(number) for number in range(self.clips)}
        sampled = {self.preset.get("prompt", ""), self.preset.get("negative_prompt", "")}
        self.texts.complete(told | sampled | {self.settings.no_text}, self.device, watch)

    def animate(self, clip: Example, tokens: Tensor) -> Frames:
        """Run the sampler on one window, as the preset says."""
        sampler, prompts = self.sampler, ("prompt", "negative_prompt")
        text, negative = (self.texts(self.preset.get(name, ""))[None] for name in prompts)
        guidance = Guidance(text=sampler.text_guidance, motion=sampler.motion_guidance)
        if self.objective.learned is None:
            guidance = replace(guidance, motion=1.0)
        device = self.transformer.device
        settings = WanSettings(
            scheduler=make_scheduler(sampler.scheduler, {**self.preset["scheduler"], "shift": sampler.shift}),
            steps=sampler.steps,
            guidance=guidance,
            joint_mean_mm=self.stats.mean_mm,
            text=text,
            negative=negative,
            two_passes=True,
            dtype=frozen_dtype(self.settings),
            device=device,
        )
        models = WanModels(
            transformer=self.transformer,
            vae=self.maker.vae,
            picture_encoder=self.maker.picture_encoder,
            no_motion=self.objective.no_motion,
        )
        window = Window(index=0, start=0, frames=self.frames, carried=0, held=0)
        painter = WanPainter(models, settings, clip.reference, window, self._lent)
        generator = torch.Generator().manual_seed(REPORT_SEED)
        character = painter.look(generator)
        low = self.settings.loop.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=low):
            *_, latents = painter.denoise(character, tokens[None], None, generator)
        return to_frames(painter.decode(latents.float()))

    def no_motion(self) -> Tensor | None:
        """(N, m) tokens that stand for no motion; None where there are none."""
        learned = self.objective.learned
        return None if learned is None else no_motion_tokens(learned.detach(), (self.frames + 3) // 4)

    def export(self, folder: Path, whole: Mapping[str, Tensor] | None = None) -> None:
        """Write what was trained, and a preset that runs it.

        A LoRA is one file, and the preset names its base. Else the checkpoint is whole, base and motion attention in
        one, in the folder `transformer`. Text and picture encoder and VAE are large, come with the base model, and are
        named and not copied.

        Args:
            folder: of the run.
            whole: all weights of the objective by name, where its own are cut into pieces.
        """
        own = None
        if whole is not None:
            own = {name.removeprefix("transformer."): tensor for name, tensor in whole.items()}
        learned = hasattr(self.transformer, "unconditional_motion_token")
        if self.settings.trains == "lora":
            save_lora(folder / "lora.safetensors", self.transformer, self.settings.lora, own)
            assert self.settings.base is not None  # `choose_trained` has seen to it
            source, changes = locate("base", self.settings.base).source, {"loras": ["lora.safetensors"]}
        else:
            write_checkpoint(folder / "transformer", self.transformer, own)
            source, changes = "transformer", {}
        named = {**self.outcome.named, "transformer": source}
        if learned or "no_motion" not in named:
            named["no_motion"] = source
        replace(self.outcome, named=named).write(folder, changes)

    def _keep_clips(self, folder: Path) -> None:
        settings, preset = self.settings, self.preset
        own = BUCKETS_PX if preset["size_px"] == "auto" else ((preset["size_px"][0], preset["size_px"][1]),)
        self.buckets = settings.buckets or own
        vae, clip = self.parts["vae"], self.parts["picture_encoder"]
        config = {**preset.get("picture_encoder", {}), **clip.config()}
        self.maker = WanLatents(
            vae=build_vae({**preset["vae"], **vae.config()}, read_tensors(needed(self.parts, "vae")), torch.float32),
            picture_encoder=build_picture_encoder(
                config, read_tensors(needed(self.parts, "picture_encoder")), torch.float32
            ),
            examples=self.examples,
            buckets=self.buckets,
            frames=self.frames,
        )
        made_from = fingerprint({}, content_of(vae, clip), self.buckets, self.frames, self.examples.told)
        self.latents = Shards(folder / "latents", made_from, self.maker.make)
        whole = CLIPS * len(self.buckets)
        self.clips = -(-settings.clips // whole) * whole

    def _keep_tokens(self, folder: Path) -> None:
        stats, kind, neutral = self.stats, self.preset["differential"], self.preset.get("body") == "neutral"
        axes = self.preset.get("joint_axes", "xyz")
        tensors = read_tensors(needed(self.parts, "tokenizer"), within="module")
        tokenizer = tokenizer_from_tensors(self.preset["tokenizer"], tensors)
        self.tokeniser = Tokeniser(tokenizer=tokenizer, stats=stats, kind=kind, axes=axes, neutral=neutral)
        moved = kind if axes == "xyz" else [kind, axes]
        told = (self.latents.made_from, moved, neutral, stats.mean_mm.tolist(), stats.std_mm.tolist())
        made_from = fingerprint(tensors, *told)
        self.tokens = Shards(folder / f"tokens-{made_from[:8]}", made_from, partial(self.tokeniser.make, self.latents))

    def _keep_texts(self, folder: Path) -> None:
        encoder, words = self.parts["text_encoder"], self.parts["text_tokenizer"]
        config = {**self.preset.get("text_encoder", {}), **encoder.config()}

        def load() -> Any:
            dtype = choose_dtype(self.device, self.preset.get("precision", "bfloat16"))
            tensors = read_tensors(needed(self.parts, "text_encoder"))
            return load_tokenizer(needed(self.parts, "text_tokenizer")), build_text_encoder(config, tensors, dtype)

        made_from = content_of(encoder, words)
        length = self.preset["transformer"].get("text_len", TEXT_TOKENS)
        self.texts = Texts(folder=folder / f"text-{made_from[:8]}", length=length, load=load)

    def _transformer(self, no_motion: Tensor | None) -> WanMotionTransformer:
        sizes = dict(self.preset["transformer"])
        if self.settings.base is None:
            return WanMotionTransformer(**wan.read_config(sizes))
        base = locate("base", self.settings.base)
        config = {**sizes, **base.config()}
        tensors = with_motion(config, read_tensors(needed({"base": base}, "base")), no_motion)
        return wan.build_transformer(config, tensors, frozen_dtype(self.settings), silent=True)

    def _shift(self) -> float:
        own = self.settings.levels.shift
        return float(self.preset["sampler"].get("shift", SHIFT)) if own is None else own

    @contextmanager
    def _lent(self, module: Any) -> Iterator[Any]:
        """Bring VAE and picture encoder to the device while they work; the transformer is there and stays."""
        if module is self.transformer:
            yield module
        else:
            with working(module, self.device, "model"):
                yield module
