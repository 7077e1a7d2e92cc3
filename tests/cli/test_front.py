"""The rules that every command keeps."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtvcraft_cli import __version__
from tests.cli.run import assert_refused, heeding_ctrl_c, mtvcraft
from tests.cli.toy import toy_preset

COMMANDS = ["animate", "pose", "tokenize", "batch", "eval", "download", "presets", "plan", "doctor", "replay", "cache"]
GROUPED = [f"train {stage}" for stage in ("prepare", "tokenizer", "vae", "dit", "latents", "pack", "ablations")]


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], *([*command.split(), "--help"] for command in [*COMMANDS, "train", *GROUPED])],
    ids=" ".join,
)
def test_help_comes_without_loading_what_the_work_needs(words: list[str]) -> None:
    heavy = ("torch", "diffusers", "numpy", "mediapipe", "decord", "PIL", "huggingface_hub")
    code = (
        "import sys\n"
        "from mtvcraft_cli.cli import main\n"
        f"sys.argv = ['mtvcraft', *{words!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    loaded = [name for name in {heavy!r} if name in sys.modules]\n"
        "    assert not loaded, loaded\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert (__version__ if words == ["--version"] else "Usage: mtvcraft") in result.stdout


def test_every_option_of_every_command_is_explained(tmp_path: Path) -> None:
    for command in [*COMMANDS, *GROUPED]:
        text = mtvcraft(*command.split(), "--help", cwd=tmp_path, check=0, env={"COLUMNS": "200"}).stdout
        for common in ("--json", "--quiet", "--verbose", "--debug", "--progress", "--offline", "--cache-dir"):
            assert common in text, f"{command} lacks {common}"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["animat"], "animate"),
        (["animate"], "REFERENCE"),
        (["animate", "a.png", "b.mp4", "--stepz", "3"], "--stepz"),
        (["animate", "a.png", "b.mp4", "--steps", "three"], "--steps"),
        (["animate", "a.png", "b.mp4", "--steps", "0"], "--steps"),
        (["animate", "a.png", "b.mp4", "--motion-strength", "nan"], "--motion-strength"),
        (["plan", "--ram", "inf"], "--ram"),
        (["animate", "a.png", "b.mp4", "--backend", "openpose"], "--backend"),
        (["animate", "a.png", "b.mp4", "--preset", "minni"], "minni"),
        (["animate", "a.png", "b.mp4", "--fps", "fast"], "fast"),
        (["animate", "a.png", "b.mp4", "--background", "white"], "white"),
        (["animate", "a.png", "b.mp4"], "a.png"),
        (["pose", "b.mp4"], "b.mp4"),
        (["tokenize", "b.npz"], "b.npz"),
        (["replay", "out.mp4.json"], "out.mp4.json"),
        (["cache", "burn"], "burn"),
        (["cache", "prune"], "--limit"),
        (["cache", "prune", "--limit", "much"], "much"),
        (["download", "7"], "7b"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_refused_in_two_lines(words: list[str], named: str, tmp_path: Path) -> None:
    assert_refused(mtvcraft(*words, cwd=tmp_path), 2, named)


def test_a_bare_call_shows_the_help(tmp_path: Path) -> None:
    result = mtvcraft(cwd=tmp_path, check=2)
    assert "Usage: mtvcraft" in result.stdout
    assert "error" not in result.stderr


def _steps(tmp_path: Path, *words: str, **env: str) -> int:
    from tests.cli.inputs import picture, save_joints

    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy")
    result = mtvcraft("animate", "ref.png", "drive.npy", "--dry-run", "--json", *words, cwd=tmp_path, env=env, check=0)
    return int(json.loads(result.stdout)["steps"])


def test_settings_go_flag_environment_folder_user_preset(tmp_path: Path) -> None:
    from mtvcraft_cli.preset import load_preset

    assert _steps(tmp_path) == load_preset("mini").sampler.steps
    (tmp_path / ".config" / "mtvcraft").mkdir(parents=True)
    (tmp_path / ".config" / "mtvcraft" / "config.toml").write_text("steps = 3\n")
    assert _steps(tmp_path) == 3
    (tmp_path / "mtvcraft.toml").write_text("[animate]\nsteps = 4\n")
    assert _steps(tmp_path) == 4
    assert _steps(tmp_path, MTVCRAFT_STEPS="5") == 5
    assert _steps(tmp_path, "--steps", "6", MTVCRAFT_STEPS="5") == 6


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("stepz = 3\n", "stepz"),
        ("[animat]\nsteps = 3\n", "animat"),
        ("steps = \n", "TOML"),
        ('trust-file = "evil.torchscript"\n', "trust-file"),
        ("[animate]\nforce = true\n", "force"),
    ],
)
def test_a_wrong_or_dangerous_setting_in_a_file_is_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "mtvcraft.toml").write_text(text)
    assert_refused(mtvcraft("presets", cwd=tmp_path), 2, named, "mtvcraft.toml")


def test_a_value_of_the_wrong_kind_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    result = mtvcraft("animate", "a.png", "b.mp4", cwd=tmp_path, env={"MTVCRAFT_STEPS": "many"})
    assert_refused(result, 2, "--steps", "MTVCRAFT_STEPS")
    (tmp_path / "mtvcraft.toml").write_text('steps = "many"\n')
    assert_refused(mtvcraft("animate", "a.png", "b.mp4", cwd=tmp_path), 2, "--steps", "a settings file")


def test_presets_are_listed_with_what_is_missing(tmp_path: Path) -> None:
    listed = json.loads(mtvcraft("presets", "--json", cwd=tmp_path, check=0).stdout)
    state = {preset["name"]: preset["ready"] for preset in listed}
    assert state == {"mini": True} | dict.fromkeys(("6b", "7b", "17b", "17b-fast", "18b"), False)
    text = mtvcraft("presets", cwd=tmp_path, check=0).stdout
    assert "needs tokenizer, transformer, vae" in text
    assert "CogVideoX" in mtvcraft("presets", "7b", cwd=tmp_path, check=0).stdout


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m mtvcraft_cli presets --json | head -c 1"
    result = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""


def test_verbose_says_what_a_run_depends_on_and_what_it_took(tmp_path: Path) -> None:
    (tmp_path / "mtvcraft.toml").write_text("[plan]\nframes = 9\n")
    words = ["plan", "--preset", "mini", "--vram", "8"]
    said = mtvcraft(*words, "-v", cwd=tmp_path, check=0, env={"MTVCRAFT_STEPS": "3"}).stderr
    assert f"mtvcraft {__version__}" in said
    assert "frames is `9`: a settings file says so" in said
    assert "steps is `3`: a variable says so" in said
    assert "MiB of memory at most" in said
    assert mtvcraft(*words, cwd=tmp_path, check=0).stderr == ""


def test_debug_shows_the_trace_and_nothing_else_does(tmp_path: Path) -> None:
    words = ["animate", "a.png", "b.mp4"]
    assert "Traceback" in mtvcraft(*words, "--debug", cwd=tmp_path, check=2).stderr
    assert "Traceback" not in mtvcraft(*words, "-v", cwd=tmp_path, check=2).stderr


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_within_two_seconds_and_leaves_nothing_half_written(
    wanted: signal.Signals, tmp_path: Path
) -> None:
    from tests.cli.inputs import picture, save_joints

    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", frames=400)
    toy_preset(tmp_path)
    before = {path.name for path in tmp_path.iterdir()}
    words = [
        "animate",
        "ref.png",
        "drive.npy",
        "--preset",
        "toy",
        "--steps",
        "40",
        "-o",
        "out.mp4",
        "--progress",
        "json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", *words, "--cache-dir", ".cache"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    assert process.stderr is not None
    for line in process.stderr:  # until the first denoising steps are done
        if line.startswith("{") and json.loads(line)["stage"] == "denoise":
            break
    process.send_signal(wanted)
    started = time.monotonic()
    rest = process.communicate(timeout=30)[1]
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "kept" in rest
    assert time.monotonic() - started < 10  # generous for a busy machine; about a second in truth
    assert {path.name for path in tmp_path.iterdir()} - before <= {".cache"}
