"""Matrices in 8 and 4 bits: both transformers and the text encoder at toy size, with bitsandbytes on a CPU."""

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup
from torch import Tensor, nn

from mtvcraft_cli.device import packed, quantise
from mtvcraft_cli.device.depot import Depot
from mtvcraft_cli.device.offload import attached, groups_of, lent
from mtvcraft_cli.device.packed import LAYERS, FP8Linear, Int8Linear, NF4Linear, PackedLinear
from mtvcraft_cli.device.placement import Placement, stored_bytes
from mtvcraft_cli.device.quantise import built, check_quantize, names_to_pack, quantised, stored_bytes_of
from mtvcraft_cli.device.sizes import large_transformer, small_transformer, text_encoder
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.quantising import large_inputs, small_inputs
from mtvcraft_cli.latents import wan
from mtvcraft_cli.latents.wanvideo.text import encode_text
from mtvcraft_cli.preset import load_preset
from tests import tiny
from tests.tiny_wan import WAN_TRANSFORMER, tiny_wan_tensors, tiny_wan_transformer
from tests.tiny_wan_parts import TEXT_ENCODER, tiny_text_encoder

pytest.importorskip("bitsandbytes", reason="quantisation is an extra")

CPU = torch.device("cpu")
MINI = load_preset("mini")
SMALL_PX = (32, 32)


def small() -> nn.Module:
    return tiny.tiny_transformer()


def large() -> nn.Module:
    return tiny_wan_transformer()


def text() -> nn.Module:
    """Its attention divides by nothing, so that trained queries are smaller by the root of a head's width."""
    encoder = tiny_text_encoder()
    for name, parameter in encoder.named_parameters():
        if name.endswith("SelfAttention.q.weight"):
            parameter.data *= TEXT_ENCODER["d_kv"] ** -0.5
    return encoder


@torch.no_grad()
def one_pass(model: nn.Module) -> Tensor:
    """A step of a transformer at 3 latent frames of 32 x 32 pixels, or a prompt of 6 words."""
    preset = replace(MINI, size_px=SMALL_PX)
    if hasattr(model, "transformer_blocks"):
        return model(*small_inputs(model, preset, 3))
    if hasattr(model, "blocks"):
        return model(*large_inputs(model, preset, 3))
    return encode_text(model, [[5, 6, 7, 8, 9, 1]], 6)


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


BOUNDS = {"int8": (0.0005, 0.03), "nf4": (0.01, 0.4), "fp8": (0.002, 0.06)}
"""Errors of one pass: less would mean that nothing was rounded, more that it was done wrong."""
NARROW = 2
"""The text encoder is 16 wide here: twice as much."""


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("make", [small, large, text])
def test_a_pass_is_off_by_little_and_weights_are_smaller_and_the_rest_is_untouched(
    make: Callable[[], nn.Module], kind: str
) -> None:
    model = make()
    wanted, before = one_pass(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names, all_bytes = names_to_pack(model), stored_bytes_of(model)
    done = quantise.quantise(model, kind, torch.float32)
    error = off(one_pass(model), wanted)
    low, high = BOUNDS[kind]
    assert low < error < (NARROW if make is text else 1) * high
    assert done.layers == len(names) > 0
    assert done.before_bytes == all_bytes
    assert done.after_bytes == stored_bytes_of(model) < all_bytes
    matrices = {f"{name}.weight" for name in names}
    after = model.state_dict()
    assert not matrices & set(after)
    for name in set(before) - matrices:
        assert torch.equal(before[name], after[name]), name
        assert before[name].dtype == after[name].dtype
    for name in names:
        assert type(model.get_submodule(name)) is LAYERS[kind]


@pytest.mark.parametrize("way", ["group", "sequential", "disk"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("make", [small, large])
def test_packed_matrices_stream_like_any_others(
    make: Callable[[], nn.Module], kind: str, way: Any, tmp_path: Path
) -> None:
    model = make()
    quantise.quantise(model, kind, torch.float32)
    wanted, before = one_pass(model), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    depot = Depot(CPU, tmp_path)
    depot.become(Placement(offload=way, quantize=kind), (), [model])
    with depot.working(model):
        streamed = {id(tensor) for group in groups_of(model) for tensor in tensors_of(group)}
        layers = [layer for layer in model.modules() if isinstance(layer, PackedLinear)]
        assert all(id(each) in streamed for layer in layers for each in (layer.packed, layer.scale))
        for _ in range(2):
            assert torch.equal(one_pass(model), wanted)
    depot.become(Placement(quantize=kind), (), [model])
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    with depot.working(model):
        assert torch.equal(one_pass(model), wanted)


def tensors_of(group: ModuleGroup) -> list[Tensor]:
    """All that comes and goes with a group."""
    own = [tensor for part in group.modules for tensor in (*part.parameters(), *part.buffers())]
    return [*own, *group.parameters, *group.buffers]


@pytest.mark.parametrize("way", ["group", "sequential"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_packed_text_encoder_is_lent_and_reads_the_same(kind: str, way: Any) -> None:
    encoder = text()
    quantise.quantise(encoder, kind, torch.float32)
    wanted = one_pass(encoder)
    with lent(encoder.encoder, CPU, way):
        assert attached(encoder.encoder)
        assert torch.equal(one_pass(encoder), wanted)
    assert not attached(encoder.encoder)
    assert torch.equal(one_pass(encoder), wanted)


def test_motion_attention_norms_ends_and_what_libraries_keep_are_left_out() -> None:
    for model, blocks, layers in (
        (small(), "transformer_blocks", {"attn1.to_q", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"}),
        (large(), "blocks", {"attn1.to_q", "attn2.to_k", "attn2.add_v_proj", "attn2.to_out.0", "ffn.net.2"}),
        (text(), "encoder.block", {"layer.0.SelfAttention.o", "layer.1.DenseReluDense.wi_0"}),
    ):
        names = names_to_pack(model)
        assert {name.rpartition(f"{blocks}.0.")[2] for name in names} > layers
        assert all(name.startswith(f"{blocks}.") for name in names)
        parts = {part for name in names for part in name.split(".")}
        assert not parts & {"attn0", "motion_attn", "norm1", "norm2", "linear", "wo"}


@pytest.mark.parametrize("kind", LAYERS)
def test_what_is_stored_is_what_plans_count(kind: str) -> None:
    for model, count in (
        (small(), small_transformer(tiny.TRANSFORMER)),
        (large(), large_transformer(WAN_TRANSFORMER)),
        (text(), text_encoder(TEXT_ENCODER)),
    ):
        matrices = [model.get_submodule(name).weight for name in names_to_pack(model)]
        assert count.linear == sum(matrix.numel() for matrix in matrices)
        assert count.matrix >= max(matrix.numel() for matrix in matrices)
        with quantised(model, kind):
            scales = sum(layer.scale.numel() * 4 for layer in model.modules() if isinstance(layer, PackedLinear))
            codes = sum(layer.packed.numel() for layer in model.modules() if isinstance(layer, PackedLinear))
            rest = stored_bytes_of(model) - codes - scales
        counted = stored_bytes(count, 4, kind)
        left = scales if kind == "nf4" else 0  # those of the others are one for a whole row, and are not counted
        tables = 64 * len(matrices) if kind == "nf4" else 0
        assert counted == pytest.approx(codes + left + rest - tables, abs=4 * len(matrices))


def test_a_model_that_was_quantised_for_a_while_is_what_it_was() -> None:
    model = small()
    wanted, layers = one_pass(model), dict(model.named_modules())
    with quantised(model, "nf4") as done:
        assert done.after_bytes < done.before_bytes
        assert not torch.equal(one_pass(model), wanted)
    assert dict(model.named_modules()) == layers
    assert torch.equal(one_pass(model), wanted)


def linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    generator = torch.Generator().manual_seed(inputs)
    layer.weight.data = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    return layer.requires_grad_(False)


def tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", LAYERS)
def test_any_shape_of_matrix_and_any_batch_will_do(kind: str) -> None:
    for inputs, outputs in ((20, 36), (48, 50), (70, 33)):
        layer = linear(inputs, outputs)
        packed_layer = LAYERS[kind](layer)
        for shape in ((inputs,), (5, inputs), (2, 3, inputs)):
            if kind == "int8" and len(shape) == 1:
                continue  # bitsandbytes takes matrices
            wanted = layer(tokens(*shape))
            found = packed_layer(tokens(*shape))
            assert found.shape == wanted.shape
            assert off(found, wanted) < 2 * BOUNDS[kind][1]
        assert torch.equal(packed_layer(torch.zeros(1, 2, inputs))[0, 0], layer.bias)


def test_a_large_column_of_inputs_does_not_drown_the_others_in_int8() -> None:
    layer, inputs = linear(64, 64), tokens(40, 64)
    inputs[:, 7] *= 30
    assert off(Int8Linear(layer)(inputs), layer(inputs)) < 0.02


def test_int8_goes_through_its_inputs_in_pieces_to_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = Int8Linear(linear(32, 32))
    inputs = tokens(2, 50, 32).clamp(-3, 3)
    whole = layer(inputs)
    monkeypatch.setattr(packed, "PIECE_BYTES", 7 * (3 * 32 + 16 * 32))
    assert torch.equal(layer(inputs), whole)


def test_fp8_is_nearer_than_casting_without_a_scale() -> None:
    from diffusers.hooks import apply_layerwise_casting

    layer, inputs = linear(8192, 64), tokens(16, 8192)
    cast = nn.Sequential(deepcopy(layer))
    apply_layerwise_casting(cast, torch.float8_e4m3fn, torch.float32, skip_modules_pattern=("nothing",))
    wanted = layer(inputs)
    assert off(FP8Linear(layer)(inputs), wanted) < 0.6 * off(cast(inputs), wanted)


@pytest.mark.parametrize("kind", LAYERS)
def test_all_of_a_packed_layer_goes_where_the_layer_goes_and_casts_leave_the_codes(kind: str) -> None:
    layer = LAYERS[kind](linear(64, 64))
    codes = layer.packed.clone()
    layer.to(torch.bfloat16)
    assert torch.equal(layer.packed, codes)
    assert {tensor.device.type for tensor in (*layer.to("meta").parameters(), *layer.buffers())} == {"meta"}


@pytest.mark.parametrize("kind", LAYERS)
def test_hooks_that_bring_layers_one_by_one_bring_packed_ones(kind: str) -> None:
    for way in ({"offload_type": "block_level", "num_blocks_per_group": 1}, {"offload_type": "leaf_level"}):
        model = small()
        quantise.quantise(model, kind, torch.float32)
        wanted = one_pass(model)
        model.enable_group_offload(onload_device=CPU, **way)
        assert torch.equal(one_pass(model), wanted)
    layers = nn.Sequential(LAYERS[kind](linear(64, 64)))
    wanted = layers(tokens(4, 64))
    accelerate.cpu_offload(layers, CPU)
    assert {tensor.device.type for tensor in layers.parameters()} == {"meta"}
    assert torch.equal(layers(tokens(4, 64)), wanted)


def test_a_copy_and_a_state_dict_give_the_same_bits() -> None:
    layer = NF4Linear(linear(64, 96))
    inputs = tokens(4, 64)
    wanted = layer(inputs)
    assert torch.equal(deepcopy(layer)(inputs), wanted)
    other = NF4Linear(linear(64, 96))
    other.packed.data.zero_()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(inputs), wanted), "bitsandbytes' own layer loses its scales after the first pass"


def test_a_checkpoint_in_half_precision_is_packed_from_its_own_numbers_and_the_rest_is_cast() -> None:
    half = {name: tensor.bfloat16() for name, tensor in tiny_wan_tensors().items()}
    whole = wan.WanMotionTransformer._keep_in_fp32_modules
    model, done = built(wan.build_transformer, WAN_TRANSFORMER, given := dict(half), torch.float32, "int8", whole)
    assert given == {}, "each matrix can go once it is packed"
    direct = wan.build_transformer(WAN_TRANSFORMER, half, torch.float32)
    assert done is not None
    assert done.before_bytes == stored_bytes_of(direct)
    with quantised(direct, "int8"):
        assert torch.equal(one_pass(model), one_pass(direct))
    on_card, _ = built(wan.build_transformer, WAN_TRANSFORMER, dict(half), torch.bfloat16, "int8", whole)
    plain = wan.build_transformer(WAN_TRANSFORMER, half, torch.bfloat16).state_dict()
    for name, tensor in on_card.state_dict().items():
        assert name.endswith((".packed", ".scale")) or tensor.dtype == plain[name].dtype, name
    assert built(wan.build_transformer, WAN_TRANSFORMER, half, torch.float32, "none", whole)[1] is None


def test_without_bitsandbytes_the_command_that_mends_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for kind in ("int8", "nf4"):
        with pytest.raises(MtvcraftError, match=kind) as caught:
            check_quantize(kind, CPU)
        assert caught.value.exit == Exit.USAGE
        assert 'pip install "mtvcraft[quantize]"' in caught.value.hint
    check_quantize("fp8", CPU)
    check_quantize("none", CPU)


def test_a_device_that_can_not_do_it_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in LAYERS:
        check_quantize(kind, CPU)
        with pytest.raises(MtvcraftError, match="does not work on `meta`") as caught:
            check_quantize(kind, torch.device("meta"))
        assert caught.value.exit == Exit.USAGE
        assert "doctor --quantize" in caught.value.hint
    monkeypatch.setattr(Int8Linear, "forward", lambda self, inputs: inputs)
    with pytest.raises(MtvcraftError, match="comes out wrong"):
        check_quantize("int8", CPU)
