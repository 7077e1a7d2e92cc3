"""A preset is data; a misspelt key is an error, never a setting silently lost."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer
from mtvcraft_cli.latents.wan import MotionAttention, WanMotionTransformer
from mtvcraft_cli.preset import (
    ABLATIONS,
    BUILT_IN,
    ablation_names,
    checked,
    find_preset,
    load_preset,
    lora_of,
    preset_names,
    read_preset,
)
from mtvcraft_cli.weights.manifest import manifest


@pytest.mark.parametrize("path", sorted(BUILT_IN.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_in_the_package_loads(path: Path) -> None:
    preset = load_preset(path.stem)
    assert preset.name == path.stem
    assert preset.statistics.mean_mm.shape == preset.statistics.std_mm.shape == (24, 3)
    assert (preset.statistics.std_mm > 0).all()


CHANGED: dict[str, dict[str, Any]] = {
    "default": {},
    "no-quantize": {"tokenizer.codes": None},
    "no-differential": {"differential": "none"},
    "xy-quantization": {"joint_axes": "xy", "transformer.motion_positions": "txy"},
    "dynamic-pe": {"transformer.motion_positions": "dynamic"},
    "learnable-pe": {"transformer.motion_positions": "learnable"},
    "1d": {"transformer.motion_positions": "1d"},
    "2d": {"transformer.motion_positions": "2d"},
    "3d": {"transformer.motion_positions": "3d"},
    "no-pe": {"transformer.motion_positions": "none"},
}
"""What each ablation says that the default one doesn't."""


def flat(content: dict[str, Any], within: str = "") -> dict[str, Any]:
    """Settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in content.items():
        found |= flat(value, f"{within}{key}.") if isinstance(value, dict) else {f"{within}{key}": value}
    return found


@pytest.mark.parametrize("path", sorted(ABLATIONS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_ablation_loads_and_differs_from_the_default_in_one_thing(path: Path) -> None:
    preset = load_preset(f"ablations/{path.stem}")
    assert preset.name == f"ablations/{path.stem}"
    assert preset.seeded
    assert load_preset(str(path)).fingerprint == preset.fingerprint
    CogVideoXMotionTransformer(**preset.transformer)
    own, default = (flat(find_preset(f"ablations/{name}")[0]) for name in (path.stem, "default"))
    changed = {key: value for key, value in own.items() if key not in default or value != default[key]}
    changed.pop("summary", None)
    assert changed == CHANGED[path.stem]
    assert own.keys() >= default.keys()


def test_ablations_are_found_by_name_and_not_listed_as_models() -> None:
    assert ablation_names() == sorted(f"ablations/{name}" for name in CHANGED)
    assert not any("ablations" in name for name in preset_names())
    with pytest.raises(MtvcraftError) as caught:
        load_preset("ablations/no-quantise")
    assert "`ablations/no-quantize`" in caught.value.hint


def test_the_smallest_preset_comes_first() -> None:
    assert preset_names() == ["mini", "6b", "7b", "17b", "17b-fast", "18b"]


def test_the_nearest_name_is_suggested() -> None:
    with pytest.raises(MtvcraftError) as caught:
        load_preset("minni")
    assert caught.value.exit is Exit.USAGE
    assert "`mini`" in caught.value.hint


def _changed(preset: str = "mini", **changes: Any) -> dict[str, Any]:
    return yaml.safe_load((BUILT_IN / f"{preset}.yaml").read_text()) | changes


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
        ({"sampler": {"steps": 1001}}, "sampler.steps"),
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
        ({"joint_axes": "yz"}, "joint_axes"),
        ({"trained_on": "tpu"}, "trained_on"),
        ({"color_match": "yes"}, "color_match"),
        ({"size_px": "auto"}, "size_px"),
        ({"auto_size": True}, "auto_size"),
        ({"prompt": "a person is dancing"}, "prompt"),
        ({"clip_from": "previous"}, "clip_from"),
        ({"loras": ["style.safetensors"]}, "loras"),
        ({"sampler": {"text_guidance": 6.0}}, "sampler.text_guidance"),
        ({"sampler": {"guidance_range": [0.0, 0.5]}}, "sampler.guidance_range"),
        ({"sampler": {"shift": 3.0}}, "sampler.shift"),
        ({"backbone": "wan"}, "weights"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(MtvcraftError) as caught:
        read_preset(_changed(**changes), name="mine", folder=BUILT_IN)
    assert caught.value.exit is Exit.USAGE
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"sampler": {"scheduler": "dpm"}}, "sampler.scheduler"),
        ({"sampler": {}}, "sampler.scheduler"),
        ({"sampler": {"scheduler": "euler", "guidance_range": [0.5, 0.5]}}, "sampler.guidance_range"),
        ({"sampler": {"scheduler": "euler", "guidance_range": [0.5]}}, "sampler.guidance_range"),
        ({"sampler": {"scheduler": "euler", "guidance_range": [-0.1, 1]}}, "sampler.guidance_range"),
        ({"sampler": {"scheduler": "euler", "text_guidance": -1.0}}, "sampler.text_guidance"),
        ({"sampler": {"scheduler": "euler", "shift": 0}}, "sampler.shift"),
        ({"size_px": "large"}, "size_px"),
        ({"clip_from": "next"}, "clip_from"),
        ({"loras": "style.safetensors"}, "loras"),
        ({"loras": [""]}, "``"),
        ({"prompt": 3}, "prompt"),
        ({"reference_latent": "mean"}, "reference_latent"),
        ({"reference_scaled": True}, "reference_scaled"),
        ({"reference_kept": 16}, "reference_kept"),
    ],
)
def test_a_wrong_setting_of_the_large_model_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(MtvcraftError) as caught:
        read_preset(_changed("17b", **changes), name="mine", folder=BUILT_IN)
    assert caught.value.exit is Exit.USAGE
    assert named in caught.value.message


def test_what_the_user_changes_is_checked_like_what_a_file_says() -> None:
    preset = load_preset("17b")
    assert checked(replace(preset, loras=("a.safetensors:0.5",), clip_from="previous")).clip_from == "previous"
    with pytest.raises(MtvcraftError, match=r"sampler\.text_guidance"):
        checked(replace(preset, sampler=replace(preset.sampler, text_guidance=-2.0)))
    with pytest.raises(MtvcraftError, match="prompt") as caught:
        checked(replace(load_preset("7b"), prompt="a person is dancing"))
    assert "only a model on wan" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "source", "scale"),
    [
        ("style.safetensors", "style.safetensors", 1.0),
        ("style.safetensors:0.8", "style.safetensors", 0.8),
        ("style.safetensors:-1", "style.safetensors", -1.0),
        ("C:/loras/style.safetensors", "C:/loras/style.safetensors", 1.0),
        ("C:/loras/style.safetensors:.5", "C:/loras/style.safetensors", 0.5),
        ("fusionx", "fusionx", 1.0),
    ],
)
def test_a_lora_is_a_source_and_perhaps_a_scale(words: str, source: str, scale: float) -> None:
    assert lora_of(words) == (source, scale)


@pytest.mark.parametrize(
    ("name", "parameters", "tensors", "motion_layers"),
    [("17b", 17_443_864_384, 1423, 10), ("17b-fast", 17_443_864_384, 1423, 10), ("18b", 18_492_849_984, None, 20)],
)
def test_the_large_presets_have_the_sizes_that_are_published(
    name: str, parameters: int, tensors: int | None, motion_layers: int
) -> None:
    preset = load_preset(name)
    with init_empty_weights():
        transformer = WanMotionTransformer(**preset.transformer)
        vae = AutoencoderKLWan(**preset.vae)
    assert sum(parameter.numel() for parameter in transformer.parameters()) == parameters
    assert tensors in (None, len(transformer.state_dict()))
    assert sum(isinstance(part, MotionAttention) for part in transformer.modules()) == motion_layers
    assert sum(parameter.numel() for parameter in vae.parameters()) == 126_892_531


@pytest.mark.parametrize(
    ("name", "steps", "text", "motion", "split", "differential", "body"),
    [
        ("17b", 50, 6.0, 1.0, "released", "none", "person"),
        ("17b-fast", 10, 1.0, 1.0, "released", "none", "person"),
        ("18b", 50, 6.0, 3.0, "plain", "window", "neutral"),
    ],
)
def test_the_large_presets_run_as_released_or_as_the_paper_says(
    name: str, steps: int, text: float, motion: float, split: str, differential: str, body: str
) -> None:
    preset = load_preset(name)
    sampler = preset.sampler
    found = (sampler.steps, sampler.text_guidance, sampler.motion_guidance, preset.transformer["motion_key_split"])
    assert found == (steps, text, motion, split)
    assert (preset.differential, preset.body, sampler.shift, preset.auto_size) == (differential, body, 5.0, True)
    assert (len(preset.loras), bool(preset.negative_prompt)) == ((1, False) if name == "17b-fast" else (0, True))
    assert all(source in manifest() for source in preset.weights.values())


def test_a_missing_setting_is_named() -> None:
    content = _changed()
    del content["vae"]
    with pytest.raises(MtvcraftError, match="`vae`"):
        read_preset(content, name="mine", folder=BUILT_IN)


OTHER: dict[str, Any] = {
    "prompt": "someone walks",
    "negative_prompt": "blur",
    "clip_from": "previous",
    "color_match": True,
    "loras": ["style.safetensors"],
    "text_encoder": {"d_model": 8},
    "picture_encoder": {"hidden_size": 8},
    "joint_axes": "xy",
    "trained_on": "gpu",
    "size_px": [512, 512],
    "sampler": {"scheduler": "unipc"},
    "body": "neutral",
    "precision": "float32",
    "frames": 25,
    "overlap": 17,
    "stride": 2,
    "rate": "25/2",
    "differential": "window",
}
"""For a setting a value that `17b` doesn't have."""


@pytest.mark.parametrize("key", OTHER)
def test_every_setting_changes_the_fingerprint(key: str) -> None:
    def fingerprint(**changes: Any) -> str:
        return read_preset(_changed("17b", **changes), name="mine", folder=BUILT_IN).fingerprint

    assert fingerprint(**{key: OTHER[key]}) != fingerprint()
    assert fingerprint(summary="other words") == fingerprint()


@pytest.mark.parametrize(
    "change", [{"text_guidance": 2.0}, {"guidance_range": (0.0, 0.5)}, {"shift": 3.0}, {"motion_guidance": 2.0}]
)
def test_every_setting_of_the_sampler_changes_the_fingerprint(change: dict[str, Any]) -> None:
    preset = load_preset("17b")
    assert replace(preset, sampler=replace(preset.sampler, **change)).fingerprint != preset.fingerprint
