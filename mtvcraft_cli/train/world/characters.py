"""Characters that are no people: a robot, an owl, a wooden puppet, an astronaut."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.joints.skeleton import NAMES, NEUTRAL_OFFSETS_MM
from mtvcraft_cli.train.world.figure import Figure, Look, Parts

Bones = npt.NDArray[np.float32]


def lengthened(**factors: float) -> Bones:
    """Return the neutral offsets with those of joints whose names end so lengthened: `knee=0.6` for short thighs."""
    offsets = NEUTRAL_OFFSETS_MM.copy()
    for name, factor in factors.items():
        for joint, full in enumerate(NAMES):
            if full.removeprefix("l_").removeprefix("r_") == name:
                offsets[joint] *= factor
    return offsets


def robot() -> Figure:
    """Return a tin robot: a barrel of a body, a box of a head, ball joints, glowing eyes and an aerial."""
    tin, blue = Look((0.74, 0.78, 0.80), gloss=0.55), Look((0.16, 0.42, 0.62), gloss=0.45)
    dark, glow = Look((0.16, 0.18, 0.21), gloss=0.5), Look((1.0, 0.86, 0.32), gloss=0.9)
    red, panel = Look((0.86, 0.24, 0.18), gloss=0.5), Look((0.90, 0.92, 0.90), (0.35, 0.62, 0.72), "checks", 22, 0.3)
    bones = lengthened(shoulder=1.25, neck=0.95, head=0.7, elbow=1.02, knee=0.92, ankle=0.86, hip=1.1)
    arm, fore, thigh, shin = float(bones[18, 0]), float(bones[20, 0]), -float(bones[4, 1]), -float(bones[7, 1])
    crisp = {"blend_mm": 3.0}
    parts = Parts()
    parts.add(0, blue, (0, -58, 0), (0, 0, 0), 138, 150, squash=(1, 0.45, 0.8), **crisp)
    parts.add(3, dark, (0, -60, 0), (0, 30, 6), 92, 92, squash=(1, 0.4, 0.85), **crisp)
    parts.add(6, tin, (0, -60, 4), (0, 150, 0), 176, 186, squash=(1, 0.32, 0.74), **crisp)
    parts.add(9, tin, (0, 100, -4), (0, 150, -4), 176, 120, squash=(1, 0.32, 0.76), **crisp)
    parts.add(9, panel, (-48, 20, 120), (48, 20, 120), 52, 52, squash=(1, 1, 0.42), **crisp)
    parts.both(9, red, (44, 104, 128), (44, 104, 131), 12, 12, **crisp)
    parts.both(9, glow, (16, 104, 131), (16, 104, 133), 8, 8, **crisp)
    parts.add(12, dark, (0, -40, 0), (0, 40, 20), 44, 40, squash=(1, 0.6, 1), **crisp)
    parts.both(15, tin, (0, 44, 0), (44, 52, 0), 88, 84, squash=(0.95, 0.88, 0.9), blend_mm=10.0)
    parts.both(15, tin, (44, 96, 0), (44, 14, 4), 66, 66, squash=(0.95, 0.62, 1.1), blend_mm=10.0)
    parts.both(15, dark, (40, 66, 62), (40, 66, 72), 30, 27, **crisp)
    parts.both(15, glow, (40, 66, 86), (40, 66, 92), 19, 14, **crisp)
    parts.add(15, dark, (-34, 8, 76), (34, 8, 76), 9, 9, squash=(1, 1, 0.7), **crisp)
    parts.both(15, blue, (98, 52, 0), (120, 52, 0), 30, 22, **crisp)
    parts.add(15, dark, (0, 120, 0), (0, 186, -6), 7, 5, **crisp)
    parts.ball(15, red, (0, 196, -6), 17, **crisp)
    parts.both(16, blue, (-4, 0, 0), (14, 0, 0), 62, 60, **crisp)
    parts.both(16, dark, (30, 0, 0), (arm, 0, 0), 26, 26, **crisp)
    parts.both(16, tin, (72, 0, 0), (arm - 46, 0, 0), 41, 37, **crisp)
    parts.both(18, blue, (-2, 0, 0), (2, 0, 0), 42, 42, **crisp)
    parts.both(18, tin, (52, 0, 0), (fore - 30, 0, 0), 39, 50, **crisp)
    parts.both(20, dark, (-20, 0, 0), (14, 0, 0), 28, 28, **crisp)
    parts.both(20, blue, (28, 0, 0), (60, 0, 0), 40, 40, squash=(1, 0.8, 1), **crisp)
    for z in (-24, 0, 24):
        parts.both(20, tin, (72, -8, z), (134, -16, z), 13, 11, **crisp)
    parts.both(20, tin, (40, -20, 34), (92, -32, 46), 13, 11, **crisp)
    parts.both(1, dark, (0, 0, 0), (0, -thigh, 0), 34, 32, **crisp)
    parts.both(1, tin, (2, -58, 0), (0, -thigh + 60, 0), 63, 52, **crisp)
    parts.both(4, blue, (0, 0, 4), (0, 0, 8), 53, 52, **crisp)
    parts.both(4, tin, (0, -80, 0), (0, -shin + 40, 0), 51, 68, squash=(1, 0.6, 1), **crisp)
    parts.both(7, dark, (0, 10, 0), (0, -20, 0), 36, 36, **crisp)
    parts.both(7, blue, (0, -36, -28), (2, -38, 118), 54, 58, squash=(1.1, 0.5, 1), **crisp)
    parts.both(7, dark, (0, -56, -30), (2, -56, 120), 58, 62, squash=(1.1, 0.2, 1), **crisp)
    return Figure(bones, tuple(parts.parts), sole_mm=24.0)


def owl() -> Figure:
    """Return an owl on two long legs: wings for arms, a round face with large eyes, ear tufts, a speckled belly."""
    brown = Look((0.46, 0.31, 0.20), (0.30, 0.19, 0.12), "feathers", 42, 0.02)
    belly = Look((0.90, 0.82, 0.66), (0.62, 0.45, 0.28), "feathers", 46, 0.02)
    face, rust = Look((0.93, 0.87, 0.76), gloss=0.02), Look((0.62, 0.36, 0.16), gloss=0.02)
    wing = Look((0.36, 0.23, 0.15), (0.60, 0.42, 0.27), "feathers", 58, 0.02)
    amber, black = Look((0.98, 0.66, 0.10), gloss=0.8), Look((0.05, 0.04, 0.04), gloss=0.9)
    beak = Look((0.93, 0.68, 0.22), gloss=0.3)
    bones = lengthened(
        shoulder=1.35, hip=1.15, elbow=0.95, wrist=0.9, hand=1.1, knee=0.62, ankle=0.72, neck=0.9, head=0.7
    )
    arm, fore, hand = float(bones[18, 0]), float(bones[20, 0]), float(bones[22, 0])
    thigh, shin = -float(bones[4, 1]), -float(bones[7, 1])
    soft, crisp = {"blend_mm": 24.0}, {"blend_mm": 3.0}
    parts = Parts()
    parts.add(0, brown, (0, -50, -10), (0, 80, 0), 186, 214, squash=(1, 0.9, 0.82), **soft)
    parts.add(6, brown, (0, -40, 4), (0, 170, 0), 216, 184, squash=(1, 0.8, 0.82), **soft)
    parts.add(3, belly, (0, -90, 80), (0, 160, 80), 160, 152, squash=(1, 0.9, 0.84), blend_mm=8.0)
    parts.ball(15, brown, (0, 66, 0), 168, squash=(1.06, 0.9, 0.92), **soft)
    parts.both(15, brown, (92, 164, 10), (140, 268, 24), 46, 10, squash=(1, 1, 0.7), blend_mm=20.0)
    parts.both(15, face, (66, 70, 96), (64, 70, 104), 86, 82, squash=(1, 1, 0.7), blend_mm=6.0)
    parts.both(15, rust, (64, 76, 134), (64, 76, 138), 53, 50, squash=(1, 1, 0.6), **crisp)
    parts.both(15, amber, (62, 76, 146), (62, 76, 150), 44, 40, squash=(1, 1, 0.6), **crisp)
    parts.both(15, black, (58, 76, 168), (58, 76, 170), 22, 20, squash=(1, 1, 0.5), **crisp)
    parts.both(15, face, (51, 86, 178), (51, 86, 179), 6, 6, squash=(1, 1, 0.5), **crisp)
    parts.add(15, beak, (0, 52, 150), (0, 4, 176), 25, 7, squash=(0.9, 1, 1), **crisp)
    parts.both(16, brown, (-30, -10, 0), (40, -10, 0), 78, 66, **soft)
    parts.both(16, wing, (0, -40, -6), (arm, -64, -6), 88, 104, squash=(1, 1, 0.3), **soft)
    parts.both(18, wing, (0, -64, -6), (fore, -52, -6), 104, 84, squash=(1, 1, 0.28), **soft)
    for y, reach in ((14, 66), (-26, 60), (-64, 36), (-98, 4)):
        parts.both(20, wing, (-30, y - 20, -6), (hand + reach, y * 1.15 - 24, -6), 36, 18, squash=(1, 1, 0.4), **crisp)
    parts.both(1, brown, (0, 0, 0), (0, -thigh * 0.9, 6), 92, 50, **soft)
    parts.both(1, beak, (0, -thigh * 0.8, 4), (0, -thigh, 0), 27, 26, **crisp)
    parts.both(4, beak, (0, 0, 0), (0, -shin, 0), 26, 24, **crisp)
    parts.both(7, beak, (0, 0, 0), (0, -44, 16), 25, 26, **crisp)
    for x in (-58, 0, 58):
        parts.both(7, beak, (0, -44, 10), (x, -50, 132), 22, 17, blend_mm=8.0)
    parts.both(7, beak, (0, -44, 0), (0, -52, -66), 21, 14, blend_mm=8.0)
    return Figure(bones, tuple(parts.parts), sole_mm=22.0)


def puppet() -> Figure:
    """Return an artist's wooden puppet: turned limbs on ball joints, an egg for a head, a painted face and sash."""
    wood = Look((0.82, 0.62, 0.40), (0.66, 0.45, 0.26), "wood", 130, 0.25)
    pale = Look((0.89, 0.73, 0.52), (0.78, 0.59, 0.38), "wood", 170, 0.25)
    ball, green = Look((0.52, 0.33, 0.19), gloss=0.35), Look((0.20, 0.48, 0.34), gloss=0.2)
    ink, pink = Look((0.13, 0.09, 0.07), gloss=0.4), Look((0.86, 0.42, 0.36), gloss=0.1)
    bones = lengthened(shoulder=1.05, elbow=1.08, wrist=1.08, knee=1.04, ankle=1.04, head=0.9)
    arm, fore, thigh, shin = float(bones[18, 0]), float(bones[20, 0]), -float(bones[4, 1]), -float(bones[7, 1])
    crisp = {"blend_mm": 3.0}
    parts = Parts()
    parts.add(0, wood, (-38, -62, 0), (38, -62, 0), 94, 94, squash=(1, 0.9, 0.85), blend_mm=10.0)
    parts.add(0, wood, (0, -20, 0), (0, 14, 0), 118, 92, squash=(1, 0.5, 0.8), blend_mm=10.0)
    parts.ball(3, ball, (0, -20, 6), 74, squash=(1, 0.9, 0.9), **crisp)
    parts.add(3, wood, (0, 24, 10), (0, 96, 14), 92, 98, squash=(1, 0.6, 0.8), **crisp)
    parts.add(3, green, (0, 42, 12), (0, 60, 12), 101, 103, squash=(1, 0.3, 0.8), **crisp)
    parts.ball(6, ball, (0, 22, 4), 78, squash=(1, 0.8, 0.9), **crisp)
    parts.add(9, wood, (0, 10, 0), (0, 100, -4), 112, 140, squash=(1, 0.55, 0.74), blend_mm=10.0)
    parts.both(9, wood, (30, 118, -8), (132, 118, -10), 54, 46, blend_mm=22.0)
    parts.add(12, ball, (0, -28, -6), (0, 30, 30), 36, 34, **crisp)
    parts.add(15, pale, (0, 104, -6), (0, 8, 14), 84, 56, squash=(0.88, 1, 0.98), **crisp)
    parts.both(15, ink, (29, 76, 68), (29, 76, 69), 12, 12, squash=(0.85, 1.25, 0.6), **crisp)
    parts.both(15, pink, (42, 40, 50), (42, 40, 51), 15, 15, squash=(1, 0.8, 0.75), **crisp)
    parts.both(15, ink, (0, 20, 72), (20, 27, 66), 4, 3, **crisp)
    parts.add(15, ball, (0, 62, 76), (0, 46, 90), 9, 12, **crisp)
    parts.both(16, ball, (0, 0, 0), (4, 0, 0), 48, 48, **crisp)
    parts.both(16, wood, (52, 0, 0), (arm - 40, 0, 0), 41, 32, **crisp)
    parts.both(18, ball, (0, 0, 0), (1, 0, 0), 34, 34, **crisp)
    parts.both(18, wood, (40, 0, 0), (fore - 30, 0, 0), 37, 25, **crisp)
    parts.both(20, ball, (0, 0, 0), (1, 0, 0), 25, 25, **crisp)
    parts.both(20, pale, (26, 0, 0), (96, -4, 0), 27, 34, squash=(1, 0.5, 1), **crisp)
    parts.both(20, pale, (96, -4, 0), (150, -10, 0), 32, 18, squash=(1, 0.5, 1), blend_mm=8.0)
    parts.both(20, pale, (34, -4, 22), (84, -8, 50), 14, 10, blend_mm=8.0)
    parts.both(1, ball, (0, 0, 0), (0, -6, 0), 58, 58, **crisp)
    parts.both(1, wood, (2, -64, 0), (0, -thigh + 46, 0), 67, 44, **crisp)
    parts.both(4, ball, (0, 0, 0), (0, -1, 0), 44, 44, **crisp)
    parts.both(4, wood, (0, -54, 0), (0, -shin * 0.4, -8), 45, 51, blend_mm=14.0)
    parts.both(4, wood, (0, -shin * 0.4, -8), (0, -shin + 40, 0), 51, 31, blend_mm=14.0)
    parts.both(7, ball, (0, 0, 0), (0, -1, 0), 32, 32, **crisp)
    parts.both(7, wood, (0, -38, -18), (0, -46, 134), 36, 34, squash=(1.1, 0.7, 1), blend_mm=8.0)
    return Figure(bones, tuple(parts.parts), sole_mm=23.0)


def astronaut() -> Figure:
    """Return an astronaut: a padded white suit with orange bands, a gold visor, a pack on the back, heavy boots."""
    suit, grey = Look((0.93, 0.93, 0.91), gloss=0.06), Look((0.56, 0.58, 0.61), gloss=0.12)
    orange, visor = Look((0.93, 0.45, 0.13), gloss=0.08), Look((0.86, 0.58, 0.16), gloss=1.0)
    dark, blue = Look((0.20, 0.21, 0.24), gloss=0.3), Look((0.15, 0.33, 0.68), gloss=0.2)
    bones = lengthened(shoulder=1.15, hip=1.1, elbow=0.96, wrist=0.96, head=0.8, knee=0.92, ankle=0.9)
    arm, fore, thigh, shin = float(bones[18, 0]), float(bones[20, 0]), -float(bones[4, 1]), -float(bones[7, 1])
    soft, crisp = {"blend_mm": 18.0}, {"blend_mm": 3.0}
    parts = Parts()
    parts.add(0, suit, (0, -58, -6), (0, 30, -4), 170, 158, squash=(1, 0.7, 0.8), **soft)
    parts.add(3, grey, (0, -22, 4), (0, -8, 4), 163, 163, squash=(1, 0.25, 0.82), **crisp)
    parts.add(3, suit, (0, 10, 6), (0, 120, 10), 158, 168, squash=(1, 0.6, 0.82), **soft)
    parts.add(9, suit, (0, 10, 0), (0, 100, -6), 170, 160, squash=(1, 0.6, 0.8), **soft)
    parts.both(9, suit, (34, 140, -16), (130, 122, -14), 66, 62, **soft)
    parts.add(9, grey, (-52, 20, 132), (52, 20, 132), 46, 46, squash=(1, 1, 0.6), **crisp)
    parts.both(9, blue, (40, 34, 156), (40, 34, 158), 11, 11, **crisp)
    parts.both(9, orange, (14, 6, 158), (14, 6, 160), 9, 9, **crisp)
    parts.both(9, grey, (76, 130, -170), (76, -120, -170), 84, 84, squash=(1, 0.6, 0.8), **soft)
    parts.add(9, grey, (0, 168, -6), (0, 186, -2), 118, 112, squash=(1, 0.3, 0.95), **crisp)
    parts.ball(15, suit, (0, 76, 0), 156, squash=(0.98, 1, 1), **crisp)
    parts.ball(15, dark, (0, 76, 50), 126, squash=(1.02, 0.90, 1.0), **crisp)
    parts.ball(15, visor, (0, 76, 60), 121, squash=(1.0, 0.88, 1.02), **crisp)
    parts.both(15, grey, (148, 76, 0), (164, 76, 0), 34, 28, **crisp)
    parts.both(16, suit, (-8, -4, 0), (arm, 0, 0), 70, 58, **soft)
    parts.both(16, orange, (arm * 0.56, -2, 0), (arm * 0.66, -2, 0), 65, 64, squash=(0.4, 1, 1), **crisp)
    parts.both(18, suit, (0, 0, 0), (fore - 26, 0, 0), 58, 54, **soft)
    parts.both(18, grey, (fore - 34, 0, 0), (fore - 14, 0, 0), 54, 52, squash=(0.4, 1, 1), **crisp)
    parts.both(20, suit, (10, 0, 0), (72, -2, 0), 40, 42, squash=(1, 0.75, 1), **soft)
    for z in (-26, 2, 30):
        parts.both(20, suit, (78, -6, z), (126, -16, z), 19, 16, blend_mm=6.0)
    parts.both(20, suit, (30, -8, 30), (74, -14, 56), 20, 17, blend_mm=8.0)
    parts.both(1, suit, (14, -8, -4), (0, -thigh, 0), 104, 78, **soft)
    parts.both(1, orange, (6, -thigh * 0.62, -2), (5, -thigh * 0.7, -2), 91, 89, squash=(1, 0.4, 1), **crisp)
    parts.both(4, suit, (0, 0, 0), (0, -shin * 0.7, -6), 78, 70, **soft)
    parts.both(4, grey, (0, -shin * 0.74, -4), (0, -shin * 0.86, -2), 71, 68, squash=(1, 0.4, 1), **crisp)
    parts.both(4, suit, (0, -shin * 0.8, -4), (0, -shin, 0), 64, 56, **soft)
    parts.both(7, suit, (0, -10, -14), (2, -30, 60), 54, 50, **soft)
    parts.both(7, suit, (0, -34, -20), (4, -40, 116), 52, 50, squash=(1.1, 0.8, 1), **soft)
    parts.both(7, dark, (0, -62, -22), (4, -62, 120), 56, 56, squash=(1.1, 0.26, 1), **crisp)
    return Figure(bones, tuple(parts.parts), sole_mm=30.0)


CHARACTERS: Final[dict[str, Callable[[], Figure]]] = {
    "robot": robot,
    "owl": owl,
    "puppet": puppet,
    "astronaut": astronaut,
}
