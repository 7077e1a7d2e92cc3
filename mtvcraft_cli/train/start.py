"""First weights that already do the easy part, so that training on a small machine begins with the hard one."""

from typing import Any, Final

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor, nn
from torch.nn import functional

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, time_sinusoid

STEADY: Final = 2.0
"""Size of the constant channels beside the signals: with them, a norm divides by nearly the same number everywhere."""
COLOURS: Final = 3


@torch.no_grad()
def start_from_averages(vae: AutoencoderKLCogVideoX) -> None:
    """Let a VAE's latents hold the mean colours of the four quarters of each patch, and its decoder paint their mean.

    The norms of this VAE take the mean of their groups away, and with it a picture's brightness: from random weights
    it takes thousands of steps until that has found a way around them. Here it has one. A norm hardly bends what
    stands beside large constants, and SiLU doesn't bend pairs, as silu(x) - silu(-x) = x. In the decoder the colours
    come in behind the last norm, which adds a map of the latents.

    Args:
        vae: fresh, of three levels or more; the first latents are taken, four for each colour.

    Raises:
        ValueError: too few channels.
    """
    encoder, decoder = vae.encoder, vae.decoder
    groups, last = vae.config.norm_num_groups, vae.config.block_out_channels[-1]
    wide, signals = last // groups, 4 * COLOURS
    pairs = wide // 4  # in a group: as many signals with their negatives, the other half constant
    if vae.config.latent_channels < signals or pairs * groups < signals or vae.config.block_out_channels[0] < 6:
        raise ValueError("the VAE is too narrow to start from mean colours")
    for block in [resnet for down in encoder.down_blocks for resnet in down.resnets] + list(encoder.mid_block.resnets):
        nn.init.zeros_(block.conv2.conv.weight)
        nn.init.zeros_(block.conv2.conv.bias)
    _pass_on(encoder.conv_in.conv.weight[:, :, -1], COLOURS)
    encoder.conv_in.conv.weight[:COLOURS, :, :-1] = 0
    encoder.conv_in.conv.bias[:COLOURS] = 0
    finest = len(encoder.down_blocks) - 2  # the last block but one shrinks for the last time
    for level, block in enumerate(encoder.down_blocks[:-1]):
        for resnet in block.resnets:
            if resnet.in_channels != resnet.out_channels:
                _pass_on(_kernel(resnet.conv_shortcut), COLOURS)
                _bias(resnet.conv_shortcut)[:COLOURS] = 0
        conv = block.downsamplers[0].conv
        used = signals if level == finest else COLOURS
        conv.weight[:used] = 0
        conv.bias[:used] = 0
        for colour in range(COLOURS):
            if level == finest:
                for quarter in range(4):
                    conv.weight[COLOURS * quarter + colour, colour, quarter // 2, quarter % 2] = 1
            else:
                conv.weight[colour, colour, :2, :2] = 0.25
    widening = encoder.down_blocks[-1].resnets[0]
    if widening.in_channels == widening.out_channels:
        raise ValueError("the VAE's last level is as wide as the one before it")
    kernel, bias = _kernel(widening.conv_shortcut), _bias(widening.conv_shortcut)
    constant = STEADY * torch.tensor([1.0, -1.0]).repeat((wide - 2 * pairs + 1) // 2)[: wide - 2 * pairs]
    spread = ((2 * pairs * 0.25 + float(constant.square().sum())) / wide) ** 0.5
    read = encoder.conv_out.conv.weight  # (2C, last, 3, 3, 3)
    read[:signals] = 0
    encoder.conv_out.conv.bias[:signals] = 0
    for signal in range(signals):
        first = wide * (signal // pairs)
        plus = first + 2 * (signal % pairs)
        kernel[plus : plus + 2] = 0
        kernel[plus, signal], kernel[plus + 1, signal] = 1, -1
        bias[plus : plus + 2] = 0
        kernel[first + 2 * pairs : first + wide] = 0
        bias[first + 2 * pairs : first + wide] = constant
        read[signal, plus, -1, 1, 1], read[signal, plus + 1, -1, 1, 1] = 2 * spread, -2 * spread
    nn.init.zeros_(read[vae.config.latent_channels :])
    nn.init.constant_(encoder.conv_out.conv.bias[vae.config.latent_channels :], -4.0)
    paint, out = decoder.norm_out, decoder.conv_out.conv
    paint.norm_layer.weight[: 2 * COLOURS] = 0.1
    nn.init.zeros_(paint.conv_y.conv.weight)
    nn.init.ones_(paint.conv_y.conv.bias)
    paint.conv_b.conv.weight[: 2 * COLOURS] = 0
    paint.conv_b.conv.bias[: 2 * COLOURS] = 0
    out.weight[:] *= 0.1
    for colour in range(COLOURS):
        for quarter in range(4):
            paint.conv_b.conv.weight[2 * colour, COLOURS * quarter + colour] = 0.125
            paint.conv_b.conv.weight[2 * colour + 1, COLOURS * quarter + colour] = -0.125
        out.weight[colour, 2 * colour, -1, 1, 1], out.weight[colour, 2 * colour + 1, -1, 1, 1] = 1, -1


@torch.no_grad()
def start_from_reference(transformer: CogVideoXMotionTransformer, alphas: Tensor, apart: float) -> None:
    """Let a transformer draw the reference again, in every frame and from any noise.

    If all that is known of the clean latents x is that they lie about the reference r with variance s, then from
    z = sqrt(a) x + sqrt(1 - a) noise the best guess of the velocity is

        v = sqrt(1 - a) / (a s + 1 - a) * (sqrt(a) (1 - s) z - r),

    a sum of z and r with two factors that hang on the time alone. Patches are laid side by side in the width of the
    network, beside large constants that keep the norms steady; all branches are silent (as in adaLN-zero); and the last
    modulation, fitted by least squares to the time embedding, gives the two factors. It is the network's own layout:
    samplers and schedulers see nothing special, and the branches learn what the guess lacks.

    Args:
        transformer: fresh; its width must hold two patches and more.
        alphas: (1000,) kept shares of variance, by time.
        apart: s, the mean square distance of clips from their references, in latents of unit spread.

    Raises:
        ValueError: the transformer is too narrow, or its channels aren't noisy and reference ones.
    """
    config = transformer.config
    dim = config.num_attention_heads * config.attention_head_dim
    patch = config.out_channels * config.patch_size**2
    if dim < 2 * patch + 2 or config.in_channels != 2 * config.out_channels:
        raise ValueError(f"a width of {dim} can't hold two patches of {patch} and more")
    constant = STEADY * 1.5 * torch.tensor([1.0, -1.0]).repeat(dim)[: dim - 2 * patch]
    spread = float((2 * patch + constant.square().sum()) / dim) ** 0.5
    proj: Any = transformer.patch_embed.proj
    proj.weight.zero_()
    proj.weight[: 2 * patch] = torch.eye(2 * patch).reshape(2 * patch, config.in_channels, *proj.weight.shape[2:])
    proj.bias.zero_()
    proj.bias[2 * patch :] = constant
    block: Any
    for block in transformer.transformer_blocks:
        for modulation in (block.norm1, block.norm2):
            nn.init.zeros_(modulation.linear.weight)
            nn.init.zeros_(modulation.linear.bias)
        if block.attn0 is not None:
            nn.init.zeros_(block.attn0.to_out[0].weight)
            nn.init.zeros_(block.attn0.to_out[0].bias)
    transformer.proj_out.weight.zero_()
    transformer.proj_out.bias.zero_()
    both = spread * torch.eye(patch)
    transformer.proj_out.weight[:, : 2 * patch] = torch.cat([both, both], dim=1)
    a = alphas.double()
    level = (1 - a).sqrt() / (a * apart + 1 - a)
    wanted = torch.stack([level * a.sqrt() * (1 - apart), -level], dim=1) - 1  # (1000, 2)
    sinusoid = time_sinusoid(
        torch.arange(len(a)), dim, cosines_first=transformer.cosines_first, shift=transformer.freq_shift
    )
    features = functional.silu(transformer.time_embedding(sinusoid)).double()
    features = torch.cat([features, torch.ones(len(a), 1)], dim=1)
    normal = features.T @ features + 1e-4 * len(a) * torch.eye(features.shape[1]) * features.square().mean()
    fitted = torch.linalg.solve(normal, features.T @ wanted).float()  # (e + 1, 2)
    linear = transformer.norm_out.linear
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    for part in range(2):
        rows = slice(dim + part * patch, dim + (part + 1) * patch)
        linear.weight[rows] = fitted[:-1, part]
        linear.bias[rows] = fitted[-1, part]


def _kernel(conv: Any) -> Tensor:
    """The weight of a 1 x 1 convolution, (out, in, ...), behind whatever wraps it."""
    return getattr(conv, "conv", conv).weight


def _bias(conv: Any) -> Tensor:
    return getattr(conv, "conv", conv).bias


def _pass_on(weight: Tensor, channels: int) -> None:
    """Let the first channels through as they are; the kernel's middle is their own place."""
    weight[:channels] = 0
    middle = [size // 2 for size in weight.shape[2:]]
    for channel in range(channels):
        weight[channel, channel][tuple(middle)] = 1
