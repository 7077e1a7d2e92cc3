"""`--speed`, `--compile`, `--attention`: how fast a run is to be, and whether this machine can do it."""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Final, Literal

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset

Level = Literal["best", "balanced", "fast"]
Attention = Literal["auto", "native", "flash", "sage"]
THRESHOLDS: Final[Mapping[str, Mapping[Level, float]]] = {
    "cogvideox": {"balanced": 0.25, "fast": 0.4},
    "wan": {"balanced": 0.15, "fast": 0.2},
}
"""By backbone and level how much the first block may do otherwise before the others are run again."""
COSTS: Final[Mapping[str, Mapping[Level, str]]] = {
    "cogvideox": {
        "balanced": "46 dB PSNR with 42 % of the blocks left out in 8 steps, 33 dB with 75 % in 50; mini",
        "fast": "43 dB PSNR with 52 % of the blocks left out in 8 steps, 31 dB with 77 % in 50; mini",
    },
    "wan": {
        "balanced": "latents off by 1.8 % with 5 % of the blocks left out, by a toy with random weights, 20 steps",
        "fast": "latents off by 3.5 % with 27 % of the blocks left out, by a toy with random weights, 20 steps",
    },
}
"""What was measured by benchmarks/caching.py, and with what; docs/performance.md has the table."""
PACKAGES: Final = {
    "flash": ("flash-attn", "flash_attn", (2, 6, 3)),
    "sage": ("sageattention", "sageattention", (2, 1, 1)),
}
"""Name of the package, of the module in it, and the oldest version that diffusers takes."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a run is to be."""

    level: Level = "best"
    """`best` leaves no work out; the others leave out blocks of steps that would change little."""
    compile: bool = False
    """Whether blocks of the transformer are compiled first."""
    attention: Attention = "auto"
    """What computes attention; `auto` until it is known what this machine has."""

    @property
    def skips(self) -> bool:
        """Whether blocks may be skipped."""
        return self.level != "best"

    @property
    def whole(self) -> bool:
        """Whether the transformer has to be whole in memory for that."""
        return self.skips or self.compile

    def told(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def settled(speed: Speed, preset: Preset, device: str, *, alone: bool = True) -> Speed:
    """Choose what computes attention, and refuse what can't be had here.

    `auto` takes flash-attn where it is, else PyTorch's own. SageAttention, which rounds to 8 bits, goes before both
    where the user asked for less than the best. Several processes take PyTorch's own.

    Raises:
        MtvcraftError: exit 2; a package or a compiler is missing, or doesn't work on this device.
    """
    exact = preset.precision == "float32"
    if speed.attention == "auto":
        wanted: tuple[Attention, ...] = ("flash",) if speed.level == "best" else ("sage", "flash")
        usable = [name for name in wanted if alone and not unusable(name, device, exact=exact)]
        speed = replace(speed, attention=usable[0] if usable else "native")
    elif why := unusable(speed.attention, device, exact=exact):
        raise MtvcraftError(
            f"`--attention {speed.attention}` can't be used: {why[0]}",
            hint=f"{why[1]}; `--attention auto` takes what there is",
            exit=Exit.USAGE,
        )
    if speed.compile and device.partition(":")[0] == "cpu" and compiler() is None:
        raise MtvcraftError(
            "`--compile` needs a C++ compiler, and there is none here",
            hint="install one (on Debian and Ubuntu: apt install g++) or name it in CXX, or leave `--compile` out",
            exit=Exit.USAGE,
        )
    return speed


def unusable(name: Attention, device: str, *, exact: bool) -> tuple[str, str] | None:
    """Why attention can't be computed by `name`, and what helps; None where it can."""
    if name not in PACKAGES:
        return None
    package, module, oldest = PACKAGES[name]
    try:
        found = version(package) if find_spec(module) else None
    except PackageNotFoundError:
        found = None
    if found is None:
        return f"{package} is not installed", f"pip install {package}"
    numbers = tuple(int(part) for part in found.split("+")[0].split(".")[:3] if part.isdecimal())
    if numbers < oldest:
        return f"{package} {found} is too old", f'pip install "{package}>={".".join(map(str, oldest))}"'
    if device.partition(":")[0] != "cuda":
        return f"{package} works on CUDA cards, and this run is on {device}", "choose a card with `--device cuda`"
    if exact:
        return f"{package} has no float32, which the preset computes in", "choose a preset in bfloat16"
    return None


def compiler() -> str | None:
    """The C++ compiler that PyTorch would call on a CPU."""
    usual = {"win32": "cl", "darwin": "clang++"}.get(sys.platform, "g++")
    return shutil.which(os.environ.get("CXX", usual))
