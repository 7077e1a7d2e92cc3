"""What CogVideoX's VAE takes in memory and work: its layers walked through as they run, with sizes for tensors.

c channels, t frames, h x w pixels of a layer's input. Which tensors are alive together was read in diffusers' code and
is tested against the real classes.
"""

from collections.abc import Callable
from itertools import pairwise

from mtvcraft_cli.device.sizes import Sizes
from mtvcraft_cli.device.tape import LATENT_PX, Coding, Tape

TILE_PX = (360, 240)
"""Width and height above which CogVideoX's VAE works tile by tile (released code)."""
OVERLAP = (1 / 5, 1 / 6)
"""How much of a tile its neighbour repeats, in width and height."""


def small_decode(sizes: Sizes, frames: int, size_px: tuple[int, int], wide: int, *, on_cpu: bool) -> Coding:
    """CogVideoX's decoder over F latent frames: three first (two if F is even), then two at a time."""
    tiles, tiled = _tiles(size_px, frames, sizes.get("latent_channels", 16), 3, wide)
    cuts = [0, *range(min(frames, 2 + frames % 2), frames + 1, 2)]
    parts = [end - start for start, end in pairwise(cuts)]
    return _in_parts(partial_decoder(sizes), parts, tiles, tiled, wide, on_cpu=on_cpu)


def small_encode(sizes: Sizes, frames: int, size_px: tuple[int, int], wide: int, *, on_cpu: bool) -> Coding:
    """CogVideoX's encoder over T frames: eight at a time, the first part takes the remainder as well."""
    tiles, tiled = _tiles(size_px, frames, 3, 2 * sizes.get("latent_channels", 16), wide, encode=True)
    parts = [8 + frames % 8] + [8] * (frames // 8 - 1)
    return _in_parts(partial_encoder(sizes), parts, tiles, tiled, wide, on_cpu=on_cpu)


Layers = Callable[[Tape, int, int, int], None]
"""Walks a part of t frames of h x w through some layers."""


def _tiles(
    size_px: tuple[int, int], frames: int, inputs: int, outputs: int, wide: int, *, encode: bool = False
) -> tuple[list[tuple[int, int]], int]:
    """Widths and heights of the tiles, in latent pixels for a decoder; the bytes of input and output around them."""
    unit = 1 if encode else LATENT_PX
    whole = [side // unit for side in size_px]
    limit = [side // unit for side in TILE_PX]
    pixels = size_px[0] * size_px[1]
    longer = frames if encode else 4 * frames - 3
    shorter = (frames - 1) // 4 + 1 if encode else frames
    coded = pixels // LATENT_PX**2 * shorter * (outputs if encode else inputs)
    plain = pixels * longer * (inputs if encode else outputs)
    if all(side <= most for side, most in zip(whole, limit, strict=True)):
        return [(whole[0], whole[1])], wide * (coded + plain)
    steps = [int(most * (1 - share)) for most, share in zip(limit, OVERLAP, strict=True)]
    sides = [
        [min(most, side - at) for at in range(0, side, step)]
        for side, most, step in zip(whole, limit, steps, strict=True)
    ]
    tiles = [(width, height) for height in sides[1] for width in sides[0]]
    covered = sum(width * height for width, height in tiles) / (whole[0] * whole[1])
    made = coded if encode else plain
    return tiles, int(wide * (coded + plain + covered * made))


def _in_parts(
    layers: Layers, parts: list[int], tiles: list[tuple[int, int]], around: int, wide: int, *, on_cpu: bool
) -> Coding:
    """Walk part after part; each holds what the one before kept until it is done."""
    peak = work = 0
    for width, height in dict.fromkeys(tiles):
        tape, kept = Tape(wide, copies=on_cpu), 0
        works = []
        for part in parts[:2]:
            tape.kept, before = [], tape.work
            layers(tape, part, height, width)
            works.append(tape.work - before)
            tape.free(kept)
            kept = sum(tape.kept)
        peak = max(peak, tape.peak)
        work += tiles.count((width, height)) * (works[0] + works[-1] * (len(parts) - 1))
    return Coding(peak + around, work)


def _causal(tape: Tape, ins: int, outs: int, t: int, pixels: int, places: int = 27) -> int:
    """CogVideoX's convolution: in time it sees two frames back, which it keeps; one that doesn't keeps all of them."""
    if places == 1:
        tape.keep(ins * t * pixels)
        return tape.convolve(ins * t * pixels, outs * t * pixels, ins)
    joined = tape.hold(ins * (t + 2) * pixels)
    tape.keep(ins * 2 * pixels)
    made = tape.convolve(ins * (t + 2) * pixels, outs * t * pixels, ins * places)
    tape.free(joined)
    return made


def _normed(tape: Tape, c: int, t: int, pixels: int, spatial: int) -> int:
    """A group norm; in the decoder the latents, as large as the layer, scale and shift what it gives."""
    if not spatial:
        return tape.hold(c * t * pixels)
    parts, latents = tape.hold(spatial * t * pixels), tape.hold(spatial * t * pixels)
    gain = _causal(tape, spatial, c, t, pixels, 1)
    offset = _causal(tape, spatial, c, t, pixels, 1)
    numbers = c * t * pixels
    normed, product, made = tape.hold(numbers), tape.hold(numbers), tape.hold(numbers)
    tape.free(parts, latents, gain, offset, normed, product)
    return made


def _residual(tape: Tape, ins: int, outs: int, t: int, pixels: int, spatial: int) -> int:
    """A residual block; its input is held by who calls it."""
    made = 0
    for c in (ins, outs):
        normed = _normed(tape, c, t, pixels, spatial)
        tape.free(made)
        active = tape.hold(c * t * pixels)
        tape.free(normed)
        made = _causal(tape, c, outs, t, pixels)
        tape.free(active)
    shortcut = tape.convolve(ins * t * pixels, outs * t * pixels, ins) if ins != outs else 0
    result = tape.hold(outs * t * pixels)
    tape.free(made, shortcut)
    return result


def _chain(tape: Tape, pairs: list[tuple[int, int]], t: int, pixels: int, spatial: int) -> int:
    """Residual blocks one after the other; what the first one is given stays alive, held by who calls this."""
    now = 0
    for ins, outs in pairs:
        made = _residual(tape, ins, outs, t, pixels, spatial)
        tape.free(now)
        now = made
    return now


def partial_decoder(sizes: Sizes) -> Layers:
    """CogVideoX's decoder over t latent frames."""
    channels = list(sizes.get("block_out_channels", (128, 256, 256, 512)))[::-1]
    spatial, depth = sizes.get("latent_channels", 16), sizes.get("layers_per_block", 3) + 1

    def layers(tape: Tape, t: int, h: int, w: int) -> None:
        now = _causal(tape, spatial, channels[0], t, h * w)
        made = _chain(tape, [(channels[0], channels[0])] * 2, t, h * w, spatial)
        tape.free(now)
        now, before = made, channels[0]
        for index, c in enumerate(channels):
            made = _chain(tape, [(before, c), *[(c, c)] * (depth - 1)], t, h * w, spatial)
            if index < len(channels) - 1:
                raised = _up(tape, c, t, h, w, time=index < 2)
                tape.free(made)
                made = raised
                t, h, w = (2 * t - t % 2 if index < 2 else t), 2 * h, 2 * w
            tape.free(now)
            now, before = made, c
        normed = _normed(tape, before, t, h * w, spatial)
        tape.free(now)
        active = tape.hold(before * t * h * w)
        tape.free(normed)
        tape.free(_causal(tape, before, 3, t, h * w), active)

    return layers


def _up(tape: Tape, c: int, t: int, h: int, w: int, *, time: bool) -> int:
    """Twice the height and width, and in `time` twice the frames but for an odd one; then a convolution."""
    longer, pixels = (2 * t - t % 2 if time else t), 4 * h * w
    numbers = c * longer * pixels
    apart = (
        tape.hold(numbers) if time and t % 2 and t > 1 else 0
    )  # the first frame and the rest, before they are joined
    raised = tape.hold(numbers)
    if time:
        ordered = tape.hold(numbers)
        tape.free(raised)
        raised = ordered
    made = tape.convolve(numbers, numbers, 9 * c)
    tape.free(raised, apart)
    return made


def partial_encoder(sizes: Sizes) -> Layers:
    """CogVideoX's encoder over t frames."""
    channels, depth = sizes.get("block_out_channels", (128, 256, 256, 512)), sizes.get("layers_per_block", 3)

    def layers(tape: Tape, t: int, h: int, w: int) -> None:
        now, before = _causal(tape, sizes.get("in_channels", 3), channels[0], t, h * w), channels[0]
        for index, c in enumerate(channels):
            made = _chain(tape, [(before, c), *[(c, c)] * (depth - 1)], t, h * w, 0)
            if index < len(channels) - 1:
                lowered = _down(tape, c, t, h, w, time=index < 2)
                tape.free(made)
                made = lowered
                t, h, w = ((t + 1) // 2 if index < 2 else t), h // 2, w // 2
            tape.free(now)
            now, before = made, c
        made = _chain(tape, [(before, before)] * 2, t, h * w, 0)
        tape.free(now)
        normed, active = tape.hold(before * t * h * w), tape.hold(before * t * h * w)
        tape.free(normed)
        out = 2 * sizes.get("latent_channels", 16)
        tape.free(_causal(tape, before, out, t, h * w), active, made)

    return layers


def _down(tape: Tape, c: int, t: int, h: int, w: int, *, time: bool) -> int:
    """Half the height and width, and in `time` half the frames but for an odd one."""
    held = []
    if time:
        held.append(tape.hold(c * t * h * w))  # frames last, to average neighbours
        t = (t + 1) // 2
        held.append(tape.hold(c * t * h * w))
        if t % 2:
            held.append(tape.hold(c * t * h * w))
    padded = tape.hold(c * t * (h + 1) * (w + 1))
    ordered = tape.hold(c * t * (h + 1) * (w + 1))
    tape.free(padded)
    made = tape.convolve(c * t * (h + 1) * (w + 1), c * t * h * w // 4, 9 * c)
    tape.free(ordered, *held)
    return made
