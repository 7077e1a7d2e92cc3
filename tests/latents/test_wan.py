"""The large MV-DiT at toy size: loading, refusing, the released layout, and what diffusers wraps around it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import FirstBlockCacheConfig, WanTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.group_offloading import apply_group_offloading
from peft import LoraConfig
from torch import Tensor
from torch.nn import functional

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents import wan
from mtvcraft_cli.latents.rope import Rotary, rotate, wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.wan import (
    WanMotionBlock,
    WanMotionTransformer,
    build_transformer,
    check_turning,
    from_released,
    no_motion_tokens,
    our_name,
    read_config,
    released_name,
    split_keys,
    to_released,
)
from mtvcraft_cli.weights.read import read_tensors
from tests.latents.test_cogvideox import save_shards
from tests.tiny import joint_mean_mm
from tests.tiny_wan import TOKEN, WAN_TRANSFORMER, tiny_wan_tensors, tiny_wan_transformer

ORIGINAL_CONFIG = {
    "_class_name": "WanTransformer3DModel",
    "model_type": "i2v",
    "dim": 48,
    "num_heads": 2,
    "in_dim": 36,
    "out_dim": 16,
    "in_channels": 16,  # means nothing beside `in_dim`
    "hidden_size": 2048,
    "window_size": [-1, -1],
    "qk_norm": True,
    "cross_attn_norm": True,
    "text_dim": 16,
    "text_len": 12,
    "image_dim": 20,
    "freq_dim": 16,
    "ffn_dim": 80,
    "num_layers": 4,
    "eps": 1e-6,
    "motion_token_dim": TOKEN,
    "motion_key_split": "plain",
}
"""As it lies beside a checkpoint with the original names."""


def inputs(frames: int = 3, batch: int = 1, seed: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 36, frames, 4, 8, generator=generator),
        "timestep": torch.full((batch,), 421.25),
        "motion_tokens": torch.randn(batch, frames * 24, TOKEN, generator=generator),
        "text": torch.randn(batch, 5, 16, generator=generator),
        "picture": torch.randn(batch, 7, 20, generator=generator),
        "visual": wan_visual_table(frames, 2, 4, 24),
        "motion": wan_motion_table(frames, joint_mean_mm(), 24),
    }


def run(transformer: WanMotionTransformer, **changes: Any) -> Tensor:
    with torch.no_grad():
        return transformer(**(inputs() | changes))


@pytest.mark.parametrize(
    ("motion_every", "parameters"), [(4, 17_443_864_384), (2, 18_492_849_984), (1, 20_590_821_184)]
)
def test_the_full_sizes_have_the_released_counts(motion_every: int, parameters: int) -> None:
    with init_empty_weights():
        full = WanMotionTransformer(motion_every=motion_every)
    layout = to_released(full.state_dict())
    assert sum(tensor.numel() for tensor in layout.values()) == parameters
    assert sum(tensor.numel() for tensor in full.blocks[0].motion_attn.parameters()) == 104_888_320
    if motion_every == 4:
        assert len(layout) == 1423


def test_without_motion_layers_it_is_the_base_model_of_diffusers() -> None:
    sizes = {key: value for key, value in WAN_TRANSFORMER.items() if key not in ("text_len",) and "motion" not in key}
    base = WanTransformer3DModel(**sizes, in_channels=36, out_channels=16, added_kv_proj_dim=48).eval()
    tensors = tiny_wan_tensors()
    base.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if ".motion_attn." not in name and ".norm4." not in name}
    )
    deaf = {name: 0 * tensor if ".motion_attn.to_out" in name else tensor for name, tensor in tensors.items()}
    transformer = tiny_wan_transformer()
    transformer.load_state_dict(deaf)
    given = inputs()
    text = functional.pad(given["text"], (0, 0, 0, 512 - 5))  # the only length at which theirs finds the picture
    transformer.text_len = 512
    with torch.no_grad():
        theirs = base(given["hidden_states"], given["timestep"], text, given["picture"], return_dict=False)[0]
    torch.testing.assert_close(run(transformer), theirs, rtol=0, atol=2e-5)  # their time is float32
    assert (run(tiny_wan_transformer()) - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["motion_tokens", "text", "picture", "hidden_states"])
def test_each_input_changes_the_velocity(name: str) -> None:
    transformer = tiny_wan_transformer()
    assert (run(transformer) - run(transformer, **{name: inputs(seed=2)[name]})).abs().mean() > 1e-2


def test_the_time_is_not_rounded() -> None:
    transformer = tiny_wan_transformer()
    assert not torch.equal(run(transformer), run(transformer, timestep=torch.tensor([421.0])))


def test_a_batch_gives_what_its_samples_give_alone() -> None:
    transformer, one, other = tiny_wan_transformer(), inputs(seed=1), inputs(seed=2)
    both = {
        name: torch.cat([value, other[name]]) if isinstance(value, Tensor) else value for name, value in one.items()
    }
    alone = torch.cat([run(transformer, **one), run(transformer, **other)])
    torch.testing.assert_close(run(transformer, **both), alone, rtol=0, atol=1e-5)


def test_short_texts_are_filled_up_with_zeros() -> None:
    transformer = tiny_wan_transformer()
    longer = functional.pad(inputs()["text"], (0, 0, 0, 7))
    assert torch.equal(run(transformer), run(transformer, text=longer))
    with pytest.raises(ValueError, match="13 text tokens"):
        run(transformer, text=torch.zeros(1, 13, 16))


def test_motion_tokens_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match="32 numbers, not 60"):
        run(tiny_wan_transformer(), motion_tokens=torch.zeros(1, 72, 60))


def test_tables_that_were_rounded_are_refused() -> None:
    table = inputs()["motion"]
    with pytest.raises(ValueError, match="float32"):
        run(tiny_wan_transformer(), motion=Rotary(table.cos.bfloat16(), table.sin.bfloat16()))


def test_without_a_picture_only_the_text_is_attended_to() -> None:
    transformer = tiny_wan_transformer()
    silent = tiny_wan_transformer()
    for block in silent.blocks:  # nothing is found in the picture
        block.attn2.add_v_proj.weight.data.zero_()
        block.attn2.add_v_proj.bias.data.zero_()
    torch.testing.assert_close(run(transformer, picture=None), run(silent), rtol=0, atol=1e-5)


def test_turning_patches_and_motion_alike_changes_nothing() -> None:
    """So it is with true rotations only: without the sines, or turned on one side, it is not."""
    attn = tiny_wan_transformer().blocks[0].motion_attn
    generator = torch.Generator().manual_seed(3)
    patches, tokens = torch.randn(1, 6, 48, generator=generator), torch.randn(1, 10, 48, generator=generator)
    here, there, more = (torch.randn(rows, 12, generator=generator) for rows in (6, 10, 1))

    def table(angles: Tensor) -> Rotary:
        pairs = angles.repeat_interleave(2, dim=1)
        return Rotary(pairs.cos(), pairs.sin())

    for split in ("plain", "released"):
        attn.key_split = split
        with torch.no_grad():
            before = attn(patches, tokens, None, (table(here), table(there)))
            both = attn(patches, tokens, None, (table(here + more), table(there + more)))
            one = attn(patches, tokens, None, (table(here), table(there + more)))
        torch.testing.assert_close(both, before, rtol=0, atol=1e-5)
        assert (one - before).abs().max() > 1e-2


def without_sines(heads: Tensor, rotary: Rotary) -> Tensor:
    return heads * rotary.cos[:, None]


def turned_by_halves(heads: Tensor, rotary: Rotary) -> Tensor:
    """Columns i and i + k / 2 are turned, as many models have it."""
    half = heads.shape[-1] // 2
    pairs = torch.stack([heads[..., :half], heads[..., half:]], dim=-1).flatten(-2)
    return torch.cat([rotate(pairs, rotary)[..., 0::2], rotate(pairs, rotary)[..., 1::2]], dim=-1)


def not_turned(heads: Tensor, rotary: Rotary) -> Tensor:
    return heads


@pytest.mark.parametrize("broken", [without_sines, turned_by_halves, not_turned])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rotation_that_is_none_stops_loading(
    broken: Any, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_transformer(WAN_TRANSFORMER, tiny_wan_tensors(), dtype)
    monkeypatch.setattr(wan, "rotate", broken)
    with pytest.raises(MtvcraftError, match="does not turn its queries") as caught:
        build_transformer(WAN_TRANSFORMER, tiny_wan_tensors(), dtype)
    assert caught.value.exit == Exit.FAULT


def test_keys_that_are_not_turned_stop_loading_even_if_queries_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = wan.MotionProcessor.key_value

    def unturned(self: Any, attn: Any, tokens: Tensor, motion: Rotary) -> tuple[Tensor, Tensor]:
        return whole(self, attn, tokens, Rotary(motion.cos, torch.zeros_like(motion.sin)))

    transformer = tiny_wan_transformer()
    monkeypatch.setattr(wan.MotionProcessor, "key_value", unturned)
    with pytest.raises(MtvcraftError, match="does not turn its keys"):
        check_turning(transformer)


def test_a_motion_layer_that_learned_tiny_keys_is_no_fault() -> None:
    tensors = tiny_wan_tensors()
    for layer in ("to_q", "to_k", "norm_q", "norm_k"):
        tensors[f"blocks.0.motion_attn.{layer}.weight"] *= 1e-3
    for dtype in (torch.float32, torch.bfloat16):
        build_transformer(WAN_TRANSFORMER, tensors, dtype)


def test_the_released_split_reads_keys_as_one_list_of_rows() -> None:
    keys = torch.arange(2 * 3 * 4 * 2).view(2, 3, 8)  # 3 tokens, 4 heads of 2
    found = split_keys(keys, 4, "released")
    for sample in range(2):
        rows = keys[sample].reshape(12, 2)
        for head in range(4):
            for slot in range(3):
                assert torch.equal(found[sample, slot, head], rows[head * 3 + slot])
    assert torch.equal(split_keys(keys, 4, "plain"), keys.view(2, 3, 4, 2))


def test_the_split_of_keys_is_read_from_the_config() -> None:
    tensors = tiny_wan_tensors()
    other = build_transformer(WAN_TRANSFORMER | {"motion_key_split": "released"}, tensors)
    assert (run(other) - run(tiny_wan_transformer())).abs().max() > 1e-2


def test_keys_and_values_of_motion_can_be_made_once_for_all_steps() -> None:
    transformer, given = tiny_wan_transformer(), inputs()
    attn = transformer.blocks[2].motion_attn
    made: list[tuple[Tensor, Tensor]] = []
    whole = attn.processor.key_value
    attn.processor.key_value = lambda *given: made.append(whole(*given)) or made[-1]
    run(transformer)
    run(transformer, timestep=torch.tensor([7.5]), hidden_states=inputs(seed=2)["hidden_states"])
    with torch.no_grad():
        kept = whole(attn, transformer.widened(given["motion_tokens"]), given["motion"])
    for one, other, before in zip(*made, kept, strict=True):
        assert torch.equal(one, before)
        assert torch.equal(other, before)


def test_both_layouts_hold_the_same_tensors_under_other_names() -> None:
    tensors = tiny_wan_tensors(unconditional_motion_shape=(24, TOKEN))
    released = to_released(tensors)
    assert {"blocks.0.self_attn.q.weight", "blocks.0.cross_attn.k_img.bias", "blocks.3.norm3.weight"} < released.keys()
    assert {"blocks.2.norm4.bias", "blocks.2.motion_attn.o.weight", "blocks.1.modulation"} < released.keys()
    assert {"head.modulation", "img_emb.proj.4.weight", "patch_embedding.weight"} < released.keys()
    assert not any("attn2" in name or "condition_embedder" in name for name in released)
    for back in (from_released(released), from_released(tensors), from_released(from_released(released))):
        assert back.keys() == tensors.keys()
        assert all(back[name] is tensor for name, tensor in tensors.items())


def test_names_of_layers_are_told_apart_from_names_of_parameters() -> None:
    for released, ours in (
        ("blocks.11.self_attn.o", "blocks.11.attn1.to_out.0"),
        ("blocks.11.ffn.0.bias", "blocks.11.ffn.net.0.proj.bias"),
        ("blocks.11.cross_attn.norm_k_img.weight", "blocks.11.attn2.norm_added_k.weight"),
        ("head.head", "proj_out"),
        ("blocks.0.norm4.weight", "blocks.0.norm4.weight"),
        ("blocks.0.foreign", "blocks.0.foreign"),
    ):
        assert our_name(released) == ours
        assert released_name(ours) == released


def test_a_sharded_checkpoint_in_the_released_layout_loads(tmp_path: Path) -> None:
    transformer = tiny_wan_transformer()
    shards = list(to_released(transformer.state_dict()).items())
    save_shards(tmp_path, shards[::2], shards[1::2])
    again = build_transformer(ORIGINAL_CONFIG, read_tensors(tmp_path))
    assert again.config.motion_every == 2
    assert again.config.in_channels == 36
    assert_same_weights(again, transformer)
    torch.testing.assert_close(run(again), run(transformer), rtol=0, atol=1e-5)


def test_our_own_saving_loads_again_exactly(tmp_path: Path) -> None:
    transformer = tiny_wan_transformer(unconditional_motion_shape=(24, TOKEN))
    transformer.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_weights(build_transformer(WAN_TRANSFORMER, read_tensors(tmp_path)), transformer)
    by_diffusers, found = WanMotionTransformer.from_pretrained(tmp_path, output_loading_info=True)
    assert found["missing_keys"] == found["unexpected_keys"] == []
    assert_same_weights(by_diffusers, transformer)
    torch.testing.assert_close(run(by_diffusers), run(transformer), rtol=0, atol=1e-5)  # mapped files lie unaligned


def test_in_bfloat16_norms_modulation_and_time_stay_float32(tmp_path: Path) -> None:
    tiny_wan_transformer().save_pretrained(tmp_path)
    transformer = build_transformer(WAN_TRANSFORMER, tiny_wan_tensors(), torch.bfloat16)
    by_diffusers = WanMotionTransformer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    dtypes = {name: tensor.dtype for name, tensor in transformer.state_dict().items()}
    assert dtypes == {name: tensor.dtype for name, tensor in by_diffusers.state_dict().items()}
    whole = {name for name, dtype in dtypes.items() if dtype == torch.float32}
    assert {"blocks.0.norm4.weight", "blocks.1.scale_shift_table", "scale_shift_table"} < whole
    assert not any("attn" in name or "ffn" in name for name in whole)
    low = run(transformer, **{name: x.bfloat16() for name, x in inputs().items() if isinstance(x, Tensor)})
    exact = run(tiny_wan_transformer(), timestep=torch.tensor([421.25]).bfloat16().float())
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).norm() < 0.03 * exact.norm()


def test_no_parameter_is_left_on_the_meta_device() -> None:
    transformer = tiny_wan_transformer()
    assert not any(tensor.is_meta for tensor in [*transformer.parameters(), *transformer.buffers()])


def refusal(tensors: dict[str, Tensor], config: dict[str, Any] = WAN_TRANSFORMER) -> MtvcraftError:
    with pytest.raises(MtvcraftError) as caught:
        build_transformer(config, tensors)
    assert caught.value.exit == Exit.WEIGHTS
    assert caught.value.hint
    return caught.value


def unsaid(*keys: str) -> dict[str, Any]:
    return {key: value for key, value in WAN_TRANSFORMER.items() if key not in keys}


def test_missing_motion_layers_are_refused_by_name() -> None:
    tensors = to_released(tiny_wan_tensors())
    whole = {name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.2.motion_attn.")}
    assert "`blocks.2.motion_attn`" in str(refusal(whole))
    every = tiny_wan_tensors(motion_every=1)
    some = {name: tensor for name, tensor in every.items() if not name.startswith("blocks.1.motion_attn.")}
    assert "`blocks.1.motion_attn`" in str(refusal(some, unsaid("motion_every")))


def test_the_base_model_without_any_motion_layer_is_refused() -> None:
    tensors = {name: tensor for name, tensor in tiny_wan_tensors().items() if ".motion_attn." not in name}
    assert "`blocks.0.motion_attn`, `blocks.2.motion_attn`" in str(refusal(tensors))
    assert "`blocks.0.motion_attn`" in str(refusal(tensors, unsaid("motion_every")))


@pytest.mark.parametrize("name", ["blocks.2.motion_attn.to_v.weight", "blocks.2.norm4.weight", "scale_shift_table"])
def test_a_tensor_that_is_missing_is_named(name: str) -> None:
    tensors = tiny_wan_tensors()
    del tensors[name]
    assert f"`{name}`" in str(refusal(tensors))


@pytest.mark.parametrize("layer", ["to_q", "to_k", "to_v", "to_out.0"])
def test_motion_layers_of_zeros_are_refused_by_name(layer: str) -> None:
    tensors = tiny_wan_tensors()
    name = f"blocks.2.motion_attn.{layer}.weight"
    tensors[name] = torch.zeros_like(tensors[name])
    assert f"`{name}`" in str(refusal(tensors))


def test_motion_layers_in_other_blocks_than_the_preset_says_are_refused() -> None:
    assert "blocks 0, 1, 2, 3" in str(refusal(tiny_wan_tensors(motion_every=1)))


def test_misshapen_and_foreign_tensors_are_named() -> None:
    tensors = tiny_wan_tensors()
    assert "`proj_out.bias (5,) for (64,)`" in str(refusal(tensors | {"proj_out.bias": torch.zeros(5)}))
    assert "`foreign.weight`" in str(refusal(tensors | {"foreign.weight": torch.zeros(5)}))


def test_a_layer_that_the_base_model_never_uses_is_dropped() -> None:
    build_transformer(WAN_TRANSFORMER, tiny_wan_tensors() | {"blocks.0.attn2.norm_added_q.weight": torch.zeros(48)})


def test_a_config_that_would_compute_something_else_is_refused() -> None:
    for key, value in (
        ("model_type", "t2v"),
        ("qk_norm", False),
        ("cross_attn_norm", False),
        ("motion_key_split", "Plain"),
    ):
        with pytest.raises(MtvcraftError, match=key):
            read_config(WAN_TRANSFORMER | {key: value})
    with pytest.raises(MtvcraftError, match="use_2d"):
        read_config(WAN_TRANSFORMER | {"use_2d": True})
    with pytest.raises(MtvcraftError) as caught:
        read_config(WAN_TRANSFORMER | {"motion_keys_split": "plain"})
    assert "`motion_key_split`" in caught.value.hint


def test_the_original_config_and_that_of_diffusers_say_the_same() -> None:
    by_diffusers = {"added_kv_proj_dim": 48, "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024}
    ours = unsaid("motion_every") | {"in_channels": 36, "out_channels": 16, "eps": 1e-6}
    assert read_config(ORIGINAL_CONFIG) == read_config(ours | by_diffusers) == ours
    preset = WAN_TRANSFORMER | {"in_channels": 36}
    assert read_config(preset | ORIGINAL_CONFIG) == ours | {"motion_every": 2}


def test_no_motion_tokens_are_taken_from_the_checkpoint_where_it_has_some() -> None:
    assert not hasattr(tiny_wan_transformer(), "unconditional_motion_token")
    tensors = tiny_wan_tensors(unconditional_motion_shape=(72, TOKEN))
    transformer = build_transformer(WAN_TRANSFORMER, tensors)
    assert torch.equal(transformer.unconditional_motion_token, tensors["unconditional_motion_token"])
    wanting = WAN_TRANSFORMER | {"unconditional_motion_shape": (24, TOKEN)}
    assert "`unconditional_motion_token`" in str(refusal(tiny_wan_tensors(), wanting))


def test_no_motion_tokens_fit_windows_of_any_length() -> None:
    joints = torch.randn(24, TOKEN)
    assert torch.equal(no_motion_tokens(joints, 5), joints.repeat(5, 1))
    learned = torch.randn(72, TOKEN)
    assert torch.equal(no_motion_tokens(learned, 3), learned)
    stretched = no_motion_tokens(learned, 5).unflatten(0, (5, 24))
    first, middle, last = learned.unflatten(0, (3, 24))
    torch.testing.assert_close(stretched[[0, 2, 4]], torch.stack([first, middle, last]))
    torch.testing.assert_close(stretched[1], (first + middle) / 2)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    def gradients(transformer: WanMotionTransformer) -> list[Tensor]:
        transformer(**inputs()).square().mean().backward()
        return [parameter.grad for parameter in transformer.parameters() if parameter.grad is not None]

    plain, checkpointed = tiny_wan_transformer().train(), tiny_wan_transformer().train()
    checkpointed.enable_gradient_checkpointing()
    expected = gradients(plain)
    assert len(expected) == len(list(plain.parameters()))
    for one, other in zip(expected, gradients(checkpointed), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_fused_projections_change_nothing() -> None:
    transformer = tiny_wan_transformer()
    before = run(transformer)
    transformer.fuse_qkv_projections()
    assert transformer.blocks[0].attn1.to_qkv.out_features == 3 * 48
    assert transformer.blocks[0].attn2.to_added_kv.out_features == 2 * 48
    assert transformer.blocks[0].motion_attn.to_kv.out_features == 2 * 48
    torch.testing.assert_close(run(transformer), before, rtol=0, atol=1e-5)


def test_a_lora_attaches_to_all_attentions_and_comes_off() -> None:
    transformer = tiny_wan_transformer()
    before = run(transformer)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    assert (run(transformer) - before).abs().max() > 1e-3
    adapted = {name.split(".")[2] for name, _ in transformer.named_parameters() if "lora_A" in name}
    assert adapted == {"attn1", "attn2", "motion_attn"}
    transformer.disable_adapters()
    assert torch.equal(run(transformer), before)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_offloaded_in_groups_it_gives_the_same_bits(kind: str) -> None:
    transformer = tiny_wan_transformer()
    before = run(transformer)
    groups = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    apply_group_offloading(transformer, onload_device=torch.device("cpu"), offload_type=kind, **groups)
    assert torch.equal(run(transformer), before)


def test_the_first_block_cache_skips_the_other_blocks() -> None:
    TransformerBlockRegistry.register(WanMotionBlock, TransformerBlockMetadata(return_hidden_states_index=0))
    transformer = tiny_wan_transformer()
    ran: list[int] = []
    transformer.blocks[2].ffn.register_forward_hook(lambda *_: ran.append(1))
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    for _ in range(3):
        with transformer.cache_context("cond"):
            cached = run(transformer)
    assert len(ran) == 1
    assert torch.allclose(cached, run(tiny_wan_transformer()), atol=1e-5)


def test_cut_over_two_processes_it_gives_the_same_bits() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("parallel_wan.py")
    folder = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script)], cwd=folder, env=environment, capture_output=True, text=True)
    # Two processes write at once: their lines may run into one another.
    assert done.stdout.count("12 of 24 patches, off by 0.0e+00") == 2, done.stdout + done.stderr


def assert_same_weights(one: WanMotionTransformer, other: WanMotionTransformer) -> None:
    tensors = other.state_dict()
    assert one.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in one.state_dict().items())
