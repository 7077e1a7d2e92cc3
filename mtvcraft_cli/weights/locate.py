"""Names -> files on this machine; never touches the network."""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.preset import BUILT_IN, Preset, lora_of, preset_names
from mtvcraft_cli.weights.lock import Lock, weights_folder
from mtvcraft_cli.weights.manifest import Released, Source, manifest, metric_networks

ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
"""What weight files are called; of several kinds in a folder the first is read."""
WORDS = "tokenizer.json"
"""All that a text tokenizer is made of."""
SEEDED = ("tokenizer", "transformer", "vae")
"""Parts that random numbers can stand for."""
ALONE = {"no_motion": "unconditional_motion_token"}
"""Parts that are one tensor of a checkpoint, which is read without the rest."""


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
        if self.seed is not None or (self.path is not None and self.path.is_relative_to(BUILT_IN)):
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
        if self.part.startswith("lora-"):  # peft's, which says the scale
            beside = (self.path if self.path.is_dir() else self.path.parent) / "adapter_config.json"
            config += [beside] if beside.is_file() else []
        return files_at(self.path) + config

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


def files_at(place: Path) -> list[Path]:
    """The weights at a place, with the index of shards: those of one kind, or the words of a text tokenizer."""
    if place.is_file() and not place.name.endswith(".index.json"):
        return [place]
    folder = place if place.is_dir() else place.parent
    found = {ending: sorted([*folder.glob(f"*{ending}"), *folder.glob(f"*{ending}.index.json")]) for ending in ENDINGS}
    whole = [ending for ending in ENDINGS if any(path.suffix == ".json" for path in found[ending])]
    for ending in (*whole, *ENDINGS):  # those with an index first: see `read_tensors`
        if found[ending]:
            return found[ending]
    return sorted(folder.glob(WORDS))


def lost_shards(place: Path) -> list[str]:
    """Names of files that an index at this place lists and that aren't there."""
    lost: list[str] = []
    for index in (path for path in files_at(place) if path.name.endswith(".index.json")):
        try:
            listed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # who reads it says what is wrong
        lost += sorted(str(shard) for shard in listed if not (index.parent / str(shard)).is_file())
    return lost


def _locate(part: str, source: str, preset: Preset, folder: Path | None) -> Located:
    if seed := re.fullmatch(r"seeded:(\d+)", source):
        return Located(part=part, source=source, path=None, seed=int(seed[1]))
    if released := manifest().get(source):
        path = find_released(released, folder, ALONE.get(part))
        return Located(part=part, source=source, path=path, released=released)
    path = preset.folder / Path(source).expanduser()
    if not path.exists():
        raise MtvcraftError(
            f"{part} of preset `{preset.name}`: there is no `{path}`",
            hint=f"name a file or folder, or one of {', '.join(manifest())}",
            exit=Exit.WEIGHTS,
        )
    return Located(part=part, source=source, path=path)


def find_released(released: Released, folder: Path | None, tensor: str | None = None) -> Path | None:
    """Look for published weights in the user's folder, then in the hub's cache and in our own.

    Args:
        released: what is sought.
        folder: of the user's own, laid out like the repositories or flat.
        tensor: all that is needed of it; shards without it may be missing.
    """
    places = _places(released, folder)
    return next((_converted(place) for place in places if holds(place, released, tensor)), None)


def find_incomplete(released: Released, folder: Path | None) -> Path | None:
    """Where published weights lie that lack files which their index lists; None where there are no such."""
    return next((place for place in _places(released, folder) if place.is_dir() and lost_shards(place)), None)


def _places(released: Released, folder: Path | None) -> list[Path]:
    """Where published weights may lie: the user's folder, the hub's cache, our own folder."""
    places = [] if folder is None else places_in(folder, released)
    for repo, path in _repositories(released):
        places += [snapshot / path for snapshot in snapshots(repo)]
    return places + [weights_folder() / (repo or released.name) / path for repo, path in _repositories(released)]


def places_in(folder: Path, released: Released) -> list[Path]:
    """Where in a folder of the user's own published weights may lie."""
    places = [folder / repo / path for repo, path in _repositories(released)]
    places += [folder / name for name in (released.path, released.name, *released.elsewhere.values())]
    return places + [folder / Path(path).name for path in (released.path, *released.elsewhere.values())]


def locate_metric(name: str, folder: Path | None = None) -> Path | None:
    """Find a network that a metric looks through; the files of all its sources serve.

    Args:
        name: inception, i3d, resnet3d, vgg16 or alexnet.
        folder: of the user's own, looked at before what was downloaded.

    Returns:
        A file with a hash that is known or was pinned: `.pt` or `.pth` of torch, or `.ckpt`, a pickle of NumPy arrays
        out of a Python package. None where there is none.
    """
    lock = Lock()
    for source in metric_networks()[name].sources:
        file = source.files[0]
        for place in _metric_places(source, file.path, folder):
            if place.is_file() and not lock.mismatch(source, file, place):
                return place
    return None


def _metric_places(source: Source, path: str, folder: Path | None) -> Iterator[Path]:
    """Where a file of a source may lie: the user's folder, the hub's cache, our own folder."""
    if folder is not None:
        yield from (folder / source.repo / path, folder / path, folder / Path(path).name)
    if source.kind == "hub":
        yield from (snapshot / path for snapshot in snapshots(source.repo, dataset=source.dataset))
    yield weights_folder() / source.repo / path


def _repositories(released: Released) -> list[tuple[str, str]]:
    """Everywhere that the weights are published, or "" if nowhere: the repository, and the file or folder in it."""
    own = [(repo or "", released.path) for repo in (released.repo, *released.also)]
    others = [(source.repo, released.path) for source in released.sources if source.kind != "hub"]
    return [*own, *others, *released.elsewhere.items()]


def hub_cache() -> Path:
    """The folder of huggingface_hub's cache, by its own rules."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = Path(os.environ.get("HF_HOME", f"{cache}/huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()


def snapshots(repo: str, *, dataset: bool = False) -> list[Path]:
    """Folders of the hub's cache that hold a revision of `repo`, that of `main` first."""
    root = hub_cache() / f"{'datasets' if dataset else 'models'}--{repo.replace('/', '--')}"
    main = root / "refs" / "main"
    first = [root / "snapshots" / main.read_text(encoding="utf-8").strip()] if main.is_file() else []
    newest = sorted((root / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return first + [path for path in newest if path not in first]


def _converted(place: Path) -> Path:
    """The safetensors that `download --convert` left beside a single file, or that file."""
    beside = place.with_suffix(".safetensors")
    return beside if place.suffix in (".pt", ".bin", ".pth") and beside.is_file() else place


def holds(place: Path, released: Released, tensor: str | None = None) -> bool:
    """Whether a file or folder has all that is sought, and doesn't say that it is another model's."""
    if not place.is_dir():
        return place.is_file()
    if released.words:
        return (place / WORDS).is_file()
    if not any(path.suffix in ENDINGS for path in place.iterdir()):
        return False
    if lost_shards(place) and (tensor is None or shard_of(place, tensor) is None):
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
    for part in parts.values():
        if part.seed is not None and part.part not in SEEDED:
            raise MtvcraftError(
                f"preset `{preset.name}` has no {part.part}: `{part.source}` can't stand for one",
                hint="name a file, a folder or a line of the manifest in its `weights`",
                exit=Exit.WEIGHTS,
            )
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
    raise MtvcraftError(
        f"preset `{preset.name}` needs weights that are not on this machine: {names}",
        hint=f"fetch them: `{command_for(preset, missing)}`; or name a folder that has them with `--weights DIR`",
        exit=Exit.WEIGHTS,
    )


def command_for(preset: Preset, missing: Iterable[Located]) -> str:
    """The command that fetches missing parts of a preset."""
    whole = {source for part, source in preset.weights.items() if part not in ALONE}
    names = list(dict.fromkeys(part.source for part in missing))
    if preset.name in preset_names() and all(name in whole for name in names):
        return f"mtvcraft download {preset.name}"
    return f"mtvcraft download {' '.join(names)}"


def size_text(size_bytes: int | None) -> str:
    """12.7 GB, 431 MB, or `size unknown`."""
    if size_bytes is None:
        return "size unknown"
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.1f} GB"
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB"
