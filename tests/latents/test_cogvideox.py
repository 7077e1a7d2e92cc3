"""The MV-DiT at toy size: loading, refusing, the released layout, and what diffusers wraps around it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import FirstBlockCacheConfig
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.group_offloading import apply_group_offloading
from peft import LoraConfig
from safetensors.torch import save_file
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.cogvideox import (
    CogVideoXMotionTransformer,
    MotionBlock,
    build_transformer,
    from_released,
    read_config,
    to_released,
)
from mtvcraft_cli.latents.rope import motion_table, visual_table
from mtvcraft_cli.weights.read import read_tensors
from tests.tiny import TRANSFORMER, WIDTH, joint_mean_mm, tiny_transformer


def inputs(frames: int = 3, batch: int = 1, seed: int = 1) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, frames, 32, 4, 8, generator=generator),
        "timestep": torch.full((batch,), 421),
        "motion_tokens": torch.randn(batch, frames * 24, WIDTH, generator=generator),
        "visual": visual_table(frames, 2, 4, 16),
        "motion": motion_table(frames, joint_mean_mm(), 16),
    }


def run(transformer: CogVideoXMotionTransformer, **changes: Any) -> Tensor:
    with torch.no_grad():
        return transformer(**(inputs() | changes))


def released(transformer: CogVideoXMotionTransformer) -> dict[str, Tensor]:
    return to_released(transformer.state_dict(), text_embed_dim=8)


@pytest.mark.parametrize(
    ("motion_every", "parameters", "tensors"), [(1, 7_157_411_904, 1529), (2, 6_364_425_024, 1277)]
)
def test_the_full_sizes_have_the_released_counts(motion_every: int, parameters: int, tensors: int) -> None:
    with init_empty_weights():
        full = CogVideoXMotionTransformer(motion_every=motion_every)
    layout = to_released(full.state_dict())
    assert len(layout) == tensors
    assert sum(tensor.numel() for tensor in layout.values()) == parameters


def test_what_nothing_uses_is_not_kept_in_memory() -> None:
    transformer = tiny_transformer()
    kept = from_released(released(transformer))
    assert kept.keys() == transformer.state_dict().keys()
    assert kept["transformer_blocks.0.norm1.linear.weight"].untyped_storage().nbytes() == 3 * WIDTH * 16 * 4
    assert all(torch.equal(kept[name], tensor) for name, tensor in transformer.state_dict().items())


def test_the_motion_changes_the_velocity() -> None:
    transformer = tiny_transformer()
    other = inputs(seed=2)["motion_tokens"]
    assert (run(transformer) - run(transformer, motion_tokens=other)).abs().mean() > 1e-2


def test_a_sharded_checkpoint_in_the_released_layout_loads(tmp_path: Path) -> None:
    transformer = tiny_transformer(unconditional_motion_shape=(72, WIDTH))
    shards = list(released(transformer).items())
    save_shards(tmp_path, shards[::2], shards[1::2])
    config = {
        key: value for key, value in TRANSFORMER.items() if key not in ("motion_every", "unconditional_motion_shape")
    }
    base = {"use_learned_positional_embeddings": False, "sample_width": 90, "text_embed_dim": 8, "_class_name": "X"}
    again = build_transformer(config | base, read_tensors(tmp_path))
    assert again.config.motion_every == 2
    assert_same_weights(again, transformer)
    torch.testing.assert_close(run(again), run(transformer), rtol=0, atol=1e-5)


def test_our_own_saving_loads_again_exactly(tmp_path: Path) -> None:
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_weights(build_transformer(TRANSFORMER, read_tensors(tmp_path)), transformer)
    by_diffusers, found = CogVideoXMotionTransformer.from_pretrained(tmp_path, output_loading_info=True)
    assert found["missing_keys"] == found["unexpected_keys"] == []
    assert_same_weights(by_diffusers, transformer)
    torch.testing.assert_close(run(by_diffusers), run(transformer), rtol=0, atol=1e-5)  # mapped files lie unaligned


def test_in_bfloat16_only_the_time_embedding_stays_float32() -> None:
    transformer = build_transformer(TRANSFORMER, tiny_transformer().state_dict(), torch.bfloat16)
    whole = {name for name, tensor in transformer.state_dict().items() if tensor.dtype == torch.float32}
    assert whole == {name for name in transformer.state_dict() if name.startswith("time_embedding.")}
    given = inputs()
    low = run(
        transformer, hidden_states=given["hidden_states"].bfloat16(), motion_tokens=given["motion_tokens"].bfloat16()
    )
    exact = run(tiny_transformer())
    assert low.dtype == torch.bfloat16
    assert (low.float() - exact).norm() < 0.03 * exact.norm()


def test_no_parameter_is_left_on_the_meta_device() -> None:
    transformer = tiny_transformer()
    assert not any(tensor.is_meta for tensor in [*transformer.parameters(), *transformer.buffers()])


def refusal(tensors: dict[str, Tensor], config: dict[str, Any] = TRANSFORMER) -> MtvcraftError:
    with pytest.raises(MtvcraftError) as caught:
        build_transformer(config, tensors)
    assert caught.value.exit == Exit.WEIGHTS
    assert caught.value.hint
    return caught.value


def test_missing_motion_layers_are_refused_by_name() -> None:
    tensors = tiny_transformer().state_dict()
    whole = {name: tensor for name, tensor in tensors.items() if not name.startswith("transformer_blocks.2.attn0.")}
    assert "`transformer_blocks.2.attn0`" in str(refusal(whole))
    no_config = {key: value for key, value in TRANSFORMER.items() if key != "motion_every"}
    every = tiny_transformer(motion_every=1).state_dict()
    some = {name: tensor for name, tensor in every.items() if not name.startswith("transformer_blocks.1.attn0.")}
    assert "`transformer_blocks.1.attn0`" in str(refusal(some, no_config))


def test_the_base_model_without_any_motion_layer_is_refused() -> None:
    tensors = {name: tensor for name, tensor in tiny_transformer().state_dict().items() if ".attn0." not in name}
    assert "`transformer_blocks.0.attn0`, `transformer_blocks.2.attn0`" in str(refusal(tensors))
    no_config = {key: value for key, value in TRANSFORMER.items() if key != "motion_every"}
    assert "`transformer_blocks.0.attn0`" in str(refusal(tensors, no_config))


def test_half_a_motion_layer_is_refused_by_name() -> None:
    tensors = tiny_transformer().state_dict()
    del tensors["transformer_blocks.2.attn0.to_v.weight"]
    assert "`transformer_blocks.2.attn0.to_v.weight`" in str(refusal(tensors))


@pytest.mark.parametrize("layer", ["to_q", "to_k", "to_v", "to_out.0"])
def test_motion_layers_of_zeros_are_refused_by_name(layer: str) -> None:
    tensors = tiny_transformer().state_dict()
    name = f"transformer_blocks.2.attn0.{layer}.weight"
    tensors[name] = torch.zeros_like(tensors[name])
    assert f"`{name}`" in str(refusal(tensors))


def test_motion_layers_in_other_blocks_than_the_preset_says_are_refused() -> None:
    assert "blocks 0, 1, 2, 3" in str(refusal(tiny_transformer(motion_every=1).state_dict()))


def test_missing_misshapen_and_foreign_tensors_are_named() -> None:
    tensors = tiny_transformer().state_dict()
    assert "`norm_final.bias`" in str(refusal({name: x for name, x in tensors.items() if name != "norm_final.bias"}))
    assert "`proj_out.bias (5,) for (64,)`" in str(refusal(tensors | {"proj_out.bias": torch.zeros(5)}))
    assert "`foreign.weight`" in str(refusal(tensors | {"foreign.weight": torch.zeros(5)}))


def test_names_with_another_program_s_prefix_are_refused() -> None:
    tensors = {f"module.{name}": tensor for name, tensor in tiny_transformer().state_dict().items()}
    assert "lacks `" in str(refusal(tensors))


def test_a_config_that_would_compute_something_else_is_refused() -> None:
    for key, value in (("use_rotary_positional_embeddings", False), ("patch_size_t", 2), ("motion_positions", "5d")):
        with pytest.raises(MtvcraftError, match=key):
            read_config(TRANSFORMER | {key: value})
    with pytest.raises(MtvcraftError, match="activation_fn"):
        read_config(TRANSFORMER | {"activation_fn": "gelu"})
    with pytest.raises(MtvcraftError) as caught:
        read_config(TRANSFORMER | {"num_layer": 3})
    assert "`num_layers`" in caught.value.hint
    assert read_config(TRANSFORMER | {"motion_dim": 3072}) == TRANSFORMER


def test_the_order_of_sines_and_cosines_is_read_from_the_config() -> None:
    tensors = tiny_transformer().state_dict()
    other = build_transformer(TRANSFORMER | {"flip_sin_to_cos": False}, tensors)
    assert not torch.equal(run(other), run(tiny_transformer()))


def test_one_set_of_no_motion_tokens_per_joint_serves_any_length() -> None:
    transformer = tiny_transformer()
    tokens = transformer.unconditional_tokens(5)
    assert not transformer.resamples(5)
    assert torch.equal(tokens, transformer.unconditional_motion_token.repeat(5, 1))


def test_no_motion_tokens_learned_per_frame_are_stretched_to_other_lengths() -> None:
    transformer = tiny_transformer(unconditional_motion_shape=(3 * 24, WIDTH))
    learned = transformer.unconditional_motion_token
    assert not transformer.resamples(3)
    assert torch.equal(transformer.unconditional_tokens(3), learned)
    assert transformer.resamples(5)
    stretched = transformer.unconditional_tokens(5).unflatten(0, (5, 24))
    first, middle, last = learned.unflatten(0, (3, 24))
    torch.testing.assert_close(stretched[[0, 2, 4]], torch.stack([first, middle, last]))
    torch.testing.assert_close(stretched[1], (first + middle) / 2)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    def gradients(transformer: CogVideoXMotionTransformer) -> list[Tensor]:
        transformer(**inputs()).square().mean().backward()
        return [parameter.grad for parameter in transformer.parameters() if parameter.grad is not None]

    plain, checkpointed = tiny_transformer().train(), tiny_transformer().train()
    checkpointed.enable_gradient_checkpointing()
    for one, other in zip(gradients(plain), gradients(checkpointed), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_fused_projections_change_nothing() -> None:
    transformer = tiny_transformer()
    before = run(transformer)
    transformer.fuse_qkv_projections()
    assert transformer.transformer_blocks[0].attn1.to_qkv.out_features == 3 * WIDTH
    assert transformer.transformer_blocks[0].attn0.to_kv.out_features == 2 * WIDTH
    torch.testing.assert_close(run(transformer), before, rtol=0, atol=1e-5)


def test_a_lora_attaches_to_both_attentions_and_comes_off() -> None:
    transformer = tiny_transformer()
    before = run(transformer)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    assert (run(transformer) - before).abs().max() > 1e-3
    assert any("attn0.to_k.lora_A" in name for name, _ in transformer.named_parameters())
    transformer.disable_adapters()
    assert torch.equal(run(transformer), before)


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_offloaded_in_groups_it_gives_the_same_bits(kind: str) -> None:
    transformer = tiny_transformer()
    before = run(transformer)
    groups = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    apply_group_offloading(transformer, onload_device=torch.device("cpu"), offload_type=kind, **groups)
    assert torch.equal(run(transformer), before)


def test_the_first_block_cache_skips_the_other_blocks() -> None:
    TransformerBlockRegistry.register(MotionBlock, TransformerBlockMetadata(return_hidden_states_index=0))
    transformer = tiny_transformer()
    ran: list[int] = []
    transformer.transformer_blocks[2].ff.register_forward_hook(lambda *_: ran.append(1))
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    for _ in range(3):
        with transformer.cache_context("cond"):
            cached = run(transformer)
    assert len(ran) == 1
    assert torch.allclose(cached, run(tiny_transformer()), atol=1e-5)


def test_cut_over_two_processes_it_gives_the_same_bits() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("parallel.py")
    folder = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(script)], cwd=folder, env=environment, capture_output=True, text=True)
    # Two processes write at once: their lines may run into one another.
    assert done.stdout.count("12 of 24 patches, off by 0.0e+00") == 2, done.stdout + done.stderr


def assert_same_weights(one: CogVideoXMotionTransformer, other: CogVideoXMotionTransformer) -> None:
    tensors = other.state_dict()
    assert one.state_dict().keys() == tensors.keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in one.state_dict().items())


def save_shards(folder: Path, *shards: list[tuple[str, Tensor]]) -> None:
    """Write shards and their index as diffusers names them."""
    names = [
        f"diffusion_pytorch_model-{place:05d}-of-{len(shards):05d}.safetensors" for place in range(1, len(shards) + 1)
    ]
    for name, shard in zip(names, shards, strict=True):
        save_file(dict(shard), folder / name)
    index = {key: name for name, shard in zip(names, shards, strict=True) for key, _ in shard}
    text = json.dumps({"metadata": {"total_size": 0}, "weight_map": index})
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(text, encoding="utf-8")
