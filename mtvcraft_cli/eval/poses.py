"""The pose found again in frames, and how near it is to the driver's: what motion-follow is made of."""

from fractions import Fraction
from threading import Lock
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.eval.follow import Follow, follow
from mtvcraft_cli.eval.views import View
from mtvcraft_cli.jobs.drive import Estimator
from mtvcraft_cli.joints.people import choose_person

RATE: Final = Fraction(30)
"""Clips are compared frame by frame; estimators only use it to judge how far a person can move meanwhile."""
_ONE_AT_A_TIME: Final = Lock()
"""Estimators keep a state."""


def find_pose(view: View, estimator: Estimator) -> dict[str, npt.NDArray[Any]]:
    """Find the person who covers most of the frames.

    Returns:
        `joints_mm` (T, 24, 3), where nobody was found those of the frame before or else after, and `seen` (T,); no
        frames where nobody was found in any.
    """
    with _ONE_AT_A_TIME:
        scene = estimator.backend.see(view.batches(), view.size_px, RATE)
    if not scene.people:
        return {"joints_mm": np.empty((0, 24, 3), np.float32), "seen": np.empty(0, bool)}
    _, person = choose_person(scene, "largest", RATE, view.source.where)
    found = person.estimate.found
    places = np.flatnonzero(found)
    nearest = places[np.maximum(np.searchsorted(places, np.arange(len(found)), "right") - 1, 0)]
    return {"joints_mm": person.estimate.joints_mm[nearest], "seen": found}


def followed(made: dict[str, npt.NDArray[Any]], driver: dict[str, npt.NDArray[Any]]) -> Follow | None:
    """Compare two poses from `find_pose`; None where either has nobody."""
    if not len(made["seen"]) or not len(driver["seen"]):
        return None
    seen = [np.repeat(each["seen"][:, None], 24, 1) for each in (made, driver)]
    return follow(made["joints_mm"], driver["joints_mm"], *seen)
