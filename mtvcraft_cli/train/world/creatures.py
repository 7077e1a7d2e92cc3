"""Characters drawn at random: robots, animals on two legs, things with limbs, cartoon people."""

import colorsys
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np

from mtvcraft_cli.train.world.characters import Bones, lengthened
from mtvcraft_cli.train.world.figure import Colour, Figure, Look, Parts, Point, Wardrobe, dressed, person
from mtvcraft_cli.train.world.kinematics import Number

HUES: Final = 12
"""Main colours are told apart in so many steps around the colour circle."""


@dataclass(frozen=True)
class Traits:
    """What makes a kind of creature; sizes and colours are drawn for each one."""

    trunk: Literal["egg", "barrel", "box", "cap"] = "egg"
    """A mushroom's "cap" is a thing's whole body: it has no head."""
    head: Literal["ball", "box", "none"] = "ball"
    ears: Literal["none", "cat", "rabbit", "bear", "horns", "aerial", "hair"] = "none"
    muzzle: Literal["none", "snout", "beak"] = "none"
    tail: Literal["none", "long", "bushy", "thick"] = "none"
    limbs: Literal["thick", "thin", "jointed"] = "thick"
    feet: Literal["shoe", "paw", "toes"] = "shoe"
    patterns: tuple[str, ...] = ("plain",)
    head_mm: tuple[Number, Number] = (105, 150)
    leg: tuple[Number, Number] = (0.65, 1.0)
    """Shortest and longest, beside the neutral skeleton's."""


KINDS: Final[dict[str, Traits]] = {
    "doll": Traits("barrel", ears="hair", patterns=("plain", "stripes", "checks", "dots"), head_mm=(115, 165)),
    "robot": Traits("box", "box", "aerial", limbs="jointed", patterns=("plain", "plain", "checks"), head_mm=(95, 135)),
    "cat": Traits("egg", ears="cat", muzzle="snout", tail="long", feet="paw", patterns=("plain", "stripes")),
    "rabbit": Traits("egg", ears="rabbit", muzzle="snout", tail="bushy", feet="paw"),
    "bear": Traits("egg", ears="bear", muzzle="snout", tail="bushy", feet="paw", patterns=("plain", "grain")),
    "bird": Traits("egg", muzzle="beak", tail="thick", limbs="thin", feet="toes", patterns=("plain", "feathers")),
    "lizard": Traits("barrel", "ball", "horns", "snout", "thick", "thick", "toes", ("dots", "stripes", "plain")),
    "crate": Traits("box", "none", limbs="thin", patterns=("wood", "checks", "plain"), leg=(0.5, 0.85)),
    "egg": Traits("egg", "none", limbs="thin", patterns=("plain", "dots", "stripes"), leg=(0.5, 0.85)),
    "mushroom": Traits("cap", "none", limbs="thick", patterns=("dots", "plain"), leg=(0.5, 0.8)),
}


def character(rng: np.random.Generator, kind: str, hue: int) -> Figure:
    """Draw one character of a kind.

    Args:
        rng: draws sizes and colours.
        kind: "person" or a name from `KINDS`.
        hue: 0..11, its main colour (a person's shirt).
    """
    if kind == "person":
        return person(_dressed(rng, hue))
    return _creature(rng, KINDS[kind], hue)


def _dressed(rng: np.random.Generator, hue: int) -> Wardrobe:
    drawn = dressed(rng)
    return replace(drawn, shirt=replace(drawn.shirt, colour=coloured(rng, hue)))


def coloured(rng: np.random.Generator, hue: int, low: Number = 0.35) -> Colour:
    """Draw a colour of a hue, 0..11; pale and dark ones too."""
    tone = (hue + rng.uniform(-0.5, 0.5)) / HUES % 1
    red, green, blue = colorsys.hsv_to_rgb(float(tone), float(rng.uniform(0.3, 0.95)), float(rng.uniform(low, 0.98)))
    return red, green, blue


_BLACK: Final = Look((0.07, 0.06, 0.07), gloss=0.7)
_WHITE: Final = Look((0.97, 0.97, 0.95), gloss=0.3)


@dataclass(frozen=True)
class _Palette:
    body: Look
    limb: Look
    trim: Look
    belly: Look

    @classmethod
    def draw(cls, rng: np.random.Generator, traits: Traits, hue: int) -> "_Palette":
        gloss = float(rng.uniform(0.3, 0.6)) if traits.limbs == "jointed" else float(rng.uniform(0, 0.15))
        main, other, third = (coloured(rng, int(tone)) for tone in (hue, *rng.integers(HUES, size=2)))
        body = Look(main, other, str(rng.choice(traits.patterns)), float(rng.uniform(40, 110)), gloss)  # type: ignore[arg-type]
        limb = Look(main if rng.random() < 0.5 else other, gloss=gloss)
        pale: Colour = tuple(float(0.45 * part + 0.55) for part in main)  # type: ignore[assignment]
        return cls(body, limb, Look(third, gloss=gloss), Look(pale, gloss=gloss))


def _between(rng: np.random.Generator, low: Number, high: Number) -> float:
    return float(rng.uniform(low, high))


def _creature(rng: np.random.Generator, traits: Traits, hue: int) -> Figure:
    legs, arms = _between(rng, *traits.leg), _between(rng, 0.75, 1.1)
    bones = lengthened(
        knee=legs * _between(rng, 0.92, 1.08),
        ankle=legs * _between(rng, 0.92, 1.08),
        elbow=arms * _between(rng, 0.95, 1.05),
        wrist=arms * _between(rng, 0.95, 1.05),
        shoulder=_between(rng, 1.0, 1.4),
        hip=_between(rng, 0.95, 1.25),
        foot=_between(rng, 0.85, 1.1),
    )
    girth = _between(rng, 118, 160) if traits.head != "none" else _between(rng, 165, 210)
    limb_mm = {"thin": _between(rng, 20, 32), "thick": _between(rng, 42, 62), "jointed": _between(rng, 34, 50)}[
        traits.limbs
    ]
    look = _Palette.draw(rng, traits, hue)
    parts = Parts()
    _trunk(parts, traits, look, girth, _between(rng, 0.68, 0.85))
    _limbs(parts, traits, look, bones, limb_mm)
    _feet(parts, traits, look, float(bones[10, 1]), float(bones[10, 2]), limb_mm)
    _tail(parts, traits, look, girth)
    if traits.head == "none":
        _face(parts, traits, look, 9, (0, 70, 0), (0.95 * girth, 0.9 * girth, 0.8 * girth), _between(rng, 0.13, 0.2))
    else:
        _head(parts, traits, look, rng, _between(rng, *traits.head_mm), _between(rng, 0.16, 0.26))
    return Figure(bones, tuple(parts.parts), sole_mm=24.0)


def _trunk(parts: Parts, traits: Traits, look: _Palette, girth: Number, flat: Number) -> None:
    soft = {"blend_mm": 24.0}
    g = girth
    if traits.trunk == "box":
        tall = 120 if traits.head != "none" else 190
        parts.both(6, look.body, (0.5 * g, -90, 0), (0.5 * g, tall, 0), 0.62 * g, 0.62 * g, squash=(1, 0.5, flat))
        parts.add(0, look.limb, (0, -55, 0), (0, 20, 0), 0.85 * g, 0.8 * g, squash=(1, 0.5, flat))
        parts.add(9, look.trim, (-0.35 * g, -20, 0.5 * g), (0.35 * g, -20, 0.5 * g), 40, 40, squash=(1, 1, 0.6))
    elif traits.trunk == "cap":
        parts.add(0, look.belly, (0, -60, 0), (0, 40, 0), 0.75 * g, 0.75 * g, **soft)
        parts.add(6, look.belly, (0, -80, 0), (0, 120, 0), 0.75 * g, 0.85 * g, **soft)
        parts.ball(9, look.belly, (0, 70, 0), 0.9 * g, squash=(0.95, 1, 0.85), **soft)
        parts.ball(12, look.body, (0, 60, -10), 1.55 * g, squash=(1, 0.62, 1), blend_mm=6.0)
    else:
        top = 0.72 * g if traits.trunk == "egg" else 0.98 * g
        high = 130 if traits.head != "none" else 60
        parts.add(0, look.body, (0, -46, 0), (0, 80, 0), g, 1.04 * g, squash=(1, 0.8, flat), **soft)
        parts.add(6, look.body, (0, -60, 0), (0, high, 0), 1.05 * g, top, squash=(1, 0.8, flat), **soft)
        if traits.head == "none":
            parts.ball(9, look.body, (0, 70, 0), 0.95 * g, squash=(1, 1.2, 0.84), **soft)
        elif traits.muzzle != "none":
            parts.add(3, look.belly, (0, -70, 0.32 * g), (0, 120, 0.3 * g), 0.74 * g, 0.6 * g, squash=(1, 1, flat))
    if traits.head != "none":
        parts.add(12, look.limb, (0, -30, -4), (0, 46, 30), 0.34 * g, 0.32 * g, **soft)
        parts.both(9, look.body, (0, 110, -14), (140, 120, -12), 0.42 * g, 0.36 * g, **soft)


def _limbs(parts: Parts, traits: Traits, look: _Palette, bones: Bones, mm: Number) -> None:
    arm, fore, thigh, shin = float(bones[18, 0]), float(bones[20, 0]), -float(bones[4, 1]), -float(bones[7, 1])
    soft = {"blend_mm": 3.0 if traits.limbs == "jointed" else 12.0}
    gap = 0.8 * mm if traits.limbs == "jointed" else 0.0
    upper = look.body if traits.ears == "hair" else look.limb
    legs = look.trim if traits.ears in ("hair", "aerial") else look.limb
    if traits.head == "none":  # a thing's body is wide: its limbs start on it
        parts.both(13, look.limb, (0, 0, 0), (90, 10, 0), mm, mm, **soft)
        parts.both(1, look.limb, (0, 30, 0), (0, -20, 0), 1.1 * mm, 1.1 * mm, **soft)
    parts.both(16, upper, (-8, 0, 0), (arm - gap, 0, 0), 1.05 * mm, 0.9 * mm, **soft)
    parts.both(18, look.limb, (gap / 2, 0, 0), (fore, 0, 0), 0.9 * mm, 0.85 * mm, **soft)
    hand = look.trim if traits.limbs != "thick" else look.limb
    parts.both(20, hand, (16, 0, 0), (62, -3, 0), 1.0 * mm + 6, 1.0 * mm + 8, squash=(1, 0.75, 1), blend_mm=6.0)
    parts.both(20, hand, (20, -4, 24), (54, -8, 30 + 0.7 * mm), 0.4 * mm + 5, 0.35 * mm + 5, blend_mm=6.0)
    parts.both(1, legs, (4, -6, 0), (0, -thigh + gap, 0), 1.45 * mm, 1.1 * mm, **soft)
    parts.both(4, legs, (0, -gap / 2, 0), (0, -shin, 0), 1.1 * mm, 0.95 * mm, **soft)
    if traits.limbs == "jointed":
        parts.both(16, look.trim, (0, 0, 0), (6, 0, 0), 1.35 * mm, 1.35 * mm, blend_mm=3.0)
        parts.both(18, look.trim, (0, 0, 0), (1, 0, 0), 1.05 * mm, 1.05 * mm, blend_mm=3.0)
        parts.both(4, look.trim, (0, 0, 0), (0, -1, 0), 1.25 * mm, 1.25 * mm, blend_mm=3.0)


def _feet(parts: Parts, traits: Traits, look: _Palette, y: Number, z: Number, mm: Number) -> None:
    colour = look.trim if traits.feet != "paw" else look.limb
    if traits.feet == "toes":
        for x in (-46, 0, 46):
            parts.both(7, look.trim, (0, y + 6, 0), (x, y, z + 36), 22, 17, blend_mm=8.0)
        parts.both(7, look.trim, (0, 10, 0), (0, y, 0), 0.9 * mm, 24, blend_mm=8.0)
    else:
        wide = 1.35 if traits.feet == "paw" else 1.1
        parts.both(7, colour, (0, y + 12, -14), (2, y + 8, z + 16), 38, 42, squash=(wide, 0.8, 1), blend_mm=10.0)
        parts.both(7, look.limb, (0, 10, 0), (0, y + 10, 4), 0.95 * mm, 36, blend_mm=10.0)


def _tail(parts: Parts, traits: Traits, look: _Palette, g: Number) -> None:
    soft = {"blend_mm": 10.0}
    if traits.tail == "long":
        parts.add(0, look.limb, (0, -40, -0.7 * g), (40, -160, -1.7 * g), 28, 24, **soft)
        parts.add(0, look.limb, (40, -160, -1.7 * g), (130, 40, -2.3 * g), 24, 20, **soft)
    elif traits.tail == "bushy":
        parts.ball(0, look.belly, (0, -50, -0.85 * g), 0.42 * g, **soft)
    elif traits.tail == "thick":
        parts.add(0, look.body, (0, -60, -0.5 * g), (60, -260, -2.4 * g), 0.55 * g, 22, **soft)


def _head(parts: Parts, traits: Traits, look: _Palette, rng: np.random.Generator, r: Number, eye: Number) -> None:
    c: Point = (0, 0.55 * r, 0)
    skin = look.body if traits.muzzle != "none" else look.limb
    if traits.ears == "hair":
        tone = float(rng.uniform(0, 1))
        skin = Look(tuple(a + (b - a) * tone for a, b in zip((0.42, 0.27, 0.2), (0.97, 0.8, 0.68), strict=True)))  # type: ignore[arg-type]
    radii = (r, 0.95 * r, 0.92 * r)
    if traits.head == "box":
        parts.both(15, skin, (0.4 * r, 0.1 * r, 0), (0.4 * r, 1.0 * r, 0), 0.62 * r, 0.62 * r, squash=(1, 0.6, 1.2))
        radii = (1.1 * r, 0.9 * r, 0.8 * r)
    else:
        parts.ball(15, skin, c, r, squash=(1, 0.95, 0.92), blend_mm=8.0)
    match traits.ears:
        case "cat":
            parts.both(15, skin, (0.5 * r, 1.1 * r, 0), (0.72 * r, 1.75 * r, 0), 0.36 * r, 0.06 * r, squash=(1, 1, 0.5))
        case "rabbit":
            parts.both(15, skin, (0.35 * r, 1.3 * r, 0), (0.6 * r, 2.9 * r, -20), 0.24 * r, 0.2 * r, squash=(1, 1, 0.6))
        case "bear":
            parts.both(15, skin, (0.72 * r, 1.22 * r, 0), (0.74 * r, 1.24 * r, 0), 0.36 * r, 0.36 * r)
        case "horns":
            for high, far in ((1.45, -0.1), (1.1, -0.75)):
                top: Point = (0, (high + 0.35) * r, (far - 0.3) * r)
                parts.add(15, look.trim, (0, high * r, far * r), top, 0.24 * r, 0.05 * r, squash=(0.5, 1, 1))
        case "aerial":
            parts.add(15, look.trim, (0, 1.3 * r, 0), (0, 1.95 * r, 0), 9, 8, blend_mm=2.0)
            parts.ball(15, look.trim, (0, 2.0 * r, 0), 24, blend_mm=2.0)
        case "hair":
            hair = Look(coloured(rng, int(rng.integers(HUES)), 0.1))
            parts.ball(15, hair, (0, 0.72 * r, -0.16 * r), r, squash=(1.04, 0.95, 0.95), blend_mm=2.0)
            if rng.random() < 0.5:
                parts.add(15, hair, (0, 0.6 * r, -0.4 * r), (0, -0.5 * r, -0.5 * r), 0.85 * r, 0.7 * r, blend_mm=4.0)
    _face(parts, traits, look, 15, c, radii, eye)


def _face(
    parts: Parts,
    traits: Traits,
    look: _Palette,
    joint: int,
    c: Point,
    radii: tuple[Number, Number, Number],
    eye: Number,
) -> None:
    """Two eyes, a mouth and what is between them, on the front of an ellipsoid about `c`."""
    r = min(radii)
    crisp = {"blend_mm": 2.0}

    on = partial(_on_front, c, radii)
    size = eye * r
    for_eye = on(0.38, 0.2, -0.45 * size)
    parts.both(joint, _WHITE, for_eye, for_eye, 1.35 * size, 1.35 * size, squash=(1, 1.1, 0.7), **crisp)
    pupil = (for_eye[0], for_eye[1], for_eye[2] + 0.62 * size)
    parts.both(joint, _BLACK, pupil, pupil, 0.8 * size, 0.8 * size, squash=(1, 1.1, 0.6), **crisp)
    if traits.muzzle == "snout":
        parts.add(joint, look.belly, on(0, -0.22, -0.4 * r), on(0, -0.25, 0.1 * r), 0.46 * r, 0.36 * r, blend_mm=8.0)
        parts.ball(joint, _BLACK, on(0, -0.1, 0.42 * r), 0.13 * r, **crisp)
        return
    if traits.muzzle == "beak":
        parts.add(joint, look.trim, on(0, -0.12, -0.2 * r), on(0, -0.2, 0.55 * r), 0.3 * r, 0.06 * r, **crisp)
        return
    parts.add(joint, _BLACK, on(-0.24, -0.38), on(0.24, -0.38), 0.07 * r, 0.07 * r, **crisp)


def _on_front(c: Point, radii: Point, x: Number, y: Number, out: Number = 0) -> Point:
    """Where the front of an ellipsoid is at these shares of its half width and height, moved out by so much."""
    rx, ry, rz = radii
    return x * rx, c[1] + y * ry, c[2] + rz * float(np.sqrt(1 - x * x - y * y)) + out
