"""What can't work is refused early, with its exit code and a way out, and leaves nothing behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file

from mtvcraft_cli.errors import Exit, explained
from tests import clips
from tests.cli.inputs import mostly_nobody, picture, save_joints, shortened, swaying_joints
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.toy import toy_preset

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy")
    toy_preset(tmp_path)
    return tmp_path


def _cut_in_half(path: Path) -> None:
    clips.make_cut(path, clips.make_plain(path.with_name("plain.mp4")))


def _refused(
    there: Path, exit_code: int, *named: str, reference: str = "ref.png", drive: str, words: tuple[str, ...] = ()
) -> None:
    result = mtvcraft("animate", reference, drive, "--preset", "toy", "-o", "out.mp4", "-q", *words, cwd=there)
    assert_refused(result, exit_code, *named)
    assert not (there / "out.mp4").exists()
    assert not list(there.glob(".out*"))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (clips.make_empty, "empty"),
        (clips.make_text, "text"),
        (clips.make_sound_only, "sound"),
        (clips.make_without_index, "cut off"),
        (_cut_in_half, "frames are there"),
        (clips.make_clip, "no person"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_driver_that_is_no_video_of_a_person(there: Path, make, named: str) -> None:
    make(there / "drive.mp4")
    _refused(there, 4, named, "drive.mp4", drive="drive.mp4")
    assert_refused(mtvcraft("pose", "drive.mp4", "-q", cwd=there), 4, named)
    assert not (there / "drive.joints.npz").exists()


def test_a_person_in_three_frames_of_sixty(there: Path) -> None:
    mostly_nobody(ASSETS / "drive.mp4", there / "drive.mp4", with_person=3, frames=60)
    _refused(there, 4, "no person in frames 3 to 59", "--max-gap", drive="drive.mp4")


def test_a_picture_that_is_none(there: Path) -> None:
    clips.make_text(there / "ref.png")
    _refused(there, 4, "ref.png", drive="drive.npy")
    (there / "ref.png").write_bytes(picture(there / "whole.png").read_bytes()[:200])
    _refused(there, 4, "ref.png", drive="drive.npy")


def test_a_picture_of_20000_pixels_square(there: Path) -> None:
    Image.new("1", (20000, 20000)).save(there / "ref.png")
    _refused(there, 4, "megapixels", drive="drive.npy")


def test_joints_with_nan(there: Path) -> None:
    joints_mm = swaying_joints(20)
    joints_mm[7, 3, 1] = np.nan
    np.save(there / "drive.npy", joints_mm)
    _refused(there, 4, "NaN", "7", drive="drive.npy")


def test_tokens_of_another_preset(there: Path) -> None:
    mtvcraft("tokenize", "drive.npy", "--preset", "toy", cwd=there, check=0)
    told = json.loads((there / "drive.tokens.json").read_text())
    (there / "drive.tokens.json").write_text(json.dumps(told | {"preset": "7b"}))
    _refused(there, 4, "7b", drive="drive.tokens.npy")


def test_a_pickle_is_not_opened(there: Path) -> None:
    np.save(there / "drive.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    _refused(there, 4, "drive.npy", drive="drive.npy")


def test_a_missing_folder_and_an_existing_file(there: Path) -> None:
    result = mtvcraft("animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "no/out.mp4", cwd=there)
    assert_refused(result, 2, "no")
    (there / "out.mp4").write_text("mine")
    result = mtvcraft("animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4", "-q", cwd=there)
    assert_refused(result, 2, "out.mp4", "--force")
    assert (there / "out.mp4").read_text() == "mine"


@pytest.mark.parametrize("words", [(), ("--offline",)])
def test_missing_weights(there: Path, words: tuple[str, ...]) -> None:
    for preset, named in (("7b", "mtvcraft download 7b"), ("6b", "not published")):
        result = mtvcraft("animate", "ref.png", "drive.npy", "--preset", preset, "-q", *words, cwd=there)
        assert_refused(result, 6, named)
    result = mtvcraft("animate", "ref.png", "drive.npy", "--preset", "6b", "-q", cwd=there)
    assert "use 7b, or a folder of your own" in result.stderr


def test_a_missing_file_comes_before_missing_weights_and_those_before_a_bad_input(there: Path) -> None:
    assert_refused(mtvcraft("animate", "none.png", "drive.npy", "--preset", "7b", "-q", cwd=there), 2, "none.png")
    for make in (clips.make_text, clips.make_empty):
        make(there / "drive.mp4")
        assert_refused(mtvcraft("animate", "ref.png", "drive.mp4", "--preset", "7b", "-q", cwd=there), 6, "7b")
    assert_refused(mtvcraft("animate", "ref.png", "drive.mp4", "--preset", "toy", "-q", cwd=there), 4, "empty")


def test_no_pose_backend_says_what_to_install(there: Path) -> None:
    hidden = there / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'mediapipe':\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    result = mtvcraft("pose", ASSETS / "drive.mp4", "-q", cwd=there, env={"PYTHONPATH": str(hidden)})
    assert_refused(result, 6, 'pip install "mtvcraft[mediapipe]"')


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk(there: Path) -> None:
    small = there / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine doesn't let us mount a small disk")
    try:
        result = mtvcraft("animate", "ref.png", "drive.npy", "--preset", "toy", "-q", "-o", "small/out.mp4", cwd=there)
        assert_refused(result, 5, "free")
        result = mtvcraft("pose", ASSETS / "drive.mp4", "--overlay", "small/over.mp4", "-q", cwd=there)
        assert_refused(result, 5, "space")
        assert list(small.iterdir()) == []
        with pytest.raises(SafetensorError) as full:
            save_file({"window": torch.zeros(2**16)}, small / "kept.safetensors")
        assert explained(full.value).exit is Exit.FIT
        words = ("animate", "ref.png", "drive.npy", "--preset", "toy", "-q", "-o", "out.mp4")
        (small / "kept.safetensors").write_bytes(bytes(2**16 - 2**13))  # the cache's disk: little is left
        assert_refused(mtvcraft(*words, cwd=there, env={"MTVCRAFT_CACHE": str(small)}), 5, "disk is full")
        assert not (there / "out.mp4").exists()
    finally:
        subprocess.run(["umount", small], check=True)


def test_weights_larger_than_the_memory(there: Path) -> None:
    weights = there / "weights"
    for name in ("4DMoT/mp_rank_00_model_states.pt", "MV-DiT/CogVideoX/model.safetensors", "vae/model.safetensors"):
        path = weights / name
        path.parent.mkdir(parents=True)
        path.touch()
    with (weights / "MV-DiT/CogVideoX/model.safetensors").open("wb") as file:
        file.truncate(10**13)  # sparse: takes no room
    code = (
        "import sys, mtvcraft_cli.cache as cache\n"
        "cache.sha256_of = lambda path: 'sparse'\n"
        "from mtvcraft_cli.cli import main\n"
        "main()\n"
    )
    words = ["animate", "ref.png", "drive.npy", "--preset", "7b", "--weights", "weights", "--device", "cpu", "-q"]
    result = subprocess.run([sys.executable, "-c", code, *words], cwd=there, capture_output=True, text=True, timeout=60)
    assert_refused(result, 5, "RAM", "mini")


@pytest.mark.parametrize(
    "words",
    [
        ("animate", "ref.png", "drive.mp4", "-o", "drive.mp4", "--force"),
        ("animate", "ref.png", "drive.mp4", "-o", "link.mp4", "--force"),
        ("pose", "drive.mp4", "--overlay", "drive.mp4", "--force"),
        ("pose", "drive.mp4", "--overlay", "same.mp4", "-o", "./same.mp4", "--force"),
        ("pose", "drive.mp4", "-o", "joints.txt"),
        ("animate", "ref.png", "drive.mp4", "-o", "out.gif"),
        ("tokenize", "drive.npy", "-o", "drive.npy", "--force"),
        ("animate", "ref.png", "drive.mp4", "-o", "out.mp4", "--weights", "nowhere"),
        ("pose", "drive.mp4", "--trust-file", "nowhere.pt"),
        ("pose", "drive.mp4", "--cache-dir", "ref.png"),
    ],
    ids=" ".join,
)
def test_no_output_covers_an_input_or_is_named_wrongly(there: Path, words: tuple[str, ...]) -> None:
    shortened(ASSETS / "drive.mp4", there / "drive.mp4", frames=9)
    (there / "link.mp4").symlink_to("drive.mp4")
    before = {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()}
    assert_refused(mtvcraft(*words, "-q", cwd=there), 2)
    assert {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()} == before


def test_a_neighbour_of_the_output_that_is_not_ours_is_kept(there: Path) -> None:
    (there / "out.mp4.json").write_text("{}")
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4", "-q"]
    assert_refused(mtvcraft(*words, cwd=there), 2, "out.mp4.json")


def test_tokens_need_the_word_to_decode_them(there: Path) -> None:
    mtvcraft("tokenize", "drive.npy", "--preset", "toy", cwd=there, check=0)
    assert_refused(mtvcraft("tokenize", "drive.tokens.npy", "--preset", "toy", "-q", cwd=there), 4, "--decode")
