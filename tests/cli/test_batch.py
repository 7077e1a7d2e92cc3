"""Many jobs in one go: what a table may say, what is made of it, and that no job is done twice."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtvcraft_cli.batch.results import Ended, Results
from mtvcraft_cli.cli import rows
from mtvcraft_cli.cli.front import main
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.video.read import probe
from tests.cli.inputs import picture, save_joints
from tests.cli.run import heeding_ctrl_c
from tests.cli.toy import toy_preset
from tests.cli.toy_wan import released_wan_weights, toy_wan_preset

TOY = ["--preset", "toy", "--steps", "2"]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a picture, two drivers of nine frames and a toy preset."""
    for name in [name for name in os.environ if name.startswith("MTVCRAFT")]:
        monkeypatch.delenv(name)
    for name, value in {"HOME": str(tmp_path), "MTVCRAFT_CACHE": str(tmp_path / ".cache")}.items():
        monkeypatch.setenv(name, value)
    for name in ("XDG_CONFIG_HOME", "HF_HUB_DISABLE_TELEMETRY", "MTVCRAFT_DEBUG"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    picture(Path("ref.png"))
    save_joints(Path("one.npy"), 9)
    np.save("two.npy", np.load("one.npy")[::-1])
    toy_preset(Path())
    return tmp_path


class Ran:
    """What a call in this process ended with; importing torch anew for each would take longer than the work."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        capsys.readouterr()
        self.code = main(list(words))
        self.stdout, self.stderr = capsys.readouterr()

    def refused(self, code: int, *words: str) -> None:
        lines = self.stderr.strip().splitlines()
        assert self.code == code, self.stderr
        assert lines[-2].startswith("error: "), self.stderr
        assert lines[-1].startswith("hint: "), self.stderr
        for word in words:
            assert word in "\n".join(lines[-2:]), self.stderr


def table(*rows: str, name: str = "jobs.csv") -> str:
    Path(name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return name


def results(name: str = "jobs.results.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """Notes each call of a function that loads models, which runs as ever."""
    from mtvcraft_cli.runs import models, text

    room = models if hasattr(models, name) else text
    calls, real = list[str](), getattr(room, name)
    monkeypatch.setattr(room, name, lambda *given, **more: (calls.append(name), real(*given, **more))[1])
    return calls


def test_rows_give_what_animate_gives_and_the_models_are_loaded_once(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table(
        "Reference;drive;output;--seed;motion-guidance;mirror",
        "ref.png;one.npy;a.mp4;3;;",
        "ref.png;two.npy;b.mp4;;1.5;yes",
        "ref.png;one.npy;c.mp4;4;;no",
    )
    built = counted(monkeypatch, "load_transformer")
    ran = Ran(capsys, "batch", "jobs.csv", *TOY)
    assert (ran.code, ran.stdout) == (0, "a.mp4\nb.mp4\nc.mp4\n"), ran.stderr
    assert len(built) == 1
    alone = Ran(capsys, "animate", "ref.png", "two.npy", *TOY, "--motion-guidance", "1.5", "--mirror", "-o", "d.mp4")
    assert alone.code == 0
    Ran(capsys, "animate", "ref.png", "one.npy", *TOY, "--seed", "4", "-o", "e.mp4", "--cache-dir", ".other")
    assert Path("b.mp4").read_bytes() == Path("d.mp4").read_bytes()
    assert Path("c.mp4").read_bytes() == Path("e.mp4").read_bytes()
    assert probe(Path("a.mp4")).frames == 9
    command = json.loads(Path("b.mp4.json").read_text())["command"]
    for word in ("mtvcraft animate", "--mirror", "--motion-guidance=1.5", "two.npy"):
        assert word in command


def test_done_jobs_are_left_alone_and_written_down_once(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("reference,drive,output,seed", "ref.png,one.npy,a.mp4,1", "", "ref.png,one.npy,b.mp4,2")
    assert Ran(capsys, "batch", "jobs.csv", *TOY).code == 0
    made = {name: Path(name).stat().st_mtime_ns for name in ("a.mp4", "b.mp4")}
    again = Ran(capsys, "batch", "jobs.csv", *TOY, "--force", "--json")
    assert again.code == 0, again.stderr
    told = json.loads(again.stdout)
    assert [job["left_alone"] for job in told["jobs"]] == [True, True]
    assert {name: Path(name).stat().st_mtime_ns for name in made} == made, "made again, which --force is not for"
    assert [(line["output"], line["status"]) for line in results()] == [("a.mp4", "done"), ("b.mp4", "done")]

    Path("b.mp4").unlink()
    assert Ran(capsys, "batch", "jobs.csv", *TOY).code == 0
    assert [line["output"] for line in results()] == ["a.mp4", "b.mp4", "b.mp4"]
    assert Path("a.mp4").stat().st_mtime_ns == made["a.mp4"]
    Ran(capsys, "batch", "jobs.csv", *TOY, "--crf", "30").refused(2, "row 1", "line 2", "a.mp4", "--force")
    assert Ran(capsys, "batch", "jobs.csv", *TOY, "--crf", "30", "--force").code == 0
    assert Path("a.mp4").stat().st_mtime_ns != made["a.mp4"]


def test_frames_of_another_video_are_not_taken_for_those_that_are_wanted(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("animate", "ref.png", "one.npy", *TOY, "-o")
    frames = ("--frames-dir", "frames")
    assert Ran(capsys, *words, "a.mp4", *frames).code == 0
    assert Ran(capsys, *words, "b.mp4", "--seed", "1").code == 0
    Ran(capsys, *words, "b.mp4", "--seed", "1", *frames).refused(2, "frames", "--force")
    # A run that was interrupted leaves them without their video: the same command goes on.
    Path("a.mp4").unlink()
    Path("a.mp4.json").unlink()
    assert Ran(capsys, *words, "a.mp4", *frames).code == 0
    assert "left alone" in Ran(capsys, *words, "a.mp4", *frames).stderr
    for inside in ("frames/out.mp4", "frames/../frames/out.mp4"):
        Ran(capsys, *words, inside, *frames, "--force").refused(2, "a folder of their own")
    Path("pictures").mkdir()
    shutil.copyfile("ref.png", "pictures/1.png")
    Ran(capsys, "animate", "ref.png", "pictures", *TOY, "-o", "c.mp4", "--frames-dir", "pictures", "--force").refused(
        2, "pictures", "a folder of their own"
    )
    assert Path("pictures/1.png").is_file()


def test_an_empty_driver_holds_up_no_other_row(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.mp4").touch()
    table("reference,drive,output", "ref.png,empty.mp4,a.mp4", "ref.png,one.npy,b.mp4")
    assert Ran(capsys, "batch", "jobs.csv", *TOY, "--keep-going").code == 3
    assert [line["status"] for line in results()] == ["failed", "done"]


def test_whoever_reads_the_answer_may_go_and_the_jobs_go_on(there: Path) -> None:
    table("reference,drive,output", "ref.png,one.npy,a.mp4", "ref.png,two.npy,b.mp4")
    words = [sys.executable, "-m", "mtvcraft_cli", "batch", "jobs.csv", *TOY]
    reading, writing = os.pipe()
    os.close(reading)
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True, env=env, timeout=300)
    os.close(writing)
    assert done.returncode == 0, done.stderr
    assert [line["status"] for line in results()] == ["done", "done"]


def test_a_row_that_wants_frames_is_done_when_they_are_there(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("reference,drive,output,frames_dir", "ref.png,one.npy,a.mp4,frames")
    for left in (False, True):
        ran = Ran(capsys, "batch", "jobs.csv", *TOY, "--json")
        assert ran.code == 0, ran.stderr
        assert [job["left_alone"] for job in json.loads(ran.stdout)["jobs"]] == [left]
        assert len(list(Path("frames").glob("*.png"))) == 9
    shutil.rmtree("frames")
    assert Ran(capsys, "batch", "jobs.csv", *TOY).code == 0
    assert len(list(Path("frames").glob("*.png"))) == 9


def test_a_failure_stops_the_batch_and_keep_going_goes_on(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("bad.npy", np.full((9, 24, 3), np.nan, np.float32))
    rows = ["ref.png,one.npy,a.mp4", "ref.png,bad.npy,b.mp4", "ref.png,two.npy,c.mp4"]
    table("reference,drive,output", *rows)
    stopped = Ran(capsys, "batch", "jobs.csv", *TOY)
    stopped.refused(3, "1 of 3 jobs failed", "row 2", "bad.npy", "--keep-going")
    assert "1 not begun" in stopped.stderr
    assert Path("a.mp4").exists()
    assert not Path("c.mp4").exists()
    ran = Ran(capsys, "batch", "jobs.csv", *TOY, "-k")
    ran.refused(3, "1 of 3 jobs failed")
    assert ran.stdout == "a.mp4\nc.mp4\n"
    failed = [line for line in results() if line["status"] == "failed"]
    assert [(line["row"], line["output"], line["exit"]) for line in failed] == [(2, "b.mp4", 4)] * 2
    assert all(line["error"] and line["hint"] for line in failed)
    save_joints(Path("bad.npy"), 9)
    assert Ran(capsys, "batch", "jobs.csv", *TOY).code == 0
    assert [line["output"] for line in results() if line["status"] == "done"] == ["a.mp4", "c.mp4", "b.mp4"]


def test_jobs_of_one_preset_follow_each_other_so_that_each_is_loaded_once(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_preset(there, frames=33)
    Path("toy").rename("longer")
    toy_preset(there)
    lines = [{"reference": "ref.png", "drive": "one.npy", "output": f"{n}.mp4", "seed": n} for n in range(4)]
    table(*(json.dumps({**line, "preset": ["toy", "longer"][n % 2]}) for n, line in enumerate(lines)))
    built = counted(monkeypatch, "load_transformer")
    ran = Ran(capsys, "batch", "jobs.csv", "--steps", "1")
    assert ran.code == 0, ran.stderr
    assert ran.stdout.split() == ["0.mp4", "2.mp4", "1.mp4", "3.mp4"]
    assert len(built) == 2


def test_all_prompts_are_encoded_while_the_text_encoder_is_there(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_wan_preset(there)
    released_wan_weights(there / "weights", seed=1)
    prompts = ("an owl", "a fox", "an owl in the rain")
    table("reference,drive,output,prompt", *(f"ref.png,one.npy,{n}.mp4,{text}" for n, text in enumerate(prompts)))
    encoders, models = (counted(monkeypatch, f"build_{part}_encoder") for part in ("text", "picture"))
    ran = Ran(capsys, "batch", "jobs.csv", "--preset", "toy-wan", "--weights", "weights", "--steps", "1")
    assert ran.code == 0, ran.stderr
    assert (len(encoders), len(models)) == (1, 1)
    assert len({Path(f"{n}.mp4").read_bytes() for n in range(3)}) == 3, "the prompts make no difference"


def test_a_prompt_that_is_too_long_is_the_fault_of_its_own_row_alone(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_wan_preset(there)
    released_wan_weights(there / "weights", seed=1)
    prompts = ("an owl", "owl " * 600, "a fox")
    table("reference,drive,output,prompt", *(f"ref.png,one.npy,{n}.mp4,{text}" for n, text in enumerate(prompts)))
    ran = Ran(capsys, "batch", "jobs.csv", "--preset", "toy-wan", "--weights", "weights", "--steps", "1", "-k")
    assert ran.code == 3, ran.stderr
    assert [Path(f"{n}.mp4").exists() for n in range(3)] == [True, False, True]
    assert "and the model reads" in ran.stderr


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["reference,drive,sead", "ref.png,one.npy,1"], ["row 1", "line 2", "sead", "did you mean `seed`"]),
        (["reference,drive,trust_file", "ref.png,one.npy,x"], ["row 1", "trust_file", "by hand"]),
        (["reference,drive,force", "ref.png,one.npy,yes"], ["row 1", "force"]),
        (["reference,drive,drive", "ref.png,one.npy,two.npy"], ["twice"]),
        (["reference,drive,output", "ref.png,,a.mp4"], ["row 1", "no `drive`"]),
        (["reference,drive", "ref.png,one.npy,a.mp4"], ["line 2", "3 cells"]),
        (["reference,drive,steps", "ref.png,one.npy,3", "ref.png,two.npy,many"], ["row 2", "line 3", "--steps"]),
        (["reference,drive,mirror", "ref.png,one.npy,perhaps"], ["row 1", "mirror", "yes or no"]),
        (["reference,drive", "ref.png,one.npy", "ref.png,three.npy"], ["row 2", "three.npy"]),
        (["reference,drive,preset", "ref.png,one.npy,toyy"], ["row 1", "toyy"]),
        (["reference,drive,output", "ref.png,one.npy,no/a.mp4"], ["row 1", "no folder `no`"]),
        (["reference,drive,output", "ref.png,one.npy,a.mp4", "ref.png,two.npy,./a.mp4"], ["row 2", "row 1", "a.mp4"]),
        (["reference,drive,frames_dir", "ref.png,one.npy,f", "ref.png,two.npy,f"], ["row 2", "row 1", "`f`"]),
        (["reference,drive"], ["no jobs"]),
        (['{"reference": "ref.png", "drive": "one.npy"}', "{"], ["line 2", "JSON"]),
        (['{"reference": "ref.png", "drive": "one.npy", "prompt": {"a": 1}}'], ["row 1", "prompt"]),
        (['reference,drive\n"ref.png,one.npy'], ["jobs.csv", "CSV"]),
        (
            ["reference,drive,output,speed", "ref.png,one.npy,a.mp4,best", "ref.png,two.npy,b.mp4,fast"],
            ["row 2", "line 3", "`--speed fast` wants the whole transformer"],
        ),
        (
            ["reference,drive,output,attention", "ref.png,one.npy,a.mp4,native", "ref.png,two.npy,b.mp4,flash"],
            ["row 2", "line 3", "`--attention flash` can't be used"],
        ),
    ],
)
def test_every_row_is_checked_before_the_first_begins(
    rows: list[str], words: list[str], there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table(*rows)
    ran = Ran(capsys, "batch", "jobs.csv", *TOY, "--offload", "group", "--device", "cpu")
    ran.refused(2, *words)
    assert ran.stdout == ""
    assert not list(there.glob("*.mp4"))
    assert not Path("jobs.results.jsonl").exists()


def test_a_device_that_is_not_here_is_said_of_every_row_that_names_it(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table("reference,drive,output,device", *(f"ref.png,one.npy,{n}.mp4,{n}" for n in ("cpu", "cuda:9", "cuda:8")))
    ran = Ran(capsys, "batch", "jobs.csv", *TOY)
    ran.refused(2, "row 2", "line 3", "cuda:9", "2 of 3 rows are wrong")
    assert "warning: row 3" in ran.stderr


def test_options_that_clash_are_refused_before_a_cluster_is_asked(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table("reference,drive,output,speed", "ref.png,one.npy,a.mp4,best", "ref.png,two.npy,b.mp4,fast")
    ran = Ran(capsys, "batch", "jobs.csv", *TOY, "--offload", "group", "--ray", "local", "--dry-run")
    ran.refused(2, "row 2", "`--speed fast` wants the whole transformer")


def test_every_wrong_row_is_named(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("reference,drive,output", "ref.png,no.npy,a.mp4", "ref.png,one.npy,b.mp4", "gone.png,one.npy,c.mp4")
    ran = Ran(capsys, "batch", "jobs.csv", *TOY)
    ran.refused(2, "row 1", "no.npy", "2 of 3 rows are wrong")
    assert "warning: row 3" in ran.stderr


def test_a_row_that_reads_what_another_one_writes_is_refused(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table("reference,drive,output", "ref.png,one.npy,a.mp4")
    assert Ran(capsys, "batch", "jobs.csv", *TOY).code == 0
    table("reference,drive,output", "ref.png,one.npy,a.mp4", "ref.png,a.mp4,b.mp4")
    Ran(capsys, "batch", "jobs.csv", *TOY).refused(2, "row 2", "row 1", "a.mp4")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["gone.csv"], "gone.csv"),
        (["jobs.csv", "--pair", "zip"], "--pair"),
        (["*.png", "*.npy"], "--pair product"),
        (["a.png", "b.png", "c.npy"], "quotes"),
        (["*.png", "*.npy", "--pair", "zip"], "1 reference(s)"),
        (["*.jpg", "*.npy", "--pair", "zip"], "*.jpg"),
        (["jobs.csv", "--out-dir", "nowhere"], "nowhere"),
        (["jobs.csv", "--results", "nowhere/r.jsonl"], "nowhere"),
        (["jobs.csv", "--results", "jobs.csv"], "--results"),
        (["jobs.csv", "--results", "ref.png"], "ref.png"),
        (["jobs.csv", "--device", "cuda:9"], "cuda:9"),
        (["jobs.csv", "--ray", "local", "--yes"], "mtvcraft download"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_mean_no_batch_are_refused(
    words: list[str], named: str, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table("reference,drive,output", "ref.png,one.npy,a.mp4")
    ran = Ran(capsys, "batch", *words, *TOY)
    ran.refused(2, named)
    assert ran.stdout == ""
    assert not Path("a.mp4").exists()


def test_patterns_are_paired_in_the_order_of_their_numbers(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    for number in (1, 2, 10):
        picture(Path(f"ref{number}.png"))
        save_joints(Path(f"drive{number}.npy"), 9)
    words = ["batch", "ref?*.png", "drive?*.npy", *TOY, "--out-dir", "out", "--dry-run", "--json"]
    zipped = json.loads(Ran(capsys, *words, "--pair", "zip").stdout)
    assert [job["output"] for job in zipped] == [f"out/ref{n}.drive{n}.mp4" for n in (1, 2, 10)]
    each = json.loads(Ran(capsys, *words, "--pair", "product").stdout)
    assert [job["output"] for job in each] == [f"out/ref{a}.drive{b}.mp4" for a in (1, 2, 10) for b in (1, 2, 10)]


def test_a_second_run_over_a_pattern_leaves_out_what_the_first_made(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("drives").mkdir()
    save_joints(Path("drives/d.npy"), 9)
    words = ["batch", "ref.png", "drives/*", *TOY, "--pair", "product", "--out-dir", "drives"]
    assert Ran(capsys, *words).stdout == "drives/ref.d.mp4\n"
    again = Ran(capsys, *words)
    assert (again.code, again.stdout) == (0, "drives/ref.d.mp4\n"), again.stderr
    assert "left out 2 file(s) that mtvcraft made" in again.stderr
    assert len(results("batch.results.jsonl")) == 1


def test_rows_come_from_standard_input_and_go_before_flags_and_variables(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"reference": "ref.png", "drive": "one.npy", "output": "a.mp4", "steps": 7}]
    lines.append({"reference": "ref.png", "drive": "one.npy", "output": "b.mp4", "steps": None})
    Path("mtvcraft.toml").write_text("seed = 3\n[batch]\nmotion-guidance = 2.5\n")

    def told(*words: str) -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(map(json.dumps, lines)).encode())))
        ran = Ran(capsys, "batch", "-", "--preset", "toy", "--dry-run", *words)
        assert ran.code == 0, ran.stderr
        return ran

    plan = json.loads(told("--steps", "5", "--json").stdout)
    assert [job["steps"] for job in plan] == [7, 5]
    monkeypatch.setenv("MTVCRAFT_STEPS", "4")
    assert [job["steps"] for job in json.loads(told("--json").stdout)] == [7, 4]
    for off in (False, "no"):
        lines[0]["mirror"] = off
        monkeypatch.setenv("MTVCRAFT_MIRROR", "1")
        assert mirrored(capsys, lines) == [False, True]
        monkeypatch.delenv("MTVCRAFT_MIRROR")
        Path("mtvcraft.toml").write_text("mirror = true\n")
        assert mirrored(capsys, lines) == [False, True]
    del lines[0]["mirror"]
    text = told().stdout
    assert "a.mp4" in text
    assert "to do" in text
    assert not list(there.glob("*.mp4"))
    assert not list(there.glob("*.results.jsonl"))


def mirrored(capsys: pytest.CaptureFixture[str], lines: list[dict[str, Any]]) -> list[bool]:
    """Whether the motion of each row would be mirrored."""
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    ran = Ran(capsys, "batch", "lines.jsonl", "--preset", "toy", "--dry-run")
    assert ran.code == 0, ran.stderr
    tasks, _ = rows.read_rows(rows.rows_of([Path("lines.jsonl")], None)[0], None, force=False, ray=False)
    return [task.job.motion.mirror for task in tasks]


def test_a_dry_run_says_which_jobs_would_fail(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("bad.npy", np.full((9, 24, 3), np.nan, np.float32))
    table("reference,drive,output", "ref.png,one.npy,a.mp4", "ref.png,bad.npy,b.mp4")
    ran = Ran(capsys, "batch", "jobs.csv", *TOY, "--dry-run")
    ran.refused(3, "row 2", "bad.npy")
    assert "fails: " in ran.stdout.splitlines()[2]


def test_a_results_file_drops_a_torn_line_and_is_one_batch_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with Results(path) as file:
        file.add(Ended(row=1, output="a.mp4", status="done"))
        with pytest.raises(MtvcraftError, match="another batch"):
            Results(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"row": 2, "outp')
    with Results(path) as file:
        assert file.done == {"a.mp4"}
        file.add(Ended(row=2, output="b.mp4", status="failed"))
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [1, 2]
    whole = path.read_bytes()
    with Results(path) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "no space left")))
        with pytest.raises(OSError, match="no space left"):
            file.add(Ended(row=3, output="c.mp4", status="done"))
        assert path.read_bytes() == whole
    for other in ("precious notes", "a,b\n1,2\n", '{"a": 1}\n'):
        path.write_text(other)
        with pytest.raises(MtvcraftError, match="something else"):
            Results(path)
        assert path.read_text() == other


def test_stopped_and_killed_and_begun_again_no_job_runs_twice(there: Path) -> None:
    jobs = [f"ref.png,{'one' if n % 2 else 'two'}.npy,{n}.mp4,{n}" for n in range(20)]
    table("reference,drive,output,seed", *jobs)
    words = [sys.executable, "-m", "mtvcraft_cli", "batch", "jobs.csv", *TOY, "--progress", "json"]

    def begun(until: int) -> "subprocess.Popen[str]":
        """Start it, and wait until so many jobs are written down and another one is in the middle."""
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                   preexec_fn=heeding_ctrl_c)  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("{") and json.loads(line)["stage"] == "denoise" and len(results()) >= until:
                break
        return process

    stopped = begun(3)
    stopped.send_signal(signal.SIGINT)
    said = stopped.communicate(timeout=120)[1]
    assert stopped.returncode == 130, said
    assert "jobs are done" in said
    assert "Traceback" not in said
    assert not list(there.glob(".*.part*")), "a draft is left"
    killed = begun(9)
    killed.kill()
    killed.communicate(timeout=60)
    before = {line["output"]: Path(line["output"]).stat().st_mtime_ns for line in results()}
    assert 9 <= len(before) < 20
    ended = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.split()) == 20
    lines = results()
    assert sorted(line["output"] for line in lines) == sorted(f"{n}.mp4" for n in range(20)), "one line for each"
    assert {line["status"] for line in lines} == {"done"}
    for output, made in before.items():
        assert Path(output).stat().st_mtime_ns == made, f"{output} was made twice"
