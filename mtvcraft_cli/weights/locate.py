"""Names -> files on this machine; never touches the network."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import Preset

ENDINGS = {".safetensors", ".bin", ".pt", ".pth"}
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
        """The weight files themselves, with the `config.json` beside them."""
        if self.path is None:
            return []
        folder = self.path if self.path.is_dir() else self.path.parent
        config = [path for path in (folder / "config.json",) if path.is_file()]
        if self.path.is_file() and not self.path.name.endswith(".index.json"):
            return [self.path, *config]
        ours = (path for path in folder.iterdir() if path.suffix in ENDINGS or path.name.endswith(".index.json"))
        return sorted(ours) + config

    def config(self) -> dict[str, Any]:
        """The `config.json` beside the weights; nothing where there is none."""
        folder = self.path if self.path is None or self.path.is_dir() else self.path.parent
        file = folder and folder / "config.json"
        if file is None or not file.is_file():
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise MtvcraftError(f"`{file}` is not JSON: {error}", hint="fetch it again", exit=Exit.WEIGHTS) from error

    @property
    def size_bytes(self) -> int:
        """What lies there; 0 where it is missing or seeded."""
        return sum(file.stat().st_size for file in self.files)


def manifest() -> dict[str, Released]:
    """Every published set of weights by its name."""
    lines: dict[str, dict[str, Any]] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return {name: Released(name=name, **line) for name, line in lines.items()}


def locate(preset: Preset, folder: Path | None) -> dict[str, Located]:
    """Find every part that a preset is made of.

    Args:
        preset: whose `weights` are looked up.
        folder: of the user's own, laid out like the repositories; looked at before the hub's cache.

    Returns:
        For each part (tokenizer, transformer, vae) where it is, or that it is missing.

    Raises:
        MtvcraftError: the preset names something that is neither in the manifest nor a file (exit 6).
    """
    return {part: _locate(part, source, preset, folder) for part, source in preset.weights.items()}


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
        places += [folder / released.path, folder / released.name, folder / Path(released.path).name]
        places += [folder / repo / released.path for repo in _repositories(released)]
    for repo in _repositories(released):
        places += [snapshot / released.path for snapshot in _snapshots(repo)]
    return next((place for place in places if _holds_weights(place)), None)


def _repositories(released: Released) -> list[str]:
    return [repo for repo in (released.repo, *released.also) if repo]


def _snapshots(repo: str) -> list[Path]:
    """Folders of the hub's cache that hold a revision of `repo`, that of `main` first."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    root = hub / f"models--{repo.replace('/', '--')}"
    main = root / "refs" / "main"
    first = [root / "snapshots" / main.read_text(encoding="utf-8").strip()] if main.is_file() else []
    newest = sorted((root / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return first + [path for path in newest if path not in first]


def _holds_weights(place: Path) -> bool:
    if place.is_file():
        return True
    return place.is_dir() and any(path.suffix in ENDINGS for path in place.iterdir())


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
