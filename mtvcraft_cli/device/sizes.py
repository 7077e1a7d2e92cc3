"""How many numbers each network holds, from a preset's sizes alone: no torch, no checkpoint.

d width, e width of the time embedding, z latent channels. Defaults are those of the classes that the sizes are for.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeAlias

Sizes: TypeAlias = Mapping[str, Any]
"""Constructor arguments, as a preset or a `config.json` names them."""

UMT5: Final[dict[str, int]] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
}
"""The text encoder that Wan is published with."""
CLIP: Final[dict[str, int]] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
"""The picture tower that Wan is published with."""


@dataclass(frozen=True)
class Count:
    """Numbers of one network."""

    all: int
    whole: int = 0
    """Those among them that stay float32 whatever the rest computes in."""
    blocks: int = 0
    """Those in its repeated blocks, all together; 0 where it isn't made of blocks."""
    block: int = 0
    """Those of the largest block."""
    leaf: int = 0
    """Those of the largest single layer."""
    linear: int = 0
    """Those that can be quantised: matrices of the blocks outside motion attention."""
    matrix: int = 0
    """Those of the largest of these."""
    pinned: int = 0
    """Those of the blocks, each matrix counted as the next power of two: what PyTorch pins for it in RAM. 0 where
    that isn't counted."""

    def bytes(self, wide: int) -> int:
        """What they take where a number has `wide` bytes (4 or 2)."""
        return wide * (self.all - self.whole) + 4 * self.whole


def _linear(inputs: int, outputs: int, bias: bool = True) -> int:
    return inputs * outputs + (outputs if bias else 0)


def _more_pinned(*matrices: int) -> int:
    """By how much the next powers of two are more than these."""
    return sum((1 << (numbers - 1).bit_length()) - numbers for numbers in matrices)


def _conv(inputs: int, outputs: int, kernel: int) -> int:
    """A convolution with bias; `kernel` counts its places, 27 for 3 x 3 x 3."""
    return inputs * outputs * kernel + outputs


def small_transformer(sizes: Sizes) -> Count:
    """The MV-DiT on CogVideoX, without what released checkpoints hold and nothing uses (`small_unused`)."""
    head = sizes.get("attention_head_dim", 64)
    wide, time = sizes.get("num_attention_heads", 48) * head, sizes.get("time_embed_dim", 512)
    patch, layers = sizes.get("patch_size", 2) ** 2, sizes.get("num_layers", 42)
    embedding = _linear(wide, time) + _linear(time, time)
    attention = 4 * _linear(wide, wide) + 4 * head
    modulation = _linear(time, 3 * wide) + 2 * wide
    block = 2 * modulation + attention + _linear(wide, 4 * wide) + _linear(4 * wide, wide)
    ends = _linear(sizes.get("in_channels", 32) * patch, wide) + _linear(wide, sizes.get("out_channels", 16) * patch)
    ends += 2 * wide + _linear(time, 2 * wide) + 2 * wide + prod(sizes.get("unconditional_motion_shape", (312, 3072)))
    if sizes.get("motion_positions") == "learnable":
        ends += (24 + 13) * wide
    motion = len(range(0, layers, sizes.get("motion_every", 1)))
    square, more = wide * wide, 2 * _more_pinned(3 * time * wide)
    more = layers * (more + 4 * _more_pinned(square) + 2 * _more_pinned(4 * square)) + 4 * motion * _more_pinned(square)
    return Count(
        embedding + layers * block + motion * attention + ends,
        whole=embedding,
        blocks=layers * block + motion * attention,
        block=block + attention,
        leaf=_linear(wide, 4 * wide),
        linear=layers * 12 * wide * wide,
        matrix=4 * wide * wide,
        pinned=layers * block + motion * attention + more,
    )


def small_unused(sizes: Sizes, text: int = 4096) -> int:
    """What a released checkpoint of it holds on top: half of each modulation, and the projection of a text."""
    wide = sizes.get("num_attention_heads", 48) * sizes.get("attention_head_dim", 64)
    modulation = _linear(sizes.get("time_embed_dim", 512), 3 * wide)
    return 2 * sizes.get("num_layers", 42) * modulation + _linear(text, wide)


def large_transformer(sizes: Sizes) -> Count:
    """The MV-DiT on Wan. Norms, modulation and time embedding stay float32."""
    wide = sizes.get("num_attention_heads", 40) * sizes.get("attention_head_dim", 128)
    inner, layers = sizes.get("ffn_dim", 13824), sizes.get("num_layers", 40)
    patch, picture = prod(sizes.get("patch_size", (1, 2, 2))), sizes.get("image_dim", 1280)
    time = _linear(sizes.get("freq_dim", 256), wide) + _linear(wide, wide)
    embedder = _linear(wide, 6 * wide) + _linear(sizes.get("text_dim", 4096), wide) + _linear(wide, wide)
    embedder += _linear(picture, picture) + _linear(picture, wide)
    attention = 4 * _linear(wide, wide) + 2 * wide
    block = 2 * attention + 2 * _linear(wide, wide) + wide + _linear(wide, inner) + _linear(inner, wide)
    ends = _linear(sizes.get("in_channels", 36) * patch, wide) + _linear(wide, sizes.get("out_channels", 16) * patch)
    ends += prod(sizes.get("unconditional_motion_shape") or (0,))
    motion = len(range(0, layers, sizes.get("motion_every", 4)))
    whole = time + 2 * picture + 2 * wide + layers * (2 * wide + 6 * wide) + motion * 2 * wide + 2 * wide
    blocks = layers * (block + 8 * wide) + motion * (attention + 2 * wide)
    squares = 10 * layers + 4 * motion
    more = squares * _more_pinned(wide * wide) + 2 * layers * _more_pinned(wide * inner)
    return Count(
        embedder + layers * block + motion * attention + ends + whole,
        whole=whole,
        blocks=blocks,
        block=block + 8 * wide + attention + 2 * wide,
        leaf=_linear(wide, inner),
        linear=layers * (10 * wide * wide + 2 * wide * inner),
        matrix=wide * max(wide, inner),
        pinned=blocks + more,
    )


def latent_px(vae: Sizes) -> int:
    """Pixels of a side that become one latent pixel: each of a VAE's levels but the last halves both sides."""
    levels = vae.get("block_out_channels", vae.get("dim_mult", (1, 2, 4, 4)))
    return int(2 ** (len(levels) - 1))


def latent_size(vae: Sizes, size_px: tuple[int, int]) -> tuple[int, int]:
    """Width and height in latent pixels."""
    px = latent_px(vae)
    return size_px[0] // px, size_px[1] // px


def small_vae(sizes: Sizes) -> Count:
    """CogVideoX's VAE, encoder and decoder."""
    channels = sizes.get("block_out_channels", (128, 256, 256, 512))
    latent, layers = sizes.get("latent_channels", 16), sizes.get("layers_per_block", 3)

    def block(inputs: int, outputs: int, spatial: int) -> int:
        norms = sum(2 * wide + 2 * _conv(spatial, wide, 1) * (spatial > 0) for wide in (inputs, outputs))
        shortcut = _conv(inputs, outputs, 1) if inputs != outputs else 0
        return norms + _conv(inputs, outputs, 27) + _conv(outputs, outputs, 27) + shortcut

    def half(levels: Sequence[int], first: int, last: int, depth: int, spatial: int, middle: int) -> int:
        held = _conv(first, levels[0], 27) + _conv(levels[-1], last, 27) + 2 * block(middle, middle, spatial)
        held += 2 * levels[-1] + 2 * _conv(spatial, levels[-1], 1) * (spatial > 0)
        before = levels[0]
        for index, wide in enumerate(levels):
            held += sum(block(before if layer == 0 else wide, wide, spatial) for layer in range(depth))
            held += _conv(wide, wide, 9) if index < len(levels) - 1 else 0
            before = wide
        return held

    encoder = half(channels, sizes.get("in_channels", 3), 2 * latent, layers, 0, channels[-1])
    decoder = half(channels[::-1], latent, sizes.get("out_channels", 3), layers + 1, latent, channels[-1])
    return Count(encoder + decoder)


@dataclass(frozen=True)
class Level:
    """One level of Wan's VAE, as its encoder or decoder walks through it."""

    blocks: tuple[tuple[int, int], ...]
    """Channels in and out of each residual block."""
    resample: int
    """Channels that are resampled after them; 0 at the last level."""
    time: bool
    """Whether time is resampled, too."""


def wan_levels(sizes: Sizes, *, decoder: bool) -> Iterator[Level]:
    """The levels in the order that data goes through them."""
    mults, blocks = sizes.get("dim_mult", (1, 2, 4, 4)), sizes.get("num_res_blocks", 2)
    base, times = sizes.get("base_dim", 96), list(sizes.get("temperal_downsample", (False, True, True)))
    if decoder:
        mults, blocks, times = mults[::-1], blocks + 1, times[::-1]
        base = sizes.get("decoder_base_dim") or base
    before = base * (mults[0] if decoder else 1)
    for index, mult in enumerate(mults):
        wide, last = base * mult, index == len(mults) - 1
        start = before // 2 if decoder and index > 0 else before
        pairs = tuple((start if place == 0 else wide, wide) for place in range(blocks))
        yield Level(pairs, 0 if last else wide, not last and times[index])
        before = wide


def large_vae(sizes: Sizes) -> Count:
    """Wan's VAE, encoder and decoder."""
    latent = sizes.get("z_dim", 16)

    def block(inputs: int, outputs: int) -> int:
        shortcut = _conv(inputs, outputs, 1) if inputs != outputs else 0
        return inputs + outputs + _conv(inputs, outputs, 27) + _conv(outputs, outputs, 27) + shortcut

    def half(decoder: bool, first: int, last: int) -> int:
        levels = list(wan_levels(sizes, decoder=decoder))
        wide = levels[0].blocks[0][0]
        middle = wide if decoder else levels[-1].blocks[-1][1]
        held = _conv(first, wide, 27) + 2 * block(middle, middle) + middle + 4 * middle * middle + 4 * middle
        for level in levels:
            held += sum(block(*pair) for pair in level.blocks)
            if wide := level.resample:
                held += _conv(wide, wide // 2 if decoder else wide, 9)
                held += (_conv(wide, 2 * wide if decoder else wide, 3)) * level.time
        out = levels[-1].blocks[-1][1]
        return held + out + _conv(out, last, 27)

    quantised = _conv(2 * latent, 2 * latent, 1) + _conv(latent, latent, 1)
    return Count(half(False, 3, 2 * latent) + half(True, latent, 3) + quantised)


def text_encoder(sizes: Sizes) -> Count:
    """umT5's encoder; a block has a table of positions of its own. Its library keeps one matrix of each from being
    quantised, the last."""
    told = UMT5 | dict(sizes)
    wide, inner = told["d_model"], told["d_kv"] * told["num_heads"]
    block = 4 * wide * inner + 3 * wide * told["d_ff"] + 2 * wide
    block += told["relative_attention_num_buckets"] * told["num_heads"]
    return Count(
        told["vocab_size"] * wide + told["num_layers"] * block + wide,
        blocks=told["num_layers"] * block,
        block=block,
        leaf=told["vocab_size"] * wide,
        linear=told["num_layers"] * (4 * wide * inner + 2 * wide * told["d_ff"]),
        matrix=wide * max(inner, told["d_ff"]),
    )


def picture_encoder(sizes: Sizes) -> Count:
    """CLIP's picture tower without its last block, which Wan leaves out. It stays float32."""
    told = CLIP | dict(sizes)
    wide, hidden, patch = told["hidden_size"], told["intermediate_size"], told["patch_size"]
    places = (told["image_size"] // patch) ** 2 + 1
    block = 4 * _linear(wide, wide) + 4 * wide + _linear(wide, hidden) + _linear(hidden, wide)
    held = wide + 3 * patch * patch * wide + places * wide + 4 * wide + (told["num_hidden_layers"] - 1) * block
    return Count(held, whole=held)


def tokenizer(sizes: Sizes) -> Count:
    """The motion tokenizer, codebook and all. It stays float32."""
    narrow, broad = sizes.get("channels", (128, 512))
    wide, codes = sizes.get("width", 3072), sizes.get("codes", 8192)

    def block(inputs: int, outputs: int) -> int:
        shortcut = _conv(inputs, outputs, 1) if inputs != outputs else 0
        return 2 * inputs + 2 * outputs + _conv(inputs, outputs, 9) + _conv(outputs, outputs, 1) + shortcut

    coder = 3 * block(narrow, narrow) + 3 * block(broad, broad) + _conv(narrow, narrow, 3) + _conv(broad, broad, 3)
    ends = _conv(3, narrow, 9) + _conv(broad, wide, 9) + _conv(wide, broad, 9) + _conv(narrow, 3, 9)
    held = 2 * coder + ends + block(narrow, broad) + block(broad, narrow) + (codes or 0) * wide
    return Count(held, whole=held)
