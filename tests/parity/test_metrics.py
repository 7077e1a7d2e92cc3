"""Metrics, sizes, pieces and distances give the numbers that the published metric codes give, on every golden."""

import json
import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.eval.frechet import Moments, distance, frechet
from mtvcraft_cli.eval.geometry import float_bicubic, largest_square, squared
from mtvcraft_cli.eval.l1 import l1
from mtvcraft_cli.eval.pieces import disjoint, filled, sliding
from mtvcraft_cli.eval.psnr import mse, psnr, psnr_wrapped
from mtvcraft_cli.eval.ssim import WINDOWS, ssim
from tests.parity.golden import folder

FOLDER = folder() / "metrics"
if not FOLDER.is_dir() and not os.environ.get("MTVCRAFT_GOLDEN"):
    pytest.skip("no golden numbers of metrics here", allow_module_level=True)


@lru_cache
def listing(name: str = "pairs") -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@lru_cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


def cases(name: str, key: str = "cases") -> list[Any]:
    """Those of a golden; one that fails where the golden isn't there."""
    if not (FOLDER / f"{name}.json").is_file():
        return [{"name": "missing golden"}]
    found = listing(name)[key]
    return found if isinstance(found, list) else [{"name": each, **found[each]} for each in found]


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


def of(name: str, key: str = "cases") -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases(name, key), ids=lambda case: case["name"])


@of("pairs")
def test_every_frame_of_a_pair_has_the_golden_numbers(case: dict[str, Any]) -> None:
    result, truth = clips(case)
    ours = {"psnr": psnr(result, truth), "mse": mse(result, truth), "l1": l1(result, truth)}
    ours["psnr_uint8_wrap"] = psnr_wrapped(result, truth)
    ours |= {f"ssim_{name}": ssim(result, truth, name) for name in WINDOWS}
    for name, values in ours.items():
        golden = [frame[name] for frame in case["per_frame"]]
        assert np.abs(values - golden).max() <= listing()["tolerance"][name], name
        assert abs(values.mean() - case["mean"][name]) <= listing()["tolerance"][name], name


def test_the_golden_holds_every_metric_of_ours() -> None:
    assert {f"ssim_{name}" for name in WINDOWS} <= set(listing()["cases"][0]["per_frame"][0])


@of("frechet")
@pytest.mark.parametrize("parts", [1, 3])
def test_distances_of_features_are_the_golden_ones_however_they_come_in(case: dict[str, Any], parts: int) -> None:
    sides = []
    for side in ("a", "b"):
        features = arrays("frechet")[case[side]]
        sides.append(Moments(side))
        for part in np.array_split(features, min(parts, len(features))):
            sides[-1].add(part)
            assert np.isfinite(sides[-1].mean).all()  # which folds the part in at once
    for found in (distance(*sides), distance(*sides[::-1])):
        assert abs(found - case["expected"]) <= case["tolerance"]
        assert found == pytest.approx(case["expected"], rel=1e-10, abs=1e-10)


def refused(case: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    features = [np.ones(case.get(f"{side}_shape", (8, 16))) for side in ("a", "b")]
    if case["name"] == "nan":
        features[1][3, 2] = np.nan
    return features[0], features[1]


@of("frechet", "errors")
def test_features_without_a_distance_are_refused(case: dict[str, Any]) -> None:
    told = {"one_sample": "2 samples at least", "dim_mismatch": "16 features a sample", "nan": "NaN"}
    with pytest.raises((MtvcraftError, ValueError), match=told.get(case["name"], "")):
        frechet(*refused(case))


def test_pictures_in_front_of_the_networks_are_the_golden_ones() -> None:
    limit = listing("resize")["tolerance_float"]
    golden = {name: value for name, value in arrays("resize").items() if name.startswith("pil_bicubic_float")}
    assert golden
    for name, value in golden.items():
        found = float_bicubic(arrays("resize")["input_80x60"][None], len(value))[0]
        assert np.abs(found - value).max() <= limit, name
        assert found.min() < 0 or found.max() > 255 or (value.min() >= 0 and value.max() <= 255), name


@of("resize", "crops")
def test_the_largest_square_is_the_golden_one(case: dict[str, Any]) -> None:
    golden = arrays("resize")[case["name"]]
    height, width = case["input_height"], case["input_width"]
    kind = case["name"].removesuffix("_square64")
    top, left, side = largest_square(height, width)
    assert [top, left, side] == case["crop_top_left_size"]
    found = squared(arrays("resize")[f"{kind}_input_{height}x{width}"][None], len(golden))[0]
    assert np.abs(found.astype(int) - golden).max() <= listing("resize")["tolerance_uint8"]


@of("windows", "videos")
def test_pieces_begin_where_the_golden_ones_do(case: dict[str, Any]) -> None:
    numbers = np.asarray(case["frames"])
    for name, cut in (("sliding_16_1", sliding), ("disjoint_16", disjoint)):
        pieces = cut(case["frames"])
        assert numbers[pieces[:, 0]].tolist() == case[name]
        assert (np.diff(numbers[pieces], axis=1) == 1).all()
    whole = filled(len(numbers))
    assert len(whole) == case["padded_16_segments"]
    assert np.count_nonzero(whole == len(numbers) - 1) - 1 == case["padded_16_repeats_of_last_frame"]


def test_there_are_as_many_pieces_as_in_the_golden() -> None:
    videos = [video["frames"] for video in listing("windows")["videos"].values()]
    assert sum(len(sliding(numbers)) for numbers in videos) == listing("windows")["totals"]["sliding_16_1"]
    assert sum(len(disjoint(numbers)) for numbers in videos) == listing("windows")["totals"]["disjoint_16"]
