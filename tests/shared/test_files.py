from pathlib import Path

import pytest

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole, writing
from tests.clips import names_in


def test_the_file_is_old_until_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with writing(path) as draft:
        draft.write_text("new")
        assert path.read_text() == "old"
        assert draft.parent == tmp_path
        assert draft.name.startswith(".a.")
        assert draft.suffix == ".txt"
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["a.txt"]


def test_others_may_read_a_file_whatever_its_writer_thinks(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain", tmp_path / "a.safetensors"
    plain.touch()
    with writing(path) as draft:
        draft.touch(mode=0o600)
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_failure_leaves_the_old_file_only(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail() -> None:
        with writing(path) as draft:
            draft.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("name", ["missing/a.txt", "folder"])
def test_a_place_where_no_file_can_be_is_a_usage_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(MtvcraftError) as caught, writing(tmp_path / name):
        pytest.fail("too late")
    assert caught.value.exit is Exit.USAGE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_said_in_our_words(tmp_path: Path) -> None:
    def fill() -> None:
        with writing(tmp_path / "a.txt") as draft:
            draft.write_text("half")
            Path("/dev/full").write_text("the other half")

    with pytest.raises(MtvcraftError, match="no space left for") as caught:
        fill()
    assert caught.value.exit is Exit.FIT
    assert names_in(tmp_path) == []


def test_text_is_written_whole(tmp_path: Path) -> None:
    write_text_whole(tmp_path / "a.txt", "ünïcode\n")
    assert (tmp_path / "a.txt").read_bytes() == "ünïcode\n".encode()
