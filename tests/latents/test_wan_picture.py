"""CLIP's picture tower at toy size; its numbers are proved in tests/parity."""

import pytest
import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.latents.wanvideo.picture import (
    MEAN,
    ORIGINAL,
    STD,
    build_picture_encoder,
    encode_picture,
    from_original,
    preprocess,
)
from tests.tiny_wan_parts import PICTURE_ENCODER, tiny_picture_encoder, tiny_picture_tensors


def video(height: int = 40, width: int = 60) -> Tensor:
    return torch.rand(1, 3, 1, height, width, generator=torch.Generator().manual_seed(4)) * 2 - 1


def as_original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In the names of Wan's own file, with a text half and the map to what both halves share."""
    renamed = {"visual.head": torch.zeros(4, 4), "textual.token_embedding.weight": torch.zeros(9, 4)}
    for name, tensor in tensors.items():
        if name == "embeddings.class_embedding":
            renamed["visual.cls_embedding"] = tensor.view(1, 1, -1)
        elif name == "embeddings.position_embedding.weight":
            renamed["visual.pos_embedding"] = tensor[None]
        elif ".q_proj." in name:
            parts = [tensors[name.replace(".q_proj.", f".{letter}_proj.")] for letter in "qkv"]
            place = name.replace("encoder.layers.", "transformer.").replace("self_attn.q_proj", "attn.to_qkv")
            renamed[f"visual.{place}"] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            for original, ours in ORIGINAL.items():
                name = name.replace(ours, original)
            renamed[f"visual.{name}"] = tensor
    return renamed


def test_the_full_size_has_the_released_count() -> None:
    sizes = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
    with init_empty_weights():
        full = CLIPVisionModel(CLIPVisionConfig(**sizes, image_size=224, patch_size=14))
    head = 1280 * 1024  # which nothing here uses
    assert sum(parameter.numel() for parameter in full.parameters()) + head == 632_076_800


def test_what_is_seen_is_the_stream_before_the_last_block() -> None:
    whole = CLIPVisionModel(CLIPVisionConfig(**PICTURE_ENCODER)).eval()
    prefix = "vision_model." if hasattr(whole, "vision_model") else ""
    whole.load_state_dict({prefix + name: tensor for name, tensor in tiny_picture_tensors().items()})
    side = PICTURE_ENCODER["image_size"]
    with torch.no_grad():
        seen = whole(preprocess(video()[:, :, 0], side), output_hidden_states=True).hidden_states
    encoder = tiny_picture_encoder()
    found = encode_picture(encoder, video())
    assert found.shape == (1, 1 + (side // PICTURE_ENCODER["patch_size"]) ** 2, PICTURE_ENCODER["hidden_size"])
    assert torch.equal(found, seen[-2])
    assert not torch.allclose(found, seen[-1], atol=0.1)
    assert len([name for name in encoder.state_dict() if name.endswith("mlp.fc1.weight")]) == 2


def test_the_file_of_wan_and_the_folder_of_diffusers_give_the_same_bits() -> None:
    tensors = tiny_picture_tensors()
    folder = {f"vision_model.{name}": tensor for name, tensor in tensors.items()}
    folder |= {"visual_projection.weight": torch.zeros(4, 4), "vision_model.embeddings.position_ids": torch.arange(5)}
    config = CLIPVisionConfig(**PICTURE_ENCODER).to_dict()
    heads = {"num_attention_heads": PICTURE_ENCODER["num_attention_heads"]}
    found = [
        encode_picture(encoder, video())
        for encoder in (
            build_picture_encoder(config, folder),
            build_picture_encoder(config, tensors),
            build_picture_encoder(heads, as_original(tensors)),
        )
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert from_original(as_original(tensors)).keys() == tensors.keys()


def test_a_picture_is_squeezed_whole_into_the_square() -> None:
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    white = preprocess(torch.ones(1, 3, 20, 50), 28)
    torch.testing.assert_close(white[0], ((1 - mean) / std).expand(3, 28, 28))
    halves = torch.cat([torch.full((1, 3, 10, 50), -1.0), torch.ones(1, 3, 10, 50)], dim=2)
    back = preprocess(halves, 28)[0] * std + mean
    assert back[:, :12].abs().max() < 0.1
    assert (back[:, 16:] - 1).abs().max() < 0.1


def test_a_checkpoint_of_something_else_is_refused_by_name() -> None:
    tensors = tiny_picture_tensors()
    tensors.pop("encoder.layers.0.mlp.fc2.bias")
    with pytest.raises(
        MtvcraftError, match=r"picture encoder checkpoint lacks `.*encoder.layers.0.mlp.fc2.bias`"
    ) as caught:
        build_picture_encoder(PICTURE_ENCODER, tensors)
    assert caught.value.exit == Exit.WEIGHTS
    with pytest.raises(MtvcraftError, match="holds no CLIP picture tower") as caught:
        build_picture_encoder({}, {"conv1.weight": torch.zeros(3)})
    assert caught.value.exit == Exit.WEIGHTS
