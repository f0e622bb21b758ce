"""Files and folders that appear under their name whole or not at all.

Nothing is known here of what the files hold.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cnnspec.diagnostics import EnvironmentFailure

__all__ = ["filling", "replacing", "undisturbed", "write_draft", "write_file"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A draft beside `path` that takes its place if the block ends well, and goes if it does not.

    The block writes the draft with `write_draft`. A link stays a link, the mode of a
    file that was there is kept. Raises `EnvironmentFailure` where no file can be put at `path`.
    """
    target = Path(os.path.realpath(path))
    with _explained(path):
        odd = target.exists() and not target.is_file()
    if odd:
        kind = "a folder" if target.is_dir() else "no regular file"
        raise EnvironmentFailure(f"`{os.fspath(path)}` cannot be written: it is {kind}")
    draft = target.with_name(f".{target.name[:100]}.{os.urandom(4).hex()}.tmp")
    try:
        with _explained(path):
            draft.open("xb").close()
        yield draft
        with _explained(path):
            if target.exists():
                draft.chmod(stat.S_IMODE(target.stat().st_mode))
            draft.replace(target)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` at `path`, whole or not at all; a device or pipe is written to as it is.

    Raises `EnvironmentFailure` where that cannot be.
    """
    target = Path(path)
    if target.exists() and not target.is_file() and not target.is_dir():
        with _explained(path), target.open("wb") as device:
            device.write(data)
        return
    with replacing(path) as draft:
        write_draft(draft, data, path)


@contextmanager
def filling(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A draft of a folder, whose files are those of `path` if the block ends well.

    Where nothing is at `path` yet, the draft takes its place at once. A folder that is there keeps
    what else it holds, and the draft's files take their places one after another: Ctrl-C and
    SIGTERM wait until the last one has; files that were there keep their modes. In any other end
    the draft goes. The block writes plain files only.

    Raises `EnvironmentFailure` where no folder can be put at `path`.
    """
    target = Path(os.path.realpath(path))
    there = target.is_dir()
    if target.exists() and not there:
        raise EnvironmentFailure(f"`{os.fspath(path)}` cannot be written: it is no folder")
    name = f".{target.name[:100]}.{os.urandom(4).hex()}.tmp"
    draft = target / name if there else target.with_name(name)
    try:
        with _explained(path):
            draft.mkdir()
        yield draft
        with _explained(path), undisturbed():
            if there:
                for file in sorted(draft.iterdir()):
                    place = target / file.name
                    if place.exists():
                        file.chmod(stat.S_IMODE(place.stat().st_mode))
                    file.replace(place)
            else:
                draft.rename(target)
    finally:
        with undisturbed():
            shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for the moment of the block. Only the main thread gets them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for later in heard:
            signal.raise_signal(later)


def write_draft(
    draft: Path, data: bytes | Iterable[bytes | memoryview], path: str | os.PathLike[str]
) -> None:
    """Write a draft and wait until the disk has it; `path` is what messages call it.

    `data` may come in pieces, so that not all of it has to be in memory at once.
    """
    with _explained(path), draft.open("wb") as file:
        for piece in (data,) if isinstance(data, bytes) else data:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{os.fspath(path)}` cannot be written: {reason}") from None
