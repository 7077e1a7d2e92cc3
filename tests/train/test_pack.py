"""A run as a preset of half the size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.train.pack import pack
from tests.cli.inputs import picture, save_joints
from tests.cli.run import mtvcraft
from tests.train.test_training import trained

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.utils.tensorboard.*", "ignore:.*lr_scheduler.*")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy runs of all three networks."""
    folder, one = tmp_path_factory.mktemp("runs"), [[1, 1e-3, 1e-3]]
    parts = {part: trained(part, folder, phases=one).folder for part in ("tokenizer", "vae")}  # type: ignore[arg-type]
    trained("dit", folder, parts, phases=one)
    return folder


def test_a_packed_run_holds_the_same_weights_in_half_the_bytes_and_runs(runs: Path, tmp_path: Path) -> None:
    words = ("train", "pack", runs / "dit", "-o", "small.yaml")
    told = mtvcraft(*words, "--dry-run", cwd=tmp_path, check=0)
    assert "would halve tokenizer, transformer, vae" in told.stderr
    assert not list(tmp_path.iterdir())
    assert mtvcraft(*words, cwd=tmp_path, check=0).stdout.strip() == "small.yaml"
    for part in ("tokenizer", "transformer", "vae"):
        kept, packed = (load_file(folder / f"{part}.safetensors") for folder in (runs / "dit", tmp_path / "small"))
        assert all(torch.equal(packed[name], tensor.half()) for name, tensor in kept.items())
    sizes = [
        sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        for folder in (runs / "dit", tmp_path / "small")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    one, other = load_preset(str(runs / "dit")), load_preset(str(tmp_path / "small.yaml"))
    assert np.array_equal(one.statistics.mean_mm, other.statistics.mean_mm)
    assert other.vae == one.vae
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    mtvcraft("animate", "ref.png", "drive.npy", "--preset", "small.yaml", "-o", "out.mp4", cwd=tmp_path, check=0)

    again = mtvcraft(*words, cwd=tmp_path)
    assert again.returncode == 2
    assert "--force" in again.stderr
    mtvcraft(*words, "--force", cwd=tmp_path, check=0)


def test_a_run_without_all_its_networks_is_not_packed(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match="no trained"):
        pack(runs / "tokenizer", tmp_path / "small.yaml")
    assert not list(tmp_path.iterdir())


def test_what_16_bits_cannot_hold_leaves_nothing_behind(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for file in (runs / "dit").iterdir():
        if file.suffix == ".safetensors":
            save_file({name: tensor * 1e9 for name, tensor in load_file(file).items()}, run / file.name)
        elif file.is_file():
            (run / file.name).write_bytes(file.read_bytes())
    with pytest.raises(MtvcraftError, match="float16 can't hold"):
        pack(run, tmp_path / "small.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
