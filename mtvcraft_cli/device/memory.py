"""How much memory there is, and how much was taken."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UNLIMITED: Final = 2**60
"""Limits from here on are none: a version 1 control group without one says about 2^63."""


def peak_memory(device: str = "cpu") -> dict[str, int | None]:
    """The most that this process has held, in bytes: of RAM, and of the card where it works on one.

    RAM is None where the system doesn't tell.
    """
    peak: dict[str, int | None] = {"ram": None}
    status = Path("/proc/self/status")
    if status.is_file():  # what `getrusage` tells on Linux starts at what the program that started this one held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        peak["ram"] = int(lines["VmHWM"].split()[0]) * 1024
    elif os.name == "posix":
        import resource

        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak["ram"] = held if sys.platform == "darwin" else held * 1024
    if device.startswith("cuda"):
        import torch

        peak["card"] = torch.cuda.max_memory_allocated(torch.device(device))
    return peak


def held_memory() -> int | None:
    """Bytes of RAM that this process holds now; None where the system doesn't tell."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else None


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes of RAM that may still be taken, by the container's limit where there is one; None where nothing tells.

    Args:
        root: where `proc` and `sys` are found.
    """
    free = [limit - used for limit, used in group_limits(root)]
    meminfo = root / "proc/meminfo"
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    return max(0, min(free)) if free else None


def group_limits(root: Path = Path("/")) -> list[tuple[int, int]]:
    """What the control groups of this process allow and hold, in bytes, for each that has a limit.

    Both versions are read, and the groups around a group count as well. Pages of files that nobody uses at the moment
    don't count as held: the system takes them back when they are needed.
    """
    found = []
    for folder, limit_name, used_name in _groups(root):
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None and used is not None and limit < UNLIMITED:
            found.append((limit, max(0, used - _unused_pages(folder / "memory.stat"))))
    return found


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders of the control groups around this process, innermost first, with their words for limit and use."""
    told = root / "proc/self/cgroup"
    for line in told.read_text().splitlines() if told.is_file() else ():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            base, names = root / "sys/fs/cgroup/memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            yield base.joinpath(*parts[:depth]), *names


def _number(path: Path) -> int | None:
    """What a file of one number says; None where it isn't there or says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _unused_pages(path: Path) -> int:
    """Bytes of pages of files that can be had back at once."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return 0
    told = {line[0]: int(line[1]) for line in lines if len(line) == 2}
    return told.get("total_inactive_file", told.get("inactive_file", 0))
