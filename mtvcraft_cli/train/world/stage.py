"""Where a figure is filmed: a floor, a wall behind it, the light, and the patterns surfaces wear."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.train.world.figure import Colour, Look, Part, Point
from mtvcraft_cli.train.world.kinematics import Number

Array = npt.NDArray[np.float32]


_OAK: Final = Look((0.62, 0.50, 0.40), (0.52, 0.41, 0.32), "planks", 130.0)
_PLASTER: Final = Look((0.70, 0.75, 0.74), (0.64, 0.70, 0.70), "grain", 420.0)


@dataclass(frozen=True)
class Panel:
    """A flat thing on the wall, or on the floor: a poster, a window, a door, a rug."""

    middle_mm: tuple[Number, Number]
    """x and y on the wall, x and z on the floor."""
    half_mm: tuple[Number, Number]
    look: Look
    round: bool = False


@dataclass(frozen=True)
class Stage:
    """A floor at y = 0 and a wall behind; plain ones of one colour make a studio."""

    floor: Look = _OAK
    wall: Look = _PLASTER
    wall_mm: Number = 900.0
    """How far the wall is behind the dancer's start."""
    skirting: Colour | None = (0.90, 0.90, 0.88)
    """Colour of the board along the wall's foot; None for none."""
    light: Point = (0.55, 0.95, 0.75)
    """Towards the light, in the world's axes."""
    ambient: Number = 0.62
    key: Number = 0.72
    shadow: Number = 0.5
    """How dark the figure's shadow is, 0..1."""
    sheet: Colour | None = None
    """One colour behind the figure instead of wall and floor, as behind a drawing or a sprite; no light falls on it."""
    posters: tuple[Panel, ...] = ()
    rugs: tuple[Panel, ...] = ()
    props: tuple[Part, ...] = ()
    """Things that stand about, in the world's axes. The figure is in front of all of them."""

    def paint(self, rotation: Array, shift_mm: Array, rays: Array) -> tuple[Array, Array]:
        """Paint the empty stage as a camera sees it.

        Args:
            rotation: (3, 3) world to camera.
            shift_mm: (3,) the world's origin in camera space.
            rays: (H, W, 3) of the pixels, camera space.

        Returns:
            (H, W, 3) colours in linear light, and (H, W, 3) the points seen, in camera space, mm.
        """
        if self.sheet is not None:
            return np.broadcast_to(np.asarray(self.sheet, np.float32) ** 2, rays.shape), rays * np.float32(2e4)
        eye = -rotation.T @ shift_mm
        ray = rays @ rotation  # into the world
        with np.errstate(divide="ignore"):
            to_floor = np.where((ray[..., 1] < -1e-4) & (eye[1] > 0), -eye[1] / ray[..., 1], np.inf)
            to_wall = np.where(ray[..., 2] < -1e-4, (-self.wall_mm - eye[2]) / ray[..., 2], np.inf)
        far = np.minimum(np.minimum(to_floor, to_wall), 2e4).astype(np.float32)
        point = eye + ray * far[..., None]
        flat = point.reshape(-1, 3)
        on_floor = (to_floor < to_wall).ravel()
        colours = np.empty_like(flat)
        colours[on_floor], colours[~on_floor] = self._floor(flat[on_floor]), self._wall(flat[~on_floor])
        return colours.reshape(rays.shape), rays * far[..., None]

    def _floor(self, points: Array) -> Array:
        """Colours of (N, 3) points; where wall and floor meet, less light comes in."""
        dark = 1 - np.float32(0.3) * np.exp(-np.abs(points[:, 2] + self.wall_mm) / 200)
        return _laid(_coloured(self.floor, points[:, [0, 2]]), points[:, [0, 2]], self.rugs) * dark[:, None]

    def _wall(self, points: Array) -> Array:
        """Colours of (N, 3) points; the wall is brighter towards the lamp."""
        x, y = points[:, 0], points[:, 1]
        colours = _laid(_coloured(self.wall, points[:, :2]), points[:, :2], self.posters)
        if self.skirting is not None:
            board = np.clip((110 - y) / 6, 0, 1)[:, None]
            colours += (np.asarray(self.skirting, np.float32) ** 2 - colours) * board
            colours *= 1 - np.float32(0.35) * np.exp(-(((y - 110) / 8) ** 2))[:, None]
        glow = np.float32(0.88) + np.float32(0.22) * np.exp(-((x - 500) ** 2 + (y - 1700) ** 2) / np.float32(1300**2))
        return colours * (glow * (1 - np.float32(0.25) * np.exp(-y / 160)))[:, None]


def _laid(colours: Array, place: Array, panels: tuple[Panel, ...]) -> Array:
    """Lay panels over (N, 3) colours of (N, 2) places, later ones on top."""
    for panel in panels:
        off = np.abs(place - np.asarray(panel.middle_mm, np.float32)) / np.asarray(panel.half_mm, np.float32)
        covered = np.flatnonzero((np.hypot(*off.T) if panel.round else off.max(1)) < 1)
        colours[covered] = _coloured(panel.look, place[covered])
    return colours


def _coloured(look: Look, place: Array) -> Array:
    """Colours in linear light of (N, 2) places on a plane."""
    first, second = (np.asarray(each, np.float32) ** 2 for each in (look.colour, look.second))
    if look.pattern == "plain":
        return np.repeat(first[None], len(place), 0)
    return (
        first + (second - first) * shade_pattern(look, np.concatenate([place, np.zeros_like(place[:, :1])], 1))[:, None]
    )


def shade_pattern(look: Look, points_mm: Array) -> Array:
    """How much of a look's second colour (N, 3) points have, 0..1."""
    x, y, z = (points_mm / look.size_mm).T.astype(np.float32)
    match look.pattern:
        case "stripes":
            share = 0.5 + 4 * np.sin(2 * np.pi * y)
        case "checks":
            share = 0.5 + 4 * np.sin(np.pi * x) * np.sin(np.pi * y) * np.where(np.abs(z) < 0.2, 1, np.sign(z))
        case "dots":
            row = np.floor(y)
            share = 4 * (0.34 - np.hypot((x + 0.5 * (row % 2)) % 1 - 0.5, y % 1 - 0.5)) + 0.5
        case "grain":
            share = 0.5 + 0.6 * (_noise(x, y, z) - 0.5) + 0.4 * (_noise(3 * x, 3 * y, 3 * z) - 0.5)
        case "wood":
            rings = 6 * x + 2.2 * _noise(2 * x, 0.5 * y, 2 * z)
            share = 0.5 + 0.5 * np.sin(2 * np.pi * rings) * (0.6 + 0.4 * _noise(9 * x, y, 9 * z))
        case "feathers":  # overlapping scales, dark towards their tips
            row = np.floor(y)
            share = 4 * (np.hypot((x + 0.5 * (row % 2)) % 1 - 0.5, 1 - y % 1) - 0.72) + 0.5
        case "stars":
            column, row = np.floor(x), np.floor(y)
            middle = (
                0.2 + 0.6 * _noise(column * 3.3, row * 5.9, 0 * x),
                0.2 + 0.6 * _noise(column * 7.1, row * 2.7, 0 * x),
            )
            size = 0.11 * _noise(column * 1.7, row * 9.1, 0 * x) ** 2
            share = 1.5 - np.hypot(x % 1 - middle[0], y % 1 - middle[1]) / np.maximum(size, 1e-3)
        case "planks":
            board = np.floor(x)
            along = y / 8 + 0.37 * board
            seam = (np.abs(x % 1 - 0.5) > 0.485) | (np.abs(along % 1 - 0.5) > 0.498)
            tone = _noise(board * 7.3, np.floor(along) * 3.1, 0 * x)
            share = 0.75 * tone + 0.35 * _noise(5 * x, 0.4 * y, 0 * x) + 1.6 * seam
        case "tiles":
            seam = (np.abs(x % 1 - 0.5) > 0.475) | (np.abs(y % 1 - 0.5) > 0.475)
            share = 0.25 * _noise(np.floor(x) * 5.1, np.floor(y) * 7.7, 0 * x) + seam
        case _:
            share = 0 * x
    return np.clip(share, 0, 1).astype(np.float32)


def _noise(x: Array, y: Array, z: Array) -> Array:
    """Smooth noise of unit cells, 0..1: hashed corners, eased in between."""
    corners = [np.floor(each).astype(np.int64) for each in (x, y, z)]
    parts = [each - corner for each, corner in zip((x, y, z), corners, strict=True)]
    parts = [part * part * (3 - 2 * part) for part in parts]
    total = np.zeros(len(x))
    for step in range(8):
        bits = [step >> axis & 1 for axis in range(3)]
        cell = [corner + bit for corner, bit in zip(corners, bits, strict=True)]
        mixed = (cell[0] * 73856093 ^ cell[1] * 19349663 ^ cell[2] * 83492791) * 2654435761
        value = (mixed >> 13 & 0xFFFF) / 0xFFFF
        weight = np.ones(len(x))
        for part, bit in zip(parts, bits, strict=True):
            weight = weight * (part if bit else 1 - part)
        total += weight * value
    return total.astype(np.float32)


def staged(rng: np.random.Generator) -> Stage:
    """Draw a stage: floor, wall, how far it is behind, and the light."""

    return Stage(
        floor=_surface(rng, ("plain", "planks", "tiles", "grain"), 90, 400),
        wall=_surface(rng, ("plain", "grain", "grain", "stripes", "checks", "tiles"), 150, 700),
        wall_mm=float(rng.uniform(500, 2500)),
        skirting=None if rng.random() < 0.5 else (0.9, 0.9, 0.88),
        light=(float(rng.uniform(-1, 1)), float(rng.uniform(0.6, 1.2)), float(rng.uniform(0.3, 1))),
        ambient=float(rng.uniform(0.5, 0.75)),
        key=float(rng.uniform(0.45, 0.8)),
        shadow=float(rng.uniform(0.2, 0.6)),
    )


def _surface(rng: np.random.Generator, patterns: tuple[str, ...], low_mm: Number, high_mm: Number) -> Look:
    base = np.clip(rng.uniform(0.15, 0.9) + rng.normal(0, 0.12, 3), 0.05, 0.95)
    other = np.clip(base + rng.normal(0, 0.1, 3), 0, 1)
    first, second = (tuple(float(each) for each in colour) for colour in (base, other))
    size_mm = float(rng.uniform(low_mm, high_mm))
    return Look(first, second, str(rng.choice(patterns)), size_mm)  # type: ignore[arg-type]
