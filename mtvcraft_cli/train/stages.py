"""A recipe and a stage's name -> a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Statistics, load_preset
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.train.examples import Examples, WorldExamples
from mtvcraft_cli.train.run import Stage, Trained, train
from mtvcraft_cli.train.settings import Recipe, World
from mtvcraft_cli.weights.locate import ENDINGS, WORDS

Kind = Literal["tokenizer", "vae", "dit"]


def train_stage(
    kind: Kind,
    recipe: Recipe,
    folder: Path,
    *,
    parts: Mapping[str, Path] | None = None,
    limit_s: float | None = None,
    watch: Watch = silent,
) -> Trained:
    """Train one network of a recipe, or go on with it.

    Args:
        kind: which.
        recipe: how.
        folder: of the run; the same folder goes on with the same run.
        parts: weights trained before, by part: files, folders of runs, or folders as they are published. "dit" needs
            "tokenizer" and "vae", and on wan "text_encoder", "text_tokenizer", "picture_encoder" and perhaps
            "no_motion", where the recipe's preset doesn't name them.
        limit_s: seconds after which to stop with a checkpoint.
        watch: counts steps.

    Raises:
        MtvcraftError: the recipe lacks the stage, a part is missing, or a setting doesn't fit.
    """
    settings = getattr(recipe, kind)
    if settings is None:
        raise MtvcraftError(f"the recipe says nothing about `{kind}`", hint=f"add a section `{kind}`", exit=Exit.USAGE)
    files = {part: _weights(part, path) for part, path in (parts or {}).items()}
    stage: Stage
    if kind == "tokenizer":
        from mtvcraft_cli.train.tokenizer import TokenizerStage

        stage = TokenizerStage(settings, recipe.preset, _statistics())
    elif kind == "vae":
        from mtvcraft_cli.train.vae import VaeStage

        stage = VaeStage(settings, recipe.preset, _statistics(), *_examples(settings.world))
    else:
        from mtvcraft_cli.train.backbones import make_stage

        stage = make_stage(settings, recipe.preset, _statistics(), *_examples(settings.world), folder, files)
    return train(stage, settings.loop, folder, limit_s=limit_s, watch=watch)


def prepare_latents(
    recipe: Recipe, folder: Path, parts: Mapping[str, Path], *, limit_clips: int | None = None, watch: Watch = silent
) -> int:
    """Encode the clips of a transformer's run ahead of it, or beside it; what is there already is left alone.

    Args:
        recipe: with a section `dit`.
        folder: of the run.
        parts: weights of "tokenizer" and "vae", as for `train_stage`.
        limit_clips: how many at most; None makes all.
        watch: counts clips.

    Returns:
        How many clips there are now.

    Raises:
        MtvcraftError: as for `train_stage`.
    """
    import torch

    from mtvcraft_cli.train.backbones import make_stage
    from mtvcraft_cli.train.shards import prepare

    if recipe.dit is None:
        raise MtvcraftError("the recipe says nothing about `dit`", hint="add a section `dit`", exit=Exit.USAGE)
    files = {part: _weights(part, path) for part, path in parts.items()}
    stage = make_stage(recipe.dit, recipe.preset, _statistics(), *_examples(recipe.dit.world), folder, files)
    stage.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    stage.encode_texts(watch)
    clips = stage.clips if limit_clips is None else min(limit_clips, stage.clips)
    prepare(stage.latents, stage.tokens, clips, watch)
    return clips


def _examples(world: World) -> tuple[Examples, Examples]:
    """Clips to train on, and clips of characters that are never trained on."""
    motion, held_out = (None if name is None else Path(name) for name in (world.motion, world.held_out))
    return WorldExamples(motion, "train", world.before), WorldExamples(held_out, "human")


def _weights(part: str, path: Path) -> Path:
    file = path / f"{part}.safetensors" if path.is_dir() else path
    if path.is_dir() and not file.is_file() and _published(path):
        return path
    if not file.is_file():
        raise MtvcraftError(
            f"there is no {part} at `{path}`", hint="train it first, or name its run", exit=Exit.WEIGHTS
        )
    return file


def _published(folder: Path) -> bool:
    """Whether it holds a checkpoint in the layout of the hub, or a text tokenizer, and is not the folder of a run."""
    names = {path.name for path in folder.iterdir()}
    kinds = {Path(name).suffix for name in names}
    return "preset.yaml" not in names and (WORDS in names or not kinds.isdisjoint(ENDINGS))


def _statistics() -> Statistics:
    return load_preset("mini").statistics
