"""How well the tokenizer understands a motion: what comes back when it is encoded and decoded again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from mtvcraft_cli.shapes import Codes, MotionLatents

LOSS_LIMIT = 0.1
"""Released code: a greater loss is a sign of a poor video to come."""
ERROR_LIMIT_MM = 100.0
"""About twice the 52 mm that users measured with the released tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The round trip of one clip through the tokenizer."""

    error_mm: tuple[float, ...]
    """Mean distance between each joint and its reconstruction; 24 of them."""
    loss: float
    """Mean squared difference between latents and the codebook's rows; 0 without a codebook."""
    codes_used: int | None
    """Different codes among the tokens; None without a codebook."""
    codes: int | None
    """Rows of the codebook; None without one."""

    @property
    def mean_mm(self) -> float:
        """Mean distance over all joints."""
        return sum(self.error_mm) / len(self.error_mm)

    @property
    def share(self) -> float | None:
        """Share of the codebook that the clip uses; 0..1."""
        return None if self.codes is None or self.codes_used is None else self.codes_used / self.codes

    def by_part(self, parts: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """Mean distance per part of the body, millimetres.

        Args:
            parts: joint indices of each part: trunk, head, arms, hands, legs, feet.
        """
        return {part: sum(self.error_mm[joint] for joint in joints) / len(joints) for part, joints in parts.items()}

    def warnings(self) -> list[str]:
        """What the user should know before the long work; nothing where all is well."""
        found = []
        if self.loss > LOSS_LIMIT:
            found.append(
                f"the tokenizer does not know this kind of motion well (quantisation loss {self.loss:.2f}, "
                f"good is below {LOSS_LIMIT}): the video may follow it poorly"
            )
        if self.mean_mm > ERROR_LIMIT_MM:
            found.append(
                f"joints move by {self.mean_mm:.0f} mm when tokenized and decoded again "
                f"(good is below {ERROR_LIMIT_MM:.0f} mm): look at them with `mtvcraft tokenize --decode`"
            )
        return found


@dataclass
class Tally:
    """Adds up the round trip of one batch of windows after the other."""

    codes: int | None
    distance_mm: Tensor = field(default_factory=lambda: torch.zeros(24, dtype=torch.float64))
    frames: int = 0
    difference: float = 0.0
    latents: int = 0
    seen: set[int] = field(default_factory=set)

    def add_joints(self, joints_mm: Float[Tensor, "T 24 3"], decoded_mm: Float[Tensor, "T 24 3"]) -> None:
        """Count frames of the clip, each once."""
        self.distance_mm += (joints_mm - decoded_mm).norm(dim=-1).cpu().double().sum(dim=0)
        self.frames += len(joints_mm)

    def add_codes(self, latents: MotionLatents, rows: MotionLatents, codes: Codes) -> None:
        """Count latents and the codes they were given."""
        self.difference += (latents - rows).square().mean().item() * latents.numel()
        self.latents += latents.numel()
        self.seen.update(codes.unique().tolist())

    def report(self) -> Report:
        """Return the means over all that was counted."""
        return Report(
            error_mm=tuple((self.distance_mm / self.frames).tolist()),
            loss=self.difference / self.latents if self.latents else 0.0,
            codes_used=None if self.codes is None else len(self.seen),
            codes=self.codes,
        )
