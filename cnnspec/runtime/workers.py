"""Processes that each run one contender: started, asked, ended.

A process of its own makes peak memory honest, and lets contenders take turns all the same: those
whose turn it is not wait for a line of text. What is asked of them may not enter.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from json import JSONDecodeError, dumps, loads
from tempfile import TemporaryFile
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.serving import Job

__all__ = ["Worker", "WorkerFailure"]

_START = """\
import sys
from json import loads
told = loads(sys.stdin.buffer.readline())
sys.path[:] = told["path"]
from importlib import import_module
import_module(told["module"]).main(told["job"])
"""
"""What a process runs: it imports from where this one does, whatever lies in its folder."""

_LONGEST = 200
_KILLED = 9
_PATIENCE = 10.0
"""Seconds that a process has to end in which has closed its output."""


class WorkerFailure(EnvironmentFailure):
    """A contender that cannot be made or run; the message is why."""


class Worker:
    """The process of one contender, a context manager.

    `module` is what it runs: its `main` is given `job`. Ctrl-C goes to this process alone, which
    ends the others.
    """

    def __init__(self, module: str, job: Job) -> None:
        self._errors = TemporaryFile()  # noqa: SIM115 - closed in __exit__
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                **_apart(),
            )
        except OSError as failure:
            self._errors.close()
            reason = (failure.strerror or "unknown reason").lower()
            raise WorkerFailure(f"no process can be started: {reason}") from None
        self._told = {"path": sys.path, "module": module, "job": dict(job)}

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream is not None  # all are pipes and files
            try:
                stream.close()
            except OSError:  # what was never read
                continue

    def start(self) -> dict[str, Any]:
        """Make the contender, and say what really runs. Raises `WorkerFailure`."""
        return self._asked(self._told)

    def outputs(self, path: str) -> None:
        """Put what comes out into a file of numpy's. Raises `WorkerFailure`."""
        self._asked({"do": "outputs", "path": path})

    def run(self, count: int) -> tuple[list[float], int | None]:
        """Run once for nothing, then `count` times: seconds of each, and peak memory in bytes.

        Raises `WorkerFailure`.
        """
        answer = self._asked({"do": "run", "count": count})
        return answer["seconds"], answer["peak"]

    def _asked(self, command: Mapping[str, object]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None  # both are pipes
        assert process.stdout is not None
        try:
            process.stdin.write(dumps(command).encode() + b"\n")
            process.stdin.flush()
            answer: dict[str, Any] = loads(process.stdout.readline())
        except (OSError, JSONDecodeError):
            raise WorkerFailure(self._end()) from None
        if "failed" in answer:
            raise WorkerFailure(answer["failed"])
        return answer

    def _end(self) -> str:
        """What to say of a process that is gone."""
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return "its process says what nobody asked for"
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = next(filter(None, (line.strip() for line in reversed(lines))), "")[:_LONGEST]
        if code == -_KILLED:
            return "its process was killed, which systems do when memory runs out"
        how = f"by signal {-code}" if code < 0 else f"with code {code}"
        return f"its process ended {how}{': ' if said else ''}{said}"


def _apart() -> dict[str, Any]:
    """What keeps Ctrl-C from a process."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
