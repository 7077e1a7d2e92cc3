"""Weights made from a seed, for a model that is not trained yet: the same on every machine and in every order."""

import hashlib

import torch
from torch import Tensor, nn

UNIT = ("codebook", "unconditional_motion_token")
"""Looked up and not multiplied with: their rows are as large as what normed layers hand on."""
PICTURE = "decoder.conv_out.conv.weight"
"""The VAE's last layer; kept small, so that most colours lie between black and white."""


def seeded_tensors(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Draw a state dict for a module, on the meta device or not, in which no branch is idle.

    Matrices and kernels are N(0, 1 / inputs), gains of norms 1 + N(0, 0.01), biases N(0, 0.01), codes N(0, 1);
    the layer that paints a VAE's pictures has 0.2 of that.

    Args:
        module: gives names and shapes.
        seed: with a tensor's name it seeds that tensor's own generator.

    Returns:
        float32 tensors by name.
    """
    return {name: _draw(name, tuple(tensor.shape), seed) for name, tensor in module.state_dict().items()}


def _draw(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32)
    if name.endswith(UNIT):
        return noise
    if len(shape) < 2:
        return 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    return noise / noise[0].numel() ** 0.5 * (0.2 if name == PICTURE else 1.0)
