"""Recipes: what they say, and what is said about a wrong one."""

from pathlib import Path
from typing import Any

import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.train.settings import RECIPES, Loop, load_recipe
from tests.train.toy import toy_recipe


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_in_the_package_can_be_read(recipe: Path) -> None:
    read = load_recipe(recipe.stem)
    assert read.dit is not None
    assert all(stage.loop.steps > 0 for stage in (read.tokenizer, read.vae, read.dit) if stage is not None)


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
