"""Trains the small model of the package: `python -m mtvcraft_cli.train.mini --stage tokenizer --out runs`."""

import argparse
import os
from pathlib import Path


def main() -> None:
    """Train one stage, into OUT/STAGE; the next finds there what it needs. `latents` runs ahead of `dit`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=("tokenizer", "vae", "latents", "dit"), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the three runs")
    parser.add_argument("--recipe", default="mini", help="a built-in recipe or a YAML file")
    parser.add_argument("--motion", type=Path, default=Path(), help="folder of the recipe's motion sets")
    parser.add_argument("--minutes", type=float, help="stop after so long, with a checkpoint")
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "0")))
    given = parser.parse_args()
    import torch

    from mtvcraft_cli.train.settings import load_recipe
    from mtvcraft_cli.train.stages import prepare_latents, train_stage

    if given.threads:
        torch.set_num_threads(given.threads)
    there = {part: given.out / part for part in ("tokenizer", "vae") if (given.out / part).is_dir()}
    limit_s = None if given.minutes is None else 60 * given.minutes
    recipe = load_recipe(given.recipe, motion=given.motion)
    if given.stage == "latents":
        prepare_latents(recipe, given.out / "dit", there)
        return
    parts = there if given.stage == "dit" else {}
    trained = train_stage(given.stage, recipe, given.out / given.stage, parts=parts, limit_s=limit_s)
    raise SystemExit(0 if trained.stopped_by is None else 128 + trained.stopped_by)


if __name__ == "__main__":
    main()
