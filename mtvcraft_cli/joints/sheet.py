"""A contact sheet: everyone in a scene where they are seen best, with the number that `--person` takes."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from mtvcraft_cli.joints.backend import Person, Scene
from mtvcraft_cli.joints.shots import Frame
from mtvcraft_cli.shapes import Picture

CELL_PX: Final = (240, 320)
"""Width and height of one picture."""
GAP_PX: Final = 12
COLUMNS: Final = 6
PAPER: Final = (245, 245, 242)
FRAME: Final = (255, 176, 0)
SPARE: Final = 1.15
"""Crops are larger than the person's box by this."""


def contact_sheet(scene: Scene, frame_at: Callable[[int], Frame]) -> Picture:
    """Draw one picture per person, in the order of their numbers.

    Args:
        scene: with at least one person.
        frame_at: returns the frame (H, W, 3) of a number; asked once per person, in ascending order of frames.

    Returns:
        (H, W, 3).
    """
    if not scene.people:
        raise ValueError("nobody to show")
    best = {index: best_frame(person) for index, person in enumerate(scene.people)}
    columns = min(len(best), COLUMNS)
    rows = -(-len(best) // columns)
    step = np.array(CELL_PX) + GAP_PX
    sheet = Image.new("RGB", (columns * int(step[0]) + GAP_PX, rows * int(step[1]) + GAP_PX), PAPER)
    for index in sorted(best, key=lambda index: best[index]):
        cell = _cell(frame_at(best[index]), scene.people[index].boxes_px[best[index]], index + 1)
        row, column = divmod(index, columns)
        sheet.paste(cell, (GAP_PX + column * int(step[0]), GAP_PX + row * int(step[1])))
    return np.asarray(sheet)


def best_frame(person: Person) -> int:
    """Return the frame in which a person is seen surest and largest."""
    seen = np.flatnonzero(person.estimate.found)
    area = person.boxes_px[seen, 2:].prod(axis=1)
    return int(seen[np.argmax(person.estimate.confidence[seen].mean(axis=1) ** 4 * np.sqrt(area))])


def _cell(frame: Frame, box_px: npt.NDArray[np.float32], number: int) -> Image.Image:
    """Cut a person out, box them and number them; what lies past the frame's edge is paper."""
    middle = box_px[:2] + box_px[2:] / 2
    scale = max(float(box_px[2]) / CELL_PX[0], float(box_px[3]) / CELL_PX[1], 1e-3) * SPARE
    reach = np.array(CELL_PX) * scale / 2
    left, upper, right, lower = (round(float(edge)) for edge in (*(middle - reach), *(middle + reach)))
    low, high = np.maximum((left, upper), 0), np.minimum((right, lower), frame.shape[1::-1])
    crop = Image.new("RGB", (right - left, lower - upper), PAPER)
    crop.paste(Image.fromarray(frame[low[1] : high[1], low[0] : high[0]]), (int(low[0]) - left, int(low[1]) - upper))
    cell = crop.resize(CELL_PX, Image.Resampling.LANCZOS if scale > 1 else Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(cell)
    start = (box_px[:2] - (left, upper)) / scale
    draw.rectangle((*start.tolist(), *(start + box_px[2:] / scale).tolist()), outline=FRAME, width=3)
    font = ImageFont.load_default(40)
    x0, y0, x1, y1 = draw.textbbox((18, 8), str(number), font=font)
    draw.rounded_rectangle((x0 - 12, y0 - 10, x1 + 12, y1 + 10), radius=8, fill=(20, 20, 20))
    draw.text((18, 8), str(number), font=font, fill=(255, 255, 255))
    return cell
