"""Several processes started, told to end, gone: real ones, with a small program for a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.distribution.launching import Launched, launch
from tests.cli.process import ROOT, environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are those of POSIX")

WORKER = """\
import os, signal, subprocess, sys, time
from pathlib import Path
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.distribution.launching import (
    end_with_launcher,
    rank_here,
    report_failure,
    world_here,
)

end_with_launcher()
folder, rank = Path(sys.argv[1]), rank_here()

def ended(number, frame):
    with (folder / f"told-{rank}").open("a") as file:
        file.write(f"{number} ")
    if "stay" not in sys.argv:
        sys.exit(128 + number)

signal.signal(signal.SIGINT, ended)
signal.signal(signal.SIGTERM, ended)
if "child" in sys.argv:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / f"pid-{rank}-child").write_text(str(child.pid))
(folder / f"pid-{rank}").write_text(str(os.getpid()))
(folder / f"there-{rank}").write_text(
    f"{world_here()} {os.environ['OMP_NUM_THREADS']} {sys.argv[2:]}"
)
if "fail" in sys.argv and rank == 1:
    report_failure(EnvironmentFailure("the disk is full", help="make room"))
    sys.exit(2)
if "agree" in sys.argv:
    report_failure(EnvironmentFailure("there is no data"))
    sys.exit(2)
if "end" not in sys.argv:
    time.sleep(60)
"""

LAUNCHER = """\
import sys
from cnnspec.training.distribution.launching import launch
ended = launch(sys.argv[1:], processes=2, threads=1, module="worker")
sys.exit(ended.code)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def until(wanted: Path) -> str:
    ends = time.monotonic() + 60
    while not (wanted.exists() and wanted.read_text(encoding="utf-8")):
        assert time.monotonic() < ends, f"{wanted.name} never came"
        time.sleep(0.02)
    return wanted.read_text(encoding="utf-8")


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        if os.path.isdir("/proc/self"):
            return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    return state != "Z"


def pids(folder: Path) -> list[int]:
    return [int(path.read_text(encoding="ascii")) for path in folder.glob("pid-*")]


def all_gone(folder: Path) -> bool:
    ends = time.monotonic() + 10
    while any(map(alive, pids(folder))):
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def launched(folder: Path, *words: str, **options: int) -> Launched:
    given = {"processes": 2, "threads": 3, **options}
    return launch([str(folder), *words], module="worker", **given)


def test_processes_know_their_places_and_the_code_is_nought(folder: Path) -> None:
    ended = launched(folder, "end", "--flag", "a b")
    assert (ended.code, ended.failure) == (0, None)
    for rank in range(2):
        assert until(folder / f"there-{rank}") == "2 3 ['end', '--flag', 'a b']"


def test_threads_that_are_set_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    launched(folder, "end")
    assert until(folder / "there-0").split()[1] == "7"


def test_the_code_of_the_first_that_fails_comes_back_with_what_it_says(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = launched(folder, "fail")
    assert ended.code == 2
    assert isinstance(ended.failure, EnvironmentFailure)
    assert ended.failure.message == "process 1: the disk is full"
    assert ended.failure.help == "make room"
    assert all_gone(folder)
    assert until(folder / "told-0").split() == [str(int(signal.SIGTERM))]
    assert capfd.readouterr() == ("", "")


def test_what_all_say_is_about_no_one(folder: Path) -> None:
    ended = launched(folder, "agree")
    assert ended.failure is not None
    assert ended.failure.message == "there is no data"


@pytest.fixture
def started(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A list of processes that do not outlive the test."""
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for process in found:
        process.kill()
        process.communicate()


def begun(
    folder: Path, started: list[subprocess.Popen[bytes]], *words: str
) -> subprocess.Popen[bytes]:
    """A process that launched two, which are there and listen."""
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(folder), *words],
        env=environment(PYTHONPATH=os.environ["PYTHONPATH"]),
        stderr=subprocess.PIPE,
    )
    started.append(process)
    for rank in range(2):
        until(folder / f"there-{rank}")
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_every_process_once(
    number: signal.Signals, folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    process = begun(folder, started)
    process.send_signal(number)
    assert process.wait(60) == 128 + number
    for rank in range(2):
        assert until(folder / f"told-{rank}").split() == [str(int(number))]
    assert all_gone(folder)
    assert process.stderr is not None
    assert process.stderr.read() == b""


def test_a_second_signal_ends_what_does_not_end(
    folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    process = begun(folder, started, "stay")
    process.send_signal(signal.SIGINT)
    until(folder / "told-0")
    until(folder / "told-1")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) > 0
    assert all_gone(folder)


def test_nothing_outlives_a_launcher_that_is_killed(
    folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    process = begun(folder, started, "stay", "child")
    assert len(pids(folder)) == 4
    process.kill()
    process.wait()
    assert all_gone(folder)


def test_a_process_that_is_killed_takes_the_others_along(
    folder: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    process = begun(folder, started)
    os.kill(int(until(folder / "pid-1")), signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    assert all_gone(folder)
