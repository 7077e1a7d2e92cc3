"""With real weights: LPIPS and FVD give the numbers that their authors' code gives.

Some minutes on two cores; skipped where the weights can't be fetched.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mtvcraft_cli.eval.extract import Networks
from mtvcraft_cli.eval.frechet import frechet
from mtvcraft_cli.eval.fvd import i3d_logits, prefix_distances
from mtvcraft_cli.eval.geometry import humanvid_i3d
from mtvcraft_cli.eval.lpips import Lpips
from mtvcraft_cli.eval.networks.archive import read_archive
from mtvcraft_cli.eval.networks.exact import as_channels, exact
from mtvcraft_cli.eval.networks.i3d import I3d
from mtvcraft_cli.eval.networks.read import read_heads, read_network
from mtvcraft_cli.eval.pieces import filled
from tests.parity.test_metrics import FOLDER, arrays, cases, clips, listing
from tests.weights.archives import weights

NETWORKS = {"lpips_vgg_01": ("vgg16", False), "lpips_vgg": ("vgg16", True), "lpips_alex": ("alexnet", True)}
EXAMPLES = {"alexnet": (0.7219, 0.1376), "vgg16": (0.5686, 0.4217)}
"""What LPIPS says of its authors' two example pairs, `ex_ref.png` against `ex_p0.png` and `ex_p1.png`."""
PIECE = filled(16)


@lru_cache
def lpips(name: str) -> Lpips:
    return Lpips(read_network(name, weights(f"{name}.ckpt")), read_heads(name))


@lru_cache
def i3d() -> I3d:
    network = read_network("i3d", weights("i3d-kinetics-400.ckpt"))
    assert isinstance(network, I3d)
    return network


@pytest.mark.parametrize("name", ["vgg16", "alexnet"])
def test_the_heads_that_come_with_us_are_those_of_the_archive(name: str) -> None:
    theirs = read_archive(weights(f"{name}.ckpt"))
    for number, head in enumerate(read_heads(name)):
        assert torch.equal(head, theirs[f"lin{number}"])


@pytest.mark.parametrize("case", cases("pairs"), ids=lambda case: case["name"])
def test_lpips_of_every_pair_is_the_golden_one(case: dict[str, Any]) -> None:
    result, truth = clips(case)
    for key, (name, scaled) in NETWORKS.items():
        found = lpips(name)(result, truth, scaled=scaled)
        golden = [frame[key] for frame in case["per_frame"]]
        assert np.abs(found - golden).max() <= listing()["tolerance"][key], key


@pytest.mark.parametrize("name", EXAMPLES)
def test_lpips_of_its_authors_examples_is_what_they_print(name: str) -> None:
    pictures = Path(os.environ.get("MTVCRAFT_LPIPS_EXAMPLES", ""))
    if not (pictures / "ex_ref.png").is_file():
        pytest.skip("the example pictures of LPIPS are not here: MTVCRAFT_LPIPS_EXAMPLES names their folder")
    first, *others = (
        np.asarray(Image.open(pictures / f"ex_{each}.png").convert("RGB"))[None] for each in ("ref", "p0", "p1")
    )
    found = [float(lpips(name)(other, first, scaled=True)[0]) for other in others]
    assert found == pytest.approx(EXAMPLES[name], abs=6e-5)


@lru_cache
def logits(side: str) -> np.ndarray:
    return np.concatenate([i3d_logits(i3d(), clip, PIECE) for clip in arrays("i3d_clips")[side]])


@pytest.mark.parametrize("side", ["gt", "pred"])
def test_logits_of_real_weights_are_the_golden_ones(side: str) -> None:
    assert np.abs(logits(side) - arrays("i3d_logits")[side]).max() <= listing("i3d")["tolerance_logits"]


def test_fvd_of_real_weights_is_the_golden_one() -> None:
    limit = listing("i3d")["tolerance_fvd_relative"]
    assert frechet(logits("gt"), logits("pred")) == pytest.approx(listing("i3d")["fvd"], rel=limit)
    assert logits("gt")[0].argsort()[::-1][:5].tolist() == listing("i3d")["top5_first_gt_clip"]


def test_both_poolings_agree_on_sixteen_frames_and_not_on_twenty_four() -> None:
    other = read_network("i3d", weights("i3d-kinetics-400.ckpt"))
    other.pool_frames = 1  # type: ignore[assignment]
    clip = arrays("i3d_clips")["gt"][0]
    assert i3d_logits(other, clip, PIECE) == pytest.approx(logits("gt")[:1], abs=1e-3)
    longer = np.minimum(np.arange(24), 15)[None]
    assert np.abs(i3d_logits(other, clip, longer) - i3d_logits(i3d(), clip, longer)).max() > 1e-2


PREFIXES = [(0, 10), (0, 16), (1, 13)]
"""Clip and length: all of them take two minutes, and differ by nothing but the length."""


@pytest.mark.parametrize(("clip", "length"), PREFIXES)
def test_humanvids_distance_of_the_first_frames_is_the_golden_one(clip: int, length: int) -> None:
    golden = listing("i3d")["humanvid_prefix_fvd"]
    sides = []
    for side in ("pred", "gt"):
        shown = as_channels(humanvid_i3d(arrays("i3d_clips")[side][clip][:length]), torch.device("cpu"))
        with exact():
            sides.append(i3d()(shown.movedim(0, 1)[None]).double().numpy())
    expected = golden["values"][clip][length - 10]
    assert prefix_distances(*sides)[0] == pytest.approx(expected, rel=golden["tolerance_relative"])


def test_what_scores_runs_the_network_over_a_prefix_as_the_golden_one_is() -> None:
    whole = humanvid_i3d(arrays("i3d_clips")["gt"][0][:11])
    networks = Networks({"i3d": weights("i3d-kinetics-400.ckpt")}, {}, torch.device("cpu"))
    with exact():
        expected = i3d()(as_channels(whole, torch.device("cpu")).movedim(0, 1)[None]).double().numpy()
    assert networks.i3d(whole[None], 2) == pytest.approx(expected, abs=1e-4)


def test_black_against_white_clips_are_as_far_apart_as_in_the_original() -> None:
    """Eight clips a side, all of them alike, so one of each is looked at."""
    one, other = (
        i3d_logits(i3d(), np.full((30, 64, 64, 3), grey, np.uint8), np.arange(30)[None]).repeat(8, axis=0)
        for grey in (0, 255)
    )
    assert frechet(one, other) == pytest.approx(151.3925, abs=1e-3)


def test_the_goldens_of_real_weights_are_there() -> None:
    assert (FOLDER / "i3d.json").is_file()
