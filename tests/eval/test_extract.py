"""Frames that stream by give the features of the whole clip."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mtvcraft_cli.eval.extract import Networks, PieceStream
from mtvcraft_cli.eval.fid import inception_features
from mtvcraft_cli.eval.fid_vid import for_resnet3d, resnet_features
from mtvcraft_cli.eval.fvd import for_i3d, i3d_logits
from mtvcraft_cli.eval.networks.read import KINDS, read_network
from mtvcraft_cli.eval.pieces import disjoint, filled, sliding
from tests.eval.clips import clip


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Networks:
    """The real networks with made-up weights."""
    folder = tmp_path_factory.mktemp("networks")
    files = {}
    for name in ("inception", "i3d", "resnet3d"):
        torch.manual_seed(0)
        files[name] = folder / f"{name}.safetensors"
        tensors = {key: value for key, value in KINDS[name].build().state_dict().items() if value.is_floating_point()}
        save_file(tensors, files[name])
    return Networks(files, dict.fromkeys(files, "made up"), torch.device("cpu"))


def test_a_piece_that_streamed_by_has_the_logits_of_the_whole_clip(networks):
    frames = clip(0, 16)
    stream = PieceStream(disjoint(range(16)), for_i3d)
    pieces = [piece for at in range(0, 16, 5) for piece in stream.push(frames[at : at + 5])]
    expected = i3d_logits(read_network("i3d", networks.files["i3d"]), frames, disjoint(range(16)))
    assert len(pieces) == 1
    np.testing.assert_allclose(networks.i3d(pieces[0]), expected, rtol=1e-4, atol=1e-5)


def test_the_same_of_the_network_behind_fid_vid_and_of_a_clip_that_is_filled_up(networks):
    frames = clip(1, 5)
    stream = PieceStream(filled(5), for_resnet3d)
    [piece] = stream.push(frames)
    expected = resnet_features(read_network("resnet3d", networks.files["resnet3d"]), frames, filled(5))
    np.testing.assert_allclose(networks.resnet3d(piece), expected, rtol=1e-4, atol=1e-5)


def test_the_same_of_single_frames(networks):
    frames = clip(2, 2)
    expected = inception_features(read_network("inception", networks.files["inception"]), frames)
    np.testing.assert_allclose(networks.inception(frames), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", [disjoint, sliding])
def test_pieces_come_as_soon_as_they_are_whole_and_hold_no_more_than_they_need(cut):
    frames = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None, None], (40, 4, 4, 3))
    stream = PieceStream(cut(range(40)), lambda some: some.astype(np.float32))
    pieces = []
    for at in range(0, 40, 7):
        pieces += [piece[0, :, 0, 0, 0].astype(int).tolist() for piece in stream.push(frames[at : at + 7])]
        assert len(stream.held) <= 16
    assert pieces == cut(range(40)).tolist()
