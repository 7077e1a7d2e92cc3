"""Files as plain data: what is in a motion file, whatever it is called."""

import math
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.own.pickled import MOST_BYTES, RefusedError, read_saved_by_torch, unpickle

OwnKind = Literal["array", "archive", "bvh", "pickle"]
READS: Final = "`.joints.npz`, `.npy` and `.npz` arrays, the reference's `.pkl`, AMASS, SMPL and SMPL-X parameters, BVH"


def own_kind(path: Path) -> OwnKind | None:
    """Tell by its first bytes which kind of motion file a file may be; None if it can be none."""
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(b"\x93NUMPY"):
        return "array"
    if head.startswith(b"PK\x03\x04"):
        return "archive"
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:9].upper() == b"HIERARCHY":
        return "bvh"
    if head.startswith((b"\x80", b"(dp", b"(lp", b"ccopy_reg", b"cnumpy")):  # all but the first: protocol 0
        return "pickle"
    return None


def read_content(path: Path) -> Any:
    """Read an array, an archive or a pickle as plain data.

    Args:
        path: a file of one of these kinds, see `own_kind`.

    Returns:
        Arrays, by name where it is an archive (of NumPy or torch), or the containers of a pickle with arrays in them.

    Raises:
        MtvcraftError: (`Exit.INPUT`) it is broken, larger than a gigabyte, or asks for more than data.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise RefusedError(f"{path.stat().st_size / 1e9:.1f} GB")
        kind = own_kind(path)
        if kind == "archive":
            return dict(_members(path))
        if kind == "array":
            return _array(path.read_bytes())
        return unpickle(path.read_bytes())
    except RefusedError as error:
        raise MtvcraftError(
            f"`{path.name}` isn't read: it asks for {error}, which is more than numbers, texts and lists of them",
            hint="nothing of it was run; save its arrays with `numpy.savez` instead",
        ) from error
    except MtvcraftError:
        raise
    except Exception as error:  # a broken or hostile file can make its reader fail in any way
        why = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise MtvcraftError(
            f"`{path.name}` can't be read as motion: it is broken or cut off ({why})", hint=f"readable are {READS}"
        ) from error


def _members(path: Path) -> Iterator[tuple[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        every = archive.infolist()
        infos = [info for info in every if info.filename.endswith(".npy")]
        if not infos and any(info.filename.endswith("/data.pkl") for info in every):
            total = sum(info.file_size for info in every)
            if total > MOST_BYTES:
                raise RefusedError(f"{total / 1e9:.1f} GB of memory")
            saved = read_saved_by_torch(path.read_bytes())
            yield from (saved if isinstance(saved, dict) else {"poses": saved}).items()
            return
        if not infos:
            raise ValueError("a zip file without NumPy arrays")
        total = sum(info.file_size for info in infos)
        if total > MOST_BYTES:
            raise RefusedError(f"{total / 1e9:.1f} GB of memory")
        for info in infos:
            yield info.filename.removesuffix(".npy"), _array(archive.read(info))


def _array(content: bytes) -> Any:
    """Read one `.npy`; the shape that it claims has to fit its bytes. Objects in it are read as a pickle is."""
    file = BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        objects = unpickle(file.read())
        return objects[()] if isinstance(objects, np.ndarray) and objects.ndim == 0 else objects
    raw = file.read()
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array of {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C").copy()
