"""The one exception written for the user's eyes, and the exit codes of the program."""

from enum import IntEnum


class Exit(IntEnum):
    """Why the program ended; documented in the README and kept stable for scripts."""

    DONE = 0
    FAULT = 1
    """An internal fault: ours to mend, not the user's."""
    USAGE = 2
    """The words on the command line, a setting, or an output that is already there."""
    PARTLY = 3
    """Some jobs of a batch failed."""
    INPUT = 4
    """An input that can't be used: not a video, no person, NaN, tokens of another preset."""
    FIT = 5
    """Memory or disk is too small."""
    WEIGHTS = 6
    """Weights or a backend are missing, a licence isn't accepted, or a download failed."""
    INTERRUPTED = 130


class MtvcraftError(Exception):
    """Something the user can mend: what is wrong and why, what to do next, and the exit code.

    Args:
        message: what happened, with the offending name or value in it; printed after `error:`.
        hint: the next thing to do; printed after `hint:`.
        exit: the exit code; most of what rooms raise is an input that can't be used.
    """

    def __init__(self, message: str, *, hint: str, exit: Exit = Exit.INPUT) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit = exit
