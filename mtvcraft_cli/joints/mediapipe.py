"""MediaPipe's pose model as a backend: runs on a CPU, and its weights come inside its wheel.

Its own `Pose` follows one person: it detects people, takes the surest, and from then on finds the landmarks of a frame
in the region where those of the frame before were. Here the same parts are put together for any number of people: the
detector looks at the frame as a whole and at squares of it, now and then and whenever somebody is missing, and everyone
found gets a chain of regions of their own. For one person that gives what `Pose` gives, to the bit.
"""

import importlib.metadata
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from fractions import Fraction
from itertools import cycle
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Batch, Estimate, Person, Scene
from mtvcraft_cli.joints.lift import LANDMARKS, LEFT, Landmarks, lift, roughly_placed
from mtvcraft_cli.joints.shots import Frame, with_cuts
from mtvcraft_cli.joints.tracks import Sighting, Tracker
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.quiet import silence

LOOK_EVERY: Final = 30
"""Frames between two looks for newcomers while nobody is missing: looking takes two thirds of what following takes."""
SAME_HIPS: Final = 0.3
"""Who is detected this near to the hips of somebody followed, in lengths from hips to the end of the body, is them."""
MARGIN: Final = 0.08
"""Boxes reach past the outermost landmarks by this share of their longer side: the face ends at the eyes."""

PAINT: Final = 128

View = tuple[int, int, int, int]
"""A part of the frame: left, upper, width, height."""

_DETECT: Final = """
input_stream: "IMAGE:image"
output_stream: "DETECTIONS:detections"
node { calculator: "PoseDetectionCpu" input_stream: "IMAGE:image" output_stream: "DETECTIONS:detections" }
"""
_START: Final = """
input_stream: "IMAGE:image"
input_stream: "DETECTION:detection"
output_stream: "ROI:region"
node { calculator: "ImagePropertiesCalculator" input_stream: "IMAGE_CPU:image" output_stream: "SIZE:size" }
node {
  calculator: "PoseDetectionToRoi"
  input_stream: "DETECTION:detection" input_stream: "IMAGE_SIZE:size"
  output_stream: "ROI:region"
}
"""
# Only complexity 1 lies in the wheel; the others would be downloaded. MediaPipe's smoothing of landmarks lags by a
# third of a frame: `lift` smooths without lag. Disabled, the filter still calms the region that goes on.
_FOLLOW: Final = """
input_stream: "IMAGE:image"
input_stream: "ROI:region"
input_side_packet: "MODEL_COMPLEXITY:model_complexity"
input_side_packet: "ENABLE:smooth_landmarks"
output_stream: "LANDMARKS:landmarks"
output_stream: "WORLD_LANDMARKS:world"
output_stream: "ROI:next_region"
node { calculator: "ImagePropertiesCalculator" input_stream: "IMAGE_CPU:image" output_stream: "SIZE:size" }
node {
  calculator: "PoseLandmarkByRoiCpu"
  input_stream: "IMAGE:image" input_stream: "ROI:region" input_side_packet: "MODEL_COMPLEXITY:model_complexity"
  output_stream: "LANDMARKS:a" output_stream: "AUXILIARY_LANDMARKS:b" output_stream: "WORLD_LANDMARKS:c"
}
node {
  calculator: "PoseLandmarkFiltering"
  input_side_packet: "ENABLE:smooth_landmarks" input_stream: "IMAGE_SIZE:size"
  input_stream: "NORM_LANDMARKS:a" input_stream: "AUX_NORM_LANDMARKS:b" input_stream: "WORLD_LANDMARKS:c"
  output_stream: "FILTERED_NORM_LANDMARKS:landmarks" output_stream: "FILTERED_AUX_NORM_LANDMARKS:auxiliary"
  output_stream: "FILTERED_WORLD_LANDMARKS:world"
}
node {
  calculator: "PoseLandmarksToRoi"
  input_stream: "LANDMARKS:auxiliary" input_stream: "IMAGE_SIZE:size"
  output_stream: "ROI:next_region"
}
"""


class MediaPipePose:
    """Finds MediaPipe's 33 landmarks, frame after frame, and lifts them to SMPL's 24 joints in camera space.

    Raises:
        MtvcraftError: (`Exit.WEIGHTS`) MediaPipe is missing, or a system library it needs.
    """

    name = "mediapipe"

    def __init__(self) -> None:
        self.mediapipe = _import_mediapipe()
        self.version = importlib.metadata.version("mediapipe")

    def see(
        self,
        batches: Iterable[Batch],
        size_px: tuple[int, int],
        rate: Fraction,
        watch: Watch = silent,
        total: int | None = None,
    ) -> Scene:
        """Find everyone in the frames of one clip; see `PoseBackend.see`."""
        warnings.filterwarnings("ignore", message="SymbolDatabase.GetPrototype", category=UserWarning)
        tracker, cuts = Tracker(rate), []
        with ExitStack() as opened:
            crew = _Crew(self.mediapipe, size_px, opened)
            for frame, cut in with_cuts(watch(batches, "pose", total)):
                if cut:
                    cuts.append(tracker.frame + 1)
                    tracker.cut()
                    crew.forget()
                crew.work(np.ascontiguousarray(frame), tracker)
        if tracker.frame < 0:
            raise ValueError("a clip has at least one frame")
        frames = tracker.frame + 1
        people = (_person(seen, frames, cuts, size_px, rate) for seen in tracker.people())
        return Scene(frames=frames, people=tuple(people), cuts=tuple(cuts))


class _Crew:
    """A detector, and a follower for everyone in view.

    Args:
        mediapipe: the module.
        size_px: width and height of the frames.
        opened: closes the graphs in the end.
    """

    def __init__(self, mediapipe: ModuleType, size_px: tuple[int, int], opened: ExitStack) -> None:
        self.mediapipe, self.size_px, self.opened = mediapipe, size_px, opened
        blank = np.zeros((*size_px[::-1], 3), np.uint8)
        self.detector = self.graph(_DETECT, {"image": blank})
        self.starter = self.graph(_START)
        self.followers: list[_Follower] = []
        self.idle = [_Follower(self)]
        self.views = _views(size_px)
        self.turns = cycle(self.views)
        self.forget()

    def graph(self, text: str, warm_up: dict[str, Any] | None = None, **side_inputs: object) -> Any:
        """Start a graph; log lines come while it starts and first works, from native threads."""
        from google.protobuf import text_format  # type: ignore[import-untyped]
        from mediapipe.framework import calculator_pb2
        from mediapipe.python.solution_base import SolutionBase

        with silence():
            config = text_format.Parse(text, calculator_pb2.CalculatorGraphConfig())
            graph = self.opened.enter_context(SolutionBase(graph_config=config, side_inputs=side_inputs or None))
            if warm_up:
                graph.process(warm_up)
        return graph

    def forget(self) -> None:
        """Follow nobody any more: a new shot begins."""
        self.idle += self.followers
        self.followers = []
        self.fresh, self.waited = True, 0

    def work(self, frame: Frame, tracker: Tracker) -> None:
        """Follow everyone into the next frame, look for others where it is time, and tell the tracker."""
        seen: list[tuple[_Follower, Sighting]] = []

        def follow(follower: _Follower) -> None:
            row = follower.see(frame)
            if row is None:
                self.idle.append(follower)
            else:
                seen.append((follower, _sighting(row, self.size_px)))

        for follower in self.followers:
            follow(follower)
        for view in self._views_now(missing=not seen or len(tracker.alive) > len(seen)):
            for detection in self._detect(frame, view, [sighting for _, sighting in seen]):
                follower = self.idle.pop() if self.idle else _Follower(self)
                follower.region = self.starter.process({"image": frame, "detection": detection}).region
                follow(follower)
        owners = tracker.step([sighting for _, sighting in seen])
        self.followers = [follower for (follower, _), owner in zip(seen, owners, strict=True) if owner is not None]
        self.idle += [follower for (follower, _), owner in zip(seen, owners, strict=True) if owner is None]

    def _views_now(self, missing: bool) -> list[View]:
        """Return where to look in this frame."""
        self.waited += 1
        if self.fresh:
            views = [*self.views, self.views[0]]  # once more without those who drew all attention
        elif missing:
            views = [self.views[0], next(self.turns)][: len(self.views)]
        elif self.waited >= LOOK_EVERY:
            views = [next(self.turns)]
        else:
            return []
        self.fresh, self.waited = False, 0
        return views

    def _detect(self, frame: Frame, view: View, seen: list[Sighting]) -> list[Any]:
        """Detect people who aren't seen yet, in shares of the whole frame.

        Those who are seen are painted over: beside one who stands out, the detector overlooks others.
        """
        left, upper, width, height = view
        if seen:
            frame = frame.copy()
            for sighting in seen:
                (x0, y0), (x1, y1) = _trunk(sighting.row[:, 3:5] * self.size_px)
                frame[y0:y1, x0:x1] = PAINT
        part = np.ascontiguousarray(frame[upper : upper + height, left : left + width])
        detections = list(self.detector.process({"image": part}).detections or [])
        if part.shape != frame.shape:
            for detection in detections:
                for point in detection.location_data.relative_keypoints:
                    point.x = (left + point.x * width) / self.size_px[0]
                    point.y = (upper + point.y * height) / self.size_px[1]
        return [each for each in detections if not any(self._shows(each, sighting) for sighting in seen)]

    def _shows(self, detection: Any, sighting: Sighting) -> bool:
        """Whether a detection is of somebody who is seen already."""
        hips, end = (
            np.array([point.x, point.y]) * self.size_px for point in detection.location_data.relative_keypoints[:2]
        )
        known = sighting.row[[LEFT["hip"], LEFT["hip"] + 1], 3:5].mean(axis=0) * self.size_px
        return bool(np.linalg.norm(hips - known) < SAME_HIPS * np.linalg.norm(end - hips))


class _Follower:
    """Finds one person's landmarks in the region where they are expected."""

    def __init__(self, crew: _Crew) -> None:
        from mediapipe.framework.formats.rect_pb2 import NormalizedRect

        self.region: Any = NormalizedRect(x_center=0.5, y_center=0.5, width=1, height=1)
        warm_up = {"image": np.zeros((*crew.size_px[::-1], 3), np.uint8), "region": self.region}
        self.graph = crew.graph(_FOLLOW, warm_up, model_complexity=1, smooth_landmarks=False)

    def see(self, frame: Frame) -> npt.NDArray[np.float64] | None:
        """Return (33, 6), or None where nobody is there: world x, y, z in metres; x, y in shares; visibility."""
        found = self.graph.process({"image": frame, "region": self.region})
        if found.landmarks is None:
            return None
        self.region = found.next_region
        pairs = zip(found.world.landmark, found.landmarks.landmark, strict=True)
        return np.array([(w.x, w.y, w.z, i.x, i.y, i.visibility) for w, i in pairs])


def _trunk(places_px: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the upper left and the lower right corner of head, trunk and legs: two whole pixels, x and y each."""
    core = places_px[[*range(13), *range(LEFT["hip"], LANDMARKS)]]
    margin = MARGIN * (core[:, 1].max() - core[:, 1].min())
    return np.stack([core.min(axis=0) - margin, core.max(axis=0) + margin]).clip(0).astype(np.int64)


def _views(size_px: tuple[int, int]) -> list[View]:
    """Return the whole frame and, where it is long, squares along it.

    The detector sees 224 x 224 pixels: in a wide frame people are small for it.
    """
    side, long = min(size_px), max(size_px)
    count = 0 if long < 1.2 * side else 1 + int(np.ceil(2 * (long - side) / side))
    starts = np.linspace(0, long - side, count).astype(int).tolist()
    squares = [(start, 0, side, side) if size_px[0] == long else (0, start, side, side) for start in starts]
    return [(0, 0, *size_px), *squares]


def _sighting(row: npt.NDArray[np.float64], size_px: tuple[int, int]) -> Sighting:
    image_px = row[:, 3:5] * size_px
    low, high = image_px.min(axis=0), image_px.max(axis=0)
    margin = MARGIN * (high - low).max()
    low, high = np.clip([low - margin, high + margin], 0, size_px)
    return Sighting(
        box_px=np.concatenate([low, high - low]),
        points_mm=roughly_placed(row[:, :3] * 1000, image_px, row[:, 5], size_px),
        sure=float(row[:, 5].mean()),
        row=row,
    )


def _person(
    seen: dict[int, Sighting], frames: int, cuts: list[int], size_px: tuple[int, int], rate: Fraction
) -> Person:
    """Lift what was seen of one person, shot by shot."""
    table = np.full((frames, LANDMARKS, 6), np.nan)
    boxes_px = np.full((frames, 4), np.nan, np.float32)
    for frame, sighting in seen.items():
        table[frame], boxes_px[frame] = sighting.row, sighting.box_px
    shots = [
        lift(Landmarks(part[..., :3] * 1000, part[..., 3:5] * size_px, part[..., 5]), size_px, rate)
        for part in np.split(table, cuts)
    ]
    estimate = Estimate(
        joints_mm=np.concatenate([shot.joints_mm for shot in shots]),
        confidence=np.concatenate([shot.confidence for shot in shots]),
        found=np.concatenate([shot.found for shot in shots]),
    )
    return Person(estimate=estimate, boxes_px=boxes_px)


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
