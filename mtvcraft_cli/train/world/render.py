"""Films a figure: casts rays at tapered capsules, whole clips at a time, then lights what they hit."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float32

from mtvcraft_cli.joints.skeleton import NEUTRAL_OFFSETS_MM, chain, focal_px
from mtvcraft_cli.shapes import Frames, JointsMm, Picture
from mtvcraft_cli.train.world.figure import NEUTRAL_LEG_MM, Colour, Figure, Part
from mtvcraft_cli.train.world.kinematics import Turns, forward, turns_of, unit
from mtvcraft_cli.train.world.stage import Stage, shade_pattern

Array = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
FAR_MM: Final = np.float32(1e8)
"""The depth of a pixel that shows nothing."""
_NEAR_MM: Final = 120.0
_BLOCK_RAYS: Final = 1 << 14  # the arrays of so many rays stay in a processor's cache
_LEAST_PX: Final = 1.3
_CHUNK_PIXELS: Final = 1 << 19
_LIGHT_AWAY_MM: Final = 9000.0
_SHADOW_REACH_MM: Final = 1500.0


@dataclass(frozen=True)
class Camera:
    """A pinhole camera of 55 degrees along the longer side.

    Args:
        rotation: (3, 3) turns the world (y up) into the camera's axes: x right, y down, z away.
        shift_mm: (3,) where the world's origin is for the camera.
        size_px: width and height.
    """

    rotation: Float32[np.ndarray, "3 3"]
    shift_mm: Float32[np.ndarray, "3"]
    size_px: tuple[int, int]

    def sees(self, points_mm: Array) -> Array:
        """Turn (..., 3) points of the world into the camera's axes."""
        return points_mm @ self.rotation.T + self.shift_mm

    def rays(self) -> Float32[np.ndarray, "H W 3"]:
        """Return the direction of each pixel in the camera's axes, z = 1."""
        width, height = self.size_px
        focal = focal_px(self.size_px)
        rays = np.ones((height, width, 3), np.float32)
        rays[..., 0] = (np.arange(width) + 0.5 - width / 2) / focal
        rays[..., 1] = ((np.arange(height) + 0.5 - height / 2) / focal)[:, None]
        return rays


@dataclass(frozen=True)
class Style:
    """How a film is drawn."""

    shading: Literal["soft", "cel", "flat"] = "soft"
    """"soft" is lit as things are; "cel" has two tones, lit and dark; "flat" is the bare colour."""
    outline: Colour | None = None
    """Colour of a line around the figure and along its inner edges; None for none."""
    soft_edges: bool = False
    """Whether the figure's rim is mixed with what is beside it, for a quarter of what `oversample` costs."""


@dataclass(frozen=True)
class Shot:
    """What was filmed, and the truth about it."""

    frames: Frames
    masks: Bool[np.ndarray, "T H W"]
    """Where the figure is."""
    joints_mm: JointsMm
    """The figure's own joints in camera space."""
    empty: Picture
    """The stage without the figure and its shadow."""


@dataclass(frozen=True)
class Hits:
    """What each ray met first; flat over frames, rows and columns."""

    depth: Array
    part: npt.NDArray[np.uint8]
    """Index of the part plus one; 0 where there is none."""
    normal: Array
    """(pixels, 3), pointing out; about unit length."""


def film(
    figure: Figure, motion_mm: JointsMm, camera: Camera, stage: Stage, oversample: int = 1, style: Style = Style()
) -> Shot:
    """Film a figure that does what someone else did.

    The figure takes over how each joint is turned, not where it is: it keeps its own bones, and its root moves by
    the ratio of the legs, so that its feet stay on the floor.

    Args:
        figure: who is filmed.
        motion_mm: (T, 24, 3) joints of the neutral skeleton, y up, the floor at 0.
        camera: from where; it stands still.
        stage: where, and the light.
        oversample: rays per pixel along each side; 2 gives smooth edges at four times the work.
        style: how it is drawn.

    Returns:
        The clip with its masks (half or more of a pixel's rays) and true joints.
    """
    turns, joints = dressed_motion(figure, motion_mm)
    turns, joints = camera.rotation @ turns, camera.sees(joints)
    width, height = (side * oversample for side in camera.size_px)
    lit = _LitStage.of(Camera(camera.rotation, camera.shift_mm, (width, height)), stage, joints[:, 0].mean(0))
    frames, masks = [], []
    step = max(1, _CHUNK_PIXELS // (width * height))  # what is worked on at once should fit a processor's cache
    for start in range(0, len(joints), step):
        some = slice(start, start + step)
        picture, mask = _film_some(figure, turns[some], joints[some], lit, style)
        frames.append(_shrunk(picture, oversample).round().astype(np.uint8))
        masks.append(_shrunk(mask.astype(np.float32), oversample) >= 0.5)
    empty = _shrunk(_on_screen(lit.picture.copy()).reshape(1, height, width, 3), oversample)[0].round().astype(np.uint8)
    return Shot(np.concatenate(frames), np.concatenate(masks), joints, empty)


def dressed_motion(figure: Figure, motion_mm: JointsMm) -> tuple[Turns, JointsMm]:
    """Hand a motion of the neutral skeleton over to a figure: how its joints are turned, and where they are."""
    turns = turns_of(motion_mm)
    ratio = figure.leg_mm / NEUTRAL_LEG_MM
    root = motion_mm[:, 0] * ratio
    # The legs aren't all that is between pelvis and floor: soles, feet and hips may be higher than their ratio says.
    neutral = 20.0 - float(NEUTRAL_OFFSETS_MM[[1, 10], 1].sum())
    root[:, 1] += figure.sole_mm - float(figure.offsets_mm[[1, 10], 1].sum()) - neutral * ratio
    return turns, forward(turns, root, figure.offsets_mm)


def cast(parts: tuple[Part, ...], turns: Array, joints: Array, size_px: tuple[int, int], focal: float) -> Hits:
    """Find for every ray the first part it meets, and let parts that touch flow into each other.

    Args:
        parts: what may be met; those hardly wider than a pixel are left out.
        turns: (T, 24, 3, 3) of the joints into camera space.
        joints: (T, 24, 3) in camera space, mm.
        size_px: width and height.
        focal: in pixels.
    """
    frames, (width, height) = len(joints), size_px
    hits = Hits(
        np.full(frames * height * width, FAR_MM, np.float32),
        np.zeros(frames * height * width, np.uint8),
        np.zeros((frames * height * width, 3), np.float32),
    )
    aim = _aim(parts, turns, joints, size_px, focal) if parts else None
    if aim is None or not len(aim.part):
        return hits
    place, depth, normal, part = _meet(parts, aim, size_px, focal)
    for index in np.unique(part).tolist():
        some = slice(*np.searchsorted(part, (index, index + 1)))
        _merge(parts[index], index + 1, place[some], depth[some], normal[some], hits)
    return hits


@dataclass(frozen=True)
class _Aim:
    """Which part is looked for in which frame and where: K pairs of them, part after part."""

    part: Index
    frame: Index
    low: Index
    """(K, 2) the left and upper pixel of the box around the part."""
    size: Index
    """(K, 2) columns and rows of the box; at least 1."""
    axes: Array
    """(K, 3, 3) turns camera space into the part's own axes."""
    start: Array
    """(K, 3) the part's first end, in its own axes as seen from the camera."""
    depth: Array
    """(K,) of the part's middle."""


def _aim(parts: tuple[Part, ...], turns: Array, joints: Array, size_px: tuple[int, int], focal: float) -> _Aim:
    on = [part.joint for part in parts]
    turn, joint = turns[:, on].swapaxes(0, 1), joints[:, on].swapaxes(0, 1)  # (P, T, 3, 3), (P, T, 3)
    rest = np.asarray([(part.start_mm, part.end_mm) for part in parts], np.float32)
    ends = joint[:, :, None] + np.einsum("ptab,peb->ptea", turn, rest)  # (P, T, 2, 3)
    near = np.maximum(ends[..., 2:], _NEAR_MM)
    squash = np.asarray([part.squash for part in parts], np.float32)[:, None, None]
    radii = np.asarray([part.radii_mm for part in parts], np.float32)[:, None, :, None]
    reach = np.linalg.norm(turn * squash, axis=-1)[:, :, None] * radii  # (P, T, 2, 3): of the end's ball in x, y, z
    slant = ends[..., :2] / near
    spread = focal * (reach[..., :2] + np.abs(slant) * reach[..., 2:]) / np.maximum(near - reach[..., 2:], 60.0)
    middle = focal * slant + np.asarray((size_px[0] / 2, size_px[1] / 2), np.float32)
    low = np.clip(np.floor((middle - spread).min(2)), 0, size_px).astype(np.intp)  # (P, T, 2)
    size = np.clip(np.ceil((middle + spread).max(2)), 0, size_px).astype(np.intp) - low
    seen = (size.min(-1) > 0) & (ends[..., 2].min(-1) > _NEAR_MM) & (2 * spread.max((2, 3)) > _LEAST_PX)
    part, frame = np.nonzero(seen)
    axes = _own_axes(parts)[0][part] @ turn[seen].swapaxes(1, 2)
    start = np.einsum("kab,kb->ka", axes, ends[seen][:, 0])
    return _Aim(part, frame, low[seen], size[seen], axes, start, ends[seen][..., 2].mean(1))


def _meet(
    parts: tuple[Part, ...], aim: _Aim, size_px: tuple[int, int], focal: float
) -> tuple[Index, Array, Array, Index]:
    """Cast a ray through every pixel of every box.

    Returns:
        (N,) the pixels where something was met, counted over all frames, their depth, (N, 3) unit normals and (N,)
        the part, in ascending order.
    """
    lengths = _own_axes(parts)[1]
    radii = np.asarray([part.radii_mm for part in parts], np.float32)
    taper = (radii[:, 0] - radii[:, 1]) / np.maximum(lengths, 1e-3)
    if (abs(taper) >= 1).any():
        raise ValueError(f"one end holds the other: {parts[int(abs(taper).argmax())]}")
    shape = np.stack([taper, radii[:, 0], lengths])[:, aim.part]
    ends = np.cumsum(aim.size.prod(1))
    cuts = np.unique(np.searchsorted(ends, np.arange(0, ends[-1], _BLOCK_RAYS)))
    found = [
        _meet_some(aim, shape, slice(*pairs), size_px, focal) for pairs in pairwise((*cuts.tolist(), len(aim.part)))
    ]
    place, depth, normal, pair = (np.concatenate(each) for each in zip(*found, strict=True))
    return place, depth, normal, aim.part[pair]


def _meet_some(
    aim: _Aim, shape: Array, pairs: slice, size_px: tuple[int, int], focal: float
) -> tuple[Index, Array, Array, Index]:
    """Cast the rays of some pairs.

    A ray meets a row of balls, of centres a + s n and radii r0 - k s, first where the depth t(s) is least. Without
    ends that is a cone: a quadratic. As t(s) is convex, clamping that s to the two ends gives the ball that is met.
    In a part's own axes the balls are round, and the second axis runs from end to end.
    """
    (width, height), (columns, rows) = size_px, aim.size[pairs].T
    left, upper = aim.low[pairs].T
    # One line per row of a box, then one entry per pixel: what is the same along a line is computed once for it.
    line = np.repeat(np.arange(len(rows)), rows)
    row = np.arange(len(line)) - np.repeat(np.cumsum(rows) - rows - upper, rows)
    span = columns[line]
    pixel = np.repeat(left[line] - np.cumsum(span) + span, span) + np.arange(span.sum())

    v = ((row + (0.5 - height / 2)) / focal).astype(np.float32)
    u = ((pixel + (0.5 - width / 2)) / focal).astype(np.float32)
    axes = aim.axes[pairs][line]
    along = axes[..., 0].T
    across = (axes[..., 1] * v[:, None] + axes[..., 2]).T
    lines = np.concatenate(
        [along, across, aim.start[pairs][line].T, aim.depth[pairs][line][None], shape[:, pairs][:, line]]
    )
    ax, ay, az, bx, by, bz, sx, sy, sz, depth0, k, r0, length = np.repeat(lines, span, axis=1)
    ex, ey, ez = ax * u + bx, ay * u + by, az * u + bz
    qx, qy, qz = ex * depth0 - sx, ey * depth0 - sy, ez * depth0 - sz
    steep = 1 / np.sqrt(1 - k * k)
    slope, rho = k * steep, r0 * steep
    across2, cross, apart2 = ex * ex + ez * ez, qx * ex + qz * ez, qx * qx + qz * qz
    radial = rho - slope * qy
    a2 = across2 - (slope * ey) ** 2
    b = cross + slope * ey * radial
    t = -(b + np.sqrt(np.maximum(b * b - a2 * (apart2 - radial * radial), 0))) / np.maximum(a2, 1e-6)
    y = qy + t * ey
    s = np.clip(y - slope * (rho - slope * y), 0, length)
    r = r0 - k * s
    qy -= s
    e2, b = across2 + ey * ey, cross + qy * ey
    disc = b * b - e2 * (apart2 + qy * qy - r * r)

    met = np.flatnonzero(disc > 0)
    t = -(b[met] + np.sqrt(disc[met])) / e2[met]
    own = np.stack([(q[met] + t * e[met]) / r[met] for q, e in ((qx, ex), (qy, ey), (qz, ez))], 1)
    of_line = np.repeat(np.arange(len(line)), span)[met]
    pair = line[of_line] + pairs.start
    normal = np.einsum("na,nab->nb", own, aim.axes[pair])
    normal /= np.sqrt(np.einsum("na,na->n", normal, normal))[:, None]
    place = (aim.frame[pair] * height + row[of_line]) * width + pixel[met]
    return place, depth0[met] + t, normal, pair


def _merge(part: Part, number: int, place: Index, depth: Array, normal: Array, hits: Hits) -> None:
    """Merge what was met of one part into `hits`: a polynomial smooth minimum along each ray."""
    blend = np.float32(part.blend_mm)
    before = hits.depth[place]
    front = np.flatnonzero(before > depth - blend)
    place, depth, before = place[front], depth[front], before[front]
    share = np.minimum((before - depth) / (2 * blend) + np.float32(0.5), 1)
    mixed = before + (depth - before) * share - blend * share * (1 - share)
    hits.depth[place] = np.where(before < FAR_MM, mixed, depth)
    old = hits.normal.take(place, axis=0)
    old += (normal.take(front, axis=0) - old) * share[:, None]
    hits.normal[place] = old
    hits.part[place[share >= 0.5]] = number


@lru_cache(maxsize=64)
def _own_axes(parts: tuple[Part, ...]) -> tuple[Array, Array]:
    """Return (P, 3, 3) from joints' axes to the parts', squash undone, and (P,) the lengths between the ends there."""
    squash = np.asarray([part.squash for part in parts], np.float32)
    ends = np.asarray([(part.start_mm, part.end_mm) for part in parts], np.float32)
    along = (ends[:, 1] - ends[:, 0]) / squash
    lengths = np.sqrt((along * along).sum(1))
    balls = lengths < 1e-3
    second = along / np.maximum(lengths, np.float32(1e-3))[:, None]
    second[balls] = (0, 1, 0)
    first = np.cross(second, np.eye(3, dtype=np.float32)[np.abs(second).argmin(1)])
    first /= np.sqrt((first * first).sum(1))[:, None]
    axes = np.stack([first, second, np.cross(first, second)], 1)
    axes[balls] = np.eye(3, dtype=np.float32)
    return (axes / squash[:, None]).astype(np.float32), np.where(balls, 0, lengths).astype(np.float32)


@dataclass(frozen=True)
class _LitStage:
    """What stays the same through a shot: the empty stage, and where its points lie for the light."""

    camera: Camera
    stage: Stage
    rays: Array
    """(H * W, 3)."""
    picture: Array
    """(H * W, 3), linear light."""
    lamp: "_Lamp"
    shaded_by: Index
    """(H * W,) the pixel of the lamp's picture that each point falls on."""

    @classmethod
    def of(cls, camera: Camera, stage: Stage, middle: Array) -> "_LitStage":
        rays = camera.rays()
        picture, ground = stage.paint(camera.rotation, camera.shift_mm, rays)
        to_light = camera.rotation @ unit(np.asarray(stage.light, np.float32))
        if stage.props:
            picture, ground = _with_props(camera, stage, picture, ground, to_light)
        lamp = _Lamp.over(middle, to_light, camera.rotation[:, 1], max(camera.size_px) // 2)
        return cls(camera, stage, rays.reshape(-1, 3), picture.reshape(-1, 3), lamp, lamp.place(ground.reshape(-1, 3)))


def _with_props(camera: Camera, stage: Stage, picture: Array, ground: Array, to_light: Array) -> tuple[Array, Array]:
    """Put the stage's props into the empty picture: colours (H, W, 3), and the points that are seen."""
    turns = np.broadcast_to(camera.rotation, (1, 24, 3, 3))
    joints = np.broadcast_to(camera.shift_mm, (1, 24, 3))
    hits = cast(stage.props, turns, joints, camera.size_px, focal_px(camera.size_px))
    at = np.flatnonzero(hits.depth < ground[..., 2].ravel())
    if not len(at):
        return picture, ground
    picture, ground = picture.copy(), ground.copy()
    point = camera.rays().reshape(-1, 3)[at] * hits.depth[at][:, None]
    figure = Figure(np.zeros((24, 3), np.float32), stage.props)
    colour = _albedo(figure, hits.part[at] - 1, point, np.zeros_like(at), turns, joints)
    normal = unit(hits.normal[at])
    light = stage.ambient * (0.7 + 0.3 * (normal @ camera.rotation[:, 1])) + stage.key * np.clip(
        normal @ to_light, 0, 1
    )
    picture.reshape(-1, 3)[at] = colour * light[:, None]
    ground.reshape(-1, 3)[at] = point
    return picture, ground


def _film_some(
    figure: Figure, turns: Array, joints: Array, lit: _LitStage, style: Style
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Film some frames: (T, H, W, 3) on a scale of 0..255, and the mask."""
    frames, (width, height) = len(joints), lit.camera.size_px
    hits = cast(figure.parts, turns, joints, (width, height), focal_px((width, height)))
    falls, soft = lit.stage.shadow > 0 and lit.stage.sheet is None, style.shading == "soft"
    # What the light meets, (T, S, S), if anything asks for it.
    shadows = lit.lamp.depths(figure.parts, turns, joints) if falls or soft else np.empty((0, 1, 1), np.float32)
    out = np.empty((frames, height * width, 3), np.float32)
    if falls:
        dark = lit.stage.shadow * _blurred(shadows < FAR_MM, lit.lamp.softness).reshape(frames, -1)
        np.multiply(lit.picture, np.take(1 - dark, lit.shaded_by, axis=1)[..., None], out=out)
    else:
        out[:] = lit.picture

    at = np.flatnonzero(hits.part)
    flat = out.reshape(-1, 3)
    flat[at] = (
        _lit(figure, turns, joints, lit, hits, shadows, at)
        if soft
        else _drawn(figure, turns, joints, lit, hits, at, style)
    )
    mask = (hits.part > 0).reshape(frames, height, width)
    if style.outline is not None:
        edge = _edges(hits.depth.reshape(mask.shape), mask, max(1, round(max(width, height) / 160)))
        flat[edge] = np.asarray(style.outline, np.float32) ** 2
    picture = _on_screen(out).reshape(frames, height, width, 3)
    if style.soft_edges:
        _soften(picture, mask)
    return picture, mask


def _on_screen(light: Array) -> Array:
    """Linear light to a screen's 0..255, roughly: a gamma of 2. Works in place."""
    np.sqrt(np.clip(light, 0, 1, out=light), out=light)
    light *= 255
    return light


def _edges(depth: Array, mask: npt.NDArray[np.bool_], width_px: int) -> Index:
    """Which pixels of the figure have something much farther away beside them, counted over all frames."""
    deep = np.pad(np.where(mask, depth, FAR_MM), ((0, 0), (width_px, width_px), (width_px, width_px)), "edge")
    rows, columns = depth.shape[1:]
    far = np.zeros_like(mask)
    for dy, dx in ((0, width_px), (2 * width_px, width_px), (width_px, 0), (width_px, 2 * width_px)):
        far |= deep[:, dy : dy + rows, dx : dx + columns] > depth + 90
    return np.flatnonzero(far & mask)


def _soften(picture: Array, mask: npt.NDArray[np.bool_]) -> None:
    """Mix pixels on both sides of the figure's rim with their four neighbours, in place."""
    rim = np.zeros_like(mask)
    across, down = mask[:, :, 1:] != mask[:, :, :-1], mask[:, 1:] != mask[:, :-1]
    rim[:, :, 1:] |= across
    rim[:, :, :-1] |= across
    rim[:, 1:] |= down
    rim[:, :-1] |= down
    rim[:, (0, -1)] = rim[:, :, (0, -1)] = False
    flat, at = picture.reshape(-1, 3), np.flatnonzero(rim)
    mixed = 4 * flat.take(at, axis=0)
    for step in (-1, 1, -mask.shape[2], mask.shape[2]):
        mixed += flat.take(at + step, axis=0)
    flat[at] = mixed / 8


def _drawn(figure: Figure, turns: Array, joints: Array, lit: _LitStage, hits: Hits, at: Index, style: Style) -> Array:
    """Colours of the pixels `at` as a draughtsman fills them, (N, 3) in linear light."""
    frame, pixel = np.divmod(at, len(lit.rays))
    part = hits.part[at] - 1
    colour = _albedo(figure, part, lit.rays[pixel] * hits.depth[at][:, None], frame, turns, joints)
    if style.shading == "cel":
        colour *= np.where(hits.normal[at] @ lit.lamp.to_light > 0.05, np.float32(1), np.float32(0.55))[:, None]
    return colour


def _lit(
    figure: Figure,
    turns: Array,
    joints: Array,
    lit: _LitStage,
    hits: Hits,
    shadows: Array,
    at: Index,
) -> Array:
    """Colours of the pixels `at`, (N, 3) in linear light: sky from above, the lamp, a highlight, a bright edge."""
    stage, up, to_light = lit.stage, lit.camera.rotation[:, 1], lit.lamp.to_light
    frame, pixel = np.divmod(at, len(lit.rays))
    part, ray = hits.part[at] - 1, lit.rays[pixel]
    normal = hits.normal[at]
    normal /= np.maximum(np.sqrt(np.einsum("na,na->n", normal, normal)), 1e-3)[:, None]
    point = ray * hits.depth[at][:, None]
    bright = np.clip((normal @ to_light + 0.25) / 1.25, 0, 1)
    bright *= 1 - lit.lamp.hidden(shadows, frame, point + 12 * normal)
    sky = 0.62 + 0.38 * (normal @ up)
    view = -ray / np.sqrt(np.einsum("na,na->n", ray, ray))[:, None]
    half = view + to_light
    half /= np.sqrt(np.einsum("na,na->n", half, half))[:, None]
    gloss = np.asarray([each.look.gloss for each in figure.parts], np.float32)[part]
    highlight = np.clip(np.einsum("na,na->n", normal, half), 0, 1)
    for _ in range(4):
        highlight *= highlight  # to the 16th
    edge = 1 - np.clip(np.einsum("na,na->n", normal, view), 0, 1)
    light = sky * (stage.ambient * _hollows(hits, len(joints), lit.camera.size_px)[at] + 0.18 * edge * edge * edge)
    light += stage.key * bright
    colour = _albedo(figure, part, point, frame, turns, joints)
    return colour * light[:, None] + (gloss * highlight * bright)[:, None]


def _albedo(
    figure: Figure, part: npt.NDArray[np.integer], point: Array, frame: Index, turns: Array, joints: Array
) -> Array:
    """The surface's own colour, in linear light; patterns lie on the body in T-pose, so they move with it."""
    looks = [each.look for each in figure.parts]
    colour = np.asarray([look.colour for look in looks], np.float32)[part] ** 2
    patterned = np.asarray([look.pattern != "plain" for look in looks])[part]
    chosen = np.flatnonzero(patterned)
    if len(chosen):
        joint = np.asarray([each.joint for each in figure.parts])[part[chosen]]
        offset = point[chosen] - joints[frame[chosen], joint]
        resting = np.einsum("na,nab->nb", offset, turns[frame[chosen], joint]) + chain(figure.offsets_mm)[joint]
        for look in {look for look in looks if look.pattern != "plain"}:
            same = np.flatnonzero(np.asarray([each == look for each in looks])[part[chosen]])
            second = shade_pattern(look, resting[same])[:, None]
            first, other = (np.asarray(each, np.float32) ** 2 for each in (look.colour, look.second))
            colour[chosen[same]] = first + (other - first) * second
    return colour


def _hollows(hits: Hits, frames: int, size_px: tuple[int, int]) -> Array:
    """Less light from the sky where the neighbourhood is nearer to the camera (screen-space occlusion)."""
    width, height = size_px
    inside = (hits.part > 0).reshape(frames, height, width)
    depth = np.where(inside, hits.depth.reshape(inside.shape), 0)
    doublings = max(1, round(float(np.log2(max(size_px) / 32))))
    around = _blurred(depth, doublings) / np.maximum(_blurred(inside, doublings), 1e-3)
    return 1 - np.float32(0.55) * np.clip((depth - around).ravel() / 45, 0, 1)


@dataclass(frozen=True)
class _Lamp:
    """A far camera where the light is, for shadows."""

    rotation: Array
    """(3, 3) the filming camera's axes to the lamp's."""
    shift: Array
    side_px: int

    @classmethod
    def over(cls, middle: Array, to_light: Array, up: Array, side_px: int) -> "_Lamp":
        away = -to_light
        right = unit(np.cross(away, up))
        rotation = np.stack([right, np.cross(away, right), away]).astype(np.float32)
        return cls(rotation, np.asarray((0, 0, _LIGHT_AWAY_MM), np.float32) - rotation @ middle, side_px)

    @property
    def to_light(self) -> Array:
        return -self.rotation[2]

    @property
    def focal(self) -> float:
        return self.side_px / 2 * _LIGHT_AWAY_MM / _SHADOW_REACH_MM

    @property
    def softness(self) -> int:
        """How wide a shadow's rim is, in doublings of a pixel."""
        return round(float(np.log2(self.side_px / 20)))

    def depths(self, parts: tuple[Part, ...], turns: Array, joints: Array) -> Array:
        """How far the light comes, (T, S, S); small parts throw no shadow of note."""
        large = tuple(part for part in parts if max(part.radii_mm) > 22)
        size = (self.side_px, self.side_px)
        hits = cast(large, self.rotation @ turns, joints @ self.rotation.T + self.shift, size, self.focal)
        return hits.depth.reshape(-1, *size)

    def place(self, points: Array) -> Index:
        """Which pixel of the lamp's picture (N, 3) points fall on; those outside fall on its (empty) rim."""
        seen = points @ self.rotation.T + self.shift
        spot = self.focal * seen[:, :2] / np.maximum(seen[:, 2:], 1) + self.side_px / 2
        column, row = np.clip(spot, 0, self.side_px - 1).astype(np.intp).T
        return row * self.side_px + column

    def hidden(self, depths: Array, frame: Index, points: Array) -> Array:
        """1 where (N, 3) points of the figure lie in its own shadow, 0 where they are lit."""
        seen = points @ self.rotation.T + self.shift
        spot = self.focal * seen[:, :2] / seen[:, 2:] + self.side_px / 2 - 0.5
        dark = np.zeros(len(points), np.float32)
        base = np.floor(spot).astype(np.intp)
        part = (spot - base).astype(np.float32)
        for dx in (0, 1):
            for dy in (0, 1):
                column, row = (
                    np.clip(base[:, 0] + dx, 0, self.side_px - 1),
                    np.clip(base[:, 1] + dy, 0, self.side_px - 1),
                )
                weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
                dark += weight * (depths[frame, row, column] < seen[:, 2] - 30)
        return dark


def _blurred(pictures: npt.NDArray[np.generic], doublings: int) -> Array:
    """Mean of (T, H, W) over squares of 2**doublings pixels: shifted sums, each twice as wide; the rims wrap."""
    out = pictures.astype(np.float32)
    for step in range(doublings):
        for axis in (2, 1):
            out = out + np.roll(out, (-1) ** step * 2**step, axis)
    return out / 4**doublings


def _shrunk(pictures: Array, factor: int) -> Array:
    """Mean over blocks of factor x factor pixels, (T, H, W, ...)."""
    frames, height, width, *rest = pictures.shape
    if factor == 1:
        return pictures
    blocks = pictures.reshape(frames, height // factor, factor, width // factor, factor, *rest)
    return blocks.mean((2, 4))
