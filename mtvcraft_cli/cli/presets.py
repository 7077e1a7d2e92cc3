"""`mtvcraft presets`: which models there are, and what is missing to run them."""

from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.console import answer, table
from mtvcraft_cli.cli.options import Weights


def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show all of one preset instead of a line for each.")
    ] = None,
    weights: Weights = None,
) -> None:
    """List the models with their size, their licences, and what is missing to run them."""
    from mtvcraft_cli.preset import load_preset, preset_names

    if name is not None:
        return _show(name, weights)
    rows, data = [], []
    for known in preset_names():
        preset = load_preset(known)
        told = _parts(known, weights)
        missing = [str(part["part"]) for part in told if part["missing"]]
        size_bytes = sum(int(str(part["bytes"] or 0)) for part in told)
        rows.append(
            [
                known,
                f"{preset.size_px[0]}x{preset.size_px[1]}" + (" or so" if preset.auto_size else ""),
                str(preset.frames),
                f"{size_bytes / 1e9:.1f} GB" if size_bytes else "none",
                f"needs {', '.join(missing)}" if missing else "ready",
                "; ".join(sorted({str(part["licence"]) for part in told})),
                preset.summary,
            ]
        )
        data.append(
            {
                "name": known,
                "summary": preset.summary,
                "size_px": preset.size_px,
                "frames": preset.frames,
                "ready": not missing,
                "parts": told,
            }
        )
    return answer(table(["preset", "size", "frames", "weights", "state", "licences", "what it is"], rows), data)


def _show(name: str, weights: Path | None) -> None:
    from mtvcraft_cli.preset import load_preset

    preset = load_preset(name)
    told = _parts(name, weights)
    lines = [f"{preset.name}: {preset.summary}"]
    lines += [
        f"  {part['part']}: {part['source']}, {part['size']}, licence: {part['licence']}"
        + (", missing" if part["missing"] else "")
        for part in told
    ]
    answer("\n".join(lines), {"name": preset.name, "summary": preset.summary, "parts": told})


def _parts(name: str, weights: Path | None) -> list[dict[str, object]]:
    from mtvcraft_cli.preset import load_preset
    from mtvcraft_cli.weights.locate import locate, size_text

    told: list[dict[str, object]] = []
    for part in locate(load_preset(name), weights).values():
        size_bytes = part.released.bytes if part.released else None
        if part.path is not None:
            size_bytes = sum(file.stat().st_size for file in part.files)
        told.append(
            {
                "part": part.part,
                "source": part.source,
                "path": str(part.path) if part.path else None,
                "bytes": size_bytes,
                "size": "random numbers from a seed" if part.seed is not None else size_text(size_bytes),
                "licence": part.licence,
                "missing": part.missing,
            }
        )
    return told
