"""How networks are trained: a recipe is YAML, read into frozen dataclasses."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import find_preset
from mtvcraft_cli.train.world.motions import RECORDED
from mtvcraft_cli.weights.manifest import manifest

RECIPES = Path(__file__).parent / "recipes"
Settings = TypeVar("Settings")
Phase = tuple[int, float, float]
"""Steps, and the learning rate from which to which it goes meanwhile, along half a cosine."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """What every training run has: steps, optimiser, what is kept of it."""

    phases: tuple[Phase, ...]
    """One after the other; the paper's tokenizer has [200000, 1e-4, 1e-4] and [100000, 1e-5, 1e-5]."""
    warmup: int = 0
    """Steps over which the learning rate rises."""
    batch: int
    """Clips of a step, over all processes."""
    accumulate: int = 1
    """Parts that a process does its share of a step in, one after the other, to save memory."""
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    clip_norm: float = 0.0
    """Longest gradient; longer ones are cut to it. 0 is off."""
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """The second keeps its two moments in 8 bits each (needs bitsandbytes)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in; weights, gradients and moments are float32 all the same, but for a frozen base."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    ema: float = 0.0
    """Decay of the running mean of the weights, which is what is kept at the end; 0 keeps the last weights."""
    seed: int = 0
    log_steps: int = 10
    """Every how manieth step is written to the log."""
    report_steps: int = 1000
    """Every how manieth step the network is measured on what it is not trained on, with a sample where it draws."""
    checkpoint_s: float = 600.0
    """Seconds between two checkpoints."""

    @property
    def steps(self) -> int:
        """Steps in all."""
        return sum(phase[0] for phase in self.phases)

    def rate(self, step: int) -> float:
        """Learning rate of a step, the first of which is 0."""
        warm = min(1.0, (step + 2) / (self.warmup + 1))  # as the released script counts them
        for steps, start, end in self.phases:
            if step < steps:
                return warm * (end + (start - end) * (1 + math.cos(math.pi * step / steps)) / 2)
            step -= steps
        return self.phases[-1][2]


@dataclass(frozen=True, kw_only=True)
class Motion:
    """Where joints come from and how they are varied."""

    files: tuple[str, ...] = ()
    """Motion sets, `.npz` with `joints`, `clip_start` and `clip_length`; a folder stands for all in it."""
    dances: int = 0
    """Clips of 300 frames made up by our own procedural dancer, beside the files."""
    frames: tuple[int, ...] = (33, 49, 81, 97, 129)
    """Lengths of windows, 8n + 1, drawn at random (paper)."""
    strides: tuple[int, ...] = (1, 2)
    """Every how manieth frame, likewise (paper)."""
    vary: float = 0.1
    """Largest change of scale, and largest shift in spreads of the training set (paper: 10 %)."""
    before: int = 150
    """How long before its window a clip may have begun; differential motion is told from that frame."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """`mtvcraft train tokenizer`."""

    loop: Loop
    motion: Motion
    held_out: tuple[str, ...] = ()
    """Motion sets for the report; none of their clips is trained on."""
    commitment: float = 0.25
    """Weight of the distance between latents and their codes (paper 0.25, released script 0.5)."""
    legible: float = 0.0
    """Weight of a second task: a linear map, thrown away afterwards, is to read from each token alone where its joint
    is in its frames (mean squared error, in relation to the way it went). A code may otherwise mean nothing without its
    neighbours, which the decoder's convolutions unravel, but which attention, with its linear values, is long in
    learning."""
    decay: float = 0.99
    """Of the running means that codes are (paper)."""
    reseed: Literal["unused", "released", "never"] = "unused"
    """What becomes of idle codes. `released` does what the reference's code does, which is next to nothing."""
    reseed_steps: int = 20
    """Steps in which a code must have been used once (paper)."""
    base: str | None = None
    """Checkpoint to start from: the released one, or a run's folder. Where the preset has a multiple of its codes, each
    is split into several that training parts."""
    decoder_only: bool = False
    """Whether encoder and codes stay as they are, and with them the tokens of every motion: a transformer that was
    trained with them never notices. Codes that are split are moved all the same: they come nearer to what the encoder
    said, which such a transformer takes well. With a base."""

    def in_folder(self, folder: Path) -> "TokenizerTraining":
        """The same, with its motion sets looked for in a folder."""
        files, held_out = (tuple(str(folder / name) for name in names) for names in (self.motion.files, self.held_out))
        return replace(self, motion=replace(self.motion, files=files), held_out=held_out)


@dataclass(frozen=True, kw_only=True)
class World:
    """Clips of our own world."""

    motion: str | None = None
    """A motion set, mixed with dances of our own; null for these alone."""
    held_out: str | None = None
    """The same for the report, which shows characters that are never trained on."""
    before: int = 96
    """How long before its window a clip may have begun, frames."""
    recorded: float = RECORDED
    """Share of the clips whose motion is of the set, where there is one."""

    def in_folder(self, folder: Path) -> "World":
        """The same, with its motion sets looked for in a folder."""
        motion, held_out = (name and str(folder / name) for name in (self.motion, self.held_out))
        return replace(self, motion=motion, held_out=held_out)

    def danced(self) -> "World":
        """The same without recorded motion."""
        return replace(self, motion=None, held_out=None)


@dataclass(frozen=True, kw_only=True)
class VaeTraining:
    """`mtvcraft train vae`."""

    loop: Loop
    start: Literal["noise", "averages"] = "averages"
    """Random weights, or weights that from the first step code mean colours."""
    world: World = field(default_factory=World)
    frames: tuple[int, ...] = (9, 17)
    """Lengths of clips, 8n + 1, drawn at random."""
    sharpness: float = 0.5
    """Weight of the L1 distance between the slopes of the pictures, beside that of the pictures."""
    kl: float = 1e-6
    """Weight of the latents' distance from unit normal noise."""
    figure: float = 1.0
    """By how much more a pixel counts where the figure is or was."""
    squared: float = 0.0
    """Weight of the squared distance of the pictures, which is what decibels count."""
    base: str | None = None
    """Folder of a run, or a file, whose VAE is trained further."""
    decoder_only: bool = False
    """Leave the encoder of `base` as it is: transformers that were trained on its latents stay right."""
    predicted: str | None = None
    """Run of a transformer, or its preset: the decoder learns to show what it makes of a picture and a motion. Where a
    transformer is unsure its latents are the mean of many, and no encoder gives such. With `decoder_only`."""
    predicted_clips: int = 640
    """So many clips are animated, and used again and again."""
    encoded: float = 0.2
    """Share of clips whose latents come from the encoder all the same: the decoder has to show those too."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How noisy the clips of a step are, from 0, clean, to 1, nothing but noise. For wan."""

    draw: Literal["uniform", "logit_normal"] = "uniform"
    """Evenly, or the logistic of a normal number, which comes to the middle more often."""
    mean: float = 0.0
    """Of that normal number."""
    spread: float = 1.0
    """Likewise, its standard deviation."""
    shift: float | None = None
    """How far levels are moved towards noise, as sampling moves its steps; null is the preset's `sampler.shift`."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The size of a LoRA, and where it acts. For wan."""

    rank: int = 16
    alpha: float = 16.0
    """Its changes are multiplied by alpha / rank."""
    targets: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Ends of the names of the layers that it changes."""


@dataclass(frozen=True, kw_only=True)
class DitTraining:
    """`mtvcraft train dit`."""

    loop: Loop
    world: World = field(default_factory=World)
    clips: int
    """Clips in all; their latents are made once and kept."""
    first_clips: int = 0
    """Clips that the first step draws from; others join as the run goes on. 0 draws from all at once."""
    uses: float = 4.0
    """How many samples are taken for each clip that joins."""
    base: str | None = None
    """Checkpoint to start from, a path or a name of the weights manifest: an MV-DiT, or the model it is built on."""
    prediction: Literal["v", "flow"] | None = None
    """What the network learns to say; null is what its backbone's sampler follows, and nothing else is taken."""
    trains: Literal["all", "motion", "lora"] = "all"
    """What of a base is trained: everything, the motion attention alone, or a LoRA beside it (on wan)."""
    lora: Lora = field(default_factory=Lora)
    levels: Levels = field(default_factory=Levels)
    start: Literal["noise", "reference"] = "noise"
    """Without a base: random weights, or weights that from the first step draw the reference again."""
    drop_motion: float = 0.2
    """How often the learnable no-motion tokens replace the motion (paper)."""
    drop_text: float = 0.1
    """How often `no_text` replaces a clip's caption, or the preset's `prompt` where it has none (paper). For wan."""
    no_text: str = ""
    """What the base model was trained with where it was told nothing."""
    figure: float = 0.0
    """By how much more a latent pixel counts where the figure is or was."""
    pointing: float = 0.0
    """Weight of a second task, to say where the figure and its joints are; its head is thrown away. For CogVideoX, and
    for clips of our own world, which alone know it; it is left out for those of a data set."""
    time_power: float = 1.0
    """Times are drawn as 1000 u ** time_power, u uniform: 1 is even, less is more often noisy."""
    kept_frames: tuple[int, ...] = ()
    """Numbers of latent frames, drawn at random, that a step sees of its clips, at their own times; none sees all.

    Neighbours show nearly the same, so some of them teach as much as all, and more clips are seen in the same time.
    """
    kept_patches: int = 0
    """Patches of each latent frame that a step sees, those with the figure before others; 0 is all. For CogVideoX."""
    whole_from: int | None = None
    """The step from which on all patches are seen, as they are in use; null is never."""
    buckets: tuple[tuple[int, int], ...] = ()
    """Widths and heights trained on; none is the preset's own size, or all that its `size_px: auto` chooses from."""
    report_clips: int = 6
    """Clips that a report animates, three times each: with their motion, another one's and none."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Sets made by `mtvcraft train prepare`, in the place of the stages' own motion sets and of our own world."""

    sets: tuple[str, ...] = ()
    """Folders of sets of videos; for the tokenizer motion sets, too. None leaves each stage what it names itself."""
    held_out: float = 0.05
    """Share of the videos, or of a motion set's takes, that is only measured on; one at least where there are two."""
    statistics: Literal["own", "shipped"] = "own"
    """What the tokenizer normalises joints with: the sets' own mean and spread, or those that come with the presets.
    A transformer takes what its tokenizer was trained with."""
    strides: tuple[int, ...] = (1, 2)
    """Every how manieth frame a window of frames takes, drawn at random (paper); the tokenizer has its own."""
    before: int = 150
    """How long before its window a clip may have begun, in frames of the clip; half of the windows begin theirs."""
    elsewhere: float = 1 / 3
    """How often the reference is any frame of its clip instead of the one that motion is told from."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """`mtvcraft train ablations`: how often variants of a model are trained, and what they are measured on."""

    repeated: tuple[str, ...] = ()
    """Those that are trained several times, from other first weights and with clips in another order."""
    seeds: int = 3
    """How many times; the others are trained once."""
    clips: int = 24
    """Clips of each split of bench mini."""
    base: tuple[Phase, ...] = ()
    """Phases of a video model without motion that all runs start from, as the paper's start from CogVideoX; none lets
    each start as `dit.start` says."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole model: how it is run and how each of its networks is trained."""

    preset: Mapping[str, Any] = field(default_factory=dict)
    """A preset without `statistics` and weights of its own, which a run adds; in a file also the name of one."""
    data: Data = field(default_factory=Data)
    tokenizer: TokenizerTraining | None = None
    vae: VaeTraining | None = None
    dit: DitTraining | None = None
    ablation: Ablation = field(default_factory=Ablation)

    def in_folder(self, folder: Path) -> "Recipe":
        """The same, with its motion sets looked for in a folder."""
        return replace(
            self,
            tokenizer=self.tokenizer and self.tokenizer.in_folder(folder),
            vae=self.vae and replace(self.vae, world=self.vae.world.in_folder(folder)),
            dit=self.dit and replace(self.dit, world=self.dit.world.in_folder(folder)),
        )

    def danced(self) -> "Recipe":
        """The same without recorded motion: with nothing but dances of our own."""
        tokenizer = self.tokenizer
        return replace(
            self,
            tokenizer=tokenizer and replace(tokenizer, motion=replace(tokenizer.motion, files=()), held_out=()),
            vae=self.vae and replace(self.vae, world=self.vae.world.danced()),
            dit=self.dit and replace(self.dit, world=self.dit.world.danced()),
        )


def load_recipe(name: str, changes: Mapping[str, Any] | None = None, motion: Path = Path()) -> Recipe:
    """Read a recipe.

    Args:
        name: a built-in name or the path of a YAML file.
        changes: values by dotted name that replace the file's, e.g. {"vae.loop.batch": 2}.
        motion: where motion sets lie that the recipe names without a folder.

    Raises:
        MtvcraftError: there is none, or a key is unknown, missing, or has a value of another kind.
    """
    path = RECIPES / f"{name}.yaml"
    path = path if path.is_file() else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
        raise MtvcraftError(
            f"no recipe `{name}`", hint=f"there are {known}, or the path of a YAML file", exit=Exit.USAGE
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise _wrong(
            f"`{path}` is not YAML: {str(error).splitlines()[0]}", "compare it with a built-in recipe"
        ) from error
    if not isinstance(content, dict):
        raise _wrong(f"`{path}` holds no settings", "compare it with a built-in recipe")
    told = dict(changes or {})
    preset = told.pop("preset", content.get("preset", {}))
    content["preset"] = preset_settings(preset) if isinstance(preset, str) else preset
    for dotted, value in told.items():
        *way, last = dotted.split(".")
        place = content
        for key in way:
            if place.get(key) is None:
                place[key] = {}
            place = place[key]
            if not isinstance(place, dict):
                raise _wrong(f"`{dotted}` can't be set: `{key}` is `{place}`", "a section has keys of its own")
        place[last] = value
    return read_settings(Recipe, content, "recipe").in_folder(motion)


def preset_settings(name: str) -> dict[str, Any]:
    """What a preset says besides `statistics` and weights of its own, as a recipe holds it.

    Weights that belong to the base model stay: the VAE's, and the encoders of text and picture.

    Raises:
        MtvcraftError: there is no such preset.
    """
    content, _ = find_preset(name)
    settings = {key: value for key, value in content.items() if key not in ("weights", "statistics")}
    released, own = manifest(), ("tokenizer", "transformer", "no_motion")
    kept = {part: name for part, name in content.get("weights", {}).items() if part not in own and name in released}
    return settings | ({"weights": kept} if kept else {})


def read_changes(words: Sequence[str], section: str) -> dict[str, Any]:
    """Read `KEY=VALUE` words; a key without a section of the recipe is one of `section`.

    Raises:
        MtvcraftError: exit 2; there is no `=`, or the value isn't YAML.
    """
    changes = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise _wrong(f"`{word}` sets nothing", "write it like loop.batch=8")
        whole = key if key.partition(".")[0] in Recipe.__dataclass_fields__ else f"{section}.{key}"
        try:
            changes[whole] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise _wrong(f"`{value}` is no value for `{key}`", "write it as in YAML: 8, 1e-4, [9, 17], null") from error
    return changes


def read_settings(kind: type[Settings], content: Any, where: str) -> Settings:
    """Turn nested mappings into a dataclass.

    Raises:
        MtvcraftError: a key is unknown (the nearest is suggested), missing, or its value of another kind.
    """
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, Mapping):
        raise _wrong(f"`{where}` can't be `{content}`", f"it has the keys {', '.join(known)}")
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise _wrong(f"`{where}` has an unknown key `{key}`", f"did you mean `{near}`?")
    for name, item in known.items():
        if name not in content and item.default is MISSING and item.default_factory is MISSING:
            raise _wrong(f"`{where}` lacks `{name}`", "compare it with a built-in recipe")
    kinds = get_type_hints(kind)
    return kind(**{key: _read(kinds[key], value, f"{where}.{key}") for key, value in content.items()})


def _read(kind: Any, value: Any, where: str) -> Any:
    """Read one value; lists become tuples, and whole numbers stand for others."""
    options = [option for option in get_args(kind) if option is not type(None)]
    if get_origin(kind) is tuple:
        items = list(value) if isinstance(value, (list, tuple)) else None
        if items is not None and options[-1] is Ellipsis:
            return tuple(_read(options[0], item, where) for item in items)
        if items is not None and len(items) == len(options):
            return tuple(_read(option, item, where) for option, item in zip(options, items, strict=True))
    elif get_origin(kind) is Literal:
        if value in options:
            return value
        raise _wrong(f"`{where}` can't be `{value}`", f"it is one of {', '.join(map(str, options))}")
    elif options and len(options) < len(get_args(kind)):
        return None if value is None else _read(options[0], value, where)
    elif is_dataclass(kind):
        return read_settings(kind, value, where)  # type: ignore[arg-type]
    elif kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML takes 1e-4 for a word
        except ValueError:
            pass
    elif isinstance(value, get_origin(kind) or kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _wrong(f"`{where}` can't be `{value}`", "compare it with a built-in recipe")


def check_lengths(frames: tuple[int, ...], where: str, least: int = 9) -> None:
    """Refuse lengths that don't come back from the networks as they went in.

    Raises:
        MtvcraftError: one is not 8n + 1, or less than `least`.
    """
    for length in frames:
        if length % 8 != 1 or length < least:
            near = max(least, length // 8 * 8 + 1)
            raise _wrong(f"`{where}` can't hold `{length}`", f"lengths are 8n + 1, such as {near}")


def _wrong(message: str, hint: str) -> MtvcraftError:
    return MtvcraftError(message, hint=hint, exit=Exit.USAGE)
