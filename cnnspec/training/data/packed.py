"""Files that are published whole, perhaps packed: found, and read to no more than they may hold."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from cnnspec.diagnostics import EnvironmentFailure

__all__ = ["damaged", "folder_of", "read_file", "read_tar"]

_BROKEN = (EOFError, OSError, tarfile.TarError, zlib.error)


def folder_of(path: str | None, what: str, source: str) -> Path:
    """The place that `data.path` says. Raises `EnvironmentFailure` where nothing is."""
    if path is None:
        raise EnvironmentFailure(
            f"the folder with the files of {what} is not named",
            help=f"`--data {source}:FOLDER`, or `data.path`",
        )
    found = Path(path)
    if not found.exists():
        raise EnvironmentFailure(f"`{path}` is not there")
    return found


def damaged(path: Path | str, reason: str) -> EnvironmentFailure:
    """A file that is not what was published."""
    return EnvironmentFailure(f"`{path}` cannot be used: {reason}", help="fetch it again")


def read_file(path: Path, most: int) -> bytes:
    """All of a file, unpacked where its name ends with `.gz`.

    Raises `EnvironmentFailure` for what cannot be read or holds more than `most` bytes.
    """
    try:
        with _opened(path) as file:
            return _read_bounded(file, path, most)
    except _BROKEN as failure:
        raise _explained(path, failure) from None


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """A file to be read, unpacked where its name ends with `.gz`."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")
    return path.open("rb")


def _read_bounded(file: IO[bytes] | gzip.GzipFile, path: Path | str, most: int) -> bytes:
    """What is left in `file`. Raises `EnvironmentFailure` where that is more than `most` bytes."""
    found = file.read(most + 1)
    if len(found) > most:
        raise damaged(path, f"it holds more than {most:,} bytes")
    return found


def read_tar(path: Path, wanted: Iterable[str], most: int) -> Mapping[str, bytes]:
    """Files of an archive by their names without folders; of two of a name the first.

    Raises `EnvironmentFailure` for a damaged archive and for members of more than `most` bytes.
    """
    names = set(wanted)
    found: dict[str, bytes] = {}
    try:
        with _opened(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if name in names and name not in found and member.isfile():
                    content = archive.extractfile(member)
                    if content is not None:
                        found[name] = _read_bounded(content, f"{path}/{member.name}", most)
    except _BROKEN as failure:
        raise _explained(path, failure) from None
    return found


def _explained(path: Path, failure: BaseException) -> EnvironmentFailure:
    if isinstance(failure, OSError) and failure.errno is not None and failure.strerror:
        return EnvironmentFailure(f"`{path}` cannot be read: {failure.strerror.lower()}")
    return damaged(path, "it is truncated or damaged")
