"""Linear layers whose matrix is stored in 8 or 4 bits a number and unpacked for the moment in which it works.

All that is stored are parameters of the layer, codes as integers and scales as float32: they go wherever `module.to`
or a hook of diffusers sends the layer, and no cast to another precision reaches the codes.
k inputs, n outputs.
"""

from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.device.placement import PIECE_BYTES

OUTLIER: Final = 6.0
"""Inputs from here on are multiplied in full precision, all of their column (LLM.int8(), section 3)."""
BLOCK: Final = 64
"""Numbers that share a scale in nf4."""
FLOAT8: Final = torch.float8_e4m3fn
LARGEST: Final = torch.finfo(FLOAT8).max


class PackedLinear(nn.Linear):
    """What the three have in common; `weight` is None, and the bias stays as it was.

    Args:
        layer: the layer that is packed; it is not changed.
    """

    packed: nn.Parameter
    scale: nn.Parameter

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)  # nn.Linear's own would draw a whole matrix
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_parameter("weight", None)
        self.register_parameter("bias", layer.bias)
        codes, scale = self.pack(layer.weight.detach().float())
        self.packed = nn.Parameter(codes, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.train(layer.training)

    @abstractmethod
    def pack(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """A float32 matrix (n, k) as integer codes and float32 scales."""


class Int8Linear(PackedLinear):
    """8-bit whole numbers with a scale for each output; inputs are rounded to 8 bits, too, token by token.

    The product is bitsandbytes' (LLM.int8(), Dettmers et al. 2022): a column of inputs that holds a large one is
    multiplied in full precision.
    """

    def pack(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """(n, k) to int8 (n, k) and (n,)."""
        codes, scale, _ = _bitsandbytes().functional.int8_vectorwise_quant(matrix.half())
        return codes, scale

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., k) to (..., n), in pieces: the 32-bit sums of all tokens would take several times the result's room."""
        library = _bitsandbytes()
        state = library.MatmulLtState()
        state.CB, state.SCB, state.has_fp16_weights = self.packed, self.scale, False
        state.threshold, state.is_training = OUTLIER, False
        tokens = inputs.flatten(0, -2)
        rows = max(1, PIECE_BYTES // (3 * self.in_features + 16 * self.out_features))
        outputs = tokens.new_empty(len(tokens), self.out_features)
        for piece, place in zip(tokens.split(rows), outputs.split(rows), strict=True):
            place.copy_(library.matmul(piece, self.packed, bias=self.bias, state=state))
        return outputs.unflatten(0, inputs.shape[:-1])


class NF4Linear(PackedLinear):
    """4 bits: one of 16 values that suit normally distributed numbers, and a scale for each 64 (QLoRA, 2023)."""

    code: Tensor

    def pack(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """(n, k) to uint8 (n * k / 2, 1) and (n * k / 64,), the last block perhaps not full."""
        codes, state = _bitsandbytes().functional.quantize_4bit(
            matrix, blocksize=BLOCK, compress_statistics=False, quant_type="nf4"
        )
        self.register_buffer("code", state.code, persistent=False)
        return codes, state.absmax

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., k) to (..., n)."""
        library = _bitsandbytes().functional
        state = library.QuantState(
            absmax=self.scale,
            shape=torch.Size((self.out_features, self.in_features)),
            code=self.code,
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=inputs.dtype,
        )
        return functional.linear(inputs, library.dequantize_4bit(self.packed, state), self.bias)


class FP8Linear(PackedLinear):
    """8-bit floats with a scale for each output, cast up layer by layer; needs no card that computes with them.

    Without the scale a matrix of inputs as many as the large model's lies where these floats are sparse.
    """

    def pack(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """(n, k) to (n, k) float8 seen as uint8, which no cast touches, and (n, 1)."""
        scale = (matrix.abs().amax(dim=1, keepdim=True) / LARGEST).clamp_min(torch.finfo(torch.float32).tiny)
        return (matrix / scale).to(FLOAT8).view(torch.uint8), scale

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., k) to (..., n)."""
        matrix = self.packed.view(FLOAT8).to(inputs.dtype).mul_(self.scale)
        return functional.linear(inputs, matrix, self.bias)


LAYERS: Final[Mapping[str, type[PackedLinear]]] = {"int8": Int8Linear, "nf4": NF4Linear, "fp8": FP8Linear}


def _bitsandbytes() -> Any:
    return import_module("bitsandbytes")
