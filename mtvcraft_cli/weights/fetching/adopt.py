"""Takes in weights that the user has: checked, then linked or copied, never moved."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mtvcraft_cli.errors import FULL, Exit, MtvcraftError
from mtvcraft_cli.weights.fetching.run import existing
from mtvcraft_cli.weights.fetching.whole import why_broken
from mtvcraft_cli.weights.locate import ENDINGS, files_at, holds, lost_shards, places_in, size_text
from mtvcraft_cli.weights.lock import Lock, weights_folder
from mtvcraft_cli.weights.manifest import File, Released, Source, manifest, metric_networks


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A file of the user's, and where it goes."""

    source: Source | None
    """Where the same is published; None where nowhere."""
    file: File
    place: Path
    target: Path


def adopt(released: Released, folder: Path, *, whole_folder: bool = False) -> list[Taken]:
    """Find weights in a folder, check them, and let them be found from now on.

    Args:
        released: what is sought.
        folder: of the user's, laid out like the repositories or flat.
        whole_folder: whether the folder itself may be the checkpoint.

    Returns:
        What was taken; nothing where the folder doesn't hold it.

    Raises:
        MtvcraftError: exit 6; a file is not what is known under its name, cut off, or missing; exit 5; no room.
    """
    taken = find(released, folder, whole_folder=whole_folder)
    for each in taken:
        wrong = why_broken(each.place)
        if each.source is not None:
            wrong = Lock().mismatch(each.source, each.file, each.place) or wrong
        if wrong:
            raise MtvcraftError(
                f"`{each.place}` is not {released.name}'s: {wrong}",
                hint=f"fetch it anew with `mtvcraft download {released.name}`, or name another folder",
                exit=Exit.WEIGHTS,
            )
    for each in taken:
        _link(each.place, each.target)  # and nothing is pinned: only who publishes it says what it is
    return taken


def find(released: Released, folder: Path, *, whole_folder: bool = False) -> list[Taken]:
    """What a folder holds of what is sought; see `adopt`."""
    if released.sources and not any(file.is_pattern for file in released.sources[0].files):
        return _find_single(released, folder)
    for repo, path in released.elsewhere.items():
        for place in (folder / repo / path, folder / path, folder / Path(path).name):
            if place.is_file():
                return [Taken(source=None, file=File(path=path), place=place, target=weights_folder() / repo / path)]
    places = [*places_in(folder, released), *([folder] if whole_folder and not _holds_others(folder, released) else [])]
    folders = [place for place in places if place.is_dir()]
    whole = next((place for place in folders if holds(place, released)), None)
    if whole is None:
        for cut in (place for place in folders if lost_shards(place)):
            lost = lost_shards(cut)
            raise MtvcraftError(
                f"`{cut}` lacks {len(lost)} of its shards, such as `{lost[0]}`",
                hint="put them there, or fetch them with `mtvcraft download`",
                exit=Exit.WEIGHTS,
            )
        return []
    source = released.sources[0] if released.sources else None
    root = weights_folder() / (source.repo if source else released.name)
    weights = files_at(whole)
    others = [path for path in whole.iterdir() if path.suffix in (".json", ".model") and ".index." not in path.name]
    return [
        Taken(
            source=source,
            file=File(path=f"{released.path}/{path.name}"),
            place=path,
            target=root / released.path / path.name,
        )
        for path in sorted({*weights, *others})
    ]


def _holds_others(folder: Path, released: Released) -> bool:
    """Whether single files of other weights lie there, so that the folder itself isn't the checkpoint."""
    others = [*manifest().values(), *metric_networks().values()]
    others = [each for each in others if not released.name.startswith(each.name)]  # tokenizer-6b may be called so
    names = {Path(file.path).name for each in others for source in each.sources for file in source.files}
    return any(path.name in names and path.suffix in ENDINGS for path in folder.iterdir())


def _find_single(released: Released, folder: Path) -> list[Taken]:
    for source in released.sources:
        file = source.files[0]
        for place in (folder / source.repo / file.path, folder / file.path, folder / Path(file.path).name):
            if place.is_file():
                target = weights_folder() / source.repo / file.path
                return [Taken(source=source, file=file, place=place, target=target)]
    return []


def _link(place: Path, target: Path) -> None:
    """Let `target` be the same file, or where the disks differ a copy of it."""
    place = place.resolve()
    if target.exists() and target.samefile(place):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        draft.unlink(missing_ok=True)
        try:
            os.link(place, draft)
        except OSError:
            _copy(place, draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _copy(place: Path, draft: Path) -> None:
    free_bytes, size_bytes = shutil.disk_usage(existing(draft)).free, place.stat().st_size
    full = MtvcraftError(
        f"`{place}` has {size_text(size_bytes)}, and `{draft.parent}` has {size_text(free_bytes)} free",
        hint="free some space, or name another disk with `--cache-dir`",
        exit=Exit.FIT,
    )
    if free_bytes < size_bytes:
        raise full
    try:
        shutil.copyfile(place, draft)
    except OSError as error:
        if error.errno in FULL:
            raise full from error
        raise
