"""Rotations of SMPL, SMPL-H and SMPL-X bodies, as AMASS, AIST++ and estimators write them, to joints."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.files import refuse_nan
from mtvcraft_cli.joints.own.body import Body
from mtvcraft_cli.joints.own.found import Found, Smpl, looks_like_a_body, rate_of
from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM
from mtvcraft_cli.joints.turns import axis_angles, forward, turns_of_pose

POSE_KEYS: Final = ("poses", "smpl_poses", "smpl_pose", "pose", "full_pose", "fullpose", "thetas")
ROOT_KEYS: Final = ("global_orient", "root_orient", "root_pose", "smpl_global_orient")
BODY_KEYS: Final = ("body_pose", "pose_body", "smpl_body_pose")
PLACE_KEYS: Final = ("trans", "transl", "smpl_trans", "smpl_transl", "translation", "root_trans")
SHAPE_KEYS: Final = ("betas", "smpl_betas", "shape", "shapes")
ORIGINS_MM: Final = {"SMPL": (-2, -223, 28), "SMPL-X": (3, -351, 12)}
"""Where the pelvis of the resting neutral body lies."""
MOST_TURN: Final = 100.0
"""Radians; no estimator winds a joint up further."""

Fields = Mapping[str, Any]


def has_parameters(fields: Fields) -> bool:
    """Whether these fields are rotations of a body, and not joints."""
    if _first(fields, ROOT_KEYS) is not None and _first(fields, BODY_KEYS) is not None:
        return True
    pose = _first(fields, POSE_KEYS)
    if pose is None:
        return False
    if pose.ndim == 3 and pose.shape[1:] in ((24, 3), (22, 3)):
        return not looks_like_a_body(pose)
    return _width(pose) in (66, 72, 156, 165)


def read_parameters(fields: Fields, name: str, body: Body | None) -> Found:
    """Move a body by a file's rotations.

    Args:
        fields: arrays by name: poses of (T, 66, 72, 156 or 165), or the root's and the body's apart, as axis times
            angle or as matrices; a translation and betas where there are any.
        name: what the user calls the file.
        body: whose rest joints are turned; None takes the neutral skeleton.

    Returns:
        The joints in millimetres and the parameters, in the file's axes.

    Raises:
        MtvcraftError: (`Exit.INPUT`) NaN, another number of frames, or values that are no rotations.
    """
    whole = _first(fields, POSE_KEYS) if _first(fields, ROOT_KEYS) is None else None
    if whole is not None:
        rotations = _axis_angles(whole, name)
    else:
        root, rest = (_axis_angles(_first(fields, keys), name) for keys in (ROOT_KEYS, BODY_KEYS))
        if len(root) != len(rest) or root.shape[1] != 3:
            raise _wrong(name, f"a root's rotation of {root.shape} and a body's of {rest.shape}")
        rotations = np.concatenate([root, rest], axis=1)
    frames, width = rotations.shape
    if width not in (66, 72, 156, 165) or not frames:
        raise _wrong(name, f"rotations of {rotations.shape}")
    refuse_nan(rotations, name, "rotations")
    if np.abs(rotations).max() > MOST_TURN:
        raise _wrong(name, f"rotations of up to {np.abs(rotations).max():.0f} radians")
    pose = np.zeros((frames, 72), np.float32)
    used = 72 if width == 72 else 66  # fingers follow their wrists
    pose[:, :used] = rotations[:, :used]
    model = "SMPL-X" if width in (66, 165) else "SMPL"

    said = []
    place = _first(fields, PLACE_KEYS)
    place = np.zeros((frames, 3)) if place is None else np.asarray(place)
    place = place[None] if place.shape == (3,) else place
    if place.ndim < 2 or place.shape[-1] != 3 or place.size != 3 * frames:
        raise _wrong(name, f"{frames} frames of rotations and translations of {place.shape}")
    place = place.reshape(-1, 3) / _scale(fields)
    refuse_nan(place, name, "translations")
    betas = _betas(fields, name)
    if body is None:
        origin_mm = np.array(ORIGINS_MM[model], np.float32)
        bones_mm = NEUTRAL_OFFSETS_MM
        said.append(f"`{name}` holds rotations: they move the neutral skeleton, since no `--body-model` is given")
    else:
        bones_mm = body.bones_mm(betas)
        origin_mm = bones_mm[0]
    root_mm = (1000 * place + origin_mm).astype(np.float32)
    amass = "mocap_framerate" in fields or "mocap_frame_rate" in fields
    return Found(
        joints=forward(turns_of_pose(pose), root_mm, bones_mm),
        kind="AMASS" if amass else f"{model} parameters",
        rate=rate_of(fields, name),
        smpl=Smpl(pose, betas, origin_mm),
        unit_mm=1.0,
        up="z" if amass else None,
        said=tuple(said),
    )


def _first(fields: Fields, keys: tuple[str, ...]) -> npt.NDArray[Any] | None:
    """Return the first of these fields that holds numbers."""
    for key in keys:
        if key in fields and isinstance(value := fields[key], np.ndarray) and value.dtype.kind in "iuf" and value.ndim:
            return value
    return None


def _width(values: npt.NDArray[Any]) -> int:
    """Return how many numbers a frame has as axis times angle."""
    numbers = values.size // max(len(values), 1) if values.ndim > 1 else values.size
    return numbers // 3 if values.shape[-2:] == (3, 3) and values.ndim > 2 else numbers


def _axis_angles(values: npt.NDArray[Any] | None, name: str) -> Float32[np.ndarray, "T W"]:
    assert values is not None
    if not values.size:
        raise _wrong(name, f"rotations of {values.shape}")
    if values.ndim > 2 and values.shape[-2:] == (3, 3) and _is_turned(values):
        values = axis_angles(values)
    return values.reshape(len(values) if values.ndim > 1 else 1, -1).astype(np.float32)


def _is_turned(values: npt.NDArray[Any]) -> bool:
    """Whether (..., 3, 3) are rotation matrices."""
    product = values @ values.swapaxes(-1, -2)
    return bool(np.abs(product - np.eye(3)).max() < 0.05)


def _scale(fields: Fields) -> float:
    """Return what AIST++ multiplied its translations by."""
    scale = fields.get("smpl_scaling")
    return float(np.asarray(scale).reshape(-1)[0]) if scale is not None and np.size(scale) else 1.0


def _betas(fields: Fields, name: str) -> Float32[np.ndarray, "10"]:
    given = _first(fields, SHAPE_KEYS)
    betas = np.zeros(10, np.float32)
    if given is not None and given.size:
        refuse_nan(given.reshape(len(given) if given.ndim > 1 else 1, -1), name, "betas")
        mean = given.reshape(-1, given.shape[-1]).mean(axis=0)[:10]
        betas[: len(mean)] = mean
    return betas


def _wrong(name: str, what: str) -> MtvcraftError:
    return MtvcraftError(
        f"`{name}` has {what}",
        hint="SMPL's parameters are `poses` (T, 72), or `global_orient` (T, 3) and `body_pose` (T, 69 or 63)",
    )
