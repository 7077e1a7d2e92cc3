"""Downloads from a real server on loopback that misbehaves: a clear end each time, and nothing corrupt left."""

import errno
import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.progress import Unseen
from mtvcraft_cli.weights.fetching import plan, ranges
from mtvcraft_cli.weights.fetching.patience import Patience
from mtvcraft_cli.weights.fetching.pieces import Settings
from mtvcraft_cli.weights.fetching.run import fetch_all
from mtvcraft_cli.weights.locate import find_released
from mtvcraft_cli.weights.lock import Lock, pinned_hashes, weights_folder
from mtvcraft_cli.weights.manifest import File, Released, Source
from tests.hub import COMMIT, TOKEN, Fault, Hub, serving, sha256

REPO = "someone/weights"
PATH = "part/model.bin"
CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("MTVCRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # read when it was imported


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(files={REPO: {PATH: CONTENT, "part/config.json": b"{}"}, "plain": {"net.ckpt": CONTENT}})) as hub:
        yield hub


def on_hub(path: str = PATH, **more: Any) -> Released:
    source = Source(kind="hub", repo=REPO, files=(File(path=path, **more),))
    return Released(name="toy", repo=REPO, path=path.split("/")[0], bytes=None, licence="none", sources=(source,))


def on_server(hub: Hub, **more: Any) -> Released:
    source = Source(
        kind="http", repo="somewhere/release", url=f"{hub.url}/plain/", files=(File(path="net.ckpt", **more),)
    )
    return Released(name="toy", path="net.ckpt", bytes=None, licence="none", sources=(source,))


def settings(hub: Hub, **more: Any) -> Settings:
    return Settings(endpoint=hub.url, patience=Patience(tries=3, wait_s=0.01), **more)


def fetch(hub: Hub, *wanted: Released, **more: Any) -> None:
    fetch_all(wanted, settings(hub, **more), Unseen())


def there(tmp_path: Path) -> dict[str, bytes]:
    """Everything that somebody could take for a finished file."""
    folders = (tmp_path / "hub", tmp_path / "cache" / "weights")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    unfinished = (".part", ".part.json", ".lock", "lock.json", "CACHEDIR.TAG")
    return {
        str(path): path.read_bytes()
        for path in files
        if not path.name.endswith(unfinished) and "refs" not in path.parts
    }


def refused(hub: Hub, released: Released, tmp_path: Path, *words: str, exit_code: Exit = Exit.WEIGHTS) -> MtvcraftError:
    with pytest.raises(MtvcraftError) as caught:
        fetch(hub, released)
    assert caught.value.exit is exit_code
    for word in words:
        assert word in f"{caught.value.message}\n{caught.value.hint}"
    assert there(tmp_path) == {}
    return caught.value


def test_a_repository_s_files_are_found_by_locate_and_by_other_programs(hub: Hub, tmp_path: Path) -> None:
    released = on_hub("part/*")
    fetch(hub, released)
    place = find_released(released, None)
    assert place == tmp_path / "hub" / "models--someone--weights" / "snapshots" / COMMIT / "part"
    assert (place / "model.bin").read_bytes() == CONTENT
    assert (place / "model.bin").resolve().name == sha256(CONTENT)
    from huggingface_hub import hf_hub_download

    cache = tmp_path / "hub"
    assert Path(hf_hub_download(REPO, PATH, cache_dir=cache, local_files_only=True)).read_bytes() == CONTENT
    assert Lock().pinned(released.sources[0], PATH) == (len(CONTENT), sha256(CONTENT))
    assert not list(cache.rglob("*.part*"))


@pytest.mark.parametrize("cut_at", [-1, 0, 1, 150_000, len(CONTENT) - 1])
@pytest.mark.parametrize("kind", ["hub", "http"])
def test_a_connection_that_is_cut_goes_on_where_it_was(hub: Hub, tmp_path: Path, cut_at: int, kind: str) -> None:
    path = PATH if kind == "hub" else "net.ckpt"
    hub.faults[path] = [Fault(cut_at=cut_at)]
    fetch(hub, on_hub() if kind == "hub" else on_server(hub))
    assert CONTENT in there(tmp_path).values()
    gets = [each for each in hub.gets(path) if "/resolve/" not in each.path]
    assert gets[-1].range == (f"bytes={cut_at}-" if cut_at > 0 else "")
    assert len(gets) == 2


@pytest.mark.parametrize("kind", ["hub", "http"])
def test_a_server_that_always_breaks_off_is_an_error_and_the_next_run_goes_on(
    hub: Hub, tmp_path: Path, kind: str
) -> None:
    released, path = (on_hub(), PATH) if kind == "hub" else (on_server(hub), "net.ckpt")
    hub.faults[path] = [Fault(cut_at=200_000)] * 4
    refused(hub, released, tmp_path, "broke off after 200000 of 300000 bytes", "goes on from here")
    hub.asked.clear()
    fetch(hub, released)
    assert CONTENT in there(tmp_path).values()
    assert {each.range for each in hub.gets(path)} == {"bytes=200000-"}


def test_bytes_that_were_counted_are_those_that_came(hub: Hub) -> None:
    class Counting(Unseen):
        total = done = 0

        def begin(self, total: int, done: int) -> None:
            self.total, self.done = total, done

        def advance(self, count: int) -> None:
            self.done += count

    meter = Counting()
    hub.faults[PATH] = [Fault(cut_at=150_000), Fault(no_ranges=True)]
    fetch_all([on_hub()], settings(hub), meter)
    assert meter.done == meter.total == len(CONTENT)


@pytest.mark.parametrize("kind", ["hub", "http"])
def test_a_wrong_hash_is_thrown_away(hub: Hub, tmp_path: Path, kind: str) -> None:
    path = PATH if kind == "hub" else "net.ckpt"
    hub.faults[path] = [Fault(flip=True)]
    released = on_hub() if kind == "hub" else on_server(hub, sha256=sha256(CONTENT))
    refused(hub, released, tmp_path, "SHA-256", "--from DIR")
    assert not list(tmp_path.rglob("*.part"))
    fetch(hub, released)
    assert CONTENT in there(tmp_path).values()


def test_beginnings_of_another_file_are_noticed_and_fetched_anew(hub: Hub, tmp_path: Path) -> None:
    released = on_server(hub, sha256=sha256(CONTENT))
    part = weights_folder() / "somewhere/release/net.ckpt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    fetch(hub, released)
    assert CONTENT in there(tmp_path).values()


def test_a_file_that_changed_on_the_server_is_not_patched_together(hub: Hub, tmp_path: Path) -> None:
    hub.faults["net.ckpt"] = [Fault(cut_at=200_000)] * 4
    refused(hub, on_server(hub), tmp_path)
    changed = bytes(reversed(CONTENT))
    hub.files["plain"]["net.ckpt"], hub.etag = changed, '"second"'
    fetch(hub, on_server(hub))
    assert list(there(tmp_path).values()) == [changed]


def test_a_server_without_ranges_starts_anew(hub: Hub, tmp_path: Path) -> None:
    hub.faults["net.ckpt"] = [Fault(cut_at=200_000), Fault(no_ranges=True)]
    fetch(hub, on_server(hub))
    assert list(there(tmp_path).values()) == [CONTENT]


def test_what_was_whole_already_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    part = weights_folder() / "somewhere/release/net.ckpt.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    part.with_name("net.ckpt.part.json").write_text(json.dumps({"is": hub.etag}))
    fetch(hub, on_server(hub))
    assert list(there(tmp_path).values()) == [CONTENT]
    assert not list(tmp_path.rglob("*.part*"))


def test_what_is_not_there_says_so(hub: Hub, tmp_path: Path) -> None:
    refused(hub, on_hub("part/gone.bin"), tmp_path, "404", "--endpoint")
    refused(hub, on_hub("nowhere/*"), tmp_path, "holds no file like `nowhere/*`")
    hub.files["plain"].clear()
    refused(hub, on_server(hub), tmp_path, "404")
    del hub.files[REPO]
    refused(hub, on_hub("part/*"), tmp_path, "there is no `someone/weights`")


def test_a_closed_repository_asks_for_a_token_and_takes_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPO)
    refused(hub, on_hub(), tmp_path, "terms", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(hub, on_hub())
    assert CONTENT in there(tmp_path).values()
    elsewhere = [each for each in hub.asked if each.host == "localhost"]
    assert elsewhere
    assert not any(each.authorization for each in elsewhere), "the token went to another host"


@pytest.mark.parametrize("what", ["listing", "HEAD", PATH])
def test_a_busy_server_is_asked_again_when_it_says(hub: Hub, tmp_path: Path, what: str) -> None:
    hub.faults[what] = [Fault(status=429, retry_after="0"), Fault(status=503)]
    fetch(hub, on_hub("part/*"))
    assert CONTENT in there(tmp_path).values()


def test_a_server_that_stays_busy_or_wants_an_hour_is_an_error(hub: Hub, tmp_path: Path) -> None:
    hub.faults["net.ckpt"] = [Fault(status=429, retry_after="0")] * 3
    refused(hub, on_server(hub), tmp_path, "429", "try again later")
    hub.faults["net.ckpt"] = [Fault(status=429, retry_after="3600")]
    refused(hub, on_server(hub), tmp_path, "429")


def test_no_server_at_all_is_an_error(hub: Hub, tmp_path: Path) -> None:
    gone = replace(hub, port=1)
    refused(gone, on_hub("part/*"), tmp_path, "can't be reached")
    refused(gone, on_server(gone), tmp_path, "can't be reached")


def test_the_next_source_is_tried_and_said(hub: Hub, tmp_path: Path) -> None:
    first, second = on_hub("part/gone.bin"), on_server(hub)
    said: list[str] = []
    fetch(hub, replace(first, sources=(*first.sources, *second.sources)), say=said.append)
    assert list(there(tmp_path).values()) == [CONTENT]
    assert "trying somewhere/release" in said[0]
    assert pinned_hashes(second) == [sha256(CONTENT)], "what runs code may be run if it came from where it is published"


def test_one_that_fails_doesn_t_keep_the_others(hub: Hub, tmp_path: Path) -> None:
    with pytest.raises(MtvcraftError, match=r"gone\.bin"):
        fetch(hub, replace(on_hub("part/gone.bin"), name="gone"), on_server(hub))
    assert list(there(tmp_path).values()) == [CONTENT]


def test_a_file_that_is_another_one_later_is_refused(hub: Hub, tmp_path: Path) -> None:
    released = on_server(hub)
    fetch(hub, released)
    (weights_folder() / "somewhere/release/net.ckpt").unlink()
    hub.files["plain"]["net.ckpt"] = bytes(reversed(CONTENT))
    refused(hub, released, tmp_path, "was", "when it was first fetched", "lock.json")
    hub.files[REPO][PATH] = CONTENT
    fetch(hub, on_hub())
    shutil.rmtree(tmp_path / "hub")
    hub.files[REPO][PATH] = CONTENT + b"more"
    refused(hub, on_hub(), tmp_path, "another file than when it was first fetched", "lock.json")


@pytest.mark.parametrize(
    ("path", "content", "why"),
    [
        ("net.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00" + b'{"a":1}', "no safetensors"),
        ("net.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS pointer"),
        ("net.pth", b"PK\x03\x04 and then nothing", "end is missing"),
        ("net.pth", b"<!DOCTYPE html><title>Sign in</title>", "web page"),
    ],
)
def test_what_can_be_no_weights_is_refused_where_no_hash_is_known(
    hub: Hub, tmp_path: Path, path: str, content: bytes, why: str
) -> None:
    hub.files["plain"][path] = content
    source = Source(kind="http", repo="somewhere/release", url=f"{hub.url}/plain/", files=(File(path=path),))
    released = Released(name="toy", path=path, bytes=None, licence="none", sources=(source,))
    refused(hub, released, tmp_path, why)


def test_a_hub_that_lists_both_kinds_and_several_precisions_gives_one(hub: Hub, tmp_path: Path) -> None:
    safetensors = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"
    names = ("m.safetensors", "m.fp16.safetensors", "m.bin", "m.bin.index.json", "README.md", "in/deeper.safetensors")
    hub.files[REPO] = {f"both/{name}": b"{}" if name.endswith("json") else safetensors for name in names}
    hub.files[REPO]["both/config.json"] = b"{}"
    fetch(hub, on_hub("both/*"))
    assert {Path(path).name for path in there(tmp_path) if "snapshots" in path} == {"m.safetensors", "config.json"}


def test_two_files_of_one_content_are_both_shown(hub: Hub, tmp_path: Path) -> None:
    hub.files[REPO]["part/twin.bin"] = CONTENT
    fetch(hub, on_hub("part/*"))
    assert {Path(path).name for path in there(tmp_path) if "snapshots" in path} == {
        *("model.bin", "twin.bin", "config.json")
    }


def test_a_file_that_was_damaged_since_is_fetched_again(hub: Hub, tmp_path: Path) -> None:
    for released in (on_hub(), on_server(hub)):
        fetch(hub, released)
    damaged = [Path(path) for path in there(tmp_path)]
    for path in damaged:
        path.write_bytes(b"x" + path.read_bytes()[1:])
    fetch(hub, on_hub())
    fetch(hub, on_server(hub))
    assert {path: path.read_bytes() for path in damaged} == dict.fromkeys(damaged, CONTENT)


def test_a_plan_names_the_files_once_the_hub_has_told_them(hub: Hub, tmp_path: Path) -> None:
    released = replace(on_hub("part/*"), bytes=1000)
    (before,) = plan.list_files(released)
    assert (before.path, before.bytes, before.estimated, before.present) == ("part/*", 1000, True, False)
    hub.faults[PATH] = [Fault(status=404)]
    with pytest.raises(MtvcraftError):
        fetch(hub, released)
    config, weights = plan.list_files(released)
    assert (config.path, config.bytes, config.present) == ("part/config.json", 2, True)
    assert (weights.path, weights.bytes, weights.sha256) == (PATH, len(CONTENT), sha256(CONTENT))
    assert not weights.present
    fetch(hub, released)
    assert all(item.present for item in plan.list_files(released))


def test_shards_without_their_brothers_are_not_found(hub: Hub, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "m-00001-of-00002.bin", "b": "m-00002-of-00002.bin"}}
    hub.files[REPO] = {
        "m/m-00001-of-00002.bin": b"one",
        "m/m-00002-of-00002.bin": CONTENT,
        "m/m.bin.index.json": json.dumps(index).encode(),
    }
    hub.faults["m/m-00002-of-00002.bin"] = [Fault(status=404)]
    released = on_hub("m/*")
    with pytest.raises(MtvcraftError):
        fetch(hub, released)
    assert any(path.endswith("m-00001-of-00002.bin") for path in there(tmp_path))
    assert find_released(released, None) is None
    fetch(hub, released)
    assert find_released(released, None) is not None


def test_the_network_is_not_used_where_it_is_not_to_be(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(hub, on_hub(), tmp_path, "not to be used", "--from DIR")
    assert hub.asked == []


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A disk of 128 kB; where none may be mounted, one that pretends."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    monkeypatch.setenv("MTVCRAFT_CACHE", str(folder))
    if not mounted:
        usage = shutil.disk_usage(folder)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=128 * 1024))

        def full(answer: Any, part: Path, *rest: Any) -> None:
            part.write_bytes(answer.read(100_000))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(ranges, "_copy", full)
    yield folder
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_without_room_is_refused_before_anything_is_fetched(hub: Hub, tmp_path: Path, small_disk: Path) -> None:
    refused(hub, on_server(hub, bytes=len(CONTENT)), tmp_path, "300 kB", "free some space", exit_code=Exit.FIT)
    assert hub.gets("net.ckpt") == []


def test_a_disk_that_fills_up_is_said_and_what_came_is_kept(hub: Hub, tmp_path: Path, small_disk: Path) -> None:
    refused(hub, on_server(hub), tmp_path, "the disk is full", "goes on from here", exit_code=Exit.FIT)
    (part,) = small_disk.rglob("*.part")
    assert 0 < part.stat().st_size < len(CONTENT)
    assert CONTENT.startswith(part.read_bytes())


def test_two_at_once_fetch_a_file_once(hub: Hub, tmp_path: Path) -> None:
    hub.pause_s = 0.01
    errors: list[BaseException] = []

    def one() -> None:
        try:
            fetch(hub, on_server(hub))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert len(hub.gets("net.ckpt")) == 1
    assert list(there(tmp_path).values()) == [CONTENT]


def test_a_lock_that_a_dead_run_left_is_none(hub: Hub, tmp_path: Path) -> None:
    lock = weights_folder() / ".locks" / "somewhere/release/net.ckpt.mtvcraft.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("4194304")
    fetch(hub, on_server(hub))
    assert list(there(tmp_path).values()) == [CONTENT]


def test_clearing_the_cache_leaves_weights_and_beginnings(hub: Hub, tmp_path: Path) -> None:
    fetch(hub, on_server(hub))
    (weights_folder() / "somewhere/release/other.part").write_bytes(b"beginnings")
    Cache(tmp_path / "cache").clear()
    assert CONTENT in there(tmp_path).values()
    assert (weights_folder() / "somewhere/release/other.part").is_file()
