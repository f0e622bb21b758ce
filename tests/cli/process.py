"""The command line as users run it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

__all__ = ["COMMAND", "DECIDING", "ROOT", "Result", "cnnspec", "environment"]

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "cnnspec")
DECIDING = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONIOENCODING", "CNNSPEC_TRACEBACK")
"""Variables that decide how output looks."""


class Result(NamedTuple):
    """What a process left: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


def environment(**changes: str) -> dict[str, str]:
    """The environment of the tests, without what decides how output looks, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if name not in DECIDING}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **changes}


def cnnspec(*arguments: str, stdin: str | bytes = b"", cwd: Path = ROOT, **changes: str) -> Result:
    """Run `cnnspec ARGUMENTS` with other environment variables."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        timeout=300,
        check=False,
    )
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in err
    return Result(done.returncode, out, err)
