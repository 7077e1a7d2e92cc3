"""A server on loopback that speaks the hub's protocol as huggingface_hub uses it, and serves plain files by ranges."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
TOKEN = "hf_of_the_test"


@dataclass
class Fault:
    """What goes wrong with one answer to a GET of the bytes; used up in order."""

    status: int = 0
    """An answer instead of the file."""
    retry_after: str = ""
    cut_at: int | None = None
    """The connection closes before this byte of the body; -1 before the answer begins."""
    flip: bool = False
    """The last byte is another one."""
    no_ranges: bool = False
    """The whole file, whatever was asked for."""


@dataclass
class Asked:
    """A request."""

    method: str
    path: str
    range: str = ""
    host: str = ""
    authorization: str = ""


@dataclass
class Hub:
    """What the server has, how it misbehaves, and what it was asked."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Repository, or "plain" -> path -> content."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    """By path."""
    gated: set[str] = field(default_factory=set)
    datasets: set[str] = field(default_factory=set)
    pause_s: float = 0.0
    """Waited after every 16 kB."""
    etag: str = '"first"'
    """Of plain files."""
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self, path: str) -> list[Asked]:
        """Those for a file's bytes."""
        return [
            each
            for each in self.asked
            if each.method == "GET" and each.path.endswith(path) and "/api/" not in each.path
        ]

    def add_folder(self, repo: str, folder: Path, *names: str) -> None:
        """Serve the files under some names in a folder as a repository's."""
        for path in sorted(path for name in names for path in (folder / name).rglob("*") if path.is_file()):
            self.files.setdefault(repo, {})[path.relative_to(folder).as_posix()] = path.read_bytes()


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Serve on a free port of loopback until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    hub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_large(path: str) -> bool:
    """Whether the hub keeps it in its large-file store, on another host."""
    return not path.endswith((".json", ".txt", ".md"))


def _etag(path: str, content: bytes) -> str:
    if is_large(path):
        return sha256(content)
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def _answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            host = self.headers["Host"].partition(":")[0]
            authorization = self.headers.get("Authorization", "")
            hub.asked.append(Asked(self.command, path, self.headers.get("Range", ""), host, authorization))
            dataset = path.startswith(("/datasets/", "/api/datasets/"))
            path = path.replace("/datasets/", "/", 1) if path.startswith("/datasets/") else path
            if listing := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/revision/([^/]+)", path):
                self._list(listing[1], dataset=dataset)
            elif file := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self._resolve(file[1], file[3], dataset=dataset)
            elif file := re.fullmatch(r"/store/([^/]+/[^/]+)/(.+)", path):
                self._bytes(file[2], hub.files[file[1]][file[2]], {"ETag": '"of the store"'})
            elif (name := path.removeprefix("/plain/")) in hub.files.get("plain", {}):
                self._bytes(name, hub.files["plain"][name], {"ETag": hub.etag})
            else:
                self._say(404, {})

        def _may(self, repo: str, *, dataset: bool) -> bool:
            if repo not in hub.files or dataset != (repo in hub.datasets):
                self._say(404, {"X-Error-Code": "RepoNotFound"})
            elif repo in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self._say(401, {"X-Error-Code": "GatedRepo"})
            else:
                return True
            return False

        def _list(self, repo: str, *, dataset: bool) -> None:
            if self._may(repo, dataset=dataset) and not self._fails("listing"):
                names = [{"rfilename": path} for path in hub.files[repo]]
                self._say(200, {}, json.dumps({"id": repo, "sha": COMMIT, "siblings": names}).encode())

        def _resolve(self, repo: str, path: str, *, dataset: bool) -> None:
            if not self._may(repo, dataset=dataset):
                return None
            if path not in hub.files[repo]:
                return self._say(404, {"X-Error-Code": "EntryNotFound"})
            content = hub.files[repo][path]
            told = {"X-Repo-Commit": COMMIT}
            if self.command == "HEAD" and self._fails("HEAD"):
                return None
            if not is_large(path):
                return self._bytes(path, content, {**told, "ETag": f'"{_etag(path, content)}"'})
            told |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{_etag(path, content)}"'}
            return self._say(302, {**told, "Location": f"http://localhost:{hub.port}/store/{repo}/{path}"})

        def _fails(self, what: str) -> bool:
            if not hub.faults.get(what):
                return False
            fault = hub.faults[what].pop(0)
            self._say(fault.status, {"Retry-After": fault.retry_after} if fault.retry_after else {})
            return True

        def _bytes(self, path: str, content: bytes, told: Mapping[str, str]) -> None:
            fault = Fault()
            if self.command == "GET" and hub.faults.get(path):
                fault = hub.faults[path].pop(0)
            if fault.status:
                return self._say(fault.status, {"Retry-After": fault.retry_after} if fault.retry_after else {})
            if fault.cut_at == -1:
                self.close_connection = True
                return None
            if fault.flip:
                content = content[:-1] + bytes([content[-1] ^ 1])
            start, status = 0, 200
            wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") in (None, told.get("ETag"))
            if wanted and same and not fault.no_ranges:
                start, status = int(wanted[1]), 206
                if start >= len(content):
                    return self._say(416, {"Content-Range": f"bytes */{len(content)}"})
                told = {**told, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self.send_response(status)
            for name, value in {**told, "Content-Length": str(len(content) - start)}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return None
            end = len(content) if fault.cut_at is None else fault.cut_at
            for first in range(start, end, 16384):
                self.wfile.write(content[first : min(end, first + 16384)])
                time.sleep(hub.pause_s)
            if fault.cut_at is not None:
                self.close_connection = True
            return None

        def _say(self, status: int, told: Mapping[str, str], content: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {**told, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def handle(self) -> None:
            """A client that goes away is no error here."""
            with suppress(ConnectionError, TimeoutError):
                super().handle()

    return Handler


def until(happened: Callable[[], bool], limit_s: float = 150.0) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)
