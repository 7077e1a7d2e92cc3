"""Frames kept losslessly, and what of a picture is seen after it was fitted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video.frames import END, FrameWriter, check_frames_folder, holds_frames, is_taken
from mtvcraft_cli.video.picture import crop_box, fit_picture
from tests.clips import source_frames


def test_the_folder_appears_when_the_last_frame_is_written_and_holds_them_bit_by_bit(tmp_path):
    frames = source_frames(5, (48, 32))
    with FrameWriter(tmp_path / "out") as writer:
        writer.write(frames[:3])
        writer.write(frames[3:])
        assert not (tmp_path / "out").exists()
    names = [f"000{number}.png" for number in range(1, 6)]
    assert sorted(file.name for file in (tmp_path / "out").glob("*.png")) == names
    for name, frame in zip(names, frames, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / name)), frame)
    assert holds_frames(tmp_path / "out")
    assert not holds_frames(tmp_path / "out", "another run's")
    (tmp_path / "out" / "0002.png").unlink()
    assert not holds_frames(tmp_path / "out")


def test_a_run_that_fails_leaves_the_older_frames_and_no_draft(tmp_path):
    with FrameWriter(tmp_path / "out") as writer:
        writer.write(source_frames(2))

    def fail() -> None:
        with FrameWriter(tmp_path / "out") as writer:
            writer.write(source_frames(4))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_frames_that_cannot_take_their_place_leave_the_older_ones(tmp_path, monkeypatch):
    with FrameWriter(tmp_path / "out") as writer:
        writer.write(source_frames(2))
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name.endswith(".part"):
            raise PermissionError(13, "no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError), FrameWriter(tmp_path / "out") as writer:
        writer.write(source_frames(4))
    assert len(list((tmp_path / "out").glob("*.png"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_missing_is_refused_and_an_empty_one_is_free(tmp_path):
    with pytest.raises(MtvcraftError) as refused, FrameWriter(tmp_path / "no" / "out"):
        pass
    assert refused.value.exit is Exit.USAGE
    assert not is_taken(tmp_path / "out")
    (tmp_path / "out").mkdir()
    assert not is_taken(tmp_path / "out")
    (tmp_path / "out" / "a.txt").write_text("mine")
    assert is_taken(tmp_path / "out")


def test_a_link_stays_one_and_the_frames_lie_where_it_leads(tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "large")
    for count in (2, 3):
        with FrameWriter(tmp_path / "out", "this") as writer:
            writer.write(source_frames(count))
        assert holds_frames(tmp_path / "large", "this")
    assert (tmp_path / "out").is_symlink()
    assert len(list((tmp_path / "large").glob("*.png"))) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "out"]


@pytest.mark.parametrize("name", [".", "..", "no/out", "file", "above", "mine", "pictures"])
def test_a_folder_where_more_than_our_frames_would_go_away_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    for folder in ("above", "mine", "pictures"):
        (tmp_path / folder).mkdir()
    (tmp_path / "mine" / "a.txt").write_text("mine")
    (tmp_path / "mine" / END).write_text("{}")
    (tmp_path / "pictures" / "1.png").write_bytes(b"mine")
    with pytest.raises(MtvcraftError) as refused:
        check_frames_folder(Path(name), [Path("above/out.mp4")])
    assert refused.value.exit is Exit.USAGE
    check_frames_folder(Path("new"), [Path("above/out.mp4")])


@pytest.mark.parametrize(
    ("picture_px", "size_px"), [((96, 128), (32, 32)), ((640, 360), (32, 48)), ((50, 50), (64, 64))]
)
def test_the_crop_box_is_what_a_fitted_picture_shows(picture_px, size_px):
    width, height = picture_px
    left, top, right, bottom = crop_box(picture_px, size_px)
    assert abs((right - left) / (bottom - top) - size_px[0] / size_px[1]) < 0.03
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[top:bottom, left:right] = 255
    assert fit_picture(ramp, size_px).mean() > 250
