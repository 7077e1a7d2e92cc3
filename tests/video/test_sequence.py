from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.video.read import open_clip, probe
from tests.clips import make_text, number_of, source_frames


def save_frames(folder: Path, names: list[str], size_px: tuple[int, int] = (160, 96)) -> Path:
    """Save frames that know their number, the first under the first name."""
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, source_frames(len(names), size_px), strict=True):
        Image.fromarray(frame).save(folder / name)
    return folder


def numbers_of(path: Path) -> list[int]:
    return [number_of(frame) for batch in open_clip(path).batches(4) for frame in batch]


@pytest.mark.parametrize(
    "names",
    [
        [f"{number}.png" for number in range(12)],
        [f"frame{number:04d}.jpg" for number in range(8, 20)],
        ["take 1 frame 2.png", "take 1 frame 10.png", "take 2 frame 1.png", "take 10 frame 1.png"],
        ["a.png", "b.webp", "c.bmp"],
    ],
)
def test_frames_follow_the_numbers_in_their_names(names: list[str], tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "frames", names)
    assert numbers_of(folder) == list(range(len(names)))
    assert probe(folder).assumed == ("frames of a folder: took 25 frames a second",)


def test_a_pattern_takes_what_fits(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "frames", ["a1.png", "a2.png", "a10.png", "b1.png"])
    make_text(folder / "about.txt")
    assert numbers_of(folder / "a*.png") == [0, 1, 2]
    assert numbers_of(folder / "a?.png") == [0, 1]
    assert numbers_of(folder / "[b]*.png") == [3]


def test_a_rate_that_is_given_is_taken_and_nothing_is_assumed(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "frames", ["1.png", "2.png", "3.png"])
    info = probe(folder, rate=Fraction(24000, 1001))
    assert info.rate == Fraction(24000, 1001)
    assert info.duration_s == 3 * Fraction(1001, 24000)
    assert info.assumed == ()
    cut = open_clip(folder, rate=Fraction(10), start_s=Fraction(1, 10), end_s=Fraction(2, 10))
    assert [number_of(frame) for batch in cut.batches() for frame in batch] == [1]


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([1, 2, 4], "number 3 is missing"),
        ([1, 2, 6], "numbers 3 to 5 are missing"),
        ([1, 3, 7], "numbers 2 and 4 to 6 are missing"),
        ([1, 3, 5, 7, 9, 11], "numbers 2, 4, 6 and 2 more are missing"),
    ],
)
def test_missing_numbers_are_told(numbers: list[int], words: str, tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "frames", [f"frame{number:03d}.png" for number in numbers])
    info = probe(folder)
    assert info.frames == len(numbers)
    assert any(words in sentence for sentence in info.assumed)


def test_other_files_of_a_folder_are_left_out_and_told(tmp_path: Path) -> None:
    folder = save_frames(tmp_path / "frames", ["1.png", "2.png"])
    make_text(folder / "about.txt")
    (folder / ".hidden").write_bytes(b"?")
    (folder / "more").mkdir()
    assert numbers_of(folder) == [0, 1]
    assert "frames of a folder: left out `about.txt`" in probe(folder).assumed


def test_frames_are_turned_and_put_on_the_background_like_pictures(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(2):
        Image.new("RGBA", (40, 20), (255, 0, 0, 51)).save(folder / f"{number}.png", exif=exif)
    clip = open_clip(folder, background=(0, 0, 255))
    assert clip.info.size_px == (20, 40)
    frames = next(clip.batches())
    assert frames.shape == (2, 40, 20, 3)
    np.testing.assert_allclose(frames[1, 5, 5], [51, 0, 204], atol=1)


def save_odd(folder: Path) -> Path:
    save_frames(folder, ["1.png", "3.png"])
    Image.new("RGB", (160, 98)).save(folder / "2.png")
    return folder


def with_text(folder: Path) -> Path:
    save_frames(folder, ["1.png"])
    make_text(folder / "2.png")
    return folder / "*.png"


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def damaged(folder: Path) -> Path:
    save_frames(folder, ["1.png", "2.png"])
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:200])
    return folder


BAD: dict[str, tuple[Callable[[Path], Path], Exit, str, str]] = {
    "one of another size": (save_odd, Exit.INPUT, r"`.*2\.png` is 160 x 98 pixels, .* 160 x 96", "one size"),
    "a pattern that fits text": (with_text, Exit.INPUT, r"fits `2\.png`, which is text", "narrower"),
    "a folder without pictures": (empty, Exit.INPUT, "folder without pictures", "check"),
    "a pattern that fits nothing": (lambda folder: folder / "*.png", Exit.USAGE, "no file fits", "check"),
}


@pytest.mark.parametrize(("make", "exit", "words", "hint"), BAD.values(), ids=BAD.keys())
def test_what_is_no_sequence_is_refused_with_a_way_out(
    make: Callable[[Path], Path], exit: Exit, words: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(MtvcraftError, match=words) as caught:
        probe(make(tmp_path / "frames"))
    assert caught.value.exit is exit
    assert hint in caught.value.hint


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    folder = damaged(tmp_path / "frames")
    with pytest.raises(MtvcraftError, match=r"2\.png` is a damaged picture"):
        list(open_clip(folder).batches())


@pytest.mark.parametrize("file", ["a.webp", "a.avif"])
def test_frames_of_a_moving_picture_that_last_unequally_are_shown_as_long_as_they_last(
    file: str, tmp_path: Path
) -> None:
    pictures = [Image.fromarray(frame) for frame in source_frames(4)]
    durations = [40, 120, 40, 80]
    pictures[0].save(tmp_path / file, save_all=True, append_images=pictures[1:], duration=durations)
    clip = open_clip(tmp_path / file)
    assert clip.info.variable
    assert clip.info.reader == "pillow"
    times_s = [float(index / clip.info.rate) for index in range(clip.info.frames)]
    ends_s = np.cumsum(durations) / 1000
    middles_s = np.array(times_s) + 0.5 / float(clip.info.rate)
    assert float(clip.info.duration_s) == pytest.approx(ends_s[-1], abs=0.5 / float(clip.info.rate))
    wanted = np.searchsorted(ends_s, middles_s, side="right").clip(max=3).tolist()
    assert [number_of(frame) for batch in clip.batches(3) for frame in batch] == wanted
    assert clip.info.assumed == (f"frames come at uneven times: put on an even {float(clip.info.rate):g} a second",)
