"""Files of feature networks are read as data whatever they hold, and networks run the same however they are fed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.fid import inception_features
from mtvcraft_cli.eval.fid_vid import resnet_features
from mtvcraft_cli.eval.fvd import i3d_logits, prefix_distances
from mtvcraft_cli.eval.lpips import Lpips
from mtvcraft_cli.eval.networks.archive import read_archive
from mtvcraft_cli.eval.networks.i3d import _max_pool, _padded
from mtvcraft_cli.eval.networks.read import KINDS, fill, read_heads, read_network, read_tensors
from mtvcraft_cli.eval.pieces import sliding


def clip(frames: int, side: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, side, side, 3), dtype=np.uint8)


def seeded(name: str) -> dict[str, torch.Tensor]:
    """Weights of the real network that keep its features about as large from layer to layer."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in KINDS[name].build().state_dict().items()}
    tensors = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            continue
        if len(shape) > 1:
            tensors[key] = torch.randn(shape) * (2 / shape[1:].numel()) ** 0.5
        else:
            tensors[key] = torch.full(shape, float(key.endswith(("bn.weight", "running_var"))))
    return tensors


class Mean(torch.nn.Module):
    """Stands where only the feeding is looked at: knows every frame of a piece by its colours, in order."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.width = width
        self.seen: list[tuple[int, ...]] = []

    def forward(self, pieces: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        assert not torch.backends.cudnn.allow_tf32
        self.seen.append(tuple(pieces.shape))
        colours = pieces.mean((-2, -1)).flatten(1)
        return torch.nn.functional.pad(colours, (0, self.width - colours.shape[1]))


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_pieces_are_fed_the_same_in_any_batch(batch):
    frames, network = clip(21), Mean(400)
    found = i3d_logits(network, frames, sliding(range(21)), batch)
    assert found.shape == (6, 400)
    assert {shape[1:] for shape in network.seen} == {(3, 16, 224, 224)}
    colours = i3d_logits(Mean(400), frames, sliding(range(21)), 1)
    assert found == pytest.approx(colours, rel=1e-5, abs=1e-6)
    per_frame = found[:, :48].reshape(6, 3, 16)  # the window slides by one frame
    assert per_frame[1:, :, :-1] == pytest.approx(per_frame[:-1, :, 1:], abs=1e-6)
    assert np.abs(per_frame[0].T - (frames[:16].mean((1, 2)) / 127.5 - 1)).max() < 0.02


def test_a_clip_without_a_piece_has_features_of_the_right_width():
    none = sliding(range(9))
    assert i3d_logits(Mean(400), clip(9), none).shape == (0, 400)
    assert resnet_features(Mean(2048), clip(9), none).shape == (0, 2048)


def test_a_prefix_is_as_far_from_another_as_its_logits_are():
    logits = np.random.default_rng(0).normal(size=(3, 400))
    assert prefix_distances(logits, logits).tolist() == [0, 0, 0]
    assert prefix_distances(logits, logits + 0.5) == pytest.approx([100, 100, 100])


def test_frames_are_fed_the_same_in_any_batch():
    frames = clip(5)
    found = [inception_features(Mean(2048), frames, batch) for batch in (1, 2, 8)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-6)
    assert found[0][:, :3] == pytest.approx(2 * frames.mean((1, 2)) / 255 - 1, abs=0.02)


@pytest.fixture(scope="module")
def alex() -> Lpips:
    return Lpips(fill("alexnet", seeded("alexnet")), read_heads("alexnet"))


def test_lpips_of_equal_frames_is_nothing_and_the_batch_is_float_noise(alex):
    one, other = clip(5, 48), clip(5, 48, seed=1)
    assert (alex(one, one) == 0).all()
    assert (alex(one, other) > 0).all()
    assert alex(one, other, batch=1) == pytest.approx(alex(one, other, batch=5), rel=1e-5)
    assert alex(one[::-1], other[::-1]) == pytest.approx(alex(one, other)[::-1], rel=1e-5)
    assert alex(other, one) == pytest.approx(alex(one, other), rel=1e-5)
    assert np.abs(alex(one, other, scaled=True) / alex(one, other) - 1).max() > 1e-3


def test_lpips_refuses_unequal_and_tiny_frames(alex):
    with pytest.raises(ValueError, match="can't be compared"):
        alex(clip(2, 48), clip(3, 48))
    with pytest.raises(ValueError, match="32 pixels are needed"):
        alex(clip(2, 20), clip(2, 20))


def test_tensorflows_padding_is_uneven_and_never_wins():
    ones = torch.ones(1, 1, 5, 6, 6)
    padded = _padded(ones, (1, 3, 3), (1, 2, 2), 0.0)
    assert padded.shape == (1, 1, 5, 7, 7)  # one line more, at the end
    assert padded[0, 0, 0, -1].sum() == padded[0, 0, 0, :, -1].sum() == 0
    assert (_padded(torch.ones(1, 1, 5, 5, 5), (7, 7, 7), (2, 2, 2), 0.0).shape[2:]) == (11, 11, 11)
    assert (_max_pool(-ones, (3, 3, 3), (2, 2, 2)) == -1).all()


def numpy_lpips() -> dict[str, dict[str, object]]:
    tensors = seeded("alexnet")
    places = [0, 3, 6, 8, 10]
    content: dict[str, dict[str, object]] = {"AlexNet_0": {}}
    for number, place in enumerate(places):
        kernel = tensors[f"features.{place}.weight"].numpy()
        content["AlexNet_0"][f"Conv_{number}"] = {
            "kernel": np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)),
            "bias": tensors[f"features.{place}.bias"].numpy(),
        }
        content[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": np.full((1, 1, 4, 1), number, np.float32)}}
    return content


def test_an_archive_of_arrays_and_a_checkpoint_and_safetensors_are_the_same_network(tmp_path: Path):
    tensors = seeded("alexnet")
    files = [tmp_path / name for name in ("a.ckpt", "b.pth", "c.pth", "d.safetensors", "e.pth")]
    files[0].write_bytes(pickle.dumps(numpy_lpips(), protocol=3))
    classes = {"classifier.1.weight": torch.ones(3, 3)}
    torch.save({**tensors, **classes}, files[1])
    torch.save({**tensors, **classes}, files[2], _use_new_zipfile_serialization=False)
    save_file(tensors, files[3])
    behind = {"arch": "x", "epoch": 3, "state_dict": {f"module.{key}": value for key, value in tensors.items()}}
    torch.save(behind, files[4], _use_new_zipfile_serialization=False)
    for file in files:
        found = read_network("alexnet", file).state_dict()
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[key], value) for key, value in tensors.items())
    assert read_archive(files[0])["lin3"].tolist() == [3] * 4


def test_counters_of_batch_norms_may_be_there_or_not(tmp_path: Path):
    tensors = seeded("i3d")
    counted = {
        key.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for key in tensors if "running_mean" in key
    }
    assert counted
    torch.save({**tensors, **counted}, tmp_path / "i3d.pt")
    network = read_network("i3d", tmp_path / "i3d.pt")
    assert not network.training
    assert not any(value.requires_grad or value.is_meta for value in (*network.parameters(), *network.buffers()))


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a": Evil()}, "asks for `builtins.print`"),
        ({"a": np.float64(3)}, "scalar`, which is no array"),
        ({"a": {1, 2}}, "a is a set and no float32 array"),
        ({"a": np.zeros(3)}, "a is a ndarray and no float32 array"),
        ({"a": np.asarray([{}], object)}, "no float32 array"),
        ({"a": Path("x")}, "which is no array"),
    ],
)
def test_an_archive_that_holds_more_than_arrays_is_refused_and_nothing_is_run(tmp_path: Path, content, told, capsys):
    file = tmp_path / "vgg16.ckpt"
    file.write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(MtvcraftError, match=told) as refused:
        read_tensors("vgg16", file)
    assert refused.value.exit == Exit.WEIGHTS
    assert str(file) in refused.value.message
    assert capsys.readouterr().out == ""


def test_files_that_are_cut_off_or_of_another_network_are_named(tmp_path: Path):
    whole = pickle.dumps(numpy_lpips(), protocol=3)
    cut, other, missing = (tmp_path / name for name in ("alexnet.ckpt", "other.pth", "none.pth"))
    cut.write_bytes(whole[: len(whole) // 2])
    torch.save(seeded("alexnet"), other)
    for name, file, told in (
        ("alexnet", cut, "can't be read"),
        ("alexnet", missing, "no such file"),
        ("vgg16", other, "doesn't hold the network vgg16"),
    ):
        with pytest.raises(MtvcraftError, match=told) as refused:
            read_network(name, file)
        assert str(file) in refused.value.message
        assert "mtvcraft download" in refused.value.hint
        assert refused.value.exit == Exit.WEIGHTS


def test_the_heads_have_the_widths_of_the_taps():
    assert [len(head) for head in read_heads("vgg16")] == [64, 128, 256, 512, 512]
    assert [len(head) for head in read_heads("alexnet")] == [64, 192, 384, 256, 256]
    assert all((head >= 0).all() for name in ("vgg16", "alexnet") for head in read_heads(name))
