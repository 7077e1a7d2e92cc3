"""The driver's frames, the model's frames and the frames of the result on one time axis, in exact fractions."""

import math
from dataclasses import dataclass
from fractions import Fraction

from mtvcraft_cli.preset import Preset


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How the driver's frames, the model's frames and the frames written lie in time."""

    drive_rate: Fraction
    model_rate: Fraction
    """Frames per second at which the model sees the motion."""
    model_frames: int
    rate: Fraction
    """Frames per second of the result."""
    frames: int

    def model_frame(self, frame: int) -> int:
        """Return which of the model's frames is shown as frame `frame` of the result: the nearest in time."""
        return min(self.model_frames - 1, math.ceil(frame * self.model_rate / self.rate - Fraction(1, 2)))


def plan_timing(frames: int, drive_rate: Fraction, rate: Fraction | None, preset: Preset) -> Timing:
    """Keep the driver's duration, and its rate unless `rate` names another."""
    out_rate = rate or drive_rate
    out_frames = max(1, round(frames / drive_rate * out_rate))
    model_rate = (preset.rate or out_rate) / preset.stride
    return Timing(
        drive_rate=drive_rate,
        model_rate=model_rate,
        model_frames=math.ceil((out_frames - 1) / out_rate * model_rate) + 1,
        rate=out_rate,
        frames=out_frames,
    )
