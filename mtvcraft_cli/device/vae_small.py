"""What CogVideoX's VAE takes in memory and work: its layers walked through as they run, with sizes for tensors.

c channels, t frames, h x w pixels of a layer's input. Which tensors are alive together was read in diffusers' code and
is tested against the real classes.
"""

from collections.abc import Callable
from itertools import pairwise

from mtvcraft_cli.device.sizes import Sizes, latent_px
from mtvcraft_cli.device.tape import Coding, Span, Tape

TILE_PX = (360, 240)
"""Width and height above which CogVideoX's VAE works tile by tile (released code)."""
OVERLAP = (1 / 5, 1 / 6)
"""How much of a tile its neighbour repeats, in width and height."""


def small_decode(sizes: Sizes, frames: int, size_px: tuple[int, int], wide: int, *, on_cpu: bool) -> Coding:
    """CogVideoX's decoder over F latent frames: three first (two if F is even), then two at a time."""
    tiles, tiled = _tiles(size_px, latent_px(sizes), frames, sizes.get("latent_channels", 16), 3, wide)
    cuts = [0, *range(min(frames, 2 + frames % 2), frames + 1, 2)]
    parts = [end - start for start, end in pairwise(cuts)]
    return _in_parts(partial_decoder(sizes), parts, tiles, tiled, wide, on_cpu=on_cpu)


def small_encode(sizes: Sizes, frames: int, size_px: tuple[int, int], wide: int, *, on_cpu: bool) -> Coding:
    """CogVideoX's encoder over T frames: eight at a time, the first part takes the remainder as well."""
    tiles, tiled = _tiles(size_px, latent_px(sizes), frames, 3, 2 * sizes.get("latent_channels", 16), wide, encode=True)
    parts = [8 + frames % 8] + [8] * (frames // 8 - 1)
    return _in_parts(partial_encoder(sizes), parts, tiles, tiled, wide, on_cpu=on_cpu)


Layers = Callable[[Tape, Span], None]
"""Walks a part of a clip through some layers."""


def _tiles(
    size_px: tuple[int, int], px: int, frames: int, inputs: int, outputs: int, wide: int, *, encode: bool = False
) -> tuple[list[tuple[int, int]], int]:
    """Widths and heights of the tiles, for a decoder in latent pixels, which are `px` wide; the bytes around them."""
    unit = 1 if encode else px
    whole = [side // unit for side in size_px]
    limit = [side // unit for side in TILE_PX]
    pixels = size_px[0] * size_px[1]
    longer = frames if encode else 4 * frames - 3
    shorter = (frames - 1) // 4 + 1 if encode else frames
    coded = pixels // px**2 * shorter * (outputs if encode else inputs)
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
            layers(tape, Span(part, height, width))
            works.append(tape.work - before)
            tape.free(kept)
            kept = sum(tape.kept)
        peak = max(peak, tape.peak)
        work += tiles.count((width, height)) * (works[0] + works[-1] * (len(parts) - 1))
    return Coding(peak + around, work)


def _causal(tape: Tape, ins: int, outs: int, span: Span, kernel: int = 27) -> int:
    """CogVideoX's convolution: in time it sees two frames back, which it keeps; one that doesn't keeps all of them."""
    if kernel == 1:
        tape.keep(span.of(ins))
        return tape.convolve(ins, outs, span, span, kernel)
    longer = span._replace(t=span.t + 2)
    joined = tape.hold(longer.of(ins))
    tape.keep(span._replace(t=2).of(ins))
    made = tape.convolve(ins, outs, longer, span, kernel)
    tape.free(joined)
    return made


def _normed(tape: Tape, c: int, span: Span, spatial: int) -> int:
    """A group norm; in the decoder the latents, as large as the layer, scale and shift what it gives."""
    if not spatial:
        return tape.hold(span.of(c))
    parts, latents = tape.hold(span.of(spatial)), tape.hold(span.of(spatial))
    gain = _causal(tape, spatial, c, span, 1)
    offset = _causal(tape, spatial, c, span, 1)
    normed, product, made = (tape.hold(span.of(c)) for _ in range(3))
    tape.free(parts, latents, gain, offset, normed, product)
    return made


def _residual(tape: Tape, ins: int, outs: int, span: Span, spatial: int) -> int:
    """A residual block; its input is held by who calls it."""
    made = 0
    for c in (ins, outs):
        normed = _normed(tape, c, span, spatial)
        tape.free(made)
        active = tape.hold(span.of(c))
        tape.free(normed)
        made = _causal(tape, c, outs, span)
        tape.free(active)
    shortcut = tape.convolve(ins, outs, span, span, 1) if ins != outs else 0
    result = tape.hold(span.of(outs))
    tape.free(made, shortcut)
    return result


def _chain(tape: Tape, pairs: list[tuple[int, int]], span: Span, spatial: int) -> int:
    """Residual blocks one after the other; what the first one is given stays alive, held by who calls this."""
    now = 0
    for ins, outs in pairs:
        made = _residual(tape, ins, outs, span, spatial)
        tape.free(now)
        now = made
    return now


def partial_decoder(sizes: Sizes) -> Layers:
    """CogVideoX's decoder over t latent frames."""
    channels = list(sizes.get("block_out_channels", (128, 256, 256, 512)))[::-1]
    spatial, depth = sizes.get("latent_channels", 16), sizes.get("layers_per_block", 3) + 1

    def layers(tape: Tape, span: Span) -> None:
        now = _causal(tape, spatial, channels[0], span)
        made = _chain(tape, [(channels[0], channels[0])] * 2, span, spatial)
        tape.free(now)
        now, before = made, channels[0]
        for index, c in enumerate(channels):
            made = _chain(tape, [(before, c), *[(c, c)] * (depth - 1)], span, spatial)
            if index < len(channels) - 1:
                raised = _up(tape, c, span, time=index < 2)
                tape.free(made)
                made = raised
                span = raised_span(span, time=index < 2)
            tape.free(now)
            now, before = made, c
        normed = _normed(tape, before, span, spatial)
        tape.free(now)
        active = tape.hold(span.of(before))
        tape.free(normed)
        tape.free(_causal(tape, before, 3, span), active)

    return layers


def raised_span(span: Span, *, time: bool) -> Span:
    """Twice the height and width, and in `time` twice the frames but for an odd one."""
    return Span(2 * span.t - span.t % 2 if time else span.t, 2 * span.h, 2 * span.w)


def _up(tape: Tape, c: int, span: Span, *, time: bool) -> int:
    """Larger frames, more of them in `time`; then a convolution."""
    larger = raised_span(span, time=time)
    # The first of an odd number of frames and the rest are raised apart, then joined.
    apart = tape.hold(larger.of(c)) if time and span.t % 2 and span.t > 1 else 0
    raised = tape.hold(larger.of(c))
    if time:
        ordered = tape.hold(larger.of(c))
        tape.free(raised)
        raised = ordered
    made = tape.convolve(c, c, larger, larger, 9, flat=True)
    tape.free(raised, apart)
    return made


def partial_encoder(sizes: Sizes) -> Layers:
    """CogVideoX's encoder over t frames."""
    channels, depth = sizes.get("block_out_channels", (128, 256, 256, 512)), sizes.get("layers_per_block", 3)

    def layers(tape: Tape, span: Span) -> None:
        now, before = _causal(tape, sizes.get("in_channels", 3), channels[0], span), channels[0]
        for index, c in enumerate(channels):
            made = _chain(tape, [(before, c), *[(c, c)] * (depth - 1)], span, 0)
            if index < len(channels) - 1:
                lowered = _down(tape, c, span, time=index < 2)
                tape.free(made)
                made = lowered
                span = Span((span.t + 1) // 2 if index < 2 else span.t, span.h // 2, span.w // 2)
            tape.free(now)
            now, before = made, c
        made = _chain(tape, [(before, before)] * 2, span, 0)
        tape.free(now)
        normed, active = tape.hold(span.of(before)), tape.hold(span.of(before))
        tape.free(normed)
        out = 2 * sizes.get("latent_channels", 16)
        tape.free(_causal(tape, before, out, span), active, made)

    return layers


def _down(tape: Tape, c: int, span: Span, *, time: bool) -> int:
    """Half the height and width, and in `time` half the frames but for an odd one."""
    pooled = joined = 0
    if time:
        pooled = tape.hold(span._replace(t=span.t // 2).of(c))
        odd, span = span.t % 2, span._replace(t=(span.t + 1) // 2)
        joined = tape.hold(span.of(c)) if odd else 0  # the first frame before the averages of the others
    edged = Span(span.t, span.h + 1, span.w + 1)
    padded = tape.hold(edged.of(c))
    tape.free(joined)
    made = tape.convolve(c, c, edged, Span(span.t, span.h // 2, span.w // 2), 9, flat=True)
    tape.free(padded, pooled)
    return made
