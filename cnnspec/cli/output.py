"""Where text goes: a stream, or a file that appears whole or not at all.

How the text looks is decided elsewhere.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import write_file

__all__ = ["put", "to_terminal", "write_result"]

_DRAWN = str.maketrans("├└│─█▉▊▋▌▍▎▏…", "|`|-#####...~")
"""What stands for the characters of a table in an encoding that lacks them, column by column."""


def to_terminal(path: str | None) -> bool:
    """Whether `--output PATH` means standard output: when it is not given, or `-`."""
    return path is None or path == "-"


def write_result(text: str, path: str | None) -> None:
    """Write to `path`, or to standard output without one. A line break ends the text.

    Raises `EnvironmentFailure` where that cannot be.
    """
    if path is None or to_terminal(path):
        put(sys.stdout, text)
    else:
        text = text if text.endswith("\n") else text + "\n"
        write_file(path, text.encode("utf-8", "backslashreplace"))


def put(stream: TextIO | None, text: str) -> None:
    """Write a text to a stream at once, with a line break at its end.

    What the stream's encoding lacks becomes ASCII or an escape. A reader who has gone is no
    failure; a full disk is (`EnvironmentFailure`). `stream` is None where the caller closed it.
    """
    if stream is None:
        raise EnvironmentFailure("the output cannot be written: it is closed")
    if not text.endswith("\n"):
        text += "\n"
    try:
        stream.write(_encodable(text, stream.encoding or "utf-8"))
        stream.flush()
    except OSError as failure:
        # What is left in the stream's buffer would fail again when Python flushes it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(failure, BrokenPipeError):
            raise EnvironmentFailure(f"the output cannot be written: {_reason(failure)}") from None


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        try:
            "".join(map(chr, _DRAWN)).encode(encoding)
        except UnicodeEncodeError:
            text = text.translate(_DRAWN)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _reason(failure: OSError) -> str:
    return (failure.strerror or "unknown reason").lower()
