"""Scoring of folders: what must hold whatever the networks are."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.eval.bench import BENCHES, load_bench
from mtvcraft_cli.eval.protocols import PROTOCOLS, TABLE
from mtvcraft_cli.eval.report import table_of, write_csv
from mtvcraft_cli.eval.run import EvalReport, run_evaluation
from mtvcraft_cli.jobs import evaluation
from mtvcraft_cli.jobs.evaluation import EvalJob, System, prepare_eval
from mtvcraft_cli.progress import silent
from mtvcraft_cli.video.read import open_clip
from tests.eval.clips import SIZE_PX, SmallLooks, clip, save_frames, worse

ASSETS = Path(__file__).parents[2] / "assets"
LENGTHS = {"one": 16, "two": 33, "three": 20}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for number, (name, frames) in enumerate(LENGTHS.items()):
        truth = clip(number, frames)
        save_frames(root / "truth" / name, truth)
        save_frames(root / "made" / name, worse(truth, number))
    return root


@pytest.fixture(autouse=True)
def _no_files(monkeypatch):
    """As if all networks were there; `SmallLooks` stands in for them."""
    monkeypatch.setattr(evaluation, "metric_files", lambda metrics, folder=None, supply=None: {})


def score(root: Path, cache: Path, looks: SmallLooks | None = None, **changes) -> EvalReport:
    job = {
        "truth": root / "truth",
        "systems": [System("ours", root / "made")],
        "protocol": PROTOCOLS["mtvcraft"],
        "device": "cpu",
        **changes,
    }
    return run_evaluation(prepare_eval(EvalJob(**job), Cache(cache)), silent, looks or SmallLooks())


def values(report: EvalReport, place: int = 0) -> dict[str, float | None]:
    return report.systems[place].totals.values


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_ground_truth_against_itself_is_perfect(folders, tmp_path, protocol):
    systems = [System("ground-truth", baseline="ground-truth"), System("copy", folders / "truth")]
    report = score(folders, tmp_path, systems=systems, protocol=PROTOCOLS[protocol])
    for place in range(2):
        got = values(report, place)
        assert got["psnr"] == 100
        assert got["ssim"] == pytest.approx(1, abs=1e-12)
        assert got["lpips"] == 0
        distances = ["fid", "fvd"] if protocol == "humanvid" else ["fid", "fvd", "fid_vid"]
        assert all(got[name] < 1e-6 for name in distances)
        samples = report.systems[place].totals.samples
        assert samples["frames_equal_to_the_truth"] == samples["frames"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_worse_result_is_worse_in_every_number(folders, tmp_path, protocol):
    systems = [System("ours", folders / "made"), System("still", baseline="still"), System("late", baseline="shift1")]
    report = score(folders, tmp_path, systems=systems, protocol=PROTOCOLS[protocol])
    for place in range(3):
        got = values(report, place)
        assert got["psnr"] < 40
        assert got["ssim"] < 0.99
        assert all(got[name] > 1e-4 for name in ("lpips", "fid", "fvd"))
    assert values(report, 1)["psnr"] < values(report, 2)["psnr"]  # one frame late is nearer than standing still


def test_averages_count_clips_or_frames_alike_as_the_protocol_says(folders, tmp_path):
    by_clip = {}
    for protocol in ("mtvcraft", "disco"):
        report = score(folders, tmp_path, protocol=PROTOCOLS[protocol], metrics=["psnr"])
        by_clip[protocol] = [(one["frames"], one["values"]["psnr"]) for one in report.systems[0].totals.clips]
        weights = [frames if protocol == "disco" else 1 for frames, _ in by_clip[protocol]]
        expected = np.average([value for _, value in by_clip[protocol]], weights=weights)
        assert values(report)["psnr"] == pytest.approx(expected, rel=1e-12)


def test_the_rows_behind_each_distance_are_those_of_the_protocol(folders, tmp_path):
    samples = score(folders, tmp_path).systems[0].totals.samples
    assert samples["frames"] == 69
    assert samples["pieces"] == 1 + 2 + 1
    assert samples["fid"] == {"truth": 69, "made": 69}
    assert samples["fvd"] == {"truth": 4, "made": 4}
    assert samples["fid_vid"] == samples["fid_vid_i3d"] == {"truth": 3, "made": 3}
    disco = score(folders, tmp_path, protocol=PROTOCOLS["disco"]).systems[0].totals.samples
    assert disco["fvd"] == disco["fid_vid"] == {"truth": 1 + 18 + 5, "made": 1 + 18 + 5}
    humanvid = score(folders, tmp_path, protocol=PROTOCOLS["humanvid"]).systems[0].totals.samples
    assert humanvid["frames"] == 16 + 24 + 20
    assert humanvid["fvd"] == {"values": 7 + 15 + 11}


def test_workers_times_and_order_change_nothing(folders, tmp_path):
    one = score(folders, tmp_path / "one").as_json()
    again = score(folders, tmp_path / "two", jobs=3).as_json()
    assert plain(one) == plain(again)
    turned = tmp_path / "turned"
    for side in ("truth", "made"):
        for name in reversed(LENGTHS):
            shutil.copytree(folders / side / name, turned / side / name)
            for file in sorted((turned / side / name).iterdir(), reverse=True):
                file.touch()
    other = score(turned, tmp_path / "three")
    assert values(other) == pytest.approx(one["systems"][0]["totals"], rel=1e-5)


def plain(told: dict) -> str:
    return json.dumps({key: value for key, value in told.items() if key != "times"}, sort_keys=True)


def test_a_second_run_asks_no_network_and_says_the_same(folders, tmp_path):
    first, again = SmallLooks(), SmallLooks()
    told = score(folders, tmp_path, first).as_json()
    assert plain(score(folders, tmp_path, again).as_json()) == plain(told)
    assert first.calls > 0
    assert again.calls == 0


def test_a_stopped_run_goes_on_and_the_truth_is_looked_at_once_for_all_systems(folders, tmp_path):
    class Stopped(SmallLooks):
        def inception(self, frames):
            if self.calls > 12:
                raise KeyboardInterrupt
            return super().inception(frames)

    few = {"metrics": ["psnr", "lpips", "fid"]}
    whole = SmallLooks()
    score(folders, tmp_path / "whole", whole, **few)
    stopped, rest = Stopped(), SmallLooks()
    with pytest.raises(KeyboardInterrupt):
        score(folders, tmp_path / "part", stopped, **few)
    score(folders, tmp_path / "part", rest, **few)
    assert 0 < rest.calls < whole.calls
    both = SmallLooks()
    systems = [System("ours", folders / "made"), System("still", baseline="still")]
    score(folders, tmp_path / "part", both, systems=systems, **few)
    assert both.calls < whole.calls


def test_a_changed_frame_is_measured_anew(folders, tmp_path):
    root = tmp_path / "changed"
    shutil.copytree(folders, root)
    before = score(root, tmp_path / "cache", metrics=["psnr", "fid"]).as_json()
    save_frames(root / "made" / "one", clip(9, 1))
    after = score(root, tmp_path / "cache", metrics=["psnr", "fid"]).as_json()
    for metric in ("psnr", "fid"):
        assert before["systems"][0]["totals"][metric] != after["systems"][0]["totals"][metric]
    assert before["systems"][0]["clips"][0]["made"]["sha256"] != after["systems"][0]["clips"][0]["made"]["sha256"]


def test_an_id_on_one_side_is_an_error_that_names_both_lists(folders, tmp_path):
    root = tmp_path / "ids"
    shutil.copytree(folders, root)
    (root / "made" / "three").rename(root / "made" / "drei")
    with pytest.raises(MtvcraftError, match=r"only in the ground truth: `three`; only in `ours`: `drei`") as refused:
        score(root, tmp_path / "cache")
    assert refused.value.exit is Exit.INPUT
    report = score(root, tmp_path / "cache", allow_missing=True)
    assert [one["id"] for one in report.systems[0].totals.clips] == ["one", "two"]
    assert any("drei" in line for line in report.warnings)


def test_nothing_that_pairs_is_an_error(folders, tmp_path):
    save_frames(tmp_path / "made" / "other", clip(0, 3))
    with pytest.raises(MtvcraftError, match="pairs with the ground truth") as refused:
        score(folders, tmp_path / "cache", systems=[System("ours", tmp_path / "made")], allow_missing=True)
    assert refused.value.exit is Exit.INPUT


def test_lengths_a_little_apart_are_compared_as_far_as_both_go_and_more_fails_the_clip(folders, tmp_path):
    root = tmp_path / "lengths"
    shutil.copytree(folders, root)
    (root / "made" / "two" / "0033.png").unlink()
    report = score(root, tmp_path / "cache", metrics=["psnr"])
    assert [one["frames"] for one in report.systems[0].totals.clips] == [16, 20, 32]
    assert not report.warnings
    for number in (32, 31):
        (root / "made" / "two" / f"00{number}.png").unlink()
    report = score(root, tmp_path / "cache", metrics=["psnr"])
    assert any("33 frames against 30" in line for line in report.warnings)
    for number in range(27, 31):
        (root / "made" / "two" / f"00{number}.png").unlink()
    report = score(root, tmp_path / "cache", metrics=["psnr"])
    assert "two" in report.systems[0].failed
    assert report.partly
    report = score(root, tmp_path / "cache", metrics=["psnr"], allow_length_mismatch=True)
    assert not report.partly


@pytest.mark.parametrize("frames", [1, 15])
def test_a_short_clip_has_its_frames_measured_and_no_part_in_fvd(folders, tmp_path, frames):
    root = tmp_path / "short"
    shutil.copytree(folders, root)
    truth = clip(5, frames)
    save_frames(root / "truth" / "short", truth)
    save_frames(root / "made" / "short", worse(truth))
    report = score(root, tmp_path / "cache", metrics=["psnr", "fvd"])
    told = next(one for one in report.systems[0].totals.clips if one["id"] == "short")
    assert told["frames"] == frames
    assert told["pieces"] == 0
    assert told["fvd_mean_term"] is None
    assert report.systems[0].totals.samples["clips_without_a_piece"] == ["short"]
    assert report.systems[0].totals.samples["fvd"] == {"truth": 4, "made": 4}
    assert any("short" in line for line in report.warnings)


def test_one_clip_alone_has_no_covariance_and_the_report_says_so(folders, tmp_path):
    save_frames(tmp_path / "truth" / "one", clip(0, 16))
    save_frames(tmp_path / "made" / "one", worse(clip(0, 16)))
    report = score(tmp_path, tmp_path / "cache")
    assert values(report)["psnr"] > 10
    assert values(report)["fvd"] is values(report)["fid_vid"] is None
    assert values(report)["fid"] > 0
    assert any("FVD has no value" in line and "one" in line for line in report.warnings)


def test_a_missing_number_breaks_windows_and_nothing_else(folders, tmp_path):
    root = tmp_path / "gap"
    for side in ("truth", "made"):
        for name in ("two", "three"):
            shutil.copytree(folders / side / name, root / side / name)
        (root / side / "two" / "0020.png").unlink()
    report = score(root, tmp_path / "cache", protocol=PROTOCOLS["disco"], metrics=["psnr", "fvd"])
    samples = report.systems[0].totals.samples
    assert samples["frames"] == 32 + 20
    assert samples["fvd"] == {"truth": 4 + 5, "made": 4 + 5}  # frames 1 to 19 have four windows, 21 to 33 none


def odd_frames(folder: Path, truth: np.ndarray, kind: str) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(truth):
        image = Image.fromarray(frame)
        if kind == "grey":
            image = image.convert("L")
        elif kind == "16 bits":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        elif kind == "alpha":
            image = image.convert("RGBA")
        image.save(folder / f"frame_{number}.png")


@pytest.mark.parametrize("kind", ["grey", "16 bits", "alpha"])
def test_pictures_of_any_depth_are_seen_as_they_look(tmp_path, kind):
    truth = clip(3, 3)
    if kind != "alpha":
        truth = np.repeat(np.asarray([Image.fromarray(frame).convert("L") for frame in truth])[..., None], 3, -1)
    save_frames(tmp_path / "truth" / "one", truth)
    odd_frames(tmp_path / "made" / "one", truth, kind)
    assert values(score(tmp_path, tmp_path / "cache", metrics=["psnr"]))["psnr"] == 100


def test_a_broken_frame_fails_its_clip_by_name_and_the_rest_is_scored(folders, tmp_path):
    root = tmp_path / "broken"
    shutil.copytree(folders, root)
    (root / "made" / "two" / "0007.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    report = score(root, tmp_path / "cache", metrics=["psnr"])
    assert "0007.png" in report.systems[0].failed["two"]
    assert [one["id"] for one in report.systems[0].totals.clips] == ["one", "three"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "0003.png").rename(folder / "last.png"), "last.png"),
        (lambda folder: shutil.copy(folder / "0003.png", folder / "b0003.png"), "b0003.png"),
        (lambda folder: Image.fromarray(clip(0, 1, (20, 30))[0]).save(folder / "0003.png"), "0003.png"),
    ],
)
def test_frames_that_fit_no_clip_are_named(folders, tmp_path, spoil, words):
    root = tmp_path / "odd"
    shutil.copytree(folders, root)
    spoil(root / "made" / "two")
    assert words in score(root, tmp_path / "cache", metrics=["psnr"]).systems[0].failed["two"]


def test_results_of_another_size_are_brought_to_the_truths_and_another_aspect_is_said(folders, tmp_path):
    for name in LENGTHS:
        frames = [
            np.asarray(Image.open(file).resize((16, 20), Image.Resampling.BOX))
            for file in sorted((folders / "made" / name).iterdir())
        ]
        save_frames(tmp_path / "half" / name, np.stack(frames))
        squares = [np.asarray(Image.fromarray(frame).resize((24, 24))) for frame in frames]
        save_frames(tmp_path / "square" / name, np.stack(squares))
    report = score(folders, tmp_path / "cache", systems=[System("half", tmp_path / "half")], metrics=["psnr"])
    assert not report.warnings
    assert report.systems[0].totals.clips[0]["width"] == SIZE_PX[0]
    square = [System("square", tmp_path / "square")]
    report = score(folders, tmp_path / "cache", systems=square, metrics=["psnr"])
    assert any("aspect changes" in line for line in report.warnings)
    report = score(folders, tmp_path / "cache", systems=square, metrics=["psnr"], fit="crop")
    assert not report.warnings
    assert (report.systems[0].totals.clips[0]["width"], report.systems[0].totals.clips[0]["height"]) == (32, 32)
    report = score(folders, tmp_path / "cache", systems=square, metrics=["psnr"], protocol=PROTOCOLS["disco"])
    assert not report.warnings


def test_what_our_own_run_cropped_is_cropped_off_the_truth(folders, tmp_path):
    made = tmp_path / "made"
    for name in LENGTHS:
        frames = np.stack([np.asarray(Image.open(file)) for file in sorted((folders / "truth" / name).iterdir())])
        save_frames(made / name, frames[:, 4:36])
        (made / f"{name}.mp4.json").write_text(json.dumps({"crop_px": [0, 4, 32, 36]}))
    report = score(folders, tmp_path / "cache", systems=[System("ours", made)], metrics=["psnr"])
    assert values(report)["psnr"] == 100
    assert report.systems[0].totals.clips[0]["truth"]["crop_px"] == [0, 4, 32, 36]


def test_frames_too_small_for_a_window_are_refused_by_name(tmp_path):
    for side in ("truth", "made"):
        save_frames(tmp_path / side / "small", clip(0, 2, (10, 60)))
        save_frames(tmp_path / side / "large", clip(0, 2, (40, 60)))
    report = score(tmp_path, tmp_path / "cache", metrics=["psnr", "ssim"])
    assert "small" in report.systems[0].failed["small"]
    assert "11 pixels" in report.systems[0].failed["small"]
    assert values(report)["ssim"] == 1


def test_the_floor_is_the_truth_against_itself_by_halves(folders, tmp_path):
    for number, name in enumerate(("a", "b")):
        save_frames(tmp_path / "truth" / name, clip(number, 35))
    systems = [System("still", baseline="still")]
    report = score(tmp_path, tmp_path / "cache", systems=systems, floor=True, metrics=["fid", "fvd"])
    assert report.floor is not None
    assert report.floor.samples["fid"] == {"truth": 38, "made": 32}
    assert report.floor.samples["fvd"] == {"truth": 2, "made": 2}
    assert report.floor.values["fvd"] > 0
    assert report.floor.values["fid"] > 0
    assert table_of(report).rows[-1].model == "floor"


def test_the_table_marks_the_best_measured_value_and_never_a_published_one(folders, tmp_path):
    bench = dataclasses.replace(load_bench("tiktok"), clips=list(LENGTHS), count=3)
    systems = [System("ours", folders / "made"), System("copy", folders / "truth"), System("still", baseline="still")]
    report = score(folders, tmp_path, systems=systems, bench=bench)
    table = table_of(report)
    assert table.title == "TikTok, protocol mtvcraft, 3 of 3 clips, 69 frames, 4 pieces"
    kinds = [row.kind for row in table.rows]
    assert kinds == ["published"] * 5 + ["measured"] * 3
    assert [row.model for row in table.rows if row.best] == ["copy"]
    assert table.rows[0].cells == ["19.30", "0.751", "0.220", "34.88", "472.51", "9.30"]
    assert table.rows[0].mark == "a"
    assert table.rows[1].cells[-1] == "-"
    assert any(note.startswith("a copied by the paper") for note in table.notes)
    assert table.columns[:4] == ["model", "PSNR ↑", "SSIM ↑", "LPIPS ↓"]
    told = report.as_json()
    assert told["published"]["rows"][0]["fvd"] == 472.51
    assert len(dataclasses.replace(report).published) == 5


def test_the_csv_has_a_row_per_clip_and_no_distance_of_a_single_one(folders, tmp_path):
    write_csv(tmp_path / "out.csv", score(folders, tmp_path / "cache"))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    head = "id,frames,width,height,psnr,psnr_uint8_wrap,ssim,lpips,l1,pieces,fvd_mean_term,model"
    assert lines[0] == head
    assert [line.split(",")[0] for line in lines[1:]] == ["one", "three", "two"]
    assert all(len(line.split(",")) == 12 and ",," not in line for line in lines[1:])


def test_alternatives_stand_in_the_json_under_their_own_names(folders, tmp_path):
    got = values(score(folders, tmp_path))
    assert {"lpips_vgg_scaled", "lpips_alex", "ssim_rgb7", "fid_vid_i3d", "psnr_uint8_wrap", "l1"} <= set(got)
    assert got["lpips_vgg_scaled"] == pytest.approx(1.03 * got["lpips"])
    assert got["ssim"] != got["ssim_rgb7"]


@pytest.mark.parametrize("name", BENCHES)
def test_every_bench_that_comes_with_us_is_whole(name):
    bench = load_bench(name)
    assert bench.count == (len(bench.clips) or 100)
    assert len(set(bench.clips)) == len(bench.clips)
    for protocol, published in bench.published.items():
        assert protocol in PROTOCOLS
        for row in published.rows:
            assert set(row.values) == set(TABLE)
            assert all(mark in published.marks for mark in row.mark)
        assert set(published.key) <= {row.model for row in published.rows}


def test_every_row_of_the_paper_is_published():
    rows = {name: load_bench(name).published["mtvcraft"].rows for name in ("tiktok", "fashion")}
    assert {name: len(each) for name, each in rows.items()} == {"tiktok": 19, "fashion": 19}
    best = next(row for row in rows["fashion"] if row.model == "MTVCraft-18B")
    assert list(best.values.values()) == [23.90, 0.923, 0.057, 8.74, 64.88, 4.41]


def test_a_bench_takes_its_own_clips_and_names_the_missing_ones(folders, tmp_path):
    truth, made = tmp_path / "truth", tmp_path / "made"
    for name, new in (("one", "00337"), ("two", "201_005_1x1"), ("three", "00001")):
        shutil.copytree(folders / "truth" / name, truth / new)
    for name, new in (("one", "00337"), ("two", "201_005_1x1")):
        shutil.copytree(folders / "made" / name, made / new)
    report = score(tmp_path, tmp_path / "cache", bench=load_bench("tiktok"), metrics=["psnr"])
    assert report.title == "TikTok, protocol mtvcraft, 2 of 10 clips"
    assert len(report.as_json()["clips_missing"]) == 8
    assert any("00001" in line for line in report.warnings)


def test_the_list_beside_the_fashion_clips_names_them(folders, tmp_path):
    truth, made = tmp_path / "truth", tmp_path / "made"
    for name in ("one", "two"):
        shutil.copytree(folders / "truth" / name, truth / name)
        shutil.copytree(folders / "made" / name, made / name)
    links = "".join(f"https://somewhere.example/videos/{name}.mp4\n" for name in ("one", "two", "gone"))
    (truth / "fashion_test.txt").write_text(links)
    report = score(tmp_path, tmp_path / "cache", bench=load_bench("fashion"), metrics=["psnr"])
    assert report.prepared.missing == ["gone"]


def test_intervals_lie_around_what_is_averaged_and_are_the_same_again(folders, tmp_path):
    report = score(folders, tmp_path, metrics=["psnr", "ssim", "flicker"], intervals=True)
    ends = report.systems[0].totals.intervals
    assert set(ends) >= {"psnr", "ssim", "flicker"}
    assert all(low <= values(report)[key] <= high for key, (low, high) in ends.items())
    again = score(folders, tmp_path, metrics=["psnr", "ssim", "flicker"], intervals=True)
    assert again.systems[0].totals.intervals == ends
    assert "[" in table_of(report).rows[0].cells[0]


def test_flicker_is_none_of_the_truth_less_of_the_still_and_more_of_the_noisy(folders, tmp_path):
    systems = [System("ours", folders / "made"), *(System(name, baseline=name) for name in ("still", "ground-truth"))]
    report = score(folders, tmp_path, systems=systems, metrics=["flicker"])
    ours, still, truth = (values(report, place)["flicker"] for place in range(3))
    assert ours > 2
    assert still < -2
    assert truth == 0


def test_the_best_flicker_is_the_one_nearest_to_the_truths(folders, tmp_path):
    for number, name in enumerate(LENGTHS):
        truth = clip(number, LENGTHS[name])
        save_frames(tmp_path / "blurred" / name, np.repeat(truth[:1], len(truth), 0))
        save_frames(tmp_path / "near" / name, np.concatenate([truth[1:], truth[-1:]]))
    systems = [System(name, tmp_path / name) for name in ("blurred", "near")]
    report = score(folders, tmp_path / "cache", systems=systems, metrics=["flicker"])
    assert values(report, 0)["flicker"] < values(report, 1)["flicker"]
    table = table_of(report)
    assert table.columns == ["model", "flicker →0"]
    assert [row.model for row in table.rows if row.best] == ["near"]


def test_a_truth_that_cant_be_used_fails_its_clip_alone(folders, tmp_path):
    root = tmp_path / "odd"
    shutil.copytree(folders, root)
    shutil.copy(root / "truth" / "two" / "0003.png", root / "truth" / "two" / "b0003.png")
    systems = [System("ours", root / "made"), System("still", baseline="still")]
    report = score(root, tmp_path / "cache", metrics=["psnr"], systems=systems)
    assert all(list(system.failed) == ["two"] and "b0003.png" in system.failed["two"] for system in report.systems)
    assert all([one["id"] for one in system.totals.clips] == ["one", "three"] for system in report.systems)
    assert report.title == "truth, protocol mtvcraft, 2 of 3 clips"


def test_more_clips_than_a_bench_has_are_refused_where_nothing_says_which_are_its_own(folders, tmp_path):
    bench = dataclasses.replace(load_bench("fashion"), count=2)
    with pytest.raises(MtvcraftError, match="holds 3 clips, and bench fashion has 2") as refused:
        score(folders, tmp_path, bench=bench, metrics=["psnr"])
    assert "fashion_test.txt" in refused.value.hint


def test_a_clip_too_short_for_any_value_of_humanvids_fvd_is_named(folders, tmp_path):
    root = tmp_path / "short"
    shutil.copytree(folders, root)
    for side in ("truth", "made"):
        save_frames(root / side / "short", clip(5, 9))
    report = score(root, tmp_path / "cache", protocol=PROTOCOLS["humanvid"], metrics=["fvd"])
    assert report.systems[0].totals.samples["clips_without_a_piece"] == ["short"]
    assert any("no 10 frames" in line and "short" in line for line in report.warnings)


def test_a_floor_without_a_value_says_why(folders, tmp_path):
    save_frames(tmp_path / "truth" / "one", clip(0, 16))
    systems = [System("still", baseline="still")]
    report = score(tmp_path, tmp_path / "cache", systems=systems, floor=True, metrics=["psnr", "fvd"])
    assert report.floor is not None
    assert report.floor.values["fvd"] is None
    assert any(line.startswith("floor: FVD has no value") for line in report.warnings)


@pytest.mark.parametrize("metric", ["lpips", "lpips_alex"])
def test_frames_too_small_for_a_network_fail_their_clip_by_name(tmp_path, metric):
    for side in ("truth", "made"):
        save_frames(tmp_path / side / "small", clip(0, 2, (20, 40)))
        save_frames(tmp_path / side / "large", clip(1, 2))
    report = score(tmp_path, tmp_path / "cache", metrics=[metric])
    assert "too small for LPIPS" in report.systems[0].failed["small"]
    assert [one["id"] for one in report.systems[0].totals.clips] == ["large"]


def test_motion_follow_is_near_for_the_own_motion_and_far_for_anothers(tmp_path):
    pytest.importorskip("mediapipe", reason="no pose estimator is installed")
    frames = np.concatenate(list(open_clip(ASSETS / "drive.mp4").batches()))
    for name, first in (("a", 0), ("b", 40)):
        save_frames(tmp_path / "truth" / name, frames[first : first + 24 : 3])
    systems = [System("ground-truth", baseline="ground-truth"), System("still", baseline="still")]
    report = score(tmp_path, tmp_path / "cache", systems=systems, metrics=["motion_follow"])
    truth, still = values(report, 0), values(report, 1)
    assert truth["motion_follow"] == pytest.approx(0, abs=1e-6)
    assert truth["motion_follow_other"] > 0.05
    assert still["motion_follow"] > 0.02
    assert truth["motion_follow_found"] == 1
    assert any("against another clip" in note for note in table_of(report).notes)
