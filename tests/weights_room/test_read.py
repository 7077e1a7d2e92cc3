import argparse
import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.weights.locate import files_at
from mtvcraft_cli.weights.read import read_tensors

FORMATS = {"zip": True, "old": False}
"""How torch.save writes: the zip archive of today, or one long pickle."""


def some_tensors() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    base = torch.randn(6, 4, generator=draw)
    return {
        "encoder.weight": torch.randn(3, 4, generator=draw),
        "half": torch.randn(5, generator=draw).bfloat16(),
        "count": torch.arange(4),
        "view": base[1:4, ::2],
        "nothing": torch.zeros(0, 3),
    }


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for key, tensor in wanted.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(MtvcraftError) as refused:
        read_tensors(path, **options)
    assert refused.value.exit == Exit.WEIGHTS
    assert "download" in refused.value.hint
    assert "\n" not in refused.value.message
    return refused.value.message


class OwnConfig:
    """A class that the reader must not need."""

    def __init__(self) -> None:
        self.depth = 3
        self.weight = torch.ones(2)


class OwnList(list):
    pass


class OwnDict(dict):
    pass


class Runs:
    """A payload: unpickling it makes a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f"touch {self.proof}",)


def deepspeed_state(**more: object) -> dict[str, object]:
    """What DeepSpeed keeps beside the weights, and more."""
    return {
        "module": OrderedDict(some_tensors()),
        "optimizer": None,
        "sparse_tensor_module_names": {"a", "b"},
        "param_shapes": [OrderedDict(weight=torch.Size([3, 4]))],
        "global_steps": 20000,
        "ds_version": "0.15",
        **more,
    }


# safetensors, folders and shards


def test_a_safetensors_file_is_read_whole(tmp_path: Path) -> None:
    tensors = {key: value.contiguous() for key, value in sorted(some_tensors().items())}
    save_file(tensors, tmp_path / "model.safetensors")
    assert_equal(dict(sorted(read_tensors(tmp_path / "model.safetensors").items())), tensors)
    assert_equal(dict(sorted(read_tensors(tmp_path, within="module").items())), tensors)


@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_a_length_that_begins_as_a_pickle_does_leads_nobody_astray(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.arange(3.0)}
    for letters in range(256):
        save_file(tensors, tmp_path / name, metadata={"note": "x" * letters})
        if (tmp_path / name).read_bytes()[:1] == b"\x80":
            break
    else:
        pytest.fail("no header has such a length")
    assert_equal(read_tensors(tmp_path / name), tensors)


def test_an_index_goes_before_what_an_interrupted_conversion_left(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.zeros(2)}
    for name, tensor in tensors.items():
        torch.save({name: tensor}, tmp_path / f"m-{name}.bin")
    (tmp_path / "m.bin.index.json").write_text(json.dumps({"weight_map": {name: f"m-{name}.bin" for name in tensors}}))
    save_file({"a": tensors["a"]}, tmp_path / "m-a.safetensors")
    assert_equal(read_tensors(tmp_path), tensors)
    assert [path.name for path in files_at(tmp_path)] == ["m-a.bin", "m-b.bin", "m.bin.index.json"]


def shard(folder: Path) -> dict[str, Tensor]:
    tensors = {key: torch.full((2,), float(number)) for number, key in enumerate("abcd")}
    save_file({key: tensors[key] for key in "ab"}, folder / "m-1-of-2.safetensors")
    save_file({key: tensors[key] for key in "cd"}, folder / "m-2-of-2.safetensors")
    write_index(folder, {key: f"m-{1 if key in 'ab' else 2}-of-2.safetensors" for key in "abcd"})
    return tensors


def write_index(folder: Path, places: dict[str, str]) -> None:
    index = {"metadata": {"total_size": 32}, "weight_map": places}
    (folder / "m.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_joined(tmp_path: Path) -> None:
    tensors = shard(tmp_path)
    assert_equal(read_tensors(tmp_path), tensors)
    assert_equal(read_tensors(tmp_path / "m.safetensors.index.json"), tensors)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shard(tmp_path)
    (tmp_path / "m-2-of-2.safetensors").unlink()
    assert "1 of 2 shards are missing: `m-2-of-2.safetensors`" in refusal(tmp_path)


def test_a_tensor_that_the_index_lists_and_the_shard_lacks_is_named(tmp_path: Path) -> None:
    shard(tmp_path)
    save_file({"c": torch.zeros(1)}, tmp_path / "m-2-of-2.safetensors")
    assert "lacks `d`" in refusal(tmp_path)


def test_a_tensor_that_the_index_does_not_list_is_not_dropped_in_silence(tmp_path: Path) -> None:
    shard(tmp_path)
    write_index(tmp_path, {"a": "m-1-of-2.safetensors", "c": "m-2-of-2.safetensors", "d": "m-2-of-2.safetensors"})
    assert "holds `b`" in refusal(tmp_path)


def test_an_index_that_points_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path, {"a": "../m.safetensors"})
    assert "outside" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "\xff"])
def test_a_broken_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.safetensors.index.json").write_text(content, encoding="latin-1")
    assert "m.safetensors.index.json" in refusal(tmp_path)


def test_several_files_without_an_index_are_refused(tmp_path: Path) -> None:
    shard(tmp_path)
    (tmp_path / "m.safetensors.index.json").unlink()
    assert "2 weight files" in refusal(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("soon")
    assert ".safetensors" in refusal(tmp_path)


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    torch.save({"b": torch.ones(1)}, tmp_path / "model.bin")
    assert list(read_tensors(tmp_path)) == ["a"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.safetensors")


# torch.save


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_a_plain_state_dict_is_read(tmp_path: Path, zipped: bool) -> None:
    torch.save(some_tensors(), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensors(tmp_path / "w.pt"), some_tensors())
    assert_equal(read_tensors(tmp_path / "w.pt", within="module"), some_tensors())


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"args": argparse.Namespace(lr=2e-4, betas=(0.9, 0.99), seen={1: torch.ones(1)})},
        {"config": OwnConfig(), "list": OwnList([1, OwnConfig()]), "dict": OwnDict(a=OwnConfig())},
        {"loss": np.float64(0.3), "best": np.arange(3), "kind": np.dtype("float32")},
        {"where": Path("x"), "enum": Exit.FIT, "function": print, "class": OwnConfig},
    ],
    ids=["plain", "namespace", "own classes", "numpy", "others"],
)
def test_only_the_module_of_a_deepspeed_state_is_taken(tmp_path: Path, more: dict[str, object], zipped: bool) -> None:
    torch.save(deepspeed_state(**more), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensors(tmp_path / "w.pt", within="module"), some_tensors())


def test_parameters_come_back_as_plain_tensors(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    torch.save({"module": dict(layer.named_parameters()), "args": OwnConfig()}, tmp_path / "w.pt")
    found = read_tensors(tmp_path / "w.pt", within="module")
    assert_equal(found, {key: value.detach() for key, value in layer.named_parameters()})
    assert all(type(tensor) is Tensor and not tensor.requires_grad for tensor in found.values())


@pytest.mark.parametrize("zipped", FORMATS.values(), ids=FORMATS)
def test_nothing_that_a_file_says_is_run(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "it-ran"
    torch.save(deepspeed_state(args=Runs(proof)), tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert_equal(read_tensors(tmp_path / "w.pt", within="module"), some_tensors())
    assert not proof.exists()
    torch.load(tmp_path / "w.pt", weights_only=False)  # the payload is a live one
    assert proof.exists()


def test_a_payload_in_place_of_the_weights_is_not_run_either(tmp_path: Path) -> None:
    proof = tmp_path / "it-ran"
    torch.save({"module": Runs(proof)}, tmp_path / "w.pt")
    torch.save({"module": {"weight": Runs(proof)}}, tmp_path / "v.pt")
    assert "StandIn" in refusal(tmp_path / "w.pt", within="module")
    assert "`weight`" in refusal(tmp_path / "v.pt", within="module")
    assert not proof.exists()


@pytest.mark.parametrize("called", [eval, exec, getattr, setattr, __import__, torch.load, torch.hub.load])
def test_no_function_is_reached_through_the_names_that_are_allowed(tmp_path: Path, called: Any) -> None:
    class Calls:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return called, ("raise SystemExit", "b")

    torch.save(deepspeed_state(args=Calls()), tmp_path / "w.pt")
    assert_equal(read_tensors(tmp_path / "w.pt", within="module"), some_tensors())


@pytest.mark.parametrize(
    "state", [b"}X\x04\0\0\0evilK\x01s", b"N}X\x0c\0\0\0__defaults__K\x01\x85s\x86"], ids=["dict", "slots"]
)
def test_a_pickle_cannot_change_the_functions_that_rebuild_tensors(tmp_path: Path, state: bytes) -> None:
    # The instruction BUILD sets attributes of whatever lies on the stack, without calling anything.
    function = torch._utils._rebuild_tensor_v2
    before = dict(vars(function)), function.__defaults__
    program = pickle.dumps({"module": {}}, protocol=2)[:-1]
    program += b"ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b0cunknown\nClass\n0."
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        for name, content in (("data.pkl", program), ("version", b"3\n"), ("byteorder", b"little")):
            archive.writestr(f"w/{name}", content)
    try:
        assert "no tensors by name" in refusal(tmp_path / "w.pt", within="module")
        assert (dict(vars(function)), function.__defaults__) == before
    finally:
        vars(function).clear()
        function.__defaults__ = before[1]


def test_what_lies_beside_tensors_is_named(tmp_path: Path) -> None:
    torch.save(deepspeed_state(), tmp_path / "w.pt")
    said = refusal(tmp_path / "w.pt")
    assert "`module`" in said
    assert "and 2 more" in said
    assert "no `ema`" in refusal(tmp_path / "w.pt", within="ema")


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(1)], tmp_path / "w.pt")
    assert "list" in refusal(tmp_path / "w.pt")


# broken files


def whole_files(folder: Path) -> dict[str, bytes]:
    save_file({key: value.contiguous() for key, value in some_tensors().items()}, folder / "a.safetensors")
    torch.save(some_tensors(), folder / "zip.pt")
    torch.save(some_tensors(), folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(deepspeed_state(args=OwnConfig()), folder / "own.pt")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("part", [0, 1, 7, 0.2, 0.5, 0.9, 0.99])
def test_a_cut_off_file_is_refused_by_name(tmp_path: Path, part: float) -> None:
    for name, content in whole_files(tmp_path).items():
        (tmp_path / name).write_bytes(content[: part if isinstance(part, int) else int(part * len(content))])
        assert name in refusal(tmp_path / name, within="module")


def test_a_file_with_another_beginning_is_refused_by_name(tmp_path: Path) -> None:
    for name, content in whole_files(tmp_path).items():
        (tmp_path / name).write_bytes(b"\x80\x02}." + content[4:60])
        refusal(tmp_path / name, within="module")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"<!doctype html><html>Not found</html>", "neither safetensors nor written by torch"),
        (b"", "neither safetensors nor written by torch"),
        (b'\x10\0\0\0\0\0\0\0{"a":1}        ', "model.safetensors"),
        (b"\xff" * 8 + b"{}", "model.safetensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert said in refusal(tmp_path / "model.safetensors")


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("photo.txt", "no weights")
    refusal(tmp_path / "w.pt")


def test_a_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    refusal(tmp_path / "w.pt")
