"""Whole runs at toy size: killed, spread over processes, stopped, and used afterwards."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from torch import nn

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.latents.cogvideox import build_transformer
from mtvcraft_cli.latents.rope import motion_table
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, tokenizer_from_tensors
from mtvcraft_cli.train.dit import DitObjective, at, widened
from mtvcraft_cli.train.examples import WorldExamples
from mtvcraft_cli.train.outcome import Outcome
from mtvcraft_cli.train.parts import told_scale
from mtvcraft_cli.train.run import Trained, train
from mtvcraft_cli.train.settings import Loop, load_recipe
from mtvcraft_cli.train.shards import Shards, shrunk
from mtvcraft_cli.train.stages import Kind, prepare_latents, statistics_of, train_stage
from mtvcraft_cli.train.tokenizer import TokenizerObjective, TokenizerStage, folded, misread
from mtvcraft_cli.weights.locate import locate
from tests import tiny
from tests.train.toy import toy_recipe

REPOSITORY = Path(__file__).parents[2]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.utils.tensorboard.*", "ignore:.*lr_scheduler.*")


def fresh_accelerator() -> None:
    """Let the next run of this process choose its precision anew."""
    AcceleratorState._reset_state(reset_partial_state=True)


def trained(kind: Kind, folder: Path, parts: dict[str, Path] | None = None, **changes: object) -> Trained:
    fresh_accelerator()
    recipe = load_recipe(str(toy_recipe(folder, **changes)))
    return train_stage(kind, recipe, folder / kind, parts=parts)


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_a_run_killed_on_the_way_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    recipe = toy_recipe(tmp_path)
    subprocess.run(
        [sys.executable, REPOSITORY / "tests/train/killed.py", recipe, tmp_path], check=True, env=ALONE, timeout=600
    )
    for kind, part in (("tokenizer", "tokenizer"), ("vae", "vae"), ("dit", "transformer")):
        whole, killed = (tmp_path / how / kind for how in ("whole", "killed"))
        assert len(losses(whole)) == 100
        assert losses(killed) == losses(whole)
        assert losses(whole)[-1] != losses(whole)[0]
        expected = load_file(whole / f"{part}.safetensors")
        for name, tensor in load_file(killed / f"{part}.safetensors").items():
            assert torch.equal(tensor, expected[name]), f"{name} of the {kind}"
        assert len(list((killed / "checkpoints").glob("step-*"))) == 2


@pytest.mark.parametrize("kind", ["tokenizer", "dit"])
def test_two_processes_have_the_loss_curve_of_one_with_twice_the_batch(tmp_path: Path, kind: Kind) -> None:
    changes = {"phases": [[8, 1e-3, 1e-3]], "batch": 4, "checkpoint_s": 1000.0}
    parts = {}
    if kind == "dit":
        for part in ("tokenizer", "vae"):
            trained(part, tmp_path, phases=[[1, 1e-3, 1e-3]])  # type: ignore[arg-type]
            parts[part] = tmp_path / part
    two = tmp_path / "two"
    two.mkdir()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    given = [word for part, path in parts.items() for word in (f"--{part}", path)]
    train = ["-m", "mtvcraft_cli", "train", kind, "-o", two / kind, "--recipe", toy_recipe(two, **changes), *given]
    subprocess.run([*launch, *train], check=True, env=ALONE, timeout=300, cwd=REPOSITORY)
    trained(kind, tmp_path, parts, **changes)
    assert len(losses(two / kind)) == 8
    assert losses(two / kind) == pytest.approx(losses(tmp_path / kind), rel=2e-5)


def test_a_run_killed_before_its_last_report_still_makes_it(tmp_path: Path) -> None:
    folder = trained("vae", tmp_path, phases=[[2, 1e-3, 1e-3]]).folder
    log, kinds = folder / "log.jsonl", ["train", "train", "report"]
    lines = log.read_text().splitlines(keepends=True)
    assert [json.loads(line)["kind"] for line in lines] == kinds
    log.write_text("".join(lines[:2]))
    trained("vae", tmp_path, phases=[[2, 1e-3, 1e-3]])
    assert log.read_text().splitlines(keepends=True) == lines


class Diverging:
    """A stage whose loss is no number from its third step on."""

    def __init__(self) -> None:
        self.objective = Root()

    def join(self, accelerator: Accelerator) -> None: ...

    def batch(self, step: int, samples: Sequence[int]) -> dict[str, torch.Tensor]:
        return {"of": torch.full((len(samples),), 2.0 - step)}

    def after(self, step: int) -> dict[str, float]:
        return {}

    def report(self, step: int, folder: Path) -> dict[str, float]:
        return {}

    def export(self, folder: Path, whole: Any = None) -> None: ...


class Root(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, of: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * (of - 0.5).log()).mean()}


def test_a_network_that_is_lost_is_not_kept_even_between_two_lines_of_the_log(tmp_path: Path) -> None:
    fresh_accelerator()
    loop = Loop(phases=((8, 1e-3, 1e-3),), batch=1, log_steps=100, checkpoint_s=0.0)
    with pytest.raises(MtvcraftError, match="the loss is nan after step 3"):
        train(Diverging(), loop, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*")) == ["step-00000001", "step-00000002"]


def test_a_part_that_torch_saved_is_kept_as_the_safetensors_that_it_is_called(tmp_path: Path) -> None:
    torch.save({"module": {"weight": torch.ones(2, 3)}}, tmp_path / "states.pt")
    preset = load_recipe("mini").preset
    parts = {"tokenizer": tmp_path / "states.pt"}
    (tmp_path / "run").mkdir()
    Outcome(preset, load_preset("mini").statistics, parts).write(tmp_path / "run")
    assert torch.equal(load_file(tmp_path / "run" / "tokenizer.safetensors")["weight"], torch.ones(2, 3))


def test_parts_of_a_step_give_the_weights_of_the_whole_step(tmp_path: Path) -> None:
    for name, parts in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        trained("vae", tmp_path / name, phases=[[3, 1e-3, 1e-3]], batch=2, accumulate=parts, checkpoint_s=1000.0)
    assert losses(tmp_path / "two/vae") == pytest.approx(losses(tmp_path / "one/vae"), rel=1e-4)


def test_a_runs_preset_finds_its_own_weights(tmp_path: Path) -> None:
    done = trained("tokenizer", tmp_path, phases=[[2, 1e-3, 1e-3]])
    assert done.finished
    preset = load_preset(str(done.folder))
    places = locate(preset, None)
    assert places["tokenizer"].path == done.folder / "tokenizer.safetensors"
    assert places["vae"].seed == 0
    assert preset.size_px == (16, 16)
    assert np.isfinite(preset.statistics.std_mm).all()


@pytest.mark.parametrize("kind", ["tokenizer", "vae"])
def test_a_decoder_trained_further_leaves_the_encoder_and_its_codes_as_they_are(tmp_path: Path, kind: Kind) -> None:
    first = trained(kind, tmp_path, phases=[[6, 1e-3, 1e-3]])
    more = {f"{kind}.base": str(first.folder), f"{kind}.decoder_only": True}
    if kind == "vae":  # a transformer may know another factor than that of today's clips
        told = (first.folder / "preset.yaml").read_text(encoding="utf-8")
        (first.folder / "preset.yaml").write_text(re.sub(r"scaling_factor: \S+", "scaling_factor: 0.123", told))
    fresh_accelerator()
    recipe = load_recipe(str(tmp_path / "toy.yaml"), more)
    train_stage(kind, recipe, tmp_path / "further")
    before, after = (load_file(run / f"{kind}.safetensors") for run in (first.folder, tmp_path / "further"))
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith("decoder.") for name in moved)
    if kind == "vae":
        assert load_preset(str(tmp_path / "further" / "preset.yaml")).vae["scaling_factor"] == 0.123


def test_codes_that_are_split_part_and_lie_nearer_to_the_latents(tmp_path: Path) -> None:
    first = trained("tokenizer", tmp_path)
    base = {"tokenizer.base": str(first.folder), "tokenizer.decoder_only": True}
    whole = load_recipe(str(tmp_path / "toy.yaml"))
    assert whole.tokenizer is not None
    joints = TokenizerStage(whole.tokenizer, whole.preset, statistics_of(whole)).batch(0, range(48))["joints"]
    away = {}
    for codes in (16, 64):
        fresh_accelerator()
        recipe = load_recipe(str(tmp_path / "toy.yaml"), base | {"preset.tokenizer.codes": codes})
        run = train_stage("tokenizer", recipe, tmp_path / str(codes)).folder
        tensors = load_file(run / "tokenizer.safetensors")
        tokenizer = tokenizer_from_tensors(recipe.preset["tokenizer"], tensors)
        with torch.no_grad():
            latents = tokenizer.encode(joints)
            away[codes] = float((tokenizer.look_up(tokenizer.quantise(latents)) - latents).square().mean())
        before = load_file(first.folder / "tokenizer.safetensors")
        assert all(torch.equal(tensors[name], before[name]) for name in tensors if name.startswith("encoder."))
        assert len(tensors["vq.codebook"].unique(dim=0)) == codes
    assert away[64] < 0.8 * away[16]


@pytest.mark.parametrize("kind", ["tokenizer", "vae"])
def test_a_decoder_alone_needs_a_trained_encoder(tmp_path: Path, kind: Kind) -> None:
    recipe = load_recipe(str(toy_recipe(tmp_path)), {f"{kind}.decoder_only": True})
    with pytest.raises(MtvcraftError, match=r"isn't trained") as refused:
        train_stage(kind, recipe, tmp_path / "alone")
    assert f"{kind}.base" in refused.value.hint


def test_a_legible_run_leaves_a_tokenizer_like_any_other(tmp_path: Path) -> None:
    recipe = load_recipe(str(toy_recipe(tmp_path)), {"tokenizer.legible": 1.0})
    fresh_accelerator()
    run = train_stage("tokenizer", recipe, tmp_path / "run")
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert all(line["misread"] > 0 for line in lines if line["kind"] == "train")
    tokenizer_from_tensors(recipe.preset["tokenizer"], load_file(run.folder / "tokenizer.safetensors"))


def test_legible_latents_say_more_by_themselves() -> None:
    def unread(legible: float) -> float:
        """How wrong the best linear map reads joints from their own latents."""
        torch.manual_seed(0)
        it = TokenizerObjective(MotionTokenizer(channels=(32, 32), width=48, codes=None), None, 0.0, 0, legible)
        steps = torch.optim.Adam(it.parameters(), 2e-3)
        walks = torch.randn(16, 17, 24, 3, generator=torch.Generator().manual_seed(1)).cumsum(1) / 2
        for step in range(100):
            steps.zero_grad()
            it(walks[step % 2 * 8 :][:8])["loss"].backward()
            steps.step()
        with torch.no_grad():
            rows = it.tokenizer.encode(walks).flatten(0, 2)
            wanted = folded(walks).flatten(0, 2)
            rows = torch.cat([rows, torch.ones(len(rows), 1)], 1)
            fitted = torch.linalg.lstsq(rows, wanted).solution
            return float(misread(rows @ fitted, wanted))

    assert unread(1.0) < 0.7 * unread(0.0)


def test_a_token_stands_for_four_frames_of_its_joint_and_the_first_for_one() -> None:
    joints = torch.arange(9 * 24 * 3).view(1, 9, 24, 3)
    whole = folded(joints)
    assert whole.shape == (1, 3, 24, 12)
    assert whole[0, 0, 5].tolist() == 4 * joints[0, 0, 5].tolist()
    assert whole[0, 2, 7].tolist() == joints[0, 5:9, 7].flatten().tolist()


def test_a_step_may_see_some_latent_frames_at_their_own_times() -> None:
    objective = DitObjective(tiny.tiny_transformer(), torch.linspace(1, 0, 1000), tiny.joint_mean_mm(), 1.0)
    generator = torch.Generator().manual_seed(0)
    shape = (2, 7, 16, 4, 4)
    clip = {name: torch.randn(shape, generator=generator) for name in ("latents", "noise")}
    clip |= {
        "reference": torch.randn(2, 16, 4, 4, generator=generator),
        "tokens": torch.randn(2, 7 * 24, tiny.WIDTH, generator=generator),
        "figure": torch.ones(2, 7, 4, 4),
        "time": torch.tensor([500, 900]),
        "dropped": torch.tensor([False, True]),
    }
    whole = objective(**clip, places=torch.arange(7))["loss"]
    part = objective(**clip, places=torch.tensor([1, 5]))["loss"]
    visual, motion = objective.tables(clip["latents"])
    kept = at(motion, torch.tensor([1, 5]), 7)
    assert torch.equal(kept.cos[24:], motion.cos[5 * 24 : 6 * 24])
    assert len(at(visual, torch.tensor([1, 5]), 7).cos) == 2 * 4
    assert torch.isfinite(part)
    assert part != whole


def test_kept_latent_frames_lie_where_each_clip_s_own_joints_do() -> None:
    transformer = tiny.tiny_transformer(motion_positions="dynamic")
    objective = DitObjective(transformer, torch.linspace(1, 0, 1000), tiny.joint_mean_mm(), 1.0)
    generator, places = torch.Generator().manual_seed(0), torch.tensor([1, 5])
    first_mm = 100 * torch.randn(2, 24, 3, generator=generator)
    shape = (2, 7, 16, 4, 4)
    clip = {name: torch.randn(shape, generator=generator) for name in ("latents", "noise")}
    clip |= {
        "reference": torch.randn(2, 16, 4, 4, generator=generator),
        "tokens": torch.randn(2, 7 * 24, tiny.WIDTH, generator=generator),
        "figure": torch.ones(2, 7, 4, 4),
        "time": torch.tensor([500, 900]),
        "dropped": torch.tensor([False, False]),
    }
    _, motion = objective.tables(clip["latents"], first_mm)
    kept = at(motion, places, 7)
    for number, own_mm in enumerate(first_mm):
        own = motion_table(7, own_mm.numpy(), 16)
        assert torch.equal(kept.cos[number, 24:], own.cos[5 * 24 : 6 * 24])
    losses = [objective(**clip, places=places, first_mm=each)["loss"] for each in (first_mm, first_mm.flip(0))]
    assert torch.isfinite(losses[0])
    assert losses[0] != losses[1]


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="a batch of 3 can't be shared out") as raised:
        trained("vae", tmp_path, batch=3, accumulate=2)
    assert "multiple of 2" in raised.value.hint


def test_lengths_that_would_not_come_back_are_refused(tmp_path: Path) -> None:
    recipe = load_recipe(str(toy_recipe(tmp_path)), {"vae.frames": [9, 12]})
    with pytest.raises(MtvcraftError, match="can't hold `12`"):
        train_stage("vae", recipe, tmp_path / "vae")


def test_a_transformer_needs_the_networks_before_it(tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="without a tokenizer"):
        trained("dit", tmp_path)
    with pytest.raises(MtvcraftError, match="there is no vae at"):
        trained("dit", tmp_path, {"vae": tmp_path})


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trained("tokenizer", tmp_path, phases=[[1, 1e-3, 1e-3]])
    recipe = load_recipe(str(toy_recipe(tmp_path)), {"preset.tokenizer.width": 64})
    AcceleratorState._reset_state(reset_partial_state=True)
    with pytest.raises(MtvcraftError, match="can't be used") as raised:
        train_stage("tokenizer", recipe, tmp_path / "tokenizer")
    assert "another folder" in raised.value.hint


def test_shards_made_with_other_weights_are_not_mixed(tmp_path: Path) -> None:
    made: list[int] = []

    def make(shard: int) -> dict[str, torch.Tensor]:
        made.append(shard)
        return {"number": torch.arange(64) + 64 * shard}

    shards = Shards(tmp_path, "first", make)
    assert int(shards.clip(130)["number"]) == 130
    assert int(Shards(tmp_path, "first", make).clip(129)["number"]) == 129
    assert made == [2], "made once, by whoever came first"
    with pytest.raises(MtvcraftError, match="made with other weights"):
        Shards(tmp_path, "second", make)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_clips_made_ahead_are_those_that_a_run_makes_itself(tmp_path: Path, precision: str) -> None:
    parts = {}
    for part in ("tokenizer", "vae"):
        parts[part] = trained(part, tmp_path, phases=[[1, 1e-3, 1e-3]]).folder  # type: ignore[arg-type]
    how = {"phases": [[1, 1e-3, 1e-3]], "precision": precision}
    fresh_accelerator()
    # Without `start: reference`, which looks at clips, all of them are made between the steps.
    recipe = load_recipe(str(toy_recipe(tmp_path, **how)), {"dit.start": "noise"})
    alone = train_stage("dit", recipe, tmp_path / "dit", parts=parts).folder
    assert prepare_latents(recipe, tmp_path / "ahead", parts, limit_clips=64) == 64
    for shard in ("latents/shard-00000.safetensors", next(alone.glob("tokens-*")).name + "/shard-00000.safetensors"):
        expected, made = load_file(alone / shard), load_file(tmp_path / "ahead" / shard)
        assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
        assert made.keys() == expected.keys()


def test_a_run_does_not_go_on_with_another_tokenizer(tmp_path: Path) -> None:
    one, parts = [[1, 1e-3, 1e-3]], {}
    for part in ("tokenizer", "vae"):
        parts[part] = trained(part, tmp_path, phases=one).folder  # type: ignore[arg-type]
    run = trained("dit", tmp_path, parts, phases=one).folder
    other = tmp_path / "other.safetensors"
    tensors = load_file(parts["tokenizer"] / "tokenizer.safetensors")
    save_file({name: tensor * 1.1 for name, tensor in tensors.items()}, other)
    with pytest.raises(MtvcraftError, match="on other tokens") as raised:
        trained("dit", tmp_path, {**parts, "tokenizer": other}, phases=[[2, 1e-3, 1e-3]])
    assert "dit.base" in raised.value.hint
    assert len(losses(run)) == 1
    assert trained("dit", tmp_path, parts, phases=[[2, 1e-3, 1e-3]]).step == 2


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_vae_kept_in_16_bits_is_trained_in_32_and_trained_on(tmp_path: Path, precision: str) -> None:
    one = [[1, 1e-3, 1e-3]]
    parts = {part: trained(part, tmp_path, phases=one).folder for part in ("tokenizer", "vae")}  # type: ignore[arg-type]
    packed = tmp_path / "packed"
    packed.mkdir()
    tensors = load_file(parts["vae"] / "vae.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, packed / "vae.safetensors")
    factor = load_preset(str(parts["vae"])).vae["scaling_factor"]
    (parts["vae"] / "preset.yaml").rename(tmp_path / "packed.yaml")  # as `train pack` lays them
    assert told_scale(packed / "vae.safetensors") == factor != 1
    half = {**parts, "vae": packed / "vae.safetensors"}
    assert trained("dit", tmp_path, half, phases=one, precision=precision).step == 1
    fresh_accelerator()
    more = {"vae.base": str(packed), "vae.decoder_only": True}
    recipe = load_recipe(str(toy_recipe(tmp_path, phases=one, precision=precision)), more)
    run = train_stage("vae", recipe, tmp_path / "further").folder
    made = load_file(run / "vae.safetensors")
    assert any(not torch.equal(tensor, tensor.half().float()) for tensor in made.values()), "steps finer than 16 bits"
    assert load_preset(str(run)).vae["scaling_factor"] == factor


def test_the_figure_is_wherever_it_is_in_any_frame_of_a_latent() -> None:
    figure = torch.zeros(9, 8, 8, dtype=torch.bool)
    figure[3, 5, 1] = True
    small = shrunk(figure, torch.Size((3, 2, 2)))
    assert small.nonzero().tolist() == [[1, 1, 0]]


def test_clips_can_only_have_begun_whole_windows_before() -> None:
    for number in range(6):
        one, other = (WorldExamples(before=before)(number, (16, 16), 9) for before in (0, 10))
        assert np.array_equal(one.frames, other.frames)


def test_a_window_that_carries_on_knows_how_its_clip_began() -> None:
    made = [WorldExamples(before=64)(number, (16, 16), 9) for number in range(8)]
    late = [not np.array_equal(clip.joints_mm[0], clip.joints_mm[1]) for clip in made]
    assert any(late)
    assert not all(late)
    for clip, is_late in zip(made, late, strict=True):
        assert clip.joints_mm.shape == (10, 24, 3)
        assert is_late or np.array_equal(clip.frames[0], clip.reference)


def test_a_base_model_gives_all_its_weights_and_gets_channels_for_the_reference() -> None:
    sizes = tiny.TRANSFORMER | {"in_channels": 32, "out_channels": 16}
    whole = seeded_tensors(tiny.tiny_transformer(), 3)
    base = {
        name: tensor for name, tensor in whole.items() if "attn0" not in name and name != "unconditional_motion_token"
    }
    base["patch_embed.proj.weight"] = base["patch_embed.proj.weight"][:, :16]
    tensors = widened(sizes, base)
    network = build_transformer(sizes, tensors, silent=True)
    for name, tensor in base.items():
        kept = network.state_dict()[name]
        assert torch.equal(kept[:, :16] if name == "patch_embed.proj.weight" else kept, tensor), name
    assert not network.patch_embed.proj.weight[:, 16:].any()


def test_a_named_tokenizer_and_vae_bring_what_lies_beside_them(tmp_path: Path) -> None:
    once = {"phases": [[1, 1e-3, 1e-3]]}
    runs = {kind: trained(kind, tmp_path, **once).folder for kind in ("tokenizer", "vae")}
    told = json.loads((runs["tokenizer"] / "joint_statistics.json").read_text())
    told["std_mm"] = [[2 * number for number in row] for row in told["std_mm"]]
    (runs["tokenizer"] / "joint_statistics.json").write_text(json.dumps(told))
    preset = yaml.safe_load((runs["vae"] / "preset.yaml").read_text())
    preset["vae"]["scaling_factor"] = 0.123
    (runs["vae"] / "preset.yaml").write_text(yaml.safe_dump(preset))
    named = {
        "preset.weights": {"tokenizer": str(runs["tokenizer"] / "tokenizer.safetensors"), "vae": str(runs["vae"])},
        "dit.clips": 64,
        "dit.report_clips": 0,
    }
    fresh_accelerator()
    done = train_stage("dit", load_recipe(str(toy_recipe(tmp_path, **once)), named), tmp_path / "dit")
    made = load_preset(str(done.folder))
    assert made.vae["scaling_factor"] == 0.123
    np.testing.assert_allclose(made.statistics.std_mm, told["std_mm"], rtol=1e-6)
