"""Names -> files on this machine; never touches the network."""

import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset, lora_of

ENDINGS = {".safetensors", ".bin", ".pt", ".pth"}
WORDS = "tokenizer.json"
"""All that a text tokenizer is made of."""
ALONE = {"no_motion": "unconditional_motion_token"}
"""Parts that are one tensor of a checkpoint, which is read without the rest."""
MANIFEST = Path(__file__).with_name("manifest.yaml")


@dataclass(frozen=True, kw_only=True)
class Released:
    """One line of the manifest: a file or folder of weights that somebody published."""

    name: str
    repo: str | None
    """Repository on the hub; None where it is not published there."""
    path: str
    """File or folder inside the repository."""
    bytes: int | None
    """Size of the tensors, about; None where it is not known."""
    licence: str
    also: Sequence[str] = ()
    """Other names that the repository goes by."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Other repositories that hold the same, and the file or folder there."""
    kind: str = ""
    """What a `config.json` beside the weights calls the model; one that says otherwise belongs to another model."""
    words: bool = False
    """Whether it is a text tokenizer, which is a `tokenizer.json` and no weights."""
    sha256: Sequence[str] = ()
    """Known hashes, of which a file that runs code must have one."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """Where one part of a preset comes from."""

    part: str
    source: str
    """As the preset says it: a manifest name, a path, or `seeded:N`."""
    path: Path | None
    """The file or folder; None where it is missing or seeded."""
    seed: int | None = None
    released: Released | None = None

    @property
    def missing(self) -> bool:
        """Whether the preset can't run for want of this."""
        return self.path is None and self.seed is None

    @property
    def licence(self) -> str:
        """The terms that come with it."""
        if self.seed is not None:
            return "Apache-2.0"
        return self.released.licence if self.released else "that of your own files"

    @property
    def files(self) -> list[Path]:
        """The weight files themselves, with the `config.json` beside them; of a single tensor only those it lies in."""
        if self.path is None:
            return []
        if self.part in ALONE and (shard := shard_of(self.path, ALONE[self.part])) is not None:
            return [shard]
        config = [path for path in (self._config_file,) if path is not None]
        if self.path.is_file() and not self.path.name.endswith(".index.json"):
            return [self.path, *config]
        folder = self.path if self.path.is_dir() else self.path.parent
        ours = [path for path in folder.iterdir() if path.suffix in ENDINGS or path.name.endswith(".index.json")]
        return sorted(ours or folder.glob(WORDS)) + config

    def config(self) -> dict[str, Any]:
        """The `config.json` beside the weights; nothing where there is none."""
        file = self._config_file
        if file is None:
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise MtvcraftError(f"`{file}` is not JSON: {error}", hint="fetch it again", exit=Exit.WEIGHTS) from error

    @property
    def _config_file(self) -> Path | None:
        """None for published single files too: a repository that lays them side by side has another model's there."""
        if self.path is None or (self.released and self.path.is_file()):
            return None
        file = (self.path if self.path.is_dir() else self.path.parent) / "config.json"
        return file if file.is_file() else None

    @property
    def size_bytes(self) -> int:
        """What is read of it; 0 where it is missing or seeded, and next to nothing for a single tensor."""
        return 0 if self.part in ALONE else sum(file.stat().st_size for file in self.files)


def manifest() -> dict[str, Released]:
    """Every published set of weights by its name."""
    lines: dict[str, dict[str, Any]] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return {name: Released(name=name, **line) for name, line in lines.items()}


def locate(preset: Preset, folder: Path | None, leave_out: Collection[str] = ()) -> dict[str, Located]:
    """Find every part that a preset needs: those of its backbone, and its LoRAs.

    Args:
        preset: whose `weights` and `loras` are looked up.
        folder: of the user's own, laid out like the repositories; looked at before the hub's cache.
        leave_out: parts that this run can do without, as the text encoder where what it makes is kept.

    Returns:
        For each part (see `preset.PARTS`; "lora-1", "lora-2" and so on) where it is, or that it is missing. "No motion"
        tokens are only needed where motion guidance is on.

    Raises:
        MtvcraftError: the preset names something that is neither in the manifest nor a file (exit 6).
    """
    unused = {*leave_out, *(["no_motion"] if preset.sampler.motion_guidance == 1 else [])}
    sources = {part: source for part, source in preset.weights.items() if part not in unused}
    sources |= {f"lora-{number}": lora_of(words)[0] for number, words in enumerate(preset.loras, start=1)}
    return {part: _locate(part, source, preset, folder) for part, source in sources.items()}


def shard_of(path: Path, tensor: str) -> Path | None:
    """The file of a sharded checkpoint that holds a tensor; None where there is no such file, shard or tensor.

    Args:
        path: the folder of the checkpoint, or its `.index.json`.
        tensor: the name that it has in the checkpoint.
    """
    index = next(iter(sorted(path.glob("*.index.json"))), path)
    if not index.name.endswith(".index.json"):
        return None
    try:
        shard = json.loads(index.read_text(encoding="utf-8"))["weight_map"][tensor]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    file = index.parent / Path(str(shard)).name
    return file if file.is_file() else None


def _locate(part: str, source: str, preset: Preset, folder: Path | None) -> Located:
    if seed := re.fullmatch(r"seeded:(\d+)", source):
        return Located(part=part, source=source, path=None, seed=int(seed[1]))
    if released := manifest().get(source):
        return Located(part=part, source=source, path=find_released(released, folder), released=released)
    path = (preset.folder / source).expanduser()
    if not path.exists():
        raise MtvcraftError(
            f"{part} of preset `{preset.name}`: there is no `{path}`",
            hint=f"name a file or folder, or one of {', '.join(manifest())}",
            exit=Exit.WEIGHTS,
        )
    return Located(part=part, source=source, path=path)


def find_released(released: Released, folder: Path | None) -> Path | None:
    """Look for published weights in the user's folder, then in the hub's cache."""
    places: list[Path] = []
    if folder is not None:
        places += [folder / repo / path for repo, path in _repositories(released)]
        places += [folder / name for name in (released.path, released.name, *released.elsewhere.values())]
        places += [folder / Path(path).name for path in (released.path, *released.elsewhere.values())]
    for repo, path in _repositories(released):
        places += [snapshot / path for snapshot in _snapshots(repo)]
    return next((place for place in places if _holds(place, released)), None)


def _repositories(released: Released) -> list[tuple[str, str]]:
    """Everywhere on the hub that the weights are: the repository, and the file or folder in it."""
    own = [(repo, released.path) for repo in (released.repo, *released.also) if repo]
    return own + list(released.elsewhere.items())


def hub_cache() -> Path:
    """The folder of huggingface_hub's cache, by its own rules."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def _snapshots(repo: str) -> list[Path]:
    """Folders of the hub's cache that hold a revision of `repo`, that of `main` first."""
    root = hub_cache() / f"models--{repo.replace('/', '--')}"
    main = root / "refs" / "main"
    first = [root / "snapshots" / main.read_text(encoding="utf-8").strip()] if main.is_file() else []
    newest = sorted((root / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return first + [path for path in newest if path not in first]


def _holds(place: Path, released: Released) -> bool:
    """Whether a file or folder has what is sought, and doesn't say that it is another model's."""
    if not place.is_dir():
        return place.is_file()
    if released.words:
        return (place / WORDS).is_file()
    if not any(path.suffix in ENDINGS for path in place.iterdir()):
        return False
    try:
        said = json.loads((place / "config.json").read_text(encoding="utf-8"))
        kinds = [said.get("_class_name"), *said.get("architectures", [])]
    except (OSError, ValueError, AttributeError, TypeError):
        return True
    return not released.kind or released.kind in kinds or not any(kinds)


def require(preset: Preset, parts: Mapping[str, Located]) -> None:
    """Refuse to start without weights, and say how to get them.

    Raises:
        MtvcraftError: exit 6; a part is missing.
    """
    missing = [part for part in parts.values() if part.missing]
    if not missing:
        return
    first = missing[0]
    assert first.released is not None  # only a manifest name can be missing: a path is checked when it is located
    if first.released.repo is None:
        raise MtvcraftError(
            f"the weights of preset `{preset.name}` are not published",
            hint=f"use 7b, or a folder of your own: `--weights DIR` with the checkpoint in `DIR/{first.released.path}`",
            exit=Exit.WEIGHTS,
        )
    names = ", ".join(f"{part.part} ({size_text(part.released.bytes if part.released else None)})" for part in missing)
    commands = "; ".join(
        f"hf download {part.released.repo} --include '{part.released.path}*'" for part in missing if part.released
    )
    raise MtvcraftError(
        f"preset `{preset.name}` needs weights that are not on this machine: {names}",
        hint=f"fetch them: {commands}; or name a folder that has them with `--weights DIR`",
        exit=Exit.WEIGHTS,
    )


def size_text(size_bytes: int | None) -> str:
    """12.7 GB, 431 MB, or `size unknown`."""
    if size_bytes is None:
        return "size unknown"
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"
