"""Where the text of a spec and of its imports is read from: the disk, or whatever else has files.

`load` asks an `Origin` and never opens a file itself; `revisions` has that of git. What the text
means may not enter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Protocol

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.reader import MAX_BYTES, read_bytes
from cnnspec.source import Source

__all__ = ["Disk", "Origin", "readable"]


@contextmanager
def readable(name: str) -> Iterator[None]:
    """What the disk says against reading a file becomes an `EnvironmentFailure` about `name`."""
    try:
        yield
    except FileNotFoundError:
        raise EnvironmentFailure(f"there is no file `{name}`") from None
    except OSError as failure:
        reason = (failure.strerror or "it cannot be read").lower()
        raise EnvironmentFailure(f"`{name}` cannot be read: {reason}") from None
    except ValueError:
        raise EnvironmentFailure("the path has a character no path can have") from None


class Origin(Protocol):
    """Files by path. Imports come from where the spec came from."""

    def resolve(self, path: PurePath) -> PurePath:
        """The one absolute path of a file; `OSError` or `ValueError` where it can have none."""

    def read(self, path: PurePath, name: str) -> Source:
        """The text of a file, which messages call `name`.

        Raises:
            EnvironmentFailure: there is no such file, or it cannot be read.
            SpecError: it is no text.
        """

    def shown(self, target: PurePath, importer: PurePath, importer_name: str) -> str:
        """How messages call a file that another one, `importer`, imports."""


class Disk:
    """The files of this machine."""

    def resolve(self, path: PurePath) -> PurePath:
        """The path without links."""
        return Path(path).resolve()

    def read(self, path: PurePath, name: str) -> Source:
        """Read a file, no more of it than a spec may have."""
        file = Path(path)
        with readable(name):
            if file.is_dir():
                raise EnvironmentFailure(f"`{name}` is a folder", help="name a spec in it")
            with file.open("rb") as opened:
                return read_bytes(name, opened.read(MAX_BYTES + 1))

    def shown(self, target: PurePath, importer: PurePath, importer_name: str) -> str:
        """Relative to where the name of the importer starts."""
        try:
            relative = target.relative_to(self.resolve(importer).parent)
        except ValueError:
            return str(target)
        return str(Path(importer_name).parent / relative)
