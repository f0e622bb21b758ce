"""Which files are specs: those of folders, and those among the YAML files of a hook.

A file is told by its text, a key `cnnspec` where a line starts, so that one with a mistake counts.
What the text means is decided elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.origins import readable
from cnnspec.frontend.reader import MAX_BYTES

__all__ = ["may_be_spec", "named_files", "read_file", "says_spec"]

_SPEC = re.compile(rb"""^(?:\xef\xbb\xbf)?\{?[ \t]*["']?cnnspec["']?[ \t]*:""", re.MULTILINE)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def says_spec(data: bytes) -> bool:
    """Whether a YAML file says that it is a spec, right or wrong."""
    if data.startswith(_UTF16):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    return bool(_SPEC.search(data))


def read_file(name: str) -> bytes:
    """The bytes of a file, up to one more than a spec may have.

    Raises:
        EnvironmentFailure: it cannot be read.
    """
    with readable(name), Path(name).open("rb") as file:
        return file.read(MAX_BYTES + 1)


def may_be_spec(path: str) -> bool:
    """Whether a file says that it is a spec, or cannot be read: whoever wants it will say why."""
    try:
        return says_spec(read_file(path))
    except EnvironmentFailure:
        return True


def named_files(
    names: Iterable[str], itself: Callable[[str], bool] = lambda name: False
) -> Iterator[str]:
    """The files that names stand for, each once: folders become the specs in them, in order.

    A name that is no folder is passed on as it is, whatever it is, and so is one of which `itself`
    holds. Hidden files and folders do not count.
    """
    seen: set[str] = set()
    for name in names:
        found: Iterable[str] = [name]
        # `Path` refuses characters that no path can have, and a name may have any.
        if os.path.isdir(name) and not itself(name):
            found = _specs_below(name)
        for path in found:
            real = os.path.realpath(path) if "\0" not in path else path
            if real not in seen:
                seen.add(real)
                yield path


def _specs_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in sorted(files):
            path = str(Path(parent, file))
            if file.endswith((".yaml", ".yml")) and not file.startswith(".") and may_be_spec(path):
                yield path
