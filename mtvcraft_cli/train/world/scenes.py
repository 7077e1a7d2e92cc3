"""Clips to learn from and to be measured by: a drawn character that does what a driver does, each made from a seed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32

from mtvcraft_cli.joints.skeleton import NEUTRAL_LENGTHS_MM, PARENTS, chain, focal_px
from mtvcraft_cli.shapes import Frames, JointsMm, Picture
from mtvcraft_cli.train.world.creatures import HUES, KINDS, character
from mtvcraft_cli.train.world.figure import NEUTRAL_LEG_MM, Figure, Look, Part
from mtvcraft_cli.train.world.kinematics import Number, unit
from mtvcraft_cli.train.world.motions import Motions, draw_motion
from mtvcraft_cli.train.world.place import about
from mtvcraft_cli.train.world.render import Camera, Style, dressed_motion, film
from mtvcraft_cli.train.world.stage import Panel, Stage, staged

Array = npt.NDArray[np.float32]
Pair = tuple[Number, Number]
Split = Literal["train", "human", "non-human", "mismatched"]
SPLITS: Final[tuple[Split, ...]] = ("train", "human", "non-human", "mismatched")
_KINDS: Final = ("person", *KINDS)
_HUMAN: Final = ("person", "person", "person", "doll")
_LIMBS: Final = np.asarray((4, 5, 7, 8, 18, 19, 20, 21)) - 1
"""Among the bones without the root's."""
_BODY: Final = list(PARENTS[1:])
WORLD: Final = 2
"""Counts up whenever a seed comes to give another clip: what was made or measured of earlier ones isn't right then."""
_SMALL_PX: Final = 64
"""Pictures up to so large are drawn twice as large and shrunk: a camera doesn't pick points, nor does a photo made
small. Stripes and outlines finer than a pixel would jump, and take most of what a small autoencoder can hold."""


@dataclass(frozen=True)
class Scene:
    """A clip and the truth about it."""

    frames: Frames
    """The character doing the driver's motion; the first one is the reference."""
    masks: Bool[np.ndarray, "T H W"]
    """Where the character is, without its shadow."""
    joints_mm: JointsMm
    """The driver's joints, camera space: what the tokenizer is given."""
    own_joints_mm: JointsMm
    """The character's joints in the camera space of the frames."""
    empty: Picture
    """The place without the character and its shadow."""
    rate: Fraction
    """Frames a second."""
    kind: str
    """ "person" or a name from `creatures.KINDS`."""
    matched: bool
    """Whether the driver stands in the picture where, and as, the character does."""

    @property
    def reference(self) -> Picture:
        """The picture of the character, (H, W, 3)."""
        return self.frames[0]

    @property
    def reference_mask(self) -> Bool[np.ndarray, "H W"]:
        """Where the character is in the reference."""
        return self.masks[0]


def scene(seed: int, split: Split, size_px: tuple[int, int], frames: int, motions: Motions | None = None) -> Scene:
    """Make the clip of a seed; the same arguments give the same bits, in any order.

    What is true is told by differences, so that the reference and the driver's motion since its first frame, which is
    what a model with `differential: reference` is given, fix it:

    1. The first frame is the reference: the character as it stands there, at its place and in its size.
    2. *Matched* clips: the driver stands in the same pose at the same place before the same camera. Each joint of
       the character is turned as the driver's, on bones of its own; its path is the driver's times the ratio of their
       legs.
    3. *Mismatched* clips (a third of "train", all of "mismatched"): the driver's first frame shows another pose, at
       another place and distance, than the reference; both cameras are turned alike. Each bone of the character is
       the reference's plus what the driver's has changed since its first frame, in camera axes, set to its length
       again; its path is what the driver's pelvis has moved since then, times the ratio of their legs; and its
       lowest joint rises and sinks over the floor as the driver's lowest one does. With equal first poses this is
       rule 2.

    The driver has the neutral body's size within a few per cent, as the pose path of this program gives it: size can't
    be seen in differences.

    Characters of the held-out splits have combinations of kind and main colour that "train" never has, and the draws
    of no two splits are related; unseen recorded motion is up to the caller.

    Args:
        seed: 0 or more.
        split: "human" and "non-human" are held out and matched, "mismatched" is held out, of all kinds.
        size_px: width and height.
        frames: how many, at least 1.
        motions: recorded motion, mixed with dances of our own; None for these alone.
    """
    rng = np.random.default_rng((seed, SPLITS.index(split), 20260))
    kind, figure = _drawn_character(rng, split)
    matched = split in ("human", "non-human") or (split == "train" and bool(rng.random() >= 1 / 3))
    best = _plan(rng, figure, frames, size_px, motions, matched)
    for _ in range(5):
        if best.still_mm > 90 and best.share > 0.55:
            break
        best = max(best, _plan(rng, figure, frames, size_px, motions, matched), key=lambda plan: plan.worth)
    style = _drawn_style(rng)
    stage = _drawn_stage(rng, figure, style, best.motion_mm)
    shot = film(figure, best.motion_mm, best.camera, stage, 1 + (max(size_px) <= _SMALL_PX), style)
    return Scene(shot.frames, shot.masks, best.joints_mm, shot.joints_mm, shot.empty, best.rate, kind, matched)


def follow(pose_mm: Float32[np.ndarray, "24 3"], motion_mm: JointsMm) -> JointsMm:
    """Let someone who stands in another pose do what a motion does since its first frame: rule 3 of `scene`.

    Args:
        pose_mm: (24, 3) where they begin.
        motion_mm: (T, 24, 3) in the same axes, y up; both of the neutral skeleton.

    Returns:
        (T, 24, 3); the first frame is `pose_mm`.
    """
    joints = np.empty_like(motion_mm)
    bones = _followed_bones(pose_mm, motion_mm)
    joints[:, 1:] = unit(bones) * NEUTRAL_LENGTHS_MM[1:, None]
    joints[:, 0] = pose_mm[0] + motion_mm[:, 0] - motion_mm[0, 0]
    joints = chain(joints)
    rises = motion_mm[..., 1].min(1) - motion_mm[0, :, 1].min() + pose_mm[:, 1].min()
    joints[..., 1] += (rises - joints[..., 1].min(1))[:, None]
    return joints


def _followed_bones(pose_mm: Array, motion_mm: Array) -> Array:
    """(T, 23, 3) before they are set to their lengths."""
    changed = motion_mm[:, 1:] - motion_mm[:, _BODY]
    return pose_mm[1:] - pose_mm[_BODY] + changed - changed[0]


@dataclass(frozen=True)
class _Plan:
    """A motion, a camera, and how good they are to learn from."""

    motion_mm: JointsMm
    joints_mm: JointsMm
    camera: Camera
    rate: Fraction
    still_mm: float
    """How far the joints are from where they were at first, on average."""
    share: float
    """How much of the picture's height or width the figure takes up at first."""

    @property
    def worth(self) -> float:
        return min(self.still_mm / 90, 1.0) + 2 * min(self.share / 0.55, 1.0)


def _plan(
    rng: np.random.Generator,
    figure: Figure,
    frames: int,
    size_px: tuple[int, int],
    motions: Motions | None,
    matched: bool,
) -> _Plan:
    driven, rate = draw_motion(rng, frames, motions)
    yaw = rng.normal(0, 25) if rng.random() < 0.8 else rng.uniform(-180, 180)
    driven = _facing(driven, len(driven) // 2, float(yaw))
    motion = driven if matched else follow(_other_pose(rng, driven, motions), driven)
    pitch = np.clip(rng.normal(-4, 7), -20, 14)
    rotation = about(2, float(rng.normal(0, 2))) @ about(0, float(pitch)) @ np.diag((1.0, -1.0, -1.0))
    turn = (rotation @ about(1, float(rng.normal(0, 12)))).astype(np.float32)
    camera, share = _framed(rng, figure, motion, turn, size_px)
    size = float(np.clip(rng.normal(1, 0.05), 0.88, 1.12))
    if matched:
        ratio = figure.leg_mm / NEUTRAL_LEG_MM
        seen = driven @ turn.T + camera.shift_mm / ratio
    else:
        away = 2300 * np.exp(rng.normal(0, 0.2))
        place = np.asarray((rng.normal(0, 0.2) * away, rng.normal(0.05, 0.12) * away, away))
        seen = (driven - driven[:, 0].mean(0)) @ turn.T + place
    still_mm = float(np.linalg.norm(driven - driven[0], axis=-1).mean())
    return _Plan(motion, (size * seen).astype(np.float32), camera, rate, still_mm, share)


def _facing(motion_mm: JointsMm, frame: int, yaw_deg: float) -> JointsMm:
    """Turn a motion about the upright so that at one frame it faces `yaw_deg` (0 is +z); it starts over x = z = 0."""
    at = motion_mm[frame]
    across = at[1] - at[2] + at[16] - at[17]
    turn = about(1, yaw_deg - float(np.degrees(np.arctan2(-across[2], across[0])))).astype(np.float32)
    return (motion_mm - motion_mm[0, 0] * np.asarray((1, 0, 1), np.float32)) @ turn.T


def _other_pose(rng: np.random.Generator, driven: JointsMm, motions: Motions | None) -> Array:
    """Draw an upright pose other than the motion's first, from which it can be done without limbs collapsing."""
    across = driven[0, 1] - driven[0, 2] + driven[0, 16] - driven[0, 17]
    heading = float(np.degrees(np.arctan2(-across[2], across[0])))
    rested = np.linalg.norm(driven[0, 1:] - driven[0, _BODY], axis=1)
    best, least = driven[0], np.inf
    for _ in range(6):
        for pose in draw_motion(rng, 5, motions)[0][::2]:
            turned = _facing(pose[None], 0, heading + float(rng.normal(0, 20)))[0]
            apart = np.linalg.norm((turned - turned[0]) - (driven[0] - driven[0, 0]), axis=1).mean()
            lengths = np.linalg.norm(_followed_bones(turned, driven), axis=-1) / rested
            upright = turned[0, 1] > 600 and turned[15, 1] > turned[0, 1] + 300
            strained = float(np.abs(lengths - 1)[:, _LIMBS].mean() + np.maximum(0.45 - lengths, 0).max())
            strained += 0 if apart > 70 and upright else 1
            if strained < least:
                best, least = turned, strained
    return best


def _framed(
    rng: np.random.Generator, figure: Figure, motion_mm: JointsMm, rotation: Array, size_px: tuple[int, int]
) -> tuple[Camera, float]:
    """Set the camera so that the figure fills the picture and stays inside nearly all the time.

    Returns:
        The camera, and the share of the picture's height or width that the figure takes up in the first frame.
    """
    turns, joints = dressed_motion(figure, motion_mm)
    on = [part.joint for part in figure.parts]
    rest = np.asarray([(part.start_mm, part.end_mm) for part in figure.parts], np.float32)
    thick = np.asarray([part.radii_mm for part in figure.parts], np.float32).ravel()
    ends = joints[:, on, None] + np.einsum("tpab,peb->tpea", turns[:, on], rest)
    ends = ends.reshape(len(ends), -1, 3) @ rotation.T  # (T, 2 P, 3)
    low, high = (ends - thick[:, None]).min((0, 1)), (ends + thick[:, None]).max((0, 1))
    middle = (low + high) / 2
    focal, half = focal_px(size_px), np.asarray(size_px, np.float32) / 2
    reach = (np.abs(ends[..., :2] - middle[:2]) + thick[:, None]) * focal / (0.96 * half)  # depth where it just fits
    fits = (reach.max(-1) - (ends[..., 2] - middle[2])).max(1)
    near = middle[2] - (ends[..., 2] - thick).min()
    room = float(rng.uniform(1.0, 1.22))
    away = max(float(np.quantile(fits, 0.9)) * room, float(near) + 350)
    slack = (room - 1) * half / focal * away * rng.uniform(-0.8, 0.8, 2)
    shift = np.asarray((slack[0], slack[1], away), np.float32) - middle
    depth = ends[0, :, 2] + shift[2]
    spot = focal * (ends[0, :, :2] + shift[:2]) / depth[:, None]
    wide = focal * thick / depth
    share = ((spot + wide[:, None]).max(0) - (spot - wide[:, None]).min(0)) / (2 * half)
    return Camera(rotation, shift.astype(np.float32), size_px), float(share.max())


def _drawn_character(rng: np.random.Generator, split: Split) -> tuple[str, Figure]:
    kinds: Sequence[str] = {
        "human": _HUMAN,
        "non-human": tuple(kind for kind in _KINDS if kind not in _HUMAN),
    }.get(split, (*_HUMAN, *_HUMAN, *_KINDS))
    while True:
        kind, hue = str(rng.choice(kinds)), int(rng.integers(HUES))
        if _held_out(kind, hue) == (split != "train"):
            return kind, character(rng, kind, hue)


def _held_out(kind: str, hue: int) -> bool:
    """One combination of kind and main colour in five is never trained on."""
    return (_KINDS.index(kind) + hue) % 5 == 0


def _drawn_style(rng: np.random.Generator) -> Style:
    shading: Literal["soft", "cel", "flat"] = ("soft", "soft", "soft", "cel", "flat")[int(rng.integers(5))]
    lined = rng.random() < (0.15 if shading == "soft" else 0.7)
    ink = float(rng.uniform(0, 0.25))
    return Style(shading, (ink, ink, ink) if lined else None, soft_edges=True)


def _drawn_stage(rng: np.random.Generator, figure: Figure, style: Style, motion_mm: JointsMm) -> Stage:
    """Draw a place that the figure stands out from."""
    share_plain = 0.2 if style.shading == "soft" else 0.5
    for _ in range(12):
        stage = staged(rng)
        shadow = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.1, 0.3))
        behind = float(-motion_mm[..., 2].min()) + float(rng.uniform(500, 2200))
        stage = replace(stage, shadow=shadow, wall_mm=behind)
        kind = rng.random()
        if kind < share_plain:
            tone = float(rng.uniform(0.05, 0.95))
            coloured = tuple(float(each) for each in np.clip(tone + rng.normal(0, 0.15, 3), 0, 1))
            stage = replace(stage, sheet=(1.0, 1.0, 1.0) if rng.random() < 0.3 else coloured)  # type: ignore[arg-type]
        elif kind < 0.6:
            stage = _cluttered(rng, stage)
        if _stands_out(figure, stage):
            return stage
    return stage


def _stands_out(figure: Figure, stage: Stage) -> bool:
    """Whether little of the figure's surface has nearly the colour that is behind it."""
    thick = np.asarray([sum(part.radii_mm) for part in figure.parts])
    area = thick * (thick + [np.linalg.norm(np.subtract(part.end_mm, part.start_mm)) for part in figure.parts])
    colours = np.asarray([part.look.colour for part in figure.parts])
    behind = [stage.wall.colour, stage.floor.colour] if stage.sheet is None else [stage.sheet]
    near = np.abs(colours[:, None] - np.asarray(behind)).max(-1).min(1) < 0.25
    return bool(area[near].sum() < 0.25 * area.sum())


def _cluttered(rng: np.random.Generator, stage: Stage) -> Stage:
    """Hang pictures on the wall, lay rugs, and stand boxes, balls and poles along the wall."""
    behind = stage.wall_mm
    posters = [_panel(rng, (-2200, 500), (2200, 2300), (100, 450), 0.2) for _ in range(rng.integers(2, 9))]
    rugs = [_panel(rng, (-800, -behind), (800, 800), (300, 900), 0.6) for _ in range(rng.integers(0, 3))]
    props = []
    for _ in range(int(rng.integers(1, 6))):
        thick = float(rng.uniform(50, 260))
        high = float(rng.choice((thick, rng.uniform(thick, 1800))))
        x, z = float(rng.uniform(-1800, 1800)), thick - behind
        flat = (1.0, 1.0, float(rng.uniform(0.4, 1)))
        props.append(Part(0, (x, thick * 0.9, z), (x, high, z), (thick, thick), _bright(rng), flat, 2.0))
    return replace(stage, posters=tuple(posters), rugs=tuple(rugs), props=tuple(props))


def _panel(rng: np.random.Generator, low: Pair, high: Pair, sizes: Pair, share_round: Number) -> Panel:
    (x, y), (wide, tall) = rng.uniform(low, high).tolist(), rng.uniform(*sizes, 2).tolist()
    return Panel((x, y), (wide, tall), _bright(rng), bool(rng.random() < share_round))


def _bright(rng: np.random.Generator) -> Look:
    """Draw a look of two colours of any kind."""
    first, second = (tuple(colour) for colour in rng.uniform(0.05, 0.95, (2, 3)).tolist())
    pattern = str(rng.choice(("plain", "plain", "stripes", "checks", "dots", "tiles")))
    return Look(first, second, pattern, float(rng.uniform(60, 250)))  # type: ignore[arg-type]
