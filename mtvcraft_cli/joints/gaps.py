"""Frames where nobody was found: short gaps are filled in and marked, long ones are refused."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.backend import Estimate, Smpl
from mtvcraft_cli.joints.between import Between
from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.skeleton import project

MAX_GAP_S: Final = Fraction(1, 2)
LEAST_SEEN: Final = Fraction(1, 4)
"""A motion of which less was seen would be mostly made up."""
UNSURE: Final = 0.5
"""Joints of less confidence count as unsure in reports."""


def fill(estimate: Estimate, rate: Fraction, max_gap_s: Fraction = MAX_GAP_S, name: str = "video") -> Estimate:
    """Fill in the frames where nobody was found.

    Args:
        estimate: of every frame of a clip.
        rate: frames a second.
        max_gap_s: the longest stretch that may be filled in, seconds.
        name: what the user calls the clip, for messages.

    Returns:
        The same without NaN: joints go in a straight line from one side of a gap to the other, and are held before
        the first and after the last sight. `found` still tells which frames were seen; filled ones have confidence 0.

    Raises:
        MtvcraftError: (`Exit.INPUT`) nobody in any frame, a gap that is longer, or a person in too few frames.
    """
    found = np.flatnonzero(estimate.found)
    total = len(estimate.found)
    if not len(found):
        raise MtvcraftError(
            f"no person in any of the {total} frames of `{name}`",
            hint="take a clip in which one person is well in view, or give joints of your own",
        )
    gaps = [
        (first + 1, after - 1)
        for first, after in zip([-1, *found.tolist()], [*found.tolist(), total], strict=True)
        if after - first > 1
    ]
    too_long = [(first, last) for first, last in gaps if (last - first + 1) / rate > max_gap_s]
    if too_long:
        first, last = too_long[0]
        frames = f"frames {first} to {last}" if last > first else f"frame {first}"
        gap_s = float((last - first + 1) / rate)
        raise MtvcraftError(
            f"no person in {frames} of `{name}` ({gap_s:.{1 if gap_s > 1 else 2}f} s), "
            f"more than `--max-gap` {float(max_gap_s):g} s",
            hint="cut those frames off, or allow a longer gap with `--max-gap`",
        )
    if len(found) < LEAST_SEEN * total:
        raise MtvcraftError(
            f"a person in only {len(found)} of the {total} frames of `{name}`",
            hint="cut the clip to the part where one person is well in view",
        )
    between = _around(found, total)
    smpl = estimate.smpl and Smpl(
        pose=between.of_rotations(estimate.smpl.pose),
        betas=between.of(estimate.smpl.betas),
        transl=between.of(estimate.smpl.transl),
    )
    return replace(estimate, joints_mm=between.of(estimate.joints_mm), smpl=smpl)


def _around(found: npt.NDArray[np.int64], total: int) -> Between:
    """Return for every frame the last found one up to it and the next from it on; at the ends both are the same."""
    frames = np.arange(total)
    lower = found[np.maximum(np.searchsorted(found, frames, side="right") - 1, 0)]
    upper = found[np.minimum(np.searchsorted(found, frames), len(found) - 1)]
    return Between(lower, upper, np.clip((frames - lower) / np.maximum(upper - lower, 1), 0, 1))


@dataclass(frozen=True)
class Report:
    """How good a motion is, in shares 0..1."""

    frames: int
    filled: int
    """Frames in which nobody was found."""
    unsure: float
    """Joints of observed frames whose confidence is below a half."""
    out_of_view: float
    """Joints of observed frames that lie outside the picture."""

    def sentences(self) -> list[str]:
        """Say it in words, what is perfect left out."""
        seen = self.frames - self.filled
        lines = [f"a person in {seen} of {self.frames} frames" + (f", {self.filled} filled in" if self.filled else "")]
        if self.unsure > 0:
            lines.append(f"{self.unsure:.1%} of the joints are unsure")
        if self.out_of_view > 0:
            lines.append(f"{self.out_of_view:.1%} of the joints are out of view")
        return lines


def describe(motion: Motion) -> Report:
    """Sum up how much of a motion was seen, and how well."""
    seen = motion.observed
    places = project(motion.joints_mm[seen], motion.size_px, motion.fov_deg)
    inside = ((places >= 0) & (places <= motion.size_px)).all(axis=-1)  # NaN, behind the camera, is outside
    return Report(
        frames=len(motion),
        filled=int((~seen).sum()),
        unsure=float((motion.confidence[seen] < UNSURE).mean()) if seen.any() else 0.0,
        out_of_view=float((~inside).mean()) if seen.any() else 0.0,
    )
