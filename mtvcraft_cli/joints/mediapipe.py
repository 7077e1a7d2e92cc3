"""MediaPipe's pose model as a backend: runs on a CPU, and its weights come inside its wheel."""

import importlib.metadata
import warnings
from collections.abc import Iterable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Batch, Estimate
from mtvcraft_cli.joints.lift import LANDMARKS, Landmarks, lift
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.quiet import silence


class MediaPipePose:
    """Finds MediaPipe's 33 landmarks, frame after frame, and lifts them to SMPL's 24 joints in camera space.

    Raises:
        MtvcraftError: (`Exit.WEIGHTS`) MediaPipe is missing, or a system library it needs.
    """

    name = "mediapipe"

    def __init__(self) -> None:
        self.pose = _import_mediapipe().solutions.pose.Pose
        self.version = importlib.metadata.version("mediapipe")

    def estimate(
        self,
        batches: Iterable[Batch],
        size_px: tuple[int, int],
        rate: Fraction,
        watch: Watch = silent,
        total: int | None = None,
    ) -> Estimate:
        """Find one person in the frames of one clip; see `PoseBackend.estimate`."""
        warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype", category=UserWarning)
        width, height = size_px
        with silence():  # log lines come while the graph starts, from native threads
            # Only complexity 1 lies in the wheel; the others would be downloaded. Its own smoothing lags by a third of
            # a frame: `lift` smooths without lag.
            finder = self.pose(model_complexity=1, smooth_landmarks=False)
            finder.process(np.zeros((height, width, 3), np.uint8))
        with finder:
            rows = [
                _landmarks(finder.process(np.ascontiguousarray(frame)))
                for batch in watch(batches, "pose", total)
                for frame in batch
            ]
        if not rows:
            raise ValueError("a clip has at least one frame")
        table = np.stack(rows)  # (T, 33, 6)
        landmarks = Landmarks(
            world_mm=table[..., :3] * 1000, image_px=table[..., 3:5] * size_px, visibility=table[..., 5]
        )
        return lift(landmarks, size_px, rate)


def _landmarks(result: Any) -> npt.NDArray[np.float64]:
    """Return (33, 6): world x, y, z in metres; picture x, y in shares of its size; visibility. NaN: nobody there."""
    if result.pose_world_landmarks is None:
        return np.full((LANDMARKS, 6), np.nan)
    world, image = result.pose_world_landmarks.landmark, result.pose_landmarks.landmark
    return np.array([(w.x, w.y, w.z, i.x, i.y, i.visibility) for w, i in zip(world, image, strict=True)])


def _import_mediapipe() -> ModuleType:
    try:
        with silence():
            import mediapipe
    except ModuleNotFoundError as error:
        raise MtvcraftError(
            f"MediaPipe is not installed ({error})", hint='pip install "mtvcraft[mediapipe]"', exit=Exit.WEIGHTS
        ) from error
    except (ImportError, OSError) as error:  # names the shared library that is missing
        raise MtvcraftError(
            f"MediaPipe can't load a system library: {error}",
            hint="on Debian or Ubuntu: apt-get install libgl1 libegl1 libgles2 libglib2.0-0",
            exit=Exit.WEIGHTS,
        ) from error
    return mediapipe
