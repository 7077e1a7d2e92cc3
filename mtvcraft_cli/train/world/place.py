"""Puts a motion before a random camera, so that its joints lie as those of people in videos do."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.shapes import JointsMm
from mtvcraft_cli.train.world.render import Camera


@dataclass(frozen=True)
class Placement:
    """A camera, and how much larger than the motion's skeleton the body before it is."""

    camera: Camera
    scale: float

    def joints_mm(self, motion_mm: JointsMm) -> JointsMm:
        """Return the joints in camera space, (T, 24, 3)."""
        return self.scale * self.camera.sees(motion_mm)


def place(
    motion_mm: JointsMm, rng: np.random.Generator, size_px: tuple[int, int] = (512, 512), *, upright: bool = False
) -> Placement:
    """Draw a camera that stands still while the motion plays.

    The draws follow the camera-space joints that NLF finds in a large corpus of videos: over many draws, mean and
    spread per joint agree with the statistics published with the model to about 20 mm.

    Args:
        motion_mm: (T, 24, 3) world, y up, the floor at 0.
        rng: draws everything.
        size_px: of the camera's picture.
        upright: as in videos of one dancer in full view only: nearly level, no large roll, about two metres away.

    Returns:
        The camera and the scale of the body. Drawing at scale 1 gives the same picture, as perspective has no scale.
    """
    middle = motion_mm[len(motion_mm) // 2].astype(np.float64)
    across = middle[1] - middle[2] + middle[16] - middle[17]
    heading = np.arctan2(-across[2], across[0])  # across x up is where the person looks; 0 is +z
    anchor = motion_mm[:, 0].mean(0).astype(np.float64)
    anchor[1] = 0.7 * anchor[1] + 0.3 * motion_mm[:, (10, 11), 1].min()

    yaw = rng.normal(0, 25) if rng.random() < 0.8 else rng.uniform(-180, 180)
    if upright:
        pitch, roll, scale = rng.normal(-3, 6), rng.normal(0, 3), rng.normal(1, 0.07)
        away = 1900 * np.exp(rng.normal(0, 0.15))
        down = (0.20 + rng.normal(0, 0.05)) * away
    else:
        pitch = rng.normal(-5, 20)
        roll = rng.normal(0, 3) if rng.random() < 0.83 else rng.normal(0, 70)
        scale = np.clip(rng.normal(1.03, 0.15), 0.6, 1.35)
        away = np.clip(1700 * np.exp(rng.normal(0, 0.30)), 700, 5000)
        down = (0.22 + rng.normal(0, 0.10)) * away
    shift = np.asarray((rng.normal(0, 0.03) * away, down, away))
    turn = about(2, roll) @ about(0, pitch) @ np.diag((1.0, -1.0, -1.0)) @ about(1, yaw - np.degrees(heading))
    nearest = (scale * (motion_mm - anchor) @ turn.T + shift)[..., 2].min()
    shift[2] += max(0.0, 300 - nearest)
    return Placement(
        Camera(turn.astype(np.float32), (shift / scale - turn @ anchor).astype(np.float32), size_px), float(scale)
    )


def about(axis: int, degrees: float) -> npt.NDArray[np.float64]:
    """Rotate about an axis by its number, right-handed."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    turn[first, first] = turn[second, second] = cosine
    turn[second, first], turn[first, second] = sine, -sine
    return turn
