"""What a process has taken of memory at most, as the system counts it."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["peak_bytes"]

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int | None:
    """Bytes of memory that this process has had resident at once, the most since it began.

    Its own: where Linux is asked through `getrusage`, it counts what the parent had when it started
    this process. What is in the memory of a GPU does not count. None where the system does not say.
    """
    try:
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
