"""`mtvcraft train ablations`: the paper's variants, trained and measured side by side."""

from pathlib import Path
from typing import Annotated

import typer

from mtvcraft_cli.cli.console import answer, say, watch


def ablations(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of all runs; the same one goes on.")
    ],
    variants: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Some of the variants; default: all of presets/ablations.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each variant; default: as the recipe says.")] = None,
    recipe: Annotated[str, typer.Option(help="How they are trained: a built-in recipe or a YAML file.")] = "ablation",
    motion: Annotated[
        Path | None, typer.Option(help="Folder of the recipe's motion sets; without it only dances of our own.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Stop after about so long; the same command goes on.")
    ] = None,
) -> None:
    """Train the paper's ablations and measure them: a table with what they got, beside the paper's."""
    from mtvcraft_cli.train.ablate import VARIANTS, ablate, planned
    from mtvcraft_cli.train.settings import load_recipe

    names = VARIANTS if variants is None else [name.strip() for name in variants.split(",") if name.strip()]
    scores = ablate(
        output,
        variants=names,
        seeds=seeds,
        recipe=recipe,
        motion=motion,
        limit_s=None if minutes is None else 60 * minutes,
        watch=watch,
    )
    done = []
    for score in scores:
        done.append(score)
        say(
            f"{score['variant']}, seed {score['seed']}: PSNR {score['psnr']:.2f} dB, with another motion "
            f"{score['psnr_other_motion']:.2f}, standing still {score['psnr_still']:.2f}; IoU {score['iou']:.3f}"
        )
    wanted = len(planned(names, load_recipe(recipe), seeds))
    if len(done) < wanted:
        say(f"{len(done)} of {wanted} runs are done: the same command goes on")
    if done:
        answer((output / "table.md").read_text(encoding="utf-8").rstrip(), done)
