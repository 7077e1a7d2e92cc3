"""The paper's ablations through the real pipeline, from a picture and joints to a video."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.jobs.animation import AnimateJob, prepare_animation
from mtvcraft_cli.jobs.files import TokenizeJob, prepare_tokenizing
from mtvcraft_cli.pipeline import run_animation, run_tokenizing
from mtvcraft_cli.preset import Preset, ablation_names, load_preset
from mtvcraft_cli.progress import silent
from mtvcraft_cli.runs.report import AnimationReport
from mtvcraft_cli.video.read import open_clip
from tests.cli.inputs import picture, swaying_joints

FRAMES = 9


def of_toy_size(name: str) -> Preset:
    """An ablation with one step a window."""
    preset = load_preset(name)
    return replace(preset, sampler=replace(preset.sampler, steps=1))


def animated(folder: Path, preset: Preset, joints_mm: np.ndarray, name: str = "out") -> np.ndarray:
    """The frames of a video, made of joints."""
    np.save(folder / f"{name}.npy", joints_mm)
    animate(folder, preset, folder / f"{name}.npy", name)
    return frames_of(folder / f"{name}.mp4")


def animate(folder: Path, preset: Preset, drive: Path, name: str) -> AnimationReport:
    if not (folder / "ref.png").is_file():
        picture(folder / "ref.png", (32, 32))
    job = AnimateJob(
        reference=folder / "ref.png", drive=drive, output=folder / f"{name}.mp4", preset=preset, crf=0, device="cpu"
    )
    return run_animation(prepare_animation(job, Cache(folder / "cache")), silent)


def frames_of(path: Path) -> np.ndarray:
    return np.concatenate(list(open_clip(path).batches()))


@pytest.mark.parametrize("name", ablation_names())
def test_every_ablation_goes_the_whole_way_from_joints_and_from_its_own_tokens(tmp_path: Path, name: str) -> None:
    preset = of_toy_size(name)
    whole = animated(tmp_path, preset, swaying_joints(FRAMES))
    assert whole.shape == (FRAMES, 32, 32, 3)
    assert whole.std() > 5
    job = TokenizeJob(
        drive=tmp_path / "out.npy", output=tmp_path / "drive.tokens.npy", decode=False, preset=preset, device="cpu"
    )
    run_tokenizing(prepare_tokenizing(job, Cache(tmp_path / "cache")), silent)
    tokens = np.load(tmp_path / "drive.tokens.npy", allow_pickle=False)
    floats = name == "ablations/no-quantize"
    assert (tokens.dtype, tokens.ndim) == ((np.float32, 4) if floats else (np.int32, 3))
    animate(tmp_path, preset, tmp_path / "drive.tokens.npy", "tokens")
    assert np.array_equal(frames_of(tmp_path / "tokens.mp4"), whole)


def arms_up(joints_mm: np.ndarray) -> np.ndarray:
    """The same changes of pose, from another first pose on."""
    other_mm = joints_mm.copy()
    other_mm[:, 18:, 1] -= 300
    return other_mm


def test_only_with_dynamic_positions_the_first_pose_itself_counts(tmp_path: Path) -> None:
    # Whole millimetres: differences are then the same bits from both first poses.
    joints_mm = np.round(swaying_joints(FRAMES))
    other_mm = arms_up(joints_mm)
    for name, same in (("ablations/default", True), ("ablations/dynamic-pe", False)):
        folder = tmp_path / Path(name).name
        folder.mkdir()
        preset = of_toy_size(name)
        first, second = animated(folder, preset, joints_mm), animated(folder, preset, other_mm, "other")
        assert np.array_equal(first, second) is same, name


def test_without_depth_it_is_all_one_how_far_the_driver_goes_away(tmp_path: Path) -> None:
    joints_mm = swaying_joints(FRAMES)
    away_mm = joints_mm.copy()
    away_mm[:, 18:, 2] += 40 * np.arange(FRAMES, dtype=np.float32)[:, None]
    for name, same in (("ablations/default", False), ("ablations/xy-quantization", True)):
        folder = tmp_path / Path(name).name
        folder.mkdir()
        preset = of_toy_size(name)
        first, second = animated(folder, preset, joints_mm), animated(folder, preset, away_mm, "other")
        assert np.array_equal(first, second) is same, name


def test_bare_tokens_give_dynamic_positions_by_what_they_decode_to(tmp_path: Path) -> None:
    preset = of_toy_size("ablations/dynamic-pe")
    tokens = np.arange(3 * 24, dtype=np.int32).reshape(1, 3, 24)
    np.save(tmp_path / "bare.tokens.npy", tokens)
    report = animate(tmp_path, preset, tmp_path / "bare.tokens.npy", "bare")
    assert any("taken from what they decode to" in remark for remark in report.remarks)
    assert len(frames_of(tmp_path / "bare.mp4")) == 9


def test_windows_kept_for_one_first_pose_are_not_taken_for_another(tmp_path: Path) -> None:
    preset = of_toy_size("ablations/dynamic-pe")
    joints_mm = np.round(swaying_joints(FRAMES))
    first = animated(tmp_path, preset, joints_mm)
    second = animated(tmp_path, preset, arms_up(joints_mm), "second")
    assert not np.array_equal(first, second)
    np.save(tmp_path / "again.npy", joints_mm)
    again = animate(tmp_path, preset, tmp_path / "again.npy", "again")
    assert again.kept_windows == 1, "that of the first run is still there"
    assert np.array_equal(frames_of(tmp_path / "again.mp4"), first)
