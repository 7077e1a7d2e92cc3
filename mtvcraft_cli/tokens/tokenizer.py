"""4DMoT, the motion tokenizer: a VQ-VAE over the plane of frames and joints (paper, stage 2; released code)."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.shapes import Codes, Joints, MotionLatents, MotionTokens

CHANNELS: Final = (128, 512)
WIDTH: Final = 3072
CODES: Final = 8192
JOINTS: Final = 24
ENCODER_SLICE: Final = 8
"""Frames that the encoder sees at once; the first slice takes the remainder as well."""
DECODER_SLICE: Final = 2
"""Latent frames that the decoder sees at once, likewise."""
ROWS: Final = 1024
"""Latents compared at once with `ROWS` * 4 codes: 16 MiB of distances, whatever the length of the motion."""


class Block(nn.Module):
    """Residual block: norm, SiLU, dilated 3x3, norm, SiLU, 1x1, plus the input.

    b slices, i channels in, o channels out, f frames, j joints.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        dilation = max(1, 512 // channels - 1)  # released code: narrow layers look further
        self.block = nn.Sequential(
            nn.GroupNorm(32, channels_in, eps=1e-6),
            nn.SiLU(),
            nn.Conv2d(channels_in, channels, 3, padding=dilation, dilation=dilation),
            nn.GroupNorm(32, channels, eps=1e-6),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 1),
        )
        self.conv_short = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()

    def forward(self, plane: Tensor) -> Tensor:
        """(b, i, f, j) to (b, o, f, j)."""
        return self.block(plane) + self.conv_short(plane)


class Downsample(nn.Module):
    """Halves the frames by averaging neighbours, then mixes the joints of each frame.

    b slices, c channels, f frames, j joints.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.joint_downsample = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, plane: Tensor) -> Tensor:
        """(b, c, f, j) to (b, c, ceil(f / 2), j)."""
        alone = plane.shape[2] % 2  # of an odd number of frames the first stays as it is
        pairs = functional.avg_pool2d(plane[:, :, alone:], kernel_size=(2, 1))
        return _along_joints(self.joint_downsample, torch.cat([plane[:, :, :alone], pairs], dim=2))


class Upsample(nn.Module):
    """Doubles the frames by linear interpolation with aligned ends, then mixes the joints of each frame.

    b slices, c channels, f frames, j joints.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsampler = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, plane: Tensor) -> Tensor:
        """(b, c, f, j) to (b, c, 2 f, j), or 2 f - 1 where f is odd."""
        alone = plane.shape[2] % 2  # of an odd number of frames the first is only copied
        rest = plane[:, :, alone:]
        size = (2 * rest.shape[2], rest.shape[3])
        doubled = functional.interpolate(rest, size=size, mode="bilinear", align_corners=True)
        return _along_joints(self.upsampler, torch.cat([plane[:, :, :alone], doubled], dim=2))


class Encoder(nn.Module):
    """A slice of joints to latents.

    b slices, n frames, f = ceil(n / 4) latent frames, j joints, d width.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        narrow, wide = channels
        self.conv_in = nn.Conv2d(3, narrow, 3, padding=1)
        self.resnet1 = nn.Sequential(*(Block(narrow, narrow) for _ in range(3)))
        self.downsample1 = Downsample(narrow)
        self.resnet2 = Block(narrow, wide)
        self.resnet3 = nn.Sequential(*(Block(wide, wide) for _ in range(3)))
        self.downsample2 = Downsample(wide)
        self.conv_out = nn.Conv2d(wide, width, 3, padding=1)

    def forward(self, plane: Tensor) -> Tensor:
        """(b, 3, n, j) to (b, d, f, j)."""
        narrow = self.downsample1(self.resnet1(self.conv_in(plane)))
        wide = self.downsample2(self.resnet3(self.resnet2(narrow)))
        return self.conv_out(wide)


class Decoder(nn.Module):
    """A slice of latents to joints: the encoder's mirror.

    b slices, f latent frames, n = 4 f frames (4 f - 3 where f is odd), j joints, d width.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        narrow, wide = channels
        self.conv_in = nn.Conv2d(width, wide, 3, padding=1)
        self.resnet1 = nn.Sequential(*(Block(wide, wide) for _ in range(3)))
        self.upsample1 = Upsample(wide)
        self.resnet2 = Block(wide, narrow)
        self.resnet3 = nn.Sequential(*(Block(narrow, narrow) for _ in range(3)))
        self.upsample2 = Upsample(narrow)
        self.conv_out = nn.Conv2d(narrow, 3, 3, padding=1)

    def forward(self, plane: Tensor) -> Tensor:
        """(b, d, f, j) to (b, 3, n, j)."""
        wide = self.upsample1(self.resnet1(self.conv_in(plane)))
        narrow = self.upsample2(self.resnet3(self.resnet2(wide)))
        return self.conv_out(narrow)


class Quantiser(nn.Module):
    """The codebook: which row is nearest to a latent, and what a row holds.

    k codes, d width, n latents.
    """

    codebook: Tensor

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.zeros(codes, width))

    def forward(self, latents: Tensor) -> Tensor:
        """(n, d) to (n) int64: the row at the smallest squared distance, the first of equals.

        Latents and codes are compared a block at a time, so beyond the result no more than 16 MiB of distances and the
        squares of the codes are held.
        """
        squares = self.codebook.square().sum(dim=1)  # (k)
        return torch.cat([self._nearest(rows, squares) for rows in latents.split(ROWS)])

    def _nearest(self, rows: Tensor, squares: Tensor) -> Tensor:
        best = rows.new_full((len(rows),), torch.inf)
        index = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
        own = rows.square().sum(dim=1, keepdim=True)
        for start in range(0, len(self.codebook), 4 * ROWS):
            block = slice(start, start + 4 * ROWS)
            # |x|^2 - 2 x.c + |c|^2 in the order of the released code
            distance = (rows @ self.codebook[block].T).mul_(-2).add_(own).add_(squares[block])
            least, place = distance.min(dim=1)
            nearer = least < best
            best = torch.where(nearer, least, best)
            index = torch.where(nearer, place + start, index)
        return index


class MotionTokenizer(nn.Module):
    """4DMoT: joints of windows to motion tokens and back, always in float32.

    W windows, N frames, F = ceil(N / 4) latent frames, J joints, D width, M = F * J motion tokens.

    Windows are worked on in slices of 8 frames (of 2 latent frames on the way back), the first of which takes the
    remainder. Zero padding and group statistics belong to a slice, so slicing is part of the function; but they belong
    to one slice only, so all slices of one length, of all windows, go through the layers as one batch.

    Args:
        channels: widths of the outer and inner layers.
        width: D, the width of a token.
        codes: rows of the codebook; None leaves latents continuous (paper, ablation "w/o quantize").
        joints: J.
    """

    def __init__(
        self, channels: Sequence[int] = CHANNELS, width: int = WIDTH, codes: int | None = CODES, joints: int = JOINTS
    ) -> None:
        super().__init__()
        self.width = width
        self.codes = codes
        self.joints = joints
        self.encoder = Encoder(channels, width)
        self.decoder = Decoder(channels, width)
        self.vq = Quantiser(codes, width) if codes is not None else None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.conv_in.weight.device

    def encode(self, joints: Joints) -> MotionLatents:
        """Joints to latents, before quantisation.

        Args:
            joints: (W, N, J, 3) normalised joints; N at least 8.

        Returns:
            (W, F, J, D).

        Raises:
            ValueError: fewer than 8 frames, or another number of joints than the tokenizer's.
        """
        _, frames, count, _ = joints.shape
        if frames < ENCODER_SLICE:
            raise ValueError(f"the tokenizer takes at least {ENCODER_SLICE} frames, not {frames}")
        if count != self.joints:
            raise ValueError(f"the tokenizer takes {self.joints} joints, not {count}")
        plane = rearrange(joints, "w n j c -> w c n j")
        return rearrange(_in_slices(self.encoder, plane, ENCODER_SLICE), "w d f j -> w f j d")

    def decode(self, latents: MotionLatents) -> Joints:
        """Latents, quantised or not, back to joints.

        Args:
            latents: (W, F, J, D); F at least 2.

        Returns:
            (W, 4 F, J, 3) normalised joints, or 4 F - 3 frames where F is odd.

        Raises:
            ValueError: a single latent frame.
        """
        if latents.shape[1] < DECODER_SLICE:
            raise ValueError(f"the tokenizer decodes at least {DECODER_SLICE} latent frames, not {latents.shape[1]}")
        plane = rearrange(latents, "w f j d -> w d f j")
        return rearrange(_in_slices(self.decoder, plane, DECODER_SLICE), "w c n j -> w n j c")

    def quantise(self, latents: MotionLatents) -> Codes:
        """Find for each latent the nearest row of the codebook, by squared Euclidean distance.

        Args:
            latents: (W, F, J, D).

        Returns:
            (W, F, J) int64, 0..codes - 1.

        Raises:
            ValueError: the tokenizer has no codebook.
        """
        if self.vq is None:
            raise ValueError("a tokenizer without a codebook can't quantise")
        with torch.autocast(latents.device.type, enabled=False):
            return self.vq(latents.float().flatten(0, 2)).unflatten(0, latents.shape[:3])

    def look_up(self, codes: Codes) -> MotionLatents:
        """Rows of the codebook.

        The released code hands on x + (c - x) for latents x and rows c, which is c up to rounding. Here it is c itself,
        so that tokens read from a file are those that were made from the motion, bit for bit.

        Args:
            codes: (W, F, J) integers, 0..codes - 1.

        Returns:
            (W, F, J, D).

        Raises:
            ValueError: the tokenizer has no codebook.
        """
        if self.vq is None:
            raise ValueError("a tokenizer without a codebook has no rows to look up")
        return self.vq.codebook[codes.long()]


def as_tokens(latents: MotionLatents) -> MotionTokens:
    """Put quantised latents in the order the transformer takes them: (W, F, J, D) to (W, F * J, D)."""
    return rearrange(latents, "w f j d -> w (f j) d")


def tokenizer_from_tensors(config: Mapping[str, Any] | None, tensors: Mapping[str, Tensor]) -> MotionTokenizer:
    """Build a tokenizer around the tensors of a checkpoint in the released layout.

    Args:
        config: arguments of `MotionTokenizer`; None reads the sizes off the tensors.
        tensors: 133 of them, or 132 without a codebook; kept as they are where they are float32.

    Raises:
        MtvcraftError: tensors are missing, unknown, or of another shape than `config` says; all are named.
    """
    sizes = config if config is not None else _sizes(tensors)
    with torch.device("meta"):
        tokenizer = MotionTokenizer(**sizes)
    wanted = {key: tuple(value.shape) for key, value in tokenizer.state_dict().items()}
    wrong = [f"{key} is missing" for key in wanted if key not in tensors]
    wrong += [f"{key} is unknown" for key in tensors if key not in wanted]
    for key, shape in wanted.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            wrong.append(f"{key} is {_cross(tensors[key].shape)} and not {_cross(shape)}")
    if wrong:
        raise MtvcraftError(
            f"the weights are not those of this tokenizer: {'; '.join(wrong)}",
            hint="check that the preset and the weights belong together, or download the tokenizer again",
            exit=Exit.WEIGHTS,
        )
    tokenizer.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    return tokenizer.eval()


def _sizes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the sizes of a tokenizer off three of its tensors; full size where one is missing, to name it then."""
    outer, inner = tensors.get("encoder.conv_in.weight"), tensors.get("encoder.conv_out.weight")
    codebook = tensors.get("vq.codebook")
    if outer is None or inner is None or outer.ndim != 4 or inner.ndim != 4:
        return {}
    return {
        "channels": (len(outer), inner.shape[1]),
        "width": len(inner),
        "codes": None if codebook is None else len(codebook),
    }


def _cross(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a single number"


def _along_joints(conv: nn.Conv1d, plane: Tensor) -> Tensor:
    """A 1D convolution along the joints of each frame; (b, c, f, j) to the same."""
    frames = plane.shape[2]
    return rearrange(conv(rearrange(plane, "b c f j -> (b f) c j")), "(b f) c j -> b c f j", f=frames)


def _in_slices(layers: nn.Module, plane: Tensor, length: int) -> Tensor:
    """Run `layers` over slices of `length` frames, the first of which takes the remainder.

    w windows, s slices after the first; (w, c, n, j) to (w, c', n', j), float32 even under autocast, and not in the ten
    bits that cards multiply quicker: they would choose other codes.
    """
    first = length + plane.shape[2] % length
    whole = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    with torch.autocast(plane.device.type, enabled=False), whole:
        made = [layers(plane[:, :, :first].float())]
        if plane.shape[2] > first:
            rest = rearrange(plane[:, :, first:].float(), "w c (s n) j -> (w s) c n j", n=length)
            made.append(rearrange(layers(rest), "(w s) c n j -> w c (s n) j", w=len(plane)))
    return torch.cat(made, dim=2)
