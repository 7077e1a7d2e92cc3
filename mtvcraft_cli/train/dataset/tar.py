"""Tar shards: written by appending only, read by offsets, every byte checked before it is believed."""

import os
import tarfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final

from mtvcraft_cli.errors import MtvcraftError

BLOCK: Final = tarfile.BLOCKSIZE
END: Final = bytes(2 * BLOCK)
"""What closes an archive."""


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Appends members to a tar file; the same members give the same bytes.

    Args:
        path: the file; made where it isn't there.
        keep_bytes: what of an older file stays; the rest, such as a member that was cut off, is removed.

    Raises:
        MtvcraftError: the file is shorter than that.
    """

    def __init__(self, path: Path, keep_bytes: int = 0) -> None:
        self.path = path
        self.file = path.open("r+b" if path.exists() else "w+b")
        there = self.file.seek(0, os.SEEK_END)
        if there < keep_bytes:
            self.file.close()
            raise damaged(path, f"it has {there} bytes, and {keep_bytes} were written")
        self.file.truncate(keep_bytes)
        self.size_bytes = self.file.seek(keep_bytes)

    def add(self, name: str, content: bytes) -> int:
        """Append a member; where its bytes begin."""
        info = tarfile.TarInfo(name)
        info.size = len(content)
        header = info.tobuf(tarfile.USTAR_FORMAT)
        self.file.write(header)
        self.file.write(content)
        self.file.write(bytes(-len(content) % BLOCK))
        begin = self.size_bytes + len(header)
        self.size_bytes = self.file.tell()
        return begin

    def cut(self, size_bytes: int) -> None:
        """Take back what was appended after the file had this size."""
        self.file.truncate(size_bytes)
        self.size_bytes = self.file.seek(size_bytes)

    def keep(self) -> None:
        """Make sure that what was appended survives a power cut."""
        self.file.flush()
        os.fsync(self.file.fileno())

    def end(self) -> None:
        """Write the end of the archive, which a later `ShardWriter` writes over."""
        self.file.write(END)
        self.keep()
        self.file.seek(self.size_bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()


def read_member(path: Path, name: str, begin: int, size_bytes: int, parts: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read parts of a member of a shard.

    Args:
        path: of the shard.
        name: what the member must be called.
        begin: where its bytes must begin.
        size_bytes: how many it must have.
        parts: begin within the member and length of each part.

    Raises:
        MtvcraftError: the shard is missing or cut off, another member lies there, or a part isn't within it.
    """
    try:
        with path.open("rb") as file:
            if begin < BLOCK or begin % BLOCK or begin + size_bytes > os.fstat(file.fileno()).st_size:
                raise damaged(path, f"`{name}` doesn't lie within it")
            file.seek(begin - BLOCK)
            info = tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "strict")
            if not info.isreg() or info.name != name or info.size != size_bytes:
                raise damaged(path, f"`{info.name}` of {info.size} bytes lies where `{name}` should")
            read = []
            for start, length in parts:
                if start < 0 or length < 0 or start + length > size_bytes:
                    raise damaged(path, f"a part of `{name}` lies outside of it")
                file.seek(begin + start)
                read.append(file.read(length))
            return read
    except tarfile.TarError as error:
        raise damaged(path, f"no member begins where `{name}` should: {error}") from error
    except UnicodeDecodeError as error:
        raise damaged(path, f"the member where `{name}` should be has no readable name") from error
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error


def damaged(path: Path, why: str) -> MtvcraftError:
    """Say that a part of a data set can't be used."""
    return MtvcraftError(
        f"`{path}` is damaged: {why}",
        hint="copy the data set again, or make it anew: `mtvcraft train prepare ... --force`",
    )
