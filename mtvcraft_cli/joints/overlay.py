"""Draws skeletons over frames, to see whether the joints lie where the person is."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.backend import Batch
from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.skeleton import FOV_DEG, NAMES, PARENTS, project
from mtvcraft_cli.shapes import Picture

LEFT_COLOUR: Final = (255, 140, 0)
RIGHT_COLOUR: Final = (30, 170, 255)
MIDDLE_COLOUR: Final = (255, 255, 255)
OUTLINE_COLOUR: Final = (0, 0, 0)
GROUND_COLOUR: Final = (36, 38, 43)
"""Behind a skeleton that is drawn alone: dark, and neither side's colour."""
FAINTEST: Final = 0.25
"""What a joint of no confidence is drawn with; a sure one is opaque."""
COLOURS: Final = np.array(
    [{"l": LEFT_COLOUR, "r": RIGHT_COLOUR}.get(name.partition("_")[0], MIDDLE_COLOUR) for name in NAMES], np.float32
)
"""(24, 3) of each joint and the bone that ends there: the person's left orange, right blue, both clear of each other
to colour-blind eyes."""


def draw(
    frame: npt.NDArray[np.uint8],
    joints_mm: npt.NDArray[np.floating],
    size_px: tuple[int, int],
    confidence: npt.NDArray[np.floating] | None = None,
    fov_deg: float = FOV_DEG,
) -> npt.NDArray[np.uint8]:
    """Return the frame with a skeleton over it.

    Args:
        frame: (H, W, 3) RGB.
        joints_mm: (24, 3) camera space.
        size_px: width and height of the frames that the joints were found in; `frame` may be of another size.
        confidence: (24,) 0..1; joints and bones get fainter with it.
        fov_deg: field of view along the longer side.

    Returns:
        (H, W, 3), antialiased lines with a dark outline, nearer bones over farther ones.
    """
    height, width = frame.shape[:2]
    places = project(joints_mm, size_px, fov_deg) * (width / size_px[0], height / size_px[1])
    sure = np.ones(len(NAMES)) if confidence is None else np.clip(np.nan_to_num(confidence), 0, 1)
    opacity = (FAINTEST + (1 - FAINTEST) * sure).tolist()
    radius = max(width, height, 560) / 400  # thinner ones are lost
    drawn = frame.copy()
    depth = joints_mm[:, 2]
    bones = sorted(range(1, len(NAMES)), key=lambda joint: -float(depth[joint] + depth[PARENTS[joint]]))
    for joint in bones:
        parent = PARENTS[joint]
        _capsule(drawn, places[parent], places[joint], radius, COLOURS[joint], min(opacity[joint], opacity[parent]))
    for joint in np.argsort(-depth):
        _capsule(drawn, places[joint], places[joint], 1.8 * radius, COLOURS[joint], opacity[joint])
    return drawn


def draw_over(batches: Iterable[Batch], motion: Motion) -> Iterator[Batch]:
    """Draw a motion over the frames it was found in, batch after batch; what was filled in is drawn faint."""
    start = 0
    for batch in batches:
        stop = start + len(batch)
        yield np.stack(
            [
                draw(frame, joints_mm, motion.size_px, confidence, motion.fov_deg)
                for frame, joints_mm, confidence in zip(
                    batch, motion.joints_mm[start:stop], motion.confidence[start:stop], strict=True
                )
            ]
        )
        start = stop


def draw_alone(motion: Motion, size_px: tuple[int, int]) -> Iterator[Picture]:
    """Draw a motion on plain ground, a frame at a time.

    Args:
        motion: its own `size_px` says what the camera sees.
        size_px: width and height of what is drawn, of about the same shape.

    Yields:
        (H, W, 3) RGB, 0..255, as many as the motion has frames.
    """
    width, height = size_px
    blank = np.full((height, width, 3), GROUND_COLOUR, np.uint8)
    for joints_mm, confidence in zip(motion.joints_mm, motion.confidence, strict=True):
        yield draw(blank, joints_mm, motion.size_px, confidence, motion.fov_deg)


def _capsule(
    frame: npt.NDArray[np.uint8],
    start: npt.NDArray[np.float64],
    end: npt.NDArray[np.float64],
    radius: float,
    colour: npt.NDArray[np.float32],
    opacity: float,
) -> None:
    """Paint all that lies within `radius` pixels of the line into `frame`, with an outline of half as much again."""
    if not np.isfinite([start, end]).all():
        return  # behind the camera
    outline = 0.6 * radius + 0.7
    reach = radius + outline + 1
    size = np.array(frame.shape[1::-1])
    low = np.clip(np.floor(np.minimum(start, end) - reach), 0, size).astype(int)
    high = np.clip(np.ceil(np.maximum(start, end) + reach) + 1, 0, size).astype(int)
    if (low >= high).any():
        return  # outside the picture
    x = np.arange(low[0], high[0], dtype=np.float32)[None, :] + np.float32(0.5 - start[0])
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] + np.float32(0.5 - start[1])
    along = (end - start).astype(np.float32)
    share = np.clip((x * along[0] + y * along[1]) / max(float(along @ along), 1e-6), 0, 1)
    distance = np.hypot(x - share * along[0], y - share * along[1])
    covered = np.clip(radius + outline + 0.5 - distance, 0, 1) * np.float32(opacity)
    inner = np.clip(radius + 0.5 - distance, 0, 1)
    patch = frame[low[1] : high[1], low[0] : high[0]]
    paint = inner[..., None] * colour + (1 - inner)[..., None] * np.array(OUTLINE_COLOUR, np.float32)
    patch[:] = np.rint(patch + covered[..., None] * (paint - patch)).astype(np.uint8)
