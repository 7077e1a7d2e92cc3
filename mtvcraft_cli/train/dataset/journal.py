"""What has become of each input so far: one JSON line for each that is done, so that a run can go on after it."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.files import write_text_whole

NAME: Final = "progress.jsonl"


class Journal:
    """A file that grows by whole lines, and is otherwise only ever replaced as a whole.

    Args:
        folder: of the data set.
        settings: all that every clip depends on besides its input; the first line.

    Raises:
        MtvcraftError: exit 2; the folder was begun with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.path = folder / NAME
        self.settings = json.loads(json.dumps(settings))
        self.entries = read_entries(self.path, self.settings)

    def begin(self) -> None:
        """Write all lines, without a last one that was cut off."""
        write_text_whole(self.path, "".join(_line(entry) for entry in ({"settings": self.settings}, *self.entries)))

    def add(self, entry: dict[str, Any]) -> None:
        """Note that an input is done, or several `inputs`; what they left must be safe on disk before."""
        self.entries.append(entry)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())

    def tell_captions(self, captions: Mapping[str, str], seen: Collection[str]) -> None:
        """Take over captions that have come, changed or gone since an input was done.

        Args:
            captions: by the SHA-256 of the inputs at hand.
            seen: names of these inputs; an empty caption of another copy doesn't take an entry's words away.
        """
        for entry in self.entries:
            caption = captions.get(entry["sha256"], "")
            if caption or entry["input"] in seen:
                entry["caption"] = caption
        self.begin()

    @property
    def done(self) -> set[str]:
        """SHA-256 of every input that is done."""
        return {one["sha256"] for entry in self.entries for one in entry.get("inputs", [entry])}


def read_entries(path: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Read a journal's entries; none where there is no journal.

    Raises:
        MtvcraftError: exit 2; it was begun with other settings.
    """
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            break  # the end, or cut off by a crash: what it would have said is done again
    if not lines:
        return []
    begun = lines[0].get("settings", {}) if isinstance(lines[0], dict) else {}
    if begun != settings:
        other = [name for name in {**settings, **begun} if settings.get(name) != begun.get(name)]
        raise MtvcraftError(
            f"`{path.parent}` was begun with another {' and '.join(sorted(other))}",
            hint="name another folder, or begin anew with `--force`",
            exit=Exit.USAGE,
        )
    return lines[1:]


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
