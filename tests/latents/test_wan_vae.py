"""The large model's VAE at toy size: what is known of the frames, streamed decoding, Wan's own names."""

from collections import Counter

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.wanvideo.vae import (
    build_vae,
    decode,
    decoded_parts,
    encode_known,
    encode_video,
    from_original,
)
from tests.tiny_wan_parts import WAN_VAE, tiny_wan_vae


def clip(frames: int, seed: int = 1) -> Tensor:
    return torch.rand(1, 3, frames, 16, 24, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def spread(vae: AutoencoderKLWan) -> tuple[Tensor, Tensor]:
    return tuple(torch.tensor(row).view(1, 16, 1, 1, 1) for row in (vae.config.latents_mean, vae.config.latents_std))


def as_original(name: str, res_blocks: int) -> str:
    """What Wan's own file calls a tensor of diffusers' VAE."""
    coder, _, rest = name.partition(".")
    if coder == "quant_conv":
        return f"conv1.{rest}"
    if coder == "post_quant_conv":
        return f"conv2.{rest}"
    words = rest.split(".")
    if words[0] == "conv_in":
        place, inner = "conv1", words[1:]
    elif words[0] in ("norm_out", "conv_out"):
        place, inner = f"head.{0 if words[0] == 'norm_out' else 2}", words[1:]
    elif words[0] == "mid_block":
        place, inner = f"middle.{1 if words[1] == 'attentions' else 2 * int(words[2])}", words[3:]
    elif words[0] == "down_blocks":
        place, inner = f"downsamples.{words[1]}", words[2:]
    else:
        step = res_blocks + 1 if words[2] == "upsamplers" else int(words[3])
        place, inner = f"upsamples.{int(words[1]) * (res_blocks + 2) + step}", words[4:]
    parts = {"norm1": "residual.0", "conv1": "residual.2", "norm2": "residual.3", "conv2": "residual.6"}
    return ".".join([coder, place, (parts | {"conv_shortcut": "shortcut"}).get(inner[0], inner[0]), *inner[1:]])


def test_the_full_size_has_the_released_count() -> None:
    with init_empty_weights():
        full = AutoencoderKLWan()
    assert sum(parameter.numel() for parameter in full.parameters()) == 126_892_531


@pytest.mark.parametrize("res_blocks", [1, 2, 3])
def test_the_names_of_wans_own_file_become_those_of_diffusers(res_blocks: int) -> None:
    vae = tiny_wan_vae(num_res_blocks=res_blocks)
    ours = vae.state_dict()
    original = {as_original(name, res_blocks): tensor for name, tensor in ours.items()}
    assert len(original) == len(ours)
    renamed = from_original(original, res_blocks)
    assert {name: id(tensor) for name, tensor in renamed.items()} == {name: id(tensor) for name, tensor in ours.items()}
    if res_blocks == 2:  # the only number that diffusers' own table is made for
        assert convert_wan_vae_to_diffusers(dict(original)).keys() == ours.keys()
    built = build_vae(WAN_VAE | {"num_res_blocks": res_blocks}, original)
    assert torch.equal(encode_video(built, clip(5)), encode_video(vae, clip(5)))


@pytest.mark.parametrize(("latent_frames", "frames"), [(1, 1), (2, 5), (5, 17)])
def test_streamed_decoding_has_the_bits_of_decoding_at_once(latent_frames: int, frames: int) -> None:
    vae = tiny_wan_vae()
    latents = torch.randn(1, 16, latent_frames, 2, 3, generator=torch.Generator().manual_seed(2))
    mean, std = spread(vae)
    with torch.no_grad():
        at_once = vae.decode(latents * std + mean).sample
    parts = list(decoded_parts(vae, latents))
    assert [part.shape[2] for part in parts] == [1] + [4] * (latent_frames - 1)
    assert torch.equal(torch.cat(parts, dim=2), at_once)
    assert torch.equal(decode(vae, latents), at_once)
    assert at_once.shape == (1, 3, frames, 16, 24)


def test_streamed_decoding_holds_no_more_the_longer_it_runs() -> None:
    vae = tiny_wan_vae()
    held = []
    for _ in decoded_parts(vae, torch.randn(1, 16, 8, 2, 3)):
        held.append(sum(kept.numel() for kept in vae._feat_map if isinstance(kept, Tensor)))
    assert held[0] > 0
    assert len(set(held[3:])) == 1


def test_decoding_that_is_broken_off_leaves_nothing_behind() -> None:
    vae = tiny_wan_vae()
    latents = torch.randn(1, 16, 4, 2, 3)
    whole = decode(vae, latents)
    stream = decoded_parts(vae, latents)
    next(stream)
    next(stream)
    stream.close()
    assert Counter(map(type, vae._feat_map)).keys() == {type(None)}
    assert torch.equal(decode(vae, latents), whole)


def test_what_is_known_comes_with_a_mask_and_goes_on_in_grey() -> None:
    vae = tiny_wan_vae()
    first = clip(1)
    known = encode_known(vae, first, 17)
    assert known.shape == (1, 20, 5, 2, 3)
    assert known[:, :4, 0].eq(1).all()
    assert known[:, :4, 1:].eq(0).all()
    grey = torch.cat([first, torch.zeros(1, 3, 16, 16, 24)], dim=2)
    with torch.no_grad():
        mode = vae.encode(grey).latent_dist.mode()
    mean, std = spread(vae)
    assert torch.equal(known[:, 4:], (mode - mean) / std)


@pytest.mark.parametrize(("carried", "latent_frames"), [(1, 1), (5, 2), (9, 3)])
def test_the_latents_of_carried_frames_are_those_of_the_frames_alone(carried: int, latent_frames: int) -> None:
    vae = tiny_wan_vae()
    known = encode_known(vae, clip(carried), 17)
    assert known[0, 0, :, 0, 0].tolist() == [1.0] * latent_frames + [0.0] * (5 - latent_frames)
    alone = encode_video(vae, clip(carried))
    torch.testing.assert_close(known[:, 4:, :latent_frames], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("known", "frames"), [(2, 17), (8, 17), (21, 17), (1, 16)])
def test_frames_that_the_vae_would_leave_out_are_refused(known: int, frames: int) -> None:
    with pytest.raises(ValueError, match=r"4n \+ 1"):
        encode_known(tiny_wan_vae(), clip(known), frames)


def test_latents_survive_the_way_through_bfloat16() -> None:
    vae = tiny_wan_vae()
    low = build_vae(WAN_VAE, vae.state_dict(), torch.bfloat16)
    found, exact = encode_video(low, clip(9)), encode_video(vae, clip(9))
    assert found.dtype == torch.float32
    assert (found - exact).norm() < 0.05 * exact.norm()
    assert decode(low, found).dtype == torch.float32


def test_a_checkpoint_of_another_vae_is_refused_by_name() -> None:
    tensors = tiny_wan_vae().state_dict()
    tensors.pop("decoder.conv_out.bias")
    with pytest.raises(MtvcraftError, match=r"the VAE checkpoint lacks `decoder.conv_out.bias`") as caught:
        build_vae(WAN_VAE, tensors)
    assert caught.value.exit == Exit.WEIGHTS
    with pytest.raises(MtvcraftError, match="base_dimm"):
        build_vae(WAN_VAE | {"base_dimm": 4}, tensors)
