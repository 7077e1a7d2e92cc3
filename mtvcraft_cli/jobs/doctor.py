"""`mtvcraft doctor`: looks at everything that a run needs, part by part, and tries the whole at toy size."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from mtvcraft_cli.cache import Cache, default_folder, open_cache
from mtvcraft_cli.device.memory import free_memory, group_limits
from mtvcraft_cli.errors import MtvcraftError
from mtvcraft_cli.jobs.fit import free_disk, memory_text
from mtvcraft_cli.preset import load_preset, preset_names
from mtvcraft_cli.weights.fetching.whole import why_broken
from mtvcraft_cli.weights.locate import (
    ALONE,
    Located,
    files_at,
    find_incomplete,
    hub_cache,
    locate,
    lost_shards,
    size_text,
)

PYTHONS = ((3, 10), (3, 12))
"""The oldest and the newest that the libraries come for."""
LITTLE_DISK = 5 * 10**9
LITTLE_RAM = 2 * 2**30
"""What `mini` needs, about; docs/performance.md has the figures."""
REINSTALL = "pip install --force-reinstall mtvcraft"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line: what was looked at, how it is, and what mends it."""

    name: str
    state: Literal["ok", "warning", "failure"]
    says: str
    mend: str = ""
    """A command or a few words; empty where nothing is to be mended."""

    def told(self) -> dict[str, str]:
        """The finding as plain data."""
        return {"name": self.name, "state": self.state, "says": self.says, "mend": self.mend}


ok = partial(Finding, state="ok")
warning = partial(Finding, state="warning")
failure = partial(Finding, state="failure")


def examine(weights: Path | None, device: str, *, short: bool = False) -> Iterator[Finding]:
    """Look at one thing after the other, the cheap ones first.

    Args:
        weights: a folder of the user's own.
        device: where the run is tried, as `choose_device` takes it.
        short: whether to leave out what takes longer than a moment: the pose estimator and the run.
    """
    checks: list[Callable[[], Iterator[Finding]]] = [
        python,
        torch_build,
        driver,
        partial(cards, device),
        ffmpeg,
        decord,
        disk,
        memory,
        cache,
        partial(all_weights, weights),
    ]
    if not short:
        from mtvcraft_cli.jobs.trial import pose, run

        checks += [partial(pose, weights), partial(run, device)]
    for check in checks:
        try:
            yield from check()
        except MtvcraftError as error:
            yield failure(name=_name(check), says=error.message, mend=error.hint)
        except Exception as error:  # a part that is broken in whatever way is what we are looking for
            says = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            yield failure(name=_name(check), says=says, mend=REINSTALL)


def _name(check: Callable[..., Any]) -> str:
    function = check.func if isinstance(check, partial) else check
    return {"all_weights": "weights", "torch_build": "torch"}.get(function.__name__, function.__name__)


def python() -> Iterator[Finding]:
    """The interpreter."""
    now = sys.version_info[:3]
    said = ".".join(map(str, now))
    if PYTHONS[0] <= now[:2] <= PYTHONS[1]:
        yield ok(name="python", says=said)
    else:
        yield failure(name="python", says=f"{said}; 3.10 to 3.12 are supported", mend="python3.11 -m venv .venv")


def torch_build() -> Iterator[Finding]:
    """PyTorch, and whether it was built for CUDA."""
    import torch

    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    says = f"{torch.__version__}, {built}"
    if _nvidia() and not torch.version.cuda:
        mend = "install the build for your driver: `pip install --force-reinstall torch`, as pytorch.org says for it"
        yield warning(name="torch", says=f"{says}, though there is an NVIDIA card", mend=mend)
    else:
        yield ok(name="torch", says=says)


def _nvidia() -> str | None:
    """The version of NVIDIA's driver; None where there is none."""
    said = Path("/proc/driver/nvidia/version")
    program = shutil.which("nvidia-smi")
    if program is None:
        return "of unknown version" if said.is_file() else None
    words = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(done.stdout.split()), None) if done.returncode == 0 else None


def driver() -> Iterator[Finding]:
    """NVIDIA's driver, and whether PyTorch can use it."""
    import torch

    found = _nvidia()
    if found is None:
        yield ok(name="driver", says="no NVIDIA driver: work is done on the CPU, or on Apple's GPU")
    elif torch.version.cuda and not torch.cuda.is_available():
        says = f"NVIDIA {found}, which PyTorch {torch.__version__} can't use"
        yield failure(name="driver", says=says, mend="update the driver, or install an older build of torch")
    else:
        yield ok(name="driver", says=f"NVIDIA {found}")


def cards(device: str) -> Iterator[Finding]:
    """Every card with its memory; without one, what is used instead."""
    import torch

    from mtvcraft_cli.device.place import choose_device

    chosen = choose_device(device)
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        says = f"{torch.cuda.get_device_name(number)}, {memory_text(free)} of {memory_text(total)} free"
        if free < total // 2:
            yield warning(name=f"card {number}", says=says, mend="`nvidia-smi` shows what else is on it")
        else:
            yield ok(name=f"card {number}", says=says)
    if chosen.type != "cuda":
        yield ok(name="cards", says=f"none in use: runs go to `{chosen}`; `mtvcraft plan` says how long they take")


def ffmpeg() -> Iterator[Finding]:
    """The ffmpeg that writes, and reads what decord can't."""
    from mtvcraft_cli.video.ffmpeg import ffmpeg_path

    words = [ffmpeg_path(), "-hide_banner", "-encoders"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    mend = "install ffmpeg with libx264 and name it: IMAGEIO_FFMPEG_EXE=/path/to/ffmpeg"
    if done.returncode:
        yield failure(name="ffmpeg", says=f"`{words[0]}` does not run", mend=mend)
    elif "libx264" not in done.stdout:
        yield failure(name="ffmpeg", says=f"`{words[0]}` can't write H.264", mend=mend)
    else:
        yield ok(name="ffmpeg", says=f"writes H.264: `{words[0]}`")


def decord() -> Iterator[Finding]:
    """The quick way to read videos."""
    try:
        importlib.import_module("decord")
        yield ok(name="decord", says=version("decord"))
    except PackageNotFoundError:
        yield ok(name="decord", says="there, of unknown version")
    except (ImportError, OSError) as error:
        says = f"not usable ({error}): ffmpeg reads every video instead, which is slower"
        yield warning(name="decord", says=says, mend="pip install decord")


def disk() -> Iterator[Finding]:
    """Free space where results, the cache and weights go."""
    places = {"here": Path(), "cache": default_folder(), "weights": hub_cache()}
    for name, folder in places.items():
        free = free_disk(folder)
        says = f"{size_text(free)} free for {name} (`{folder.absolute()}`)"
        if free < LITTLE_DISK // 10:
            yield failure(
                name=f"disk, {name}", says=says, mend="free some space; `mtvcraft cache clear` empties the cache"
            )
        elif free < LITTLE_DISK:
            yield warning(name=f"disk, {name}", says=says, mend="`mtvcraft cache clear` empties the cache")
        else:
            yield ok(name=f"disk, {name}", says=says)


def memory() -> Iterator[Finding]:
    """Free RAM, by the limits of the control groups where there are any."""
    free = free_memory()
    if free is None:
        yield ok(name="memory", says="the system doesn't tell how much is free")
        return
    limits = [limit for limit, _ in group_limits()]
    inside = f", in a control group of {memory_text(min(limits))}" if limits else ", no limit by a control group"
    says = f"{memory_text(free)} free{inside}"
    if free < LITTLE_RAM:
        yield warning(name="memory", says=says, mend="close other programs, or raise the container's limit")
    else:
        yield ok(name="memory", says=says)


def cache() -> Iterator[Finding]:
    """The cache: that it can be written, and that its entries are what was written."""
    kept = open_cache()
    with kept.make("doctor", "probe") as folder:
        (folder / "probe").write_text("written", encoding="ascii")
    written = kept.find("doctor", "probe")
    kept.clear("doctor")
    if written is None:
        says = f"`{kept.folder}` does not give back what was written to it"
        yield failure(name="cache", says=says, mend="name another folder with `--cache-dir` or MTVCRAFT_CACHE")
        return
    yield from _entries(kept)


def _entries(kept: Cache) -> Iterator[Finding]:
    entries, broken = kept.entries(), kept.broken()
    size = size_text(sum(entry.size_bytes for entry in entries))
    says = f"{len(entries)} entries, {size}, in `{kept.folder}`"
    if broken:
        says += f"; {len(broken)} are not what was written, and are never read"
        yield warning(name="cache", says=says, mend="mtvcraft cache clear")
    else:
        yield ok(name="cache", says=says)


def all_weights(folder: Path | None) -> Iterator[Finding]:
    """For each preset which weights are there and whole."""
    for name in preset_names():
        parts = list(locate(load_preset(name), folder).values())
        yield _weights(name, parts, folder)


def _weights(name: str, parts: list[Located], folder: Path | None) -> Finding:
    """How the weights of one preset are; those that are fetched by nobody are no fault."""
    label = f"weights, {name}"
    for part in parts:
        for file in part.files:
            if why := why_broken(file):
                says = f"`{file}` is broken: {why}"
                return failure(name=label, says=says, mend=f"delete it and run `mtvcraft download {name}`")
        if why := _why_incomplete(part, folder):
            return failure(name=label, says=why, mend=f"mtvcraft download {name}")
    missing = [part for part in parts if part.missing]
    if not missing:
        return ok(name=label, says="here and whole" if any(part.path for part in parts) else "drawn from a seed")
    if any(part.released and part.released.repo is None for part in missing):
        return ok(name=label, says="not here, and not published: a folder of your own, with `--weights DIR`")
    some = "not here" if len(missing) == len(parts) else f"{', '.join(part.part for part in missing)} not here"
    return ok(name=label, says=f"{some}, {_size_of(missing)}", mend=f"mtvcraft download {name}")


def _size_of(missing: list[Located]) -> str:
    """About what they take, in words, as far as it is known."""
    known = [part.released.bytes for part in missing if part.released is not None and part.released.bytes is not None]
    if not known:
        return size_text(None)
    return f"about {size_text(sum(known))}" + (" and more, of unknown size" if len(known) < len(missing) else "")


def _why_incomplete(part: Located, folder: Path | None) -> str:
    """Which shard a checkpoint's index lists and isn't there."""
    place = find_incomplete(part.released, folder) if part.missing and part.released else part.path
    if place is None or part.part in ALONE or not (lost := lost_shards(place)):
        return ""
    there = [file for file in files_at(place) if not file.name.endswith(".index.json")]
    return f"{len(lost)} of {len(lost) + len(there)} files of the {part.part} are missing, such as `{place / lost[0]}`"
