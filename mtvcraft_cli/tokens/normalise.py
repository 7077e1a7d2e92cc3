"""Joints in millimetres <-> the numbers that the tokenizer learned from."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mtvcraft_cli.preset import Differential, JointAxes, Statistics
from mtvcraft_cli.shapes import Joints, JointsMm
from mtvcraft_cli.windows import Window


def normalise(joints_mm: Float[Tensor, "... 24 3"], stats: Statistics) -> Float[Tensor, "... 24 3"]:
    """Centre and scale joints per joint and axis (paper, stage 2).

    Args:
        joints_mm: (..., 24, 3) positions in camera space, millimetres.
        stats: mean and spread over the training set.

    Returns:
        (..., 24, 3) without unit; nearly all values lie in -3..3.
    """
    return (joints_mm - joints_mm.new_tensor(stats.mean_mm)) / joints_mm.new_tensor(stats.std_mm)


def denormalise(
    joints: Float[Tensor, "... 24 3"], stats: Statistics, origin_mm: Float[Tensor, "... 24 3"] | None = None
) -> Float[Tensor, "... 24 3"]:
    """Turn numbers of the tokenizer back into millimetres.

    Args:
        joints: (..., 24, 3) without unit; differential ones need their `origin_mm`.
        stats: mean and spread over the training set.
        origin_mm: what `joints` are told from; the mean over the training set where nothing was subtracted.

    Returns:
        (..., 24, 3) camera space, millimetres.
    """
    origin_mm = joints.new_tensor(stats.mean_mm) if origin_mm is None else origin_mm
    return joints * joints.new_tensor(stats.std_mm) + origin_mm


def differential(joints: Joints, kind: Differential, reference: Float[Tensor, "J 3"] | None = None) -> Joints:
    """Tell joints from a pose instead of from the training mean, so that tokens don't hold where the driver stands.

    Args:
        joints: (W, N, J, 3) normalised joints.
        kind: "none" leaves them as they are (released code); "window" subtracts each window's own first frame, which
            becomes all zeros (paper, stage 2); "reference" subtracts one frame from all windows.
        reference: for "reference", the clip's first frame, normalised.

    Returns:
        (W, N, J, 3) without unit.

    Raises:
        ValueError: `kind` is "reference" without a reference.
    """
    if kind == "none":
        return joints
    if kind == "window":
        return joints - joints[:, :1]
    if reference is None:
        raise ValueError('`differential="reference"` needs the reference frame')
    return joints - reference


def seen(joints: Float[Tensor, "... 3"], axes: JointAxes) -> Float[Tensor, "... 3"]:
    """Leave out what the tokenizer doesn't see of normalised joints: without z nothing is known of depth.

    Args:
        joints: (..., 3) without unit, differential or not.
        axes: "xyz" leaves them as they are; "xy" takes z away (paper, ablation "3D quantization").

    Returns:
        (..., 3); zeros where nothing is seen.
    """
    return joints if axes == "xyz" else joints * joints.new_tensor([1.0, 1.0, 0.0])


def cut(joints_mm: JointsMm, windows: Sequence[Window]) -> Float[Tensor, "W N 24 3"]:
    """Cut windows of one length out of a clip; frames past its end hold the last pose.

    Args:
        joints_mm: (T, 24, 3) the whole clip, millimetres.
        windows: W windows of N frames each.

    Returns:
        (W, N, 24, 3) millimetres, a copy.
    """
    frames = np.array([np.arange(window.start, window.start + window.frames) for window in windows])
    return torch.from_numpy(joints_mm[np.minimum(frames, len(joints_mm) - 1)])


def lay(window_mm: Float[Tensor, "N 24 3"], window: Window, joints_mm: JointsMm) -> None:
    """Put a window back into its clip, which the windows before have filled so far.

    Frames that two windows share fade from the earlier one to the later one: their reconstructions differ a little,
    and a hard seam would be seen as a jump. Frames past the end of the clip are dropped.

    Args:
        window_mm: (N, 24, 3) the window's frames.
        window: where it lies.
        joints_mm: (T, 24, 3) the clip, written to.
    """
    new = window_mm.cpu().numpy()[: window.frames - window.held]
    fade = ((np.arange(window.carried, dtype=np.float32) + 1) / (window.carried + 1))[: len(new), None, None]
    place = joints_mm[window.start : window.start + len(new)]
    place[: len(fade)] += fade * (new[: len(fade)] - place[: len(fade)])
    place[len(fade) :] = new[len(fade) :]
