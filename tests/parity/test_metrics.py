"""PSNR and SSIM give the numbers that the published metric codes give, on every pair of the golden."""

import json
import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from mtvcraft_cli.eval.psnr import mse, psnr
from mtvcraft_cli.eval.ssim import WINDOWS, ssim
from tests.parity.golden import folder

FOLDER = folder() / "metrics"
if not FOLDER.is_dir() and not os.environ.get("MTVCRAFT_GOLDEN"):
    pytest.skip("no golden numbers of metrics here", allow_module_level=True)


@lru_cache
def listing() -> dict[str, Any]:
    return json.loads((FOLDER / "pairs.json").read_text(encoding="utf-8"))


def pairs() -> list[Any]:
    return listing()["cases"] if (FOLDER / "pairs.json").is_file() else [{"name": "missing golden"}]


def clips(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FOLDER / case["file"], allow_pickle=False) as file:
        result, truth = file["pred"], file["gt"]
    return stretched(result, truth.shape[1:3]), truth


def stretched(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """OpenCV's bilinear `resize` with its 11-bit weights, which one golden was made with and no protocol uses."""
    if frames.shape[1:3] == size:
        return frames
    above, below, down = places(size[0], frames.shape[1])
    left, right, across = places(size[1], frames.shape[2])
    across = across[:, None]
    rows = frames.astype(np.int64)
    rows = rows[:, :, left] * (2048 - across) + rows[:, :, right] * across >> 4
    down = down[:, None, None]
    return ((rows[:, above] * (2048 - down) >> 16) + (rows[:, below] * down >> 16) + 2 >> 2).astype(np.uint8)


def places(length: int, of: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place = np.clip((np.arange(length) + 0.5) * of / length - 0.5, 0, of - 1)
    low = np.minimum(place.astype(int), of - 2)
    return low, low + 1, np.rint(2048 * (place - low)).astype(int)


@pytest.mark.parametrize("case", pairs(), ids=lambda case: case["name"])
def test_every_frame_of_a_pair_has_the_golden_numbers(case: dict[str, Any]) -> None:
    result, truth = clips(case)
    ours = {"psnr": psnr(result, truth), "mse": mse(result, truth)}
    ours |= {f"ssim_{name}": ssim(result, truth, name) for name in WINDOWS}
    for name, values in ours.items():
        golden = [frame[name] for frame in case["per_frame"]]
        assert np.abs(values - golden).max() <= listing()["tolerance"][name], name
        assert abs(values.mean() - case["mean"][name]) <= listing()["tolerance"][name], name


def test_the_golden_holds_every_metric_of_ours() -> None:
    assert {f"ssim_{name}" for name in WINDOWS} <= set(listing()["cases"][0]["per_frame"][0])
