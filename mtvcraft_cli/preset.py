"""A name on the command line becomes presets/NAME.yaml becomes a frozen dataclass."""

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml
from numpy.typing import NDArray

from mtvcraft_cli.errors import Exit, MtvcraftError

Differential = Literal["none", "window", "reference"]
BUILT_IN = next(
    folder
    for folder in (Path(__file__).parent / "presets", Path(__file__).parent.parent / "presets")
    if folder.is_dir()
)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How noise becomes latents."""

    scheduler: Literal["dpm", "ddim"] = "dpm"
    """`dpm` draws fresh noise in each step and needs fewer of them; `ddim` draws none after the first."""
    steps: int = 50
    """Denoising steps: more is finer and slower."""
    motion_guidance: float = 3.0
    """How hard the motion tokens pull; 1.0 is off and halves the work. Above about 9 artefacts appear (paper)."""


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
    backbone: Literal["cogvideox"]
    """Which transformer, VAE and sampler work together."""
    frames: int = 49
    """Frames of a full window, 8n + 1: the VAE keeps the first frame and packs the rest by four, in pairs."""
    overlap: int = 9
    """Frames that a window takes over from the one before, 8n + 1."""
    size_px: tuple[int, int]
    """Width and height of the frames made."""
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
    sampler: Sampler
    reference_latent: Literal["sample", "mean"] = "sample"
    """What is taken of the VAE's posterior of the reference picture."""
    reference_scaled: bool = False
    """Whether the reference latents are multiplied by the VAE's scaling factor, as the noisy ones are."""
    tokenizer: Mapping[str, Any]
    """Sizes of the 4DMoT tokenizer."""
    transformer: Mapping[str, Any]
    """Sizes of the MV-DiT; a `config.json` beside the weights goes before them."""
    vae: Mapping[str, Any]
    """Sizes of the video VAE; a `config.json` beside the weights goes before them."""
    scheduler: Mapping[str, Any]
    """The noise schedule that the base model was trained with."""
    weights: Mapping[str, str]
    """For each of tokenizer, transformer and vae: a name of the weights manifest, a path, or `seeded:N`."""

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


def preset_names() -> list[str]:
    """The presets that come in the package, smallest first."""
    return sorted((path.stem for path in BUILT_IN.glob("*.yaml")), key=lambda name: (name != "mini", name))


def load_preset(name: str) -> Preset:
    """Find and read a preset.

    Args:
        name: a built-in name, the path of a YAML file, or of a folder that holds a `preset.yaml`.

    Raises:
        MtvcraftError: no such preset (the nearest is suggested), or the file has a wrong, missing or misspelt key.
    """
    path = BUILT_IN / f"{name}.yaml"
    if not path.is_file():
        path = Path(name).expanduser()
        if path.is_dir():
            path = path / "preset.yaml"
        if not path.is_file():
            near = difflib.get_close_matches(name, preset_names(), n=1, cutoff=0.4)
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
    built_in = path.parent == BUILT_IN
    return read_preset(content, name=name if built_in else str(path.resolve()), folder=path.parent)


def read_preset(content: Mapping[str, Any], *, name: str, folder: Path) -> Preset:
    """Turn what a YAML file holds into a preset.

    Raises:
        MtvcraftError: a key is unknown (with a suggestion), missing, or its value doesn't fit.
    """
    given = dict(content)
    _check_keys(given, Preset, name, leave_out=frozenset({"name", "folder"}))
    _check_keys(given["sampler"], Sampler, name, within="sampler.")
    given["sampler"] = Sampler(**given["sampler"])
    given["statistics"] = _read_statistics(folder / given["statistics"], name)
    given["size_px"] = tuple(given["size_px"])
    if given.get("rate") is not None:
        given["rate"] = Fraction(str(given["rate"]))
    preset = Preset(name=name, folder=folder, **given)
    for key, value, fits in (
        ("frames", preset.frames, preset.frames % 8 == 1 and preset.frames >= 9),
        ("overlap", preset.overlap, preset.overlap % 8 == 1 and 0 < preset.overlap < preset.frames),
        ("size_px", preset.size_px, all(side % 16 == 0 < side for side in preset.size_px)),
        ("stride", preset.stride, preset.stride >= 1),
        ("rate", preset.rate, preset.rate is None or preset.rate > 0),
        ("tokenizer", dict(preset.tokenizer), set(preset.tokenizer) <= {"channels", "width", "codes", "joints"}),
        ("weights", dict(preset.weights), set(preset.weights) == {"tokenizer", "transformer", "vae"}),
        ("sampler.steps", preset.sampler.steps, preset.sampler.steps >= 1),
        ("sampler.motion_guidance", preset.sampler.motion_guidance, preset.sampler.motion_guidance >= 0),
    ):
        if not fits:
            raise _wrong_value(name, key, value, "see docs/presets.md for what it can be")
    return preset


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
    if missing := sorted(key for key, item in known.items() if item.default is MISSING and key not in given):
        raise MtvcraftError(
            f"preset `{name}` lacks `{within}{missing[0]}`",
            hint="compare it with one that `mtvcraft presets` lists",
            exit=Exit.USAGE,
        )


def _misfit(kind: Any, value: object) -> str:
    """What a value should be and isn't; nothing where it fits."""
    if choices := [choice for choice in get_args(kind) if isinstance(choice, str)]:
        return "" if value in choices else f"it is one of {', '.join(choices)}"
    if kind == Fraction | None:
        words = str(value) if isinstance(value, (int, float, str)) else ""
        rate = value is None or re.fullmatch(r"\d+(\.\d+)?|\d+/[1-9]\d*", words)
        return "" if rate else "it is frames per second, like 25 or 30000/1001"
    if kind == tuple[int, int]:
        pair = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
        return "" if pair else "it is a width and a height, like [512, 512]"
    if kind == Mapping[str, str]:
        names = isinstance(value, dict) and all(isinstance(source, str) for source in value.values())
        return "" if names else "it names where tokenizer, transformer and vae come from"
    kinds = {int: (int,), float: (int, float), bool: (bool,), str: (str,), Statistics: (str,), Sampler: (dict,)}
    fits = isinstance(value, kinds.get(kind, (dict,))) and (kind is bool or not isinstance(value, bool))
    return "" if fits else "see docs/presets.md for what it can be"


def _wrong_value(name: str, key: str, value: object, hint: str) -> MtvcraftError:
    return MtvcraftError(f"preset `{name}`: `{key}` can't be `{value}`", hint=hint, exit=Exit.USAGE)


def _read_statistics(path: Path, name: str) -> Statistics:
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
