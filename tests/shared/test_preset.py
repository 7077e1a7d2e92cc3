"""A preset is data; a misspelt key is an error, never a setting silently lost."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import BUILT_IN, load_preset, preset_names, read_preset


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_in_the_package_loads(path: Path) -> None:
    preset = load_preset(path.stem)
    assert preset.name == path.stem
    assert preset.statistics.mean_mm.shape == preset.statistics.std_mm.shape == (24, 3)
    assert (preset.statistics.std_mm > 0).all()


def test_the_smallest_preset_comes_first() -> None:
    assert preset_names()[0] == "mini"


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(MtvcraftError) as caught:
        load_preset("minni")
    assert caught.value.exit is Exit.USAGE
    assert "`mini`" in caught.value.hint


def _changed(**changes: Any) -> dict[str, Any]:
    return yaml.safe_load((BUILT_IN / "mini.yaml").read_text()) | changes


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"farmes": 49}, "farmes"),
        ({"frames": 48}, "frames"),
        ({"overlap": 49}, "overlap"),
        ({"size_px": [100, 100]}, "size_px"),
        ({"differential": "some"}, "differential"),
        ({"sampler": {"stpes": 3}}, "sampler.stpes"),
        ({"sampler": {"steps": 0}}, "sampler.steps"),
        ({"sampler": {"scheduler": "euler"}}, "sampler.scheduler"),
        ({"frames": "many"}, "frames"),
        ({"frames": True}, "frames"),
        ({"sampler": 3}, "sampler"),
        ({"size_px": 128}, "size_px"),
        ({"rate": "fast"}, "rate"),
        ({"rate": "25/0"}, "rate"),
        ({"rate": "1.2.3"}, "rate"),
        ({"rate": 0}, "rate"),
        ({"overlap": -7}, "overlap"),
        ({"weights": {"tokenizer": 1, "transformer": "7b", "vae": "vae"}}, "weights"),
        ({"tokenizer": {"chanels": [64, 128]}}, "tokenizer"),
        ({"transformer": None}, "transformer"),
        ({"weights": {"tokenizer": "seeded:0"}}, "weights"),
        ({"statistics": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(MtvcraftError) as caught:
        read_preset(_changed(**changes), name="mine", folder=BUILT_IN)
    assert caught.value.exit is Exit.USAGE
    assert named in caught.value.message


def test_a_missing_setting_is_named() -> None:
    content = _changed()
    del content["vae"]
    with pytest.raises(MtvcraftError, match="`vae`"):
        read_preset(content, name="mine", folder=BUILT_IN)


def test_every_setting_changes_the_fingerprint() -> None:
    def fingerprint(**changes: Any) -> str:
        return read_preset(_changed(**changes), name="mine", folder=BUILT_IN).fingerprint

    seen = {fingerprint(), fingerprint(frames=25), fingerprint(differential="none"), fingerprint(rate="25/2")}
    assert len(seen) == 4
    assert fingerprint(summary="other words") == fingerprint()
