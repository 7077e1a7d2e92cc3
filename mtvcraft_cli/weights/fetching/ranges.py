"""One file by HTTP into a `.part` that a later run goes on from."""

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from mtvcraft_cli import __version__
from mtvcraft_cli.weights.fetching.patience import Hitch, Patience, Stopped, seconds_of

BLOCK_BYTES: Final = 2**18
TIMEOUT_S: Final = 30.0
"""Silence after which a connection counts as broken."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on a server."""

    url: str
    headers: Mapping[str, str]
    """Sent to this host only; what it redirects to doesn't see them."""
    bytes: int | None
    """How long it is; None where only the server knows."""
    fixed: bool
    """Whether its content can't change under this URL, or would be noticed, so that any start of it fits."""


def fetch(remote: Remote, part: Path, patience: Patience, advance: Callable[[int], None]) -> None:
    """Fetch what `part` lacks of a file; it has the whole length afterwards.

    Args:
        remote: the file.
        part: what is there of it so far; made where it isn't. Beside it lies `.json` with what the server said of it.
        patience: for a server that breaks off.
        advance: told of every byte that came, and of those thrown away as a negative number.

    Raises:
        Hitch: the server doesn't answer, or says no.
        Stopped: the user wants to end; `part` is kept.
        OSError: the disk is full or closed to writing.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    patience.keep_asking(lambda: _once(remote, part, patience, advance))
    _beside(part).unlink(missing_ok=True)


def forget(part: Path) -> None:
    """Throw a `.part` away."""
    part.unlink(missing_ok=True)
    _beside(part).unlink(missing_ok=True)


def _once(remote: Remote, part: Path, patience: Patience, advance: Callable[[int], None]) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have and remote.bytes is not None and have > remote.bytes:
        _start_anew(part, advance)
        have = 0
    if have and have == remote.bytes:
        return
    told = _told(part)
    if have and not remote.fixed and not told.get("is"):
        _start_anew(part, advance)  # nothing tells whether the rest would be of the same file
        have = 0
    ask = {"User-Agent": f"mtvcraft/{__version__}", "Accept-Encoding": "identity"}
    if have:
        ask["Range"] = f"bytes={have}-"
        if not remote.fixed:
            ask["If-Range"] = told["is"]
    try:
        answer = _open(remote, ask)
    except Hitch as hitch:
        if not have or hitch.status != 416:
            raise
        if hitch.length == have:  # an earlier run had it all and died before it could say so
            return
        _start_anew(part, advance)
        raise Hitch(str(hitch)) from hitch
    with answer:
        if have and answer.status != 206:  # another file, or a server without ranges
            _start_anew(part, advance)
            have = 0
        length = _whole_length(answer, have)
        if remote.bytes is not None and length not in (None, remote.bytes):
            raise Hitch(f"the server has {length} bytes of it and not {remote.bytes}", status=answer.status)
        named = answer.headers.get("ETag", "") or answer.headers.get("Last-Modified", "")
        if not remote.fixed and named and not named.startswith("W/"):
            _beside(part).write_text(json.dumps({"is": named}), encoding="utf-8")
        _copy(answer, part, have, length if remote.bytes is None else remote.bytes, patience, advance)


def _copy(
    answer: Any, part: Path, have: int, length: int | None, patience: Patience, advance: Callable[[int], None]
) -> None:
    moved = False
    with part.open("ab") as file:
        while block := _read(answer, moved=moved):
            if length is not None and have + len(block) > length:
                raise Hitch(f"the server sends more than {length} bytes", status=0)
            file.write(block)
            have += len(block)
            moved = True
            advance(len(block))
            if patience.stop.is_set():
                raise Stopped
        file.flush()
        os.fsync(file.fileno())
    if length is not None and have < length:
        raise Hitch(f"the connection broke off after {have} of {length} bytes", moved=moved)


def _read(answer: http.client.HTTPResponse, *, moved: bool) -> bytes:
    try:
        return answer.read1(BLOCK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise Hitch(f"the connection broke off ({_words(error)})", moved=moved) from error


def _whole_length(answer: Any, have: int) -> int | None:
    """Length of the whole file, by the server's word."""
    if answer.status == 206:
        said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if said is None or int(said[1]) != have:
            raise Hitch(f"the server sends another part of it than that from {have}", status=206)
        return None if said[2] == "*" else int(said[2])
    said_bytes = answer.headers.get("Content-Length", "")
    return int(said_bytes) if said_bytes.isdecimal() else None


def _open(remote: Remote, ask: Mapping[str, str]) -> Any:
    request = urllib.request.Request(remote.url, headers=dict(ask))  # noqa: S310 - the manifest's or the hub's
    if urlsplit(remote.url).scheme not in ("http", "https"):
        raise ValueError(f"not an address of the web: {remote.url}")
    for name, value in remote.headers.items():
        request.add_unredirected_header(name, value)
    try:
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                said = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
                length = int(said[1]) if said else None
                raise Hitch("the server has no such part of it", status=416, length=length) from error
            wait_s = seconds_of(error.headers.get("Retry-After"))
            raise Hitch(f"the server says {error.code} {error.reason}", status=error.code, wait_s=wait_s) from error
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise Hitch(f"{urlsplit(remote.url).netloc} can't be reached ({_words(error)})") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as browsers do; secrets stay with the host that they are for."""

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302  # Python 3.10 doesn't know it

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Make the next request, or refuse it."""
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if (old.scheme, new.scheme) == ("https", "http"):
            raise Hitch(f"{old.netloc} leads to an address without encryption", status=code)
        request = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        if request is not None and old.netloc == new.netloc:
            for name, value in req.unredirected_hdrs.items():
                request.add_unredirected_header(name, value)
        return request


def _start_anew(part: Path, advance: Callable[[int], None]) -> None:
    advance(-part.stat().st_size)
    forget(part)


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _told(part: Path) -> dict[str, str]:
    try:
        return dict(json.loads(_beside(part).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
