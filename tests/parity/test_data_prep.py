"""Cropping, sizes, windows, camera and joints are prepared as in the reference: each row of the golden's tables."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtvcraft_cli.joints.skeleton import focal_px, project
from mtvcraft_cli.latents.wanvideo.sizes import BUCKETS_PX, nearest_bucket
from mtvcraft_cli.preset import Statistics
from mtvcraft_cli.tokens.normalise import normalise
from mtvcraft_cli.video.picture import fit_picture
from mtvcraft_cli.windows import plan_windows
from tests.parity.golden import Golden, assert_close, cases, golden

NAME = "data_prep"
RELATIVE = 1e-5
CROP = re.compile(r"center_crop(_\d+x\d+)?")


def rows(table: str) -> list[Any]:
    """The rows of a table as words, which pytest can name."""
    return cases(NAME, lambda found: (json.dumps(row) for row in found.config[table]["rows"]))


def crops(found: Golden) -> list[str]:
    return [
        json.dumps([table["target_w"], table["target_h"], row])
        for name, table in found.config.items()
        if CROP.fullmatch(name)
        for row in table["rows"]
    ]


@pytest.mark.parametrize("case", cases(NAME, crops))
def test_pictures_are_scaled_and_cropped_as_in_the_reference(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    width, height, (old_height, old_width, new_height, new_width, left, top) = json.loads(case)
    scaled: list[tuple[int, int]] = [(old_width, old_height)]
    boxes: list[tuple[int, int, int, int]] = []
    resize, crop = Image.Image.resize, Image.Image.crop

    def nearest(image: Image.Image, size: tuple[int, int], _filter: object) -> Image.Image:
        scaled.append(size)
        return resize(image, size, Image.Resampling.NEAREST)

    monkeypatch.setattr(Image.Image, "resize", nearest)
    monkeypatch.setattr(Image.Image, "crop", lambda image, box: (boxes.append(box), crop(image, box))[1])
    fitted = fit_picture(np.zeros((old_height, old_width, 3), np.uint8), (width, height))
    assert fitted.shape == (height, width, 3)
    assert scaled[-1] == (new_width, new_height)
    assert boxes == [(left, top, left + width, top + height)]


@pytest.mark.parametrize("case", rows("nearest_bucket"))
def test_the_nearest_size_is_that_of_the_reference(case: str) -> None:
    height, width, bucket_height, bucket_width = json.loads(case)
    assert nearest_bucket((width, height)) == (bucket_width, bucket_height)


def test_the_sizes_to_choose_from_are_those_of_the_reference() -> None:
    table = golden(NAME).config["aspect_ratio_buckets"]["rows"]
    assert [(width, height) for _, height, width in table] == list(BUCKETS_PX)
    assert [float(f"{height / width:.2f}") for width, height in BUCKETS_PX] == [ratio for ratio, *_ in table]


@pytest.mark.parametrize("case", rows("long_video_clips"))
def test_a_long_motion_is_cut_into_the_clips_of_the_reference(case: str) -> None:
    row, table = json.loads(case), golden(NAME).config["long_video_clips"]
    windows = plan_windows(row["min_video_frames"], table["clip_length"], table["overlap"])
    assert [[window.start, window.start + window.frames - 1] for window in windows] == row["ranges"]
    kept = [window.frames - table["overlap"] for window in windows[:-1]] + [windows[-1].frames - windows[-1].held]
    assert sum(kept) == row["output_frames"]


@pytest.mark.parametrize("case", rows("intrinsics"))
def test_the_camera_is_that_of_the_reference(case: str) -> None:
    height, width, focal, centre_x, centre_y = json.loads(case)
    fov_deg = float(golden(NAME).config["intrinsics"]["fov_degrees"])
    assert focal_px((width, height), fov_deg) == pytest.approx(focal, rel=RELATIVE)
    ahead = project(np.array([0, 0, 1000.0]), (width, height), fov_deg)
    assert ahead.tolist() == [centre_x, centre_y]


@pytest.mark.parametrize("name", cases(NAME, lambda found: (case["tensor"] for case in found.config["projection"])))
def test_joints_are_seen_where_the_reference_sees_them(name: str) -> None:
    case = next(found for found in golden(NAME).config["projection"] if found["tensor"] == name)
    joints_mm = golden(NAME).inputs[f"{name}.joints3d"].numpy()
    expected = golden(NAME).outputs[f"{name}.projected"].numpy()
    seen = project(joints_mm, (case["w"], case["h"]), float(golden(NAME).config["intrinsics"]["fov_degrees"]))
    np.testing.assert_allclose(seen, expected[:, :2], rtol=RELATIVE, atol=RELATIVE * max(case["w"], case["h"]))
    assert np.array_equal(joints_mm[:, 2], expected[:, 2])
    assert np.trunc(seen).astype(int).tolist() == case["points_int"]


def test_joints_are_normalised_as_in_the_reference() -> None:
    inputs = golden(NAME).inputs
    stats = Statistics(mean_mm=inputs["joint_mean"].numpy(), std_mm=inputs["joint_std"].numpy())
    expected = golden(NAME).outputs["norm.normalised"]
    found = normalise(inputs["norm.joints"], stats)
    assert found.dtype == getattr(torch, golden(NAME).config["normalise"]["dtype"])
    assert_close(found, expected, RELATIVE * float(expected.abs().max()), "normalised joints")
