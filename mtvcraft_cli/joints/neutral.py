"""The person's pose on the body of nobody in particular (paper, stage 1)."""

import numpy as np

from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.own.body import Body
from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS, chain
from mtvcraft_cli.joints.turns import forward, turns_of_pose
from mtvcraft_cli.shapes import JointsMm


def neutral_joints(motion: Motion, body: Body | None = None) -> JointsMm:
    """Show a motion without the person's proportions.

    Args:
        motion: at the rate wanted; with SMPL's rotations where they are known.
        body: of the user's body file.

    Returns:
        (T, 24, 3) camera space, millimetres: SMPL's forward kinematics with betas = 0 where there are both rotations
        and a body, else the neutral skeleton. The root's translation stays; where SMPL's betas move the pelvis within
        the body, that is taken back, so that all bodies with the same parameters give the same joints.
    """
    if motion.smpl_pose is None or body is None:
        return on_neutral_body(motion.joints_mm)
    root_mm = motion.joints_mm[:, 0]
    if motion.smpl_betas is not None:
        root_mm = root_mm - body.pelvis_moved_mm(motion.smpl_betas)
    return forward(turns_of_pose(motion.smpl_pose), root_mm, body.bones_mm())


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
