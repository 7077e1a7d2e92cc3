"""What the ablations' runs got, beside what the paper says of its own."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mtvcraft_cli.eval.mini import METRICS
from mtvcraft_cli.files import write_text_whole

PAPER: Final[Mapping[str, tuple[str, Mapping[str, float]]]] = {
    name: (title, dict(zip(("psnr", "ssim", "lpips", "fid", "fvd", "fid_vid"), values, strict=True)))
    for name, title, values in (
        ("default", "default", (19.35, 0.760, 0.219, 23.58, 317.21, 8.56)),
        ("no-quantize", "w/o quantize", (18.76, 0.732, 0.226, 24.04, 332.97, 9.39)),
        ("no-differential", "w/o differential", (19.08, 0.740, 0.223, 24.37, 325.40, 8.92)),
        ("xy-quantization", "3D quantization", (19.12, 0.742, 0.221, 23.94, 329.86, 9.04)),
        ("dynamic-pe", "dynamic PE", (17.23, 0.733, 0.247, 28.24, 383.22, 11.85)),
        ("learnable-pe", "learnable PE", (16.90, 0.719, 0.259, 28.69, 397.64, 11.74)),
        ("1d", "1D temporal RoPE", (16.86, 0.718, 0.263, 29.45, 458.29, 12.15)),
        ("2d", "2D spatial RoPE", (16.28, 0.704, 0.266, 30.07, 459.59, 10.73)),
        ("3d", "3D spatial RoPE", (16.99, 0.723, 0.259, 28.15, 435.80, 11.28)),
        ("no-pe", "w/o PE", (16.51, 0.707, 0.281, 32.56, 548.31, 13.40)),
    )
}
"""By preset under `ablations/`: the paper's name, and its numbers on TikTok (6B, 50 DDIM steps)."""
GAINS: Final = {
    "gain_still": ("psnr", "psnr_still"),
    "gain_other": ("psnr", "psnr_other_motion"),
    "gain_other_iou": ("iou", "iou_other_motion"),
}
"""What a run's motion is worth: by how much the first figure is above the second."""
_COLUMNS: Final = {
    "psnr": ("PSNR", 2),
    "ssim": ("SSIM", 3),
    "iou": ("IoU", 3),
    "gain_still": ("PSNR over the still picture", 2),
    "gain_other": ("PSNR over another motion", 2),
    "gain_other_iou": ("IoU over another motion", 3),
}
_PAPERS: Final = {"psnr": 2, "ssim": 3, "lpips": 3, "fid": 2, "fvd": 2, "fid_vid": 2}


def write_results(folder: Path, scores: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> None:
    """Write `results.jsonl` (a line a run), `results.json` (means and spreads) and `table.md`.

    Args:
        folder: where.
        scores: of the runs that are done: `variant`, `seed`, the figures of bench mini, and more.
        about: how they were made.
    """
    rows = summarised(scores)
    write_text_whole(folder / "results.jsonl", "".join(json.dumps(score) + "\n" for score in scores))
    write_text_whole(folder / "results.json", json.dumps({**about, "variants": rows}, indent=1) + "\n")
    write_text_whole(folder / "table.md", table(rows))


def summarised(scores: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread of each variant over its runs, in the paper's order; the spread of one run is None.

    The spread is the standard deviation of a sample.
    """
    rows = []
    scores = list(scores)
    for name, (title, paper) in PAPER.items():
        own = [score for score in scores if score["variant"] == name]
        if not own:
            continue
        figures = {metric: np.array([score[metric] for score in own]) for metric in METRICS}
        figures |= {gain: figures[above] - figures[below] for gain, (above, below) in GAINS.items()}
        rows.append(
            {
                "variant": name,
                "paper_name": title,
                "seeds": sorted(score["seed"] for score in own),
                "mean": {metric: float(each.mean()) for metric, each in figures.items()},
                "spread": {metric: _spread(each) for metric, each in figures.items()},
                "paper_tiktok": dict(paper),
            }
        )
    return rows


def _spread(each: npt.NDArray[np.float64]) -> float | None:
    return float(each.std(ddof=1)) if len(each) > 1 else None


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    heads = ["variant", "in the paper", "runs", *(head for head, _ in _COLUMNS.values())]
    heads += [f"paper: {name.upper().replace('_', '-')}" for name in _PAPERS]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        cells = [f"`{row['variant']}`", row["paper_name"], str(len(row["seeds"]))]
        for metric, (_, digits) in _COLUMNS.items():
            spread = row["spread"][metric]
            cells.append(f"{row['mean'][metric]:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}"))
        cells += [f"{row['paper_tiktok'][metric]:.{digits}f}" for metric, digits in _PAPERS.items()]
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
