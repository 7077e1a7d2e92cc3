"""`mtvcraft doctor`: each check against a machine where the thing is, and one where it isn't."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtvcraft_cli.jobs import doctor, trial
from mtvcraft_cli.jobs.doctor import Finding
from tests.cli.run import assert_refused, mtvcraft
from tests.cli.toy import released_weights


def one(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def test_a_short_look_at_this_machine_finds_nothing_wrong(tmp_path: Path) -> None:
    result = mtvcraft("doctor", "--short", "--json", cwd=tmp_path, check=0)
    findings = {each["name"]: each for each in json.loads(result.stdout)["findings"]}
    wanted = {
        "python",
        "torch",
        "driver",
        "ffmpeg",
        "decord",
        "memory",
        "cache",
        "disk, here",
        "weights, mini",
        "weights, 7b",
    }
    assert wanted <= set(findings)
    assert {each["state"] for each in findings.values()} <= {"ok", "warning"}
    assert findings["weights, 7b"]["mend"] == "mtvcraft download 7b"
    assert "not published" in findings["weights, 6b"]["says"]
    text = mtvcraft("doctor", "--short", cwd=tmp_path, check=0).stdout
    assert "OK       python: 3." in text


def test_a_preset_in_a_settings_file_is_for_other_commands(tmp_path: Path) -> None:
    mtvcraft("doctor", "--short", cwd=tmp_path, check=0, MTVCRAFT_PRESET="7b")
    (tmp_path / "mtvcraft.toml").write_text('preset = "7b"\n')
    mtvcraft("doctor", "--short", cwd=tmp_path, check=0)
    assert_refused(mtvcraft("doctor", "--short", "--preset", "7b", cwd=tmp_path), 2, "--preset", "--quantize")


def test_the_run_at_toy_size_goes_the_whole_way_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    result = mtvcraft("doctor", "--device", "cpu", "--json", cwd=tmp_path, check=0, TMPDIR=str(tmp_path / "tmp"))
    findings = {each["name"]: each for each in json.loads(result.stdout)["findings"]}
    assert findings["run"]["state"] == "ok"
    assert "animated 9 frames of 32x32" in findings["run"]["says"]
    assert "pose" in findings
    assert not list((tmp_path / "tmp").glob("mtvcraft*"))
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["tmp"]


def test_a_drawn_person_is_found_where_it_was_drawn(tmp_path: Path) -> None:
    pytest.importorskip("mediapipe", reason="the pose backend is an extra")
    finding = one(trial.pose(None))
    assert finding.state == "ok", finding.says
    assert "8 of 8 frames" in finding.says


def test_without_a_pose_backend_a_warning_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mediapipe", None)
    finding = one(trial.pose(None))
    assert finding.state == "warning"
    assert finding.mend == 'pip install "mtvcraft[mediapipe]"'


def test_a_backend_that_is_far_off_or_blind_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mediapipe", reason="the pose backend is an extra")
    monkeypatch.setattr(trial, "FAR_MM", 1.0)
    assert one(trial.pose(None)).state == "failure"
    frames, joints_mm = trial.drawn_person()
    monkeypatch.setattr(trial, "drawn_person", lambda: (frames[:, :1, :1].repeat(640, 1).repeat(480, 2), joints_mm))
    assert "does not see" in one(trial.pose(None)).says


def test_a_missing_library_is_one_line_and_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    findings = {each.name: each for each in doctor.examine(None, "auto", short=True)}
    assert findings["torch"].state == "failure"
    assert findings["torch"].mend == doctor.REINSTALL
    assert findings["ffmpeg"].state == "ok", "the others are looked at all the same"


def test_a_reader_that_is_not_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "decord", None)
    finding = one(doctor.decord())
    assert (finding.state, finding.mend) == ("warning", "pip install decord")


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 9, 1))
    assert one(doctor.python()).state == "failure"


def test_an_ffmpeg_that_can_not_write_h264_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = tmp_path / "ffmpeg"
    poor.write_text("#!/bin/sh\necho ' V..... mpeg4'\n")
    poor.chmod(0o755)
    monkeypatch.setattr("mtvcraft_cli.video.ffmpeg.ffmpeg_path", lambda: str(poor))
    finding = one(doctor.ffmpeg())
    assert finding.state == "failure"
    assert "IMAGEIO_FFMPEG_EXE" in finding.mend


@pytest.mark.parametrize(("free", "state"), [(10**8, "failure"), (10**9, "warning"), (10**11, "ok")])
def test_little_disk_is_told(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_disk", lambda folder: free)
    assert {finding.state for finding in doctor.disk()} == {state}


def test_little_memory_is_told_with_the_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_memory", lambda: 2**30)
    monkeypatch.setattr(doctor, "group_limits", lambda: [(3 * 2**30, 2 * 2**30)])
    finding = one(doctor.memory())
    assert finding.state == "warning"
    assert "3.0 GiB" in finding.says


def test_a_damaged_cache_is_a_warning_that_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MTVCRAFT_CACHE", str(tmp_path))
    assert one(doctor.cache()).state == "ok"
    kept = doctor.open_cache()
    with kept.make("joints", "a") as folder:
        (folder / "file").write_text("whole")
    assert "1 entries" in one(doctor.cache()).says
    (tmp_path / "joints" / "a" / "file").write_text("half")
    finding = one(doctor.cache())
    assert (finding.state, finding.mend) == ("warning", "mtvcraft cache clear")


def test_a_cache_that_can_not_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MTVCRAFT_CACHE", str(tmp_path / "file" / "cache"))
    findings = {each.name: each for each in doctor.examine(None, "cpu", short=True)}
    assert findings["cache"].state == "failure"
    assert "--cache-dir" in findings["cache"].mend


def test_weights_are_whole_cut_off_or_short_of_a_shard(tmp_path: Path) -> None:
    def of_7b() -> Finding:
        return next(each for each in doctor.all_weights(tmp_path) if each.name == "weights, 7b")

    released_weights(tmp_path, seed=1)
    assert (of_7b().state, of_7b().says) == ("ok", "here and whole")
    shard = next((tmp_path / "MV-DiT" / "CogVideoX").glob("*00001-of*.safetensors"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    assert of_7b().state == "failure"
    assert shard.name in of_7b().says
    assert "mtvcraft download 7b" in of_7b().mend
    shard.unlink()
    assert of_7b().state == "failure"
    assert "1 of 2 files" in of_7b().says


def test_a_failure_ends_with_1_and_names_what_failed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = mtvcraft("doctor", "--short", "-q", "--cache-dir", "file/cache", "--json", cwd=tmp_path)
    assert result.returncode == 1
    assert "cache" in result.stderr.splitlines()[-2]
    assert "Traceback" not in result.stderr
    assert_refused(mtvcraft("doctor", "--weights", "nowhere", cwd=tmp_path), 2, "nowhere")
