"""What is kept is found again only when it is whole and belongs to the same inputs."""

from pathlib import Path

import pytest

from mtvcraft_cli.cache import Cache, key_of


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
