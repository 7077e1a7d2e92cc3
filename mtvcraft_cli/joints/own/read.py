"""Any motion file to joints before a camera."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.joints.backend import Estimate
from mtvcraft_cli.joints.files import (
    ASSUMED_RATE,
    ASSUMED_SIZE_PX,
    Motion,
    load_motion,
    refuse_nan,
)
from mtvcraft_cli.joints.gaps import MAX_GAP_S, fill
from mtvcraft_cli.joints.own.body import Body, load_body
from mtvcraft_cli.joints.own.bvh import read_bvh
from mtvcraft_cli.joints.own.camera import Camera, load_camera, place, read_mapping
from mtvcraft_cli.joints.own.complete import complete
from mtvcraft_cli.joints.own.content import READS, own_kind, read_content
from mtvcraft_cli.joints.own.found import Found, looks_like_a_body, rate_of
from mtvcraft_cli.joints.own.smpl import POSE_KEYS, ROOT_KEYS, has_parameters, read_parameters
from mtvcraft_cli.joints.own.straight import straighten
from mtvcraft_cli.joints.skeleton import FOV_DEG, NAMES
from mtvcraft_cli.joints.turns import axis_angles, matrices
from mtvcraft_cli.shapes import JointsMm

JOINT_KEYS: Final = ("joints", "pose", "poses", "joint", "joints3d", "joints_3d", "positions", "keypoints3d")
HOLD_MOTION: Final = frozenset({*JOINT_KEYS, *POSE_KEYS, *ROOT_KEYS})
FAR_M: Final = 8.0
"""Estimators that assume a long lens put people farther away than this."""
MOST_NUMBERS: Final = 1 << 27
LISTED: Final = 12
"""Clips that an error lists."""


@dataclass(frozen=True, kw_only=True)
class OwnMotion:
    """How a motion of one's own is read."""

    fps: Fraction | None = None
    """Frames a second, whatever the file says."""
    clip: str | None = None
    """Number, counted from 1, or name of one of several clips."""
    joint_map: Path | None = None
    """YAML or JSON: SMPL's joint to the BVH file's."""
    body_model: Path | None = None
    """SMPL's body file; None moves the neutral skeleton."""
    camera: Path | Literal["auto", "front"] = "auto"
    """For motion that no camera sees yet."""
    size_px: tuple[int, int] | None = None
    """Of the picture, whatever the file says."""
    max_gap_s: Fraction = MAX_GAP_S
    """The longest stretch without a person that is filled in."""
    part: Callable[[Fraction, int], slice] | None = None
    """From frames a second and the number of frames: which are wanted; nothing else is looked at."""


def read_own(path: Path, settings: OwnMotion = OwnMotion()) -> tuple[Motion, tuple[str, ...]]:
    """Read a motion file of any kind that is known; which one is told by its content.

    Args:
        path: our own `.joints.npz`; (T, 24, 3) arrays in `.npy` or `.npz`; the reference's `.pkl`; AMASS; parameters of
            SMPL and SMPL-X in `.npz`, `.npy` or `.pkl`; BVH.
        settings: what the file doesn't say.

    Returns:
        The motion in camera space, millimetres, with SMPL's parameters where the file has them; and a sentence for
        each thing that was assumed, guessed or filled in.

    Raises:
        MtvcraftError: (`Exit.INPUT`) it is no such file, is broken, asks for more than data, holds NaN, has several
            clips, or contradicts itself; (`Exit.USAGE`) no file; (`Exit.WEIGHTS`) the body file can't be used.
    """
    if not path.is_file():
        raise MtvcraftError(f"there is no file `{path}`", hint="check the path", exit=Exit.USAGE)
    camera = load_camera(settings.camera)
    found = _look(path, settings)
    if isinstance(found, Found):
        return _seen(found, path.name, settings, camera)
    motion, said = found
    if settings.fps is not None:
        motion, said = _at(motion, settings.fps, said)
    return (motion if settings.part is None else _cut(motion, settings.part)), said


@dataclass(frozen=True)
class World:
    """A motion that no camera sees."""

    joints_mm: JointsMm
    """y up; where the floor is and which way the person faces is as in the file."""
    rate: Fraction
    said: tuple[str, ...]
    """What was assumed, guessed or filled in."""


def read_world(path: Path, settings: OwnMotion = OwnMotion()) -> World:
    """Read a motion file of any kind, see `read_own`, without a camera.

    What is in camera space already is turned so that y is up, as if that camera had been level.

    Raises:
        MtvcraftError: as `read_own` does.
    """
    found = _look(path, settings)
    if not isinstance(found, Found):
        motion, said = found
        found = Found(motion.joints_mm, "joints", motion.rate, unit_mm=1.0, in_camera=True, said=said)
    straight = straighten(found, path.name, load_camera(settings.camera).up)
    said = (*found.said, *straight.said)
    rate = settings.fps or found.rate
    if rate is None:
        rate, said = ASSUMED_RATE, (*said, f"`{path.name}` has no frame rate: took {ASSUMED_RATE} frames a second")
    joints_mm = straight.joints_mm
    if straight.in_camera:
        joints_mm = joints_mm * np.array([1, -1, -1], np.float32)
        said = (*said, f"`{path.name}` is in camera space: took its camera as level")
    return World(joints_mm, rate, said)


def _look(path: Path, settings: OwnMotion) -> Found | tuple[Motion, tuple[str, ...]]:
    """Read what a file says; our own files say everything already."""
    body = None if settings.body_model is None else load_body(settings.body_model)
    kind = own_kind(path)
    if kind is None:
        raise MtvcraftError(f"`{path.name}` is no motion file", hint=f"readable are {READS}")
    if kind == "bvh":
        return read_bvh(path, {} if settings.joint_map is None else _joint_map(settings.joint_map))
    content = read_content(path)
    if kind == "archive" and "joints_mm" in content:
        return load_motion(path)
    return _found(content, path.name, settings, body)


def _joint_map(path: Path) -> dict[str, str]:
    return {str(joint): str(name) for joint, name in read_mapping(path, "joint map").items()}


def _at(motion: Motion, rate: Fraction, said: tuple[str, ...]) -> tuple[Motion, tuple[str, ...]]:
    return replace(motion, rate=rate), tuple(line for line in said if "frames a second" not in line)


def _cut(motion: Motion, part: Callable[[Fraction, int], slice]) -> Motion:
    rows = part(motion.rate, len(motion))
    cut: dict[str, Any] = {name: each[rows] for name, each in vars(motion).items() if isinstance(each, np.ndarray)}
    return replace(motion, **cut)


def _found(content: Any, name: str, settings: OwnMotion, body: Body | None) -> Found:
    """Tell what an array, an archive or a pickle holds."""
    clips = _clips(content)
    if clips:
        key, content = _chosen(clips, name, settings.clip)
        name = f"{name}, clip {key}" if len(clips) > 1 else name
    elif settings.clip is not None:
        raise MtvcraftError(f"`{name}` holds one motion, and no clips to choose from", hint="leave `--clip` out")
    fields: Mapping[str, Any] = content if isinstance(content, dict) else {"poses": content}
    fields = {key: _numbers(value) for key, value in fields.items()}
    if isinstance(pose := fields.get("pose"), dict) and "joints3d_nonparam" in pose:
        return _estimated(pose["joints3d_nonparam"], fields, name, settings)
    flat = fields.get("poses") if len(fields) == 1 else None
    if isinstance(flat, np.ndarray) and flat.ndim == 2 and flat.shape[1] == 72 and flat.dtype.kind in "iuf":
        deep = flat.reshape(-1, 24, 3)
        fields = {"joints": deep} if looks_like_a_body(deep) else fields
    if has_parameters(fields):
        return read_parameters(fields, name, body)
    joints = _joints(fields, name)
    return Found(joints=joints[0], kind="joints", rate=rate_of(fields, name), size_px=_size_px(fields), said=joints[1])


def _numbers(value: Any) -> Any:
    """Return lists of numbers, or of arrays of one shape, as one array; anything else as it is."""
    if not isinstance(value, list | tuple) or not value:
        return value
    if _length(value) > MOST_NUMBERS:  # lists within lists may be the same ones many times over
        raise MtvcraftError("its lists come to more than a gigabyte of numbers", hint="save arrays with `numpy.savez`")
    try:
        return np.array(value, np.float64)
    except (ValueError, TypeError):
        return value


def _length(value: Any, depth: int = 8) -> int:
    """Count the numbers that nested lists come to, by the first of each: only even ones become an array."""
    if not isinstance(value, list | tuple) or not value:
        return int(np.size(value)) if isinstance(value, np.ndarray) else 1
    return len(value) * _length(value[0], depth - 1) if depth else MOST_NUMBERS + 1


def _clips(content: Any) -> dict[str, Any]:
    """Return the clips of a list of dicts, or the dicts of a dict that hold motion; nothing where it is one clip."""
    if isinstance(content, list | tuple) and content and all(isinstance(clip, dict) for clip in content):
        return {f"{number}\t{_clip_name(clip)}": clip for number, clip in enumerate(content, 1)}
    if isinstance(content, dict) and not HOLD_MOTION & set(content):
        inner = {key: clip for key, clip in content.items() if isinstance(clip, dict) and HOLD_MOTION & set(clip)}
        return {f"{number}\t{key}": clip for number, (key, clip) in enumerate(inner.items(), 1)}
    return {}


def _clip_name(clip: Mapping[str, Any]) -> str:
    path = clip.get("video_path", clip.get("name", ""))
    return str(path).replace("\\", "/").rpartition("/")[2]


def _chosen(clips: dict[str, Any], name: str, wanted: str | None) -> tuple[str, Any]:
    """Choose one of several clips."""
    parts = {key: tuple(key.split("\t", 1)) for key in clips}
    listed = ", ".join(f"{number} `{called}`" if called else number for number, called in list(parts.values())[:LISTED])
    more = f" and {len(clips) - LISTED} more" if len(clips) > LISTED else ""
    if wanted is None and len(clips) == 1:
        return next(iter(clips.items()))
    if wanted is None:
        raise MtvcraftError(f"`{name}` holds {len(clips)} clips", hint=f"choose one with `--clip`: {listed}{more}")
    fit = [key for key, (number, called) in parts.items() if wanted in (called, called.rpartition(".")[0])]
    fit = fit or [key for key, (number, _) in parts.items() if wanted == number]
    if len(fit) != 1:
        how = "no clip" if not fit else f"{len(fit)} clips"
        raise MtvcraftError(f"`{name}` has {how} `{wanted}`", hint=f"`--clip` takes one of {listed}{more}")
    return parts[fit[0]][0], clips[fit[0]]


def _joints(fields: Mapping[str, Any], name: str) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Return the (T, 24, 3) joints among these fields, in the file's unit."""
    arrays = {
        key: value for key, value in fields.items() if isinstance(value, np.ndarray) and value.dtype.kind in "iuf"
    }
    fit = {key: value for key, value in arrays.items() if value.ndim == 3 and value.shape[1:] in ((24, 3), (22, 3))}
    named = [key for key in JOINT_KEYS if key in fit]
    if not named and len(fit) != 1:
        shapes = (
            ", ".join(f"`{key}` {value.shape}" for key, value in list(arrays.items())[:8]) or "no arrays of numbers"
        )
        raise MtvcraftError(
            f"`{name}` holds no motion: {shapes}",
            hint="24 joints in the order of SMPL, (T, 24, 3), or SMPL's `poses` (T, 72); readable are " + READS,
        )
    values = fit[named[0] if named else next(iter(fit))]
    if not len(values):
        raise MtvcraftError(f"`{name}` has no frames", hint="give at least one frame")
    refuse_nan(values, name)
    if not values.any():
        raise MtvcraftError(f"`{name}` holds zeros only", hint="make the joints with `mtvcraft pose VIDEO`")
    if values.shape[1] == 24:
        return values.astype(np.float32), ()
    whole = np.zeros((len(values), 24, 3))
    whole[:, :22] = values
    said = f"`{name}` has 22 joints: set the hands as on the neutral body"
    return complete(whole, NAMES[:22]).astype(np.float32), (said,)


def _size_px(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    try:
        size = tuple(int(fields[f"video_{side}"]) for side in ("width", "height"))
    except (KeyError, TypeError, ValueError):
        return None
    return (size[0], size[1]) if min(size) > 0 and max(size) <= 1 << 16 else None


def _estimated(frames: Any, fields: Mapping[str, Any], name: str, settings: OwnMotion) -> Found:
    """Take the first person of each frame of the reference's pose script; short stretches without one are filled."""
    rate = settings.fps or rate_of(fields, name) or ASSUMED_RATE
    frames = frames if settings.part is None else frames[settings.part(rate, len(frames))]
    rows = [_first_person(people) for people in frames]
    if not rows:
        raise MtvcraftError(f"`{name}` has no frames", hint="give at least one frame")
    found = np.array([row is not None for row in rows])
    joints = np.stack([np.full((24, 3), np.nan) if row is None else row for row in rows]).astype(np.float32)
    refuse_nan(np.where(found[:, None, None], joints, 0), name)
    estimate = Estimate(joints, np.repeat(found[:, None], 24, axis=1).astype(np.float32), found)
    filled = fill(estimate, rate, settings.max_gap_s, name)
    most = max((len(people[0]) for people in frames if isinstance(people, list | tuple) and len(people)), default=1)
    said = (f"`{name}` has up to {most} people in a frame: took the first of each",) if most > 1 else ()
    return Found(
        joints=filled.joints_mm,
        kind="the reference's pose script",
        rate=rate_of(fields, name),
        size_px=_size_px(fields),
        observed=found,
        said=said,
        cut=True,
    )


def _first_person(people: Any) -> npt.NDArray[Any] | None:
    """Return (24, 3) of the first person in one frame: an array (n, 24, 3), maybe in lists of one."""
    for _ in range(4):  # a list may hold itself
        if isinstance(people, list | tuple) and people:
            people = people[0]
    if not isinstance(people, np.ndarray) or people.dtype.kind not in "iuf" or people.shape[-2:] != (24, 3):
        return None
    people = people.reshape(-1, 24, 3)
    return people[0] if len(people) else None


def _seen(found: Found, name: str, settings: OwnMotion, camera: Camera) -> tuple[Motion, tuple[str, ...]]:
    """Bring what was found before a camera."""
    said = list(found.said)
    rate = settings.fps or found.rate
    if rate is None:
        rate = ASSUMED_RATE
        said.append(f"`{name}` has no frame rate: took {ASSUMED_RATE} frames a second")
    if settings.part is not None and not found.cut:
        found = found.rows(settings.part(rate, len(found.joints)))
    straight = straighten(found, name, camera.up)
    own_camera = None if straight.in_camera else camera.size_px
    size_px = settings.size_px or own_camera or found.size_px or ASSUMED_SIZE_PX
    said += straight.said
    joints_mm, turn = straight.joints_mm, straight.turn
    fov_deg = FOV_DEG
    if straight.in_camera:
        if isinstance(settings.camera, Path) or settings.camera == "front":
            said.append(f"`{name}` is in camera space already: `--camera` doesn't count")
        if (away_m := float(np.median(joints_mm[:, 0, 2])) / 1000) > FAR_M:
            said.append(f"the body in `{name}` is {away_m:.0f} m away: its camera may have had another field of view")
    else:
        placed = place(joints_mm, camera, size_px, name, straight.sees and not isinstance(settings.camera, Path))
        fov_deg = camera.fov_deg
        joints_mm, turn = joints_mm @ placed.turn.T + placed.shift_mm, placed.turn @ turn
        said.append(placed.said)
    frames = len(joints_mm)
    observed = np.ones(frames, bool) if found.observed is None else found.observed
    motion = Motion(
        joints_mm=joints_mm.astype(np.float32),
        confidence=np.repeat(observed[:, None], 24, axis=1).astype(np.float32),
        observed=observed,
        rate=rate,
        size_px=size_px,
        fov_deg=fov_deg,
        meta={"kind": found.kind},
    )
    if found.smpl is None:
        return motion, tuple(said)
    pose = found.smpl.pose.copy()
    pose[:, :3] = axis_angles(turn @ matrices(pose[:, :3]))
    return replace(
        motion,
        smpl_pose=pose,
        smpl_betas=np.tile(found.smpl.betas, (frames, 1)),
        smpl_transl=(motion.joints_mm[:, 0] - found.smpl.origin_mm) / np.float32(1000),
    ), tuple(said)
