"""The person's pose on the body of nobody in particular (paper, stage 1)."""

import numpy as np

from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS, chain
from mtvcraft_cli.shapes import JointsMm


def on_neutral_body(joints_mm: JointsMm) -> JointsMm:
    """Give every bone the neutral body's length and keep its direction and the root's place.

    Args:
        joints_mm: (T, 24, 3) camera space, millimetres.

    Returns:
        (T, 24, 3): the same motion, without the person's proportions.
    """
    bones_mm = joints_mm - joints_mm[:, np.maximum(PARENTS, 0)]
    lengths_mm = np.linalg.norm(bones_mm, axis=-1, keepdims=True)
    return joints_mm[:, :1] + chain(bones_mm / np.maximum(lengths_mm, 1e-6) * NEUTRAL_LENGTHS_MM[:, None])
