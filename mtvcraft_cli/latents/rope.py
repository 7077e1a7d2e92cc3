"""Rotary positions: where video patches lie in time, rows and columns, and motion tokens in time and space.

An axis of even width n turns position p into the angles p / 10000^(2i/n), i = 0..n/2-1, and each angle fills the
columns 2i and 2i + 1. The axes of a table lie side by side in the columns of an attention head.

Everything is computed in float32 on the CPU, whatever the default dtype and the model's own: joints lie up to 664 mm
from their mean, and an angle of 664 rounded to bfloat16 is off by more than a radian.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mtvcraft_cli.shapes import Table

THETA = 10000.0


class Rotary(NamedTuple):
    """Rotary cos and sin, (S, K) float32 each: S tokens, K columns of a head; columns 2i and 2i + 1 are equal.

    They are (B, S, K) where each clip of a batch has places of its own.
    """

    cos: Table
    sin: Table

    def to(self, device: torch.device | None) -> "Rotary":
        """The same on another device, or where it is for None, as for tensors; the dtype stays float32."""
        return Rotary(self.cos.to(device), self.sin.to(device))


def visual_table(frames: int, rows: int, columns: int, head_dim: int) -> Rotary:
    """Positions of video patches: a quarter of the head is time, three eighths are rows, three eighths columns.

    Source: released code, CogVideoX family; positions are 0, 1, 2, ... on each axis.

    Args:
        frames: latent frames F.
        rows: patches from top to bottom, half the latent height.
        columns: patches from left to right, half the latent width.
        head_dim: columns K of a head, a multiple of 16.

    Returns:
        Tables of F * rows * columns tokens: frame after frame, row after row, column after column.
    """
    if head_dim % 16:
        raise ValueError(f"a head of {head_dim} columns can't be cut into even axes for time, rows and columns")
    places = torch.cartesian_prod(*(torch.arange(size, dtype=torch.float32) for size in (frames, rows, columns)))
    return _table(places.reshape(-1, 3), (head_dim // 4, 3 * head_dim // 8, 3 * head_dim // 8))


def motion_table(frames: int, joint_mean_mm: Float[np.ndarray, "J 3"], head_dim: int) -> Rotary:
    """Positions of motion tokens: time, x, y and z, a quarter of the head each.

    A joint lies, in every frame of every motion, where it lies on average in the training set, measured from the mean
    over all joints. Source: paper, section on 4D rotary positions; released code. The mean over the joints is NumPy's
    in float32 over a contiguous row: in another order or precision, depths near 1800 mm leave up to 4e-4 in the table.

    Args:
        frames: latent frames F.
        joint_mean_mm: (J, 3) mean position of each joint in the training set, millimetres.
        head_dim: columns K of a head, a multiple of 8.

    Returns:
        Tables of F * J tokens: frame after frame, joint after joint.
    """
    if head_dim % 8:
        raise ValueError(f"a head of {head_dim} columns can't be cut into four even axes")
    axes_mm = np.ascontiguousarray(joint_mean_mm.T, dtype=np.float32)  # (3, J)
    space_mm = torch.from_numpy((axes_mm - axes_mm.mean(axis=1, keepdims=True)).T)  # (J, 3)
    time = torch.arange(frames, dtype=torch.float32).repeat_interleave(len(space_mm))  # (F * J,)
    return _table(torch.cat([time[:, None], space_mm.repeat(frames, 1)], dim=1), (head_dim // 4,) * 4)


def motion_tables(frames: int, joints_mm: Float[np.ndarray, "B J 3"], head_dim: int) -> Rotary:
    """Positions of the motion tokens of several clips, each with joints of its own (paper, ablation "dynamic PE").

    Args:
        frames: latent frames F.
        joints_mm: (B, J, 3) where the joints of each clip lie, millimetres; see `motion_table`.
        head_dim: columns K of a head, a multiple of 8.

    Returns:
        Tables (B, F * J, K).
    """
    tables = [motion_table(frames, own_mm, head_dim) for own_mm in joints_mm]
    return Rotary(*(torch.stack(each) for each in zip(*tables, strict=True)))


def rotate(heads: Tensor, rotary: Rotary) -> Tensor:
    """Turn each pair of columns (2i, 2i + 1) of queries or keys by its token's angle, in float32.

    Args:
        heads: (B, S, heads, K) of any float dtype.
        rotary: tables of the S tokens.

    Returns:
        The same shape and dtype.
    """
    cos, sin = rotary.cos[..., None, 0::2].float(), rotary.sin[..., None, 0::2].float()  # (S, 1, K / 2)
    pairs = heads.float().unflatten(-1, (-1, 2))  # (B, S, heads, K / 2, 2)
    if torch.compiler.is_compiling() or heads.device.type == "mps":  # neither is sure to know complex numbers
        even, odd = pairs.unbind(-1)
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1)
    else:  # the same sums in one walk over the heads instead of seven
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin))
    return turned.flatten(-2).to(heads.dtype)


def only(rotary: Rotary, axes: str, columns: str) -> Rotary:
    """Leave out some axes: what lies apart on them only is then turned alike.

    Args:
        rotary: tables of S tokens.
        axes: the axes that stay, such as "txy".
        columns: which axis each equal share of the columns belongs to, such as "txyz".

    Returns:
        The same tables with angle 0 on the other axes; untouched where none is left out.
    """
    if set(columns) <= set(axes):
        return rotary
    width = rotary.cos.shape[-1] // len(columns)
    stays = torch.tensor([axis in axes for axis in columns], device=rotary.cos.device).repeat_interleave(width)
    return Rotary(torch.where(stays, rotary.cos, 1.0), torch.where(stays, rotary.sin, 0.0))


def _table(places: Tensor, widths: tuple[int, ...]) -> Rotary:
    """Tables for (S, A) positions on A axes of the given widths."""
    angles = torch.cat(
        [
            torch.outer(place, 1.0 / THETA ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
            for place, width in zip(places.T, widths, strict=True)
        ],
        dim=1,
    ).repeat_interleave(2, dim=1)  # (S, K)
    return Rotary(angles.cos(), angles.sin())


def wan_visual_table(frames: int, rows: int, columns: int, head_dim: int) -> Rotary:
    """Positions of video patches in the Wan family: of a head of 128 columns 44 are time, 42 rows and 42 columns.

    Source: Wan 2.1; positions are 0, 1, 2, ... on each axis. Angles are float64, as the base model has them.

    Args:
        frames: latent frames F.
        rows: patches from top to bottom, half the latent height.
        columns: patches from left to right, half the latent width.
        head_dim: columns K of a head, even and at least 6. Rows and columns get a third of it each, rounded down to
            even; time gets the rest.

    Returns:
        Tables of F * rows * columns tokens: frame after frame, row after row, column after column.
    """
    if head_dim % 2 or head_dim < 6:
        raise ValueError(f"a head of {head_dim} columns can't be cut into even axes for time, rows and columns")
    side = head_dim // 6 * 2
    places = torch.cartesian_prod(*(torch.arange(size, dtype=torch.float64) for size in (frames, rows, columns)))
    angles = torch.cat(
        [
            torch.outer(place, THETA ** (-torch.arange(0, width, 2, dtype=torch.float64) / width))
            for place, width in zip(places.reshape(-1, 3).T, (head_dim - 2 * side, side, side), strict=True)
        ],
        dim=1,
    ).repeat_interleave(2, dim=1)  # (S, K)
    return Rotary(angles.cos().float(), angles.sin().float())


def wan_motion_table(frames: int, joint_mean_mm: Float[np.ndarray, "J 3"], head_dim: int) -> Rotary:
    """Positions of motion tokens in the Wan family: of a head of 128 columns 44 are time, and x, y and z have 28 each.

    Joints lie where `motion_table` puts them. Source: paper, section on 4D rotary positions; released code.

    Args:
        frames: latent frames F.
        joint_mean_mm: (J, 3) mean position of each joint in the training set, millimetres.
        head_dim: columns K of a head, even and at least 12. What patches have for rows and columns is shared out evenly
            among x, y and z, rounded down to even; time gets the rest.

    Returns:
        Tables of F * J tokens: frame after frame, joint after joint.
    """
    if head_dim % 2 or head_dim < 12:
        raise ValueError(f"a head of {head_dim} columns can't be cut into four even axes")
    side = head_dim // 6 * 4 // 6 * 2
    axes_mm = np.ascontiguousarray(joint_mean_mm.T, dtype=np.float32)  # (3, J); `motion_table` says why
    space_mm = torch.from_numpy((axes_mm - axes_mm.mean(axis=1, keepdims=True)).T)  # (J, 3)
    time = torch.arange(frames, dtype=torch.float32).repeat_interleave(len(space_mm))  # (F * J,)
    places = torch.cat([time[:, None], space_mm.repeat(frames, 1)], dim=1)
    return _table(places, (head_dim - 3 * side, side, side, side))
