"""Training on Wan at toy size: what is learned, what stays as it was, and that the result runs."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.latents.wan import build_transformer, from_released, to_released
from mtvcraft_cli.latents.wanvideo.lora import alpha_of, merge_lora
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.train import parts
from mtvcraft_cli.train.backbones import make_stage
from mtvcraft_cli.train.base_wan import with_motion
from mtvcraft_cli.train.dit_wan import WanStage
from mtvcraft_cli.train.examples import Examples, Size, WorldExamples
from mtvcraft_cli.train.flow import draw_level
from mtvcraft_cli.train.parts import needed
from mtvcraft_cli.train.run import Trained, samples_rng
from mtvcraft_cli.train.settings import DitTraining, Levels, Loop, load_recipe
from mtvcraft_cli.train.stages import prepare_latents, train_stage
from mtvcraft_cli.train.trained import choose_trained
from mtvcraft_cli.weights.locate import locate
from mtvcraft_cli.weights.read import read_lora_config, read_tensors
from tests import tiny
from tests.cli.inputs import picture, save_joints
from tests.cli.run import mtvcraft
from tests.latents.test_wan import inputs, run
from tests.tiny_wan import TOKEN, tiny_wan_tensors
from tests.train.test_training import ALONE, REPOSITORY, fresh_accelerator, losses
from tests.train.toy import toy_recipe
from tests.train.toy_wan import SIZES, base_model, given, toy_wan_parts, toy_wan_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.utils.tensorboard.*", "ignore:.*lr_scheduler.*")
FEW = {"phases": [[3, 1e-2, 1e-2]], "warmup": 0, "checkpoint_s": 1000.0}


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `parts`, and with `prepared`, a run whose clips are made."""
    folder = tmp_path_factory.mktemp("wan")
    (folder / "parts").mkdir()
    files = toy_wan_parts(folder / "parts")
    recipe = load_recipe(str(toy_wan_recipe(folder, files)))
    assert prepare_latents(recipe, folder / "prepared", given(files)) == 64
    return folder


def parts_of(ready: Path) -> dict[str, Path]:
    return {path.stem: path for path in (ready / "parts").iterdir()}


def stage_of(
    ready: Path, folder: Path, leave_out: str = "", examples: Examples | None = None, **changes: Any
) -> WanStage:
    files = parts_of(ready)
    if not (folder / "dit").exists():
        shutil.copytree(ready / "prepared", folder / "dit")
    recipe = load_recipe(str(toy_wan_recipe(folder, files, **changes)))
    files = {part: path for part, path in given(files).items() if part != leave_out}
    stats, held = load_preset("mini").statistics, WorldExamples(None, "human")
    assert recipe.dit is not None
    made = make_stage(
        recipe.dit, recipe.preset, stats, examples or WorldExamples(None, "train"), held, folder / "dit", files
    )
    assert isinstance(made, WanStage)
    return made


def trained(ready: Path, folder: Path, **changes: Any) -> Trained:
    fresh_accelerator()
    shutil.copytree(ready / "prepared", folder / "dit")
    recipe = load_recipe(str(toy_wan_recipe(folder, parts_of(ready), **changes)))
    return train_stage("dit", recipe, folder / "dit", parts=given(parts_of(ready)))


def test_a_run_killed_twice_ends_with_the_weights_of_one_that_was_not(ready: Path, tmp_path: Path) -> None:
    recipe = toy_wan_recipe(tmp_path, parts_of(ready), loop={"batch": 1, "gradient_checkpointing": False})
    words = [REPOSITORY / "tests/train/killed_wan.py", recipe, ready / "parts", ready / "prepared", tmp_path]
    subprocess.run([sys.executable, *words], check=True, env=ALONE, timeout=600)
    assert len(losses(tmp_path / "whole")) == 100
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    expected = read_tensors(tmp_path / "whole/transformer")
    made = read_tensors(tmp_path / "killed/transformer")
    assert made.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in made.items())
    kept = load_file(max((tmp_path / "whole/checkpoints").glob("step-*")) / "model.safetensors")
    assert kept
    assert all(".motion_attn." in name or ".norm4." in name for name in kept), "what is frozen comes from the base"


@pytest.mark.parametrize("layout", ["diffusers", "released"])
def test_new_motion_attention_leaves_the_base_s_own_computation_as_it_is(ready: Path, layout: str) -> None:
    base = base_model()
    tensors = read_tensors(ready / "parts/base")
    tensors = to_released(tensors) if layout == "released" else tensors
    transformer = build_transformer(SIZES, with_motion(SIZES, tensors), silent=True)
    transformer.text_len = 512  # the only length at which diffusers finds the picture
    given = inputs()
    text = functional.pad(given["text"], (0, 0, 0, 512 - given["text"].shape[1]))
    with torch.no_grad():
        theirs = base(given["hidden_states"], given["timestep"], text, given["picture"], return_dict=False)[0]
    torch.testing.assert_close(run(transformer), theirs, rtol=0, atol=2e-5)  # their time is float32
    with pytest.raises(MtvcraftError, match="nothing but zeros"):
        build_transformer(SIZES, with_motion(SIZES, tensors))


def test_an_mv_dit_is_a_base_as_it_is() -> None:
    released = to_released(tiny_wan_tensors())
    tensors = with_motion(SIZES, released)
    assert tensors.keys() == from_released(released).keys()
    assert all(tensor is from_released(released)[name] for name, tensor in tensors.items())


def test_only_the_motion_attention_changes_and_the_result_animates(ready: Path, tmp_path: Path) -> None:
    done = trained(ready, tmp_path, loop=FEW)
    base, made = read_tensors(ready / "parts/base"), read_tensors(done.folder / "transformer")
    assert all(torch.equal(made[name], tensor) for name, tensor in base.items())
    new = made.keys() - base.keys()
    assert {name.split(".")[2] for name in new} == {"motion_attn", "norm4"}
    assert all(made[name].abs().max() > 0 for name in new if name.endswith("to_out.0.weight"))
    preset = load_preset(str(done.folder))
    places = locate(preset, None)
    assert places["vae"].path == ready / "parts/vae"
    assert places["tokenizer"].path == done.folder / "tokenizer.safetensors"
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy")
    words = ["animate", "ref.png", "drive.npy", "--preset", done.folder / "preset.yaml", "--motion-guidance", "3"]
    mtvcraft(*words, "-o", "out.mp4", cwd=tmp_path, check=0)


def test_a_lora_changes_nothing_of_its_base_and_acts_the_same_when_merged(ready: Path, tmp_path: Path) -> None:
    mvdit = parts_of(ready)["mvdit"]
    lora = {"rank": 2, "alpha": 6, "targets": ["to_q", "add_k_proj", "ffn.net.2"]}
    stage = stage_of(ready, tmp_path, base=str(mvdit), trains="lora", lora=lora)
    stage.encode_texts()
    batch = stage.batch(0, range(2))
    optimiser = torch.optim.SGD([weight for weight in stage.objective.parameters() if weight.requires_grad], lr=100.0)
    before = {name: tensor.clone() for name, tensor in stage.objective.state_dict().items()}
    for _ in range(3):
        stage.objective(**batch)["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
    changed = {n for n, tensor in stage.objective.state_dict().items() if not torch.equal(tensor, before[n])}
    assert changed
    assert all(".lora_" in name for name in changed)
    stage.export(tmp_path / "dit")
    file = tmp_path / "dit/lora.safetensors"
    tensors = read_tensors(mvdit)
    report = merge_lora(tensors, load_file(file), alpha=alpha_of(read_lora_config(file)))
    assert report.unmatched == report.misshaped == ()
    merged, plain = (build_transformer(SIZES, each) for each in (tensors, read_tensors(mvdit)))
    torch.testing.assert_close(run(merged), run(stage.transformer), rtol=0, atol=5e-5)
    assert (run(merged) - run(plain)).abs().mean() > 1e-3
    preset = load_preset(str(tmp_path / "dit"))
    assert locate(preset, None)["lora-1"].path == file
    assert locate(preset, None)["transformer"].path == mvdit
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy")
    words = ["animate", "ref.png", "drive.npy", "--preset", tmp_path / "dit/preset.yaml", "-o", "out.mp4"]
    assert f"parameters changed: {len(report.merged)}" in mtvcraft(*words, cwd=tmp_path, check=0).stderr


def test_a_lora_run_stops_and_goes_on(ready: Path, tmp_path: Path) -> None:
    lora = {"base": str(parts_of(ready)["mvdit"]), "trains": "lora", "lora": {"rank": 2}}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    trained(ready, whole, loop=FEW | {"phases": [[4, 1e-2, 1e-2]]}, **lora)
    trained(ready, cut, loop=FEW | {"phases": [[2, 1e-2, 1e-2]]}, **lora)
    fresh_accelerator()
    files = parts_of(ready)
    recipe = load_recipe(str(toy_wan_recipe(cut, files, loop=FEW | {"phases": [[4, 1e-2, 1e-2]]}, **lora)))
    train_stage("dit", recipe, cut / "dit", parts=given(files))
    expected = load_file(whole / "dit/lora.safetensors")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in load_file(cut / "dit/lora.safetensors").items())


def test_text_and_motion_are_dropped_as_often_as_is_said(ready: Path, tmp_path: Path) -> None:
    stage = stage_of(ready, tmp_path, drop_text=0.1, drop_motion=0.2)
    stage.encode_texts()
    batch = stage.batch(0, range(1000))
    silence, prompt = stage.texts(""), stage.texts("a person is dancing")
    untold = (batch["text"] == silence).all(dim=(1, 2))
    told = (batch["text"] == prompt).all(dim=(1, 2))
    assert not torch.equal(silence, prompt)
    assert (untold ^ told).all()
    assert untold.float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert batch["dropped"].float().mean().item() == pytest.approx(0.2, abs=0.04)
    both = (untold & batch["dropped"]).float().mean().item()
    assert both == pytest.approx(0.02, abs=0.015), "each by itself"


@pytest.mark.parametrize("own", [True, False])
def test_dropped_motion_is_seen_as_the_tokens_for_none(ready: Path, tmp_path: Path, own: bool) -> None:
    sizes = SIZES | ({"unconditional_motion_shape": [24, TOKEN]} if own else {})
    stage = stage_of(ready, tmp_path, trains="all", preset={"transformer": sizes})
    wake(stage)
    given_set = load_file(ready / "parts/no_motion.safetensors")["unconditional_motion_token"]
    assert stage.objective.learned is not None
    assert torch.equal(stage.objective.learned, given_set), "own ones start from those of the small model"
    batch = stage.batch(0, range(2)) | {"dropped": torch.tensor([True, True])}
    other = batch | {"tokens": batch["tokens"] + 1}
    dropped = [stage.objective(**each)["loss"] for each in (batch, other)]
    seen = [stage.objective(**(each | {"dropped": torch.tensor([False, False])}))["loss"] for each in (batch, other)]
    assert torch.equal(*dropped)
    assert not torch.equal(*seen)
    dropped[0].backward()
    token = getattr(stage.transformer, "unconditional_motion_token", None)
    assert (token is not None and token.grad is not None and bool(token.grad.any())) == own
    stage.export(tmp_path / "dit")
    preset = load_preset(str(tmp_path / "dit"))
    preset = replace(preset, sampler=replace(preset.sampler, motion_guidance=3.0))
    assert locate(preset, None)["no_motion"].path == (
        tmp_path / "dit/transformer" if own else parts_of(ready)["no_motion"]
    )


def wake(stage: WanStage) -> None:
    """Let motion attention say something, as after some steps."""
    stage.encode_texts()
    for name, weight in stage.transformer.named_parameters():
        if "motion_attn.to_out.0.weight" in name:
            weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)) / 7


@pytest.mark.parametrize("trains", ["all", "motion"])
def test_a_few_clips_are_learned_by_heart(ready: Path, tmp_path: Path, trains: str) -> None:
    stage = stage_of(ready, tmp_path, trains=trains, figure=0.0)
    stage.encode_texts()
    batch = stage.batch(0, range(4)) | {"level": torch.tensor([0.9, 0.7, 0.5, 0.3])}
    optimiser = torch.optim.Adam([w for w in stage.objective.parameters() if w.requires_grad], lr=2e-2)
    found = []
    for _ in range(40):
        loss = stage.objective(**batch)["loss"]
        found.append(loss.item())
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert found[-1] < {"all": 0.6, "motion": 0.9}[trains] * found[0], found


def test_the_target_is_the_way_from_clean_to_noise(ready: Path, tmp_path: Path) -> None:
    stage = stage_of(ready, tmp_path, figure=0.0)
    stage.encode_texts()
    batch = stage.batch(0, range(2))
    seen: dict[str, Tensor] = {}

    def answer(hidden_states: Tensor, timestep: Tensor, *_more: Any) -> Tensor:
        seen.update(latents=hidden_states[:, :16], image=hidden_states[:, 16:], time=timestep)
        return batch["noise"] - batch["latents"]

    stage.transformer.forward = answer  # type: ignore[method-assign]
    assert stage.objective(**batch)["loss"].item() == 0
    level = batch["level"][:, None, None, None, None]
    torch.testing.assert_close(seen["latents"], batch["latents"] + level * (batch["noise"] - batch["latents"]))
    assert torch.equal(seen["time"], 1000 * batch["level"])
    assert seen["image"][:, :4, 0].eq(1).all()
    assert seen["image"][:, :4, 1:].eq(0).all()


@pytest.mark.parametrize("backbone", ["wan", "cogvideox"])
@pytest.mark.parametrize("trains", ["all", "motion"])
def test_checkpointed_gradients_are_the_same(ready: Path, tmp_path: Path, backbone: str, trains: str) -> None:
    found = []
    for checkpointed in (False, True):
        make = wan_gradients if backbone == "wan" else small_gradients
        found.append(make(ready, tmp_path, trains, checkpointed))
    assert found[0].keys() == found[1].keys()
    assert any(gradient.any() for gradient in found[0].values())
    assert all(torch.allclose(gradient, found[1][name], atol=1e-6) for name, gradient in found[0].items())


def gradients(network: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    loss.backward()
    return {name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None}


def wan_gradients(ready: Path, folder: Path, trains: str, checkpointed: bool) -> dict[str, Tensor]:
    stage = stage_of(ready, folder, trains=trains, loop={"gradient_checkpointing": checkpointed})
    wake(stage)
    return gradients(stage.transformer, stage.objective(**stage.batch(0, range(2)))["loss"])


def small_gradients(_ready: Path, _folder: Path, trains: str, checkpointed: bool) -> dict[str, Tensor]:
    network = tiny.tiny_transformer(in_channels=8, out_channels=4).train()
    dit = DitTraining(loop=Loop(phases=((1, 1e-3, 1e-3),), batch=1), clips=64, base="some", trains=trains)  # type: ignore[arg-type]
    choose_trained(network, dit)
    if checkpointed:
        network.enable_gradient_checkpointing()
    rng = torch.Generator().manual_seed(1)
    seen = torch.randn(1, 3, 8, 4, 4, generator=rng), torch.tensor([400]), torch.randn(1, 72, 32, generator=rng)
    tables = visual_table(3, 2, 2, 16), motion_table(3, tiny.joint_mean_mm(), 16)
    return gradients(network, network(*seen, *tables).square().mean())


def test_a_frozen_base_stays_in_bfloat16_and_what_is_trained_in_float32(ready: Path, tmp_path: Path) -> None:
    done = trained(ready, tmp_path, loop=FEW | {"precision": "bfloat16"})
    made = read_tensors(done.folder / "transformer")
    assert made["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    assert made["blocks.0.motion_attn.to_q.weight"].dtype == torch.float32
    assert made["condition_embedder.time_embedder.linear_1.weight"].dtype == torch.float32
    assert all(np.isfinite(losses(done.folder)))
    told = [json.loads(line) for line in (done.folder / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(told[-1]["psnr_db"])
    build_transformer(SIZES, made)


def test_under_autocast_the_base_sees_the_exact_time() -> None:
    transformer = build_transformer(SIZES, tiny_wan_tensors())
    embedder = transformer.condition_embedder.time_embedder
    sinusoid = transformer.condition_embedder.timesteps_proj(torch.tensor([421.25]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        low = embedder(sinusoid)
    with torch.no_grad():
        assert torch.equal(low, embedder(sinusoid))


def test_levels_are_moved_towards_noise_as_the_sampler_moves_its_steps() -> None:
    drawn = {}
    for kind in ("uniform", "logit_normal"):
        levels = Levels(draw=kind)  # type: ignore[arg-type]
        for shift in (1.0, 5.0):
            drawn[kind, shift] = np.array([draw_level(samples_rng(1, n), levels, shift) for n in range(4000)])
    assert all(((found > 0) & (found < 1)).all() for found in drawn.values())
    assert np.median(drawn["uniform", 1.0]) == pytest.approx(0.5, abs=0.02)
    assert np.median(drawn["uniform", 5.0]) == pytest.approx(5 * 0.5 / (1 + 4 * 0.5), abs=0.02)
    assert drawn["uniform", 1.0].std() == pytest.approx(12**-0.5, abs=0.01)
    assert drawn["logit_normal", 1.0].std() < 0.25, "more of them lie in the middle"
    levels = Levels(draw="logit_normal", mean=2.0, spread=0.1)
    assert draw_level(samples_rng(1), levels, 1.0) == pytest.approx(0.88, abs=0.04)


class Described(WorldExamples):
    """Clips of which every second one has words of its own."""

    def caption(self, number: int, size_px: Size) -> str:
        return "the owl moves" if number % 2 else ""


def test_captions_of_the_data_set_go_before_the_recipe_s_prompt(ready: Path, tmp_path: Path) -> None:
    stage = stage_of(ready, tmp_path, drop_text=0.0)
    stage.examples = Described(None, "train")
    loads = []
    whole = stage.texts.load
    stage.texts = replace(stage.texts, folder=tmp_path / "texts", load=lambda: loads.append(1) or whole())
    stage.encode_texts()
    stage.encode_texts()
    assert loads == [1], "the encoder is there once, and only while there are new texts"
    assert len(list((tmp_path / "texts").iterdir())) == 4, "two prompts, the negative one, and nothing"
    batch = stage.batch(3, range(8))
    numbers = [number for number, _ in stage.drawn(3, range(8))]
    assert len({number % 2 for number in numbers}) == 2
    for number, text in zip(numbers, batch["text"], strict=True):
        assert torch.equal(text, stage.texts("the owl moves" if number % 2 else "a person is dancing"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prediction": "v"}, "the sampler of wan follows `flow`"),
        ({"start": "reference"}, "`dit.start` means nothing to a transformer on wan"),
        ({"time_power": 0.6}, "`dit.time_power` means nothing"),
        ({"kept_frames": [2]}, "`dit.kept_frames` means nothing"),
        ({"kept_patches": 24}, "`dit.kept_patches` means nothing"),
        ({"whole_from": 9}, "`dit.whole_from` means nothing"),
        ({"pointing": 0.2}, "`dit.pointing` means nothing"),
        ({"base": None}, "there is no base"),
        ({"base": "nowhere"}, "there is no base at `nowhere`"),
        ({"trains": "lora", "lora": {"targets": ["to_q", "to_qq"]}}, "`to_qq`, and no layer is called so"),
        ({"leave_out": "no_motion"}, "there are no tokens that stand for none"),
        ({"leave_out": "picture_encoder"}, "can't be trained without a picture_encoder"),
        ({"preset": {"loras": ["style.safetensors"]}}, "under the LoRAs of its preset"),
    ],
)
def test_what_cannot_work_is_refused_before_it_starts(
    ready: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(MtvcraftError, match=re.escape(said)) as raised:
        stage_of(ready, tmp_path, **changes)
    assert raised.value.exit in (Exit.USAGE, Exit.WEIGHTS)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dit.levels": {"shift": 2.0}}, "`dit.levels` means nothing to a transformer on cogvideox"),
        ({"dit.trains": "lora"}, "`dit.trains: lora` means nothing"),
        ({"dit.prediction": "flow"}, "the sampler of cogvideox follows `v`"),
    ],
)
def test_settings_of_wan_are_refused_on_the_small_backbone(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    recipe = load_recipe(str(toy_recipe(tmp_path)), changes)
    with pytest.raises(MtvcraftError, match=re.escape(said)):
        train_stage("dit", recipe, tmp_path / "dit", parts={})


def test_a_base_may_be_named_by_the_manifest() -> None:
    with pytest.raises(MtvcraftError) as raised:
        needed({"base": parts.locate("base", "wan-i2v")}, "base")
    assert "`mtvcraft download wan-i2v`" in raised.value.hint


def test_a_plan_finds_by_name_what_the_recipe_s_preset_names(ready: Path, tmp_path: Path) -> None:
    words = ["train", "dit", "--recipe", "wan", "--tokenizer", ready / "parts/tokenizer.safetensors", "-o", "run"]
    assert "30000 steps of 32 clips" in mtvcraft(*words, "--dry-run", cwd=tmp_path, check=0).stderr


def test_clips_of_other_examples_are_not_taken_for_these(ready: Path, tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="made with other weights or settings"):
        stage_of(ready, tmp_path, examples=WorldExamples(None, "train", before=32))


def test_8_bit_moments_are_kept_in_checkpoints(ready: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder, phases in ((whole, [[4, 1e-2, 1e-2]]), (cut, [[2, 1e-2, 1e-2]])):
        folder.mkdir()
        trained(ready, folder, loop=FEW | {"optimiser": "adamw8bit", "phases": phases})
    fresh_accelerator()
    files = parts_of(ready)
    loop = FEW | {"optimiser": "adamw8bit", "phases": [[4, 1e-2, 1e-2]]}
    train_stage("dit", load_recipe(str(toy_wan_recipe(cut, files, loop=loop))), cut / "dit", parts=given(files))
    expected = read_tensors(whole / "dit/transformer")
    made = read_tensors(cut / "dit/transformer")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in made.items())
