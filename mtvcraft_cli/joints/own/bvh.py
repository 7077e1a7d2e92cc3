"""BVH: a skeleton's rotations as text, read into joints and written from them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.files import writing
from mtvcraft_cli.joints.files import Motion, frame_names
from mtvcraft_cli.joints.own.found import Found, size_of_body
from mtvcraft_cli.joints.own.names import Places, joints_from
from mtvcraft_cli.joints.own.pickled import MOST_BYTES
from mtvcraft_cli.joints.skeleton import NAMES, PARENTS
from mtvcraft_cli.joints.turns import turns_of

CAMERA_ROOT: Final = "pelvis_in_camera_space"
"""The root of the files we write: what stands in them is seen from the origin along -z, in centimetres."""
MOST_JOINTS: Final = 1000
MOST_APART_MM: Final = 0.5
"""How far rotations alone may leave a joint from where it was; past it the joint gets positions of its own."""

FRAME_TIME: Final = re.compile(r"\s*frame time\s*:?\s*(\S+)", re.IGNORECASE)

Array = npt.NDArray[np.float64]


@dataclass
class Bone:
    """One joint of a BVH skeleton."""

    name: str
    parent: int
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    channels: tuple[str, ...] = ()
    """Such as `xposition` and `zrotation`, in the order of the numbers."""
    is_end: bool = False


@dataclass
class Skeleton:
    """The first half of a BVH file, and where its second begins."""

    bones: list[Bone] = field(default_factory=list)
    motion_line: int = 0


def read_bvh(path: Path, joint_map: Mapping[str, str] | None = None) -> Found:
    """Read a BVH file.

    Args:
        path: a file with any names, channels and unit.
        joint_map: SMPL's joint to the file's, where names alone don't tell.

    Returns:
        The joints in the file's unit and axes, which are most often y up.

    Raises:
        MtvcraftError: (`Exit.INPUT`) it is broken, isn't a person's skeleton, or holds NaN.
    """
    if path.stat().st_size > MOST_BYTES:
        raise _broken(path.name, "it is larger than a gigabyte")
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    skeleton = _read_skeleton(lines, path.name)
    values, rate = _read_motion(lines[skeleton.motion_line :], skeleton, path.name)
    places = _places(skeleton, values)
    ours = skeleton.bones[0].name == CAMERA_ROOT
    joints, kind, said = joints_from(places, joint_map or {}, path.name)
    if ours and not 0.5 < size_of_body(10 * joints) < 2:
        raise MtvcraftError(
            f"`{path.name}` was written by this program in centimetres, and its body is no longer of a person's size",
            hint=f"scale it back, or rename its root `{CAMERA_ROOT}`: then its unit is found, and it gets a new camera",
        )
    if ours:
        joints = 10 * joints * (1, -1, -1)
    return Found(
        joints=joints.astype(np.float32),
        kind=kind,
        rate=rate,
        unit_mm=1.0 if ours else None,
        any_unit=True,
        up=None if ours else "y",
        in_camera=ours,
        said=said,
    )


def _read_skeleton(lines: list[str], name: str) -> Skeleton:
    skeleton, above, bones = Skeleton(), [-1], 0
    for number, line in enumerate(lines):
        word, *rest = line.split() or [""]
        word = word.upper()
        if word == "MOTION":
            skeleton.motion_line = number + 1
            break
        if word in ("ROOT", "JOINT") or (word == "END" and rest):
            if len(skeleton.bones) >= MOST_JOINTS:
                raise _broken(name, f"it has more than {MOST_JOINTS} joints")
            if above[-1] < 0 and skeleton.bones:
                raise _broken(name, f"it has a second root in line {number + 1}")
            is_end = word == "END"
            called = f"{skeleton.bones[above[-1]].name} end" if is_end and skeleton.bones else " ".join(rest)
            skeleton.bones.append(Bone(called, above[-1], is_end=is_end))
            bones = len(skeleton.bones) - 1
        elif word == "{":
            above.append(bones)
        elif word == "}" and len(above) > 1:
            above.pop()
        elif word in ("OFFSET", "CHANNELS") and skeleton.bones:
            _describe(skeleton.bones[above[-1]], word, rest, name, number)
        elif word and word != "HIERARCHY":
            raise _broken(name, f"line {number + 1} is `{line.strip()[:40]}`")
    if not skeleton.motion_line or not skeleton.bones:
        raise _broken(name, "it has no skeleton or no motion")
    return skeleton


def _describe(bone: Bone, word: str, rest: list[str], name: str, number: int) -> None:
    try:
        if word == "OFFSET":
            bone.offset = tuple(float(number) for number in rest)
            if len(bone.offset) != 3 or not np.isfinite(bone.offset).all():
                raise ValueError
        else:
            bone.channels = tuple(channel.lower() for channel in rest[1:])
            if len(bone.channels) != int(rest[0]) or not all(
                re.fullmatch("[xyz](position|rotation)", channel) for channel in bone.channels
            ):
                raise ValueError
    except (ValueError, IndexError) as error:
        raise _broken(name, f"line {number + 1} is `{word} {' '.join(rest)[:40]}`") from error


def _read_motion(lines: list[str], skeleton: Skeleton, name: str) -> tuple[Array, Fraction]:
    """Return (T, C) numbers, one column a channel, and the rate."""
    columns = sum(len(bone.channels) for bone in skeleton.bones)
    times = [(number, found[1]) for number, line in enumerate(lines[:4]) if (found := FRAME_TIME.match(line))]
    if not times:
        raise _broken(name, "it has no `Frame Time`")
    after, frame_time = times[0]
    rate = _rate(frame_time, name)
    try:
        numbers = np.array(" ".join(lines[after + 1 :]).split(), np.float64)
    except ValueError as error:
        raise _broken(name, f"its motion has {str(error).rpartition(':')[2].strip()[:40]} in it") from error
    if not columns or not len(numbers) or len(numbers) % columns:
        raise _broken(name, f"its motion has {len(numbers)} numbers for {columns} channels: it is cut off")
    values = numbers.reshape(-1, columns)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise MtvcraftError(f"`{name}` has NaN or infinite values in {frame_names(bad)}", hint="cut those frames off")
    return values, rate


def _rate(frame_time: str, name: str) -> Fraction:
    """Return the rate whose frame time this is, as far as it is written out: whole, one of NTSC's, or the nearest."""
    try:
        seconds = float(frame_time)
    except ValueError:
        seconds = 0.0
    if not 1e-4 <= seconds <= 100:
        raise MtvcraftError(f"`{name}` has a frame time of {frame_time} s", hint="give its rate with `--drive-fps`")
    digits = len(frame_time.lower().partition("e")[0].partition(".")[2])
    slack = 0.51 * 10.0**-digits if "e" not in frame_time.lower() else 1e-9
    exact = 1 / Fraction(frame_time)
    if exact.denominator <= 2:
        return exact
    near = [Fraction(round(1 / seconds)), Fraction(1000 * round(1.001 / seconds), 1001)]
    fit = [rate for rate in near if rate and abs(float(1 / rate) - seconds) <= slack]
    return min(fit or [Fraction(1 / seconds).limit_denominator(1001)], key=lambda rate: rate.denominator)


def _places(skeleton: Skeleton, values: Array) -> Places:
    """Follow the skeleton from its root: where each joint is in each frame."""
    turns: list[Array] = []
    places: list[Array] = []
    column = 0
    for bone in skeleton.bones:
        offset = np.tile(np.array(bone.offset), (len(values), 1))
        turn = np.eye(3) if bone.parent < 0 else turns[bone.parent]
        local = None
        for channel in bone.channels:
            axis = "xyz".index(channel[0])
            if channel.endswith("position"):
                offset[:, axis] = values[:, column]  # positions stand in the place of the offset
            else:
                one = _about(axis, values[:, column])
                local = one if local is None else local @ one
            column += 1
        parent = np.zeros(3) if bone.parent < 0 else places[bone.parent]
        places.append(parent + (turn @ offset[..., None])[..., 0])
        turns.append(turn if local is None else turn @ local)
    return Places(
        names=tuple(bone.name for bone in skeleton.bones),
        parents=tuple(bone.parent for bone in skeleton.bones),
        ends=tuple(bone.is_end for bone in skeleton.bones),
        points=np.stack(places, axis=1),
    )


def _about(axis: int, angles_deg: Array) -> Array:
    """Return (T, 3, 3) rotations about one axis."""
    angles = np.radians(angles_deg)
    turns = np.tile(np.eye(3), (len(angles), 1, 1))
    after, last = (axis + 1) % 3, (axis + 2) % 3
    turns[:, after, after] = turns[:, last, last] = np.cos(angles)
    turns[:, last, after] = np.sin(angles)
    turns[:, after, last] = -turns[:, last, after]
    return turns


def _broken(name: str, why: str) -> MtvcraftError:
    return MtvcraftError(f"`{name}` can't be read as BVH: {why}", hint="export it again from the program it came from")


def write_bvh(path: Path, motion: Motion) -> None:
    """Write joints as BVH, in centimetres with y up, seen along -z from the origin.

    Rotations are fitted to the joints. Where they can't bring a joint within half a millimetre of its place, since its
    bone's length changes, the joint gets position channels too. Read back, no joint is off by a millimetre.
    """
    joints = motion.joints_mm.astype(np.float64) * (0.1, -0.1, -0.1)
    turns = turns_of(joints.astype(np.float32)).astype(np.float64)
    children = [[child for child in range(24) if PARENTS[child] == joint] for joint in range(24)]
    offsets, columns, channels = np.zeros((24, 3)), {}, {}
    reached = np.empty_like(joints)
    for joint, parent in enumerate(PARENTS):
        local = turns[:, joint] if parent < 0 else turns[:, parent].swapaxes(1, 2) @ turns[:, joint]
        angles = np.round(_zxy(local), 6)
        local = _about(2, angles[:, 0]) @ _about(0, angles[:, 1]) @ _about(1, angles[:, 2])  # as it will be read
        turns[:, joint] = local if parent < 0 else turns[:, parent] @ local
        if parent < 0:
            reached[:, joint] = joints[:, joint]
            place = joints[:, joint]
        else:
            apart = joints[:, joint] - reached[:, parent]
            place = (turns[:, parent].swapaxes(1, 2) @ apart[..., None])[..., 0]
            offsets[joint] = np.round(np.median(place, axis=0), 6)
            reached[:, joint] = reached[:, parent] + turns[:, parent] @ offsets[joint]
        rigid = parent >= 0 and np.abs(reached[:, joint] - joints[:, joint]).max() <= 0.1 * MOST_APART_MM / 3**0.5
        if not rigid:
            reached[:, joint] = joints[:, joint]
        columns[joint] = angles if rigid else np.concatenate([place, angles], axis=1)
        positions = "" if rigid else "Xposition Yposition Zposition "
        channels[joint] = f"CHANNELS {columns[joint].shape[1]} {positions}Zrotation Xrotation Yrotation"

    order: list[int] = []  # of the numbers in a line: as the skeleton is written, limb by limb

    def described(joint: int, indent: str) -> list[str]:
        order.append(joint)
        name = CAMERA_ROOT if not joint else NAMES[joint]
        place = " ".join(f"{number:.6f}" for number in offsets[joint])
        inner = [f"OFFSET {place}", channels[joint]]
        inner += [line for child in children[joint] for line in described(child, "\t")]
        if not children[joint]:
            inner += ["End Site", "{", "\tOFFSET 0.000000 0.000000 0.000000", "}"]
        return [f"{'JOINT' if joint else 'ROOT'} {name}", "{", *(indent and "\t" + line for line in inner), "}"]

    skeleton = described(0, "\t")
    head = ["HIERARCHY", *skeleton, "MOTION", f"Frames: {len(motion)}", f"Frame Time: {float(1 / motion.rate):.12f}"]
    numbers = np.concatenate([columns[joint] for joint in order], axis=1)
    with writing(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\n".join(head) + "\n")
        np.savetxt(file, numbers, fmt="%.6f")


def _zxy(turns: Array) -> Array:
    """Return (T, 3) degrees about z, x and y, applied in this order from the left."""
    x = np.arcsin(np.clip(turns[:, 2, 1], -1, 1))
    z = np.arctan2(-turns[:, 0, 1], turns[:, 1, 1])
    y = np.arctan2(-turns[:, 2, 0], turns[:, 2, 2])
    return np.degrees(np.stack([z, x, y], axis=1))
