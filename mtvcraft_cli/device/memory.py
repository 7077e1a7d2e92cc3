"""How much memory there is, and how much was taken."""

import os
import sys
from pathlib import Path


def peak_memory(device: str = "cpu") -> dict[str, int | None]:
    """The most that this process has held, in bytes: of RAM, and of the card where it works on one.

    RAM is None where the system doesn't tell.
    """
    peak: dict[str, int | None] = {"ram": None}
    if os.name == "posix":
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


def free_memory() -> int | None:
    """Bytes of RAM that may still be taken, by the container's limit where there is one; None where nothing tells."""
    free: list[int] = []
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        free.append(int(limit.read_text()) - int(used.read_text()))
    return min(free) if free else None
