"""Pickles read as data: arrays, CPU tensors and plain containers come out, and nothing in them is ever run.

A pickle is a program. Python's own reader follows it, but whatever it names is looked up in the short table below,
whose entries only hold what they are given; arrays are built afterwards, by us, from plain bytes.
"""

import io
import math
import pickle
import pickletools
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MOST_BYTES: Final = 1 << 30
"""No motion and no body is larger than a gigabyte."""

BUILDERS: Final = frozenset(
    {
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
        ("copyreg", "_reconstructor"),
        *(("builtins", name) for name in ("object", "bytes", "set")),
        ("collections", "OrderedDict"),
        ("torch._utils", "_rebuild_tensor"),
        ("torch._utils", "_rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_parameter"),
        ("torch.storage", "_load_from_bytes"),
        *((f"scipy.sparse{module}", "csc_matrix") for module in ("", ".csc", "._csc")),
    }
)
"""All that a pickle may name, with chumpy's classes: nothing here acts, each entry is only a shape of data."""


class RefusedError(Exception):
    """The pickle asks for more than data; the message names it."""


def unpickle(content: bytes) -> Any:
    """Read a pickle as data.

    Args:
        content: the whole pickle, of any protocol, also one written by Python 2.

    Returns:
        Lists, tuples, dicts, sets, numbers, texts, bytes; arrays and tensors as NumPy arrays; sparse matrices made
        dense; of a chumpy object its array.

    Raises:
        RefusedError: it asks for something else than data.
        Exception: of any kind where it is broken: a broken pickle can make its reader fail in any way.
    """
    if len(content) > MOST_BYTES:
        raise RefusedError(f"{len(content) / 1e9:.1f} GB")
    _look_over(content)
    return _Data(io.BytesIO(content), encoding="latin1").load_data()


def _look_over(content: bytes) -> None:
    """Refuse what would make Python's reader take up memory out of all proportion, or leave its own data."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument) > len(content):  # type: ignore[arg-type]
            raise RefusedError(f"place {argument} in a memory of its own")
        if opcode.name in ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
            raise RefusedError(f"data that lies elsewhere ({opcode.name})")


class _Held:
    """What a pickle wants built, kept as it was told."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> "_Held":
        held = super().__new__(cls)
        held.arguments = arguments
        return held

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def build(self, built: Callable[[Any], Any]) -> Any:
        raise NotImplementedError


class _Data(pickle.Unpickler):
    """Looks names up in `BUILDERS` and hands out fresh stand-ins, since a pickle can set attributes on what it gets."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"copy_reg": "copyreg", "__builtin__": "builtins"}.get(module, module)
        if module.partition(".")[0] == "chumpy":
            return type("_Chumpy", (_Chumpy,), {})
        if (module, name) not in BUILDERS:
            raise RefusedError(f"`{module}.{name}`")
        if name in _KINDS:
            return type(_KINDS[name].__name__, (_KINDS[name],), {})
        if name in _ACTIONS:
            return lambda *arguments: _ACTIONS[name](*arguments)
        return name  # `ndarray` and `object`: only ever handed on

    def load_data(self) -> Any:
        """Read all, then put what was held in the place of its holders; what is shared stays shared."""
        done: dict[int, Any] = {}
        kept = []  # what `done` knows by its address has to stay

        def built(item: Any) -> Any:
            if not isinstance(item, list | tuple | dict | set | frozenset | _Held):
                return item
            if id(item) in done:
                return done[id(item)]
            kept.append(item)
            if isinstance(item, list):
                whole: list[Any] = []
                done[id(item)] = whole  # before its items, which may hold it
                whole.extend(built(part) for part in item)
                return whole
            if isinstance(item, dict):
                named: dict[Any, Any] = {}
                done[id(item)] = named
                named.update((built(key), built(part)) for key, part in item.items())
                return named
            done[id(item)] = None
            done[id(item)] = item.build(built) if isinstance(item, _Held) else type(item)(built(part) for part in item)
            return done[id(item)]

        return built(self.load())


def _dtype(held: Any) -> np.dtype[Any]:
    """Return a plain NumPy dtype; the pickle's own word for fields, flags and alignment isn't taken."""
    if not isinstance(held, _Dtype) or not isinstance(held.arguments[0], str):
        raise RefusedError("an array of no plain type")
    order = held.state[1] if isinstance(held.state, tuple) and held.state[1] in ("<", ">") else "="
    word = held.arguments[0]
    if word[:1] not in "bBiufcOUS" or not word[1:].isdigit():
        raise RefusedError(f"an array of type `{word}`")
    return np.dtype("O") if word[0] == "O" else np.dtype(order + word)


def _bytes(data: Any) -> bytes | bytearray:
    """Return an array's bytes; Python 2 wrote them as text."""
    if isinstance(data, _Encoded):
        data = data.arguments[0]
    if isinstance(data, str):
        return data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise RefusedError(f"an array made of {type(data).__name__}")
    return data


def _array(data: Any, dtype: np.dtype[Any], shape: Iterable[Any], order: Any, built: Callable[[Any], Any]) -> Any:
    shape = tuple(int(size) for size in shape)
    if min(shape, default=0) < 0:
        raise RefusedError(f"an array of shape {shape}")
    if dtype.hasobject:
        objects = np.empty(len(data), object)
        for place, item in enumerate(data):
            objects[place] = built(item)
        return objects.reshape(shape, order=order)
    raw = _bytes(data)
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise RefusedError(f"an array of shape {shape} out of {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order=order).copy()


class _Dtype(_Held):
    pass


class _Encoded(_Held):
    """`_codecs.encode(text, "latin1")`: how bytes looked before protocol 3."""

    def build(self, _built: Callable[[Any], Any]) -> Any:
        return _bytes(self)


class _Array(_Held):
    """`_reconstruct`, then a state: version, shape, dtype, whether Fortran's order, data."""

    def build(self, built: Callable[[Any], Any]) -> Any:
        *_, shape, dtype, fortran, data = self.state
        return _array(data, _dtype(dtype), shape, "F" if fortran else "C", built)


class _Buffer(_Held):
    """`_frombuffer(data, dtype, shape, order)`: protocol 5."""

    def build(self, built: Callable[[Any], Any]) -> Any:
        data, dtype, shape, order = self.arguments
        return _array(data, _dtype(dtype), shape, "F" if order == "F" else "C", built)


class _Scalar(_Held):
    def build(self, built: Callable[[Any], Any]) -> Any:
        dtype, data = self.arguments
        return _array([data] if _dtype(dtype).hasobject else data, _dtype(dtype), (), "C", built)[()]


class _Sparse(_Held):
    """A `csc_matrix`: column i has `data[indptr[i]:indptr[i + 1]]` in the rows `indices[...]`."""

    def build(self, built: Callable[[Any], Any]) -> Any:
        state = built(self.state)
        rows, columns = (int(size) for size in state["_shape"])
        if not 0 < rows * columns <= MOST_BYTES // 8:
            raise RefusedError(f"a matrix of {rows} x {columns}")
        starts = np.asarray(state["indptr"])
        if len(starts) != columns + 1 or (np.diff(starts) < 0).any() or starts[-1] != len(state["data"]):
            raise RefusedError("a matrix whose columns don't fit its numbers")
        dense = np.zeros((rows, columns))
        np.add.at(dense, (state["indices"], np.repeat(np.arange(columns), np.diff(starts))), state["data"])
        return dense


class _Chumpy(_Held):
    """An object of chumpy: its array under `x`, or nothing where it would have to be computed."""

    def build(self, built: Callable[[Any], Any]) -> Any:
        state = built(self.state)
        return state.get("x") if isinstance(state, dict) else None


class _Storage(_Held):
    """`torch.storage._load_from_bytes`: a file of `torch.save` in the pickle, read by torch's own careful reader."""

    def build(self, _built: Callable[[Any], Any]) -> npt.NDArray[Any]:
        import torch

        content = _bytes(self.arguments[0])
        if not content.startswith(b"\x80"):  # torch's other formats, zip and tar, can swell
            raise RefusedError("a storage of another kind than pickled tensors have")
        storage = _load_by_torch(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of older storage classes
            return _as_array(torch.tensor([], dtype=storage.dtype).set_(storage.untyped()))


class _Tensor(_Held):
    """`_rebuild_tensor_v2(storage, offset, size, stride, ...)`: a view of a storage."""

    def build(self, built: Callable[[Any], Any]) -> npt.NDArray[Any]:
        storage, offset, size, stride = built(self.arguments[:4])
        if not isinstance(storage, np.ndarray) or len(size) != len(stride):
            raise RefusedError("a tensor without a storage")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if (
            min((offset, *size, *stride)) < 0
            or math.prod(size) > len(storage)
            or (math.prod(size) and last >= len(storage))
        ):
            raise RefusedError(f"a tensor of {tuple(size)} out of {len(storage)} numbers")
        steps = [step * storage.itemsize for step in stride]
        return np.lib.stride_tricks.as_strided(storage[offset:], tuple(size), steps).copy()


class _Parameter(_Held):
    def build(self, built: Callable[[Any], Any]) -> Any:
        return built(self.arguments[0])


def read_saved_by_torch(content: bytes) -> Any:
    """Read what `torch.save` writes today, a zip file, as lists, dicts and arrays.

    Raises:
        RefusedError: it asks for something else than data.
    """
    import torch

    def plain(item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            if item.numel() * item.element_size() > item.untyped_storage().nbytes():
                raise RefusedError(f"a tensor of {tuple(item.shape)} out of fewer numbers")
            return _as_array(item.detach())
        if isinstance(item, dict):
            return {key: plain(part) for key, part in item.items()}
        return [plain(part) for part in item] if isinstance(item, list | tuple) else item

    return plain(_load_by_torch(content))


def _load_by_torch(content: bytes | bytearray) -> Any:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of older storage classes
        try:
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise RefusedError(_named_by_torch(str(error))) from error


def _as_array(tensor: Any) -> npt.NDArray[Any]:
    """Return a tensor's numbers; NumPy has no bfloat16."""
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def _named_by_torch(message: str) -> str:
    """Fish the name out of torch's refusal."""
    _, found, rest = message.partition("GLOBAL ")
    return f"`{rest.split()[0]}`" if found and rest.split() else "something beside a tensor"


def _reconstructor(kind: Any, *_base_and_state: Any) -> Any:
    """`copyreg._reconstructor(class, object, None)`: how Python 2 began an object."""
    if not (isinstance(kind, type) and issubclass(kind, _Chumpy | _Sparse)):
        raise RefusedError(f"an object of {kind!r}")
    return kind()


_KINDS: Final[dict[str, type[_Held]]] = {
    "dtype": _Dtype,
    "encode": _Encoded,
    "_reconstruct": _Array,
    "_frombuffer": _Buffer,
    "scalar": _Scalar,
    "csc_matrix": _Sparse,
    "_load_from_bytes": _Storage,
    "_rebuild_tensor": _Tensor,
    "_rebuild_tensor_v2": _Tensor,
    "_rebuild_parameter": _Parameter,
}
_ACTIONS: Final[dict[str, Callable[..., Any]]] = {
    "_reconstructor": _reconstructor,
    "OrderedDict": lambda *items: dict(*items),
    "bytes": lambda: b"",  # only empty ones are written so
    "set": lambda items=(): set(items),
}
