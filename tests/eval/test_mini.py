"""The bench of the small model, with models whose score is known."""

import json
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.eval.mini import METRICS, SPLITS, MiniReport, run_mini_bench
from mtvcraft_cli.train.world.scenes import Scene, scene

SIZE_PX, FRAMES, CLIPS = (64, 64), 7, 2
RUN = {"clips_per_split": CLIPS, "size_px": SIZE_PX, "lengths": [FRAMES], "trained_on": "cpu"}


def still(reference, joints_mm, rate, frames):
    return np.repeat(reference[None], frames, 0)


@pytest.fixture(scope="module")
def truths() -> dict[bytes, Scene]:
    made = [scene(seed, split, SIZE_PX, FRAMES) for split in SPLITS for seed in range(CLIPS)]
    return {each.reference.tobytes(): each for each in made}


@pytest.fixture
def perfect(truths):
    def animate(reference, joints_mm, rate, frames):
        own = truths[reference.tobytes()]
        assert isinstance(rate, Fraction)
        assert frames == FRAMES
        led = joints_mm is not None and np.array_equal(joints_mm, own.joints_mm)
        return own.frames if led else still(reference, joints_mm, rate, frames)

    return animate


def test_the_truth_has_the_best_score_and_another_motion_that_of_the_still_picture(perfect):
    report = run_mini_bench(perfect, **RUN)
    for values in (report.totals, *report.splits.values()):
        assert values["psnr"] == 100
        assert values["ssim"] == pytest.approx(1)
        assert values["iou"] > 0.85
        assert values["psnr_other_motion"] == values["psnr_no_motion"] == values["psnr_still"] < 40
        assert values["iou_other_motion"] == values["iou_no_motion"] < values["iou"] - 0.1
    assert all(clip.equal_frames == FRAMES - 1 for clip in report.clips)


@pytest.fixture(scope="module")
def unmoved() -> MiniReport:
    return run_mini_bench(still, **RUN)


def test_the_still_picture_scores_as_the_still_picture(unmoved):
    totals = unmoved.totals
    assert totals["psnr"] == totals["psnr_still"] == totals["psnr_other_motion"]
    assert totals["iou"] == totals["iou_no_motion"]


def test_a_result_of_another_size_and_length_is_brought_to_the_truth(perfect, truths):
    def larger(reference, joints_mm, rate, frames):
        made = perfect(reference, joints_mm, rate, frames)[: FRAMES - 2]
        return np.stack([np.asarray(Image.fromarray(frame).resize((128, 128), 0)) for frame in made])

    report = run_mini_bench(larger, **RUN)
    assert 25 < report.totals["psnr"] < 100
    assert {clip.frames for clip in report.clips} == {FRAMES - 3}


def test_a_result_without_a_frame_to_measure_is_refused():
    with pytest.raises(ValueError, match="1 frames came back"):
        run_mini_bench(lambda reference, joints_mm, rate, frames: reference[None], **RUN)


@pytest.mark.parametrize("change", [{"clips_per_split": 1}, {"lengths": [FRAMES, 1]}])
def test_a_bench_without_another_motion_or_a_second_frame_is_refused(change):
    with pytest.raises(ValueError, match="at least 2 of 2"):
        run_mini_bench(still, **{**RUN, **change})


def test_the_json_has_the_shape_users_read_and_is_the_same_again(unmoved):
    first, again = unmoved.as_json(), run_mini_bench(still, **RUN).as_json()
    assert json.dumps(first) == json.dumps(again)
    assert first["bench"] == "mini"
    assert first["trained_on"] == "cpu"
    assert set(first["totals"]) == set(METRICS)
    assert set(first["splits"]) == {"human", "non-human", "mismatched"}
    assert all(set(values) == set(METRICS) for values in first["splits"].values())
    assert len(first["clips"]) == 3 * CLIPS
    assert first["totals"]["psnr"] == pytest.approx(np.mean([clip["psnr"] for clip in first["clips"]]))
