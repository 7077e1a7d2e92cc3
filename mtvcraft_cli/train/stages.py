"""A recipe and a stage's name -> a run."""

from collections.abc import Mapping
from functools import reduce
from operator import add
from pathlib import Path
from typing import Literal

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.preset import Statistics, load_preset, read_statistics
from mtvcraft_cli.progress import Watch, silent
from mtvcraft_cli.train.dataset.examples import SetExamples, held_out
from mtvcraft_cli.train.dataset.index import is_clip_set, load_clip_set
from mtvcraft_cli.train.dataset.spread import NAME as STATISTICS
from mtvcraft_cli.train.dataset.spread import read_spread
from mtvcraft_cli.train.examples import Examples, Size, WorldExamples
from mtvcraft_cli.train.motion import MotionSet, gather, spread_of
from mtvcraft_cli.train.run import Stage, Trained, train
from mtvcraft_cli.train.settings import DitTraining, Recipe, TokenizerTraining, VaeTraining, World
from mtvcraft_cli.weights.locate import ENDINGS, WORDS

Kind = Literal["tokenizer", "vae", "dit"]


def train_stage(
    kind: Kind,
    recipe: Recipe,
    folder: Path,
    *,
    parts: Mapping[str, Path] | None = None,
    clips: Path | None = None,
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
        clips: where "dit" keeps the clips that it learns from, so that several runs can share them; by default in the
            run's own folder.
        limit_s: seconds after which to stop with a checkpoint.
        watch: counts steps.

    Raises:
        MtvcraftError: the recipe lacks the stage, a part is missing, or a setting doesn't fit.
    """
    settings = settings_of(recipe, kind)
    stage: Stage
    if isinstance(settings, TokenizerTraining):
        from mtvcraft_cli.train.tokenizer import TokenizerStage

        motion = motion_of(recipe)
        stage = TokenizerStage(settings, recipe.preset, statistics_of(recipe, motion), motion)
    elif isinstance(settings, VaeTraining):
        from mtvcraft_cli.train.vae import VaeStage

        sizes_px = [(recipe.preset["size_px"][0], recipe.preset["size_px"][1])]
        stage = VaeStage(
            settings, recipe.preset, statistics_of(recipe), *examples_of(recipe, settings.world, sizes_px), folder
        )
    else:
        from mtvcraft_cli.train.backbones import make_stage

        files = {part: weights_of(part, path) for part, path in (parts or {}).items()}
        examples = examples_of(recipe, settings.world, sizes_of(recipe, settings))
        stats = statistics_of_part(recipe, files)
        stage = made = make_stage(settings, recipe.preset, stats, *examples, clips or folder, files)
        _keep_tokens(folder, made.tokens.made_from)
    return train(stage, settings.loop, folder, limit_s=limit_s, watch=watch)


def _keep_tokens(folder: Path, made_from: str) -> None:
    """Note which tokens a run is trained on, beside its checkpoints.

    Raises:
        MtvcraftError: exit 2; its first steps knew others, such as another tokenizer's, whose codes mean something
            else.
    """
    note = folder / "checkpoints" / "tokens.txt"
    known = note.read_text(encoding="utf-8").strip() if note.is_file() else made_from
    if known != made_from and any(note.parent.glob("step-*")):
        raise MtvcraftError(
            f"the transformer in `{folder}` was trained on other tokens than these",
            hint="give the same tokenizer as before; or train into another folder, with `dit.base` if it is to go on",
            exit=Exit.USAGE,
        )
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(note, f"{made_from}\n")


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

    settings = settings_of(recipe, "dit")
    assert isinstance(settings, DitTraining)
    files = {part: weights_of(part, path) for part, path in parts.items()}
    examples = examples_of(recipe, settings.world, sizes_of(recipe, settings))
    stage = make_stage(settings, recipe.preset, statistics_of_part(recipe, files), *examples, folder, files)
    stage.to(torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    stage.encode_texts(watch)
    clips = stage.clips if limit_clips is None else min(limit_clips, stage.clips)
    prepare(stage.latents, stage.tokens, clips, watch)
    return clips


def settings_of(recipe: Recipe, kind: Kind) -> TokenizerTraining | VaeTraining | DitTraining:
    """A recipe's section.

    Raises:
        MtvcraftError: exit 2; there is none.
    """
    settings: TokenizerTraining | VaeTraining | DitTraining | None = getattr(recipe, kind)
    if settings is None:
        raise MtvcraftError(f"the recipe says nothing about `{kind}`", hint=f"add a section `{kind}`", exit=Exit.USAGE)
    return settings


def sizes_of(recipe: Recipe, settings: DitTraining) -> list[Size]:
    """The sizes that a transformer is trained at."""
    if recipe.preset["size_px"] == "auto" and not settings.buckets:
        from mtvcraft_cli.latents.wanvideo.sizes import BUCKETS_PX

        return list(BUCKETS_PX)
    return list(settings.buckets) or [(recipe.preset["size_px"][0], recipe.preset["size_px"][1])]


def motion_of(recipe: Recipe) -> tuple[MotionSet, MotionSet]:
    """What a tokenizer is trained on, and what it is measured on; the same where nothing can be held out."""
    settings = recipe.tokenizer
    assert settings is not None
    neutral = recipe.preset.get("body") == "neutral"
    if not recipe.data.sets:
        from mtvcraft_cli.train.tokenizer import read_sets

        return read_sets(settings)
    whole = gather(recipe.data.sets, settings.motion.dances, settings.loop.seed)
    recorded = whole.source[: len(whole.source) - settings.motion.dances]  # those made up come last
    back = held_out(recorded, recipe.data.held_out)
    held = [*back, *[False] * (len(whole.source) - len(back))]
    sets = (whole.only([not out for out in held]), whole.only(held)) if any(held) else (whole, whole)
    return (sets[0].on_neutral_body(), sets[1].on_neutral_body()) if neutral else sets


def examples_of(recipe: Recipe, world: World, sizes_px: list[Size]) -> tuple[Examples, Examples]:
    """Clips to train on, and clips to measure on: characters or videos that are never trained on.

    Raises:
        MtvcraftError: a set has no frames, or no clip of a wanted shape.
    """
    data = recipe.data
    if not data.sets:
        motion, held = (None if name is None else Path(name) for name in (world.motion, world.held_out))
        return (
            WorldExamples(motion, "train", world.before, world.recorded),
            WorldExamples(held, "human", recorded=world.recorded),
        )
    for name in data.sets:
        if not is_clip_set(Path(name)):
            raise MtvcraftError(
                f"`{name}` is no finished data set of videos",
                hint="make one with `mtvcraft train prepare`; motion alone trains only a tokenizer",
                exit=Exit.USAGE,
            )
    sets = [load_clip_set(Path(name)) for name in data.sets]
    clips = [(own, record) for own in sets for record in own.records]
    back = held_out([record.source for _, record in clips], data.held_out)
    neutral = recipe.preset.get("body") == "neutral"
    kept = [clip for clip, out in zip(clips, back, strict=True) if not out]
    measured = [clip for clip, out in zip(clips, back, strict=True) if out] or kept
    return (
        SetExamples(kept, sizes_px, data, neutral=neutral),
        SetExamples(measured, [sizes_px[0]], data, neutral=neutral),
    )


def statistics_of(recipe: Recipe, motion: tuple[MotionSet, MotionSet] | None = None) -> Statistics:
    """What joints are normalised with."""
    data = recipe.data
    if not data.sets or data.statistics == "shipped":
        return load_preset("mini").statistics
    if recipe.preset.get("body") != "neutral" and all(is_clip_set(Path(name)) for name in data.sets):
        return reduce(add, [read_spread(Path(name)) for name in data.sets]).statistics
    return spread_of((motion or motion_of(recipe))[0]).statistics


def statistics_of_part(recipe: Recipe, files: Mapping[str, Path]) -> Statistics:
    """What a tokenizer was trained with: the file beside its weights; a published one has what the presets have."""
    from mtvcraft_cli.train.parts import locate_parts

    found = locate_parts(recipe.preset, files).get("tokenizer")
    path = Path() if found is None or found.path is None else found.path
    beside = (path if path.is_dir() else path.parent) / STATISTICS
    return read_statistics(beside, str(beside)) if beside.is_file() else load_preset("mini").statistics


def weights_of(part: str, path: Path) -> Path:
    """The file of a part that was trained before.

    Args:
        part: "tokenizer" or "vae".
        path: the folder of its run, a folder as it is published, or the file itself.

    Raises:
        MtvcraftError: exit 6; there is none.
    """
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
