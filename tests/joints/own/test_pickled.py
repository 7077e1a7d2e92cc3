"""Pickles are read as data, and one that wants to act is refused with nothing done."""

import builtins
import collections
import copyreg
import io
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.own.content import read_content
from mtvcraft_cli.joints.own.pickled import RefusedError, unpickle
from mtvcraft_cli.joints.own.read import read_own

pytestmark = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.told = function, arguments

    def __reduce__(self) -> Any:
        return self.told


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_tensors_and_containers_come_back(protocol: int) -> None:
    array = np.arange(12.0).reshape(3, 4)
    saved = {
        "array": array,
        "fortran": np.asfortranarray(array.astype(">i4")),
        "strided": array[::2, 1:],
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "words": np.array(["ja", "nein"]),
        "number": np.float32(1.5),
        "tensor": torch.arange(12.0).reshape(3, 4).T[1:],
        "half": torch.ones(3, dtype=torch.bfloat16),
        "whole": torch.tensor(7),
        "weight": torch.nn.Parameter(torch.ones(2)),
        "plain": [1, (2.5, "text"), None, b"bytes", b""],
        "ordered": collections.OrderedDict(a=1, b=[array]),
    }
    read = unpickle(pickle.dumps(saved, protocol))
    assert list(read) == list(saved)
    for name in ("array", "fortran", "strided", "empty", "flags", "words", "number"):
        np.testing.assert_array_equal(read[name], saved[name])
        assert np.asarray(read[name]).dtype.newbyteorder("=") == np.asarray(saved[name]).dtype.newbyteorder("=")
    for name in ("tensor", "half", "whole", "weight"):
        np.testing.assert_array_equal(read[name], saved[name].detach().float().numpy())
    assert read["plain"] == saved["plain"]
    np.testing.assert_array_equal(read["ordered"]["b"][0], array)


def test_objects_in_arrays_are_data_and_what_is_shared_stays_shared() -> None:
    shared = [1]
    loop: list[Any] = [shared, shared]
    loop.append(loop)
    read = unpickle(pickle.dumps({"loop": loop, "objects": np.array([{"a": np.ones(2)}, "b"], dtype=object)}))
    assert read["loop"][0] is read["loop"][1]
    assert read["loop"][2] is read["loop"]
    np.testing.assert_array_equal(read["objects"][0]["a"], np.ones(2))


@pytest.mark.parametrize("core", ["core", "_core"])
def test_both_names_of_numpys_own_modules_are_known(core: str) -> None:
    content = pickle.dumps([np.arange(3), np.float64(2)], 2)
    either = content.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", f"numpy.{core}.".encode())
    assert f"numpy.{core}.multiarray".encode() in either
    read = unpickle(either)
    np.testing.assert_array_equal(read[0], [0, 1, 2])
    assert read[1] == 2


def test_a_tensor_of_a_gpu_is_read_on_the_cpu() -> None:
    content = pickle.dumps({"pose": torch.arange(6.0)}, 3)
    before = b"X\x03\x00\x00\x00cpu"
    assert content.count(before) == 1
    at = content.index(before)
    longer = content[:at] + b"X\x06\x00\x00\x00cuda:0" + content[at + len(before) :]
    start = content.index(b"\x80\x02\x8a")  # torch's magic number begins the storage
    length = int.from_bytes(content[start - 4 : start], "little")
    longer = longer[: start - 4] + (length + 3).to_bytes(4, "little") + longer[start:]
    np.testing.assert_array_equal(unpickle(longer)["pose"], np.arange(6.0))


def _saved_by_torch(zipped: bool) -> bytes:
    inner = io.BytesIO()
    torch.save({"a": Calls(os.system, "touch hit")}, inner, _use_new_zipfile_serialization=zipped)
    return inner.getvalue()


def _chain() -> bytes:
    """`getattr(__import__("os"), "system")("touch hit")`, as opcodes."""
    return b"".join(
        [
            b"\x80\x02",
            b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(X\x02\x00\x00\x00ostRX\x06\x00\x00\x00systemtR",
            b"(X\x09\x00\x00\x00touch hittR.",
        ]
    )


PAYLOADS: dict[str, tuple[Any, str]] = {
    "system": (Calls(os.system, "touch hit"), f"`{os.system.__module__}.system`"),
    "popen": (Calls(subprocess.Popen, ["touch", "hit"]), "`subprocess.Popen`"),
    "eval": (Calls(eval, "open('hit', 'w').close()"), "`builtins.eval`"),
    "exec": (Calls(exec, "open('hit', 'w').close()"), "`builtins.exec`"),
    "open": (Calls(open, "hit", "w"), "`io.open`"),
    "getattr": (Calls(getattr, "text", "upper"), "`builtins.getattr`"),
    "chain": (_chain(), "`builtins.getattr`"),
    "deep in a list": ([{"pose": [np.ones(3), (Calls(os.system, "touch hit"),)]}], "system`"),
    "in an object array": (np.array([Calls(os.system, "touch hit")], dtype=object), "system`"),
    "in a storage": (Calls(torch.storage._load_from_bytes, _saved_by_torch(False)), "system`"),
    "in a zipped storage": (Calls(torch.storage._load_from_bytes, _saved_by_torch(True)), "a storage of another kind"),
    "copyreg": (Calls(copyreg._reconstructor, dict, object, None), "`builtins.dict`"),
    "a class of its own": (types.SimpleNamespace(a=1), "`types.SimpleNamespace`"),
    "numpy's own reader": (Calls(np.load, "hit"), "load`"),
    "torch's own reader": (Calls(torch.load, "hit"), "`torch.serialization.load`"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0dcore.os.systm\x93.", "`numpy.core.os.systm`"),
    "an extension": (b"\x80\x02\x82\x01.", "data that lies elsewhere"),
    "a file of its own": (b"\x80\x02X\x01\x00\x00\x00aQ.", "data that lies elsewhere"),
}


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("ending", ["pkl", "npy"])
def test_a_file_that_wants_to_act_is_refused_by_name(
    name: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    payload, asked = PAYLOADS[name]
    path = tmp_path / f"evil.{ending}"
    content = payload if isinstance(payload, bytes) else pickle.dumps(payload)
    if ending == "npy":  # an array of objects: NumPy's header, then a pickle
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": (1,)})
        content = header.getvalue() + content
    path.write_bytes(content)
    with pytest.raises(MtvcraftError, match="more than numbers") as caught:
        read_own(path)
    assert asked in caught.value.message
    assert caught.value.exit is Exit.INPUT
    assert "nothing of it was run" in caught.value.hint
    assert not (tmp_path / "hit").exists()


def test_the_payloads_would_have_worked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("system", "exec", "chain", "in an object array", "in a zipped storage"):
        payload = PAYLOADS[name][0]
        content = payload if isinstance(payload, bytes) else pickle.dumps(payload)
        if name == "in a zipped storage":  # torch itself refuses by now, unless it is told not to
            torch.load(io.BytesIO(_saved_by_torch(True)), weights_only=False)
        else:
            pickle.loads(content)
        assert (tmp_path / "hit").exists(), name
        (tmp_path / "hit").unlink()


def _claims(shape: tuple[int, ...]) -> bytes:
    whole = pickle.dumps(np.zeros((1, 24, 3), np.float32), 2)
    before = b"K\x01K\x18K\x03\x87"
    assert whole.count(before) == 1
    return whole.replace(before, b"".join(b"J" + size.to_bytes(4, "little") for size in shape) + b"\x87")


@pytest.mark.parametrize(
    "content",
    [
        _claims((2**31 - 1, 24, 3)),
        _claims((2**31 - 1, 2**31 - 1, 2**31 - 1)),
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",  # a place in the memo that takes gigabytes
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes that aren't there
        pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, np.zeros(3), 0, (10**9, 10**9), (0, 0))),
        pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, np.zeros(3), 2, (3,), (1,))),
        pickle.dumps(Calls(torch._utils._rebuild_tensor_v2, np.zeros(3), -5, (3,), (1,))),
        b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        b"\x80\x04",
        b"",
    ],
    ids=range(10),
)
def test_a_bomb_or_a_ruin_is_refused_in_no_time(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pkl"
    path.write_bytes(content)
    with pytest.raises(MtvcraftError):
        read_content(path)


def test_an_archive_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtvcraft_cli.joints.own.content.MOST_BYTES", 10 << 20)
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, a=np.zeros(6 << 20, np.uint8), b=np.zeros(6 << 20, np.uint8))
    assert path.stat().st_size < 20_000
    with pytest.raises(MtvcraftError, match=r"0\.0 GB of memory"):
        read_content(path)


def test_a_dtype_that_lies_about_its_flags_makes_no_objects() -> None:
    """NumPy's own reader would take bytes for the addresses of objects."""
    content = pickle.dumps(np.zeros(1, "V8"), 2)
    with pytest.raises(RefusedError, match="`V8`"):
        unpickle(content)


def test_what_one_pickle_does_to_its_stand_ins_the_next_doesnt_see() -> None:
    spoiling = b"\x80\x02cnumpy._core.multiarray\n_reconstruct\n}X\x05\x00\x00\x00buildX\x01\x00\x00\x00xsb."
    with pytest.raises(Exception, match=r"."):
        unpickle(spoiling)
    np.testing.assert_array_equal(unpickle(pickle.dumps(np.arange(3))), [0, 1, 2])
    assert builtins.getattr is getattr
    assert "os" in sys.modules
