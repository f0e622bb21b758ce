"""Files that appear under their name whole or not at all.

Nothing is known here of what the files hold.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cnnspec.diagnostics import EnvironmentFailure

__all__ = ["replacing", "write_draft", "write_file"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A draft beside `path` that takes its place if the block ends well, and goes if it does not.

    The block writes the draft with `write_draft`. A link stays a link, the mode of a
    file that was there is kept. Raises `EnvironmentFailure` where no file can be put at `path`.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
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


def write_draft(draft: Path, data: bytes, path: str | os.PathLike[str]) -> None:
    """Write a draft and wait until the disk has it; `path` is what messages call it."""
    with _explained(path), draft.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _explained(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"`{os.fspath(path)}` cannot be written: {reason}") from None
