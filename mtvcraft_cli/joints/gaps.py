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
        MtvcraftError: (`Exit.INPUT`) nobody in any frame, a person in one frame of several, or a gap that is longer.
    """
    found = np.flatnonzero(estimate.found)
    total = len(estimate.found)
    if not len(found):
        raise MtvcraftError(
            f"no person in any of the {total} frames of `{name}`",
            hint="take a clip in which a person is well in view, or give joints of your own",
        )
    if len(found) == 1 < total:
        raise MtvcraftError(
            f"a person in only one of the {total} frames of `{name}`: that is a pose, not a motion",
            hint="cut the clip to where the person is in view with `--start` and `--end`",
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
            hint=_way_out(first, last, total, rate),
        )
    between = _around(found, total)
    smpl = estimate.smpl and Smpl(
        pose=between.of_rotations(estimate.smpl.pose),
        betas=between.of(estimate.smpl.betas),
        transl=between.of(estimate.smpl.transl),
    )
    return replace(estimate, joints_mm=between.of(estimate.joints_mm), smpl=smpl)


def _way_out(first: int, last: int, total: int, rate: Fraction) -> str:
    """Say how to get rid of a gap: one at an end is cut off, one within can only be allowed."""
    allow = f"allow it with `--max-gap {np.ceil(float((last - first + 1) / rate) * 10) / 10:g}`"
    choose = "choose another person with `--person`"
    if first == 0:
        return f"begin {float((last + 1) / rate):.2f} s later with `--start`, {allow}, or {choose}"
    if last == total - 1:
        return f"end {float((last - first + 1) / rate):.2f} s earlier with `--end`, {allow}, or {choose}"
    return f"cut the clip with `--start` or `--end`, {allow}, or {choose}"


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

    @property
    def observed(self) -> float:
        """Frames in which the person was seen."""
        return 1 - self.filled / self.frames

    def sentences(self) -> list[str]:
        """Say it in a few words, what is perfect left out."""
        lines = [f"the person was seen in {_percent(self.observed)} of {self.frames} frames"]
        if self.filled:
            lines[0] += f", {self.filled} {'was' if self.filled == 1 else 'were'} filled in"
        parts = [(self.unsure, "low in confidence"), (self.out_of_view, "out of view")]
        if told := [f"{_percent(share)} {what}" for share, what in parts if share > 0]:
            lines.append(f"of the joints, {' and '.join(told)}")
        return lines


def _percent(share: float) -> str:
    """Round, but never up to all or down to nothing."""
    if 0 < share < 0.01:
        return "under 1 %"
    return f"{int(100 * share)} %" if share > 0.5 else f"{100 * share:.0f} %"


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
