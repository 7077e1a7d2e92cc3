"""The page shows the motion in a real browser, asks for nothing, and runs nothing but its own."""

import base64
import io
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.overlay import LEFT_COLOUR, MIDDLE_COLOUR, RIGHT_COLOUR
from mtvcraft_cli.joints.skeleton import NAMES, project
from mtvcraft_cli.joints.view import write_view
from tests.browser import Browser, running_browser
from tests.joints.people import SIZE_PX, dancer, motion

NAME = "drive.mp4"
CLIP = motion(90, joints_mm=dancer(90, (150, 100, 2800)).astype(np.float32), confidence=np.ones((90, 24), np.float32))


def _embedded(path: Path) -> dict:
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.DOTALL)
    return json.loads(data)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


def shown(
    browser: Browser, folder: Path, motions: Motion | dict[str, Motion] = CLIP, name: str = NAME, **how: object
) -> np.ndarray:
    write_view(folder / "view.html", motions, name)
    browser.open(folder / "view.html", **how)  # type: ignore[arg-type]
    return picture(browser)


def picture(browser: Browser) -> np.ndarray:
    """What the canvas holds, (H, W, 4)."""
    url = browser.run("document.querySelector('#stage').toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))).astype(int)


def pixels_of(drawn: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int(((np.abs(drawn[..., :3] - colour) <= 3).all(axis=-1) & (drawn[..., 3] == 255)).sum())


def frame_of(browser: Browser) -> int:
    return int(browser.run("document.querySelector('#frame').value"))


def test_the_joints_in_the_page_are_those_of_the_motion(tmp_path: Path) -> None:
    clip = replace(CLIP, rate=Fraction(30000, 1001))
    clip.observed[[0, 7, 8]] = False
    write_view(tmp_path / "view.html", clip, NAME)
    told = _embedded(tmp_path / "view.html")["motions"][0]
    joints_mm = np.frombuffer(base64.b64decode(told["joints"]), "<i2").reshape(-1, 24, 3) * told["unit_mm"]
    assert np.abs(joints_mm - clip.joints_mm).max() < 0.1
    assert told["rate"] == [30000, 1001]
    assert told["filled"] == [[0, 1], [7, 9]]
    clip.observed[:] = True


def test_ten_minutes_of_two_motions_stay_below_ten_megabytes(tmp_path: Path) -> None:
    long = motion(18_000)
    write_view(tmp_path / "view.html", {"before": long, "after": long}, NAME)
    assert (tmp_path / "view.html").stat().st_size < 10_000_000


def test_the_page_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "view.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="one or two motions, not 3"):
        write_view(path, dict.fromkeys("abc", CLIP), NAME)
    assert path.read_text() == "old"
    write_view(path, CLIP, NAME)
    assert [each.name for each in tmp_path.iterdir()] == ["view.html"]
    with pytest.raises(MtvcraftError, match="there is no folder") as caught:
        write_view(tmp_path / "nowhere" / "view.html", CLIP, NAME)
    assert caught.value.exit is Exit.USAGE


def test_the_skeleton_is_drawn_in_the_colours_of_its_sides(browser: Browser, tmp_path: Path) -> None:
    drawn = shown(browser, tmp_path)
    for colour in (LEFT_COLOUR, RIGHT_COLOUR, MIDDLE_COLOUR):
        assert pixels_of(drawn, colour) > 300
    assert browser.run("document.title") == browser.run("document.querySelector('h1').textContent") == NAME
    assert "frame 0 of 90" in browser.run("document.querySelector('#time').textContent")


def test_the_camera_view_is_what_the_camera_saw(browser: Browser, tmp_path: Path) -> None:
    shown(browser, tmp_path)
    browser.click("#camera")
    drawn = picture(browser)
    height, width = drawn.shape[:2]
    scale = 0.94 * min(width / SIZE_PX[0], height / SIZE_PX[1])
    places = (project(CLIP.joints_mm[0], SIZE_PX) - np.array(SIZE_PX) / 2) * scale + (width / 2, height / 2)
    for name, colour in {"l_wrist": LEFT_COLOUR, "r_wrist": RIGHT_COLOUR, "head": MIDDLE_COLOUR}.items():
        x, y = places[NAMES.index(name)].astype(int)
        assert np.abs(drawn[y - 1 : y + 2, x - 1 : x + 2, :3] - colour).max() < 30, name
    assert browser.run("document.querySelector('#camera').getAttribute('aria-pressed')") == "true"
    browser.drag((width / 2, height / 2), (40, 0))
    assert browser.run("document.querySelector('#camera').getAttribute('aria-pressed')") == "false"


def test_scrubbing_shows_other_frames(browser: Browser, tmp_path: Path) -> None:
    start = shown(browser, tmp_path)
    x, y = browser.middle("#frame")
    browser.drag((x, y), (30, 0))
    assert 40 < frame_of(browser) < 70
    assert (picture(browser) != start).any(axis=-1).sum() > 500


def test_the_keyboard_moves_by_frames_and_seconds(browser: Browser, tmp_path: Path) -> None:
    start = shown(browser, tmp_path)
    frames = []
    for key, shift in (
        ("ArrowRight", False),
        ("ArrowRight", True),
        ("ArrowLeft", False),
        ("End", False),
        ("Home", False),
    ):
        browser.key(key, shift)
        frames.append(frame_of(browser))
    assert frames == [1, 31, 30, 89, 0]
    np.testing.assert_array_equal(picture(browser), start)
    browser.run("document.querySelector('#frame').focus()")
    browser.key("ArrowRight")  # the slider knows this key too: one step, not two
    assert frame_of(browser) == 1
    browser.key("c")
    assert browser.run("document.querySelector('#camera').getAttribute('aria-pressed')") == "true"


def test_turning_and_zooming_change_the_view_and_reset_brings_it_back(browser: Browser, tmp_path: Path) -> None:
    start = shown(browser, tmp_path)
    browser.drag((450, 300), (120, 0))
    turned = picture(browser)
    assert (turned != start).any(axis=-1).sum() > 2000
    browser.wheel((450, 300), -400)
    assert pixels_of(picture(browser), LEFT_COLOUR) > 1.5 * pixels_of(turned, LEFT_COLOUR)
    browser.click("#reset")
    np.testing.assert_array_equal(picture(browser), start)


def test_half_a_turn_shows_the_person_from_behind(browser: Browser, tmp_path: Path) -> None:
    def side(drawn: np.ndarray) -> float:
        middles = []
        for colour in (LEFT_COLOUR, RIGHT_COLOUR):
            middles.append(np.nonzero((np.abs(drawn[..., :3] - colour) <= 3).all(axis=-1))[1].mean())
        return middles[0] - middles[1]

    start = shown(browser, tmp_path)
    browser.drag((450, 300), (150 * np.pi, 0))
    assert side(start) * side(picture(browser)) < 0
    assert abs(side(start)) > 20


def test_fingers_turn_and_pinch(browser: Browser, tmp_path: Path) -> None:
    start = shown(browser, tmp_path, size_px=(390, 700), touch=True)
    browser.touch([(200, 300)], [(230, 300)], [(300, 300)])
    turned = picture(browser)
    assert (turned != start).any(axis=-1).sum() > 1000
    browser.touch([(180, 300), (210, 300)], [(140, 300), (250, 300)])
    assert pixels_of(picture(browser), LEFT_COLOUR) > 2 * pixels_of(turned, LEFT_COLOUR)


@pytest.mark.parametrize("way", ["space", "button"])
def test_it_plays_at_the_true_rate_and_stops(browser: Browser, tmp_path: Path, way: str) -> None:
    shown(browser, tmp_path, motion(900, Fraction(60000, 1001)))

    def push() -> None:
        if way == "space":
            browser.key(" ")
        else:
            browser.click("#play")

    def clock() -> tuple[int, float]:
        frame, now_ms = browser.run("[Number(document.querySelector('#frame').value), performance.now()]")
        return frame, now_ms / 1000

    push()
    assert browser.run("document.querySelector('#play').textContent") == "Pause"
    first, first_s = clock()
    time.sleep(1)
    then, then_s = clock()
    assert then - first == pytest.approx((then_s - first_s) * 60000 / 1001, abs=12)  # a painted frame may be late
    assert then - first > 30
    push()
    stopped = frame_of(browser)
    time.sleep(0.2)
    assert frame_of(browser) == stopped >= then


def test_what_was_filled_in_is_marked_on_the_time_line_and_unsure_joints_are_faint(
    browser: Browser, tmp_path: Path
) -> None:
    clip = motion(100, confidence=np.ones((100, 24), np.float32))
    clip.observed[40:60] = False
    clip.confidence[40:60] = 0
    start = shown(browser, tmp_path, clip)
    url = browser.run("document.querySelector('#marks').toDataURL()")
    marks = np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))[0, :, 3] > 0
    at = np.flatnonzero(marks) / len(marks)
    assert (at.min(), at.max()) == (pytest.approx(0.4, abs=0.03), pytest.approx(0.6, abs=0.03))
    browser.run(
        "((line) => { line.value = 50; line.dispatchEvent(new Event('input')) })(document.querySelector('#frame'))"
    )
    browser.settle()
    assert "filled in" in browser.run("document.querySelector('#time').textContent")
    assert pixels_of(start, LEFT_COLOUR) > 300
    assert pixels_of(picture(browser), LEFT_COLOUR) == 0


def test_of_two_motions_each_can_be_hidden(browser: Browser, tmp_path: Path) -> None:
    moved = replace(CLIP, joints_mm=CLIP.joints_mm + np.float32([700, 0, 0]))
    both = shown(browser, tmp_path, {"before tokens": CLIP, "after tokens": moved})
    assert browser.run("[...document.querySelectorAll('#legend label')].map((row) => row.textContent)") == [
        "before tokens",
        "after tokens",
    ]
    left = []
    for number in (1, 2):
        box = f"#legend label:nth-of-type({number}) input"
        browser.click(box)
        left.append(picture(browser))
        browser.click(box)
    np.testing.assert_array_equal(picture(browser), both)
    assert 0.3 < pixels_of(left[0], LEFT_COLOUR) / pixels_of(both, LEFT_COLOUR) < 0.7
    middles = [np.nonzero((np.abs(each[..., :3] - LEFT_COLOUR) <= 3).all(axis=-1))[1].mean() for each in left]
    assert middles[0] > middles[1] + 30


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_the_page_is_light_or_dark_as_the_user_likes_it(
    browser: Browser, tmp_path: Path, scheme: str, bright: bool
) -> None:
    shown(browser, tmp_path, scheme=scheme)
    seen = np.array(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert bool(np.median(seen) > 128) is bright


@pytest.mark.parametrize(
    "name",
    [
        "</script><script>document.title = 'caught'; console.log('caught')</script>",
        "<img src=x onerror=\"console.log('caught')\"> & </title><script>console.log('caught')</script>",
        "{{data}} {{policy}} \\u003c 'größte \u2028 \"Datei\"'",
    ],
)
def test_no_name_runs_or_breaks_the_page(browser: Browser, tmp_path: Path, name: str) -> None:
    drawn = shown(browser, tmp_path, {name: CLIP, "after": CLIP}, name)
    assert browser.run("document.querySelector('h1').textContent") == name
    assert browser.run("document.querySelector('label').textContent") == name
    assert browser.run("document.querySelectorAll('script').length") == 2
    assert pixels_of(drawn, LEFT_COLOUR) > 300
    assert browser.complaints() == []


def test_even_a_script_that_got_in_could_not_run(browser: Browser, tmp_path: Path) -> None:
    write_view(tmp_path / "view.html", CLIP, NAME)
    page = (tmp_path / "view.html").read_text().replace("</body>", "<script>document.title = 'caught'</script></body>")
    (tmp_path / "evil.html").write_text(page)
    browser.open(tmp_path / "evil.html")
    assert browser.run("document.title") == NAME
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


def test_a_full_visit_asks_for_nothing_and_complains_of_nothing(browser: Browser, tmp_path: Path) -> None:
    shown(browser, tmp_path, {"before": CLIP, "after": CLIP})
    for selector in ("#play", "#camera", "#reset", "#legend input", "#play"):
        browser.click(selector)
    browser.drag((450, 300), (50, 30))
    browser.wheel((450, 300), 200)
    assert browser.requests() == [(tmp_path / "view.html").as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("frames", [1, 2])
def test_the_shortest_motions_are_shown(browser: Browser, tmp_path: Path, frames: int) -> None:
    drawn = shown(browser, tmp_path, motion(frames, confidence=np.ones((frames, 24), np.float32)))
    browser.key(" ")
    browser.key(" ")
    browser.key("End")
    assert frame_of(browser) == frames - 1
    assert pixels_of(drawn, LEFT_COLOUR) > 300
    assert browser.complaints() == []
