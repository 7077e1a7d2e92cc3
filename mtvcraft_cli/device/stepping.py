"""What one step of a transformer takes in memory and work, and what the encoders around it take.

b branches of guidance in one batch, s video patches, n motion tokens, d width. A unit is one tensor (b, s, d); which
tensors are alive together was read in this program's own blocks and is tested against them.
"""

from dataclasses import dataclass
from math import prod

from mtvcraft_cli.device.sizes import CLIP, UMT5, Sizes

JOINTS = 24
PICTURE_TOKENS = 257


@dataclass(frozen=True)
class Step:
    """One step over all branches of guidance."""

    visual_tokens: int
    motion_tokens: int
    peak_bytes: int
    """The most that is alive beside the weights."""
    branch_work: int
    """Floating-point operations of one branch."""


def visual_tokens(latent_frames: int, latent_size: tuple[int, int], patch: int) -> int:
    """Video patches s of a window, each `patch` latent pixels wide and high."""
    width, height = (side // patch for side in latent_size)
    return latent_frames * width * height


def small_step(sizes: Sizes, latent_frames: int, latent_size: tuple[int, int], batch: int, wide: int) -> Step:
    """A step of the MV-DiT on CogVideoX; `wide` are the bytes of a number."""
    head = sizes.get("attention_head_dim", 64)
    d, layers, patch = (
        sizes.get("num_attention_heads", 48) * head,
        sizes.get("num_layers", 42),
        sizes.get("patch_size", 2),
    )
    s, n = visual_tokens(latent_frames, latent_size, patch), JOINTS * latent_frames
    whole = 4 / wide  # float32 in units of a number
    turning = whole + (whole + 1 if wide < 4 else 0)  # pairs in float32 once turned; before, and as they are given back
    units = max(
        3 + 2 * 4,  # block input, stream, normed stream; feed-forward before and after its activation
        7 + turning,  # both and query, key, value, turned query, normed key
        4 + turning + 2 * n / s,  # motion attention while the query is turned
        3 + (3 + turning) * n / s,  # and while the key is
    )
    latents = batch * latent_frames * (2 * sizes.get("in_channels", 32)) * s // latent_frames * patch**2
    tables = 2 * 4 * head * (s + n)
    motion = len(range(0, layers, sizes.get("motion_every", 1)))
    work = layers * (24 * s * d * d + 4 * s * s * d) + motion * (4 * (s + n) * d * d + 4 * s * n * d)
    ends = sizes.get("in_channels", 32) + sizes.get("out_channels", 16)
    work += 2 * s * d * ends * patch**2
    return Step(s, n, int(units * batch * s * d * wide) + wide * (latents + batch * n * d) + tables, work)


def large_step(sizes: Sizes, latent_frames: int, latent_size: tuple[int, int], batch: int, wide: int) -> Step:
    """A step of the MV-DiT on Wan; norms and modulation are float32."""
    head = sizes.get("attention_head_dim", 128)
    d, layers, inner = (
        sizes.get("num_attention_heads", 40) * head,
        sizes.get("num_layers", 40),
        sizes.get("ffn_dim", 13824),
    )
    patch, text = sizes.get("patch_size", (1, 2, 2)), sizes.get("text_len", 512)
    s, n = visual_tokens(latent_frames, latent_size, patch[1]) // patch[0], JOINTS * latent_frames
    context = text + PICTURE_TOKENS
    whole = 4 / wide
    cast = whole if wide < 4 else 0
    units = max(
        # block input, stream, what self attention saw, the normed streams of motion and feed-forward, a float32 copy
        5 + cast + 2 * inner / d,
        7 + whole + (whole + 1 if wide < 4 else 0),  # both, query, key, value, turned query, normed key while turned
        4 + cast + 1 + 3 * context / s,
    )
    latents = batch * latent_frames * (2 * sizes.get("in_channels", 36)) * s // latent_frames * prod(patch)
    tables = 2 * 4 * head * (s + n)
    motion = len(range(0, layers, sizes.get("motion_every", 4)))
    work = layers * (12 * s * d * d + 4 * s * s * d + 4 * context * d * d + 4 * s * context * d + 4 * s * d * inner)
    work += motion * (4 * (s + n) * d * d + 4 * s * n * d)
    work += 2 * text * d * (sizes.get("text_dim", 4096) + d) + 2 * PICTURE_TOKENS * sizes.get("image_dim", 1280) * d
    work += 2 * s * d * (sizes.get("in_channels", 36) + sizes.get("out_channels", 16)) * prod(patch)
    held = batch * (context + n) * d * wide
    return Step(s, n, int(units * batch * s * d * wide) + wide * latents + held + tables, work)


def kept_keys(sizes: Sizes, latent_frames: int, branches: int, wide: int, *, small: bool) -> int:
    """Bytes of the keys and values that a window keeps over its steps, for all branches of guidance."""
    usual, layers = ((48, 64, 1), 42) if small else ((40, 128, 4), 40)
    names = ("num_attention_heads", "attention_head_dim", "motion_every")
    heads, head, every = (sizes.get(name, given) for name, given in zip(names, usual, strict=True))
    layers = sizes.get("num_layers", layers)
    tokens = len(range(0, layers, every)) * JOINTS * latent_frames
    tokens += 0 if small else layers * (sizes.get("text_len", 512) + PICTURE_TOKENS)
    return 2 * branches * tokens * heads * head * wide


def kept_outputs(sizes: Sizes, visual_tokens: int, branches: int, wide: int, *, small: bool) -> int:
    """Bytes that skipping blocks keeps from step to step, for all branches of guidance.

    Three tensors (s, d) for each: what came out of the first block, what that added, and what the others added; source:
    diffusers' `FBCSharedBlockState`. They are as large whether branches run as a batch or one by one.
    """
    usual = (48, 64) if small else (40, 128)
    names = ("num_attention_heads", "attention_head_dim")
    heads, head = (sizes.get(name, given) for name, given in zip(names, usual, strict=True))
    return 3 * branches * visual_tokens * heads * head * wide


@dataclass(frozen=True)
class Encoding:
    """One call of an encoder."""

    peak_bytes: int
    work: int


def encode_text(sizes: Sizes, length: int, wide: int) -> Encoding:
    """UmT5 over a prompt of `length` tokens; attention is written out, since its bits are to be the reference's."""
    told = UMT5 | dict(sizes)
    d, inner, hidden = told["d_model"], told["d_kv"] * told["num_heads"], told["d_ff"]
    peak = wide * (4 * told["num_heads"] * length**2 + length * (4 * d + 3 * inner + 3 * hidden))
    work = told["num_layers"] * (2 * length * (4 * d * inner + 3 * d * hidden) + 4 * length**2 * inner)
    return Encoding(peak, work)


def encode_picture(sizes: Sizes) -> Encoding:
    """CLIP's picture tower over one picture, float32."""
    told = CLIP | dict(sizes)
    d, hidden = told["hidden_size"], told["intermediate_size"]
    places = (told["image_size"] // told["patch_size"]) ** 2 + 1
    work = (told["num_hidden_layers"] - 1) * (2 * places * (4 * d * d + 2 * d * hidden) + 4 * places**2 * d)
    return Encoding(4 * places * (6 * d + 2 * hidden), work)


def tokenise(sizes: Sizes, windows: int, latent_frames: int) -> Encoding:
    """The motion tokenizer over windows, eight at a time: latents, codes' rows and both ways through its layers."""
    wide, (narrow, broad) = sizes.get("width", 3072), sizes.get("channels", (128, 512))
    frames = min(windows, 8) * latent_frames * JOINTS
    blocks = 18 * broad * broad + 3 * (narrow * broad + 9 * narrow * narrow * 2)
    codes = sizes.get("codes") or 0
    work = 2 * windows * latent_frames * JOINTS * (18 * broad * wide + 4 * blocks + codes * wide)
    return Encoding(4 * frames * (5 * wide + 6 * broad + 16 * narrow) + 16 * 2**20 * (codes > 0), work)
