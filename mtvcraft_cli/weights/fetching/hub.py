"""Files of the Hugging Face hub: names, sizes and hashes from its API; the bytes go into its own cache.

huggingface_hub lists, authenticates and lays out its cache. The bytes come by `ranges`, since it neither goes on from
where an earlier process was cut off nor checks a hash.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Final

from mtvcraft_cli.errors import Exit, MtvcraftError
from mtvcraft_cli.weights.fetching.patience import Hitch, Patience, failed, seconds_of
from mtvcraft_cli.weights.locate import ENDINGS, WORDS, hub_cache
from mtvcraft_cli.weights.manifest import File, Source

TEXTS: Final = (".json", ".model", ".txt")
"""What lies beside weights and belongs to them."""
VARIANT: Final = re.compile(r"\.(fp16|bf16|fp32|non_ema)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?$")
"""The same weights once more, in another precision."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a repository as it is now."""

    source: Source
    file: File
    commit: str
    etag: str
    url: str
    endpoint: str | None

    @property
    def blob(self) -> Path:
        """Where the hub's cache keeps the content."""
        return repo_folder(self.source) / "blobs" / self.etag

    @property
    def snapshot(self) -> Path:
        """Where the hub's cache shows it under its name."""
        return repo_folder(self.source) / "snapshots" / self.commit / self.file.path

    def show(self) -> None:
        """Let the hub's cache show the blob under its name, and call this revision the newest.

        Raises:
            Hitch: the hub doesn't answer.
        """
        from huggingface_hub import hf_hub_download

        with _hitches(self.source.repo):
            hf_hub_download(
                self.source.repo,
                self.file.path,
                repo_type=_repo_type(self.source),
                revision=self.commit,
                endpoint=self.endpoint,
                cache_dir=hub_cache(),
            )
        main = repo_folder(self.source) / "refs" / "main"
        main.parent.mkdir(parents=True, exist_ok=True)
        main.write_text(self.commit, encoding="utf-8")


def repo_folder(source: Source) -> Path:
    """The folder of a repository in the hub's cache."""
    return hub_cache() / f"{'datasets' if source.dataset else 'models'}--{source.repo.replace('/', '--')}"


def headers() -> dict[str, str]:
    """What tells the hub who asks; a token where huggingface_hub finds one."""
    from huggingface_hub.utils import build_hf_headers

    sent = build_hf_headers(library_name="mtvcraft")
    return {name: value for name, value in sent.items() if name.lower() == "authorization"}


def list_source(
    source: Source, endpoint: str | None, patience: Patience, together: Callable[..., Sequence[Any]]
) -> list[HubFile]:
    """Ask the hub which files a source stands for, and how long and what they are.

    Args:
        source: its files may be patterns.
        endpoint: another hub; None takes HF_ENDPOINT or the usual one.
        patience: for a hub that is busy.
        together: runs a list of calls several at once, as `together` does.

    Raises:
        MtvcraftError: exit 6; there is no such repository or file, it is closed to the user, or can't be reached.
        Stopped: the user wants to end.
    """
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # what goes wrong is said by us
    paths = [file.path for file in source.files]
    try:
        if any(file.is_pattern for file in source.files):
            names = patience.keep_asking(partial(_names, source, endpoint))
            paths = chosen(source, names)
        calls = [partial(patience.keep_asking, partial(_look, source, path, endpoint)) for path in paths]
        return [_checked(found) for found in together(calls)]
    except Hitch as hitch:
        raise failed(f"`{source.repo}`", hitch, on_hub=True) from hitch


def chosen(source: Source, names: Sequence[str]) -> list[str]:
    """Those of a repository's files that a source stands for; one kind and precision of weights.

    Raises:
        MtvcraftError: exit 6; no weights are among them.
    """
    wanted = [name for name in names if any(matches(name, file.path) for file in source.files)]
    wanted = [name for name in wanted if name.endswith((*ENDINGS, *TEXTS))]
    plain = [name for name in wanted if not VARIANT.search(name)]
    if any(_is_weight(name) for name in plain):
        wanted = plain
    if any(name.endswith(".safetensors") for name in wanted):
        wanted = [name for name in wanted if not _is_other_kind(name)]
    if not any(_is_weight(name) or Path(name).name == WORDS for name in wanted):
        raise MtvcraftError(
            f"`{source.repo}` holds no file like `{source.files[-1].path}`",
            hint="its authors may have moved it; take files that you have with `--from DIR`",
            exit=Exit.WEIGHTS,
        )
    return sorted(set(wanted))


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern, whose `*` stays in one folder, stands for a file."""
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def _is_weight(name: str) -> bool:
    return name.endswith(tuple(ENDINGS))


def _is_other_kind(name: str) -> bool:
    kinds = [ending for ending in ENDINGS if ending != ".safetensors"]
    return name.endswith((*kinds, *(f"{kind}.index.json" for kind in kinds)))


def _names(source: Source, endpoint: str | None) -> list[str]:
    from huggingface_hub import HfApi

    with _hitches(source.repo):
        told = HfApi(endpoint=endpoint).repo_info(
            source.repo, repo_type=_repo_type(source), revision="main", timeout=30.0
        )
        return [item.rfilename for item in told.siblings or []]


def _look(source: Source, path: str, endpoint: str | None) -> HubFile:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    def url_of(revision: str) -> str:
        return hf_hub_url(source.repo, path, repo_type=_repo_type(source), revision=revision, endpoint=endpoint)

    with _hitches(f"{source.repo}/{path}"):
        told = get_hf_file_metadata(url_of("main"), timeout=30.0, endpoint=endpoint)
    if not (told.commit_hash and told.etag):
        raise Hitch("the server isn't a hub: it names no revision", status=0)
    known = next((file for file in source.files if file.path == path), File(path=path))
    if re.fullmatch(r"[0-9a-f]{64}", told.etag):  # large files are named by their hash
        known = replace(known, sha256=known.sha256 or told.etag)
    elif re.fullmatch(r"[0-9a-f]{40}", told.etag):
        known = replace(known, git_sha1=known.git_sha1 or told.etag)
    return HubFile(
        source=source,
        file=replace(known, bytes=known.bytes if known.bytes is not None else told.size),
        commit=told.commit_hash,
        etag=re.sub(r"[^\w.+-]", "_", told.etag),
        url=url_of(told.commit_hash),
        endpoint=endpoint,
    )


def _checked(found: HubFile) -> HubFile:
    """Refuse a file that would leave its folder."""
    if ".." in Path(found.file.path).parts or Path(found.file.path).is_absolute():
        raise ValueError(f"`{found.source.repo}` names a file outside itself: {found.file.path}")
    return found


def _repo_type(source: Source) -> str:
    return "dataset" if source.dataset else "model"


@contextmanager
def _hitches(what: str) -> Iterator[None]:
    """Turn what huggingface_hub raises into a hitch."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        answer: Any = error.response
        status = int(answer.status_code)
        if isinstance(error, errors.GatedRepoError):
            raise Hitch("its authors want their terms accepted first", status=401) from error
        if isinstance(error, errors.RepositoryNotFoundError):
            raise Hitch(f"there is no `{what}`, or it is closed to you", status=404) from error
        wait_s = seconds_of(answer.headers.get("Retry-After"))
        raise Hitch(f"the server says {status} to `{what}`", status=status, wait_s=wait_s) from error
    except errors.OfflineModeIsEnabled as error:
        raise Hitch("the network is not to be used", status=0) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None and not _of_the_network(error):
            raise  # the disk
        if not isinstance(error, OSError) and not _of_the_network(error):
            raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise Hitch(f"the hub can't be reached ({reason})") from error


def _of_the_network(error: Exception) -> bool:
    """Whether it is of the client that huggingface_hub brings along, which changes with its version."""
    names = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return bool(names & {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}) or isinstance(
        error, (ConnectionError, TimeoutError)
    )
