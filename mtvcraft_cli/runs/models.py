"""The models of a job: loaded, and handed on from job to job."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan
from torch import Tensor, nn

from mtvcraft_cli.device.depot import Depot
from mtvcraft_cli.device.place import choose_dtype
from mtvcraft_cli.device.placement import STREAMED, Placement, Quantize, is_roomy, smaller
from mtvcraft_cli.device.plan import next_smaller
from mtvcraft_cli.device.quantise import built
from mtvcraft_cli.jobs.animation import AnimateJob, PreparedAnimation
from mtvcraft_cli.jobs.fit import memory_text
from mtvcraft_cli.latents import wan
from mtvcraft_cli.latents.checkpoint import arguments_of
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.sampler import make_scheduler
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.spare import Spare
from mtvcraft_cli.latents.vae import build_vae
from mtvcraft_cli.latents.walk import Models, Settings, WanModels, WanSettings
from mtvcraft_cli.latents.wan import WanMotionTransformer
from mtvcraft_cli.latents.wanvideo import vae as wan_vae
from mtvcraft_cli.latents.wanvideo.lora import alpha_of, merge_lora
from mtvcraft_cli.latents.wanvideo.picture import build_picture_encoder
from mtvcraft_cli.latents.wanvideo.sampler import Guidance
from mtvcraft_cli.latents.wanvideo.sampler import make_scheduler as make_flow_scheduler
from mtvcraft_cli.preset import AUTO_PX, Preset, Sampler, lora_of
from mtvcraft_cli.runs.ranks import together
from mtvcraft_cli.runs.speed import pace, quicken
from mtvcraft_cli.runs.text import find_text
from mtvcraft_cli.sidecar import fingerprint
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, tokenizer_from_tensors
from mtvcraft_cli.weights.locate import ALONE, Located
from mtvcraft_cli.weights.read import read_lora_config, read_tensor, read_tensors


def load_tokenizer(preset: Preset, part: Located) -> MotionTokenizer:
    """The 4DMoT tokenizer of a preset, in float32 on the CPU."""
    if part.seed is not None:
        with init_empty_weights():
            empty = MotionTokenizer(**preset.tokenizer)
        return tokenizer_from_tensors(preset.tokenizer, seeded_tensors(empty, part.seed))
    assert part.path is not None
    return tokenizer_from_tensors(preset.tokenizer, read_tensors(part.path, within="module"))


@dataclass(kw_only=True)
class Loaded:
    """The models that one job leaves for the next; only those of one preset are held at a time."""

    prompts: tuple[str, ...] = ()
    """Texts that later jobs will need: the text encoder reads them along with the first job's, and is gone then."""
    tokenizer: MotionTokenizer | None = None
    models: Models | WanModels | None = None
    depot: Depot | None = None
    """Who has placed them, as the last job wanted it."""
    stepped: Placement | None = None
    """The smaller placement that was taken when memory was too small for a job; later ones begin with it."""
    spare: Spare = field(default_factory=Spare)
    """What the windows of the last job are spared."""
    remarks: tuple[str, ...] = ()
    """What was said when they were loaded."""
    made_of: str = ""
    """What tells the models from others."""

    def tokenizer_for(self, prepared: PreparedAnimation) -> MotionTokenizer:
        """The tokenizer of a job's preset; models of another preset are let go first."""
        made_of = fingerprint(
            {
                "models": models_wanted(prepared.job),
                "hashes": {name: prepared.hashes[name] for name in weights_of(prepared)},
                "device": prepared.device,
            }
        )
        if made_of != self.made_of:
            self.close()
            self.tokenizer = self.stepped = None
            self.made_of = made_of
        if self.tokenizer is None:
            self.tokenizer = load_tokenizer(prepared.job.preset, prepared.parts["tokenizer"])
        return self.tokenizer

    def models_for(
        self, prepared: PreparedAnimation, remarks: list[str]
    ) -> tuple[Models | WanModels, Settings | WanSettings]:
        """The other models, and how a job runs them; asked for after the tokenizer."""
        backbone = BACKBONES[prepared.job.preset.backbone]
        settings = backbone.settings(prepared, () if self.models else self.prompts)  # before the large models come
        if self.models is None:
            said = list[str]()
            models = together(prepared, lambda: backbone.load(prepared, said))
            quicken(models, prepared)  # models that can't be had as they are wanted are nobody's
            self.models, self.remarks = models, tuple(said)
        self.depot = self.depot or Depot(torch.device(prepared.device), prepared.cache.folder)
        self.depot.become(self._wanted(prepared), prepared.plan.shares, self._networks())
        remarks += self.remarks
        self.spare = pace(self.models, prepared, self.depot)
        return self.models, replace(settings, spare=self.spare)

    def _wanted(self, prepared: PreparedAnimation) -> Placement:
        """The placement of the plan, or a smaller one that was taken in spite of one."""
        planned, stepped = prepared.plan.placement, self.stepped
        if stepped is None or planned.cards or prepared.job.offload != "auto":  # cut over cards, one was too small
            return planned
        if stepped.offload not in smaller(planned.offload):
            return planned
        return planned if stepped.offload in STREAMED and prepared.job.speed.whole else stepped

    def make_room(self, prepared: PreparedAnimation, warnings: list[str]) -> bool:
        """Go on in the next smaller placement, since memory was too small; False where there is none."""
        assert self.depot is not None
        before = self.depot.placement
        found = next_smaller(prepared.plan, before)
        if found is None:
            return False
        self.depot.become(found, (), self._networks())
        self.stepped = found
        self.spare.keys &= is_roomy(found)  # which change no bit, and take room
        warnings.append(
            f"memory was too small for `--offload {before.offload}`, in spite of the plan: the window was begun again "
            f"with `--offload {found.offload}`"
        )
        return True

    def close(self) -> None:
        """Let go of the models, and of what of them lies outside memory."""
        if self.depot is not None:
            self.depot.close()
        self.depot = self.models = None

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _networks(self) -> list[nn.Module]:
        return [part for part in vars(self.models).values() if isinstance(part, nn.Module)]


RUN_BY_RUN = frozenset(
    {
        *("reference", "drive", "output", "seed", "rate", "audio", "crf", "background", "fit", "compare", "frames_dir"),
        *("driver", "motion", "two_passes", "speed", "force", "command", "expected_weights", "preset"),
        *("offload", "gpus", "fuse"),
    }
)
"""What of a job may change while its models stay as they are."""


def models_wanted(job: AnimateJob) -> str:
    """What tells the models that a job needs from others, before a file is opened."""
    preset = replace(
        job.preset,
        sampler=Sampler(),
        size_px=AUTO_PX,
        auto_size=False,
        reference_latent="sample",
        prompt="",
        negative_prompt="",
        clip_from="reference",
        color_match=False,
    )
    rest = {item.name: getattr(job, item.name) for item in fields(job) if item.name not in RUN_BY_RUN}
    compiled = job.speed.compile
    return fingerprint({"preset": preset.fingerprint, "folder": preset.folder, "compiled": compiled, **rest})


def weights_of(prepared: PreparedAnimation) -> list[str]:
    """The names of the weight files that the models are made of, but for the pose backend's."""
    return [name for name in prepared.hashes if "/" in name and not name.startswith("pose/")]


def load_small(prepared: PreparedAnimation, remarks: list[str]) -> Models:
    """The parts of a job's preset on CogVideoX, on the CPU."""
    device, quantize = torch.device(prepared.device), prepared.job.quantize
    return small_models(prepared.job.preset, prepared.parts, device, quantize, remarks)


def small_models(
    preset: Preset,
    parts: Mapping[str, Located],
    device: torch.device,
    quantize: Quantize = "none",
    remarks: list[str] | None = None,
) -> Models:
    """The same for whoever has a preset and its parts."""
    transformer = load_transformer(preset, parts, device, quantize, [] if remarks is None else remarks)
    assert isinstance(transformer, CogVideoXMotionTransformer)
    vae = _config_and_tensors(AutoencoderKLCogVideoX, preset.vae, parts["vae"])
    return Models(transformer=transformer, vae=build_vae(*vae, choose_dtype(device, preset.precision)))


def load_transformer(
    preset: Preset, parts: Mapping[str, Located], device: torch.device, quantize: Quantize, remarks: list[str]
) -> CogVideoXMotionTransformer | WanMotionTransformer:
    """The transformer of a preset on the CPU, its LoRAs merged first, then quantised where that is asked for."""
    kind, build = TRANSFORMERS[preset.backbone]
    config, tensors = _config_and_tensors(kind, preset.transformer, parts["transformer"])
    for number, words in enumerate(preset.loras, start=1):
        path = parts[f"lora-{number}"].path
        assert path is not None  # a LoRA is never seeded
        alpha, (source, scale) = alpha_of(read_lora_config(path)), lora_of(words)
        remarks.append(f"LoRA `{source}`: {merge_lora(tensors, read_tensors(path), scale, alpha=alpha, name=source)}")
    dtype = choose_dtype(device, preset.precision)
    transformer, packed = built(build, config, tensors, dtype, quantize, kind._keep_in_fp32_modules)
    if packed is not None:
        before, after = memory_text(packed.before_bytes), memory_text(packed.after_bytes)
        remarks.append(f"{quantize}: {packed.layers} matrices of the transformer are packed, {before} became {after}")
    return transformer


TRANSFORMERS: Final[Mapping[str, tuple[Any, Callable[..., Any]]]] = {
    "cogvideox": (CogVideoXMotionTransformer, build_transformer),
    "wan": (WanMotionTransformer, wan.build_transformer),
}
"""By backbone the class of the transformer, and what makes one of a checkpoint."""


def small_settings(prepared: PreparedAnimation, _prompts: Sequence[str] = ()) -> Settings:
    """How a job runs the parts of a preset on CogVideoX."""
    return settings_of(prepared.job.preset, torch.device(prepared.device), two_passes=prepared.two_passes)


def settings_of(preset: Preset, device: torch.device, *, two_passes: bool = False) -> Settings:
    """The same for whoever has a preset."""
    return Settings(
        scheduler=make_scheduler(preset.sampler.scheduler, preset.scheduler),
        steps=preset.sampler.steps,
        guidance=preset.sampler.motion_guidance,
        joint_mean_mm=preset.statistics.mean_mm,
        sample_reference=preset.reference_latent == "sample",
        scale_reference=preset.reference_scaled,
        reference_kept=preset.reference_kept,
        color_match=preset.color_match,
        two_passes=two_passes,
        dtype=choose_dtype(device, preset.precision),
        device=device,
    )


def load_large(prepared: PreparedAnimation, remarks: list[str]) -> WanModels:
    """The parts of a preset on Wan, on the CPU, but for the text encoder."""
    preset, parts = prepared.job.preset, prepared.parts
    dtype = choose_dtype(torch.device(prepared.device), preset.precision)
    transformer = load_transformer(preset, parts, torch.device(prepared.device), prepared.job.quantize, remarks)
    assert isinstance(transformer, WanMotionTransformer)
    vae = wan_vae.build_vae(*_config_and_tensors(AutoencoderKLWan, preset.vae, parts["vae"]), dtype)
    clip = parts["picture_encoder"]
    assert clip.path is not None
    no_motion = parts.get("no_motion")
    return WanModels(
        transformer=transformer,
        vae=vae,
        picture_encoder=build_picture_encoder(
            {**preset.picture_encoder, **clip.config()}, read_tensors(clip.path), torch.float32
        ),
        no_motion=read_tensor(no_motion.path, ALONE["no_motion"]) if no_motion and no_motion.path else None,
    )


def large_settings(prepared: PreparedAnimation, prompts: Sequence[str] = ()) -> WanSettings:
    """How a job runs the parts of a preset on Wan; the text encoder is gone when this returns.

    Args:
        prepared: the job.
        prompts: texts that later jobs need, encoded with its own.
    """
    preset, device, sampler = prepared.job.preset, torch.device(prepared.device), prepared.job.preset.sampler
    text, negative = [*find_text(prepared, prompts), None][:2]
    start, end = sampler.guidance_range
    return WanSettings(
        scheduler=make_flow_scheduler(sampler.scheduler, {**preset.scheduler, "shift": sampler.shift}),
        steps=sampler.steps,
        guidance=Guidance(text=sampler.text_guidance, motion=sampler.motion_guidance, start=start, end=end),
        joint_mean_mm=preset.statistics.mean_mm,
        text=text,
        negative=negative,
        clip_from=preset.clip_from,
        color_match=preset.color_match,
        two_passes=prepared.two_passes,
        dtype=choose_dtype(device, preset.precision),
        device=device,
    )


@dataclass(frozen=True)
class Backbone:
    """How the models of a backbone are loaded, and how a job runs them."""

    load: Callable[[PreparedAnimation, list[str]], Models | WanModels]
    settings: Callable[[PreparedAnimation, Sequence[str]], Settings | WanSettings]


BACKBONES: Final[Mapping[str, Backbone]] = {
    "cogvideox": Backbone(load_small, small_settings),
    "wan": Backbone(load_large, large_settings),
}


def _config_and_tensors(
    kind: type[nn.Module], sizes: Mapping[str, Any], part: Located
) -> tuple[Mapping[str, Any], dict[str, Tensor]]:
    """The sizes and the weights of one part, read or drawn."""
    if part.seed is not None:
        with init_empty_weights():
            empty = kind(**arguments_of(kind, sizes, part.part))
        return sizes, seeded_tensors(empty, part.seed)
    assert part.path is not None
    return {**sizes, **part.config()}, read_tensors(part.path)
