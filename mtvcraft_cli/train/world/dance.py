"""Dances made of sines and easing: moves set on a beat, blended, then walked by a skeleton."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM, PARENTS
from mtvcraft_cli.shapes import JointsMm
from mtvcraft_cli.train.world.kinematics import Number, unit

Curve = npt.NDArray[np.floating]
"""One control over time, (T,)."""
Controls = dict[str, Curve]
"""What a move sets; lengths in mm, angles in degrees, of the dancer's own body."""

_TRUNK: Final = ("sway", "rise", "drift", "turn", "twist", "roll", "lean", "bow", "look", "nod")
_LIMBS: Final = {"lift": 22.0, "front": 20.0, "hand_lift": 40.0, "hand_front": 60.0, "x": 95.0, "y": 0.0, "z": 0.0}
CONTROLS: Final[dict[str, float]] = {
    **dict.fromkeys(_TRUNK, 0.0),
    **{f"l_{name}": value for name, value in _LIMBS.items()},
    **{f"r_{name}": -value if name == "x" else value for name, value in _LIMBS.items()},
}
"""Every control at rest.

The pelvis sways to the left, rises and drifts to the front; the whole dancer turns, the pelvis twists and rolls over
the feet, the trunk leans to the left and bows, the head looks to the left and nods. An arm's upper half lifts from
hanging (0) over level (90) to straight up (180), and from sideways (0) to the front (90); so does its lower half.
A foot's x, y, z are those of its ball.
"""


def _ease(phase: Curve) -> Curve:
    """From 0 to 1 while `phase` does, starting and ending slowly."""
    phase = np.clip(phase, 0, 1)
    return phase * phase * (3 - 2 * phase)


def _wave(beat: Curve, period: Number, shift: Number = 0) -> Curve:
    return np.sin(2 * np.pi * (beat / period + shift))


def _step_touch(beat: Curve, size: Number) -> Controls:
    """Left foot out, right foot to it, and back: four beats."""
    at, reach = beat % 4, 110 * size
    left = _ease(at) - _ease(at - 3)
    right = _ease(at - 1) - _ease(at - 2)
    swing = _wave(beat, 2, 0.1)
    return {
        "sway": -0.9 * reach * np.cos(np.pi * beat / 2),
        "rise": -28 + 22 * np.cos(2 * np.pi * beat),
        "roll": 5 * _wave(beat, 4, 0.05),
        "lean": -4 * _wave(beat, 4, 0.1),
        "twist": 9 * swing,
        "look": 8 * _wave(beat, 4),
        "nod": 5 * _wave(beat, 1),
        "l_x": reach * (2 * left - 1) + 95,
        "r_x": reach * (2 * right - 1) - 95,
        "l_y": 55 * (np.sin(np.pi * np.clip(at, 0, 1)) + np.sin(np.pi * np.clip(at - 3, 0, 1))),
        "r_y": 55 * (np.sin(np.pi * np.clip(at - 1, 0, 1)) + np.sin(np.pi * np.clip(at - 2, 0, 1))),
        **_pair("lift", 32 + 10 * swing, 32 - 10 * swing),
        **_pair("front", 35 + 35 * swing, 35 - 35 * swing),
        **_pair("hand_lift", 92 + 22 * swing, 92 - 22 * swing),
        **_pair("hand_front", 95 + 15 * swing, 95 - 15 * swing),
    }


def _reach_up(beat: Curve, size: Number) -> Controls:
    """Both arms overhead, swaying from side to side."""
    swing = _wave(beat, 4)
    return {
        "sway": 70 * size * swing,
        "rise": -22 + 18 * np.cos(2 * np.pi * beat),
        "roll": -6 * size * swing,
        "lean": 11 * size * swing,
        "look": 6 * swing,
        "l_x": 125 + 0 * beat,
        "r_x": -125 + 0 * beat,
        **_pair("lift", 146 - 14 * swing, 146 + 14 * swing),
        **_pair("front", 12 + 0 * beat, 12 + 0 * beat),
        **_pair("hand_lift", 172 - 26 * swing, 172 + 26 * swing),
        **_pair("hand_front", 20 + 0 * beat, 20 + 0 * beat),
    }


def _arm_wave(beat: Curve, size: Number) -> Controls:
    """A wave that runs through level arms, from the right hand to the left one."""

    upper, fore = ([24 * size * _wave(beat, 2, -place) for place in places] for places in ((0.6, 0.35), (0.75, 0.1)))
    return {
        "sway": 30 * _wave(beat, 2, -0.5),
        "rise": -25 + 15 * np.cos(2 * np.pi * beat),
        "lean": 5 * _wave(beat, 2, -0.5),
        "l_x": 120 + 0 * beat,
        "r_x": -120 + 0 * beat,
        **_pair("lift", 82 + upper[0], 82 + upper[1]),
        **_pair("front", 18 + 0 * beat, 18 + 0 * beat),
        **_pair("hand_lift", 84 + 1.3 * fore[0], 84 + 1.3 * fore[1]),
        **_pair("hand_front", 22 + 0 * beat, 22 + 0 * beat),
    }


def _point(beat: Curve, size: Number) -> Controls:
    """One arm thrown up and out, the other low across; sides change every two beats."""
    side = np.tanh(3 * _wave(beat, 4))
    up, down = (1 + side) / 2, (1 - side) / 2
    return {
        "sway": 60 * size * side,
        "rise": -30 + 18 * np.cos(2 * np.pi * beat),
        "twist": 14 * size * side,
        "roll": -4 * side,
        "lean": -6 * side,
        "look": 14 * side,
        "l_x": 150 + 0 * beat,
        "r_x": -150 + 0 * beat,
        **_pair("lift", 35 + 105 * up, 35 + 105 * down),
        **_pair("front", 30 - 15 * up, 30 - 15 * down),
        **_pair("hand_lift", 62 + 86 * up, 62 + 86 * down),
        **_pair("hand_front", 120 - 100 * up, 120 - 100 * down),
    }


def _march(beat: Curve, size: Number) -> Controls:
    """Knees up in turn, arms swinging against them."""
    left, right = np.maximum(_wave(beat, 2), 0) ** 2, np.maximum(-_wave(beat, 2), 0) ** 2
    swing = _wave(beat, 2)
    return {
        "sway": -28 * swing,
        "rise": -12 + 10 * np.cos(2 * np.pi * beat),
        "twist": -6 * swing,
        "bow": 3 + 0 * beat,
        "l_y": 210 * size * left,
        "r_y": 210 * size * right,
        "l_z": 80 * size * left,
        "r_z": 80 * size * right,
        **_pair("lift", 24 - 4 * swing, 24 + 4 * swing),
        **_pair("front", 90 - 40 * swing, 90 + 40 * swing),
        **_pair("hand_lift", 85 - 25 * swing, 85 + 25 * swing),
        **_pair("hand_front", 90 + 0 * beat, 90 + 0 * beat),
    }


def _clap(beat: Curve, size: Number) -> Controls:
    """Arms open and meet in front of the chest, once every two beats, with a dip of the knees."""
    meet = (0.5 + 0.5 * np.cos(np.pi * beat)) ** 1.5
    return {
        "rise": -20 - 45 * size * meet,
        "bow": 6 * meet,
        "nod": 6 * meet,
        "l_x": 130 + 0 * beat,
        "r_x": -130 + 0 * beat,
        **_pair("lift", 62 - 12 * meet, 62 - 12 * meet),
        **_pair("front", 15 + 45 * meet, 15 + 45 * meet),
        **_pair("hand_lift", 112 - 4 * meet, 112 - 4 * meet),
        **_pair("hand_front", 40 + 98 * meet, 40 + 98 * meet),
    }


def _turn(beat: Curve, size: Number) -> Controls:
    """Turn to one side and to the other in small steps, arms at the hips."""
    side = _wave(beat, 4)
    left, right = np.maximum(_wave(beat, 1), 0), np.maximum(-_wave(beat, 1), 0)
    return {
        "turn": 52 * size * side,
        "rise": -16 + 10 * np.cos(4 * np.pi * beat),
        "twist": 8 * _wave(beat, 4, 0.08),
        "look": -24 * size * side,
        "l_y": 45 * left,
        "r_y": 45 * right,
        **_pair("lift", 46 + 5 * side, 46 - 5 * side),
        **_pair("front", -12 + 0 * beat, -12 + 0 * beat),
        **_pair("hand_lift", 56 + 0 * beat, 56 + 0 * beat),
        **_pair("hand_front", 152 + 0 * beat, 152 + 0 * beat),
    }


def _spin(beat: Curve, size: Number) -> Controls:  # noqa: ARG001 - a whole turn has one size
    """Once around in four beats, arms half open."""
    return {
        **_turn(beat, 0.0),
        "turn": 360 * _ease(beat / 4),
        **_pair("lift", 55 + 0 * beat, 55 + 0 * beat),
        **_pair("front", 30 + 0 * beat, 30 + 0 * beat),
        **_pair("hand_lift", 75 + 0 * beat, 75 + 0 * beat),
        **_pair("hand_front", 70 + 0 * beat, 70 + 0 * beat),
    }


def _jump(beat: Curve, size: Number) -> Controls:
    """Down, and off the floor with the arms thrown up: once every two beats."""
    at = beat % 2 / 2
    crouch = np.exp(-(((at - 0.2) / 0.12) ** 2)) + 0.8 * np.exp(-(((at - 0.82) / 0.1) ** 2))
    height = 230 * size * np.maximum(np.sin(np.pi * np.clip((at - 0.35) / 0.36, 0, 1)), 0)
    up = _ease((at - 0.2) / 0.25) - _ease((at - 0.62) / 0.3)
    return {
        "rise": -150 * size * crouch + height - 8,
        "bow": 22 * crouch,
        "l_y": height,
        "r_y": height,
        "l_x": 115 + 0 * beat,
        "r_x": -115 + 0 * beat,
        **_pair("lift", 30 + 110 * up, 30 + 110 * up),
        **_pair("front", 60 - 30 * up, 60 - 30 * up),
        **_pair("hand_lift", 50 + 115 * up, 50 + 115 * up),
        **_pair("hand_front", 80 - 50 * up, 80 - 50 * up),
    }


def _jumping_jack(beat: Curve, size: Number) -> Controls:
    """Feet apart with the arms overhead, and together again."""
    out = (1 - np.cos(np.pi * beat)) / 2
    hop = 70 * size * np.sin(np.pi * beat) ** 2
    return {
        "rise": -25 + hop,
        "l_y": hop,
        "r_y": hop,
        "l_x": 70 + 190 * size * out,
        "r_x": -70 - 190 * size * out,
        **_pair("lift", 15 + 140 * out, 15 + 140 * out),
        **_pair("front", 8 + 0 * beat, 8 + 0 * beat),
        **_pair("hand_lift", 15 + 155 * out, 15 + 155 * out),
        **_pair("hand_front", 10 + 0 * beat, 10 + 0 * beat),
    }


def _squat(beat: Curve, size: Number) -> Controls:
    """Down to the heels with the arms held out, and up: four beats."""
    down = (1 - np.cos(np.pi * beat / 2)) / 2
    return {
        "rise": -8 - 330 * size * down,
        "drift": -90 * size * down,
        "bow": 38 * size * down,
        "nod": -18 * size * down,
        "l_x": 150 + 0 * beat,
        "r_x": -150 + 0 * beat,
        **_pair("lift", 15 + 70 * down, 15 + 70 * down),
        **_pair("front", 25 + 60 * down, 25 + 60 * down),
        **_pair("hand_lift", 18 + 70 * down, 18 + 70 * down),
        **_pair("hand_front", 40 + 48 * down, 40 + 48 * down),
    }


def _kick(beat: Curve, size: Number) -> Controls:
    """One leg swung up to the front, then the other: two beats each."""
    left, right = np.maximum(_wave(beat, 4), 0) ** 2, np.maximum(-_wave(beat, 4), 0) ** 2
    swing = left - right
    return {
        "sway": -55 * swing,
        "rise": -20 + 0 * beat,
        "bow": -8 * (left + right),
        "twist": -10 * swing,
        "l_y": 520 * size * left,
        "r_y": 520 * size * right,
        "l_z": 430 * size * left,
        "r_z": 430 * size * right,
        **_pair("lift", 50 - 20 * left + 25 * right, 50 + 25 * left - 20 * right),
        **_pair("front", 40 - 40 * left + 40 * right, 40 + 40 * left - 40 * right),
        **_pair("hand_lift", 90 + 0 * beat, 90 + 0 * beat),
        **_pair("hand_front", 100 + 0 * beat, 100 + 0 * beat),
    }


def _greet(beat: Curve, size: Number) -> Controls:
    """One hand waves over the head, the other is at the hip; sides change every four beats."""
    left = 0.5 + 0.5 * np.tanh(4 * _wave(beat, 8, 0.06))
    wag = 32 * size * _wave(beat, 1)
    return {
        "sway": 40 * (2 * left - 1),
        "rise": -16 + 6 * np.cos(2 * np.pi * beat),
        "lean": -5 * (2 * left - 1),
        "look": 6 * (2 * left - 1),
        **_pair("lift", 34 + 78 * left, 112 - 78 * left),
        **_pair("front", -5 + 25 * left, 20 - 25 * left),
        **_pair("hand_lift", 55 + (110 + wag) * left, 55 + (110 + wag) * (1 - left)),
        **_pair("hand_front", 150 - 130 * left, 20 + 130 * left),
    }


def _stroll(beat: Curve, size: Number) -> Controls:
    """Two steps to the front and two back, arms swinging."""
    reach = 330 * size
    body = reach * (1 - np.cos(np.pi * beat / 2)) / 2
    at = beat % 4
    left, right = reach * (_ease(at) - _ease(at - 2)), reach * (_ease(at - 1) - _ease(at - 3))
    up = [60 * (np.sin(np.pi * np.clip(at - k, 0, 1)) + np.sin(np.pi * np.clip(at - k - 2, 0, 1))) for k in (0, 1)]
    swing = _wave(beat, 2)
    return {
        "drift": body,
        "rise": -22 + 8 * np.cos(2 * np.pi * beat),
        "twist": -7 * swing,
        "l_z": left,
        "r_z": right,
        "l_y": up[0],
        "r_y": up[1],
        **_pair("lift", 26 + 0 * beat, 26 + 0 * beat),
        **_pair("front", 90 - 55 * swing, 90 + 55 * swing),
        **_pair("hand_lift", 40 - 12 * swing, 40 + 12 * swing),
        **_pair("hand_front", 90 + 0 * beat, 90 + 0 * beat),
    }


def _punch(beat: Curve, size: Number) -> Controls:
    """Fists at the chin, thrown to the front in turn."""
    left, right = np.maximum(_wave(beat, 2), 0) ** 3, np.maximum(-_wave(beat, 2), 0) ** 3
    return {
        "rise": -45 + 12 * np.cos(2 * np.pi * beat),
        "twist": 24 * size * (right - left),
        "drift": 40 * size * (left + right),
        "bow": 8 + 0 * beat,
        "l_z": 130 + 0 * beat,
        "r_z": -110 + 0 * beat,
        "l_x": 130 + 0 * beat,
        "r_x": -130 + 0 * beat,
        **_pair("lift", 28 + 62 * left, 28 + 62 * right),
        **_pair("front", 55 + 40 * left, 55 + 40 * right),
        **_pair("hand_lift", 150 - 60 * left, 150 - 60 * right),
        **_pair("hand_front", 105 - 12 * left, 105 - 12 * right),
    }


Move = Callable[[Curve, Number], Controls]
MOVES: Final[dict[str, Move]] = {
    "step-touch": _step_touch,
    "reach-up": _reach_up,
    "arm-wave": _arm_wave,
    "point": _point,
    "march": _march,
    "clap": _clap,
    "turn": _turn,
    "spin": _spin,
    "jump": _jump,
    "jumping-jack": _jumping_jack,
    "squat": _squat,
    "kick": _kick,
    "greet": _greet,
    "stroll": _stroll,
    "punch": _punch,
}


def dance(
    frames: int,
    rate: Number,
    rng: np.random.Generator,
    beats_per_minute: Number = 120,
    moves: Sequence[str] = (),
) -> JointsMm:
    """Make up a dance: a move every four beats, each of a size of its own, one easing into the next.

    Args:
        frames: how many, at least 1.
        rate: frames a second.
        rng: draws the moves, if none are given, and their sizes.
        beats_per_minute: of the music.
        moves: names from `MOVES`, in order; the last one goes on to the end.

    Returns:
        (T, 24, 3) mm, y up, the floor at 0; the neutral body, which starts near x = z = 0 and faces +z.

    Raises:
        KeyError: a move that isn't there.
    """
    beat = np.arange(frames) / rate * beats_per_minute / 60
    bars = int(beat[-1] // 4) + 1
    named = [moves[min(bar, len(moves) - 1)] if moves else str(rng.choice(list(MOVES))) for bar in range(bars)]
    controls: Controls = {name: np.zeros(frames) for name in CONTROLS}
    for bar, name in enumerate(named):
        into = _ease(beat - 4 * bar + 0.5) if bar else np.ones(frames)
        out = _ease(beat - 4 * (bar + 1) + 0.5) if bar + 1 < bars else np.zeros(frames)
        made = MOVES[name](beat - 4 * bar, float(rng.uniform(0.75, 1.1)))
        made["turn"] = made.get("turn", 0 * beat) + 360 * named[:bar].count("spin")  # what was turned stays turned
        for control, rest in CONTROLS.items():
            controls[control] += (into - out) * made.get(control, rest)
    return walk(controls)


def walk(controls: Controls) -> JointsMm:
    """Lead the neutral skeleton through the controls; the legs find their own way to the feet.

    Args:
        controls: every name in `CONTROLS`, (T,) each.

    Returns:
        (T, 24, 3) mm, y up, the floor at 0.
    """
    offsets = NEUTRAL_OFFSETS_MM
    frames = len(controls["turn"])
    stance = _about("y", controls["turn"])
    pelvis = stance @ _about("y", controls["twist"]) @ _about("z", controls["roll"])
    lean, bow = _about("z", -controls["lean"] / 3 - controls["roll"] / 3), _about("x", controls["bow"] / 3)
    spine1 = pelvis @ lean @ bow
    spine2 = spine1 @ lean @ bow
    chest = spine2 @ lean @ bow @ _about("y", -0.6 * controls["twist"])
    neck = chest @ _about("z", controls["lean"] / 2) @ _about("y", controls["look"]) @ _about("x", controls["nod"])

    feet = {side: _foot(controls, side, stance) for side in "lr"}  # ball and ankle, (T, 3) each
    hips = {side: np.einsum("tab,b->ta", pelvis, offsets[joint]) for side, joint in (("l", 1), ("r", 2))}
    joints = np.zeros((frames, 24, 3))
    legs_mm = -offsets[4, 1] - offsets[7, 1]
    flat = np.stack([controls["sway"], 0 * controls["sway"], controls["drift"]], 1)
    joints[:, 0] = np.einsum("tab,tb->ta", stance, flat)
    joints[:, 0, 1] = 67 + 87 + 0.985 * legs_mm + controls["rise"]
    for side in "lr":  # no higher than the straight leg reaches
        away = joints[:, 0] + hips[side] - feet[side][1]
        across2 = away[:, 0] ** 2 + away[:, 2] ** 2
        highest = np.sqrt(np.maximum((0.992 * legs_mm) ** 2 - across2, 1.0))
        joints[:, 0, 1] -= np.maximum(away[:, 1] - highest, 0)

    for joint, turn in ((1, pelvis), (2, pelvis), (3, pelvis), (6, spine1), (9, spine2)):
        _hang(joints, joint, turn)
    for joint, turn in ((12, chest), (13, chest), (14, chest), (15, neck)):
        _hang(joints, joint, turn)
    for side, left in (("l", 1), ("r", -1)):
        shrug = _about("z", left * np.clip(controls[f"{side}_lift"] - 70, 0, 110) * 0.22)
        shoulder, elbow, wrist, hand = (16, 18, 20, 22) if side == "l" else (17, 19, 21, 23)
        _hang(joints, shoulder, chest @ shrug)
        upper = _arm(chest, controls[f"{side}_lift"], controls[f"{side}_front"], left)
        lower = _arm(chest, controls[f"{side}_hand_lift"], controls[f"{side}_hand_front"], left)
        joints[:, elbow] = joints[:, shoulder] + abs(offsets[elbow, 0]) * upper
        joints[:, wrist] = joints[:, elbow] + abs(offsets[wrist, 0]) * lower
        joints[:, hand] = joints[:, wrist] + abs(offsets[hand, 0]) * unit(lower + 0.25 * (lower - upper))
        hip, knee, ankle, foot = (1, 4, 7, 10) if side == "l" else (2, 5, 8, 11)
        ahead = np.einsum("tab,b->ta", stance, np.array((0.25 * left, 0, 1.0)))
        joints[:, foot], joints[:, ankle] = feet[side]
        joints[:, knee] = _knee(
            joints[:, hip], joints[:, ankle], float(-offsets[knee, 1]), float(-offsets[ankle, 1]), ahead
        )
    return joints.astype(np.float32)


def _hang(joints: npt.NDArray[np.floating], joint: int, turn: npt.NDArray[np.floating]) -> None:
    joints[:, joint] = joints[:, PARENTS[joint]] + np.einsum("tab,b->ta", turn, NEUTRAL_OFFSETS_MM[joint])


def _pair(name: str, left: Curve, right: Curve) -> Controls:
    return {f"l_{name}": left, f"r_{name}": right}


def _about(axis: str, degrees: Curve) -> npt.NDArray[np.floating]:
    """Rotate about an axis, right-handed: (T, 3, 3)."""
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    turn = np.zeros((len(degrees), 3, 3))
    turn[:, range(3), range(3)] = 1
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn[:, first, first] = turn[:, second, second] = cosine
    turn[:, second, first], turn[:, first, second] = sine, -sine
    return turn


def _arm(chest: npt.NDArray[np.floating], lift: Curve, front: Curve, left: int) -> npt.NDArray[np.floating]:
    """Where half an arm points, (T, 3)."""
    lift, front = np.radians(lift), np.radians(front)
    direction = np.stack([left * np.sin(lift) * np.cos(front), -np.cos(lift), np.sin(lift) * np.sin(front)], 1)
    return np.einsum("tab,tb->ta", chest, direction)


def _foot(
    controls: Controls, side: str, stance: npt.NDArray[np.floating]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Where a foot's ball and ankle are, (T, 3) each: toes a little outwards, heel first when it lifts."""
    x, y, z = (controls[f"{side}_{axis}"] for axis in "xyz")
    ball = np.einsum("tab,tb->ta", stance, np.stack([x, 20 + y, z + 60], 1))
    outwards = np.full(len(x), 14.0 if side == "l" else -14.0)
    foot = stance @ _about("y", outwards) @ _about("x", np.clip(0.45 * y, 0, 40))
    return ball, ball - np.einsum("tab,b->ta", foot, NEUTRAL_OFFSETS_MM[10])


def _knee(
    hip: npt.NDArray[np.floating],
    ankle: npt.NDArray[np.floating],
    thigh_mm: Number,
    shin_mm: Number,
    ahead: npt.NDArray[np.floating],
) -> npt.NDArray[np.floating]:
    """Bend the leg so that it reaches from hip to ankle, the knee pointing `ahead` (law of cosines)."""
    span = ankle - hip
    length = np.clip(np.linalg.norm(span, axis=1), abs(thigh_mm - shin_mm) + 1, thigh_mm + shin_mm - 0.5)[:, None]
    along = unit(span)
    cosine = (thigh_mm**2 + length**2 - shin_mm**2) / (2 * thigh_mm * length)
    across = unit(ahead - along * np.sum(ahead * along, 1, keepdims=True))
    return hip + thigh_mm * (cosine * along + np.sqrt(1 - np.clip(cosine, -1, 1) ** 2) * across)
