"""The VAE at toy size: the reference latents, carried frames, streamed decoding."""

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLCogVideoX

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.vae import build_vae, decode, encode_reference, encode_video, to_frames, to_video
from tests.tiny import VAE, picture, tiny_vae


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_full_size_has_the_released_count() -> None:
    with init_empty_weights():
        full = AutoencoderKLCogVideoX(scaling_factor=0.7)
    assert sum(parameter.numel() for parameter in full.parameters()) == 215_583_907


@pytest.mark.parametrize(("latent_frames", "frames"), [(1, 1), (2, 8), (3, 9), (4, 16), (5, 17), (13, 49)])
def test_streamed_decoding_has_the_bits_of_decoding_at_once(latent_frames: int, frames: int) -> None:
    vae = tiny_vae()
    latents = torch.randn(1, latent_frames, 16, 4, 6, generator=generator())
    with torch.no_grad():
        at_once = vae.decode(latents.transpose(1, 2) / 0.7).sample
    assert torch.equal(decode(vae, latents), at_once)
    assert at_once.shape == (1, 3, frames, 32, 48)


def test_large_frames_are_decoded_in_tiles_and_small_ones_are_not() -> None:
    vae = tiny_vae()  # the tiles are 360 x 240 whatever the channels
    tiled: list[int] = []
    vae.tiled_decode, whole = lambda *given, **named: (tiled.append(1), whole(*given, **named))[1], vae.tiled_decode
    assert decode(vae, torch.randn(1, 1, 16, 30, 4)).shape == (1, 3, 1, 240, 32)
    assert tiled == []
    assert decode(vae, torch.randn(1, 1, 16, 40, 4)).shape == (1, 3, 1, 320, 32)
    assert tiled == [1]


def test_the_reference_is_the_unscaled_posterior_of_a_clip_that_stands_still() -> None:
    vae = tiny_vae()
    clip = to_video(np.repeat(picture()[None], 9, axis=0))
    with torch.no_grad():
        posterior = vae.encode(clip).latent_dist
    mean = encode_reference(vae, picture(), 9, sample=False, scaled=False, generator=generator())
    drawn = encode_reference(vae, picture(), 9, sample=True, scaled=False, generator=generator(3))
    assert mean.shape == (1, 3, 16, 4, 4)
    torch.testing.assert_close(mean, posterior.mean.transpose(1, 2), rtol=0, atol=1e-5)
    torch.testing.assert_close(drawn, posterior.sample(generator(3)).transpose(1, 2), rtol=0, atol=1e-5)
    scaled = encode_reference(vae, picture(), 9, sample=False, scaled=True, generator=generator())
    torch.testing.assert_close(scaled, mean * 0.7)


def test_the_draw_of_the_reference_depends_on_the_seed_alone() -> None:
    vae = tiny_vae()
    one, two, other = (
        encode_reference(vae, picture(), 9, sample=True, scaled=False, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_carried_frames_are_encoded_in_the_scale_of_noisy_latents() -> None:
    vae = tiny_vae()
    clip = torch.rand(1, 3, 9, 32, 32, generator=generator()) * 2 - 1
    with torch.no_grad():
        mean = vae.encode(clip).latent_dist.mean
    held = encode_video(vae, clip)
    assert held.shape == (1, 3, 16, 4, 4)
    assert torch.equal(held, mean.transpose(1, 2) * 0.7)


def test_frames_survive_the_way_to_floats_and_back() -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    assert np.array_equal(to_frames(to_video(frames)), frames)
    assert to_frames(torch.tensor([-7.0, 7.0, 0.0]).reshape(1, 3, 1, 1, 1)).tolist() == [[[[0, 255, 128]]]]


def test_a_checkpoint_of_another_vae_is_refused_by_name() -> None:
    tensors = tiny_vae().state_dict()
    tensors.pop("decoder.conv_out.conv.bias")
    with pytest.raises(MtvcraftError, match=r"the VAE checkpoint lacks `decoder.conv_out.conv.bias`") as caught:
        build_vae(VAE, tensors)
    assert caught.value.exit == Exit.WEIGHTS
    with pytest.raises(MtvcraftError, match="scaling_facto"):
        build_vae(VAE | {"scaling_facto": 1}, tiny_vae().state_dict())
