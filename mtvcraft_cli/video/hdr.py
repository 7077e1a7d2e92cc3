"""High dynamic range to what every screen shows: PQ and HLG in BT.2020 to gamma 2.4 in BT.709, as a table of colours.

Highlights are rolled off by the EETF of ITU-R BT.2390-11 (5.4.1) from 1000 cd/m2 to 203, the white of ITU-R BT.2408;
what is darker than about 92 cd/m2, faces for the most part, keeps its brightness exactly. ffmpeg applies the table.
"""

from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.floating[Any]]
PEAK_NITS, WHITE_NITS = 1000.0, 203.0
SDR_GAMMA = 2.4  # ITU-R BT.1886
SIDE = 65
"""Colours along each side of the table: what lies between is off by 0.1 of 255 steps, one in a hundred by over 2.4."""
TO_709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
"""Linear BT.2020 to linear BT.709 (ITU-R BT.2087)."""
LUMA_2020, LUMA_709 = np.array([0.2627, 0.6780, 0.0593]), np.array([0.2126, 0.7152, 0.0722])
# SMPTE ST 2084
M1, M2, C1, C2, C3 = 1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128


def pq_to_nits(coded: Values) -> Values:
    """Turn PQ values, 0..1, into cd/m2 (SMPTE ST 2084)."""
    power = coded ** (1 / M2)
    return 10000 * (np.maximum(power - C1, 0) / (C2 - C3 * power)) ** (1 / M1)


def nits_to_pq(nits: Values) -> Values:
    """Turn cd/m2 into PQ values, 0..1."""
    power = (nits / 10000) ** M1
    return ((C1 + C2 * power) / (1 + C3 * power)) ** M2


def hlg_to_nits(coded: Values) -> Values:
    """Turn HLG R'G'B', (..., 3), 0..1, into cd/m2 on a screen of 1000 (ITU-R BT.2100, system gamma 1.2)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    return PEAK_NITS * (scene @ LUMA_2020)[..., None] ** 0.2 * scene


def roll_off(nits: Values) -> Values:
    """Bring 0..1000 cd/m2 down to 0..203: the same up to a knee, then bent to end at the peak (BT.2390-11, 5.4.1)."""
    peak, white = nits_to_pq(np.array([PEAK_NITS, WHITE_NITS]))
    white = white / peak
    knee = 1.5 * white - 0.5
    seen = np.minimum(nits_to_pq(nits) / peak, 1)
    t = (seen - knee) / (1 - knee)
    hermite = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    return pq_to_nits(np.where(seen < knee, seen, hermite) * peak)


def to_sdr(coded: Values, transfer: str) -> Values:
    """Turn BT.2020 R'G'B' into BT.709 R'G'B' for a usual screen.

    Args:
        coded: (..., 3), 0..1.
        transfer: how light was coded, in ffmpeg's words: `smpte2084` is PQ, `arib-std-b67` HLG, all others gamma 2.4.

    Returns:
        (..., 3), 0..1.
    """
    if transfer in ("smpte2084", "arib-std-b67"):
        nits = pq_to_nits(coded) if transfer == "smpte2084" else hlg_to_nits(coded)
        brightest = nits.max(axis=-1, keepdims=True)  # one factor for all three keeps the hue
        light = nits / WHITE_NITS * roll_off(brightest) / np.maximum(brightest, 1e-9)
    else:
        light = coded**SDR_GAMMA
    light = light @ TO_709.T
    grey = light @ LUMA_709[:, None]
    lowest = light.min(axis=-1, keepdims=True)
    # What BT.709 can't show is mixed with grey of its own brightness until it can.
    kept = np.where(lowest < 0, grey / np.maximum(grey - lowest, 1e-9), 1)
    return (grey + kept * (light - grey)).clip(0, 1) ** (1 / SDR_GAMMA)


@cache
def _table(transfer: str) -> str:
    steps = np.linspace(0, 1, SIDE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # red runs fastest
    rows = to_sdr(np.stack([red, green, blue], axis=-1), transfer).reshape(-1, 3)
    return f"LUT_3D_SIZE {SIDE}\n" + "".join(f"{row[0]:.6f} {row[1]:.6f} {row[2]:.6f}\n" for row in rows)


def write_table(path: Path, transfer: str) -> None:
    """Write the table of colours as a .cube file, which ffmpeg's `lut3d` reads."""
    path.write_text(_table(transfer), encoding="ascii")
