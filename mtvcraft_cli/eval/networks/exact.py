"""How the feature networks are run: in float32 and nothing less, and without a thought of gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mtvcraft_cli.shapes import Pieces

Prepare = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""Frames (T, H, W, 3) of 0..255 -> pictures (T, h, w, 3) as a network wants them, each on its own."""


@contextmanager
def exact() -> Iterator[None]:
    """Turn off what makes networks faster and less exact: autocast, TF32, and sums in whatever order comes first."""
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    matmul.allow_tf32 = False
    try:
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            with torch.autocast("cuda", enabled=False), torch.autocast("cpu", enabled=False):
                yield
    finally:
        matmul.allow_tf32 = before


def device_of(network: nn.Module) -> torch.device:
    """Where a network lies."""
    return next(network.parameters()).device


def as_channels(pictures: npt.NDArray[np.float32], device: torch.device) -> Tensor:
    """(..., h, w, 3) to (..., 3, h, w) on a device."""
    return torch.from_numpy(pictures).to(device).movedim(-1, -3)


def of_pieces(
    network: nn.Module,
    frames: npt.NDArray[np.uint8],
    pieces: Pieces,
    prepare: Prepare,
    batch: int,
) -> npt.NDArray[np.float64]:
    """Run a video network over pieces of a clip. Each frame is prepared once, and kept no longer than it is needed.

    Args:
        network: (p, 3, N, h, w) to (p, d).
        frames: (T, H, W, 3).
        pieces: places of the frames of each piece, in the order of time.
        prepare: what is done to frames before.
        batch: so many pieces at once.

    Returns:
        (P, d); (0, 0) where there are no pieces.
    """
    ready: dict[int, npt.NDArray[np.float32]] = {}
    found = []
    with exact():
        for start in range(0, len(pieces), batch):
            some = pieces[start : start + batch]
            wanted = np.unique(some).tolist()
            ready = {place: ready[place] for place in wanted if place in ready}
            lacking = [place for place in wanted if place not in ready]
            ready |= dict(zip(lacking, prepare(frames[lacking]) if lacking else (), strict=True))
            given = np.stack([np.stack([ready[place] for place in piece]) for piece in some.tolist()])
            shown = as_channels(given, device_of(network)).movedim(2, 1).contiguous()  # (p, 3, N, h, w)
            found.append(network(shown).cpu().numpy().astype(np.float64))
    return np.concatenate(found) if found else np.zeros((0, 0))
