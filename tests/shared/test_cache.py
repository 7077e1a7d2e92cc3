"""What is kept is found again only when it is whole and belongs to the same inputs."""

import os
from pathlib import Path

import pytest

from mtvcraft_cli.cache import Cache, key_of
from mtvcraft_cli.cli.cache import read_size
from mtvcraft_cli.device.scratch import Scratch
from mtvcraft_cli.errors import MtvcraftError


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def _keep(cache: Cache, key: str, text: str = "joints") -> None:
    with cache.make("joints", key) as folder:
        (folder / "a.txt").write_text(text)


def test_what_was_made_is_found_again(cache: Cache) -> None:
    key = key_of("joints", {"drive": "abc"})
    assert cache.find("joints", key) is None
    _keep(cache, key)
    found = cache.find("joints", key)
    assert found is not None
    assert (found / "a.txt").read_text() == "joints"


def test_another_setting_misses() -> None:
    keys = {key_of("joints", {"drive": "abc"}), key_of("joints", {"drive": "abd"}), key_of("tokens", {"drive": "abc"})}
    assert len(keys) == 3


@pytest.mark.parametrize("damage", ["joint", "jointz", ""])
def test_a_damaged_entry_is_never_read(cache: Cache, damage: str) -> None:
    _keep(cache, "k")
    (cache.folder / "joints" / "k" / "a.txt").write_text(damage)
    assert cache.find("joints", "k") is None
    assert [entry.key for entry in cache.broken()] == ["k"]
    _keep(cache, "k")
    assert cache.find("joints", "k") is not None, "making it again mends it"


def test_a_run_that_dies_leaves_no_entry(cache: Cache) -> None:
    def die() -> None:
        with cache.make("joints", "k") as folder:
            (folder / "a.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert cache.find("joints", "k") is None
    assert cache.entries() == []
    assert list((cache.folder / "joints").iterdir()) == []


def test_clearing_takes_one_stage_or_all(cache: Cache) -> None:
    _keep(cache, "k")
    with cache.make("tokens", "k") as folder:
        (folder / "b.txt").write_text("tokens")
    assert cache.clear("tokens") > 0
    assert [entry.stage for entry in cache.entries()] == ["joints"]
    cache.clear()
    assert cache.entries() == []


def test_clearing_leaves_what_a_live_run_is_making_and_takes_what_a_dead_one_left(cache: Cache) -> None:
    dead = cache.folder / "joints" / ".k.99999999-abcd.part"
    with cache.make("joints", "k") as mine:
        (mine / "a.txt").write_text("half")
        dead.mkdir()
        scratch = Scratch(cache.folder / "offload")
        cache.clear()
        assert not dead.exists()
        assert scratch.folder.exists()
    assert cache.find("joints", "k") is not None
    scratch.remove()


def test_a_draft_is_no_entry_even_when_it_is_whole(cache: Cache) -> None:
    _keep(cache, "k")
    (cache.folder / "joints" / "k").rename(cache.folder / "joints" / ".k.99999999-abcd.part")
    assert cache.entries() == []
    assert cache.prune(0) == 0


def test_the_hash_of_a_large_file_is_remembered_until_it_changes(cache: Cache, tmp_path: Path) -> None:
    weights = tmp_path / "weights.bin"
    with weights.open("wb") as file:
        file.truncate(65 * 2**20)
    first = cache.sha256_of(weights)
    assert cache.sha256_of(weights) == first
    assert (cache.folder / "hashes.json").is_file()
    with weights.open("r+b") as file:
        file.write(b"x")
    assert cache.sha256_of(weights) != first


def test_pruning_takes_what_was_not_used_for_longest(cache: Cache) -> None:
    for age, key in enumerate(("new", "used", "old")):
        _keep(cache, key, "x" * 1000)
        os.utime(cache.folder / "joints" / key, (1000 - age, 1000 - age))
    assert cache.find("joints", "old") is not None, "which makes it the latest used"
    each_bytes = cache.entries()[0].size_bytes
    assert cache.prune(2 * each_bytes) == each_bytes
    assert {entry.key for entry in cache.entries()} == {"new", "old"}
    assert cache.prune(2 * each_bytes) == 0
    assert cache.prune(0) == 2 * each_bytes
    assert cache.entries() == []
    assert list((cache.folder / "joints").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("10GB", 10**10), ("500 mb", 5 * 10**8), ("1.5G", 15 * 10**8), ("2GiB", 2**31), ("0", 0), ("7B", 7)],
)
def test_a_limit_is_written_as_people_write_sizes(text: str, size_bytes: int) -> None:
    assert read_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "much", "-1GB", "10XB", "1iB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(MtvcraftError, match="is no size"):
        read_size(text)
