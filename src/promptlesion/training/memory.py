"""Main memory: what this machine has, and what this process holds of it."""

from pathlib import Path

import psutil


def main_memory_bytes() -> int:
    """Return the main memory, or what a container may have of it."""
    total = psutil.virtual_memory().total
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        if path.is_file() and path.read_text(encoding="ascii").strip().isdigit():
            total = min(total, int(path.read_text(encoding="ascii")))
    return total


def resident_bytes() -> int:
    """Return what this process holds in main memory now."""
    return psutil.Process().memory_info().rss
