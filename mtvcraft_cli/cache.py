"""What a stage made, kept by the content of its inputs and the settings that matter to it."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtvcraft_cli.device.scratch import IN_USE, is_locked
from mtvcraft_cli.errors import Exit, MtvcraftError

VERSION = 1
"""Raised whenever a stage computes something else from the same inputs: older entries are then never found."""
CONTENTS = "entry.json"
LARGE_BYTES = 64 * 2**20
"""Hashes of files from this size on are remembered."""


def default_folder() -> Path:
    """The cache that `MTVCRAFT_CACHE` names, else the user's."""
    if named := os.environ.get("MTVCRAFT_CACHE"):
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("mtvcraft", appauthor=False)


def open_cache() -> "Cache":
    """The cache, ready to be written to.

    Raises:
        MtvcraftError: exit 2; its folder can't be made or is closed to us.
    """
    folder = default_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
    else:
        why = "" if os.access(folder, os.W_OK) else "it is closed to writing"
    if why:
        raise MtvcraftError(
            f"the cache folder `{folder}` can't be used: {why}",
            hint="name another with `--cache-dir` or MTVCRAFT_CACHE",
            exit=Exit.USAGE,
        )
    return Cache(folder)


def key_of(stage: str, parts: Mapping[str, Any]) -> str:
    """The name of an entry: a hash over the stage and everything that its result depends on."""
    text = json.dumps({"stage": stage, "version": VERSION, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One finished result."""

    stage: str
    key: str
    folder: Path
    size_bytes: int
    made: float
    """Seconds since 1970."""
    used: float
    """When it was last found, or made."""


class Cache:
    """A folder with a subfolder per stage and, in it, one folder per entry.

    An entry appears by renaming a finished folder, and is read only if every file has the length and hash that it was
    written with: one that a crash or a full disk cut off does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, stage: str, key: str) -> Path | None:
        """The folder of a whole entry, or None; it counts as used now."""
        folder = self.folder / stage / key
        if not _is_whole(folder):
            return None
        with suppress(OSError):  # a cache that is only read keeps the time it has
            os.utime(folder)
        return folder

    @contextmanager
    def make(self, stage: str, key: str) -> Iterator[Path]:
        """Give a folder to write an entry's files into; it becomes the entry when the block ends without an error."""
        final = self.folder / stage / key
        draft = final.with_name(_draft_name(key))
        draft.mkdir(parents=True)
        try:
            yield draft
            files = {path.name: _told(path) for path in sorted(draft.iterdir())}
            (draft / CONTENTS).write_text(json.dumps({"files": files}, indent=1), encoding="utf-8")
            if not _is_whole(final):
                shutil.rmtree(final, ignore_errors=True)
                try:
                    draft.rename(final)
                except OSError:
                    if not _is_whole(final):  # else another run was as far a moment earlier
                        raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """Every finished entry, oldest first."""
        found = []
        for contents in self.folder.glob(f"*/*/{CONTENTS}"):
            folder = contents.parent
            if folder.name.startswith("."):
                continue  # a draft
            with suppress(FileNotFoundError):  # another run has just removed it
                size_bytes = sum(path.stat().st_size for path in folder.iterdir())
                made, used = contents.stat().st_mtime, folder.stat().st_mtime
                found.append(Entry(folder.parent.name, folder.name, folder, size_bytes, made, used))
        return sorted(found, key=lambda entry: entry.made)

    def broken(self) -> list[Entry]:
        """Entries whose files are no longer what was written."""
        return [entry for entry in self.entries() if not _is_whole(entry.folder)]

    def clear(self, stage: str | None = None) -> int:
        """Delete the entries of one stage or of all, and the drafts of dead runs; runs that are alive keep theirs.

        Returns:
            The bytes that were freed.
        """
        entries = [entry for entry in self.entries() if stage in (None, entry.stage)]
        freed_bytes = sum(entry.size_bytes for entry in entries)
        for entry in entries:
            _remove(entry)
        for draft in self._drafts():
            if stage in (None, draft.parent.name) and not _in_use(draft):
                shutil.rmtree(draft, ignore_errors=True)
        for folder in self.folder.glob("*/"):
            if stage in (None, folder.name):
                with suppress(OSError):  # something is left in it
                    folder.rmdir()
        if stage is None:
            (self.folder / "hashes.json").unlink(missing_ok=True)
        return freed_bytes

    def prune(self, limit_bytes: int) -> int:
        """Delete entries until those left take no more than a limit, those first that were not used for longest.

        Returns:
            The bytes that were freed.
        """
        entries = sorted(self.entries(), key=lambda entry: entry.used)
        kept_bytes = total_bytes = sum(entry.size_bytes for entry in entries)
        for entry in entries:
            if kept_bytes <= limit_bytes:
                break
            _remove(entry)
            kept_bytes -= entry.size_bytes
        return total_bytes - kept_bytes

    def _drafts(self) -> list[Path]:
        return list(self.folder.glob("*/.*.part"))

    def sha256_of(self, path: Path) -> str:
        """The hash of a file; that of a large one (weights) is remembered by its place, size and time."""
        stat = path.stat()
        if stat.st_size < LARGE_BYTES:
            return sha256_of(path)
        known, seen = self._hashes(), _seen(path, stat)
        if seen not in known:
            known[seen] = sha256_of(path)
            self._write_hashes(known)
        return known[seen]

    def remember(self, path: Path, sha256: str) -> None:
        """Take it as known what the hash of a large file is, as of one that was moved since."""
        stat = path.stat()
        if stat.st_size >= LARGE_BYTES:
            self._write_hashes(self._hashes() | {_seen(path, stat): sha256})

    def _hashes(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.folder / "hashes.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # none yet, or damaged: it is only a shortcut
            return {}

    def _write_hashes(self, known: Mapping[str, str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        memory = self.folder / "hashes.json"
        draft = memory.with_name(f".{uuid.uuid4().hex[:8]}.part")
        draft.write_text(json.dumps(known, indent=1), encoding="utf-8")
        draft.replace(memory)


def _draft_name(key: str) -> str:
    """A hidden name that no other run takes, and that says whose it is."""
    return f".{key}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part"


def _in_use(draft: Path) -> bool:
    """Whether the run that a draft belongs to is alive on this machine."""
    if (draft / IN_USE).exists():
        return is_locked(draft)
    owner = draft.name.split(".")[-2].partition("-")[0]
    try:
        os.kill(int(owner), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:
        return True  # alive, and somebody else's
    return True


def _remove(entry: Entry) -> None:
    """Delete an entry: at once, so that nobody finds half of it; another run may have been quicker."""
    gone = entry.folder.with_name(_draft_name(entry.key))
    with suppress(FileNotFoundError):
        entry.folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _seen(path: Path, stat: os.stat_result) -> str:
    """What tells one state of a file from another."""
    return f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _told(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _is_whole(folder: Path) -> bool:
    contents = folder / CONTENTS
    if not contents.is_file():
        return False
    try:
        files = json.loads(contents.read_text(encoding="utf-8"))["files"]
        return all((folder / name).is_file() and _told(folder / name) == told for name, told in files.items())
    except (OSError, ValueError, KeyError):
        return False
