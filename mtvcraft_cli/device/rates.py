"""How fast this machine works: what earlier runs measured, kept in the cache; before any run a guess."""

import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.files import write_text_whole

Kind: TypeAlias = Literal["denoise", "code", "encode", "pose", "load", "move", "stream"]
"""What a rate is of: the transformer, the VAE, and text and picture encoder, in floating-point operations a second; the
pose estimator, in frames a second; and in bytes a second reading or drawing weights, moving them from RAM to the card
anew in every forward, and reading them from files for that."""
FILE: Final = "rates.json"
BF16_PEAK: Final[dict[str, float]] = {
    "H100|H200|GH200": 989e12,
    "A100": 312e12,
    "L40": 362e12,
    "RTX 5090": 210e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "A6000": 155e12,
    "A10": 125e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Dense half-precision operations a second by the cards' data sheets."""
UNKNOWN_CARD: Final = 71e12
SHARE: Final = {"denoise": 0.35, "code": 0.15, "encode": 0.25}
"""What part of a card's peak is taken to be reached: a guess, nobody has measured it with this program."""
CORE: Final = {"denoise": 40e9, "code": 20e9, "encode": 20e9}
"""Operations a second that a core is taken to do in float32: a guess, too."""
POSE: Final = 40.0
"""Frames a second: MediaPipe does 45 to 69 on two cores with AVX-512."""
LOAD: Final = 500e6
"""Bytes a second: about what a plain solid-state disk gives."""
MOVE: Final = 12e9
"""Bytes a second: half of what PCI Express 4.0 gives a card by its standard; a guess, too."""


@dataclass(frozen=True)
class Rate:
    """A speed, and how it is known."""

    per_s: float
    source: Literal["measured", "another preset", "guess"]


@dataclass(frozen=True)
class Rates:
    """What is known of one machine's speed."""

    device: str
    """The card's name, or the processor's with its threads; what the measurements are kept under."""
    measured: Mapping[str, Mapping[str, float]]
    """By kind, then by preset."""
    cores: int

    def of(self, kind: Kind, preset: str) -> Rate:
        """The speed with a preset: measured with it, else the slowest measured with others, else a guess."""
        known = self.measured.get(kind, {})
        if preset in known:
            return Rate(known[preset], "measured")
        if known:
            return Rate(min(known.values()), "another preset")
        return Rate(self._guess(kind), "guess")

    def _guess(self, kind: Kind) -> float:
        if kind == "pose":
            return POSE
        if kind in ("load", "stream"):
            return LOAD
        if kind == "move":
            return MOVE
        if self.device.startswith("cpu"):
            return CORE[kind] * self.cores
        return SHARE[kind] * next(
            (peak for name, peak in BF16_PEAK.items() if re.search(name, self.device)), UNKNOWN_CARD
        )


def read_rates(folder: Path, device: str | None) -> Rates:
    """What earlier runs have measured on a device.

    Args:
        folder: the program's cache.
        device: a card's name, or None for this machine's processor.
    """
    name = device or processor()
    return Rates(name, _read(folder).get(name, {}), os.cpu_count() or 1)


def keep_rates(folder: Path, device: str | None, preset: str, found: Mapping[Kind, float]) -> None:
    """Note what a run has measured, in the place of what an earlier run with that preset had."""
    told = _read(folder)
    own = told.setdefault(device or processor(), {})
    for kind, per_s in found.items():
        own.setdefault(kind, {})[preset] = per_s
    write_text_whole(folder / FILE, json.dumps(told, indent=1, sort_keys=True))


def processor() -> str:
    """This machine's processor and the threads that PyTorch will use, as in `cpu: Some Model, 2 threads`."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"cpu: {name}, {threads()} threads"


def threads() -> int:
    """Threads that the numerical libraries will use: what `OMP_NUM_THREADS` says, else the cores that we may use."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    if said.isdecimal() and int(said):
        return int(said)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The file; nothing where there is none yet or it is damaged: it is only a memory of speeds."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return {
            str(device): {
                str(kind): {str(preset): float(rate) for preset, rate in rates.items() if float(rate) > 0}
                for kind, rates in kinds.items()
            }
            for device, kinds in told.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, MtvcraftError):
        return {}
