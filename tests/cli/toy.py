"""A preset of toy size: every stage real, a window in a second."""

from pathlib import Path
from typing import Any

import yaml

from mtvcraft_cli.preset import BUILT_IN
from tests import tiny


def toy_preset(folder: Path, **changes: Any) -> Path:
    """Write `toy/preset.yaml`, with random weights at 32 x 32 pixels; `changes` go into it."""
    content = yaml.safe_load((BUILT_IN / "mini.yaml").read_text(encoding="utf-8"))
    content |= {
        "size_px": [32, 32],
        "sampler": {"scheduler": "dpm", "steps": 2, "motion_guidance": 3.0},
        "tokenizer": _plain(tiny.TOKENIZER),
        "transformer": _plain(tiny.TRANSFORMER),
        "vae": _plain(tiny.VAE),
        "statistics": str(BUILT_IN / "joint_statistics.json"),
        **changes,
    }
    path = folder / "toy" / "preset.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _plain(sizes: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in sizes.items()}
