"""Doing something again whenever the files it reads change, until Ctrl-C.

Files are looked at a few times a second, which needs no dependency and works on every file system.
What is done, and which files it reads, is the caller's to say.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from stat import S_ISDIR
from time import monotonic, sleep
from typing import NoReturn, TypeAlias

from cnnspec.cli.output import put
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure, SpecError, quantity
from cnnspec.frontend.discovery import named_files
from cnnspec.frontend.load import files_of, is_bundled
from cnnspec.report import Report
from cnnspec.report.numbers import binary_size, short

__all__ = ["paths_of", "watch"]

_INTERVAL = 0.25
"""Seconds between two looks."""
_SETTLED = 0.1
"""Seconds without a change after which a burst of them is over."""
_PATIENCE = 2.0
"""Most seconds to wait for a burst to end, or for a file to come back."""
_CLEAR = "\x1b[H\x1b[2J"

_State: TypeAlias = Mapping[Path, tuple[int, int, int] | None]


def paths_of(specs: Iterable[str]) -> Callable[[], tuple[Path, ...]]:
    """What finds the files of some SPECs and all they import, anew each time it is called.

    A folder is found too, beside the specs in it. Raises `EnvironmentFailure` for standard input,
    which does not change.
    """
    given = tuple(specs)
    if "-" in given:
        raise EnvironmentFailure("standard input cannot be watched", help="name a file")

    def find() -> tuple[Path, ...]:
        folders = [Path(name) for name in given if Path(name).is_dir() and not is_bundled(name)]
        names = named_files(given, itself=is_bundled)
        files = (path for name in names for path in files_of(name))
        return tuple(dict.fromkeys((*folders, *files)))

    return find


def watch(paths: Callable[[], Iterable[Path]], once: Callable[[], object]) -> NoReturn:
    """Do `once`, and again whenever one of `paths` changes, comes or goes. Ends with Ctrl-C.

    What is wrong with a spec, or that it is gone, is shown and waited out. Where `once` gives a
    `Report`, what became of its totals since the last one that there was is shown below.
    """
    terminal = Terminal(sys.stderr)
    shown = sys.stdout is not None and sys.stdout.isatty()
    clears = shown and os.environ.get("TERM") != "dumb"
    before: Report | None = None
    while True:
        files = tuple(paths())
        state = _look(files)  # before it is read: a change while it is read is one more
        if clears:
            put(sys.stdout, _CLEAR)
        report = _guarded(once, terminal)
        if isinstance(report, Report):
            if before is not None:
                terminal.write(_progress(before, report))
            before = report
        watched = sum(not file.is_dir() for file in files)
        terminal.write(f"watching {quantity(watched, 'file')}, Ctrl-C ends")
        _wait(files, state)


def _guarded(once: Callable[[], object], terminal: Terminal) -> object:
    try:
        return once()
    except SpecError as failure:
        terminal.diagnostics(failure.diagnostics)
    except EnvironmentFailure as failure:
        terminal.failure(failure)
    return None


def _look(files: Iterable[Path]) -> _State:
    """What tells that a file changed: its time, size and identity; None where there is none.

    Of a folder, which specs there are in it: its own time also changes with files of editors.
    """
    found: dict[Path, tuple[int, int, int] | None] = {}
    for file in files:
        try:
            known = file.stat()
            if S_ISDIR(known.st_mode):
                inside = sorted(str(path) for path in file.rglob("*.y*ml"))
                found[file] = hash(tuple(inside)), len(inside), known.st_ino
            else:
                found[file] = known.st_mtime_ns, known.st_size, known.st_ino
        except (OSError, ValueError):
            found[file] = None
    return found


def _wait(files: tuple[Path, ...], state: _State) -> None:
    """Return when something has changed and the changes are over.

    Many editors write a new file and rename it, so that for a moment there is none.
    """
    while (seen := _look(files)) == state:
        sleep(_INTERVAL)
    patient = monotonic() + _PATIENCE
    while monotonic() < patient:
        sleep(_SETTLED)
        now = _look(files)
        gone = any(now[file] is None and state[file] is not None for file in files)
        if now == seen and not gone:
            break
        seen = now


def _progress(before: Report, now: Report) -> str:
    """`params 25.6 M -> 25.1 M (-2.0%)`, for each total that changed."""
    old, new = before.totals, now.totals
    figures = (
        ("params", old.params, new.params, short),
        ("MACs", old.macs, new.macs, short),
        ("peak memory", old.peak_activation_bytes, new.peak_activation_bytes, binary_size),
    )
    changed = [
        f"{name} {shown(a)} -> {shown(b)}" + (f" ({100 * (b - a) / a:+.1f}%)" if a else "")
        for name, a, b, shown in figures
        if a != b
    ]
    return ", ".join(changed) or "params, MACs and peak memory as before"
