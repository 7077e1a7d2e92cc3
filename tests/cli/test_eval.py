"""`mtvcraft eval` as a user runs it."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.cli.front import main
from mtvcraft_cli.cli.settings import bench_folder
from mtvcraft_cli.errors import MtvcraftError
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.toy import toy_preset
from tests.clips import H264, ffmpeg
from tests.eval.clips import clip, save_frames, worse

FIGURES = {
    *("psnr", "ssim", "iou", "psnr_still", "psnr_other_motion", "iou_other_motion", "psnr_no_motion", "iou_no_motion")
}
ASSETS = Path(__file__).parents[2] / "assets"
MEDIA = Path(__file__).parents[2].parent / "shared" / "media"
PLAIN = ("--metrics", "psnr,ssim", "--offline")


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


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(("00337", "00338")):
        truth = clip(number, 18)
        save_frames(root / "truth" / name, truth)
        save_frames(root / "made" / name, worse(truth, number))
    return root


def test_two_folders_give_a_table_a_csv_and_a_page(folders, tmp_path):
    words = ("eval", "--pred", folders / "made", "--gt", folders / "truth", "--baseline", "still", *PLAIN)
    result = mtvcraft(*words, "--name", "ours", "--csv", "o.csv", "--html", "o.html", cwd=tmp_path, check=0)
    lines = result.stdout.splitlines()
    assert lines[0] == "truth, protocol mtvcraft, 2 clips, 36 frames"
    assert lines[1].split() == ["model", "PSNR", "↑", "SSIM", "↑"]
    assert [line.split()[0] for line in lines[2:4]] == ["ours", "still"]
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 5
    assert "<svg" in (tmp_path / "o.html").read_text()
    assert_refused(mtvcraft(*words, "--csv", "o.csv", cwd=tmp_path), 2, "o.csv", "--force")
    told = json.loads(mtvcraft(*words, "--json", "-q", cwd=tmp_path, check=0).stdout)
    assert told["bench"] is None
    assert told["protocol"]["name"] == "mtvcraft"
    assert told["versions"]["pillow"]
    assert [system["name"] for system in told["systems"]] == ["made", "still"]


def test_a_missing_network_is_said_before_any_work_with_the_command_that_fetches_it(folders, tmp_path):
    words = ("eval", "--pred", folders / "made", "--gt", folders / "truth", "--offline")
    result = mtvcraft(*words, cwd=tmp_path)
    assert_refused(result, 6, "lpips (vgg16)", "fid (inception)", "fvd (i3d)", "fid-vid (resnet3d)")
    assert "mtvcraft download metrics" in result.stderr
    result = mtvcraft(*words, "--metrics", "psnr,fid", cwd=tmp_path)
    assert_refused(result, 6, "fid (inception)")
    assert "vgg16" not in result.stderr


def test_a_bench_shows_what_was_published_beside_what_was_measured(folders, tmp_path):
    settings = f'[bench]\ntiktok = "{folders / "truth"}"\n'
    (tmp_path / "mtvcraft.toml").write_text(settings)
    words = ("eval", "--bench", "tiktok", "--pred", f"mine={folders / 'made'}", *PLAIN)
    result = mtvcraft(*words, cwd=tmp_path, check=0)
    assert result.stdout.startswith("TikTok, protocol mtvcraft, 2 of 10 clips")
    assert "MTVCraft-18B" in result.stdout
    assert "mine" in result.stdout
    assert "dynamic PE" not in result.stdout
    assert "201_002_1x1" in result.stderr
    every = mtvcraft(*words, "--rows", "all", cwd=tmp_path, check=0)
    assert "dynamic PE" in every.stdout
    assert "MTVCraft" not in mtvcraft(*words, "--rows", "none", cwd=tmp_path, check=0).stdout
    disco = mtvcraft(*words, "--protocol", "disco", cwd=tmp_path, check=0)
    assert "DisCo" in disco.stdout
    assert "MTVCraft" not in disco.stdout


def test_where_a_benchs_clips_lie_is_a_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert bench_folder("tiktok-335") is None
    (tmp_path / "config" / "mtvcraft").mkdir(parents=True)
    (tmp_path / "config" / "mtvcraft" / "config.toml").write_text(
        '[bench]\ntiktok-335 = "/data/a"\nfashion = "/data/f"\n'
    )
    assert bench_folder("tiktok-335") == Path("/data/a")
    (tmp_path / "mtvcraft.toml").write_text('[bench]\ntiktok_335 = "clips"\ntiktok = 3\n')
    assert bench_folder("tiktok-335") == tmp_path / "clips"
    assert bench_folder("fashion") == Path("/data/f")
    with pytest.raises(MtvcraftError, match=r"bench\.tiktok"):
        bench_folder("tiktok")
    monkeypatch.setenv("MTVCRAFT_BENCH_TIKTOK_335", "/data/b")
    assert bench_folder("tiktok-335") == Path("/data/b")


def test_a_bench_without_its_clips_tells_what_is_known_and_how_to_get_them(tmp_path):
    result = mtvcraft("eval", "--bench", "tiktok", cwd=tmp_path)
    assert result.returncode == 6
    assert "MTVCraft-18B" in result.stdout
    assert "203_006_1x1" in result.stdout
    assert "research only" in result.stdout
    assert result.stderr.strip().splitlines()[-2].startswith("error: the clips of bench tiktok are not on this machine")


def test_explain_needs_nothing_at_all(tmp_path):
    result = mtvcraft("eval", "--bench", "fashion", "--explain", cwd=tmp_path, check=0)
    assert "fashion_test.txt" in result.stdout
    assert "humanvid" in result.stdout
    assert "ID/images/" in mtvcraft("eval", "--explain", cwd=tmp_path, check=0).stdout


def test_some_bad_clips_are_named_and_the_rest_is_scored(folders, tmp_path):
    shutil.copytree(folders, tmp_path / "clips")
    (tmp_path / "clips" / "made" / "00338" / "0004.png").write_bytes(b"nothing")
    words = ("eval", "--pred", "clips/made", "--gt", "clips/truth", *PLAIN)
    result = mtvcraft(*words, cwd=tmp_path, check=3)
    assert "clip `00338` has no score" in result.stderr
    assert "0004.png" in result.stderr
    assert result.stdout.startswith("truth, protocol mtvcraft, 1 of 2 clips, 18 frames\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--pred", "nowhere", "--gt", "truth"), 2, "nowhere"),
        (("--pred", "made"), 2, "ground truth"),
        (("--gt", "truth"), 2, "nothing to score"),
        (("--pred", "made", "--gt", "truth", "--metrics", "psrn"), 2, "psrn"),
        (("--pred", "made", "--gt", "truth", "--baseline", "late"), 2, "late"),
        (("--pred", "a=made", "--pred", "a=made", "--gt", "truth"), 2, "`a`"),
        (("--pred", "made", "--pred", "truth", "--name", "x", "--gt", "truth"), 2, "--name"),
        (("--pred", "made", "--gt", "truth", "--html", "page.txt"), 2, "page.txt"),
        (("--bench", "mini", "--pred", "made"), 2, "bench mini"),
        (("--pred", "made", "--gt", "truth", "--metrics", ","), 2, "no metric"),
        (("--pred", "made", "--gt", "truth", "--metrics", "fid-vid", "--protocol", "humanvid"), 2, "FID-VID"),
        (("--pred", "nowhere", "--gt", "truth", "--metrics", "fid"), 2, "nowhere"),
        (("--bench", "mini", "--metrics", "psnr", "--jobs", "2"), 2, "`--metrics`, `--jobs` would do nothing"),
        (("--pred", "made", "--gt", "truth", "--clips", "3"), 2, "`--clips` would do nothing"),
        (("--pred", "made", "--gt", "truth", "--seed", "3"), 2, "`--seed` would do nothing"),
        (("--gt", "truth", "--baseline", "still", "--name", "x"), 2, "`--name` would do nothing"),
        (("--pred", "a=made", "--name", "b", "--gt", "truth"), 2, "`a` and `b`"),
        (("--run", "--pred", "made/00337/0001.png", "--gt", "truth", "--preset", "mini"), 2, "0001.png"),
        (("--run", "--pred", "new", "--gt", "truth", "--preset", "mini", "--csv", "page.txt"), 2, "page.txt"),
        (("--run", "--pred", "new", "--gt", "truth", "--preset", "mini", "--metrics", "psrn"), 2, "psrn"),
        (("--pred", "empty", "--gt", "truth"), 4, "empty"),
    ],
)
def test_what_cant_be_meant_is_refused(folders, tmp_path, words, code, said, capsys, monkeypatch):
    for name in ("truth", "made"):
        (tmp_path / name).symlink_to(folders / name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "XDG_CONFIG_HOME", "MTVCRAFT_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "")
    more = () if {"--metrics", "--bench"} & set(words) else ("--metrics", "psnr")
    ended = main(["eval", *words, *more])  # in this process, which has torch already
    assert_refused(subprocess.CompletedProcess(words, ended, *capsys.readouterr()), code, said)


def test_run_makes_the_results_first_scores_them_and_makes_none_twice(tmp_path):
    preset = toy_preset(tmp_path)
    (tmp_path / "truth").mkdir()
    ffmpeg("-i", ASSETS / "drive.mp4", "-an", "-frames:v", "10", *H264, tmp_path / "truth" / "00337.mp4")
    save_frames(tmp_path / "truth" / "00338", np.full((10, 40, 48, 3), 90, np.uint8))  # nobody is to be seen there
    words = ("eval", "--bench", "tiktok", "--gt", "truth", "--run", "--preset", preset, "--pred", "made", *PLAIN)
    plan = mtvcraft(*words, "--dry-run", cwd=tmp_path, check=0)
    assert "2 clips, 20 frames" in plan.stdout
    assert not (tmp_path / "made").exists()
    result = mtvcraft(*words, "--json", cwd=tmp_path, check=3)
    assert "made clip `00337`" in result.stderr
    assert "no person" in result.stderr
    told = json.loads(result.stdout)
    [system] = told["systems"]
    assert list(system["failed"]) == ["00338"]
    [scored] = system["clips"]
    assert scored["frames"] == 10
    assert not system["decoded_from_video"]
    assert scored["truth"]["crop_px"] is not None
    assert scored["width"] == scored["height"]  # cut to the square that the preset makes
    assert len(list((tmp_path / "made" / "00337").glob("*.png"))) == 10
    again = mtvcraft(*words, "--json", cwd=tmp_path, check=3)
    assert "made clip" not in again.stderr
    assert plain(again.stdout) == plain(result.stdout)


def plain(text: str) -> dict:
    told = json.loads(text)
    del told["times"]
    return told


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    """The first 20 frames of a real video, small: as frames, encoded anew, and a frame late."""
    if not MEDIA.is_dir():
        pytest.skip("the shared videos are not beside the repository")
    root = tmp_path_factory.mktemp("media")
    for name in ("drive_1", "drive_2"):
        (root / "truth" / name).mkdir(parents=True)
        shown = ("-i", MEDIA / f"{name}.mp4", "-frames:v", "20", "-vf", "scale=96:-2")
        ffmpeg(*shown, root / "truth" / name / "%04d.png")
        for folder in ("encoded", "shifted"):
            (root / folder).mkdir(exist_ok=True)
        again = ("-i", root / "truth" / name / "%04d.png", *H264, "-crf", "28")
        ffmpeg(*again, root / "encoded" / f"{name}.mp4")
        frames = np.stack([np.asarray(Image.open(file)) for file in sorted((root / "truth" / name).iterdir())])
        save_frames(root / "shifted" / name, np.concatenate([frames[:1], frames[:-1]]))
    return root


def test_real_videos_against_themselves_encoded_anew_and_a_frame_late(real, tmp_path):
    systems = ("--pred", real / "encoded", "--pred", real / "shifted", "--baseline", "shift1")
    words = ("eval", *systems, "--gt", real / "truth", "--metrics", "psnr,ssim,flicker", "--offline", "--json", "-q")
    told = json.loads(mtvcraft(*words, cwd=tmp_path, check=0).stdout)
    encoded, shifted, late = (system["totals"] for system in told["systems"])
    assert 25 < encoded["psnr"] < 60
    assert encoded["ssim"] > 0.8
    assert 20 < shifted["psnr"] < 60
    assert shifted == pytest.approx(late)
    assert [system["samples"]["frames_equal_to_the_truth"] for system in told["systems"][1:]] == [2, 2]
    assert told["systems"][0]["decoded_from_video"]
    assert not told["systems"][1]["decoded_from_video"]
    assert abs(shifted["flicker"]) < 1
