"""`python -m cnnspec` and the `cnnspec` command."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code."""
    signal.signal(signal.SIGTERM, _terminated)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _hung_up)
    try:
        from cnnspec.cli.main import main as run

        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return 130


def _terminated(*_: object) -> None:
    """Leave by way of every `finally`, so that no draft of a file stays behind."""
    sys.exit(143)


def _hung_up(*_: object) -> None:
    """The terminal is gone: the same as SIGTERM, whoever listens to that now."""
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
