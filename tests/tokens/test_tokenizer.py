import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.tokens import tokenizer as room
from mtvcraft_cli.tokens.tokenizer import MotionTokenizer, Quantiser, as_tokens, tokenizer_from_tensors
from tests.tokens.conftest import SIZES, make_tokenizer


def some_joints(windows: int, frames: int) -> Tensor:
    return torch.randn(windows, frames, 24, 3, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", [8, 13, 25])
def test_a_batch_of_windows_gives_what_one_by_one_gives(tokenizer: MotionTokenizer, frames: int) -> None:
    joints = some_joints(3, frames)
    latents = tokenizer.encode(joints)
    alone = torch.cat([tokenizer.encode(window[None]) for window in joints])
    assert torch.allclose(latents, alone, atol=1e-5)
    assert torch.equal(tokenizer.quantise(latents), tokenizer.quantise(alone))
    decoded = torch.cat([tokenizer.decode(window[None]) for window in latents])
    assert torch.allclose(tokenizer.decode(latents), decoded, atol=1e-5)


def test_slices_see_nothing_of_each_other(tokenizer: MotionTokenizer) -> None:
    joints = some_joints(1, 25)
    latents = tokenizer.encode(joints)
    joints[:, 10] += 1  # in the second slice: frames 9 to 16, latent frames 3 and 4
    changed = (tokenizer.encode(joints) != latents).flatten(2).any(dim=2)[0]
    assert changed.tolist() == [False, False, False, True, True, False, False]


def test_the_first_slice_takes_the_remainder(tokenizer: MotionTokenizer) -> None:
    joints = some_joints(1, 13)
    latents = tokenizer.encode(joints)
    joints[:, 12] += 1
    assert (tokenizer.encode(joints) != latents).flatten(2).any(dim=2).all()


@pytest.mark.parametrize("frames", range(1, 8))
def test_fewer_than_eight_frames_are_refused(tokenizer: MotionTokenizer, frames: int) -> None:
    with pytest.raises(ValueError, match=f"not {frames}"):
        tokenizer.encode(some_joints(1, frames))


def test_a_single_latent_frame_is_refused(tokenizer: MotionTokenizer) -> None:
    with pytest.raises(ValueError, match="not 1"):
        tokenizer.decode(torch.zeros(1, 1, 24, 16))


def test_another_skeleton_is_refused(tokenizer: MotionTokenizer) -> None:
    with pytest.raises(ValueError, match="24 joints, not 22"):
        tokenizer.encode(some_joints(1, 9)[:, :, :22])


def test_the_arithmetic_is_float32_even_under_autocast(tokenizer: MotionTokenizer) -> None:
    joints = some_joints(2, 17)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        latents = tokenizer.encode(joints)
        codes = tokenizer.quantise(latents)
        decoded = tokenizer.decode(latents)
    assert torch.equal(latents, tokenizer.encode(joints))
    assert torch.equal(codes, tokenizer.quantise(latents))
    assert torch.equal(decoded, tokenizer.decode(latents))


def test_the_search_in_blocks_finds_what_a_plain_search_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ROWS", 7)  # blocks of 7 rows by 28 codes
    draw = torch.Generator().manual_seed(1)
    quantiser = Quantiser(100, 12)
    quantiser.codebook.copy_(torch.randn(100, 12, generator=draw))
    latents = torch.randn(50, 12, generator=draw)
    plain = torch.cdist(latents.double(), quantiser.codebook.double()).argmin(dim=1)
    assert torch.equal(quantiser(latents), plain)
    assert plain.max() >= 84  # the last block wins somewhere
    assert plain.min() < 28  # and the first


def test_of_equal_codes_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ROWS", 1)  # blocks of 4 codes
    quantiser = Quantiser(10, 3)
    quantiser.codebook[[2, 3, 9]] = 1.0
    assert quantiser(torch.ones(1, 3)).tolist() == [2]


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any step made, in bytes."""

    size_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor):
                self.size_bytes = max(self.size_bytes, tensor.untyped_storage().nbytes())
        return made


def test_the_search_never_holds_more_than_a_block_of_distances() -> None:
    quantiser = Quantiser(8192, 2)
    quantiser.codebook.normal_()
    with Largest() as largest:
        quantiser(torch.randn(3000, 2))
    assert largest.size_bytes <= 16 * 2**20


def test_rows_of_the_codebook_are_their_own_nearest(tokenizer: MotionTokenizer) -> None:
    codes = torch.arange(40).repeat(18)[: 1 * 30 * 24].reshape(1, 30, 24)
    rows = tokenizer.look_up(codes)
    assert torch.equal(tokenizer.quantise(rows), codes)
    assert torch.equal(tokenizer.look_up(codes.to(torch.int32)), rows)


def test_tokens_stand_frame_after_frame_and_joint_after_joint(tokenizer: MotionTokenizer) -> None:
    codes = torch.randint(40, (2, 3, 24))
    tokens = as_tokens(tokenizer.look_up(codes))
    assert torch.equal(tokens[1, 2 * 24 + 5], tokenizer.vq.codebook[codes[1, 2, 5]])


def test_a_tokenizer_without_a_codebook_refuses_codes() -> None:
    tokenizer = make_tokenizer(codes=None)
    assert len(tokenizer.state_dict()) == 132
    with pytest.raises(ValueError, match="codebook"):
        tokenizer.quantise(tokenizer.encode(some_joints(1, 9)))
    with pytest.raises(ValueError, match="codebook"):
        tokenizer.look_up(torch.zeros(1, 3, 24, dtype=torch.int64))


def test_gradients_reach_every_parameter(tokenizer: MotionTokenizer) -> None:
    tokenizer.decode(tokenizer.encode(some_joints(1, 9))).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in tokenizer.parameters())


def test_the_full_size_is_that_of_the_released_tokenizer() -> None:
    with torch.device("meta"):
        tokenizer = MotionTokenizer()
    count = {name: sum(p.numel() for p in getattr(tokenizer, name).parameters()) for name in ("encoder", "decoder")}
    assert count == {"encoder": 24_286_336, "decoder": 24_036_739}
    state = tokenizer.state_dict()
    assert len(state) == 133
    assert state["vq.codebook"].shape == (8192, 3072)
    assert tokenizer.encoder.resnet1[0].block[2].dilation == (3, 3)
    assert tokenizer.encoder.resnet3[0].block[2].dilation == (1, 1)


def test_a_checkpoint_of_any_size_loads_without_its_sizes(tokenizer: MotionTokenizer) -> None:
    loaded = tokenizer_from_tensors(None, tokenizer.state_dict())
    joints = some_joints(1, 17)
    assert torch.equal(loaded.encode(joints), tokenizer.encode(joints))
    assert (loaded.width, loaded.codes, loaded.training) == (16, 40, False)


def test_a_checkpoint_without_a_codebook_loads() -> None:
    assert tokenizer_from_tensors(None, make_tokenizer(codes=None).state_dict()).codes is None


def test_a_checkpoint_in_half_precision_is_used_in_float32(tokenizer: MotionTokenizer) -> None:
    loaded = tokenizer_from_tensors(SIZES, {key: value.bfloat16() for key, value in tokenizer.state_dict().items()})
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}


def test_every_wrong_tensor_of_a_checkpoint_is_named(tokenizer: MotionTokenizer) -> None:
    tensors = tokenizer.state_dict()
    del tensors["decoder.conv_out.bias"], tensors["encoder.resnet2.conv_short.weight"]
    tensors["vq.codebook"] = tensors["vq.codebook"][:30]
    tensors["vq.usage"] = torch.zeros(1)
    with pytest.raises(MtvcraftError) as refused:
        tokenizer_from_tensors(SIZES, tensors)
    assert refused.value.exit == Exit.WEIGHTS
    for said in (
        "decoder.conv_out.bias is missing",
        "encoder.resnet2.conv_short.weight is missing",
        "vq.usage is unknown",
        "vq.codebook is 30 x 16 and not 40 x 16",
    ):
        assert said in refused.value.message


def test_something_else_entirely_is_refused_without_a_crash() -> None:
    with pytest.raises(MtvcraftError, match=r"encoder.conv_in.weight is missing"):
        tokenizer_from_tensors(None, {"transformer_blocks.0.attn1.to_q.weight": torch.zeros(4, 4)})
