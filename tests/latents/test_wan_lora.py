"""LoRAs in the names of every program that writes them; the released rules are proved in tests/parity."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.rope import wan_motion_table, wan_visual_table
from mtvcraft_cli.latents.wan import WanMotionTransformer, build_transformer, to_released
from mtvcraft_cli.latents.wanvideo.lora import alpha_of, merge_lora
from tests.tiny import joint_mean_mm
from tests.tiny_wan import TOKEN, WAN_TRANSFORMER, tiny_wan_tensors, tiny_wan_transformer

WIDTH = 48
RANK = 2
QUERY = "blocks.0.attn1.to_q.weight"


def draw(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DOWN, UP = draw(RANK, WIDTH), draw(WIDTH, RANK, seed=4)


@pytest.mark.parametrize(
    ("layer", "down", "up"),
    [
        ("diffusion_model.blocks.0.self_attn.q", "lora_down.weight", "lora_up.weight"),
        ("diffusion_model.blocks.0.self_attn.q", "lora_A.weight", "lora_B.weight"),
        ("model.diffusion_model.blocks.0.self_attn.q", "lora_down.weight", "lora_up.weight"),
        ("transformer.blocks.0.attn1.to_q", "lora_A.weight", "lora_B.weight"),
        ("transformer.blocks.0.attn1.to_q", "lora.down.weight", "lora.up.weight"),
        ("blocks.0.attn1.to_q", "lora_A.weight", "lora_B.weight"),
        ("base_model.model.blocks.0.attn1.to_q", "lora_A.default.weight", "lora_B.default.weight"),
        ("base_model.model.blocks.0.self_attn.q", "lora_A.weight", "lora_B.weight"),
        ("lora_unet_blocks_0_self_attn_q", "lora_down.weight", "lora_up.weight"),
        ("lora_unet__blocks_0_self_attn_q", "lora_down.weight", "lora_up.weight"),
        ("lora_transformer_blocks_0_attn1_to_q", "lora_down.weight", "lora_up.weight"),
    ],
)
@pytest.mark.parametrize("layout", ["ours", "released"])
def test_a_pair_is_found_under_every_name(layer: str, down: str, up: str, layout: str) -> None:
    tensors = tiny_wan_tensors()
    tensors = to_released(tensors) if layout == "released" else tensors
    before = dict(tensors)
    report = merge_lora(tensors, {f"{layer}.{down}": DOWN, f"{layer}.{up}": UP}, 0.5)
    (changed,) = report.merged
    assert changed == (QUERY if layout == "ours" else "blocks.0.self_attn.q.weight")
    torch.testing.assert_close(tensors[changed], before[changed] + 0.5 * UP @ DOWN)
    assert {name for name in tensors if not torch.equal(tensors[name], before[name])} == {changed}
    assert str(report) == "parameters changed: 1"


@pytest.mark.parametrize(
    ("own", "given", "share"), [(None, None, 1.0), (1.0, None, 0.5), (None, 4.0, 2.0), (1.0, 4.0, 0.5)]
)
def test_alpha_over_rank_scales_a_pair(own: float | None, given: float | None, share: float) -> None:
    lora = {"blocks.0.self_attn.q.lora_down.weight": DOWN, "blocks.0.self_attn.q.lora_up.weight": UP}
    if own is not None:
        lora["blocks.0.self_attn.q.alpha"] = torch.tensor(own)
    tensors = tiny_wan_tensors()
    before = tensors[QUERY]
    report = merge_lora(tensors, lora, alpha=given)
    torch.testing.assert_close(tensors[QUERY], before + share * UP @ DOWN)
    assert report.unmatched == ()


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("diffusion_model.blocks.1.norm3.diff", "blocks.1.norm2.weight"),
        ("diffusion_model.blocks.1.norm3.diff_b", "blocks.1.norm2.bias"),
        ("diffusion_model.blocks.0.self_attn.norm_q.diff", "blocks.0.attn1.norm_q.weight"),
        ("diffusion_model.blocks.2.motion_attn.o.diff_b", "blocks.2.motion_attn.to_out.0.bias"),
        ("diffusion_model.blocks.0.diff_m", "blocks.0.scale_shift_table"),
        ("diffusion_model.head.diff_m", "scale_shift_table"),
        ("diffusion_model.patch_embedding.diff", "patch_embedding.weight"),
        ("transformer.proj_out.diff_b", "proj_out.bias"),
    ],
)
def test_whole_differences_are_added(name: str, parameter: str) -> None:
    tensors = tiny_wan_tensors()
    before = tensors[parameter]
    difference = draw(*before.shape)
    assert merge_lora(tensors, {name: difference}, 2.0).merged == (parameter,)
    torch.testing.assert_close(tensors[parameter], before + 2 * difference)


def test_a_pair_for_a_convolution_is_merged() -> None:
    tensors = tiny_wan_tensors()
    before = tensors["patch_embedding.weight"]
    down, up = draw(RANK, *before.shape[1:]), draw(len(before), RANK, 1, 1, 1, seed=5)
    lora = {"patch_embedding.lora_down.weight": down, "patch_embedding.lora_up.weight": up}
    merge_lora(tensors, lora)
    expected = before + torch.einsum("or,rithw->oithw", up[..., 0, 0, 0], down)
    torch.testing.assert_close(tensors["patch_embedding.weight"], expected, rtol=0, atol=1e-5)


def velocity(transformer: WanMotionTransformer) -> Tensor:
    head_dim = WAN_TRANSFORMER["attention_head_dim"]
    with torch.no_grad():
        return transformer(
            draw(1, 36, 2, 4, 4),
            torch.tensor([500.0]),
            draw(1, 48, TOKEN),
            draw(1, 5, WAN_TRANSFORMER["text_dim"]),
            draw(1, 5, WAN_TRANSFORMER["image_dim"]),
            wan_visual_table(2, 2, 2, head_dim),
            wan_motion_table(2, joint_mean_mm(), head_dim),
        )


def test_what_peft_trained_acts_the_same_when_it_is_merged() -> None:
    transformer = tiny_wan_transformer()
    plain = velocity(transformer)
    layers = ["to_q", "to_v", "add_k_proj", "to_out.0", "ffn.net.2"]
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=6, target_modules=layers))
    for name, parameter in transformer.named_parameters():
        if ".lora_" in name:
            parameter.data = 0.1 * draw(*parameter.shape, seed=len(name))
    adapted = velocity(transformer)
    assert (adapted - plain).abs().mean() > 0.01
    saved = get_peft_model_state_dict(transformer)
    tensors = tiny_wan_tensors()
    report = merge_lora(tensors, saved, alpha=alpha_of({"lora_alpha": 6, "r": RANK, "use_dora": False}))
    assert len(report.merged) == len(saved) // 2
    assert report.unmatched == ()
    torch.testing.assert_close(velocity(build_transformer(WAN_TRANSFORMER, tensors)), adapted, rtol=0, atol=2e-5)


def test_several_loras_add_up_and_a_negative_scale_takes_one_back() -> None:
    lora = {"blocks.0.self_attn.q.lora_down.weight": DOWN, "blocks.0.self_attn.q.lora_up.weight": UP}
    other = {"blocks.0.self_attn.q.diff": draw(WIDTH, WIDTH, seed=8)}
    tensors = tiny_wan_tensors()
    before = tensors[QUERY]
    merge_lora(tensors, lora, 0.7)
    merge_lora(tensors, other, 0.2)
    torch.testing.assert_close(tensors[QUERY], before + 0.7 * UP @ DOWN + 0.2 * other["blocks.0.self_attn.q.diff"])
    merge_lora(tensors, other, -0.2)
    merge_lora(tensors, lora, -0.7)
    torch.testing.assert_close(tensors[QUERY], before, rtol=0, atol=1e-5)


def test_weights_in_bfloat16_are_rounded_once() -> None:
    lora = {"blocks.0.self_attn.q.lora_down.weight": DOWN, "blocks.0.self_attn.q.lora_up.weight": UP}
    tensors = {name: tensor.bfloat16() for name, tensor in tiny_wan_tensors().items()}
    before = tensors[QUERY]
    merge_lora(tensors, lora, 0.3)
    assert torch.equal(tensors[QUERY], (before.float() + 0.3 * UP @ DOWN).bfloat16())


def test_hundreds_of_strange_names_are_counted_and_a_few_are_named() -> None:
    lora = {f"text_encoder.layer{number}.lora_A.weight": DOWN for number in range(500)}
    lora |= {"blocks.0.self_attn.q.lora_down.weight": DOWN, "blocks.0.self_attn.q.lora_up.weight": UP}
    lora |= {"blocks.1.self_attn.q.lora_up.weight": UP, "blocks.1.self_attn.q.alpha": torch.tensor(1.0)}
    lora |= {"blocks.0.self_attn.k.weight": draw(WIDTH, WIDTH)}  # a weight and not a change to one
    report = merge_lora(tiny_wan_tensors(), lora)
    assert report.merged == (QUERY,)
    assert len(report.unmatched) == 503
    assert "lack their other half: 503 (`blocks.0.self_attn.k.weight`, " in str(report)
    assert str(report).endswith(" and 500 more)")
    assert len(str(report)) < 250


def test_layers_of_another_shape_are_skipped_and_named() -> None:
    lora = {
        "blocks.0.self_attn.q.lora_down.weight": DOWN,
        "blocks.0.self_attn.q.lora_up.weight": UP,
        "patch_embedding.diff": draw(WIDTH, 16, 1, 2, 2),  # of the model that makes video from text alone
    }
    tensors = tiny_wan_tensors()
    before = tensors["patch_embedding.weight"]
    report = merge_lora(tensors, lora)
    assert report.misshaped == ("patch_embedding.diff",)
    assert "another shape than the layer: 1 (`patch_embedding.diff`)" in str(report)
    assert torch.equal(tensors["patch_embedding.weight"], before)


@pytest.mark.parametrize(
    ("lora", "why"),
    [
        ({"lora_unet_down_blocks_0_attentions_0.lora_down.weight": DOWN}, "it has `lora_unet_down_blocks"),
        (
            {"blocks.0.self_attn.q.lora_down.weight": draw(2, 64), "blocks.0.self_attn.q.lora_up.weight": draw(64, 2)},
            "the shapes of `blocks.0.self_attn.q",
        ),
        ({}, "it has nothing"),
    ],
)
def test_a_lora_for_another_model_is_an_error(lora: dict[str, Tensor], why: str) -> None:
    tensors = tiny_wan_tensors()
    before = dict(tensors)
    with pytest.raises(MtvcraftError) as caught:
        merge_lora(tensors, lora, name="`style.safetensors`")
    assert caught.value.exit == Exit.INPUT
    assert caught.value.message.startswith("`style.safetensors` fits nothing in this model: " + why)
    assert all(torch.equal(tensors[name], before[name]) for name in before)


def test_what_is_more_than_a_product_is_refused() -> None:
    for lora in ({"blocks.0.self_attn.q.dora_scale": DOWN}, {"blocks.0.attn1.to_q.lora_magnitude_vector": DOWN}):
        with pytest.raises(MtvcraftError, match="can't be merged"):
            merge_lora(tiny_wan_tensors(), lora)
    odd: list[dict[str, Any]] = [
        {"lora_alpha": 8, "use_dora": True},
        {"transformer.lora_alpha": 8, "transformer.use_rslora": True},
        {"lora_alpha": 8, "alpha_pattern": {"to_q": 4}},
    ]
    for config in odd:
        with pytest.raises(MtvcraftError, match="can't be merged"):
            alpha_of(config)


def test_alpha_is_read_from_what_peft_and_diffusers_write() -> None:
    assert alpha_of({"lora_alpha": 8, "alpha_pattern": {}, "use_rslora": False}) == 8.0
    assert alpha_of({"transformer.lora_alpha": 16, "transformer.r": 8}) == 16.0
    assert alpha_of({}) is None
