"""The ablations' command at toy size: what is shared, what is kept, and what is written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from filelock import FileLock
from safetensors.torch import load_file

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.mini import METRICS
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.tokens.normalise import seen
from mtvcraft_cli.train.ablate import VARIANTS, ablate, alike, planned, variant_of
from mtvcraft_cli.train.ablation_table import summarised, table
from mtvcraft_cli.train.settings import load_recipe, preset_settings
from mtvcraft_cli.weights.locate import locate
from tests.train.toy import toy_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.utils.tensorboard.*", "ignore:.*lr_scheduler.*")
SMALL: dict[str, Any] = {
    "dit.clips": 64,
    "dit.first_clips": 0,
    "ablation.clips": 2,
    "ablation.seeds": 2,
    "ablation.base": [[2, 1e-3, 1e-3]],
}
SOME = ("default", "no-quantize", "dynamic-pe", "learnable-pe")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_recipe(tmp_path_factory.mktemp("recipe"), phases=[[2, 1e-3, 1e-3]], checkpoint_s=1000.0)


@pytest.fixture(scope="module")
def done(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which some variants are trained."""
    folder = tmp_path_factory.mktemp("ablations")
    scores = list(ablate(folder, variants=SOME, recipe=str(recipe), changes=SMALL))
    assert [(score["variant"], score["seed"]) for score in scores] == [(name, 0) for name in SOME]
    yield folder
    AcceleratorState._reset_state(reset_partial_state=True)


def test_variants_share_what_they_can(done: Path) -> None:
    assert {path.name for path in done.glob("tokenizer-*")} == {"tokenizer-default", "tokenizer-no-quantize"}
    assert len(list((done / "clips").glob("tokens-*"))) == 2
    assert len(list((done / "clips/latents").glob("shard-*"))) == 1
    assert not list(done.glob("**/checkpoints")), "nothing is kept that only an unfinished run needs"
    vaes = [load_file(done / f"runs/{name}-0/vae.safetensors") for name in SOME]
    assert all(torch.equal(vae[key], vaes[0][key]) for vae in vaes for key in vae)


def test_all_start_from_one_video_model_that_knows_nothing_of_motion(done: Path) -> None:
    base = load_file(done / "base/video.safetensors")
    assert not any("motion" in name or "attn0" in name for name in base)
    for name in SOME:
        weights = load_file(done / f"runs/{name}-0/transformer.safetensors")
        assert base.keys() < weights.keys()
        for key, tensor in base.items():
            torch.testing.assert_close(weights[key], tensor, atol=4e-3, rtol=0)  # two steps of 1e-3 away


@pytest.mark.parametrize("name", SOME)
def test_each_run_s_preset_is_its_variant_with_its_own_weights(done: Path, name: str) -> None:
    preset = load_preset(str(done / f"runs/{name}-0"))
    assert not preset.seeded
    assert all(not part.missing for part in locate(preset, None).values())
    positions = {"dynamic-pe": "dynamic", "learnable-pe": "learnable"}.get(name, "4d")
    assert preset.transformer.get("motion_positions", "4d") == positions
    assert preset.tokenizer["codes"] == (None if name == "no-quantize" else 16)
    weights = load_file(done / f"runs/{name}-0/transformer.safetensors")
    assert ("motion_position_joint" in weights) == (name == "learnable-pe")


def test_the_results_are_there_for_people_and_for_programs(done: Path) -> None:
    lines = [json.loads(line) for line in (done / "results.jsonl").read_text().splitlines()]
    assert [line["variant"] for line in lines] == list(SOME)
    assert all(set(METRICS) <= line.keys() for line in lines)
    assert all(set(line["splits"]) == {"human", "non-human", "mismatched"} for line in lines)
    content = json.loads((done / "results.json").read_text())
    assert [row["variant"] for row in content["variants"]] == list(SOME)
    assert set(content["networks"]) == {"vae", "base", "tokenizer-default", "tokenizer-no-quantize"}
    assert content["networks"]["vae"]["psnr_db"] > 0
    markdown = (done / "table.md").read_text().splitlines()
    assert len(markdown) == 2 + len(SOME)
    assert len({line.count("|") for line in markdown}) == 1


def test_a_finished_run_is_not_done_again_and_another_seed_is(done: Path, recipe: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.glob("**/*.safetensors")}
    told: list[str] = []

    def watch(items: Any, stage: str, total: int | None = None) -> Iterator[Any]:
        told.append(stage)
        return silent(items, stage, total)

    again = list(ablate(done, variants=SOME, recipe=str(recipe), changes=SMALL, watch=watch))
    assert len(again) == len(SOME)
    assert told == []
    more = list(ablate(done, variants=["default"], seeds=2, recipe=str(recipe), changes=SMALL, watch=watch))
    assert [score["seed"] for score in more] == [0, 1]
    assert all(stage.startswith("default, seed 1: ") for stage in told)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    first, second = (load_file(done / f"runs/default-{seed}/transformer.safetensors") for seed in (0, 1))
    assert any(not torch.equal(first[key], second[key]) for key in first)
    assert "± " in (done / "table.md").read_text()


def test_a_run_that_another_process_is_at_is_left_to_it(done: Path, recipe: Path) -> None:
    with FileLock(done / "runs/default-0/.lock"):
        scores = list(ablate(done, variants=SOME, recipe=str(recipe), changes=SMALL, limit_s=1.0))
    assert [score["variant"] for score in scores] == list(SOME[1:])


def test_when_the_time_is_up_what_is_done_is_kept_and_the_same_call_goes_on(recipe: Path, tmp_path: Path) -> None:
    assert list(ablate(tmp_path, variants=["1d"], recipe=str(recipe), changes=SMALL, limit_s=0.0)) == []
    assert not (tmp_path / "table.md").exists()
    assert len(list(ablate(tmp_path, variants=["1d"], recipe=str(recipe), changes=SMALL))) == 1


def test_a_folder_made_by_another_recipe_is_refused(done: Path, recipe: Path) -> None:
    changes = SMALL | {"dit.drop_motion": 0.3}
    with pytest.raises(MtvcraftError, match="another recipe") as raised:
        next(ablate(done, variants=SOME, recipe=str(recipe), changes=changes))
    assert raised.value.exit is Exit.USAGE


@pytest.mark.parametrize(("variants", "hint"), [(["no-quantise"], "`no-quantize`"), ([], "there are default")])
def test_an_unknown_variant_is_refused_with_the_nearest(tmp_path: Path, variants: list[str], hint: str) -> None:
    with pytest.raises(MtvcraftError) as raised:
        next(ablate(tmp_path / "new", variants=variants))
    assert hint in raised.value.hint
    assert not (tmp_path / "new").exists()


def test_the_recipe_in_the_package_trains_the_presets_in_the_package() -> None:
    recipe = load_recipe("ablation")
    for name in VARIANTS:
        assert variant_of(recipe.preset, name) == preset_settings(f"ablations/{name}")
    runs = planned(VARIANTS, recipe, None)
    assert len(runs) == 18
    assert runs[: len(VARIANTS)] == [(name, 0) for name in VARIANTS], "one of each first"
    assert {name for name, seed in runs if seed == 2} == {"default", "no-quantize", "no-differential", "no-pe"}
    own = {"no-quantize", "no-differential", "xy-quantization"}
    assert {name: alike(name) for name in VARIANTS} == {name: name if name in own else "default" for name in VARIANTS}


def test_without_recorded_motion_the_recipe_names_no_file() -> None:
    recipe = load_recipe("ablation").danced()
    assert "cmu" not in repr(recipe)
    assert "cmu" in repr(load_recipe("ablation", motion=Path("folder")))


def scored(variant: str, seed: int, psnr: float) -> dict[str, Any]:
    return {"variant": variant, "seed": seed, **dict.fromkeys(METRICS, 0.5), "psnr": psnr, "psnr_other_motion": 20.0}


def test_the_table_has_means_spreads_and_the_paper_s_figures() -> None:
    rows = summarised([scored("no-pe", 0, 20.0), scored("default", 0, 21.0), scored("default", 1, 23.0)])
    assert [row["variant"] for row in rows] == ["default", "no-pe"]
    assert rows[0]["mean"]["gain_other"] == pytest.approx(2.0)
    assert rows[0]["spread"]["psnr"] == pytest.approx(2**0.5)
    assert rows[1]["spread"]["psnr"] is None
    lines = table(rows).splitlines()
    assert lines[2].startswith("| `default` | default | 2 | 22.00 ± 1.41 |")
    assert lines[3].startswith("| `no-pe` | w/o PE | 1 | 20.00 |")
    assert lines[3].endswith("| 16.51 | 0.707 | 0.281 | 32.56 | 548.31 | 13.40 |")


def test_depth_is_left_out_of_what_the_tokenizer_sees() -> None:
    joints = torch.from_numpy(np.arange(12, dtype=np.float32).reshape(2, 2, 3))
    assert torch.equal(seen(joints, "xyz"), joints)
    flat = seen(joints, "xy")
    assert torch.equal(flat[..., :2], joints[..., :2])
    assert not flat[..., 2].any()
