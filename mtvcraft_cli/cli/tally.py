"""Tells how the jobs of a batch end, and writes it down."""

import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mtvcraft_cli.cli.console import answer, console, part_of_answer, say, warn
from mtvcraft_cli.errors import Exit, MtvcraftError

if TYPE_CHECKING:
    from mtvcraft_cli.batch.results import Ended, Results


class Tally:
    """Counts how jobs end, tells of each, and writes it down.

    Args:
        file: the results file.
        where: for each row how it is called in errors.
        total: jobs in all.
    """

    def __init__(self, file: "Results", where: Mapping[int, str], total: int) -> None:
        self.file, self.where, self.total = file, where, total
        self.ended: list[Ended] = []
        self._said: Counter[str] = Counter()

    @property
    def done(self) -> int:
        """Jobs whose output is there."""
        return sum(not ended.failed for ended in self.ended)

    def add(self, ended: "Ended") -> None:
        """A job has ended; one that was left alone and is written down already is not written down again."""
        self.ended.append(replace(ended, remarks=(), warnings=(), trace=""))
        where = self.where[ended.row]
        if not (ended.left_alone and ended.output in self.file.done):
            self.file.add(ended)
        if ended.failed:
            if os.environ.get("MTVCRAFT_DEBUG"):
                print(ended.trace, file=sys.stderr)
            return warn(f"{where} failed: {ended.error} ({ended.hint})")
        for line, tell in [*((line, say) for line in ended.remarks), *((line, warn) for line in ended.warnings)]:
            self._said[line] += 1
            if self._said[line] == 1:  # what holds for every job is said once
                tell(f"{where}: {line}")
        what = "already made, left alone" if ended.left_alone else f"{ended.frames} frames in {ended.seconds:.1f} s"
        say(f"{len(self.ended)} of {self.total}: `{ended.output}`, {what}")
        return part_of_answer(ended.output)

    def close(self) -> None:
        """Say how it went.

        Raises:
            MtvcraftError: exit 3; some failed.
        """
        failed = [ended for ended in self.ended if ended.failed]
        alone = sum(ended.left_alone for ended in self.ended)
        left = self.total - len(self.ended)
        say(
            f"{self.total} jobs: {self.done - alone} made, {alone} left alone, {len(failed)} failed"
            + (f", {left} not begun" if left else "")
        )
        told = {"jobs": [ended.told() for ended in self.ended], "failed": len(failed), "not_begun": left}
        if console.json:
            answer("", {**told, "results": str(self.file.path)})
        if not failed:
            return
        first = failed[0]
        going = "" if not left else "; `--keep-going` goes on after a failure"
        raise MtvcraftError(
            f"{len(failed)} of {self.total} jobs failed, the first {self.where[first.row]}: {first.error}",
            hint=f"{first.hint}; then the same command does what is left{going}",
            exit=Exit.PARTLY,
        )
