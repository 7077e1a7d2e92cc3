"""How often and how long a place that doesn't answer is asked again, and what to say when it never does."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Final, TypeVar

from mtvcraft_cli.errors import Exit, MtvcraftError

T = TypeVar("T")
BUSY: Final = (408, 429, 500, 502, 503, 504)
"""Answers that may be another one a little later."""
LONGEST_S: Final = 120.0
"""Who asks to wait for longer is not waited for."""


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """Another part has failed or the user wants to end: what is there so far stays for the next run."""


class Hitch(Exception):  # noqa: N818 - it may pass
    """A place didn't answer, or broke off.

    Args:
        why: in words.
        status: the answer, where there was one.
        wait_s: how long it asks to wait.
        moved: whether something came before it broke off, which makes another try worth more.
        length: how long the whole file is, where it said that instead of sending the rest.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int | None = None,
        wait_s: float | None = None,
        moved: bool = False,
        length: int | None = None,
    ) -> None:
        super().__init__(why)
        self.status, self.wait_s, self.moved, self.length = status, wait_s, moved, length

    @property
    def passes(self) -> bool:
        """Whether it is worth to ask again."""
        return self.status is None or self.status in BUSY


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Tries in a row without a byte, and the wait before the second, which doubles each time."""

    tries: int = 5
    wait_s: float = 1.0
    stop: Event = field(default_factory=Event)

    def keep_asking(self, ask: Callable[[], T]) -> T:
        """Ask until there is an answer; a hitch that doesn't pass, or comes too often, is raised.

        Raises:
            Stopped: `stop` was set.
            Hitch: the last one.
        """
        tried = 0
        while True:
            if self.stop.is_set():
                raise Stopped
            try:
                return ask()
            except Hitch as hitch:
                tried = 1 if hitch.moved else tried + 1
                wait_s = self.wait_s * 2 ** (tried - 1) if hitch.wait_s is None else hitch.wait_s
                if not hitch.passes or tried >= self.tries or wait_s > LONGEST_S:
                    raise
                self.pause(wait_s)

    def pause(self, wait_s: float) -> None:
        """Wait, unless the end comes first.

        Raises:
            Stopped: it did.
        """
        if self.stop.wait(wait_s):
            raise Stopped


def seconds_of(retry_after: str | None) -> float | None:
    """What a `Retry-After` asks for: seconds, or a date."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def failed(what: str, hitch: Hitch, *, on_hub: bool) -> MtvcraftError:
    """Turn the last hitch into what the user reads.

    Args:
        what: the file or repository, with where it is.
        hitch: why it can't be had.
        on_hub: whether it is on the hub, which has mirrors and asks for names.
    """
    closed = "accept its terms on its page, then `hf auth login`, or set HF_TOKEN"
    hints = {429: "try again later; what is here so far is kept"}
    if on_hub:
        hints |= {401: closed, 403: closed, 404: "check `--endpoint` and HF_ENDPOINT, or give files with `--from DIR`"}
    usual = "run it again: it goes on from here; or give files that you have with `--from DIR`"
    if on_hub:
        usual = "run it again: it goes on from here; or name a mirror with `--endpoint URL`"
    return MtvcraftError(
        f"{what} can't be fetched: {hitch}", hint=hints.get(hitch.status or 0, usual), exit=Exit.WEIGHTS
    )


def is_offline() -> bool:
    """Whether the network may not be used: `--offline`, HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE."""
    import os

    words = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(word.upper() in ("1", "ON", "YES", "TRUE") for word in words)
