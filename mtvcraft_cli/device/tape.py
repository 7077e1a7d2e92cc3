"""Counts what a network's layers hold and do, walked through with sizes in the place of tensors."""

from dataclasses import dataclass, field
from typing import NamedTuple

FEW = 20480
"""PyTorch on a CPU convolves one clip by way of a matrix of all products' inputs where its channels, frames and rows
multiplied are no more than this; larger ones go to oneDNN."""
ROW = 16
"""OneDNN keeps channels in rows of so many, the last one filled up."""


class Span(NamedTuple):
    """Frames, rows and columns of what a layer sees."""

    t: int
    h: int
    w: int

    def of(self, channels: int) -> int:
        """Numbers in so many channels."""
        return channels * self.t * self.h * self.w


@dataclass
class Tape:
    """Counts the bytes that are alive, the most there were at once, and the floating-point operations."""

    wide: int
    """Bytes of a number."""
    copies: bool = False
    """Whether convolutions take memory for themselves, as those of a CPU do."""
    live: int = 0
    peak: int = 0
    work: int = 0
    kept: list[int] = field(default_factory=list)
    """What each layer keeps for the next part of the clip."""

    def hold(self, numbers: int, wide: int | None = None) -> int:
        """Have so many numbers alive; gives their bytes back, for `free`."""
        size = numbers * (wide or self.wide)
        self.live += size
        self.peak = max(self.peak, self.live)
        return size

    def free(self, *sizes: int) -> None:
        """Let go of what `hold` gave."""
        self.live -= sum(sizes)

    def convolve(self, ins: int, outs: int, given: Span, made: Span, kernel: int, *, flat: bool = False) -> int:
        """One convolution; on a CPU with what it takes for itself, as measured there.

        Args:
            ins: channels in.
            outs: channels out.
            given: what it sees, padding included where that is a tensor of its own.
            made: what comes out.
            kernel: places of the kernel, 27 for 3 x 3 x 3.
            flat: whether it goes over single frames.

        Returns:
            Bytes of the output, which is held.
        """
        self.work += 2 * made.of(outs) * ins * kernel
        if not self.copies:
            return self.hold(made.of(outs))
        laid_out = self.hold(made.of(_rounded(outs))) if flat or ins * given.t * given.h > FEW else 0
        if not flat:
            self.free(self.hold(given.of(_rounded(ins)) if laid_out else made.of(ins * kernel)))
        size = self.hold(made.of(outs))
        self.free(laid_out)
        return size

    def keep(self, numbers: int) -> None:
        """Have a layer keep numbers for the next part of the clip."""
        self.kept.append(self.hold(numbers))


@dataclass(frozen=True)
class Coding:
    """What one call of a VAE takes."""

    peak_bytes: int
    """The most that is alive beside its weights, its input and output included where they are in the same memory."""
    work: int
    """Floating-point operations."""


def _rounded(channels: int) -> int:
    return -(-channels // ROW) * ROW
