"""What Wan's VAE takes in memory and work: its layers walked through as they run, with sizes for tensors.

c channels, t frames, h x w pixels of a layer's input; `vae_small` is its sibling.
"""

from dataclasses import dataclass

from mtvcraft_cli.device.sizes import Sizes, latent_px, latent_size, wan_levels
from mtvcraft_cli.device.tape import Coding, Span, Tape


def large_decode(sizes: Sizes, frames: int, size_px: tuple[int, int], wide: int, *, on_cpu: bool) -> Coding:
    """Wan's decoder over F latent frames, one by one; frames go to RAM as they are made."""
    w, h = latent_size(sizes, size_px)
    latent = sizes.get("z_dim", 16)
    levels = list(wan_levels(sizes, decoder=True))
    tape, works = Tape(wide, copies=on_cpu), []
    for first in [True, False, False][: min(frames, 3)]:
        before, t, rows, columns = tape.work, 1, h, w
        walk = _WanPart(tape, first)
        c = levels[0].blocks[0][0]
        now = walk.causal(latent, c, t, rows, columns)
        now = walk.middle(now, c, t, rows, columns)
        for level in levels:
            now = walk.blocks(now, level.blocks, t, rows, columns, level.resample and (level.resample, level.time))
            if level.resample:
                t, rows, columns = (2 * t if level.time and not first else t), 2 * rows, 2 * columns
        walk.end(now, levels[-1].blocks[-1][1], 3, t, rows, columns)
        works.append(tape.work - before)
    pixels = size_px[0] * size_px[1]
    frames_out = 4 * frames - 3
    around = wide * (2 * latent * frames * h * w + 3 * 4 * pixels) + (4 * 3 * frames_out * pixels if on_cpu else 0)
    return Coding(tape.peak + around, works[0] + works[-1] * (frames - 1))


def large_encode(sizes: Sizes, frames: int, size_px: tuple[int, int], wide: int, *, on_cpu: bool) -> Coding:
    """Wan's encoder over T = 4n + 1 frames: one, then four at a time."""
    levels = list(wan_levels(sizes, decoder=False))
    latent, pixels = sizes.get("z_dim", 16), size_px[0] * size_px[1]
    tape, works = Tape(wide, copies=on_cpu), []
    for part in [1, 4, 4][: min((frames - 1) // 4 + 1, 3)]:
        before, t, rows, columns = tape.work, part, size_px[1], size_px[0]
        walk = _WanPart(tape, part == 1)
        now = walk.causal(3, levels[0].blocks[0][0], t, rows, columns)
        for level in levels:
            now = walk.encode(now, level.blocks, t, rows, columns, level.resample and (level.resample, level.time))
            if level.resample:
                t = (t + 1) // 2 if level.time else t
                rows, columns = rows // 2, columns // 2
        c = levels[-1].blocks[-1][1]
        now = walk.middle(now, c, t, rows, columns)
        walk.end(now, c, 2 * latent, t, rows, columns)
        works.append(tape.work - before)
    coded = 3 * 2 * latent * ((frames - 1) // 4 + 1) * pixels // latent_px(sizes) ** 2
    return Coding(tape.peak + wide * (3 * frames * pixels + coded), works[0] + works[-1] * ((frames - 1) // 4))


@dataclass
class _WanPart:
    """Walks one part of a clip through Wan's layers; what they keep is replaced layer by layer."""

    tape: Tape
    first: bool
    layer: int = 0

    def replace(self, size: int) -> None:
        """Keep bytes for the next part, in the place of what the same layer kept of the one before."""
        if self.first:
            self.tape.kept.append(size)
        else:
            self.tape.free(self.tape.kept[self.layer])
            self.tape.kept[self.layer] = size
        self.layer += 1

    def causal(self, ins: int, outs: int, t: int, h: int, w: int, *, space: int = 1, depth: int = 3) -> int:
        """Join with what was kept, pad on all sides, convolve."""
        tape, back = self.tape, depth - 1
        kept = tape.hold(ins * (min(t, 2) if self.first else 2) * h * w)
        joined = 0 if self.first else tape.hold(ins * (t + back) * h * w)
        padded = tape.hold(ins * (t + back) * (h + 2 * space) * (w + 2 * space))
        tape.free(joined)
        edged = Span(t + back, h + 2 * space, w + 2 * space)
        made = tape.convolve(ins, outs, edged, Span(t, h, w), depth * (9 if space else 1))
        tape.free(padded)
        self.replace(kept)
        return made

    def normed(self, numbers: int) -> int:
        """An RMS norm and its activation: quotient, scaled, with its gain, then with an offset of 0."""
        tape = self.tape
        if tape.wide < 4:
            tape.free(tape.hold(2 * numbers, 4))  # float32 and its quotient
        tape.free(*[tape.hold(numbers) for _ in range(3)])
        return tape.hold(numbers)

    def residual(self, ins: int, outs: int, t: int, h: int, w: int) -> int:
        """A residual block; its input is held by who calls it."""
        tape, shortcut = self.tape, 0
        if ins != outs:
            copy = tape.hold(ins * t * h * w)
            shortcut = tape.convolve(ins, outs, Span(t, h, w), Span(t, h, w), 1)
            tape.free(copy)
        made = 0
        for c in (ins, outs):
            normed = self.normed(c * t * h * w)
            tape.free(made)
            active = tape.hold(c * t * h * w)
            tape.free(normed)
            made = self.causal(c, outs, t, h, w)
            tape.free(active)
        result = tape.hold(outs * t * h * w)
        tape.free(made, shortcut)
        return result

    def chain(self, pairs: tuple[tuple[int, int], ...], t: int, h: int, w: int) -> int:
        """Residual blocks one after the other; the input of the first stays alive beside them."""
        now = 0
        for ins, outs in pairs:
            made = self.residual(ins, outs, t, h, w)
            self.tape.free(now)
            now = made
        return now

    def middle(self, now: int, c: int, t: int, h: int, w: int) -> int:
        """Two residual blocks; the attention between them is over few pixels."""
        made = self.chain(((c, c), (c, c)), t, h, w)
        self.tape.work += 2 * t * h * w * 4 * c * c + 4 * t * (h * w) ** 2 * c
        self.tape.free(now)
        return made

    def blocks(
        self, now: int, pairs: tuple[tuple[int, int], ...], t: int, h: int, w: int, rise: tuple[int, bool] | int
    ) -> int:
        """One level of the decoder: residual blocks, then larger frames; its input stays alive till its end."""
        made = self.chain(pairs, t, h, w)
        if isinstance(rise, tuple):
            raised = self.up(rise[0], t, h, w, time=rise[1])
            self.tape.free(made)
            made = raised
        self.tape.free(now)
        return made

    def up(self, c: int, t: int, h: int, w: int, *, time: bool) -> int:
        """Twice the frames in `time` (not for the first one), twice the height and width, half the channels."""
        tape, held = self.tape, 0
        if time and self.first:
            self.replace(0)
        elif time:
            doubled = self.causal(c, 2 * c, t, h, w, space=0)
            held = tape.hold(2 * c * t * h * w)
            tape.free(doubled)
            t = 2 * t
        ordered = tape.hold(c * t * h * w)
        wide = tape.hold(c * t * h * w, 4) + tape.hold(4 * c * t * h * w, 4) if tape.wide < 4 else 0
        raised = tape.hold(4 * c * t * h * w)
        tape.free(ordered, wide)
        made = tape.convolve(c, c // 2, Span(t, 2 * h, 2 * w), Span(t, 2 * h, 2 * w), 9, flat=True)
        tape.free(raised, held)
        return made

    def encode(
        self, now: int, pairs: tuple[tuple[int, int], ...], t: int, h: int, w: int, fall: tuple[int, bool] | int
    ) -> int:
        """One level of the encoder: residual blocks, then smaller frames; nothing but a layer's input stays alive."""
        for ins, outs in pairs:
            made = self.residual(ins, outs, t, h, w)
            self.tape.free(now)
            now = made
        if not isinstance(fall, tuple):
            return now
        tape, (c, time) = self.tape, fall
        ordered = tape.hold(c * t * h * w)
        padded = tape.hold(c * t * (h + 1) * (w + 1))
        made = tape.convolve(c, c, Span(t, h + 1, w + 1), Span(t, h // 2, w // 2), 9, flat=True)
        tape.free(ordered, padded)
        if time:
            kept = tape.hold(c * (t if self.first else 1) * h * w // 4)
        if time and not self.first:
            joined, copy = (tape.hold(c * (t + 1) * h * w // 4) for _ in range(2))
            halved = tape.convolve(c, c, Span(t + 1, h // 2, w // 2), Span(t // 2, h // 2, w // 2), 3)
            tape.free(joined, copy, made)
            made = halved
        if time:
            self.replace(kept)
        tape.free(now)
        return made

    def end(self, now: int, c: int, outs: int, t: int, h: int, w: int) -> None:
        """The last norm and convolution."""
        normed = self.normed(c * t * h * w)
        self.tape.free(now)
        active = self.tape.hold(c * t * h * w)
        self.tape.free(normed)
        self.tape.free(self.causal(c, outs, t, h, w), active)
