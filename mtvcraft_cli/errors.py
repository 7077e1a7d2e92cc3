"""The one exception written for the user's eyes, and the exit codes of the program."""

import errno
from enum import IntEnum
from typing import Final

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""What the system says of a full disk; safetensors, which raises errors of its own, says the number in words."""
stops: Final[list[object]] = []
"""What asked us to end. Native code that calls Python can turn an interrupt into an error of its own: torch does, while
it reads safetensors."""


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


def explained(error: Exception) -> MtvcraftError:
    """What the user is told of an exception, whatever it is; nothing that can be mended ends in a traceback."""
    if isinstance(error, MtvcraftError):
        return error
    if isinstance(error, MemoryError):
        return MtvcraftError(
            f"out of memory: {error}", hint="close other programs, or use a smaller preset", exit=Exit.FIT
        )
    if isinstance(error, OSError):
        return _refused_by_the_system(error)
    if type(error).__name__ == "SafetensorError" and any(f"os error {code})" in str(error) for code in FULL):
        return _refused_by_the_system(OSError(errno.ENOSPC, str(error)))
    if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
        return MtvcraftError(
            f"out of memory: {(str(error).splitlines() or [''])[0]}",
            hint="close other programs, or use a smaller preset; `--offload sequential --two-passes`, without "
            "`--speed`, `--compile`, `--gpus` and torchrun, takes the least of a card",
            exit=Exit.FIT,
        )
    return MtvcraftError(
        f"internal fault: {type(error).__name__}: {error}",
        hint="this is ours to mend: run again with `--debug` and report what it prints",
        exit=Exit.FAULT,
    )


def _refused_by_the_system(error: OSError) -> MtvcraftError:
    where = f" at `{error.filename}`" if error.filename else ""
    if error.errno in FULL:
        return MtvcraftError(
            f"the disk is full{where}",
            hint="free some space (`mtvcraft cache clear` empties the cache) and run it again",
            exit=Exit.FIT,
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return MtvcraftError(
            f"not allowed to write or read{where}",
            hint="choose another folder, or change its permissions",
            exit=Exit.USAGE,
        )
    return MtvcraftError(
        f"the system refused{where}: {error.strerror or error}",
        hint="run again with `--debug` to see where",
        exit=Exit.FAULT,
    )
