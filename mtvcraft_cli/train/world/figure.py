"""What a body is made of: tapered capsules on the bones, each with a look."""

from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM, PAIRS
from mtvcraft_cli.train.world.kinematics import Number

Point = tuple[Number, Number, Number]
"""Millimetres in the rest axes of a joint (T-pose): x to the person's left, y up, z to the front."""
Colour = tuple[Number, Number, Number]
"""Red, green, blue, 0..1 as on a screen."""


@dataclass(frozen=True)
class Look:
    """How a surface takes the light."""

    colour: Colour
    second: Colour = (0, 0, 0)
    """The pattern's other colour."""
    pattern: Literal["plain", "stripes", "checks", "dots", "grain", "wood", "feathers", "planks", "tiles", "stars"] = (
        "plain"
    )
    size_mm: Number = 60.0
    """One repeat of the pattern."""
    gloss: Number = 0.05
    """Strength of the highlight, 0..1."""


@dataclass(frozen=True)
class Part:
    """A tapered capsule: every ball between two ends, its radius going evenly from one to the other."""

    joint: int
    start_mm: Point
    end_mm: Point
    radii_mm: tuple[Number, Number]
    look: Look
    squash: Point = (1, 1, 1)
    """Stretches the radii along the joint's axes: (1.3, 1, 0.7) is wide and flat."""
    blend_mm: Number = 9.0
    """How softly it flows into what it touches."""

    def mirrored(self) -> "Part":
        """Return the same on the other side of the body."""
        other = {**dict(PAIRS), **{right: left for left, right in PAIRS}}
        (x, y, z), (u, v, w) = self.start_mm, self.end_mm
        return replace(self, joint=other.get(self.joint, self.joint), start_mm=(-x, y, z), end_mm=(-u, v, w))


@dataclass(frozen=True)
class Figure:
    """A body that can be hung on a skeleton's motion.

    Args:
        offsets_mm: (24, 3) its own bones, from each joint's parent in T-pose.
        parts: what is drawn.
        sole_mm: how far the ball of the foot is above the floor when standing.
    """

    offsets_mm: npt.NDArray[np.float32]
    parts: tuple[Part, ...]
    sole_mm: Number = 20.0

    @property
    def leg_mm(self) -> float:
        """Thigh and shin together."""
        return float(np.linalg.norm(self.offsets_mm[[4, 7]], axis=1).sum())


NEUTRAL_LEG_MM: Final = 755.0


@dataclass
class Parts:
    """Collects parts; what is added `both` times appears on the left and, mirrored, on the right."""

    parts: list[Part] = field(default_factory=list)

    def add(self, joint: int, look: Look, start: Point, end: Point, radius: Number, to: Number, **more: object) -> None:
        """Add one part."""
        self.parts.append(Part(joint, start, end, (radius, to), look, **more))  # type: ignore[arg-type]

    def ball(self, joint: int, look: Look, at: Point, radius: Number, **more: object) -> None:
        """Add a ball, or with `squash` an ellipsoid."""
        self.add(joint, look, at, at, radius, radius, **more)

    def both(
        self, joint: int, look: Look, start: Point, end: Point, radius: Number, to: Number, **more: object
    ) -> None:
        """Add one part on the left joint and one on the right."""
        self.add(joint, look, start, end, radius, to, **more)
        self.parts.append(self.parts[-1].mirrored())


@dataclass(frozen=True)
class Wardrobe:
    """What tells one person from another; the defaults are the demo's dancer."""

    skin: Colour = (0.86, 0.64, 0.52)
    hair: Colour = (0.16, 0.10, 0.07)
    shirt: Look = Look((0.80, 0.22, 0.20))
    trousers: Look = Look((0.17, 0.23, 0.38))
    shoes: Look = Look((0.90, 0.90, 0.88), gloss=0.2)
    sole: Colour = (0.95, 0.95, 0.95)
    hair_cut: Literal["short", "bob", "long", "bun", "cap", "bald"] = "short"
    sleeves: Number = 0.45
    """Share of the arm that is covered: 0.25 a T-shirt, 1 down to the wrist."""
    legs: Number = 1.0
    """Share of the leg that is covered: 0.4 shorts, 1 down to the ankle."""
    skirt: bool = False
    trunk_girth: Number = 1.0
    limb_girth: Number = 1.0
    bones: tuple[Number, ...] = (1.0,) * 24
    """Length of each bone beside the neutral skeleton's."""


def person(dress: Wardrobe = Wardrobe()) -> Figure:
    """Build a human being around SMPL's joints: flesh where a body has it, so estimators meet what they know.

    The sizes are those of an adult of 1.6 m, which is how tall the neutral skeleton stands.
    """
    bones = np.asarray(dress.bones, np.float32)[:, None] * NEUTRAL_OFFSETS_MM
    skin, hair = Look(dress.skin, gloss=0.08), Look(dress.hair, gloss=0.18)
    parts = Parts()
    _trunk(parts, dress, bones, skin)
    _head(parts, dress, skin, hair)
    _arms(parts, dress, bones, skin)
    _legs(parts, dress, bones, skin)
    return Figure(bones, tuple(parts.parts))


def _trunk(parts: Parts, dress: Wardrobe, bones: npt.NDArray[np.float32], skin: Look) -> None:
    shirt, trousers, g = dress.shirt, dress.trousers, dress.trunk_girth
    soft = {"blend_mm": 22.0}
    parts.add(0, trousers, (0, -54, -8), (0, 34, -6), 153 * g, 128 * g, squash=(1, 0.7, 0.68), **soft)
    parts.both(0, trousers, (58, -70, -48), (62, -92, -40), 80 * g, 76 * g, squash=(1, 1, 0.9), **soft)
    parts.add(0, Look((0.12, 0.09, 0.07)), (0, 54, -4), (0, 62, -4), 127 * g, 126 * g, squash=(1, 0.25, 0.69))
    parts.add(3, shirt, (0, -16, 8), (0, 40, 14), 125 * g, 117 * g, squash=(1, 0.6, 0.7), **soft)
    parts.add(6, shirt, (0, -70, -4), (0, 60, 4), 118 * g, 132 * g, squash=(1, 0.6, 0.7), **soft)
    parts.add(9, shirt, (0, 10, -2), (0, 78, -10), 134 * g, 146 * g, squash=(1, 0.6, 0.7), blend_mm=30.0)
    parts.both(9, shirt, (58, 44, 30), (74, 62, 24), 70 * g, 66 * g, squash=(1, 0.85, 0.85), blend_mm=34.0)
    parts.both(9, shirt, (62, 76, -52), (72, 20, -46), 60 * g, 58 * g, squash=(1, 1, 0.75), blend_mm=30.0)
    shoulder = bones[13] + bones[16]
    x, y = float(shoulder[0]), float(shoulder[1])
    parts.both(9, shirt, (22, y + 40, -26), (x - 30, y + 6, -16), 40, 42, blend_mm=26.0)
    parts.both(9, shirt, (30, y + 6, -14), (x - 20, y - 16, -12), 66 * g, 48, squash=(1, 1, 0.9), blend_mm=26.0)
    parts.add(9, shirt, (0, y, -34), (0, y + 56, -36), 60, 44, squash=(1.15, 1, 0.8), blend_mm=26.0)
    neck = bones[15]
    parts.add(12, skin, (0, -24, 2), (0, 0.7 * float(neck[1]), 0.45 * float(neck[2])), 53, 49, blend_mm=14.0)
    if dress.skirt:
        parts.add(0, trousers, (0, -10, -8), (0, -300, 0), 136 * g, 205 * g, squash=(1, 0.2, 0.8), **soft)


def _head(parts: Parts, dress: Wardrobe, skin: Look, hair: Look) -> None:
    """The joint is inside the skull, level with the mouth; nose, eyes and ears stand as far from it as in people."""
    dark = Look(tuple(0.72 * part for part in dress.skin), gloss=0.05)  # type: ignore[arg-type]
    lips = Look((0.72, 0.34, 0.32), gloss=0.2)
    white, black = Look((0.95, 0.94, 0.92), gloss=0.6), Look((0.08, 0.06, 0.05), gloss=0.8)
    crisp = {"blend_mm": 2.0}
    parts.ball(15, skin, (0, 74, -4), 92, squash=(0.80, 1.0, 1.0))
    parts.add(15, skin, (0, 48, 30), (0, -16, 46), 61, 33, squash=(1.04, 1, 0.95), blend_mm=16.0)
    parts.both(15, skin, (30, 34, 38), (27, 14, 42), 33, 28, blend_mm=26.0)
    parts.add(15, skin, (0, 62, 88), (0, 36, 103), 8, 13, squash=(0.85, 1, 1), blend_mm=8.0)
    parts.both(15, skin, (9, 33, 95), (10, 33, 94), 9, 8.5, blend_mm=5.0)
    parts.both(15, Look(dress.skin), (70, 58, -2), (72, 40, 2), 20, 13, squash=(0.42, 1, 0.75), blend_mm=3.0)
    parts.both(15, dark, (31, 68, 70), (31, 68, 70.1), 16, 16, squash=(1.1, 0.75, 0.8), **crisp)
    parts.both(15, white, (31, 67, 73), (31, 67, 73.1), 14.5, 14.5, squash=(1.1, 0.7, 0.9), **crisp)
    parts.both(15, black, (31, 67, 80), (31, 67, 80.1), 8, 8, squash=(1, 1, 0.95), **crisp)
    parts.both(15, hair, (17, 88, 87), (44, 89.5, 74), 4.2, 3.0, **crisp)
    parts.both(15, lips, (0, 3, 83), (20, 7, 75), 7, 4, squash=(1, 0.8, 0.9), **crisp)
    if dress.hair_cut == "bald":
        return
    if dress.hair_cut == "cap":  # no hair above its rim
        cloth = replace(dress.shoes, gloss=0.05)
        parts.ball(15, cloth, (0, 98, -8), 90, squash=(0.88, 0.92, 1.04), **crisp)
        parts.add(15, cloth, (0, 116, 76), (0, 106, 124), 58, 46, squash=(1, 0.12, 0.8), **crisp)
    parts.add(15, hair, (0, 84, -30), (0, 100, -22), 88, 86, squash=(0.90, 1.0, 1.0), **crisp)
    parts.both(15, hair, (66, 100, 10), (71, 68, -4), 16, 8, squash=(0.6, 1, 1), blend_mm=6.0)
    parts.add(15, hair, (0, 14, -66), (0, 58, -52), 42, 62, squash=(1.25, 1, 0.9), blend_mm=8.0)
    if dress.hair_cut != "cap":
        parts.both(15, hair, (10, 158, 40), (46, 138, 34), 26, 26, squash=(1.1, 0.8, 1.2), blend_mm=16.0)
    if dress.hair_cut in ("bob", "long"):
        low = -22 if dress.hair_cut == "bob" else -150
        parts.both(15, hair, (66, 92, -6), (68, low / 2 + 8, -14), 30, 26, squash=(0.7, 1, 1.4), blend_mm=6.0)
        parts.add(15, hair, (0, 78, -52), (0, low, -64), 64, 46, squash=(1.25, 1, 0.7), blend_mm=6.0)
    if dress.hair_cut == "bun":
        parts.ball(15, hair, (0, 156, -62), 42, blend_mm=4.0)


def _arms(parts: Parts, dress: Wardrobe, bones: npt.NDArray[np.float32], skin: Look) -> None:
    g, upper, lower = dress.limb_girth, float(bones[18, 0]), float(bones[20, 0])
    covered = dress.sleeves * (upper + lower)
    limb = {"blend_mm": 10.0}
    parts.both(16, dress.shirt, (-8, -6, -2), (34, -8, 0), 49 * g, 47 * g, blend_mm=24.0)
    if covered >= upper:
        parts.both(16, dress.shirt, (10, -4, 0), (upper, 0, 0), 48 * g, 41 * g, **limb)
        parts.both(18, dress.shirt, (0, 0, 0), (covered - upper, 0, 0), 41 * g, 36 * g, **limb)
    else:
        parts.both(16, dress.shirt, (10, -4, 0), (covered, 0, 0), 49 * g, 47 * g, **limb)
    parts.both(16, skin, (40, -4, 0), (upper, 0, 0), 43 * g, 36 * g, **limb)
    parts.both(16, skin, (upper * 0.35, -4, 8), (upper * 0.65, -4, 8), 37 * g, 35 * g, **limb)
    parts.both(18, skin, (0, 0, 0), (lower * 0.3, -2, 2), 36 * g, 37 * g, **limb)
    parts.both(18, skin, (lower * 0.3, -2, 2), (lower, 0, 0), 37 * g, 24 * g, **limb)
    hand = float(bones[22, 0])
    flat = {"squash": (1.0, 0.48, 1.0), "blend_mm": 7.0}
    parts.both(20, skin, (4, 0, 0), (26, -1, 0), 25, 33, **flat)
    parts.both(20, skin, (26, -1, 0), (hand + 10, -3, 0), 35, 37, **flat)
    for z, reach in ((29, 62), (11, 74), (-9, 70), (-27, 52)):
        knuckle, tip = (hand + 12, -4.0, z), (hand + 12 + reach, -14.0, z * 1.12)
        parts.both(20, skin, knuckle, tip, 10.5, 8, blend_mm=4.0)
    parts.both(20, skin, (18, -4, 24), (52, -10, 52), 14, 11.5, blend_mm=6.0)
    parts.both(20, skin, (52, -10, 52), (80, -14, 56), 11.5, 8.5, blend_mm=6.0)


def _legs(parts: Parts, dress: Wardrobe, bones: npt.NDArray[np.float32], skin: Look) -> None:
    g, thigh, shin = dress.limb_girth, -float(bones[4, 1]), -float(bones[7, 1])
    covered = dress.legs * (thigh + shin)
    upper, lower = dress.trousers, dress.trousers
    if covered < thigh:
        parts.both(1, dress.trousers, (14, -8, -4), (4, 30 - covered, 0), 92 * g, 80 * g, blend_mm=14.0)
        upper = skin
    if covered < thigh + shin * 0.9:
        lower = skin
        if covered > thigh:
            parts.both(4, dress.trousers, (0, 0, 0), (0, thigh - covered, 0), 60 * g, 58 * g)
    loose = 1.0 if lower is skin else 1.06
    parts.both(1, upper, (16, -6, -6), (5, -thigh * 0.45, 2), 91 * g, 73 * g, blend_mm=16.0)
    parts.both(1, upper, (5, -thigh * 0.45, 2), (0, -thigh, 0), 73 * g, 56 * g, blend_mm=14.0)
    parts.both(4, lower, (0, 0, 0), (0, -shin * 0.3, -14), 55 * g, 56 * g * loose, blend_mm=14.0)
    parts.both(4, lower, (0, -shin * 0.3, -14), (0, -shin * 0.72, -6), 56 * g * loose, 42 * g * loose, blend_mm=12.0)
    parts.both(4, lower, (0, -shin * 0.72, -6), (0, -shin + 14, 0), 42 * g * loose, 38 * loose, blend_mm=10.0)
    parts.both(7, skin, (0, 24, 0), (0, -30, -4), 36, 36)
    shoes, sole = dress.shoes, Look(dress.sole)
    y, z = float(bones[10, 1]), float(bones[10, 2])
    parts.both(7, shoes, (0, -12, -16), (2, y + 20, z * 0.55), 38, 33, squash=(1.02, 1, 1), blend_mm=12.0)
    parts.both(7, shoes, (0, y + 14, -26), (3, y + 8, z + 12), 34, 27, squash=(1.22, 0.85, 1), blend_mm=12.0)
    parts.both(7, shoes, (3, y + 8, z), (2, y + 4, z + 42), 29, 23, squash=(1.35, 0.85, 1), blend_mm=12.0)
    parts.both(7, sole, (0, y - 10, -24), (3, y - 10, z + 40), 37, 32, squash=(1.12, 0.27, 1), blend_mm=2.0)


def dressed(rng: np.random.Generator) -> Wardrobe:
    """Draw a person: skin, hair, clothes, girth, bone lengths (+-10 %, left and right alike)."""

    def colour(low: float = 0.08, high: float = 0.92) -> Colour:
        red, green, blue = rng.uniform(low, high, 3)
        return float(red), float(green), float(blue)

    def cloth() -> Look:
        pattern = str(rng.choice(["plain", "plain", "plain", "stripes", "checks", "dots"]))
        return Look(colour(), colour(), pattern, float(rng.uniform(25, 90)))  # type: ignore[arg-type]

    tone = float(rng.uniform(0, 1))
    skin = tuple(float(a + (b - a) * tone) for a, b in zip((0.36, 0.23, 0.17), (0.95, 0.77, 0.66), strict=True))
    hairs: list[Colour] = [
        (0.06, 0.05, 0.05),
        (0.16, 0.10, 0.07),
        (0.36, 0.21, 0.10),
        (0.78, 0.62, 0.34),
        (0.5, 0.5, 0.5),
    ]
    lengths = np.exp(rng.normal(0, 0.04, 24)).clip(0.9, 1.1)
    legs, arms, trunk = np.exp(rng.normal(0, 0.03, 3))
    for joints, share in (((4, 5, 7, 8), legs), ((18, 19, 20, 21), arms), ((3, 6, 9, 12), trunk)):
        lengths[list(joints)] = (lengths[list(joints)] * share).clip(0.88, 1.12)
    for left, right in PAIRS:
        lengths[right] = lengths[left]
    return Wardrobe(
        skin=skin,  # type: ignore[arg-type]
        hair=hairs[int(rng.integers(len(hairs)))],
        shirt=cloth(),
        trousers=replace(cloth(), pattern="plain"),
        shoes=Look(colour(0.05, 0.95), gloss=0.2),
        sole=colour(0.1, 0.95),
        hair_cut=str(rng.choice(["short", "short", "bob", "long", "bun", "cap", "bald"])),  # type: ignore[arg-type]
        sleeves=float(rng.choice([0.2, 0.25, 0.3, 0.45, 0.7, 0.95])),
        legs=float(rng.choice([0.35, 0.42, 0.75, 1.0, 1.0, 1.0])),
        skirt=bool(rng.random() < 0.12),
        trunk_girth=float(np.exp(rng.normal(0, 0.08))),
        limb_girth=float(np.exp(rng.normal(0, 0.08))),
        bones=tuple(float(length) for length in lengths),
    )
