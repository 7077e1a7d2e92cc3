"""Temporal flicker: how restless a clip is from frame to frame, beyond what its truth is. No paper's number: ours.

A clip's restlessness less its truth's is 0 for the truth itself and for one that is darker by a constant, above 0 where
textures boil or light pumps, and below 0 where it is smoother than the truth, as blurred and still clips are.
"""

import numpy as np

from mtvcraft_cli.shapes import Frames


def restlessness(frames: Frames) -> float | None:
    """Return half the mean absolute second difference in time: how far a frame is from the mean of its neighbours.

    What moves or brightens evenly counts little, what comes and goes counts in full: a clip whose frames alternate
    between two greys has their distance.

    Args:
        frames: (T, H, W, 3).

    Returns:
        In grey levels of 0..255; None for fewer than three frames.
    """
    if len(frames) < 3:
        return None
    # One frame at a time: whole clips in int16 would be twice their size, thrice over.
    jumps = [
        np.abs(2 * frames[at].astype(np.int16) - frames[at - 1] - frames[at + 1]).mean(dtype=np.float64) / 2
        for at in range(1, len(frames) - 1)
    ]
    return float(np.mean(jumps))
