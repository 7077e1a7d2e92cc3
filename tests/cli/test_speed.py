"""`--speed`, `--compile` and `--attention`: what they do, what is said of them, and where they are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.jobs.speed import COSTS, THRESHOLDS, Speed, compiler, settled
from mtvcraft_cli.preset import load_preset
from tests.cli.inputs import picture, save_joints
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.test_animate import frames_of
from tests.cli.toy import toy_preset
from tests.cli.toy_wan import released_wan_weights, toy_wan_preset

WORDS = ("animate", "ref.png", "drive.npy")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    toy_preset(tmp_path)
    return tmp_path


@pytest.fixture
def large(tmp_path: Path) -> tuple[str, ...]:
    """The words that run the large model at toy size in enough steps for some to be alike."""
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    toy_wan_preset(tmp_path)
    released_wan_weights(tmp_path / "weights", seed=1)
    return (*WORDS, "--preset", "toy-wan", "--weights", "weights", "--steps", "20")


def package(folder: Path, name: str, module: str, number: str) -> None:
    """A package of that name and version, as the import system sees it."""
    (folder / module).mkdir()
    (folder / module / "__init__.py").write_text("")
    about = folder / f"{module}-{number}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")


def test_what_is_at_work_is_said_in_a_line_and_kept_in_the_sidecar(there: Path) -> None:
    result = mtvcraft(*WORDS, "--preset", "toy", "-o", "out.mp4", "--json", cwd=there, check=0)
    line = next(line for line in result.stderr.splitlines() if "active: " in line)
    for words in ("native attention", "fused projections", "keys and values kept", "guidance in 2 of 2 steps"):
        assert words in result.stderr.replace("\n", " "), line
    wanted = {"attention": "native", "compiled": False, "speed": "best", "steps": 2, "guided_steps": 2}
    wanted |= {"fused_projections": True, "kept_keys": True, "forwards": 2, "skipped_forwards": 0}
    sidecar = json.loads((there / "out.mp4.json").read_text())
    for active in (json.loads(result.stdout)["active"], sidecar["active"]):
        assert active == wanted | {"measured_cost": None}
    assert sidecar["settings"]["speed"] == {"level": "best", "compile": False, "attention": "native"}
    assert any(remark.startswith("active: ") for remark in sidecar["remarks"])
    mtvcraft(*WORDS, "--preset", "toy", "-o", "b.mp4", "--motion-guidance", "1", cwd=there, check=0)
    assert json.loads((there / "b.mp4.json").read_text())["active"]["guided_steps"] == 0


def test_fast_skips_and_says_what_it_costs_and_replay_does_so_again(large: tuple[str, ...], tmp_path: Path) -> None:
    mtvcraft(*large, "-o", "best.mp4", cwd=tmp_path, check=0)
    result = mtvcraft(*large, "--speed", "fast", "-o", "fast.mp4", "--json", cwd=tmp_path, check=0)
    told = json.loads(result.stdout)
    assert told["windows_from_earlier_runs"] == 0, "windows of the exact run were taken"
    assert told["active"]["skipped_forwards"] > 0
    assert told["active"]["measured_cost"] == COSTS["wan"]["fast"]
    assert "measured cost" in result.stderr
    best, fast = frames_of(tmp_path / "best.mp4"), frames_of(tmp_path / "fast.mp4")
    assert 0 < np.abs(best.astype(int) - fast).mean() < 20
    mtvcraft("replay", "fast.mp4.json", "-o", "again.mp4", "--cache-dir", "other", cwd=tmp_path, check=0)
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "fast.mp4").read_bytes()
    replayed = json.loads((tmp_path / "again.mp4.json").read_text())
    assert replayed["active"]["skipped_forwards"] == told["active"]["skipped_forwards"]


def test_jobs_of_a_batch_are_as_fast_as_each_of_them_says(large: tuple[str, ...], tmp_path: Path) -> None:
    rows = ["reference,drive,output,speed", *(f"ref.png,drive.npy,{name}.mp4,{name}" for name in ("fast", "best"))]
    (tmp_path / "jobs.csv").write_text("\n".join([*rows, "ref.png,drive.npy,last.mp4,fast\n"]))
    mtvcraft("batch", "jobs.csv", *large[3:], cwd=tmp_path, check=0)
    skipped = {
        name: json.loads((tmp_path / f"{name}.mp4.json").read_text())["active"]["skipped_forwards"]
        for name in ("fast", "best")
    }
    assert skipped["fast"] > 0
    assert skipped["best"] == 0
    assert (tmp_path / "last.mp4").read_bytes() == (tmp_path / "fast.mp4").read_bytes()
    mtvcraft(*large, "-o", "alone.mp4", "--cache-dir", "other", cwd=tmp_path, check=0)
    assert (tmp_path / "alone.mp4").read_bytes() == (tmp_path / "best.mp4").read_bytes()


def test_attention_that_is_not_installed_is_refused_with_a_way_out(there: Path) -> None:
    words = (*WORDS, "--preset", "toy", "-o", "out.mp4")
    for name, wanted in (("flash", "flash-attn"), ("sage", "sageattention")):
        assert_refused(mtvcraft(*words, "--attention", name, cwd=there), 2, name, wanted, "--attention auto")
    assert not (there / "out.mp4").exists()


def test_compiling_without_a_compiler_is_refused_with_a_way_out(there: Path) -> None:
    words = (*WORDS, "--preset", "toy", "-o", "out.mp4", "--compile")
    assert_refused(mtvcraft(*words, cwd=there, env={"CXX": "/nowhere/c++"}), 2, "C++ compiler", "CXX")


@pytest.mark.skipif(compiler() is None, reason="there is no C++ compiler here")
def test_compiled_blocks_give_the_same_video_within_a_shade(there: Path) -> None:
    words = (*WORDS, "--preset", "toy")
    mtvcraft(*words, "-o", "plain.mp4", "--frames-dir", "plain", cwd=there, check=0)
    told = mtvcraft(*words, "-o", "out.mp4", "--frames-dir", "out", "--compile", "--json", cwd=there, check=0)
    active = json.loads(told.stdout)["active"]
    assert active["compiled"] is True
    assert "compiled blocks" in told.stderr
    assert json.loads(told.stdout)["windows_from_earlier_runs"] == 0
    plain, compiled = (np.stack(pictures(there / name)) for name in ("plain", "out"))
    assert np.abs(plain.astype(int) - compiled).max() <= 1


def pictures(folder: Path) -> list[np.ndarray]:
    from PIL import Image

    return [np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_attention_is_what_is_installed_and_works_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    seven, mini = load_preset("7b"), load_preset("mini")
    assert settled(Speed(), seven, "cuda").attention == "native"
    package(tmp_path, "sageattention", "sageattention", "2.2.0")
    assert settled(Speed(), seven, "cuda").attention == "native", "it rounds to 8 bits, and the best was asked for"
    assert settled(Speed(level="fast"), seven, "cuda").attention == "sage"
    package(tmp_path, "flash-attn", "flash_attn", "2.7.4.post1")
    assert settled(Speed(), seven, "cuda:0").attention == "flash"
    assert settled(Speed(), seven, "cpu").attention == "native"
    assert settled(Speed(), mini, "cuda").attention == "native"
    for preset, device, words in ((seven, "cpu", "CUDA"), (mini, "cuda", "float32")):
        with pytest.raises(MtvcraftError, match=words) as caught:
            settled(Speed(attention="flash"), preset, device)
        assert caught.value.exit is Exit.USAGE


def test_a_package_that_is_too_old_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package(tmp_path, "flash-attn", "flash_attn", "2.5.9")
    assert settled(Speed(), load_preset("7b"), "cuda").attention == "native"
    with pytest.raises(MtvcraftError, match=r"2\.5\.9 is too old") as caught:
        settled(Speed(attention="flash"), load_preset("7b"), "cuda")
    assert "flash-attn>=2.6.3" in caught.value.hint


def test_each_level_that_skips_says_what_was_measured() -> None:
    for backbone, levels in THRESHOLDS.items():
        assert set(levels) == set(COSTS[backbone]) == {"balanced", "fast"}
        assert all(COSTS[backbone].values())
