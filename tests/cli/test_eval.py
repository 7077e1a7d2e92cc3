"""`mtvcraft eval` as a user runs it."""

import json

from tests.cli.run import assert_refused, mtvcraft
from tests.cli.toy import toy_preset

FIGURES = {
    *("psnr", "ssim", "iou", "psnr_still", "psnr_other_motion", "iou_other_motion", "psnr_no_motion", "iou_no_motion")
}


def test_the_small_bench_measures_a_preset_of_ones_own_offline(tmp_path):
    preset = toy_preset(tmp_path, trained_on="cpu")
    words = ("eval", "--bench", "mini", "--preset", preset, "--clips", 2, "--frames", 9, "--json", "--offline", "-q")
    first = mtvcraft(*words, cwd=tmp_path, check=0)
    report = json.loads(first.stdout)
    assert set(report["totals"]) == FIGURES
    assert set(report["splits"]) == {"human", "non-human", "mismatched"}
    assert all(set(values) == FIGURES for values in report["splits"].values())
    assert report["trained_on"] == "cpu"
    assert len(report["clips"]) == 6
    assert mtvcraft(*words, cwd=tmp_path, check=0).stdout == first.stdout


def test_the_small_bench_refuses_a_model_that_it_is_not_for(tmp_path):
    result = mtvcraft("eval", "--bench", "mini", "--preset", "17b", cwd=tmp_path)
    assert_refused(result, 2, "17b", "bench mini")
