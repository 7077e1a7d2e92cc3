"""A name on the command line becomes presets/NAME.yaml becomes a frozen dataclass."""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
import yaml
from numpy.typing import NDArray

from mtvcraft_cli.errors import Exit, MtvcraftError

Differential = Literal["none", "window", "reference"]
JointAxes = Literal["xyz", "xy"]
SCHEDULERS = {"cogvideox": ("dpm", "ddim"), "wan": ("euler", "unipc")}
"""By backbone what can take the steps; the first is that of the released code."""
PARTS = {
    "cogvideox": ("tokenizer", "transformer", "vae"),
    "wan": ("tokenizer", "transformer", "vae", "text_encoder", "text_tokenizer", "picture_encoder", "no_motion"),
}
"""By backbone what has weights; `no_motion` is a checkpoint whose learned "no motion" tokens are read alone."""
AUTO_PX = (512, 512)
"""Frames of `size_px: auto` have about as many pixels as this."""
BUILT_IN = next(
    folder
    for folder in (Path(__file__).parent / "presets", Path(__file__).parent.parent / "presets")
    if folder.is_dir()
)
ABLATIONS = BUILT_IN / "ablations"
"""Presets to be trained and compared, and not to be listed as models that anyone could use."""


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How noise becomes latents."""

    scheduler: Literal["dpm", "ddim", "euler", "unipc"] = "dpm"
    """For cogvideox `dpm`, which draws fresh noise in each step and needs fewer of them, or `ddim`, which draws none
    after the first; for wan `euler`, or `unipc`, which is of second order and needs fewer."""
    steps: int = 50
    """Denoising steps: more is finer and slower."""
    motion_guidance: float = 3.0
    """How hard the motion tokens pull; 1.0 is off and saves a pass. Above about 9 artefacts appear (paper)."""
    text_guidance: float = 1.0
    """How hard the prompt pulls away from the negative one; 1.0 is off and saves a pass. For wan."""
    guidance_range: tuple[float, float] = (0.0, 1.0)
    """Share of the steps before which guidance is off, and after which it is off again. For wan."""
    shift: float = 5.0
    """How long the steps stay among high noise levels. For wan."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Statistics:
    """Where joints lie on average in the training set and how far they spread; (24, 3) float32 each, millimetres."""

    mean_mm: NDArray[np.float32]
    std_mm: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A model and how it wants to be run."""

    name: str
    """The name on the command line, or the whole path of the user's own file."""
    folder: Path
    """Where the file lies; relative paths in it start here."""
    summary: str
    """One line for `mtvcraft presets`."""
    backbone: Literal["cogvideox", "wan"]
    """Which transformer, VAE and sampler work together."""
    frames: int = 49
    """Frames of a full window, 8n + 1: the VAE keeps the first frame and packs the rest by four, in pairs."""
    overlap: int = 9
    """Frames that a window takes over from the one before, 8n + 1."""
    size_px: tuple[int, int]
    """Width and height of the frames made."""
    auto_size: bool = False
    """Whether the frames take the reference's shape instead; in YAML that is `size_px: auto`. For wan."""
    rate: Fraction | None = None
    """Frames per second that the model was trained on; null takes the driver's."""
    stride: int = 1
    """Every how manieth frame the model sees; the frames between are held."""
    differential: Differential = "none"
    """What is subtracted from the normalised joints: nothing, the window's first frame, or the clip's first frame."""
    body: Literal["person", "neutral"] = "person"
    """Whether the driver's own bone lengths are kept or replaced by those of the neutral body."""
    statistics: Statistics
    """A file name in YAML: what joints are normalised with, and where the rotary positions come from."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """What the transformer and the VAE compute in on a graphics card; a CPU always gets float32."""
    joint_axes: JointAxes = "xyz"
    """What the tokenizer sees of the joints; without z it is the paper's ablation "3D quantization"."""
    trained_on: Literal["cpu", "gpu"] | None = None
    """Where the weights were trained, for weights that come in variants; null says nothing."""
    sampler: Sampler
    prompt: str = ""
    """What the video shows, where the user says nothing. For wan, as all below down to `loras`."""
    negative_prompt: str = ""
    """What it shall not show."""
    clip_from: Literal["reference", "previous"] = "reference"
    """Whether CLIP sees the character's picture in every window, or the last frame of the window before."""
    color_match: bool = False
    """Whether every window gets the reference's colours, so that they don't drift. For either backbone."""
    loras: tuple[str, ...] = ()
    """Small changes to the transformer, merged in order: names of the weights manifest or paths, `:0.8` for a scale."""
    reference_latent: Literal["sample", "mean"] = "sample"
    """What is taken of the VAE's posterior of the reference picture."""
    reference_scaled: bool = False
    """Whether the reference latents are multiplied by the VAE's scaling factor, as the noisy ones are."""
    reference_kept: float = 0.0
    """How far a pixel may be off the reference, as the VAE gives it back, and be taken from the reference itself,
    levels 0..255; 0 takes none. For cogvideox."""
    tokenizer: Mapping[str, Any]
    """Sizes of the 4DMoT tokenizer."""
    transformer: Mapping[str, Any]
    """Sizes of the MV-DiT; a `config.json` beside the weights goes before them."""
    vae: Mapping[str, Any]
    """Sizes of the video VAE; a `config.json` beside the weights goes before them."""
    text_encoder: Mapping[str, Any] = field(default_factory=dict)
    """Sizes of umT5's encoder, where neither a `config.json` nor the tensors' shapes tell them. For wan."""
    picture_encoder: Mapping[str, Any] = field(default_factory=dict)
    """The same of CLIP's picture tower."""
    scheduler: Mapping[str, Any]
    """The noise schedule that the base model was trained with, but for wan's `sampler.shift`."""
    weights: Mapping[str, str]
    """For each part of the backbone (`PARTS`): a name of the weights manifest, a path, or `seeded:N`."""

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every setting, so that files made with another preset are told apart."""
        words = ("name", "folder", "summary")
        told = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in words}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=_plain).encode()).hexdigest()

    @property
    def seeded(self) -> bool:
        """Whether the weights are random numbers from a seed: a stand-in for trained ones."""
        return any(source.startswith("seeded:") for source in self.weights.values())


OWN = {
    "cogvideox": ("reference_latent", "reference_scaled", "reference_kept"),
    "wan": (
        *("auto_size", "prompt", "negative_prompt", "clip_from", "loras", "text_encoder", "picture_encoder"),
        *("sampler.text_guidance", "sampler.guidance_range", "sampler.shift"),
    ),
}
"""By backbone the settings that would do nothing on the other one, which therefore refuses them."""


def preset_names() -> list[str]:
    """The presets that come in the package, smallest first."""
    sizes = {path.stem: int((re.match(r"\d+", path.stem) or "0")[0]) for path in BUILT_IN.glob("*.yaml")}
    return sorted(sizes, key=lambda name: (sizes[name], name))


def ablation_names() -> list[str]:
    """The paper's ablations as they are named on the command line; they have no weights until they are trained."""
    return sorted(f"{ABLATIONS.name}/{path.stem}" for path in ABLATIONS.glob("*.yaml"))


def lora_of(words: str) -> tuple[str, float]:
    """Take `SOURCE` or `SOURCE:SCALE` apart; without a scale it is 1. A SOURCE may have colons of its own.

    Raises:
        MtvcraftError: exit 2; there is no source.
    """
    parts = re.fullmatch(r"(.+?)(?::([+-]?(?:\d+\.?\d*|\.\d+)))?", words)
    if parts is None:
        raise MtvcraftError(
            f"`{words}` names no LoRA",
            hint="give its file, and perhaps a scale: `--lora style.safetensors:0.8`",
            exit=Exit.USAGE,
        )
    return parts[1], float(parts[2] or 1)


def load_preset(name: str) -> Preset:
    """Find and read a preset.

    Args:
        name: a built-in name, `ablations/NAME` for one of the paper's ablations, or the path of a YAML file or of a
            folder that holds a `preset.yaml`.

    Raises:
        MtvcraftError: no such preset (the nearest is suggested), or the file has a wrong, missing or misspelt key.
    """
    content, path = find_preset(name)
    built_in = path.parent in (BUILT_IN, ABLATIONS)
    return read_preset(content, name=name if built_in else str(path.resolve()), folder=path.parent)


def find_preset(name: str) -> tuple[dict[str, Any], Path]:
    """Find a preset and return what its file says, unchecked, and where that lies.

    Raises:
        MtvcraftError: no such preset (the nearest is suggested), or the file holds no settings.
    """
    path = BUILT_IN / f"{name}.yaml"
    if not path.is_file():
        path = Path(name).expanduser()
        if path.is_dir():
            path = path / "preset.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(name, [*preset_names(), *ablation_names()], n=1, cutoff=0.4)
            meant = f"did you mean `{near[0]}`? " if near else ""
            raise MtvcraftError(
                f"no preset `{name}`",
                hint=f"{meant}there are {', '.join(preset_names())}, or the path of a preset file",
                exit=Exit.USAGE,
            )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MtvcraftError(
            f"preset `{path}` is not YAML: {str(error).splitlines()[0]}",
            hint="compare it with one that `mtvcraft presets` lists",
            exit=Exit.USAGE,
        ) from error
    if not isinstance(content, dict):
        raise MtvcraftError(
            f"preset `{path}` holds no settings",
            hint="compare it with one that `mtvcraft presets` lists",
            exit=Exit.USAGE,
        )
    return content, path


def read_preset(content: Mapping[str, Any], *, name: str, folder: Path) -> Preset:
    """Turn what a YAML file holds into a preset.

    Raises:
        MtvcraftError: a key is unknown (with a suggestion), missing, or its value doesn't fit.
    """
    given = dict(content)
    auto_size = given.get("size_px") == "auto"
    if auto_size:
        given["size_px"] = list(AUTO_PX)
    _check_keys(given, Preset, name, leave_out=frozenset({"name", "folder", "auto_size"}))
    _check_keys(given["sampler"], Sampler, name, within="sampler.")
    # YAML's 3 is no 3.0, and its lists are no tuples.
    exact: dict[Any, Callable[[Any], Any]] = {float: float, tuple[float, float]: lambda pair: tuple(map(float, pair))}
    kinds = {item.name: item.type for item in fields(Sampler)}
    sampler = {
        key: exact[kinds[key]](value) if kinds[key] in exact else value for key, value in given["sampler"].items()
    }
    given["sampler"] = Sampler(**sampler)
    given["statistics"] = read_statistics(folder / given["statistics"], name)
    given["size_px"] = tuple(given["size_px"])
    given["loras"] = tuple(given.get("loras", ()))
    given["reference_kept"] = float(given.get("reference_kept", 0.0))
    if given.get("rate") is not None:
        given["rate"] = Fraction(str(given["rate"]))
    preset = Preset(name=name, folder=folder, auto_size=auto_size, **given)
    return checked(preset)


def checked(preset: Preset) -> Preset:
    """Give a preset back whose settings go together; they may have been changed by the user since it was read.

    Raises:
        MtvcraftError: exit 2; a value is out of its range, or means nothing to the backbone.
    """
    name, sampler = preset.name, preset.sampler
    start, end = sampler.guidance_range
    most = preset.scheduler.get("num_train_timesteps", 1000) if preset.backbone == "cogvideox" else float("inf")
    for key, value, fits in (
        ("frames", preset.frames, preset.frames % 8 == 1 and preset.frames >= 9),
        ("overlap", preset.overlap, preset.overlap % 8 == 1 and 0 < preset.overlap < preset.frames),
        ("size_px", preset.size_px, all(side % 16 == 0 < side for side in preset.size_px)),
        ("stride", preset.stride, preset.stride >= 1),
        ("rate", preset.rate, preset.rate is None or preset.rate > 0),
        ("tokenizer", dict(preset.tokenizer), set(preset.tokenizer) <= {"channels", "width", "codes", "joints"}),
        ("reference_kept", preset.reference_kept, 0 <= preset.reference_kept <= 255),
        ("sampler.steps", sampler.steps, 1 <= sampler.steps <= most),
        ("sampler.motion_guidance", sampler.motion_guidance, sampler.motion_guidance >= 0),
        ("sampler.text_guidance", sampler.text_guidance, sampler.text_guidance >= 0),
        ("sampler.guidance_range", list(sampler.guidance_range), 0 <= start < end <= 1),
        ("sampler.shift", sampler.shift, sampler.shift > 0),
        ("loras", list(preset.loras), all(map(lora_of, preset.loras))),
    ):
        if not fits:
            raise _wrong_value(name, key, value, "see docs/presets.md for what it can be")
    parts, schedulers = PARTS[preset.backbone], SCHEDULERS[preset.backbone]
    if set(preset.weights) != set(parts):
        raise _wrong_value(name, "weights", dict(preset.weights), f"it names where {', '.join(parts)} come from")
    if sampler.scheduler not in schedulers:
        raise _wrong_value(name, "sampler.scheduler", sampler.scheduler, f"it is one of {', '.join(schedulers)}")
    for backbone, keys in OWN.items():
        if backbone != preset.backbone:
            _check_unset(preset, keys, backbone)
    return preset


def _check_unset(preset: Preset, keys: Sequence[str], backbone: str) -> None:
    """Refuse settings that are not at their default, and belong to another backbone than the preset's."""
    for key in keys:
        settings: Preset | Sampler = preset.sampler if key.startswith("sampler.") else preset
        item = next(item for item in fields(settings) if item.name == key.removeprefix("sampler."))
        default = item.default if item.default_factory is MISSING else item.default_factory()
        if (value := getattr(settings, item.name)) != default:
            word, value = ("size_px", "auto") if key == "auto_size" else (key, value)
            raise _wrong_value(preset.name, word, value, f"leave it out: only a model on {backbone} can do that")


def _check_keys(
    given: object, wanted: type[Any], name: str, *, within: str = "", leave_out: frozenset[str] = frozenset()
) -> None:
    """Refuse keys that are unknown or missing, and values of another kind than the dataclass says."""
    known = {item.name: item for item in fields(wanted) if item.name not in leave_out}
    if not isinstance(given, dict):
        raise _wrong_value(name, within.rstrip("."), given, f"it has the keys {', '.join(known)}")
    for key, value in given.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)
            raise MtvcraftError(
                f"preset `{name}` has an unknown key `{within}{key}`",
                hint=f"did you mean `{within}{near[0]}`?",
                exit=Exit.USAGE,
            )
        if said := _misfit(known[key].type, value):
            raise _wrong_value(name, f"{within}{key}", value, said)
    if missing := sorted(key for key, item in known.items() if _needed(item) and key not in given):
        raise MtvcraftError(
            f"preset `{name}` lacks `{within}{missing[0]}`",
            hint="compare it with one that `mtvcraft presets` lists",
            exit=Exit.USAGE,
        )


def _needed(item: "Field[Any]") -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def _misfit(kind: Any, value: object) -> str:
    """What a value should be and isn't; nothing where it fits."""
    if get_origin(kind) in (Union, UnionType) and type(None) in get_args(kind) and kind != Fraction | None:
        return "" if value is None else _misfit(next(iter(get_args(kind))), value)
    if choices := [choice for choice in get_args(kind) if isinstance(choice, str)]:
        return "" if value in choices else f"it is one of {', '.join(choices)}"
    if kind == Fraction | None:
        words = str(value) if isinstance(value, (int, float, str)) else ""
        rate = value is None or re.fullmatch(r"\d+(\.\d+)?|\d+/[1-9]\d*", words)
        return "" if rate else "it is frames per second, like 25 or 30000/1001"
    if kind == tuple[int, int]:
        pair = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
        return "" if pair else "it is a width and a height, like [512, 512], or `auto` where the backbone is wan"
    if kind == tuple[float, float]:
        shares = isinstance(value, list) and len(value) == 2 and all(type(share) in (int, float) for share in value)
        return "" if shares else "it is two shares of the steps, like [0.0, 0.5]"
    if kind == tuple[str, ...]:
        sources = isinstance(value, list) and all(isinstance(source, str) for source in value)
        return "" if sources else "it is a list of names or paths, like [style.safetensors:0.8]"
    if kind == Mapping[str, str]:
        names = isinstance(value, dict) and all(isinstance(source, str) for source in value.values())
        return "" if names else "it names where the weights of each part come from"
    kinds = {int: (int,), float: (int, float), bool: (bool,), str: (str,), Statistics: (str,), Sampler: (dict,)}
    fits = isinstance(value, kinds.get(kind, (dict,))) and (kind is bool or not isinstance(value, bool))
    return "" if fits else "see docs/presets.md for what it can be"


def _wrong_value(name: str, key: str, value: object, hint: str) -> MtvcraftError:
    return MtvcraftError(f"preset `{name}`: `{key}` can't be `{value}`", hint=hint, exit=Exit.USAGE)


def read_statistics(path: Path, name: str) -> Statistics:
    """Read what joints are normalised with; `name` is the preset's, for messages.

    Raises:
        MtvcraftError: exit 2; the file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tables = {key: np.array(content[key], dtype=np.float32) for key in ("mean_mm", "std_mm")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MtvcraftError(
            f"preset `{name}`: statistics `{path}` can't be read: {error}",
            hint="it is a JSON file with `mean_mm` and `std_mm`, 24 rows of x, y, z each",
            exit=Exit.USAGE,
        ) from error
    if any(table.shape != (24, 3) or not np.isfinite(table).all() for table in tables.values()):
        raise _wrong_value(name, "statistics", path.name, "it has 24 rows of x, y, z in `mean_mm` and `std_mm`")
    return Statistics(**tables)


def _plain(value: object) -> object:
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, (Sampler, Statistics)):
        return {item.name: getattr(value, item.name) for item in fields(value)}
    raise TypeError(f"{type(value).__name__} has no place in a preset")
