"""How many threads this process may use: its affinity mask, and the quota of its control group.

ONNX Runtime would count the cores of the machine, which containers and schedulers share out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

__all__ = ["cpu_quota", "usable_threads"]


def usable_threads(root: Path = Path("/")) -> int:
    """The CPUs that this process may run on, no more than the quota of its control group pays for.

    `root` is where the system's files are looked for.
    """
    if hasattr(os, "process_cpu_count"):  # from Python 3.13
        allowed = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count()
    quota = cpu_quota(root)
    return max(1, min(allowed or 1, allowed or 1 if quota is None else ceil(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs that control groups grant this process, None where they set no limit.

    Of both versions of control groups; the smallest of all that the process is in.
    """
    quotas = [*_second(root), *_first(root)]
    return min(quotas, default=None)


def _groups(root: Path) -> Iterator[tuple[str, str]]:
    """The control groups of this process: controllers (none in version 2) and path."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[1], parts[2].strip("/")


def _second(root: Path) -> Iterator[float]:
    top = root / "sys/fs/cgroup"
    for controllers, path in _groups(root):
        if controllers:
            continue
        for folder in _upwards(top, path):
            limit, _, period = _read(folder / "cpu.max").strip().partition(" ")
            yield from _quota(limit, period)


def _first(root: Path) -> Iterator[float]:
    for controllers, path in _groups(root):
        if "cpu" not in controllers.split(","):
            continue
        for name in ("cpu", "cpu,cpuacct"):
            for folder in _upwards(root / "sys/fs/cgroup" / name, path):
                limit = _read(folder / "cpu.cfs_quota_us").strip()
                yield from _quota(limit, _read(folder / "cpu.cfs_period_us").strip())


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """The folder of a group and those of the groups around it, of which containers see some."""
    folder = top / path
    yield folder
    while folder != top:
        folder = folder.parent
        yield folder


def _quota(limit: str, period: str) -> Iterator[float]:
    if limit.isdigit() and period.isdigit() and int(limit) > 0 and int(period) > 0:
        yield int(limit) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
