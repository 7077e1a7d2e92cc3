"""The MV-DiT on CogVideoX: a video diffusion transformer whose blocks look motion tokens up by attention.

Layer names are those of the released checkpoints. Source: paper, section on the motion-aware video DiT; released code.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import CacheMixin, CogVideoXTransformer3DModel, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin, AttentionModuleMixin, FeedForward
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import TimestepEmbedding
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.checkpoint import arguments_of, check_motion_layers, fill, motion_pattern
from mtvcraft_cli.latents.rope import Rotary, only, rotate
from mtvcraft_cli.latents.spare import KeepingProcessor, KeyValue

JOINTS = 24
LEARNED_FRAMES = 13
"""Latent frames that learnable positions are kept for; windows of other lengths get them stretched."""
MOTION_AXES = {
    "4d": "txyz",
    "txy": "txy",
    "3d": "xyz",
    "2d": "xy",
    "1d": "t",
    "none": "",
    "learnable": "",
    "dynamic": "txyz",
}
"""By which axes motion attention tells places apart (paper, ablations)."""
VISUAL_AXES = "ttyyyxxx"
"""Whose columns are whose in the head of a video patch, in eighths; motion tokens have a quarter for each axis."""


class PatchEmbed(nn.Module):
    """Latents to tokens, one per patch.

    b batch, f latent frames, c channels, h x w latent pixels, p side of a patch, s = f * h/p * w/p patches, d width.
    """

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, latents: Tensor) -> Tensor:
        """(b, f, c, h, w) to (b, s, d)."""
        patches = self.proj(latents.flatten(0, 1))
        return rearrange(patches, "(b f) d h w -> b (f h w) d", b=len(latents))


def time_sinusoid(timestep: Tensor, dim: int, *, cosines_first: bool, shift: int) -> Tensor:
    """Cosines and sines of the times (b,) at dim/2 frequencies, (b, dim) float32.

    Frequency i is 10000^(-i / (dim/2 - shift)). Exponents, angles and their cosines are float32, as the released
    weights saw them; only the exponential is taken in float64 and rounded, since that of float32 differs between
    machines by enough to turn angles near 999 by 6e-5.
    """
    half = torch.arange(dim // 2, dtype=torch.float32)
    exponents = -math.log(10000.0) * half / (dim // 2 - shift)
    angles = timestep[:, None].float() * exponents.double().exp().float().to(timestep.device)
    halves = [angles.cos(), angles.sin()]
    return torch.cat(halves if cosines_first else halves[::-1], dim=1)


class Modulation(nn.Module):
    """LayerNorm that the time shifts and scales; with three parts it gives a gate for the branch behind it as well.

    b batch, s tokens, d width, e width of the time embedding.
    """

    def __init__(self, time_embed_dim: int, dim: int, parts: int, eps: float) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(time_embed_dim, parts * dim)
        self.norm = nn.LayerNorm(dim, eps=eps)

    def forward(self, patches: Tensor, time: Tensor) -> tuple[Tensor, ...]:
        """(b, s, d) and (b, e) to the modulated (b, s, d) and, where there is one, the gate (b, 1, d)."""
        shift, scale, *gate = self.linear(functional.silu(time))[:, None].chunk(self.parts, dim=-1)
        return (self.norm(patches) * (1 + scale) + shift, *gate)


class SelfProcessor:
    """Every patch looks at every patch. Under context parallelism each rank brings its share of them."""

    _attention_backend = None
    _parallel_config = None

    def __call__(self, attn: "RotaryAttention", patches: Tensor, visual: Rotary) -> Tensor:
        """(b, s, d) to (b, s, d)."""
        if attn.fused_projections:
            parts = attn.to_qkv(patches).chunk(3, dim=-1)
        else:
            parts = attn.to_q(patches), attn.to_k(patches), attn.to_v(patches)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)) for part in parts)  # (b, s, h, k) each
        seen = dispatch_attention_fn(
            rotate(attn.norm_q(query), visual),
            rotate(attn.norm_k(key), visual),
            value,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return attn.to_out[0](seen.flatten(-2))


class MotionProcessor(KeepingProcessor):
    """Every patch looks at every motion token. All ranks of a parallel run hold all motion tokens."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self, attn: "RotaryAttention", patches: Tensor, tokens: Tensor, visual: Rotary, motion: Rotary
    ) -> Tensor:
        """(b, s, d) and (b, n, d) to (b, s, d)."""
        query = attn.to_q(patches).unflatten(-1, (attn.heads, -1))  # (b, s, h, k)
        key, value = self.once("motion", self.key_value, attn, tokens, motion)
        seen = dispatch_attention_fn(
            rotate(attn.norm_q(query), visual), key, value, backend=self._attention_backend, parallel_config=None
        )
        return attn.to_out[0](seen.flatten(-2))

    def key_value(self, attn: "RotaryAttention", tokens: Tensor, motion: Rotary) -> KeyValue:
        """What the tokens (b, n, d) are looked up by, and what is then found, (b, n, h, k) each.

        Neither depends on the patches nor on the time: they are the same in every denoising step of a window.
        """
        layers = [attn.to_k, attn.to_v]
        parts = attn.to_kv(tokens).chunk(2, dim=-1) if attn.fused_projections else [layer(tokens) for layer in layers]
        key, value = (part.unflatten(-1, (attn.heads, -1)) for part in parts)
        return rotate(attn.norm_k(key), motion), value


class RotaryAttention(nn.Module, AttentionModuleMixin):
    """Attention whose queries and keys are normed head by head, then turned by their positions.

    b batch, s video patches, n motion tokens, d width, h heads, k = d / h.
    """

    processor: Callable[..., Tensor]
    to_qkv: nn.Linear  # these two where projections are fused
    to_kv: nn.Linear
    _default_processor_cls = SelfProcessor
    _available_processors = [SelfProcessor, MotionProcessor]  # noqa: RUF012 - the mixin's own type

    def __init__(self, dim: int, heads: int, processor: SelfProcessor | MotionProcessor) -> None:
        super().__init__()
        self.heads = heads
        self.use_bias = True
        self.is_cross_attention = isinstance(processor, MotionProcessor)
        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = nn.LayerNorm(dim // heads, eps=1e-6)
        self.norm_k = nn.LayerNorm(dim // heads, eps=1e-6)
        self.processor = processor

    def forward(self, *inputs: Any) -> Tensor:
        """What the processor makes of patches, tokens and positions, (b, s, d)."""
        return self.processor(self, *inputs)


class MotionBlock(nn.Module):
    """Self attention and feed-forward with gates; between them, in some blocks, motion attention without one."""

    def __init__(self, dim: int, heads: int, time_embed_dim: int, eps: float, *, motion: bool) -> None:
        super().__init__()
        self.norm1 = Modulation(time_embed_dim, dim, 3, eps)
        self.attn1 = RotaryAttention(dim, heads, SelfProcessor())
        self.attn0 = RotaryAttention(dim, heads, MotionProcessor()) if motion else None
        self.norm2 = Modulation(time_embed_dim, dim, 3, eps)
        self.ff = FeedForward(dim, activation_fn="gelu-approximate")

    def forward(
        self, hidden_states: Tensor, time: Tensor, tokens: Tensor, visual: Rotary, seeking: Rotary, motion: Rotary
    ) -> Tensor:
        """(b, s, d), (b, e) and (b, n, d) to (b, s, d); `seeking` are the patches' tables for motion attention."""
        modulated, gate = self.norm1(hidden_states, time)
        hidden_states = hidden_states + gate * self.attn1(modulated, visual)
        if self.attn0 is not None:
            hidden_states = hidden_states + self.attn0(hidden_states, tokens, seeking, motion)
        modulated, gate = self.norm2(hidden_states, time)
        return hidden_states + gate * self.ff(modulated)


TransformerBlockRegistry.register(MotionBlock, TransformerBlockMetadata(return_hidden_states_index=0))


class VisualPositions(nn.Module):
    """Hands the patches' tables on: context parallelism cuts tables where a module returns them."""

    def forward(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """(s, k) each, unchanged."""
        return cos, sin


class CogVideoXMotionTransformer(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin, AttentionMixin):
    """The velocity that leads noisy latents to the video, given the character's latents and the motion tokens.

    b batch, f latent frames, c channels, h x w latent pixels, p side of a patch, s = f * h/p * w/p patches, n motion
    tokens, d = heads * head width. The defaults are those of the released `7b`.

    Args:
        num_attention_heads: heads of each attention.
        attention_head_dim: width of a head.
        in_channels: noisy and reference channels together.
        out_channels: channels of the velocity.
        num_layers: blocks.
        motion_every: motion attention in block 0 and every so manieth after it; released `7b` 1, paper 2.
        unconditional_motion_shape: rows and width of the learned "no motion" tokens. 24 rows are one set per joint,
            shared by all frames; more are 24 per latent frame of the windows trained on.
        time_embed_dim: width e of the time embedding.
        patch_size: side p of a patch, latent pixels.
        norm_eps: of all layer norms but those of queries and keys.
        flip_sin_to_cos: whether the time's cosines come before its sines.
        freq_shift: of the time's frequencies.
        motion_positions: what motion attention knows of where things are: "4d" (t, x, y, z), or one of the variants
            that the paper compares it with: "txy", "3d" (x, y, z), "2d" (x, y), "1d" (t) and "none"; "dynamic", whose
            joints lie where they do in the driver's first frame and not where they do on average; and "learnable",
            added vectors per joint and latent frame in the place of rotary positions.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["MotionBlock", "PatchEmbed"]  # noqa: RUF012 - the mixins' own types, here and below
    _repeated_blocks = ["MotionBlock"]  # noqa: RUF012
    # Each of the 2 * num_layers modulations is made of this one small vector.
    _keep_in_fp32_modules = ["time_embedding"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = ["patch_embed", "norm", "unconditional_motion_token"]  # noqa: RUF012
    _cp_plan = {  # noqa: RUF012
        "transformer_blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
        "rope": {axis: ContextParallelInput(split_dim=0, expected_dims=2, split_output=True) for axis in (0, 1)},
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        num_attention_heads: int = 48,
        attention_head_dim: int = 64,
        in_channels: int = 32,
        out_channels: int = 16,
        num_layers: int = 42,
        motion_every: int = 1,
        unconditional_motion_shape: Sequence[int] = (312, 3072),
        time_embed_dim: int = 512,
        patch_size: int = 2,
        norm_eps: float = 1e-5,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        motion_positions: str = "4d",
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        self.motion_axes = MOTION_AXES[motion_positions]
        self.gradient_checkpointing = False
        self.cosines_first, self.freq_shift = flip_sin_to_cos, freq_shift
        self.patch_embed = PatchEmbed(in_channels, dim, patch_size)
        self.time_embedding = TimestepEmbedding(dim, time_embed_dim)
        self.unconditional_motion_token = nn.Parameter(torch.randn(*unconditional_motion_shape))
        if motion_positions == "learnable":
            self.motion_position_joint = nn.Parameter(torch.zeros(JOINTS, dim))
            self.motion_position_frame = nn.Parameter(torch.zeros(LEARNED_FRAMES, dim))
        self.rope = VisualPositions()
        self.transformer_blocks = nn.ModuleList(
            MotionBlock(dim, num_attention_heads, time_embed_dim, norm_eps, motion=layer % motion_every == 0)
            for layer in range(num_layers)
        )
        self.norm_final = nn.LayerNorm(dim, eps=norm_eps)
        self.norm_out = Modulation(time_embed_dim, dim, 2, norm_eps)
        self.proj_out = nn.Linear(dim, out_channels * patch_size**2)

    def forward(
        self, hidden_states: Tensor, timestep: Tensor, motion_tokens: Tensor, visual: Rotary, motion: Rotary
    ) -> Tensor:
        """The velocity at one time.

        Args:
            hidden_states: (b, f, c, h, w), the noisy latents followed by the reference's, joined on the channels.
            timestep: (b,) int64, 0..999.
            motion_tokens: (b, n, d) codebook vectors.
            visual: tables of the s patches.
            motion: tables of the n motion tokens, the same for all clips or (b, n, k).

        Returns:
            (b, f, out_channels, h, w) in the dtype of `hidden_states`.
        """
        frames, _, height, width = hidden_states.shape[1:]
        patch = self.config.patch_size
        patches = self.patch_embed(hidden_states)
        sinusoid = time_sinusoid(timestep, patches.shape[-1], cosines_first=self.cosines_first, shift=self.freq_shift)
        time = self.time_embedding(sinusoid.to(self.time_embedding.linear_1.weight.dtype))
        time = time.to(patches.dtype)
        visual = Rotary(*self.rope(visual.cos, visual.sin))
        motion_tokens = self.placed(motion_tokens)
        places = (visual, only(visual, self.motion_axes, VISUAL_AXES), only(motion, self.motion_axes, "txyz"))
        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                patches = self._gradient_checkpointing_func(block, patches, time, motion_tokens, *places)
            else:
                patches = block(patches, time, motion_tokens, *places)
        (patches,) = self.norm_out(self.norm_final(patches), time)
        return rearrange(
            self.proj_out(patches),
            "b (f h w) (c p q) -> b f c (h p) (w q)",
            f=frames,
            h=height // patch,
            w=width // patch,
            p=patch,
            q=patch,
        )

    def placed(self, tokens: Tensor) -> Tensor:
        """Motion tokens (b, n, d) with the learned vectors of their joints and latent frames, where there are such."""
        if self.config.motion_positions != "learnable":
            return tokens
        frames = tokens.shape[1] // JOINTS
        series = self.motion_position_frame.T[None].float()  # (1, d, frames learned)
        frame = functional.interpolate(series, size=frames, mode="linear", align_corners=True)[0].T
        places = frame[:, None] + self.motion_position_joint  # (f, 24, d)
        return tokens + places.flatten(0, 1).to(tokens.dtype)

    @property
    def dynamic(self) -> bool:
        """Whether motion tokens lie where the driver's joints do in its first frame, and not on average."""
        return bool(self.config.motion_positions == "dynamic")

    def resamples(self, frames: int) -> bool:
        """Whether the "no motion" tokens were learned for another number of latent frames and must be stretched."""
        return len(self.unconditional_motion_token) not in (JOINTS, frames * JOINTS)

    def unconditional_tokens(self, frames: int) -> Tensor:
        """The "no motion" tokens of a window, (frames * 24, d).

        One set per joint is repeated in every latent frame. Tokens learned frame by frame are resampled linearly, ends
        on ends, where `resamples` says so.
        """
        learned = self.unconditional_motion_token.unflatten(0, (-1, JOINTS))  # (frames learned, 24, d)
        if self.resamples(frames):
            series = rearrange(learned.float(), "f j d -> j d f")
            stretched = functional.interpolate(series, size=frames, mode="linear", align_corners=True)
            learned = rearrange(stretched, "j d f -> f j d").to(learned.dtype)
        return learned.expand(frames, -1, -1).flatten(0, 1)


def build_transformer(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None, *, silent: bool = False
) -> CogVideoXMotionTransformer:
    """Make the transformer of a checkpoint, released or our own, ready to run.

    Args:
        config: a preset's sizes or a checkpoint's `config.json`.
        tensors: the checkpoint, in the released layout or ours. Which blocks look at the motion is read from its names.
        dtype: what to compute in; None keeps the checkpoint's.
        silent: whether motion layers may be all zero, as new ones are before training.

    Raises:
        MtvcraftError: motion layers are missing or all zero, or sit in other blocks than `config` says; tensors are
            missing, left over or misshaped; or `config` asks for what this transformer doesn't do.
    """
    kept = from_released(tensors)
    if not silent:
        check_motion_layers(kept, "attn0")
    kwargs = read_config(config)
    kwargs["motion_every"] = motion_pattern(kept, "transformer_blocks", "attn0", kwargs.get("motion_every"))
    if (token := kept.get("unconditional_motion_token")) is not None:
        kwargs.setdefault("unconditional_motion_shape", tuple(token.shape))
    with init_empty_weights():
        transformer = CogVideoXMotionTransformer(**kwargs)
    if dtype is not None:
        whole = tuple(f"{name}." for name in CogVideoXMotionTransformer._keep_in_fp32_modules)
        kept = {name: tensor.to(torch.float32 if name.startswith(whole) else dtype) for name, tensor in kept.items()}
    return fill(transformer, kept, "transformer").eval()


FIXED = {
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "norm_elementwise_affine": True,
    "ofs_embed_dim": None,
    "patch_bias": True,
    "patch_size_t": None,
    "timestep_activation_fn": "silu",
    "use_rotary_positional_embeddings": True,
}
"""What a config of the CogVideoX family may also say, and the only way in which it is done here."""


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the arguments of `CogVideoXMotionTransformer` from a preset or a checkpoint's `config.json`.

    The base model's other keys (picture sizes, text lengths, learned positions) have no effect here and are dropped.

    Raises:
        MtvcraftError: a setting that would compute something else, or a misspelt key.
    """
    for key, wanted in FIXED.items():
        if config.get(key, wanted) != wanted:
            raise MtvcraftError(
                f"the transformer's config has `{key}: {config[key]}`, and only `{wanted}` can be run",
                hint="check that the checkpoint is an MV-DiT on CogVideoX",
                exit=Exit.WEIGHTS,
            )
    if (positions := config.get("motion_positions", "4d")) not in MOTION_AXES:
        raise MtvcraftError(
            f"the transformer's config has `motion_positions: {positions}`",
            hint=f"it is one of {', '.join(MOTION_AXES)}",
            exit=Exit.USAGE,
        )
    base = inspect.signature(CogVideoXTransformer3DModel.__init__).parameters
    return arguments_of(CogVideoXMotionTransformer, config, "transformer", unused=base)


TEXT = "patch_embed.text_proj"
"""Left over from the base model; the released checkpoints hold it and never use it."""
BLOCK_MODULATION = re.compile(r"(transformer_blocks\.\d+\.norm[12])\.linear\.(weight|bias)")
"""Six parts in a released checkpoint, of which the last three belonged to the text and are never used."""


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what the released layout holds and nothing uses: 397 M parameters of the `7b`. Our own layout passes."""
    kept = {}
    for name, tensor in tensors.items():
        if name.startswith(f"{TEXT}."):
            continue
        norm = tensors.get(f"{part[1]}.norm.weight") if (part := BLOCK_MODULATION.fullmatch(name)) else None
        unused = norm is not None and len(tensor) == 6 * len(norm)
        kept[name] = tensor[: len(tensor) // 2].clone() if unused else tensor
    return kept


def to_released(tensors: Mapping[str, Tensor], text_embed_dim: int = 4096) -> dict[str, Tensor]:
    """Put zeros where the released layout holds what nothing uses, so that other programs can load it."""
    whole = {
        name: torch.cat([tensor, torch.zeros_like(tensor)]) if BLOCK_MODULATION.fullmatch(name) else tensor
        for name, tensor in tensors.items()
    }
    bias = tensors["patch_embed.proj.bias"]
    return whole | {
        f"{TEXT}.weight": bias.new_zeros(len(bias), text_embed_dim),
        f"{TEXT}.bias": torch.zeros_like(bias),
    }
