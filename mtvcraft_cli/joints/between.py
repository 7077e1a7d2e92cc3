"""Values between frames: what gaps and new frame rates both need."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Between:
    """Where each of N wanted frames lies among the T frames there are."""

    lower: npt.NDArray[np.int64]
    """(N,) index of the frame before."""
    upper: npt.NDArray[np.int64]
    """(N,) index of the frame after."""
    part: npt.NDArray[np.float64]
    """(N,) 0..1: how far from the one to the other. At 0 the frame before is taken bit by bit."""

    def of(self, values: Array) -> Array:
        """Return (N, ...) on the straight lines between the T rows of `values`, (T, ...)."""
        part = self.part.astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
        first, last = values[self.lower], values[self.upper]
        return np.where(part > 0, first + part * (last - first), first)

    def of_rotations(self, poses: Array) -> Array:
        """Return (N, 3K) on the shortest turns between the T rows of `poses`, (T, 3K): K times axis times angle."""
        first, last = (_quaternions(poses[index].reshape(len(index), -1, 3)) for index in (self.lower, self.upper))
        cosine = (first * last).sum(axis=-1, keepdims=True)
        last = np.where(cosine < 0, -last, last)
        angle = np.arccos(np.minimum(np.abs(cosine), 1))
        part = self.part[:, None, None]
        # sin(x angle) / sin(angle), written so that it holds for angle 0 too
        shares = [x * np.sinc(x * angle / np.pi) / np.sinc(angle / np.pi) for x in (1 - part, part)]
        turned = _axis_angles(shares[0] * first + shares[1] * last).reshape(len(self.lower), -1)
        return np.where(self.part[:, None] > 0, turned, poses[self.lower]).astype(np.float32)


def _quaternions(axis_angles: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    half = np.asarray(axis_angles, np.float64) / 2
    angle = np.linalg.norm(half, axis=-1, keepdims=True)
    return np.concatenate([np.cos(angle), half * np.sinc(angle / np.pi)], axis=-1)


def _axis_angles(quaternions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    sine = np.linalg.norm(quaternions[..., 1:], axis=-1, keepdims=True)
    half = np.arctan2(sine, quaternions[..., :1])
    half = np.where(half > np.pi / 2, half - np.pi, half)  # the shorter of the two ways round
    return quaternions[..., 1:] * 2 * half / np.where(sine > 0, sine, 1)
