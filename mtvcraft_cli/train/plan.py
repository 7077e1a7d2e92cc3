"""What a training run is going to be: checked and told before anything is loaded."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from mtvcraft_cli.device.sizes import latent_size
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole
from mtvcraft_cli.preset import AUTO_PX
from mtvcraft_cli.train.parts import locate, locate_parts, needed, trained_before
from mtvcraft_cli.train.run import LOG
from mtvcraft_cli.train.settings import DitTraining, Loop, Recipe, VaeTraining
from mtvcraft_cli.train.stages import Kind, settings_of, weights_of
from mtvcraft_cli.weights.locate import size_text

RECIPE = "recipe.yaml"
TRAINED = {"tokenizer": "tokenizer", "vae": "vae", "dit": "transformer"}
NEEDED = ("tokenizer", "vae")
"""What a transformer can't be trained without."""
LEAST = {
    **dict.fromkeys(
        ("batch", "accumulate", "log_steps", "report_steps", "clips", "predicted_clips", "reseed_steps"), 1
    ),
    **dict.fromkeys(("warmup", "before", "dances", "first_clips", "kept_patches", "report_clips"), 0),
    **dict.fromkeys(("frames", "strides", "kept_frames", "rank"), 1),
    "uses": 0.01,
}
"""The smallest number that a setting can have, by its name; of several numbers each."""
MAY_BE_NONE = ("kept_frames",)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that has passed every check."""

    kind: Kind
    folder: Path
    steps: int
    done: int
    """Steps of the newest checkpoint."""
    batch: int
    parameters: int
    """Of the network that is trained."""
    loads: dict[str, str]
    """Weights trained before, by part, and what is trained further as "base"."""
    fetches: tuple[str, ...]
    """Released weights that aren't here yet, as `mtvcraft download` calls them."""
    data: tuple[str, ...]
    """Data sets; none is the recipe's own."""
    clips: int | None
    """Clips whose latents are kept, of a transformer."""
    latents_bytes: int | None
    """What they come to on disk."""

    def told(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "folder": str(self.folder)}

    def sentences(self) -> list[str]:
        """Say it in a few lines."""
        begun = f", {self.done} of them done" if self.done else ""
        lines = [f"{self.steps} steps of {self.batch} clips{begun}; {self.parameters / 1e6:.3g} million parameters"]
        if self.data:
            lines.append(f"trained on {', '.join(f'`{name}`' for name in self.data)}")
        if self.loads:
            lines.append(f"with {' and '.join(f'the {part} of `{path}`' for part, path in self.loads.items())}")
        if self.fetches:
            lines.append(f"not here yet: `mtvcraft download {' '.join(self.fetches)}` fetches what is needed")
        if self.clips is not None and self.latents_bytes is not None:
            lines.append(
                f"latents of up to {self.clips} windows are kept in `{self.folder / 'latents'}`: "
                f"{size_text(self.latents_bytes)}"
            )
        return lines


def plan_run(kind: Kind, recipe: Recipe, folder: Path, parts: Mapping[str, Path]) -> Plan:
    """Check a run from the cheapest to the dearest question.

    Args:
        kind: what is to be trained.
        recipe: how.
        folder: of the run.
        parts: weights trained before, by part.

    Raises:
        MtvcraftError: exit 2; the recipe lacks the stage or has numbers that are none, the folder holds something else
            or a longer run, or a data set is missing; exit 6; a part is missing, or what is to be trained further.
    """
    settings = settings_of(recipe, kind)
    check_counts(settings, kind)
    check_counts(recipe.data, "data")
    if kind == "tokenizer" and settings.loop.gradient_checkpointing:
        raise MtvcraftError(
            "`tokenizer.loop.gradient_checkpointing` does nothing: 4DMoT is small", hint="leave it out", exit=Exit.USAGE
        )
    check_folder(folder)
    for name in recipe.data.sets:
        if not Path(name).exists():
            raise MtvcraftError(
                f"there is no data set `{name}`", hint="make one with `mtvcraft train prepare`", exit=Exit.USAGE
            )
    loads = {part: str(weights_of(part, path)) for part, path in parts.items()}
    fetches: tuple[str, ...] = ()
    if isinstance(settings, DitTraining):
        located = locate_parts(recipe.preset, parts)
        if missing := [part for part in NEEDED if part not in located]:
            raise MtvcraftError(
                f"the transformer can't be trained without a {missing[0]}",
                hint=f"train one with `mtvcraft train {missing[0]}`, and give its folder with `--{missing[0]}`",
                exit=Exit.WEIGHTS,
            )
        if settings.base is not None:
            located["base"] = locate("base", settings.base)
        loads |= {part: found.source for part, found in located.items() if part not in loads and not found.missing}
        for part, found in located.items():
            if found.missing and not (found.released and found.released.sources):
                needed(located, part)  # raises: nobody can fetch it
        fetches = tuple(found.source for found in located.values() if found.missing)
    elif (base := trained_before(kind, settings.base, decoder_only=settings.decoder_only)) is not None:
        loads["base"] = str(base)
    if isinstance(settings, VaeTraining) and settings.predicted is not None:
        from mtvcraft_cli.train.predicted import find_predicted

        loads["transformer"] = str(find_predicted(settings)[1]["transformer"].path)
    loop: Loop = settings.loop
    latest = max((folder / "checkpoints").glob("step-*"), default=None)
    done = 0 if latest is None else int(latest.name.partition("-")[2])
    if done > loop.steps:
        raise MtvcraftError(
            f"the run in `{folder}` has done {done} steps, and `{kind}.loop.phases` comes to {loop.steps}",
            hint="ask for more steps, or train into another folder",
            exit=Exit.USAGE,
        )
    clips = latents_bytes = None
    if kind == "dit" and recipe.dit is not None:
        clips, latents_bytes = recipe.dit.clips, recipe.dit.clips * _latent_bytes(recipe.preset)
    return Plan(
        kind=kind,
        folder=folder,
        steps=loop.steps,
        done=done,
        batch=loop.batch,
        parameters=count_parameters(kind, recipe.preset),
        loads=loads,
        fetches=fetches,
        data=recipe.data.sets,
        clips=clips,
        latents_bytes=latents_bytes,
    )


def check_counts(settings: Any, where: str) -> None:
    """Refuse counts that no run can have, in a section of a recipe and in those within it.

    Raises:
        MtvcraftError: exit 2.
    """
    for item in fields(settings):
        value, name = getattr(settings, item.name), f"{where}.{item.name}"
        if is_dataclass(value):
            check_counts(value, name)
        elif isinstance(settings, Loop) and item.name == "phases":
            if settings.steps < 1:
                raise _too_little(f"`{name}` comes to {settings.steps} steps", 1)
        elif (smallest := LEAST.get(item.name)) is not None:
            if value == () and item.name not in MAY_BE_NONE:
                raise MtvcraftError(f"`{name}` is empty", hint="give one value at least", exit=Exit.USAGE)
            for each in value if isinstance(value, tuple) else (value,):
                if each < smallest:
                    raise _too_little(f"`{name}` is {value}", smallest)


def _too_little(told: str, smallest: float) -> MtvcraftError:
    return MtvcraftError(told, hint=f"it is {smallest} at least", exit=Exit.USAGE)


def check_folder(folder: Path) -> None:
    """Refuse a folder that can't be made or holds something else than a run.

    Raises:
        MtvcraftError: exit 2.
    """
    if not folder.is_dir():
        missing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not missing.is_dir():
            raise MtvcraftError(f"`{missing}` is a file", hint="name a folder for the run", exit=Exit.USAGE)
        return
    known = ("checkpoints", LOG, RECIPE, "latents", "predicted")
    if list(folder.glob("[!.]*")) and not any((folder / name).exists() for name in known):
        raise MtvcraftError(
            f"`{folder}` is already there and no run", hint="name a new folder for the run", exit=Exit.USAGE
        )


def count_parameters(kind: Kind, preset: Mapping[str, Any]) -> int:
    """How many numbers a network has that is trained, without making it."""
    import torch

    with torch.device("meta"):
        network: torch.nn.Module
        if kind == "tokenizer":
            from mtvcraft_cli.tokens.tokenizer import MotionTokenizer

            network = MotionTokenizer(**preset["tokenizer"])
        elif kind == "vae":
            from diffusers import AutoencoderKLCogVideoX

            network = AutoencoderKLCogVideoX(**preset["vae"])
        elif preset["backbone"] == "wan":
            from mtvcraft_cli.latents.wan import WanMotionTransformer

            network = WanMotionTransformer(**preset["transformer"])
        else:
            from mtvcraft_cli.latents.cogvideox import CogVideoXMotionTransformer

            network = CogVideoXMotionTransformer(**preset["transformer"])
    return sum(weight.numel() for weight in network.parameters())


def keep_recipe(recipe: Recipe, folder: Path, kind: Kind) -> list[str]:
    """Write the recipe as it was used, so that the run can be repeated: `--recipe RUN/recipe.yaml`.

    Returns:
        Dotted names of what it says otherwise about this stage than the one that the folder held, if any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = before = json.loads(json.dumps(asdict(recipe)))
    with suppress(FileNotFoundError, yaml.YAMLError):  # whoever spoilt it doesn't want it back
        before = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))
    text = yaml.safe_dump(used, sort_keys=False, allow_unicode=True, width=110)
    write_text_whole(folder / RECIPE, "# What this run was trained with.\n" + text)
    return [name for name in unlike(before, used) if name.partition(".")[0] in (kind, "preset", "data")]


def unlike(one: Any, other: Any, name: str = "") -> list[str]:
    """Dotted names of the settings in which two recipes differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [] if one == other else [name]
    keys = dict.fromkeys((*one, *other))
    return [deep for key in keys for deep in unlike(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))]


def read_log(folder: Path, kind: str) -> dict[str, Any]:
    """The last line of a kind ("train" or "report") in a run's log; nothing where there is none."""
    if not (folder / LOG).is_file():
        return {}
    lines = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines() if line]
    return next((line for line in reversed(lines) if line["kind"] == kind), {})


def _latent_bytes(preset: Mapping[str, Any]) -> int:
    """What the latents of one window come to, in float16: of the window and its reference."""
    vae, frames = preset["vae"], (preset["frames"] + 3) // 4
    wide, high = latent_size(vae, AUTO_PX if preset["size_px"] == "auto" else tuple(preset["size_px"]))
    pixels = wide * high
    if preset["backbone"] == "wan":
        # What is known of the frames is as long as the window, and has a mask; CLIP has a token for each patch.
        return 2 * ((2 * vae["z_dim"] + 4) * pixels * frames + 257 * preset["transformer"]["image_dim"])
    return 2 * vae["latent_channels"] * pixels * (frames + 1)
