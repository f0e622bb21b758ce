"""Several processes of one run on this machine: started together, told to end once, gone together.

torch's elastic agent starts and watches them (`elastic_agent`). Everything that was started reads
the far end of one pipe: when it closes, because this process ended in whatever way, all of it ends.
This module imports no torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from types import FrameType
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure

__all__ = [
    "Launched",
    "OthersGone",
    "end_with_launcher",
    "launch",
    "launched",
    "rank_here",
    "report_failure",
    "world_here",
]

_FOLDER = "CNNSPEC_LAUNCHED"
"""The variable that tells a process that it was launched, and where failures are reported."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class OthersGone(EnvironmentFailure):
    """Another process of the run ended before its time; what ended it is known there."""


class Launched:
    """How a run of several processes ended: its exit code, and what a process reported."""

    def __init__(self, code: int, failure: EnvironmentFailure | None) -> None:
        self.code = code
        self.failure = failure


def launch(
    arguments: Sequence[str],
    *,
    processes: int,
    threads: int,
    module: str = "cnnspec",
    variables: Mapping[str, str] | None = None,
) -> Launched:
    """Run `python -m MODULE ARGUMENTS` in so many processes and wait for their end.

    Each gets `threads` of the CPU unless `OMP_NUM_THREADS` is set, and finds its place in torch's
    variables (`RANK`, `WORLD_SIZE`, ...). They write where this process does. Ctrl-C and SIGTERM
    are passed on once, so that the run can save its state; a second one ends everything at once.
    Called from the main thread. Raises `EnvironmentFailure` where no process can be started.
    """
    with TemporaryDirectory(prefix="cnnspec-") as folder:
        environment = _environment(folder, threads) | dict(variables or {})
        command = [
            sys.executable,
            "-m",
            "cnnspec.training.distribution.elastic_agent",
            str(processes),
            module,
        ]
        with _Agent() as agent:
            agent.start([*command, *arguments], environment)
            code = agent.wait()
        return Launched(128 - code if code < 0 else code, _first_failure(Path(folder)))


def _environment(folder: str, threads: int) -> dict[str, str]:
    package = str(Path(__file__).parents[3])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",
        _FOLDER: folder,
    }


class _Agent:
    """The process that runs the agent. Signals go by way of it while the block lasts."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._heard: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Agent:
        self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it in a session of its own, where Ctrl-C of the terminal does not reach it."""
        try:
            with _held_back():
                self._process = subprocess.Popen(
                    command, env=dict(environment), stdin=subprocess.PIPE, **_apart()
                )
        except OSError as failure:
            reason = (failure.strerror or "unknown reason").lower()
            raise EnvironmentFailure(f"no process can be started: {reason}") from None
        if self._heard:
            self._process.send_signal(self._heard[0])

    def wait(self) -> int:
        """Its exit code."""
        assert self._process is not None  # it was started
        return self._process.wait()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._heard.append(number)
        if self._process is None:
            return
        if len(self._heard) == 1:
            self._process.send_signal(number)
        else:
            self._let_go()

    def _let_go(self) -> None:
        """End everything that was started."""
        assert self._process is not None  # it was started
        assert self._process.stdin is not None  # it is a pipe
        with suppress(OSError):
            self._process.stdin.close()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._let_go()
            self._process.wait()
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _apart() -> dict[str, Any]:
    """What keeps Ctrl-C of the terminal from a process."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


@contextmanager
def _held_back() -> Iterator[None]:
    """Hold signals back in this thread; a process that is started in the block begins so too."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -------------------------------------------------------------------- within a process of a run


def rank_here() -> int:
    """The number of this process among those of its run, as torch's launchers tell it."""
    return _told("RANK", 0)


def world_here() -> int:
    """How many processes its run has."""
    return _told("WORLD_SIZE", 1)


def _told(name: str, otherwise: int) -> int:
    given = os.environ.get(name, "")
    return int(given) if given.isascii() and given.isdigit() else otherwise


def launched() -> bool:
    """Whether `launch` started this process."""
    return _FOLDER in os.environ


def end_with_launcher() -> None:
    """End this process, and all it starts, when the one that launched it is gone.

    Standard input is the pipe that tells so. Nothing is saved then: what launched the run was
    killed, or told a second time to end.
    """
    if launched():
        threading.Thread(target=_end_with_pipe, daemon=True).start()


def _end_with_pipe() -> None:
    with suppress(OSError):
        while os.read(0, 1):
            continue
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def report_failure(failure: EnvironmentFailure) -> None:
    """Leave a failure for `launch` to find, which shows that of one process once."""
    report = {"when": time(), "message": failure.message, "help": failure.help}
    path = Path(os.environ[_FOLDER]) / f"failure-{rank_here()}.json"
    with suppress(OSError):
        path.write_text(json.dumps(report), encoding="utf-8")


def _first_failure(folder: Path) -> EnvironmentFailure | None:
    """What went wrong first, by the clock of the machine; the process is named but for the first.

    Where several say the same, it is about no one of them.
    """
    reports: list[tuple[float, int, str, str]] = []
    for path in folder.glob("failure-*.json"):
        with suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            rank = int(path.stem.removeprefix("failure-"))
            reports.append((found["when"], rank, found["message"], found["help"]))
    if not reports:
        return None
    _, rank, message, help = min(reports)
    alone = sum(report[2] == message for report in reports) == 1
    return EnvironmentFailure(
        f"process {rank}: {message}" if alone and rank else message, help=help
    )
