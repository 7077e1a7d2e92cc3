"""Videos that Pillow reads: folders and patterns of pictures, moving WebP and AVIF."""

import re
from collections.abc import Generator, Sequence
from fractions import Fraction
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.shapes import Picture
from mtvcraft_cli.video.kind import Kind, kind_of
from mtvcraft_cli.video.picture import check_size, opened, read_picture, reading, to_rgb
from mtvcraft_cli.video.rate import Ticks

Colour: TypeAlias = tuple[int, int, int]
USUAL_RATE = Fraction(25)
USUAL_MS = 100
"""How long browsers show a frame that claims to last no time."""
NAMED = 3
"""So many gaps are named one by one."""
MILLISECOND = Fraction(1, 1000)


def list_pictures(path: Path) -> tuple[list[Path], list[str]]:
    """List the pictures of a folder, or those that a pattern fits, in the order of the numbers in their names.

    Args:
        path: a folder, of which only the pictures count, or a pattern such as `frames/*.png`.

    Returns:
        The files (2 before 10), and sentences on what was left out or is missing.

    Raises:
        MtvcraftError: there are none (exit 2 for a pattern, else 4); a pattern fits what is no picture (exit 4).
    """
    folder = path.is_dir()
    found = path.iterdir() if folder else map(Path, glob(str(path)))  # noqa: PTH207, the pattern may be absolute
    files = [file for file in found if file.is_file()]
    visible = sorted((file for file in files if not file.name.startswith(".")), key=natural)
    pictures = [file for file in visible if kind_of(file) in (Kind.PICTURE, Kind.ANIMATION)]
    others = sorted(set(visible) - set(pictures), key=natural)
    if others and not folder:
        raise MtvcraftError(
            f"`{path}` fits `{others[0].name}`, which is {kind_of(others[0]).value}, not a picture",
            hint=f"make the pattern narrower, such as `{path.parent / ('*' + (pictures or [Path('.png')])[0].suffix)}`",
        )
    if not pictures:
        what = f"`{path}` is a folder without pictures" if folder else f"no file fits `{path}`"
        raise MtvcraftError(what, hint="check the name and the folder", exit=Exit.INPUT if folder else Exit.USAGE)
    said = [f"frames of a folder: left out {_some([f'`{file.name}`' for file in others])}"] if others else []
    return pictures, [*said, *_gaps(pictures)]


def natural(path: Path) -> list[tuple[int, str]]:
    """Sort key: the numbers in a name count as numbers, 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", str(path))]


def _some(names: Sequence[str]) -> str:
    """Join a few names; count the rest."""
    if len(names) <= NAMED:
        return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"


def _gaps(pictures: Sequence[Path]) -> list[str]:
    """Say which numbers are missing, where names differ in one number only."""
    parts = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", picture.stem) for picture in pictures]
    if None in parts or len({(part[1], part[3]) for part in parts if part}) > 1:
        return []
    numbers = [int(part[2]) for part in parts if part]
    spans = [(one + 1, next_one - 1) for one, next_one in pairwise(numbers) if next_one > one + 1]
    if not spans:
        return []
    missing = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    word = "number" if missing[0].isdigit() and len(missing) == 1 else "numbers"
    verb = "is" if word == "number" else "are"
    return [f"frames of a folder: {word} {_some(missing)} {verb} missing; the others follow each other"]


def common_size_px(pictures: Sequence[Path]) -> tuple[int, int]:
    """Return width and height of pictures, all of one size, without decoding them.

    Raises:
        MtvcraftError: one can't be read, is over 100 megapixels, or of another size (exit 4).
    """
    wanted = (0, 0)
    for picture in pictures:
        size = size_px(picture)
        wanted = size if picture is pictures[0] else wanted
        if size != wanted:
            raise MtvcraftError(
                f"`{picture}` is {size[0]} x {size[1]} pixels, the frames before it {wanted[0]} x {wanted[1]}",
                hint="bring all frames to one size, or leave this one out by a narrower pattern",
            )
    return wanted


def size_px(picture: Path) -> tuple[int, int]:
    """Return width and height of a picture as it's shown; only its header is read."""
    with opened(picture) as image:
        check_size(picture, image.width, image.height)
        aslant = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        return (image.height, image.width) if aslant else image.size


def picture_frames(pictures: Sequence[Path], first: int, background: Colour) -> Generator[Picture, None, None]:
    """Read pictures from number `first` on, (H, W, 3) RGB, 0..255."""
    for picture in pictures[first:]:
        yield read_picture(picture, background)


def moving_ticks(path: Path) -> tuple[Ticks, int]:
    """Find when each frame of a moving WebP or AVIF is shown.

    Returns:
        (T,) milliseconds, and how long the last frame is shown. Frames have to be decoded to know.

    Raises:
        MtvcraftError: it is damaged (exit 4).
    """
    with opened(path) as image:
        lengths = []
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            lengths.append(round(image.info.get("duration", 0)) or USUAL_MS)
    return np.cumsum([0, *lengths[:-1]]), lengths[-1]


def moving_frames(path: Path, first: int, background: Colour) -> Generator[Picture, None, None]:
    """Read the frames of a moving WebP or AVIF from number `first` on, (H, W, 3) RGB, 0..255."""
    with reading(path):
        image = Image.open(path)
    with image:
        for index in range(first, getattr(image, "n_frames", 1)):
            with reading(path):  # not around the yield: it would hold back the warnings of whoever takes the frames
                image.seek(index)
                seen = np.array(to_rgb(image, background))
            yield seen
