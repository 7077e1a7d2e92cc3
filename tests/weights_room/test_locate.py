"""Where the parts of the large model are found, in every layout that they are published in."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import PARTS, Preset, load_preset
from mtvcraft_cli.weights.locate import locate, require
from mtvcraft_cli.weights.read import read_lora_config, read_tensor, read_tensors
from tests import tiny
from tests.cli.toy_wan import released_wan_weights, toy_wan_preset, write_toy_lora

FUN, DIFFUSERS, MTVCRAFTER = (
    "alibaba-pai/Wan2.1-Fun-V1.1-14B-InP",
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    "yanboding/MTVCrafter",
)
OWN = {"4DMoT", "MV-DiT"}
"""What the authors of the motion model publish; the rest comes from the base model."""


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    hub = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    return hub


def guided(preset: Preset) -> Preset:
    return replace(preset, sampler=replace(preset.sampler, motion_guidance=3.0))


@pytest.mark.parametrize("diffusers", [False, True])
@pytest.mark.parametrize("place", ["flat", "by repository", "hub"])
def test_every_part_is_found_in_every_layout(tmp_path: Path, empty_hub: Path, diffusers: bool, place: str) -> None:
    flat = released_wan_weights(tmp_path / "flat", 0, diffusers=diffusers)
    if diffusers:
        (flat / "model_index.json").write_text("{}")
    else:
        (flat / "config.json").write_text('{"model_type": "i2v", "dim": 5120}')  # of the transformer there
    folder: Path | None = flat
    if place != "flat":
        base = DIFFUSERS if diffusers else FUN
        folder = tmp_path / "apart" if place == "by repository" else None
        for item in sorted(flat.iterdir()):
            repo = MTVCRAFTER if item.name in OWN else base
            snapshot = empty_hub / f"models--{repo.replace('/', '--')}" / "snapshots" / ("0" * 40)
            target = folder / repo if folder else snapshot
            target.mkdir(parents=True, exist_ok=True)
            shutil.move(item, target / item.name)
    preset = guided(load_preset("17b"))
    parts = locate(preset, folder)
    assert set(parts) == set(PARTS["wan"])
    require(preset, parts)
    for name, part in parts.items():
        assert part.files, name
        assert all(file.is_file() for file in part.files), name
        assert part.licence.startswith("Apache-2.0")
    configs = {name for name, part in parts.items() if part.config()}
    assert configs == {"transformer", "no_motion"} | (
        {"vae", "text_encoder", "picture_encoder"} if diffusers else set()
    )
    (shard,) = parts["no_motion"].files
    assert "unconditional_motion_token" in read_tensors(shard)
    assert parts["no_motion"].size_bytes == 0


def test_the_vae_of_the_other_model_is_passed_over(tmp_path: Path) -> None:
    folder = released_wan_weights(tmp_path / "all", 0)
    tiny.tiny_vae().save_pretrained(folder / "vae")
    assert locate(load_preset("17b"), folder)["vae"].path == folder / "Wan2.1_VAE.pth"
    assert locate(load_preset("7b"), folder)["vae"].path == folder / "vae"


def test_a_folder_with_a_text_tokenizer_is_not_taken_for_the_motion_tokenizer(tmp_path: Path) -> None:
    folder = released_wan_weights(tmp_path / "all", 0, diffusers=True)
    shutil.rmtree(folder / "4DMoT")
    parts = locate(load_preset("17b"), folder)
    assert parts["tokenizer"].missing
    assert parts["text_tokenizer"].path == folder / "tokenizer"


def test_only_what_a_run_needs_is_asked_for(tmp_path: Path) -> None:
    preset = load_preset("17b")
    assert preset.sampler.motion_guidance == 1
    assert set(locate(preset, tmp_path)) == set(PARTS["wan"]) - {"no_motion"}
    assert set(locate(preset, tmp_path, leave_out={"text_encoder", "text_tokenizer"})) == {
        *("tokenizer", "transformer", "vae", "picture_encoder")
    }
    folder = released_wan_weights(tmp_path / "all", 0)
    shutil.rmtree(folder / "MV-DiT" / "CogVideoX")
    require(preset, locate(preset, folder))
    with pytest.raises(MtvcraftError, match=r"no_motion \(14.3 GB\)") as caught:
        require(guided(preset), locate(guided(preset), folder))
    assert caught.value.exit is Exit.WEIGHTS
    assert "`mtvcraft download 7b`" in caught.value.hint


def test_a_lora_is_a_part_with_a_licence_and_files(tmp_path: Path) -> None:
    fast = load_preset("17b-fast")
    parts = locate(fast, tmp_path)
    assert parts["lora-1"].missing
    assert "vrgamedevgirl84" in parts["lora-1"].licence
    (tmp_path / "Wan2.1_I2V_14B_FusionX_LoRA.safetensors").write_bytes(b"")
    assert not locate(fast, tmp_path)["lora-1"].missing
    own = write_toy_lora(tmp_path / "own.safetensors")
    both = replace(fast, loras=(*fast.loras, f"{own}:0.5"))
    assert locate(both, tmp_path)["lora-2"].files == [own]
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8}')  # whose scale is a part of the result
    assert locate(both, tmp_path)["lora-2"].files == [own, tmp_path / "adapter_config.json"]
    with pytest.raises(MtvcraftError, match="there is no") as caught:
        locate(replace(fast, loras=("nowhere.safetensors",)), tmp_path)
    assert caught.value.exit is Exit.WEIGHTS


def test_the_no_motion_tokens_are_read_without_the_other_shard(tmp_path: Path) -> None:
    released_wan_weights(tmp_path, 4)
    folder = tmp_path / "MV-DiT" / "CogVideoX"
    wanted = tiny.tiny_transformer(4).unconditional_motion_token.detach()
    index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    for shard in set(index.values()) - {index["unconditional_motion_token"]}:
        (folder / shard).unlink()
    assert torch.equal(read_tensor(folder, "unconditional_motion_token"), wanted)
    with pytest.raises(MtvcraftError, match=r"the shard `.*` is missing"):
        read_tensor(folder, next(name for name, shard in index.items() if not (folder / shard).exists()))


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_one_tensor_is_read_from_any_kind_of_file(tmp_path: Path, ending: str) -> None:
    tensors = {"one": torch.arange(3.0), "two": torch.ones(2, 2)}
    path = tmp_path / f"weights.{ending}"
    save_file(tensors, path) if ending == "safetensors" else torch.save(tensors, path)
    assert torch.equal(read_tensor(path, "two"), tensors["two"])
    assert torch.equal(read_tensor(tmp_path, "one"), tensors["one"])
    with pytest.raises(MtvcraftError, match="holds no `three`") as caught:
        read_tensor(path, "three")
    assert caught.value.exit is Exit.WEIGHTS


def test_what_a_lora_says_of_itself_is_read_from_beside_it_or_from_its_head(tmp_path: Path) -> None:
    plain = write_toy_lora(tmp_path / "plain.safetensors")
    assert read_lora_config(plain) == {}
    headed = tmp_path / "headed.safetensors"
    save_file(read_tensors(plain), headed, {"lora_adapter_metadata": '{"transformer.lora_alpha": 4}'})
    assert read_lora_config(headed) == {"transformer.lora_alpha": 4}
    peft = tmp_path / "peft"
    peft.mkdir()
    shutil.copy(plain, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text('{"lora_alpha": 8}')
    assert read_lora_config(peft) == read_lora_config(peft / "adapter_model.safetensors") == {"lora_alpha": 8}


def test_random_numbers_stand_for_no_encoder(tmp_path: Path) -> None:
    preset = load_preset(str(toy_wan_preset(tmp_path)))
    seeded = replace(preset, weights={**dict.fromkeys(preset.weights, "seeded:0")})
    with pytest.raises(MtvcraftError, match="can't stand for one") as raised:
        require(seeded, locate(seeded, None))
    assert raised.value.exit is Exit.WEIGHTS


def test_a_path_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.safetensors").touch()
    preset = load_preset("mini")
    own = replace(preset, weights={**preset.weights, "vae": "~/x.safetensors"})
    assert locate(own, None)["vae"].path == tmp_path / "x.safetensors"


def test_the_toy_preset_of_the_tests_loads(tmp_path: Path) -> None:
    preset = load_preset(str(toy_wan_preset(tmp_path, like="18b")))
    assert (preset.transformer["motion_every"], preset.body) == (2, "neutral")
    parts = locate(preset, tmp_path)
    assert all(part.missing for part in parts.values())
