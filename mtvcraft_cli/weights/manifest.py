"""What is published where: the two YAML files of this room as frozen dataclasses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

MODELS = Path(__file__).with_name("manifest.yaml")
METRICS = Path(__file__).with_name("metrics.yaml")


@dataclass(frozen=True, kw_only=True)
class File:
    """A file in a repository, or a pattern for several of one folder."""

    path: str
    bytes: int | None = None
    """Exact size; None where nobody says it."""
    sha256: str | None = None
    git_sha1: str | None = None
    """Git's name for the content, where that is all that is known of it."""

    @property
    def is_pattern(self) -> bool:
        """Whether it stands for several files, whose names are learnt from the repository."""
        return "*" in self.path


@dataclass(frozen=True, kw_only=True)
class Source:
    """One place that files come from."""

    kind: Literal["hub", "http", "package"]
    repo: str
    """`owner/name` on the hub; where a release lies; or a Python package, `name==version`."""
    files: Sequence[File]
    dataset: bool = False
    """Whether the hub has it among its data sets."""
    url: str = ""
    """What `path` is put behind; for http."""
    archive_sha256: str = ""
    """Hash of the package's source archive."""


@dataclass(frozen=True, kw_only=True)
class Released:
    """One line of the manifest: a file or folder of weights that somebody published."""

    name: str
    repo: str | None = None
    """Repository on the hub; None where it is not published there."""
    path: str
    """File or folder inside the repository."""
    files: Sequence[File] = ()
    """What is fetched of the repository."""
    bytes: int | None
    """Size of the tensors, about; None where it is not known."""
    licence: str
    limited: str = ""
    """How the licence limits use, where it does; then it has to be accepted."""
    own: str = ""
    """How a user gets what may not be redistributed; then there is nothing to fetch."""
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
    sources: Sequence[Source] = ()
    """Where it comes from, the first choice first; each alone is enough."""
    optional: bool = False
    """Whether it is only fetched by its name."""


@cache
def manifest() -> dict[str, Released]:
    """Every published set of model weights by its name."""
    return _read(MODELS)


@cache
def metric_networks() -> dict[str, Released]:
    """The networks that metrics look through, by name: inception, i3d, resnet3d, vgg16, alexnet."""
    return _read(METRICS)


def _read(path: Path) -> dict[str, Released]:
    lines: dict[str, dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: _released(name, **line) for name, line in lines.items()}


def _released(
    name: str, *, files: Sequence[Mapping[str, Any]] = (), sources: Sequence[Mapping[str, Any]] = (), **line: Any
) -> Released:
    own = _files(files)
    hubs = [repo for repo in (line.get("repo"), *line.get("also", ())) if repo and own]
    places = [Source(kind="hub", repo=repo, files=own) for repo in hubs]
    places += [Source(**{**source, "files": _files(source["files"])}) for source in sources]
    if "path" not in line:  # that of its first source
        line["path"] = places[0].files[0].path
    return Released(name=name, files=own, sources=tuple(places), **line)


def _files(given: Sequence[Mapping[str, Any]]) -> tuple[File, ...]:
    return tuple(File(**file) for file in given)
