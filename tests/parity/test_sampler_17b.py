"""The large model's denoising loop gives the reference's numbers: every step of every run, and the VAE around it."""

import json
import re
from functools import lru_cache
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mtvcraft_cli.latents.rope import Rotary, wan_visual_table
from mtvcraft_cli.latents.wan import WanMotionTransformer, build_transformer
from mtvcraft_cli.latents.wanvideo.sampler import MASKS, Condition, Guidance, denoise, make_scheduler
from mtvcraft_cli.latents.wanvideo.vae import build_vae, decode, encode_known, encode_video
from tests.parity.golden import assert_close, cases, golden

NAME = "sampler_17b"
LATENTS, CONDITION, MODE, DECODED = 1e-4, 2e-5, 2e-5, 1e-4
STEP = re.compile(r"(\w+)\.step(\d+)\.(latents|model_output)")
FIRST_FRAMES = re.compile(r"(\w+)\.decoded_first(\d+)")
KNOWN = re.compile(r"(single|long)\.y")
SEEN = re.compile(r"(long\.)?clip_encoder_input")
SCHEDULE = re.compile(r"(timesteps|sigmas)(\d+)")
VAE = re.compile(r"vae\.(mode|logvar|decoded)")
REPLACED = "long.replaced_latent_frames"


def runs() -> list[dict[str, Any]]:
    return golden(NAME).config["runs"]


def scheduler_config() -> dict[str, Any]:
    return {key: value for key, value in golden(NAME).config["scheduler"].items() if key != "cls"}


@lru_cache
def small_transformer() -> WanMotionTransformer:
    weights = golden(NAME).shared["transformer_weights_file"]
    sizes = {
        "image_dim": weights["img_emb.proj.0.weight"].shape[0],
        "motion_token_dim": golden(NAME).inputs["motion_tokens"].shape[2],
    }
    return build_transformer(golden(NAME).shared["transformer_config_file"]["constructor"] | sizes, weights)


@lru_cache
def small_vae() -> AutoencoderKLWan:
    ours = {"dim": "base_dim", "temporal_downsample": "temperal_downsample"}
    config = {ours.get(key, key): size for key, size in golden(NAME).config["vae"].items() if key != "full_size"}
    return build_vae(config, golden(NAME).weights)


def known(*, long: bool) -> Tensor:
    """The frames that are there already, (1, 3, K, H, W) in -1..1: the reference, or the end of the clip before."""
    inputs = golden(NAME).inputs
    return (inputs["previous_sample"] if long else inputs["ref_image"][None, :, None]) * 2 - 1


@lru_cache
def condition(*, long: bool) -> Condition:
    inputs, config = golden(NAME).inputs, golden(NAME).config
    seen = golden(config["transformer_config_file"].removesuffix(".config.json")).inputs["clip_fea"]
    contexts = [inputs["context_neg"], inputs["context_pos"]]
    negative, text = pad_sequence(contexts, batch_first=True).split(1)
    _, _, frames, height, width = config["latent_shape"]
    sizes = small_transformer().config
    _, rows, columns = sizes.patch_size
    return Condition(
        image=encode_known(small_vae(), known(long=long), config["num_frames"]),
        picture=seen.roll(5, -1) if long else seen,
        text=text,
        negative=negative,
        tokens=inputs["motion_tokens"],
        no_motion=None,
        visual=wan_visual_table(frames, height // rows, width // columns, sizes.attention_head_dim),
        motion=Rotary(inputs["motion_cos"], inputs["motion_sin"]),
    )


@lru_cache
def walked(run: str, *, two_passes: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Latents after each step, and what the transformer said in it (both halves joined)."""
    settings = next(found for found in runs() if found["name"] == run)
    transformer, long = small_transformer(), settings["long_video"]
    said: list[Tensor] = []
    hook = transformer.register_forward_hook(lambda _part, _given, made: said.append(made))
    latents = list(
        denoise(
            transformer,
            make_scheduler("euler", scheduler_config()),
            condition(long=long),
            steps=settings["steps"],
            guidance=Guidance(text=1.0 if settings["lora_mode"] else settings["guidance_scale"]),
            generator=generator("generator_seed"),
            two_passes=two_passes,
            held=int(golden(NAME).outputs[REPLACED]) if long else 0,
            held_generator=generator("global_seed_before_call"),
        )
    )
    hook.remove()
    return latents, said


def generator(seed: str) -> torch.Generator:
    return torch.Generator().manual_seed(golden(NAME).config[seed])


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if STEP.fullmatch(name))))
def test_each_step_is_that_of_the_reference(name: str) -> None:
    run, step, what = STEP.fullmatch(name).groups()
    latents, said = walked(run)
    found = (latents if what == "latents" else said)[int(step)]
    assert_close(found, golden(NAME).outputs[name], LATENTS, name)


@pytest.mark.parametrize("run", cases(NAME, lambda found: (run["name"] for run in found.config["runs"])))
def test_two_passes_end_where_the_reference_ends(run: str) -> None:
    latents, said = walked(run, two_passes=True)
    last = f"{run}.step{len(latents) - 1}.latents"
    assert_close(latents[-1], golden(NAME).outputs[last], LATENTS, last)
    alone = next(found for found in runs() if found["name"] == run)["lora_mode"]
    assert len(said) == len(latents) * (1 if alone else 2)


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if KNOWN.fullmatch(name))))
def test_what_is_known_is_told_as_in_the_reference(name: str) -> None:
    found = condition(long=KNOWN.fullmatch(name)[1] == "long").image
    assert_close(found, golden(NAME).outputs[name], CONDITION, name)
    masked = golden(NAME).outputs[name][:, :MASKS]
    assert torch.equal(found[:, :MASKS], masked)
    if name == "long.y":
        assert masked[0, 0, :, 0, 0].sum() == golden(NAME).outputs[REPLACED]


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if SEEN.fullmatch(name))))
def test_the_picture_encoder_is_handed_what_the_reference_hands_it(name: str) -> None:
    handed = known(long=name.startswith("long."))[0, :, -1]  # (3, H, W)
    assert_close(handed, golden(NAME).outputs[name].squeeze(), 1e-6, name)


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if VAE.fullmatch(name))))
def test_the_vae_is_that_of_the_reference(name: str) -> None:
    inputs, expected = golden(NAME).inputs, golden(NAME).outputs[name]
    what = VAE.fullmatch(name)[1]
    if what == "mode":
        assert_close(encode_video(small_vae(), inputs["vae.video"]), expected, MODE, name)
    elif what == "decoded":
        assert_close(decode(small_vae(), inputs["vae.latents"]), expected, DECODED, name)
    else:
        with torch.no_grad():
            posterior = small_vae().encode(inputs["vae.video"]).latent_dist
        assert_close(posterior.logvar, expected, MODE, name)


@pytest.mark.parametrize(
    "name", cases(NAME, lambda found: (name for name in found.outputs if FIRST_FRAMES.fullmatch(name)))
)
def test_the_decoded_video_is_that_of_the_reference(name: str) -> None:
    run, count = FIRST_FRAMES.fullmatch(name).groups()
    latents, _ = walked(run)
    video = decode(small_vae(), latents[-1])[:, :, : int(count)]
    assert_close((video / 2 + 0.5).clamp(0, 1), golden(NAME).outputs[name], DECODED, name)


@pytest.mark.parametrize("run", cases(NAME, lambda found: (json.dumps(run) for run in found.config["runs"])))
def test_the_times_and_levels_are_those_of_the_reference(run: str) -> None:
    settings = json.loads(run)
    scheduler = make_scheduler("euler", scheduler_config())
    scheduler.set_timesteps(settings["steps"])
    assert scheduler.timesteps.tolist() == settings["timesteps"]
    assert scheduler.sigmas.tolist() == settings["sigmas"]


@pytest.mark.parametrize(
    "name", cases(NAME, lambda found: (name for name in found.outputs if SCHEDULE.fullmatch(name)))
)
def test_the_noise_schedule_is_that_of_the_reference(name: str) -> None:
    what, steps = SCHEDULE.fullmatch(name).groups()
    scheduler = make_scheduler("euler", {})  # what is not said is as released
    scheduler.set_timesteps(int(steps))
    assert torch.equal(getattr(scheduler, what), golden(NAME).outputs[name])


def test_the_draws_come_from_the_generators_in_the_order_of_the_reference() -> None:
    inputs = golden(NAME).inputs
    initial = inputs["initial_latents"]
    assert torch.equal(torch.randn(initial.shape, generator=generator("generator_seed")), initial)
    for run in (found for found in runs() if found["long_video"]):
        source = generator("global_seed_before_call")
        for step in range(run["steps"]):
            noise = inputs[f"{run['name']}.renoise{step}"]
            assert torch.equal(torch.randn(noise.shape, generator=source), noise), (run["name"], step)


def test_no_tensor_of_the_golden_is_left_out() -> None:
    patterns = (STEP, FIRST_FRAMES, KNOWN, SEEN, SCHEDULE, VAE)
    left = [name for name in golden(NAME).outputs if not any(pattern.fullmatch(name) for pattern in patterns)]
    assert left == [REPLACED]
