"""An MV-DiT before its first step, made of CogVideoX-5B in the layout it is published in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer, build_transformer
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.latents.seeded import seeded_tensors
from mtvcraft_cli.latents.vae import build_vae
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer
from mtvcraft_cli.train.dit import from_base, widened
from mtvcraft_cli.train.settings import load_recipe
from mtvcraft_cli.train.stages import train_stage
from mtvcraft_cli.weights.locate import locate
from mtvcraft_cli.weights.read import read_tensors
from tests import tiny
from tests.train.test_training import fresh_accelerator
from tests.train.toy import toy_recipe

SIZES = tiny.TRANSFORMER | {"in_channels": 8, "out_channels": 4}


def base_model(**changes: Any) -> CogVideoXTransformer3DModel:
    sizes = {key: value for key, value in SIZES.items() if "motion" not in key} | {"in_channels": 4}
    base = CogVideoXTransformer3DModel(
        **(sizes | {"text_embed_dim": 8, "use_rotary_positional_embeddings": True} | changes)
    ).eval()
    base.load_state_dict(seeded_tensors(base, 7))
    return base


def given() -> dict[str, Any]:
    rng = torch.Generator().manual_seed(1)
    return {
        "noisy": torch.randn(1, 3, 4, 4, 8, generator=rng),
        "reference": torch.randn(1, 3, 4, 4, 8, generator=rng),
        "time": torch.tensor([421]),
        "tokens": torch.randn(1, 72, tiny.WIDTH, generator=rng),
        "visual": visual_table(3, 2, 4, 16),
    }


def ours(transformer: CogVideoXMotionTransformer) -> Tensor:
    it = given()
    seen = torch.cat([it["noisy"], it["reference"]], dim=2)
    with torch.no_grad():
        return transformer(seen, it["time"], it["tokens"], it["visual"], motion_table(3, tiny.joint_mean_mm(), 16))


def test_the_first_step_is_the_base_s_own_with_a_text_of_no_tokens(tmp_path: Path) -> None:
    base_model().save_pretrained(tmp_path)
    tensors = read_tensors(tmp_path)
    transformer = build_transformer(SIZES, widened(SIZES, tensors), silent=True)
    it = given()
    with torch.no_grad():
        theirs = base_model()(
            it["noisy"], torch.zeros(1, 0, 8), it["time"], image_rotary_emb=tuple(it["visual"]), return_dict=False
        )[0]
    torch.testing.assert_close(ours(transformer), theirs, rtol=0, atol=1e-4)  # their time is rounded otherwise
    assert theirs.std() > 0.1


def test_all_that_pictures_need_is_kept_and_only_the_text_s_own_is_left_behind(tmp_path: Path) -> None:
    base_model().save_pretrained(tmp_path)
    base = read_tensors(tmp_path)
    kept = widened(SIZES, base)
    assert base.keys() - kept.keys() == {"patch_embed.text_proj.weight", "patch_embed.text_proj.bias"}
    halved = {name for name in base.keys() & kept.keys() if len(base[name]) == 2 * len(kept[name])}
    assert {name.split(".", 2)[2] for name in halved} == {
        f"norm{number}.linear.{kind}" for number in (1, 2) for kind in ("weight", "bias")
    }
    for name in base.keys() & kept.keys():
        if name != "patch_embed.proj.weight":
            assert torch.equal(kept[name], base[name][: len(kept[name])]), name
    assert torch.equal(kept["patch_embed.proj.weight"][:, :4], base["patch_embed.proj.weight"])
    assert not kept["patch_embed.proj.weight"][:, 4:].any()
    new = {name.split(".attn0.")[0] if ".attn0." in name else name for name in kept.keys() - base.keys()}
    assert new == {"unconditional_motion_token", "transformer_blocks.0", "transformer_blocks.2"}


def test_motion_alone_cannot_be_trained_where_the_reference_has_no_channels(tmp_path: Path) -> None:
    base_model().save_pretrained(tmp_path)
    with pytest.raises(MtvcraftError, match="no input channels for the reference") as raised:
        widened(SIZES, read_tensors(tmp_path), all_trained=False)
    assert raised.value.exit == Exit.USAGE


def test_a_run_from_a_base_moves_all_of_it(tmp_path: Path) -> None:
    recipe = load_recipe(str(toy_recipe(tmp_path, phases=[[1, 1e-2, 1e-2]], ema=0.0)))
    content, sizes = dict(recipe.preset), recipe.preset["transformer"]
    save_file(seeded_tensors(MotionTokenizer(**content["tokenizer"]), 1), tmp_path / "tokenizer.safetensors")
    vae = AutoencoderKLCogVideoX(**content["vae"])
    build_vae(content["vae"], seeded_tensors(vae, 1)).save_pretrained(tmp_path / "published")
    motionless = {key: value for key, value in sizes.items() if "motion" not in key}
    base_model(**(motionless | {"in_channels": 4})).save_pretrained(tmp_path / "base")
    changes = {"dit.base": str(tmp_path / "base"), "dit.start": "noise", "dit.report_clips": 0, "dit.clips": 64}
    fresh_accelerator()
    recipe = load_recipe(str(tmp_path / "toy.yaml"), changes)
    parts = {"tokenizer": tmp_path / "tokenizer.safetensors", "vae": tmp_path / "published"}
    done = train_stage("dit", recipe, tmp_path / "dit", parts=parts)
    made, base = load_file(done.folder / "transformer.safetensors"), read_tensors(tmp_path / "base")
    build_transformer(sizes, made)
    assert made["transformer_blocks.0.attn0.to_out.0.weight"].any()
    assert not torch.equal(made["proj_out.weight"], base["proj_out.weight"])
    copied, published = load_file(done.folder / "vae.safetensors"), read_tensors(tmp_path / "published")
    assert all(torch.equal(copied[name], tensor) for name, tensor in published.items())

    # Of the weights that a recipe's preset names, the transformer's are those that training makes.
    named = {"preset.weights": {"vae": str(tmp_path / "published"), "transformer": "7b"}}
    fresh_accelerator()
    recipe = load_recipe(str(tmp_path / "toy.yaml"), changes | named)
    again = train_stage("dit", recipe, tmp_path / "named", parts={"tokenizer": parts["tokenizer"]})
    assert all(
        torch.equal(made[name], tensor) for name, tensor in load_file(again.folder / "transformer.safetensors").items()
    )
    places = locate(load_preset(str(again.folder)), None)
    assert places["vae"].path == tmp_path / "published"
    assert places["transformer"].path == again.folder / "transformer.safetensors"

    changes |= {"dit.base": str(done.folder / "transformer.safetensors"), "dit.trains": "motion"}
    changes |= {"dit.loop.precision": "bfloat16", "dit.report_clips": 1}
    fresh_accelerator()
    recipe = load_recipe(str(tmp_path / "toy.yaml"), changes)
    further = load_file(
        train_stage("dit", recipe, tmp_path / "further", parts=parts).folder / "transformer.safetensors"
    )
    moved = {name for name, tensor in further.items() if not torch.equal(tensor, made[name].bfloat16().float())}
    assert moved >= {"transformer_blocks.0.attn0.to_v.weight", "transformer_blocks.0.attn0.to_out.0.weight"}
    assert all(".attn0." in name or name == "unconditional_motion_token" or "time_embedding" in name for name in moved)
    kept = [name for name in moved if "time_embedding" in name]
    assert all(torch.equal(further[name], made[name]) for name in kept), "the time's own layers stay exact"


def test_another_model_of_the_family_is_refused(tmp_path: Path) -> None:
    base_model().save_pretrained(tmp_path / "base")
    dit = load_recipe(str(toy_recipe(tmp_path))).dit
    assert dit is not None
    from_base(str(tmp_path / "base"), SIZES, dit)
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps(config | {"use_rotary_positional_embeddings": False}))
    with pytest.raises(MtvcraftError, match="use_rotary_positional_embeddings"):
        from_base(str(tmp_path / "base"), SIZES, dit)
