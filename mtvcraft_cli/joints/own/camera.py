"""A camera for motion that has none: where the person comes to stand, and which side is seen."""

import difflib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import yaml
from jaxtyping import Float32

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.files import frame_names
from mtvcraft_cli.joints.own.found import Up
from mtvcraft_cli.joints.skeleton import FOV_DEG, NAMES, focal_px
from mtvcraft_cli.joints.turns import unit

NEAR_MM: Final = 1700.0
"""The distance from which the people of the training videos are mostly seen."""
FAR_MM: Final = 5000.0
"""The farthest; who moves more widely leaves the picture."""
CLOSEST_MM: Final = 300.0
LOW: Final = 0.42
"""How far below the middle the body's anchor lies, as a share of half the picture's height (0.22 of the distance in a
square picture)."""
PITCH_DEG: Final = -5.0
"""The camera looks slightly up from below, as most do."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How a world is seen: what stands in a `--camera` file."""

    view: Literal["auto", "front"] = "auto"
    """`auto`: the person faces the camera in the middle frame; `front`: the camera looks along the world's -z."""
    yaw_deg: float = 0.0
    """How far the person is turned from there, to the right in the picture."""
    pitch_deg: float = PITCH_DEG
    """Negative: the camera looks up from below."""
    roll_deg: float = 0.0
    """How far the picture is turned clockwise."""
    distance_m: float | None = None
    """None: the first from 1.7 m to 5 m at which the whole motion is in the picture."""
    position_m: tuple[float, float, float] | None = None
    """Where the camera stands in the world (y up); then `look_at_m` or `rotation` says where it looks, and none of the
    fields above but `roll_deg` counts."""
    look_at_m: tuple[float, float, float] | None = None
    rotation: tuple[tuple[float, float, float], ...] | None = None
    """Rows: the world directions of the picture's right, of its down, and of the view."""
    fov_deg: float = FOV_DEG
    """Field of view along the longer side."""
    size_px: tuple[int, int] | None = None
    up: Up | None = None
    """The axis of the motion file that points up; None: as the body stands."""


@dataclass(frozen=True)
class Placed:
    """A camera before a world in millimetres: a point p is seen at `turn @ p + shift_mm`."""

    turn: Float32[np.ndarray, "3 3"]
    shift_mm: Float32[np.ndarray, "3"]
    said: str


def load_camera(camera: Path | Literal["auto", "front"]) -> Camera:
    """Read a `--camera` file, YAML or JSON, or take one of the two by name.

    Raises:
        MtvcraftError: (`Exit.INPUT`) it can't be read, a key is misspelt, or a value is none of its kind.
    """
    if not isinstance(camera, Path):
        return Camera(view=camera)
    fields = read_mapping(camera, "camera")
    for key in fields:
        if key not in Camera.__dataclass_fields__:
            near = difflib.get_close_matches(str(key), Camera.__dataclass_fields__, n=1, cutoff=0.0)
            raise MtvcraftError(f"camera `{camera.name}` has no setting `{key}`", hint=f"did you mean `{near[0]}`?")
    values = {key: _value(key, value, camera.name) for key, value in fields.items()}
    made = Camera(**values)
    if (made.position_m is None) != (made.look_at_m is None and made.rotation is None):
        raise MtvcraftError(
            f"camera `{camera.name}` has only one of place and direction",
            hint="give `position_m` with `look_at_m` or with `rotation`, or neither",
        )
    return made


def read_mapping(path: Path, what: str) -> dict[Any, Any]:
    """Read a small YAML or JSON file that maps names to values."""
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("more than a megabyte")
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise MtvcraftError(f"{what} `{path.name}` can't be read: {why}", hint="give a YAML or JSON file") from error
    if not isinstance(fields, dict):
        raise MtvcraftError(f"{what} `{path.name}` maps no names to values", hint="write lines like `name: value`")
    return fields


def _value(key: str, value: Any, file: str) -> Any:
    shapes = {"position_m": (3,), "look_at_m": (3,), "rotation": (3, 3), "size_px": (2,)}
    if key == "up" and value in get_args(Up):
        return value
    if key == "view" and value in ("auto", "front"):
        return value
    if key not in ("up", "view"):
        try:
            numbers = np.array(value, np.float64)
        except (ValueError, TypeError):
            numbers = np.array(np.nan)
        if numbers.shape == shapes.get(key, ()) and np.isfinite(numbers).all() and _fits(key, numbers):
            plain = numbers.astype(int) if key == "size_px" else numbers
            return _tuples(plain.tolist())
    raise MtvcraftError(f"camera `{file}` has a `{key}` of {value!r}", hint="see docs/motion.md for what it may be")


def _fits(key: str, numbers: npt.NDArray[np.float64]) -> bool:
    if key == "rotation":
        return bool(np.abs(numbers @ numbers.T - np.eye(3)).max() < 1e-3 and np.linalg.det(numbers) > 0)
    if key == "fov_deg":
        return 1 <= float(numbers) <= 170
    return not (key == "size_px" and not ((numbers >= 16) & (numbers <= 16384)).all()) and not (
        key == "distance_m" and numbers <= 0
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def place(
    joints_mm: Float32[np.ndarray, "T 24 3"], camera: Camera, size_px: tuple[int, int], name: str, sees: bool = False
) -> Placed:
    """Set a camera up before a person.

    The person's heading, the anchor below the pelvis and the usual distances are those of the videos that models were
    trained on, at the middle of their spread.

    Args:
        joints_mm: (T, 24, 3) world with y up, millimetres.
        camera: what is wanted of it.
        size_px: width and height of the picture.
        name: what the user calls the motion.
        sees: whether the world's front is the view that the file itself was made with, which is kept.

    Raises:
        MtvcraftError: (`Exit.INPUT`) the person gets behind a camera whose place is given.
    """
    points = joints_mm.astype(np.float64)
    if camera.position_m is not None:
        turn = _about("z", camera.roll_deg) @ _direction(camera, name)
        shift_mm = -turn @ (1000 * np.array(camera.position_m))
        behind = np.flatnonzero(((points @ turn.T + shift_mm)[..., 2] <= 0).any(axis=1))
        if len(behind):
            raise MtvcraftError(
                f"the person in `{name}` is behind the camera in {frame_names(behind)}",
                hint="move `position_m` in the `--camera` file back, or leave it out",
            )
        return _placed(turn, shift_mm, f"`{name}` is seen by the camera that `--camera` places")
    if sees:
        turn, words = np.diag([1.0, -1.0, -1.0]), "from the side that the file shows"
    elif camera.view == "front":
        turn, words = _tilted(camera, 0.0), "from the world's front"
    else:
        turn, words = _tilted(camera, _heading(points[len(points) // 2])), "so that it faces the camera halfway through"
    feet = points[:, [NAMES.index("l_foot"), NAMES.index("r_foot")]]
    anchor = points[:, 0].mean(axis=0)
    anchor[1] = 0.7 * anchor[1] + 0.3 * feet[..., 1].min()
    seen = (points - anchor) @ turn.T
    half = np.array(size_px) / 2 / focal_px(size_px, camera.fov_deg)  # tangents to the sides of the picture
    distance_mm = _distance_mm(seen, half, camera)
    shift_mm = np.array([0, LOW * half[1] * distance_mm, distance_mm]) - turn @ anchor
    metres = Fraction(round(distance_mm / 100), 10)
    if camera != Camera(view=camera.view):
        return _placed(turn, shift_mm, f"`{name}` is seen by the camera of `--camera`, {float(metres):g} m away")
    return _placed(turn, shift_mm, f"`{name}` has no camera: took one {float(metres):g} m away, placed {words}")


def _distance_mm(seen: npt.NDArray[np.float64], half: npt.NDArray[np.float64], camera: Camera) -> float:
    """Return the distance from which a body about its anchor is in the picture, within reason."""
    x, y, z = (seen[..., axis] for axis in range(3))
    needed_mm = max(
        float((np.abs(x) / half[0] - z).max()),
        float(((y / half[1] - z) / (1 - LOW)).max()),
        float(((-y / half[1] - z) / (1 + LOW)).max()),
    )
    usual_mm = min(max(needed_mm, NEAR_MM), FAR_MM) if camera.distance_m is None else 1000 * camera.distance_m
    return max(usual_mm, CLOSEST_MM - float(z.min()))


def _heading(joints_mm: npt.NDArray[np.float64]) -> float:
    """Return the angle from +z to where one frame's body faces, degrees about y."""
    left = joints_mm[1] - joints_mm[2] + joints_mm[16] - joints_mm[17]
    front = np.cross(left, (0, 1, 0))
    return float(np.degrees(np.arctan2(front[0], front[2])))


def _tilted(camera: Camera, heading_deg: float) -> npt.NDArray[np.float64]:
    yawed = np.diag([1.0, -1.0, -1.0]) @ _about("y", camera.yaw_deg - heading_deg)
    return _about("z", camera.roll_deg) @ _about("x", camera.pitch_deg) @ yawed


def _direction(camera: Camera, name: str) -> npt.NDArray[np.float64]:
    if camera.rotation is not None:
        return np.array(camera.rotation)
    away = np.array(camera.look_at_m) - np.array(camera.position_m)
    right = np.cross(away, (0, 1, 0))
    if np.linalg.norm(right) < 1e-6:
        raise MtvcraftError(
            f"the camera for `{name}` looks straight up or down", hint="give its `rotation`, or move `look_at_m` aside"
        )
    right, away = unit(right), unit(away)
    return np.stack([right, np.cross(away, right), away])


def _about(axis: Literal["x", "y", "z"], angle_deg: float) -> npt.NDArray[np.float64]:
    """Return the right-handed rotation about one axis."""
    matrix = np.eye(3)
    after, last = ((1, 2), (2, 0), (0, 1))["xyz".index(axis)]
    cosine, sine = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    matrix[after, after] = matrix[last, last] = cosine
    matrix[last, after], matrix[after, last] = sine, -sine
    return matrix


def _placed(turn: npt.NDArray[np.float64], shift_mm: npt.NDArray[np.float64], said: str) -> Placed:
    return Placed(turn.astype(np.float32), shift_mm.astype(np.float32), said)
