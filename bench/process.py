"""Runs a program and says what it took: time, processor time, peak memory.

For POSIX systems. The process that measures has to stay small: Linux counts the memory of the
parent at the moment of the start into the peak of the child, so nothing heavy may be imported
before the last measurement.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import NamedTuple

__all__ = ["ROOT", "Run", "even_environment", "own_peak", "run_python"]

ROOT = Path(__file__).parent.parent
_LONGEST_LINE = 100_000


class Run(NamedTuple):
    """What a process took, and the first line it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def run_python(arguments: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Run the same Python with `arguments` in the root of the checkout.

    Raises `RuntimeError` with the end of its standard error if it fails.
    """
    with TemporaryFile() as output, TemporaryFile() as errors:
        start = perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        # `wait` would not tell what the child used.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            said = errors.read()[-2000:].decode("utf-8", "replace")
            raise RuntimeError(f"python {' '.join(arguments)} failed:\n{said}")
        cpu = usage.ru_utime + usage.ru_stime
        # No more is kept of a long output: this process would grow by it.
        line = output.readline(_LONGEST_LINE).decode("utf-8", "replace")
        return Run(seconds, cpu, _bytes(usage.ru_maxrss), line)


def own_peak() -> int:
    """Peak memory of this process in bytes: the least that a child can seem to take."""
    import resource

    return _bytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def even_environment(folder: str) -> dict[str, str]:
    """An environment in which all programs have the same chances.

    Compiled bytecode is kept in `folder`, as installed programs have it; one run of each program,
    not counted, fills it. torch computes on one thread: on a machine that others use, its threads
    wait for one another, for seconds at times, which would flatter whatever needs no torch.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    }
    environment["PYTHONPYCACHEPREFIX"] = folder
    environment["OMP_NUM_THREADS"] = "1"
    return environment


def _bytes(maxrss: int) -> int:
    return maxrss if sys.platform == "darwin" else maxrss * 1024
