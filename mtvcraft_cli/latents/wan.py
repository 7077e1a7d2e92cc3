"""The MV-DiT on Wan 2.1 I2V: a large video diffusion transformer whose blocks also look motion tokens up.

Feed-forward, norms, embeddings and the layers of attention are diffusers' own for Wan. Layer names are diffusers' too,
with `motion_attn` and `norm4` added; checkpoints with the original names are renamed when they are loaded.
Source: paper, section on the motion-aware video DiT (18B); released code (17B).
"""

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from accelerate import init_empty_weights
from diffusers import CacheMixin, ConfigMixin, ModelMixin, WanTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import TimestepEmbedding
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import (
    WanAttention,
    WanTimeTextImageEmbedding,
    WanTransformerBlock,
)
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.checkpoint import arguments_of, check_motion_layers, fill, motion_pattern
from mtvcraft_cli.latents.rope import Rotary, rotate
from mtvcraft_cli.latents.spare import KeepingProcessor, KeyValue

JOINTS = 24
KeySplit = Literal["released", "plain"]
"""How projected motion keys, (b, n, h * k), are split into heads.

"plain": token by token, as everywhere else. "released": the released code reads each sample's keys as one long list of
n * h rows of k numbers, and head a, slot l gets row a * n + l; values are split plainly. Weights belong to the split
that they were trained with: another one gives other pictures.
"""


class TimeSinusoid(nn.Module):
    """Cosines, then sines of the times at width / 2 frequencies 10000^(-i / (width / 2)).

    Angles are float64: those of diffusers are float32, and near time 1000 that moves the blocks by 6e-5.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, timestep: Tensor) -> Tensor:
        """(b,) to (b, width), float32."""
        half = self.width // 2
        frequencies = 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = timestep.cpu().double()[:, None] * frequencies  # on the CPU: some devices have no float64
        return torch.cat([angles.cos(), angles.sin()], dim=1).float().to(timestep.device)


class TimeEmbedding(TimestepEmbedding):
    """diffusers' own, exact under autocast too: training shows the blocks the times that sampling shows them."""

    def forward(self, sample: Tensor) -> Tensor:
        """(b, width) to (b, d) float32."""
        if sample.is_meta:  # shapes alone, to which autocast means nothing
            return super().forward(sample)
        with torch.autocast(sample.device.type, enabled=False):
            return super().forward(sample)


class SelfProcessor:
    """Every patch looks at every patch. Under context parallelism each rank brings its share of them.

    It computes what diffusers' own does, which takes eight walks over queries and keys to turn them.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(self, attn: WanAttention, patches: Tensor, _tokens: None, _mask: None, visual: Rotary) -> Tensor:
        """(b, s, d) to (b, s, d)."""
        if attn.fused_projections:
            query, key, value = attn.to_qkv(patches).chunk(3, dim=-1)
        else:
            query, key, value = attn.to_q(patches), attn.to_k(patches), attn.to_v(patches)
        heads = attn.heads, -1
        seen = dispatch_attention_fn(
            rotate(attn.norm_q(query).unflatten(-1, heads), visual),
            rotate(attn.norm_k(key).unflatten(-1, heads), visual),
            value.unflatten(-1, heads),
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return attn.to_out[0](seen.flatten(-2))


class PictureTextProcessor(KeepingProcessor):
    """Every patch looks at every token of the picture and, apart from that, at every token of the text.

    diffusers' own takes for the picture what lies more than 512 tokens before the end; here the two come apart.
    All ranks of a parallel run hold all tokens.
    """

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: WanAttention,
        patches: Tensor,
        text: Tensor,
        _mask: None = None,
        _places: None = None,
        picture: Tensor | None = None,
    ) -> Tensor:
        """(b, s, d), (b, l, d) and perhaps (b, p, d) to (b, s, d)."""
        query = attn.norm_q(attn.to_q(patches)).unflatten(-1, (attn.heads, -1))  # (b, s, h, k)
        seen = self._look_up(query, *self.once("text", self.of_text, attn, text))
        if picture is not None:
            seen = seen + self._look_up(query, *self.once("picture", self.of_picture, attn, picture))
        return attn.to_out[0](seen)

    def of_text(self, attn: WanAttention, text: Tensor) -> KeyValue:
        """What text tokens (b, n, d) are looked up by, and what is then found, (b, n, h, k) each; steps share them."""
        key, value = _pair(attn, "to_kv", "to_k", "to_v", text)
        return attn.norm_k(key).unflatten(-1, (attn.heads, -1)), value.unflatten(-1, (attn.heads, -1))

    def of_picture(self, attn: WanAttention, picture: Tensor) -> KeyValue:
        """The same of picture tokens."""
        key, value = _pair(attn, "to_added_kv", "add_k_proj", "add_v_proj", picture)
        return attn.norm_added_k(key).unflatten(-1, (attn.heads, -1)), value.unflatten(-1, (attn.heads, -1))

    def _look_up(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """(b, s, h, k) in (b, n, h, k) to (b, s, d)."""
        found = dispatch_attention_fn(query, key, value, backend=self._attention_backend, parallel_config=None)
        return found.flatten(-2)


class MotionProcessor(KeepingProcessor):
    """Every patch looks at every motion token. All ranks of a parallel run hold all motion tokens."""

    _attention_backend = None
    _parallel_config = None

    def __call__(
        self, attn: "MotionAttention", patches: Tensor, tokens: Tensor, _mask: None, places: tuple[Rotary, Rotary]
    ) -> Tensor:
        """(b, s, d) and (b, n, d) to (b, s, d); `places` are the tables of the patches and of the motion tokens."""
        visual, motion = places
        seen = dispatch_attention_fn(
            self.query(attn, patches, visual),
            *self.once("motion", self.key_value, attn, tokens, motion),
            backend=self._attention_backend,
            parallel_config=None,
        )
        return attn.to_out[0](seen.flatten(-2))

    def query(self, attn: "MotionAttention", patches: Tensor, visual: Rotary) -> Tensor:
        """What the patches (b, s, d) look for, (b, s, h, k)."""
        return rotate(attn.norm_q(attn.to_q(patches)).unflatten(-1, (attn.heads, -1)), visual)

    def key_value(self, attn: "MotionAttention", tokens: Tensor, motion: Rotary) -> KeyValue:
        """What the tokens (b, n, d) are looked up by, and what is then found, (b, n, h, k) each.

        Neither depends on the patches nor on the time: they are the same in every denoising step of a window.
        """
        key, value = _pair(attn, "to_kv", "to_k", "to_v", tokens)
        key = split_keys(attn.norm_k(key), attn.heads, attn.key_split)
        return rotate(key, motion), value.unflatten(-1, (attn.heads, -1))


def split_keys(keys: Tensor, heads: int, split: KeySplit) -> Tensor:
    """Motion keys (b, n, h * k) to (b, n, h, k); `KeySplit` says how."""
    if split == "plain":
        return keys.unflatten(-1, (heads, -1))
    batch, tokens, width = keys.shape
    return keys.reshape(batch, heads, tokens, width // heads).transpose(1, 2)


def _pair(attn: WanAttention, fused: str, key: str, value: str, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values, (b, n, d) each, from their own layers or from the one that they were fused into."""
    if attn.fused_projections:
        both: Tensor = getattr(attn, fused)(tokens)
        first, second = both.chunk(2, dim=-1)
        return first, second
    return getattr(attn, key)(tokens), getattr(attn, value)(tokens)


class MotionAttention(WanAttention):
    """Attention from video patches to motion tokens, both turned by their positions.

    b batch, s video patches, n motion tokens, d width, h heads, k = d / h. Queries and keys are normed over all d
    channels before they are split into heads.
    """

    processor: MotionProcessor
    _default_processor_cls = MotionProcessor
    _available_processors = [MotionProcessor]  # noqa: RUF012 - the mixin's own type

    def __init__(self, dim: int, heads: int, eps: float, key_split: KeySplit) -> None:
        width = dim // heads
        super().__init__(dim, heads, width, eps, cross_attention_dim_head=width, processor=MotionProcessor())
        self.key_split = key_split


class WanMotionBlock(WanTransformerBlock):
    """diffusers' block with, in some blocks, motion attention between text and feed-forward, normed and without a gate.

    Norms, modulation and sums are float32 whatever the dtype of the patches, as in diffusers' own.
    """

    norm4: FP32LayerNorm | None
    motion_attn: MotionAttention | None

    def __init__(
        self, dim: int, ffn_dim: int, heads: int, eps: float, *, motion: bool, key_split: KeySplit = "plain"
    ) -> None:
        super().__init__(dim, ffn_dim, heads, cross_attn_norm=True, eps=eps, added_kv_proj_dim=dim)
        self.attn1.set_processor(SelfProcessor())
        self.attn2.set_processor(PictureTextProcessor())
        self.norm4 = FP32LayerNorm(dim, eps) if motion else None
        self.motion_attn = MotionAttention(dim, heads, eps, key_split) if motion else None

    def forward(
        self,
        hidden_states: Tensor,
        time: Tensor,
        text: Tensor,
        picture: Tensor | None,
        tokens: Tensor,
        visual: Rotary,
        motion: Rotary,
    ) -> Tensor:
        """(b, s, d), (b, 6, d), (b, l, d), (b, p, d) and (b, n, d) to (b, s, d)."""
        shift, scale, gate, ff_shift, ff_scale, ff_gate = (self.scale_shift_table + time.float()).chunk(6, dim=1)
        patches = hidden_states
        modulated = (self.norm1(patches.float()) * (1 + scale) + shift).type_as(patches)
        seen = self.attn1(modulated, None, None, visual)
        patches = (patches.float() + seen * gate).type_as(patches)
        patches = patches + self.attn2(self.norm2(patches.float()).type_as(patches), text, picture=picture)
        if self.motion_attn is not None and self.norm4 is not None:
            normed = self.norm4(patches.float()).type_as(patches)
            patches = patches + self.motion_attn(normed, tokens, None, (visual, motion))
        modulated = (self.norm3(patches.float()) * (1 + ff_scale) + ff_shift).type_as(patches)
        return (patches.float() + self.ffn(modulated).float() * ff_gate).type_as(patches)


TransformerBlockRegistry.register(WanMotionBlock, TransformerBlockMetadata(return_hidden_states_index=0))


class VisualPositions(nn.Module):
    """Hands the patches' tables on: context parallelism cuts tables where a module returns them."""

    def forward(self, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """(s, k) each, unchanged."""
        return cos, sin


class WanMotionTransformer(ModelMixin, ConfigMixin, CacheMixin, PeftAdapterMixin, AttentionMixin):
    """The velocity that leads noisy latents to the video, given the character, the motion tokens and a text.

    b batch, f latent frames, c channels, h x w latent pixels, s video patches, n motion tokens of m numbers, l text and
    p picture tokens, d = heads * head width. The defaults are those of the released `17b`.

    Args:
        patch_size: latent frames, rows and columns of a patch.
        num_attention_heads: heads of each attention.
        attention_head_dim: width of a head.
        in_channels: of the noisy latents, the mask and the character's latents together.
        out_channels: channels of the velocity.
        text_dim: width of a text token.
        text_len: text tokens; shorter texts are filled up with zeros, which are attended to like the rest.
        image_dim: width of a picture token.
        freq_dim: cosines and sines of the time.
        ffn_dim: width inside the feed-forward layers.
        num_layers: blocks.
        eps: of all norms but those around the picture tokens.
        motion_every: motion attention in block 0 and every so manieth after it; released `17b` 4, paper 2.
        motion_key_split: how motion keys are split into heads; see `KeySplit`.
        motion_token_dim: width m of a motion token; zeros fill it up to d.
        unconditional_motion_shape: rows and width of learned "no motion" tokens, as `no_motion_tokens` takes them; None
            where the checkpoint has none of its own.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["WanMotionBlock"]  # noqa: RUF012 - the mixins' own types, here and below
    _repeated_blocks = ["WanMotionBlock"]  # noqa: RUF012
    _keep_in_fp32_modules = ["time_embedder", "scale_shift_table", "norm1", "norm2", "norm3", "norm4"]  # noqa: RUF012
    _skip_layerwise_casting_patterns = [  # noqa: RUF012
        "patch_embedding",
        "condition_embedder",
        "norm",
        "unconditional_motion_token",
    ]
    _cp_plan = {  # noqa: RUF012
        "blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3)},
        "rope": {axis: ContextParallelInput(split_dim=0, expected_dims=2, split_output=True) for axis in (0, 1)},
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        patch_size: Sequence[int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 36,
        out_channels: int = 16,
        text_dim: int = 4096,
        text_len: int = 512,
        image_dim: int = 1280,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        eps: float = 1e-6,
        motion_every: int = 4,
        motion_key_split: KeySplit = "released",
        motion_token_dim: int = 3072,
        unconditional_motion_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        dim = num_attention_heads * attention_head_dim
        depth, rows, columns = patch_size
        patch = (depth, rows, columns)
        self.dim, self.text_len, self.motion_token_dim = dim, text_len, motion_token_dim
        self.gradient_checkpointing = False
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch, stride=patch)
        self.condition_embedder = WanTimeTextImageEmbedding(dim, freq_dim, 6 * dim, text_dim, image_dim)
        self.condition_embedder.timesteps_proj = TimeSinusoid(freq_dim)
        self.condition_embedder.time_embedder = TimeEmbedding(freq_dim, dim)
        if unconditional_motion_shape is not None:
            self.unconditional_motion_token = nn.Parameter(torch.randn(*unconditional_motion_shape))
        self.rope = VisualPositions()
        self.blocks = nn.ModuleList(
            WanMotionBlock(
                dim, ffn_dim, num_attention_heads, eps, motion=layer % motion_every == 0, key_split=motion_key_split
            )
            for layer in range(num_layers)
        )
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, out_channels * math.prod(patch))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        motion_tokens: Tensor,
        text: Tensor,
        picture: Tensor | None,
        visual: Rotary,
        motion: Rotary,
    ) -> Tensor:
        """The velocity at one time.

        Args:
            hidden_states: (b, c, f, h, w), the noisy latents, then the mask, then the character's latents.
            timestep: (b,) float, 0..1000, not rounded.
            motion_tokens: (b, n, m) codebook vectors.
            text: (b, l, text_dim) from the text encoder; zeros after the end of a text, and l at most `text_len`.
            picture: (b, p, image_dim) from the picture encoder, or None.
            visual: float32 tables of the s patches.
            motion: float32 tables of the n motion tokens.

        Returns:
            (b, out_channels, f, h, w) in the dtype of `hidden_states`.
        """
        if {table.dtype for table in (*visual, *motion)} != {torch.float32}:
            raise ValueError("rotary tables are float32: an angle of 664 in bfloat16 is off by more than a radian")
        patches = rearrange(self.patch_embedding(hidden_states), "b d f h w -> b (f h w) d").contiguous()
        last, time, text, picture = self.condition_embedder(timestep, self.full_text(text), picture)
        time = time.unflatten(1, (6, -1))
        tokens = self.widened(motion_tokens)
        visual = Rotary(*self.rope(visual.cos, visual.sin))
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                patches = self._gradient_checkpointing_func(block, patches, time, text, picture, tokens, visual, motion)
            else:
                patches = block(patches, time, text, picture, tokens, visual, motion)
        # Where layers are split over cards the last patches come out on another one.
        shift, scale = (self.scale_shift_table + last[:, None].float()).to(patches.device).chunk(2, dim=1)
        patches = (self.norm_out(patches.float()) * (1 + scale) + shift).type_as(patches)
        depth, rows, columns = self.config.patch_size
        return rearrange(
            self.proj_out(patches),
            "b (f h w) (t p q c) -> b c (f t) (h p) (w q)",
            f=hidden_states.shape[2] // depth,
            h=hidden_states.shape[3] // rows,
            t=depth,
            p=rows,
            q=columns,
        )

    def full_text(self, text: Tensor) -> Tensor:
        """Text tokens (b, l, text_dim) with zeros up to `text_len`, as the base model was trained."""
        if text.shape[1] > self.text_len:
            raise ValueError(f"{text.shape[1]} text tokens, more than {self.text_len}")
        return functional.pad(text, (0, 0, 0, self.text_len - text.shape[1]))

    def widened(self, tokens: Tensor) -> Tensor:
        """Motion tokens (b, n, m) with zeros up to the width of the model, (b, n, d)."""
        if tokens.shape[-1] != self.motion_token_dim:
            raise ValueError(f"motion tokens have {self.motion_token_dim} numbers, not {tokens.shape[-1]}")
        return functional.pad(tokens, (0, self.dim - tokens.shape[-1]))


def no_motion_tokens(learned: Tensor, frames: int) -> Tensor:
    """The "no motion" tokens of a window, (frames * 24, m), from learned ones: the model's own or the small model's.

    Args:
        learned: (24, m), one set per joint, which is repeated in every latent frame; or (24 * latent frames of the
            windows trained on, m), which is resampled linearly, ends on ends, where `frames` differs.
        frames: latent frames.
    """
    sets = learned.unflatten(0, (-1, JOINTS))  # (frames learned, 24, m)
    if len(sets) not in (1, frames):
        series = rearrange(sets.float(), "f j m -> j m f")
        stretched = functional.interpolate(series, size=frames, mode="linear", align_corners=True)
        sets = rearrange(stretched, "j m f -> f j m").to(learned.dtype)
    return sets.expand(frames, -1, -1).flatten(0, 1)


def build_transformer(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype | None = None, *, silent: bool = False
) -> WanMotionTransformer:
    """Make the transformer of a checkpoint, released or our own, ready to run.

    Args:
        config: a preset's sizes or a checkpoint's `config.json`.
        tensors: the checkpoint, in the released layout or ours. Which blocks look at the motion is read from its names.
        dtype: what to compute in; None keeps the checkpoint's. Norms, modulation and time embedding stay float32.
        silent: whether motion layers may be all zero, as new ones are before training.

    Raises:
        MtvcraftError: motion layers are missing or all zero, or sit in other blocks than `config` says; tensors are
            missing, left over or misshaped; `config` asks for what this transformer doesn't do; or motion attention
            doesn't turn by positions (`check_turning`).
    """
    kept = from_released(tensors)
    if not silent:
        check_motion_layers(kept, "motion_attn")
    kwargs = read_config(config)
    kwargs["motion_every"] = motion_pattern(kept, "blocks", "motion_attn", kwargs.get("motion_every"))
    if (token := kept.get("unconditional_motion_token")) is not None:
        kwargs["unconditional_motion_shape"] = kwargs.get("unconditional_motion_shape") or tuple(token.shape)
    with init_empty_weights():
        transformer = WanMotionTransformer(**kwargs)
    if dtype is not None:
        whole = set(WanMotionTransformer._keep_in_fp32_modules)
        kept = {
            name: tensor.to(dtype if whole.isdisjoint(name.split(".")) else torch.float32)
            for name, tensor in kept.items()
        }
    fill(transformer, kept, "transformer").eval()
    check_turning(transformer)
    return transformer


@torch.no_grad()
def check_turning(transformer: WanMotionTransformer) -> None:
    """Make sure that the first motion layer turns queries and keys by their positions, cosine and sine.

    A port of this model left out the sines, and its characters hardly moved; nothing else about them looked wrong. So
    what the layer makes of random tokens at random angles is compared with a product of complex numbers.

    Args:
        transformer: on one device, not yet wrapped by offloading.

    Raises:
        MtvcraftError: it does not; no checkpoint can cause that.
    """
    attn = next(part for part in transformer.modules() if isinstance(part, MotionAttention))
    generator = torch.Generator().manual_seed(0)
    weight = attn.to_q.weight
    angles = 100 * torch.randn(JOINTS, weight.shape[0] // attn.heads // 2, generator=generator, dtype=torch.float64)
    pairs = angles.repeat_interleave(2, dim=1)
    table = Rotary(pairs.cos().float(), pairs.sin().float()).to(weight.device)
    tokens = torch.randn(1, JOINTS, weight.shape[1], generator=generator).to(weight)
    query, key = attn.norm_q(attn.to_q(tokens)), attn.norm_k(attn.to_k(tokens))
    for what, still, turned in (
        ("queries", split_keys(query, attn.heads, "plain"), attn.processor.query(attn, tokens, table)),
        ("keys", split_keys(key, attn.heads, attn.key_split), attn.processor.key_value(attn, tokens, table)[0]),
    ):
        wanted = _complex(still) * torch.polar(torch.ones_like(angles), angles)[:, None]
        if (_complex(turned) - wanted).norm() > 0.02 * wanted.norm():  # bfloat16 leaves 0.002, lost sines 0.7
            raise MtvcraftError(
                f"motion attention does not turn its {what} by their positions; characters would hardly move",
                hint="torch or diffusers are damaged or of a version that breaks this: reinstall mtvcraft",
                exit=Exit.FAULT,
            )


def _complex(heads: Tensor) -> Tensor:
    """Columns 2i and 2i + 1 as one number: (b, n, h, k) to (b, n, h, k / 2)."""
    return torch.view_as_complex(heads.cpu().double().unflatten(-1, (-1, 2)).contiguous())


FIXED: dict[str, tuple[Any, ...]] = {
    "cross_attn_norm": (True,),
    "model_type": ("i2v",),
    "pos_embed_seq_len": (None,),
    "qk_norm": (True, "rms_norm_across_heads"),
    "use_2d": (False,),
}
"""What a config of the Wan family may also say, and the only ways in which it is done here."""
ORIGINAL = {"in_dim": "in_channels", "out_dim": "out_channels", "num_heads": "num_attention_heads"}
"""Names of sizes in the `config.json` of a released checkpoint; where it also has ours, those mean nothing there."""


def read_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Pick the arguments of `WanMotionTransformer` from a preset or a checkpoint's `config.json`, ours or the original.

    Keys of the base model that have no effect here are dropped.

    Raises:
        MtvcraftError: a setting that would compute something else, or a misspelt key.
    """
    for key, allowed in FIXED.items():
        if config.get(key, allowed[0]) not in allowed:
            raise MtvcraftError(
                f"the transformer's config has `{key}: {config[key]}`, and only `{allowed[0]}` can be run",
                hint="check that the checkpoint is an MV-DiT on Wan 2.1 I2V",
                exit=Exit.WEIGHTS,
            )
    if (split := config.get("motion_key_split", "plain")) not in get_args(KeySplit):
        raise MtvcraftError(
            f"the transformer's config has `motion_key_split: {split}`",
            hint=f"it is one of {', '.join(get_args(KeySplit))}",
            exit=Exit.USAGE,
        )
    renamed = dict(config) | {ours: config[original] for original, ours in ORIGINAL.items() if original in config}
    if "dim" in config and "num_attention_heads" in renamed:
        renamed["attention_head_dim"] = config["dim"] // renamed["num_attention_heads"]
    base = inspect.signature(WanTransformer3DModel.__init__).parameters
    unused = {*base, *FIXED, *ORIGINAL, "dim", "hidden_size", "window_size"}
    return arguments_of(WanMotionTransformer, renamed, "transformer", unused=unused)


def _attention(released: str, ours: str, **more: str) -> dict[str, str]:
    layers = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "norm_q": "norm_q", "norm_k": "norm_k"}
    return {f"{released}.{name}": f"{ours}.{layer}" for name, layer in (layers | more).items()}


BLOCK_NAMES = {
    "modulation": "scale_shift_table",
    **_attention("self_attn", "attn1"),
    "norm3": "norm2",
    **_attention("cross_attn", "attn2", k_img="add_k_proj", v_img="add_v_proj", norm_k_img="norm_added_k"),
    **_attention("motion_attn", "motion_attn"),
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
"""Layers of a block in the released layout, and what they are called here; `norm4` has one name."""
NAMES = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
"""The same outside the blocks; `patch_embedding` has one name."""
PARAMETER = re.compile(r"(blocks\.\d+\.)?(.+?)(\.weight|\.bias)?")
UNUSED = ".attn2.norm_added_q.weight"
"""Left over in some checkpoints of the base model, and never used."""


def our_name(released: str) -> str:
    """Name of a layer or parameter here, e.g. `blocks.0.attn1.to_q.weight` for `blocks.0.self_attn.q.weight`.

    Names that are the same in both layouts, are ours already, or belong to neither come back as they are.
    """
    return _renamed(released, BLOCK_NAMES, NAMES)


def released_name(ours: str) -> str:
    """Name of a layer or parameter in the released layout; the inverse of `our_name`."""
    return _renamed(
        ours,
        {name: released for released, name in BLOCK_NAMES.items()},
        {name: released for released, name in NAMES.items()},
    )


def _renamed(name: str, in_block: Mapping[str, str], outside: Mapping[str, str]) -> str:
    if (parts := PARAMETER.fullmatch(name)) is None:
        return name
    block, layer, kind = parts.groups(default="")
    return f"{block}{(in_block if block else outside).get(layer, layer)}{kind}"


def from_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name the tensors of a checkpoint as they are named here. Our own layout passes."""
    return {our_name(name): tensor for name, tensor in tensors.items() if not name.endswith(UNUSED)}


def to_released(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Name them as in the released layout, so that other programs can load them."""
    return {released_name(name): tensor for name, tensor in tensors.items()}
