"""The page in a real browser: it shows everything, plays in step, and asks for nothing."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtvcraft_cli.cache import Cache
from mtvcraft_cli.eval.bench import load_bench
from mtvcraft_cli.eval.page import write_page
from mtvcraft_cli.eval.protocols import PROTOCOLS
from mtvcraft_cli.eval.run import EvalReport, run_evaluation
from mtvcraft_cli.jobs.evaluation import EvalJob, System, prepare_eval
from mtvcraft_cli.progress import silent
from tests.browser import Browser, running_browser
from tests.eval.clips import SmallLooks, clip, save_frames, worse

EVIL = "<img src=x onerror=\"console.log('caught')\"></script><script>console.log('caught')</script>"


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> EvalReport:
    root = tmp_path_factory.mktemp("clips")
    for number, name in enumerate(("00337", "00338", "201_002_1x1", "201_005_1x1", "201_021_1x1")):
        truth = clip(number, 12)
        save_frames(root / "truth" / name, truth)
        save_frames(root / "made" / name, worse(truth, number) // (number + 1))
    job = EvalJob(
        truth=root / "truth",
        systems=[System(EVIL, root / "made"), System("still", baseline="still")],
        protocol=PROTOCOLS["mtvcraft"],
        bench=load_bench("tiktok"),
        metrics=["psnr", "ssim"],
        device="cpu",
    )
    return run_evaluation(prepare_eval(job, Cache(root / "cache")), silent, SmallLooks())


def test_the_page_holds_the_table_the_plots_and_the_worst_and_best_clips(report, tmp_path):
    write_page(tmp_path / "report.html", report)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4  # two metrics, by system and by clip
    assert "MimicMotion" in page
    assert "5 of 10 clips" in page
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    clips = json.loads(data)["clips"]
    assert [one["caption"].partition(",")[0] for one in clips] == [
        "worst: 201_021_1x1",
        "worst: 201_005_1x1",
        "best: 00337",
        "best: 00338",
    ]
    assert all(len(one["frames"]) == 12 for one in clips)
    assert not re.search(r"(?:src|href)=\"?https?:", page)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


def drawn(browser: Browser) -> list[str]:
    """What every canvas shows."""
    return browser.run("[...document.querySelectorAll('canvas')].map((each) => each.toDataURL())")


def test_clips_play_in_step_without_any_request_or_complaint(browser: Browser, report: EvalReport, tmp_path: Path):
    write_page(tmp_path / "report.html", report)
    browser.open(tmp_path / "report.html", size_px=(1000, 1400))
    assert browser.run("document.title").startswith("TikTok, protocol mtvcraft")
    browser.wait(lambda: len(set(drawn(browser))) == 4)  # before they are drawn all are alike
    first = drawn(browser)
    browser.run(
        "((line) => { line.value = 7; line.dispatchEvent(new Event('input')) })(document.querySelector('#frame'))"
    )
    browser.settle()
    assert all(one != other for one, other in zip(first, drawn(browser), strict=True))
    assert browser.run("document.querySelector('#time').textContent") == "frame 8 of 12"
    browser.run("document.querySelector('#play').scrollIntoView()")
    browser.click("#play")
    assert browser.run("document.querySelector('#play').textContent") == "Pause"
    at = browser.run("document.querySelector('#frame').value")
    time.sleep(0.4)
    assert browser.run("document.querySelector('#frame').value") != at
    browser.click("#play")
    assert browser.run("document.querySelectorAll('td.best').length") == 2
    assert all(address.startswith(("file:", "data:")) for address in browser.requests())
    assert browser.complaints() == []
    assert EVIL in browser.run("document.querySelector('tbody').textContent")
    (tmp_path / "page.png").write_bytes(browser.screenshot())


def test_a_page_without_clips_to_show_hides_the_player(browser: Browser, tmp_path: Path):
    for number in range(2):
        save_frames(tmp_path / "truth" / str(number), clip(number, 16))
        save_frames(tmp_path / "made" / str(number), worse(clip(number, 16)))
    job = EvalJob(
        truth=tmp_path / "truth",
        systems=[System("ours", tmp_path / "made")],
        protocol=PROTOCOLS["mtvcraft"],
        metrics=["flicker"],
        device="cpu",
    )
    made = run_evaluation(prepare_eval(job, Cache(tmp_path / "cache")), silent, SmallLooks())
    write_page(tmp_path / "report.html", made)
    browser.open(tmp_path / "report.html")
    assert browser.run("getComputedStyle(document.querySelector('#watch')).display") == "none"
    assert browser.complaints() == []
