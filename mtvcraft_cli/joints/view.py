"""`pose --view`: one page that shows a motion in 3D, to turn, scrub and play; it needs nothing but a browser."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.joints.files import Motion
from mtvcraft_cli.joints.overlay import COLOURS, FAINTEST
from mtvcraft_cli.joints.skeleton import NAMES, PARENTS

PAGE: Final = Path(__file__).with_name("view.html")
FEET: Final = tuple(NAMES.index(name) for name in ("l_foot", "r_foot", "l_ankle", "r_ankle"))
OUTLINES: Final = ("#111114", "#d6249f")
"""Around the bones of the first and of the second motion."""


def write_view(path: Path, motions: Mapping[str, Motion] | Motion, name: str) -> None:
    """Write a page that shows one motion, or two over each other.

    Joints go in as 16-bit numbers in steps of at most a few tenths of a millimetre: 10 minutes at 30 frames a second
    are 4 MB. The page may run no script but its own and may load nothing, whatever `name` holds.

    Args:
        path: where the page goes; whatever was there stays until it is whole.
        motions: a motion, or up to two under what they are called, such as "before tokens" and "after tokens". They
            start together; time, camera and floor are the first one's.
        name: what is shown, e.g. the driver's file name; any text.

    Raises:
        MtvcraftError: no such folder (exit 2); the disk is full (exit 5).
        ValueError: no motion, or more than two.
    """
    named = {"motion": motions} if isinstance(motions, Motion) else dict(motions)
    if not 1 <= len(named) <= len(OUTLINES):
        raise ValueError(f"a page shows one or two motions, not {len(named)}")
    told = {
        "name": name,
        "parents": PARENTS,
        "feet": FEET,
        "colours": ["#" + bytes(colour.astype(np.uint8)).hex() for colour in COLOURS],
        "outlines": OUTLINES,
        "faintest": FAINTEST,
        "motions": [_told(motion, label) for label, motion in named.items()],
    }
    page = PAGE.read_text(encoding="utf-8")
    parts = {
        "policy": _policy(page),
        "title": html.escape(name),
        "data": json.dumps(told, separators=(",", ":")).replace("<", "\\u003c"),  # nothing can end the script early
    }
    write_text_whole(path, re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], page))


def _told(motion: Motion, label: str) -> dict[str, Any]:
    """One motion as plain data, its arrays as base64 of little-endian numbers."""
    unit_mm = max(float(np.abs(motion.joints_mm).max()), 1.0) / np.iinfo(np.int16).max
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ~motion.observed, [False]])))
    return {
        "label": label,
        "frames": len(motion),
        "rate": [motion.rate.numerator, motion.rate.denominator],
        "size_px": motion.size_px,
        "fov_deg": motion.fov_deg,
        "unit_mm": unit_mm,
        "joints": _base64(np.rint(motion.joints_mm / unit_mm).astype("<i2")),
        "confidence": _base64(np.rint(motion.confidence.clip(0, 1) * 255).astype(np.uint8)),
        "filled": edges.reshape(-1, 2).tolist(),  # from, up to but without
    }


def _base64(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode("ascii")


def _policy(page: str) -> str:
    """Let the page's own script and style run, by their hashes, and nothing else at all."""
    hashes = {}
    for kind in ("script", "style"):
        [own] = re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        hashes[kind] = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode("ascii")
    return "default-src 'none'; " + "; ".join(f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items())
