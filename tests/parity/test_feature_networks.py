"""The feature networks are built as their published ones are: the same names, and features for made-up weights."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mtvcraft_cli.eval.fid import inception_features
from mtvcraft_cli.eval.fid_vid import resnet_features
from mtvcraft_cli.eval.networks.read import KINDS, fill
from mtvcraft_cli.eval.pieces import filled
from tests.parity.test_metrics import arrays, listing

NETWORKS = {"fid_vid_resnet50": "resnet3d", "fid_inception": "inception"}


def made_up(name: str, shape: tuple[int, ...]) -> Tensor:
    """The golden's own rule."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif len(shape) >= 2:
        values = values * np.float32(np.sqrt(2 / np.prod(shape[1:])))
    elif name.endswith("weight"):
        values = 1 + 0.1 * values
    else:
        values = 0.1 * values
    return torch.from_numpy(np.asarray(values, np.float32))


def features(golden: str) -> np.ndarray:
    name = NETWORKS[golden]
    shapes = listing("arch")[golden]["state"]
    needed = {
        key: made_up(key, tuple(shape)) for key, shape in shapes.items() if not key.startswith(KINDS[name].beside)
    }
    network = fill(name, needed)
    if name == "inception":
        return inception_features(network, arrays("arch")["fid_images"])
    clip = arrays("arch")["fid_vid_clip"]
    return resnet_features(network, clip, filled(len(clip)))


@pytest.mark.parametrize("golden", NETWORKS)
def test_made_up_weights_give_the_golden_features(golden: str) -> None:
    expected = arrays("arch")[{"fid_inception": "fid_features"}.get(golden, "fid_vid_features")]
    found = features(golden)
    assert list(found.shape) == listing("arch")[golden]["output_shape"]
    off = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert off.max() <= listing("arch")["tolerance_relative_l2"]


@pytest.mark.parametrize("golden", NETWORKS)
def test_the_network_has_the_golden_tensors_and_no_others(golden: str) -> None:
    with torch.device("meta"):
        network = KINDS[NETWORKS[golden]].build()
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    ours = {key: shape for key, shape in ours.items() if not key.endswith("num_batches_tracked")}
    theirs: dict[str, Any] = dict(listing("arch")[golden]["state"])
    assert ours == {key: shape for key, shape in theirs.items() if not key.startswith("fc.")}
    numbers = sum(int(np.prod(shape)) for key, shape in theirs.items() if key not in ours)
    numbers += sum(int(np.prod(shape)) for shape in ours.values())
    assert numbers == listing("arch")[golden]["parameters"]
