"""A figure before a plain ground is found; where it can't be told, nothing is claimed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mtvcraft_cli.video.figure import figure_box
from mtvcraft_cli.video.picture import read_picture
from mtvcraft_cli.video.read import open_clip

ASSETS = Path(__file__).parents[2] / "assets"
MEDIA = Path(__file__).parents[3] / "shared" / "media"
FIGURE = (0.3, 0.1, 0.6, 0.9)


def drawn(ground: np.ndarray, box: tuple[float, float, float, float] = FIGURE) -> np.ndarray:
    """Draw a body and a head onto a ground."""
    image = Image.fromarray(ground)
    width, height = image.size
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    pen, middle, neck = ImageDraw.Draw(image), (left + right) / 2, top + (bottom - top) / 5
    pen.ellipse((middle - width / 16, top, middle + width / 16, neck + 2), fill=(200, 40, 60))
    pen.polygon([(middle, neck), (left, bottom), (right, bottom)], fill=(40, 60, 160))
    return np.array(image)


def plain(colour: int = 240, size_px: tuple[int, int] = (600, 800)) -> np.ndarray:
    return np.full((*size_px[::-1], 3), colour, np.uint8)


def _lit() -> np.ndarray:
    """A wall that is lit from one side, above a darker floor."""
    ground = plain()
    ground[:] = np.clip(np.linspace(150, 195, 600)[None, :, None] + np.linspace(0, 20, 800)[:, None, None], 0, 255)
    ground[600:] //= 2
    return ground


def _grainy() -> np.ndarray:
    return np.clip(plain(128) + np.random.default_rng(0).normal(0, 12, (800, 600, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("ground", [plain(), plain(0), _lit(), _grainy()], ids=["white", "black", "lit", "grainy"])
def test_the_box_of_a_figure_on_a_plain_ground_is_found(ground: np.ndarray) -> None:
    assert figure_box(drawn(ground)) == pytest.approx(FIGURE, abs=0.02)


def test_a_figure_cut_off_below_reaches_the_edge() -> None:
    box = figure_box(drawn(plain(), (0.2, 0.2, 0.8, 1.2)))
    assert box is not None
    assert box[1] == pytest.approx(0.2, abs=0.02)
    assert box[3] == 1


def test_a_frame_around_the_picture_is_left_out() -> None:
    framed = plain(0, (1000, 900))
    framed[50:850, 200:800] = drawn(plain())
    left, top, right, bottom = FIGURE
    expected = (0.2 + 0.6 * left, (50 + 800 * top) / 900, 0.2 + 0.6 * right, (50 + 800 * bottom) / 900)
    assert figure_box(framed) == pytest.approx(expected, abs=0.02)


def test_nothing_is_claimed_of_clutter_an_empty_picture_or_two_figures() -> None:
    draw = np.random.default_rng(1)
    blocks = draw.integers(0, 255, (10, 8, 3), dtype=np.uint8).repeat(80, axis=0).repeat(75, axis=1)
    two = drawn(drawn(plain(), (0.1, 0.2, 0.4, 0.9)), (0.6, 0.2, 0.9, 0.9))
    for picture in (blocks, drawn(blocks), plain(), two, plain(9, (3, 2))):
        assert figure_box(picture) is None


@pytest.mark.parametrize(
    ("name", "top", "bottom"), [("robot", 0.11, 0.91), ("astronaut", 0.08, 0.9), ("owl", 0.16, 0.9)]
)
def test_our_own_characters_are_found(name: str, top: float, bottom: float) -> None:
    box = figure_box(read_picture(ASSETS / f"{name}.png"))
    assert box is not None
    assert (box[1], box[3]) == pytest.approx((top, bottom), abs=0.03)


def _media(name: str) -> Path:
    if not (MEDIA / name).exists():
        pytest.skip(f"the folder `shared` beside the checkout has no media/{name}")
    return MEDIA / name


def test_a_photo_from_a_studio_gives_the_person_and_not_the_frame() -> None:
    assert figure_box(read_picture(_media("ref_human.png"))) == pytest.approx((0.33, 0.02, 0.7, 0.98), abs=0.03)


@pytest.mark.parametrize("name", ["drive_1.mp4", "drive_3.mp4"])
def test_a_cluttered_photo_gives_nothing(name: str) -> None:
    assert figure_box(open_clip(_media(name)).frame(0)) is None
