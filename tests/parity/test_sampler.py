"""The denoising loop gives the reference's numbers: every step of every run of the golden."""

import json
import re
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.rope import Rotary, motion_table, visual_table
from mtvcraft_cli.latents.sampler import Condition, denoise, make_scheduler
from mtvcraft_cli.latents.vae import build_vae, decode
from tests.parity.golden import (
    ROPE_MOTION,
    ROPE_VISUAL,
    SAMPLER_7B_DECODED,
    SAMPLER_7B_LATENTS,
    assert_close,
    cases,
    golden,
)

NAME = "sampler_7b"
STEP = re.compile(r"(\w+)\.step(\d+)\.(latents|model_output)")
DECODED = re.compile(r"(\w+)\.decoded")
TIMESTEPS = re.compile(r"timesteps(\d+)")
TABLES = {"visual_cos": ROPE_VISUAL, "visual_sin": ROPE_VISUAL, "motion_cos": ROPE_MOTION, "motion_sin": ROPE_MOTION}


def runs() -> list[dict[str, Any]]:
    return golden(NAME).config["runs"]


@lru_cache
def small_transformer() -> CogVideoXMotionTransformer:
    shared = golden(NAME).shared
    return build_transformer(shared["transformer_config_file"]["constructor"], shared["transformer_weights_file"])


@lru_cache
def tables() -> tuple[Rotary, Rotary]:
    _, frames, _, height, width = golden(NAME).config["latent_shape"]
    sizes = small_transformer().config
    return (
        visual_table(frames, height // sizes.patch_size, width // sizes.patch_size, sizes.attention_head_dim),
        motion_table(frames, golden(NAME).inputs["joint_mean"].numpy(), sizes.attention_head_dim),
    )


@lru_cache
def walked(run: str, *, two_passes: bool = False) -> tuple[list[Tensor], list[Tensor]]:
    """Latents after each step, and what the transformer said in it (both halves joined)."""
    settings = next(found for found in runs() if found["name"] == run)
    inputs, transformer = golden(NAME).inputs, small_transformer()
    said: list[Tensor] = []
    hook = transformer.register_forward_hook(lambda _part, _given, made: said.append(made))
    visual, motion = tables()
    latents = list(
        denoise(
            transformer,
            make_scheduler(settings["scheduler"], golden(NAME).config["scheduler"]),
            Condition(reference=inputs["ref_latents"], tokens=inputs["motion_tokens"], visual=visual, motion=motion),
            steps=settings["steps"],
            guidance=settings["guidance_scale"],
            generator=torch.Generator().manual_seed(golden(NAME).config["generator_seed"]),
            two_passes=two_passes,
        )
    )
    hook.remove()
    return latents, said


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if STEP.fullmatch(name))))
def test_each_step_is_that_of_the_reference(name: str) -> None:
    run, step, what = STEP.fullmatch(name).groups()
    latents, said = walked(run)
    found = (latents if what == "latents" else said)[int(step)]
    assert_close(found, golden(NAME).outputs[name], SAMPLER_7B_LATENTS, name)


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if DECODED.fullmatch(name))))
def test_the_decoded_video_is_that_of_the_reference(name: str) -> None:
    config = {key: value for key, value in golden(NAME).config["vae"].items() if key != "cls"}
    vae = build_vae(config, golden(NAME).weights)
    latents, _ = walked(DECODED.fullmatch(name)[1])
    assert_close(decode(vae, latents[-1]), golden(NAME).outputs[name], SAMPLER_7B_DECODED, name)


@pytest.mark.parametrize("run", cases(NAME, lambda found: (run["name"] for run in found.config["runs"])))
def test_two_passes_end_where_the_reference_ends(run: str) -> None:
    latents, said = walked(run, two_passes=True)
    last = f"{run}.step{len(latents) - 1}.latents"
    assert_close(latents[-1], golden(NAME).outputs[last], SAMPLER_7B_LATENTS, last)
    guided = next(found for found in runs() if found["name"] == run)["guidance_scale"] != 1.0
    assert len(said) == len(latents) * (2 if guided else 1)


@pytest.mark.parametrize("run", cases(NAME, lambda found: (run["name"] for run in found.config["runs"])))
def test_the_draws_come_from_one_generator_in_the_order_of_the_reference(run: str) -> None:
    inputs = golden(NAME).inputs
    generator = torch.Generator().manual_seed(golden(NAME).config["generator_seed"])
    draws = [name for name in inputs if re.fullmatch(rf"{re.escape(run)}\.noise\d+", name)]
    for name in ["initial_latents", *sorted(draws, key=lambda name: int(re.search(r"\d+$", name)[0]))]:
        assert torch.equal(torch.randn(inputs[name].shape, generator=generator), inputs[name]), name


@pytest.mark.parametrize("run", cases(NAME, lambda found: (json.dumps(run) for run in found.config["runs"])))
def test_the_times_are_those_of_the_reference(run: str) -> None:
    settings = json.loads(run)
    scheduler = make_scheduler(settings["scheduler"], golden(NAME).config["scheduler"])
    scheduler.set_timesteps(settings["steps"])
    assert scheduler.timesteps.tolist() == settings["timesteps"]


@pytest.mark.parametrize("name", cases(NAME, lambda found: (name for name in found.outputs if name in TABLES)))
def test_the_tables_are_those_of_the_reference(name: str) -> None:
    visual, motion = tables()
    kind, half = name.split("_")
    table = getattr(visual if kind == "visual" else motion, half)
    assert_close(table, golden(NAME).outputs[name], TABLES[name], name)


@pytest.mark.parametrize(
    "name", cases(NAME, lambda found: (name for name in found.outputs if TIMESTEPS.fullmatch(name)))
)
def test_the_noise_schedule_is_that_of_the_reference(name: str) -> None:
    for kind in ("dpm", "ddim"):
        scheduler = make_scheduler(kind, golden(NAME).config["scheduler"])
        assert_close(scheduler.alphas_cumprod, golden(NAME).outputs["alphas_cumprod"], 1e-6, kind)
        scheduler.set_timesteps(int(TIMESTEPS.fullmatch(name)[1]))
        assert torch.equal(scheduler.timesteps, golden(NAME).outputs[name].long())


def test_no_tensor_of_the_golden_is_left_out() -> None:
    patterns = (STEP, DECODED, TIMESTEPS)
    left = [name for name in golden(NAME).outputs if not any(pattern.fullmatch(name) for pattern in patterns)]
    assert set(left) <= {*TABLES, "alphas_cumprod"}
