"""Main memory: what this machine has, and what this process holds of it."""

import ctypes
import os
import sys
from pathlib import Path


def main_memory_bytes() -> int:
    """Return the main memory, or what a container may have of it."""
    if sys.platform == "win32":
        kibibytes = ctypes.c_ulonglong()
        ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kibibytes))
        return 1024 * kibibytes.value
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        if path.is_file() and path.read_text(encoding="ascii").strip().isdigit():
            total = min(total, int(path.read_text(encoding="ascii")))
    return total


def resident_bytes() -> int:
    """Return what this process holds in main memory now; on macOS the most it ever held, on Windows 0."""
    if sys.platform == "win32":
        return 0
    statistics = Path("/proc/self/statm")
    if statistics.is_file():
        return int(statistics.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
