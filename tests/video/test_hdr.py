from pathlib import Path

import numpy as np
import pytest

from mtvcraft_cli.video.hdr import hlg_to_nits, nits_to_pq, pq_to_nits, roll_off, to_sdr, write_table
from mtvcraft_cli.video.read import open_clip
from tests import clips
from tests.video.test_kinds_of_video import HEVC

# Signal levels of ITU-R BT.2408-7, table 1: grey card and diffuse white, in PQ and in HLG on a screen of 1000 cd/m2.
BT2408 = [(26.0, 0.38, 0.38), (203.0, 0.58, 0.75), (1000.0, 0.75, 1.0)]


@pytest.mark.parametrize(("nits", "pq", "hlg"), BT2408)
def test_signal_levels_are_those_of_the_recommendation(nits: float, pq: float, hlg: float) -> None:
    assert nits_to_pq(np.array([nits]))[0] == pytest.approx(pq, abs=0.005)
    assert hlg_to_nits(np.full((1, 3), hlg))[0] == pytest.approx(nits, rel=0.02)


def test_pq_there_and_back() -> None:
    coded = np.linspace(0, 1, 50)
    np.testing.assert_allclose(nits_to_pq(pq_to_nits(coded)), coded, atol=1e-6)
    assert pq_to_nits(np.array([1.0]))[0] == pytest.approx(10000)


def test_highlights_are_rolled_off_and_the_rest_stays() -> None:
    nits = np.array([0.01, 1.0, 26.0, 80.0])
    np.testing.assert_allclose(roll_off(nits), nits, rtol=1e-6)
    bright = roll_off(np.linspace(80, 1000, 200))
    assert (np.diff(bright) > 0).all()
    assert bright[-1] == pytest.approx(203, rel=1e-4)
    assert roll_off(np.array([4000.0]))[0] == pytest.approx(203, rel=1e-4)


def test_grey_stays_grey_and_colours_keep_their_hue() -> None:
    grey = to_sdr(np.linspace(0, 1, 30)[:, None].repeat(3, axis=1), "smpte2084")
    np.testing.assert_allclose(grey, grey[:, :1].repeat(3, axis=1), atol=1e-4)
    assert (np.diff(grey[:, 0]) >= -1e-9).all()
    red = to_sdr(np.array([[0.6, 0.5, 0.5]]), "smpte2084")[0]
    assert red[0] > 1.5 * red[1]
    assert red[1] == pytest.approx(red[2], abs=0.1)


def grey_patches(transfer: str, levels: np.ndarray, path: Path) -> None:
    """A frame of grey patches whose signal is known to one step of 10 bits, without any conversion of ffmpeg's."""
    luma = np.rint(64 + 876 * levels).astype("<u2").repeat(16)[None].repeat(96, axis=0)
    chroma = np.full((2, 48, luma.shape[1] // 2), 512, "<u2")
    raw = ("-f", "rawvideo", "-pix_fmt", "yuv420p10le", "-s", f"{luma.shape[1]}x96", "-r", "25", "-i", "-")
    tags = f"setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc={transfer}"
    clips.ffmpeg(*raw, "-vf", tags, *HEVC, "-crf", "1", path, feed=luma.tobytes() + chroma.tobytes())


@pytest.mark.parametrize(
    ("transfer", "levels"),
    [
        # Below the knee nothing is rolled off: 255 (nits / 203) ** (1 / 2.4), from the levels of ST 2084.
        ("smpte2084", {0.1: 0.3246, 0.2: 2.432, 0.3: 10.037, 0.38: 26.0, 0.45: 55.36}),
        # Black, HLG's grey card and peak; the last two are the ends of the scale.
        ("arib-std-b67", {0.0: 0.0, 0.38: 26.0, 1.0: 203.0}),
        ("smpte2084", {0.0: 0.0, 0.7518: 203.0, 1.0: 203.0}),
    ],
)
def test_grey_patches_come_out_as_they_have_to(transfer: str, levels: dict[float, float], tmp_path: Path) -> None:
    grey_patches(transfer, np.array(list(levels)), tmp_path / "a.mp4")
    frame = open_clip(tmp_path / "a.mp4").frame(0)
    seen = np.stack([frame[48, 16 * patch + 8] for patch in range(len(levels))])
    targets = [255 * (nits / 203) ** (1 / 2.4) for nits in levels.values()]
    np.testing.assert_allclose(seen, np.array(targets)[:, None].repeat(3, axis=1), atol=2.5)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_the_table_is_as_good_as_the_formulas(transfer: str, tmp_path: Path) -> None:
    write_table(tmp_path / "a.cube", transfer)
    side = 4096
    coded = np.random.default_rng(0).random((side, 3)) ** 1.5
    raw = ("-f", "rawvideo", "-pix_fmt", "gbrp16le", "-s", f"{side}x1", "-i", "-")
    planes = np.rint(coded[:, [1, 2, 0]].T * 65535).astype("<u2").tobytes()
    table = f"lut3d=file={tmp_path / 'a.cube'}:interp=tetrahedral"
    clips.ffmpeg(*raw, "-vf", table, "-f", "rawvideo", tmp_path / "a.raw", feed=planes)
    seen = np.fromfile(tmp_path / "a.raw", "<u2").reshape(3, side)[[2, 0, 1]].T / 65535
    errors = 255 * np.abs(seen - to_sdr(coded, transfer))
    assert errors.mean() < 0.2
    assert np.percentile(errors, 99) < 4
