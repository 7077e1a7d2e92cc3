"""Whose joint is whose: the names that skeletons of others have for SMPL's joints."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.joints.own.complete import NEEDED, complete
from mtvcraft_cli.joints.skeleton import NAMES, NEUTRAL_LENGTHS_MM, PARENTS

Array = npt.NDArray[np.float64]

_FBX_ARM: Final = {"shoulder": "LeftArm", "elbow": "LeftForeArm", "wrist": "LeftHand", "collar": "LeftShoulder"}
_FBX_LEG: Final = {"hip": "LeftUpLeg", "knee": "LeftLeg", "ankle": "LeftFoot"}
_FBX_TRUNK: Final = {"pelvis": "Hips", "neck": "Neck", "head": "Head"}
_OWN: Final = {name: name for name in ("spine1", "spine2", "spine3", "neck", "head")} | {"pelvis": "pelvis hips root"}
_LIMBS: Final = ("collar", "shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot")

CONVENTIONS: Final[dict[str, dict[str, str]]] = {
    "SMPL": {**_OWN, **{limb: f"left_{limb}" for limb in _LIMBS}},
    "SMPL, short": {**_OWN, **{limb: f"l_{limb}" for limb in _LIMBS}},
    "CMU": {**_FBX_TRUNK, **_FBX_ARM, **_FBX_LEG, "foot": "LeftToeBase", "hand": "LeftFingerBase LeftHandIndex1"},
    "Mixamo": {**_FBX_TRUNK, **_FBX_ARM, **_FBX_LEG, "foot": "LeftToeBase", "hand": "LeftHandMiddle1 LeftHandIndex1"},
    "LAFAN": {**_FBX_TRUNK, **_FBX_ARM, **_FBX_LEG, "foot": "LeftToe"},
    "Rokoko": {
        **_FBX_TRUNK,
        **_FBX_ARM,
        "hip": "LeftThigh",
        "knee": "LeftShin",
        "ankle": "LeftFoot",
        "foot": "LeftToe",
        "hand": "LeftFinger3Metacarpal LeftFinger3Proximal",
    },
    "CMU's ASF": {
        "pelvis": "root",
        "neck": "lowerneck",
        "head": "head",
        "collar": "lclavicle",
        "shoulder": "lhumerus",
        "elbow": "lradius",
        "wrist": "lwrist",
        "hand": "lfingers",
        "hip": "lfemur",
        "knee": "ltibia",
        "ankle": "lfoot",
        "foot": "ltoes",
    },
}
"""For each joint of SMPL the others' name; a limb's left one, and several where a file has one of them."""

APART: Final = 0.02
"""Joints closer than this share of the shanks' length lie in one place."""


@dataclass(frozen=True)
class Places:
    """Where the joints of a foreign skeleton are."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    """Index of each joint's parent, which comes before it; -1 for the root."""
    ends: tuple[bool, ...]
    """Whether it is only the end of its parent's bone."""
    points: Array
    """(T, K, 3) in the unit and the axes of their file."""


def joints_from(places: Places, joint_map: Mapping[str, str], file: str) -> tuple[Array, str, tuple[str, ...]]:
    """Find SMPL's joints in another skeleton by their names.

    Args:
        places: the skeleton's joints.
        joint_map: SMPL's joint to the file's, for those that names don't tell; it comes before the names.
        file: what the user calls it.

    Returns:
        (T, 24, 3) joints, what kind of file it is, and what was filled in, in sentences.

    Raises:
        MtvcraftError: (`Exit.INPUT`) joints that make a body aren't there.
    """
    index = {_plain(name): place for place, name in reversed(list(enumerate(places.names)))}
    given = _given(joint_map, index, places.names, file)
    convention = max(CONVENTIONS, key=lambda name: len(list(_named(CONVENTIONS[name], index))))
    chosen: dict[str, int] = {}
    candidates: dict[str, list[int]] = {}
    for joint, place in _named(CONVENTIONS[convention], index):
        candidates.setdefault(joint, []).append(place)
    for joint in ("l_hand", "r_hand", "l_foot", "r_foot"):  # or else where the bone before ends
        before = candidates.get(NAMES[PARENTS[NAMES.index(joint)]], [])
        candidates.setdefault(joint, []).extend(
            place for place, parent in enumerate(places.parents) if places.ends[place] and parent in before
        )
    candidates |= {joint: [place] for joint, place in given.items()}
    chosen = {joint: options[0] for joint, options in candidates.items() if options}
    missing = [joint for joint in NEEDED if joint not in chosen]
    if missing:
        listed = ", ".join(name for name, is_end in zip(places.names[:40], places.ends, strict=False) if not is_end)
        raise MtvcraftError(
            f"`{file}` names no {', '.join(f'`{joint}`' for joint in missing[:4])}"
            + (f" and {len(missing) - 4} more" if len(missing) > 4 else ""),
            hint=f"say which joint is which with `--joint-map`; it has {listed}",
        )
    shank = np.median(np.linalg.norm(places.points[:, chosen["l_ankle"]] - places.points[:, chosen["l_knee"]], axis=-1))

    def apart(one: int, other: int) -> bool:
        distance = np.median(np.linalg.norm(places.points[:, one] - places.points[:, other], axis=-1))
        return bool(distance > APART * shank)

    for joint in ("head", *(f"{side}_{part}" for side in "lr" for part in ("collar", "hand", "foot"))):
        beside = [NAMES[PARENTS[NAMES.index(joint)]], "neck", *([f"{joint[0]}_shoulder"] if "collar" in joint else [])]
        fit = [
            place
            for place in candidates.get(joint, [])
            if joint in given
            or all(apart(place, chosen[other]) for other in beside if other in chosen and other != joint)
        ]
        chosen.pop(joint, None)
        if fit:
            chosen[joint] = fit[0]
    joints = np.zeros((len(places.points), 24, 3))
    for joint, place in chosen.items():
        joints[:, NAMES.index(joint)] = places.points[:, place]
    known = set(chosen)
    said = []
    if "neck" in chosen and not {"spine1", "spine2", "spine3"} <= known:
        spine = _spine(places, chosen, apart)
        if len(spine) == 3:
            joints[:, [3, 6, 9]] = places.points[:, spine]
        else:
            joints[:, [3, 6, 9]] = _divided(places.points[:, [chosen["pelvis"], *spine, chosen["neck"]]])
            said.append(f"`{file}` has {len(spine)} joints between pelvis and neck: divided the way as SMPL's three do")
        known |= {"spine1", "spine2", "spine3"}
    if filled := [name for name in NAMES if name not in known]:
        said.append(f"`{file}` has no {', '.join(filled)}: set as on the neutral body")
    named = "by `--joint-map`" if len(given) == len(chosen) else f"as {convention.partition(',')[0]} does"
    return complete(joints, known), f"BVH that names joints {named}", tuple(said)


def _plain(name: str) -> str:
    """Return a name without what programs put before it, without signs and capitals."""
    name = re.sub(r"^(mixamorig\d*|character\d*|skeleton\d*|m_avg|f_avg)[:_]", "", name.rpartition("|")[2], flags=re.I)
    name = re.sub(r"_in_camera_space$", "", name.rpartition(":")[2])
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _named(convention: Mapping[str, str], index: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Yield each of SMPL's joints with a place that has its name."""
    for joint, names in convention.items():
        sides = [("", "")] if joint not in _LIMBS else [("l_", "left"), ("r_", "right")]
        for short, side in sides:
            for name in names.split():
                plain = _plain(name)
                if side == "right":
                    plain = plain.replace("left", "right", 1) if plain.startswith("left") else "r" + plain[1:]
                if plain in index:
                    yield short + joint, index[plain]


def _given(joint_map: Mapping[str, str], index: Mapping[str, int], names: tuple[str, ...], file: str) -> dict[str, int]:
    """Look up what the user's map says."""
    exact = {name: place for place, name in reversed(list(enumerate(names)))}
    places: dict[str, int] = {}
    for joint, name in joint_map.items():
        if joint not in NAMES:
            near = difflib.get_close_matches(str(joint), NAMES, n=1, cutoff=0.0)
            raise MtvcraftError(f"`--joint-map` names `{joint}`, no joint of SMPL", hint=f"did you mean `{near[0]}`?")
        place = exact.get(str(name), index.get(_plain(str(name))))
        if place is None:
            near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.0)
            raise MtvcraftError(
                f"`--joint-map` names `{name}` for {joint}, which `{file}` doesn't have",
                hint=f"did you mean `{near[0]}`?",
            )
        if place in places.values():
            raise MtvcraftError(f"`--joint-map` gives `{name}` to two joints", hint="give each joint one of its own")
        places[joint] = place
    return places


def _spine(places: Places, chosen: Mapping[str, int], apart: Callable[[int, int], bool]) -> list[int]:
    """Return the joints on the way from pelvis to neck that lie apart from those before them and from the neck."""
    way = []
    place = places.parents[chosen["neck"]]
    while place >= 0 and place != chosen["pelvis"]:
        way.append(place)
        place = places.parents[place]
    spine: list[int] = []
    for place in reversed(way):
        before = spine[-1] if spine else chosen["pelvis"]
        if apart(place, before) and apart(place, chosen["neck"]):
            spine.append(place)
    return spine


def _divided(line: Array) -> Array:
    """Set SMPL's three spine joints (T, 3, 3) on a line (T, P, 3) from pelvis to neck, by the neutral body's shares."""
    lengths = np.median(np.linalg.norm(np.diff(line, axis=1), axis=-1), axis=0)
    along = np.concatenate([[0], lengths.cumsum()]) / max(float(lengths.sum()), 1e-9)
    spine_mm = NEUTRAL_LENGTHS_MM[[NAMES.index(name) for name in ("spine1", "spine2", "spine3", "neck")]].cumsum()
    points = []
    for share in spine_mm[:3] / spine_mm[3]:
        after = int(np.clip(np.searchsorted(along, share), 1, len(along) - 1))
        part = (share - along[after - 1]) / max(along[after] - along[after - 1], 1e-9)
        points.append(line[:, after - 1] + part * (line[:, after] - line[:, after - 1]))
    return np.stack(points, axis=1)
