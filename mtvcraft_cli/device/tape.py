"""Counts what a network's layers hold and do, walked through with sizes in the place of tensors."""

from dataclasses import dataclass, field

LATENT_PX = 8
"""Pixels of a side that become one latent pixel, in both families."""


@dataclass
class Tape:
    """Counts the bytes that are alive, the most there were at once, and the floating-point operations."""

    wide: int
    """Bytes of a number."""
    copies: bool = False
    """Whether a convolution lays its input and output out anew, as those of a CPU do."""
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

    def convolve(self, inputs: int, outputs: int, places: int) -> int:
        """One convolution from `inputs` to `outputs` numbers; each of the latter sums `places` products."""
        self.work += 2 * outputs * places
        size = self.hold(outputs)
        if self.copies:
            self.free(self.hold(inputs + outputs))
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
