"""What is known of files that nobody publishes a hash of: pinned when first fetched, refused when they change."""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha1
from pathlib import Path
from typing import Any

from mtvcraft_cli.cache import Cache, default_folder
from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.weights.manifest import File, Released, Source


def weights_folder() -> Path:
    """Where weights lie that don't come from the hub, laid out like the repositories."""
    return default_folder() / "weights"


class Lock:
    """Sizes and hashes by source and file, in `lock.json` of the weights' folder; small, and read anew each time."""

    @property
    def path(self) -> Path:
        """The file."""
        return weights_folder() / "lock.json"

    def pinned(self, source: Source, path: str) -> tuple[int, str] | None:
        """Size and SHA-256 of a file when it was first fetched; None where it never was."""
        told = self._read()["files"].get(_name(source, path))
        return None if told is None else (int(told["bytes"]), str(told["sha256"]))

    def pin(self, source: Source, path: str, size_bytes: int, sha256: str) -> None:
        """Remember what a file is, for good."""
        self._write("files", {_name(source, path): {"bytes": size_bytes, "sha256": sha256}})

    def listed(self, source: Source, pattern: str) -> list[File]:
        """What the hub last said that a pattern stands for; nothing where it was never asked."""
        told = self._read()["listings"].get(_name(source, pattern), [])
        return [File(path=file["path"], bytes=file["bytes"], sha256=file["sha256"]) for file in told]

    def remember(self, source: Source, pattern: str, files: Iterable[File]) -> None:
        """Remember what a pattern stands for, so that a plan without the network can name the files."""
        told = [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in files]
        self._write("listings", {_name(source, pattern): told})

    def mismatch(self, source: Source, file: File, place: Path) -> str:
        """What tells a file from the one that is known under this name; nothing where it is that or none is known."""
        size_bytes = place.stat().st_size
        pinned = self.pinned(source, file.path)
        known_bytes = file.bytes if file.bytes is not None else pinned and pinned[0]
        if known_bytes is not None and size_bytes != known_bytes:
            return f"it has {size_bytes} bytes and not {known_bytes}"
        sha256 = Cache(default_folder()).sha256_of(place) if file.sha256 or pinned else ""
        if pinned and sha256 != pinned[1]:
            return f"its SHA-256 is {sha256}, and was {pinned[1]} when it was first fetched"
        if file.sha256 and not sha256.startswith(file.sha256):
            return f"its SHA-256 is {sha256} and not {file.sha256}"
        if file.git_sha1 and not pinned and file.git_sha1 not in (names := sha1_names(place)):
            return f"its git hash is {names[0]} and not {file.git_sha1}"
        return ""

    def _write(self, section: str, entries: Mapping[str, Any]) -> None:
        from filelock import FileLock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):  # or of two runs at once one would forget what the other learnt
            told = self._read()
            told[section].update(entries)
            draft = self.path.with_suffix(".draft")
            draft.write_text(json.dumps(told, indent=1, sort_keys=True), encoding="utf-8")
            draft.replace(self.path)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
            return {"files": dict(told["files"]), "listings": dict(told["listings"])}
        except FileNotFoundError:
            return {"files": {}, "listings": {}}
        except (ValueError, KeyError, TypeError) as error:
            raise MtvcraftError(
                f"`{self.path}` is damaged: {error}",
                hint="delete it; hashes are then pinned anew, when files are fetched",
                exit=Exit.WEIGHTS,
            ) from error


def pinned_hashes(released: Released) -> list[str]:
    """The SHA-256 of what was fetched from where it is published, its licence accepted."""
    lock = Lock()
    pins = [lock.pinned(source, file.path) for source in released.sources for file in source.files]
    return [pin[1] for pin in pins if pin is not None]


def sha1_names(path: Path) -> tuple[str, str]:
    """The hash by which git and the hub call a small file's content, and the plain one that some mirrors take."""
    git, plain = sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False), sha1(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            git.update(block)
            plain.update(block)
    return git.hexdigest(), plain.hexdigest()


def _name(source: Source, path: str) -> str:
    return f"{source.repo}/{path}"
