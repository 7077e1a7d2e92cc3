"""Recipes: what they say, and what is said about a wrong one."""

from pathlib import Path
from typing import Any

import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import BUILT_IN, PARTS, read_preset
from mtvcraft_cli.train.settings import RECIPES, Loop, load_recipe, read_changes
from tests.train.toy import toy_recipe


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_package_can_be_read(recipe: Path) -> None:
    read = load_recipe(recipe.stem)
    stages = [stage for stage in (read.tokenizer, read.vae, read.dit) if stage is not None]
    assert stages
    assert all(stage.loop.steps > 0 for stage in stages)
    weights = dict.fromkeys(PARTS[read.preset["backbone"]], "seeded:0")
    content = {**read.preset, "weights": weights, "statistics": "joint_statistics.json"}
    read_preset(content, name=recipe.stem, folder=BUILT_IN)


def test_the_papers_recipe_has_the_papers_numbers() -> None:
    recipe = load_recipe("paper")
    assert recipe.tokenizer is not None
    assert recipe.dit is not None
    own = recipe.tokenizer
    assert [own.loop.rate(step) for step in (100_000, 199_999, 200_000, 299_999)] == [1e-4, 1e-4, 1e-5, 1e-5]
    assert (own.loop.steps, own.loop.batch, own.loop.weight_decay, own.commitment) == (300_000, 256, 1e-4, 0.25)
    assert (own.motion.frames, own.motion.strides, own.motion.vary) == ((33, 49, 81, 97, 129), (1, 2), 0.1)
    loop = recipe.dit.loop
    assert (loop.steps, loop.batch, loop.warmup, loop.weight_decay) == (30_000, 32, 300, 1e-2)
    assert (loop.rate(300), loop.betas, recipe.dit.drop_motion) == (2e-5, (0.9, 0.99), 0.2)
    assert recipe.preset["transformer"]["motion_every"] == 2


def test_numbers_that_yaml_takes_for_words_are_numbers(tmp_path: Path) -> None:
    recipe = load_recipe(str(toy_recipe(tmp_path)), {"vae.kl": "3e-4"})
    assert recipe.vae is not None
    assert recipe.vae.kl == 3e-4


@pytest.mark.parametrize(
    ("dotted", "value", "said", "hint"),
    [
        ("vae.kll", 1, "unknown key `kll`", "did you mean `kl`?"),
        ("dit.loop.bach", 1, "unknown key `bach`", "did you mean `batch`?"),
        ("tokenizer.reseed", "often", "can't be `often`", "it is one of unused, released, never"),
        ("vae.loop.batch", "many", "can't be `many`", "compare it with a built-in recipe"),
        ("vae.loop.batch", True, "can't be `True`", "compare it with a built-in recipe"),
        ("vae.loop.betas", [0.9], "`recipe.vae.loop.betas` can't be", "compare it with a built-in recipe"),
        ("tokenizer", 3, "`recipe.tokenizer` can't be `3`", "it has the keys loop, motion"),
    ],
)
def test_a_wrong_setting_is_named_with_a_way_out(tmp_path: Path, dotted: str, value: Any, said: str, hint: str) -> None:
    with pytest.raises(MtvcraftError) as raised:
        load_recipe(str(toy_recipe(tmp_path)), {dotted: value})
    assert said in raised.value.message
    assert hint in raised.value.hint
    assert raised.value.exit == Exit.USAGE


def test_words_change_the_stage_at_hand_or_any_other() -> None:
    changes = read_changes(["loop.batch=8", "data.held_out=0", "frames=[9, 17]", "preset.size_px=[32, 48]"], "vae")
    assert changes == {
        "vae.loop.batch": 8,
        "data.held_out": 0,
        "vae.frames": [9, 17],
        "preset.size_px": [32, 48],
    }
    for word in ("loop.batch", "=8", "frames=[9"):
        with pytest.raises(MtvcraftError) as raised:
            read_changes([word], "vae")
        assert raised.value.exit is Exit.USAGE
    with pytest.raises(MtvcraftError, match="unknown key `loops`"):
        load_recipe("mini", {"vae.loops.batch": 8})
    with pytest.raises(MtvcraftError, match=r"`vae.frames.least` can't be set"):
        load_recipe("mini", {"vae.frames.least": 8})
    assert load_recipe("mini", {"data.sets": ["mine"]}).data.sets == ("mine",)


def test_a_preset_may_be_named_and_then_changed() -> None:
    named = load_recipe("ablation", {"preset.frames": 25, "preset": "ablations/2d"}).preset
    assert named["frames"] == 25
    assert named["transformer"]["motion_positions"] == "2d"
    assert not {"weights", "statistics"} & named.keys()
    with pytest.raises(MtvcraftError, match="no preset `ablations/5d`"):
        load_recipe("ablation", {"preset": "ablations/5d"})


def test_an_unknown_recipe_is_told_which_there_are() -> None:
    with pytest.raises(MtvcraftError, match="no recipe `maxi`") as raised:
        load_recipe("maxi")
    assert "mini" in raised.value.hint


def test_the_rate_warms_up_and_then_goes_through_its_phases() -> None:
    loop = Loop(phases=((10, 1.0, 1.0), (10, 1.0, 0.1)), warmup=4, batch=1)
    assert [loop.rate(step) for step in range(4)] == pytest.approx([2 / 5, 3 / 5, 4 / 5, 1])
    assert loop.rate(9) == 1
    assert loop.rate(15) == pytest.approx(0.55)
    assert loop.rate(19) == pytest.approx(0.1, abs=0.03)
    assert loop.steps == 20
