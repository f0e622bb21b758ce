"""Runs one command and turns failures into exit codes.

0 fine, 1 the spec is wrong, 2 usage or environment, 70 a bug in cnnspec. No failure reaches the
caller as an exception; interrupts do, and `cnnspec.__main__` makes them 130.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cnnspec.cli.commands import COMMANDS, all_commands, command
from cnnspec.cli.parser import parse
from cnnspec.cli.spec_arguments import exit_code
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure, SpecError

__all__ = ["main"]

_EPILOG = """\
examples:
  cnnspec analyze vgg16                      a bundled network
  cnnspec analyze net.yaml --set classes=10  your own, with another param
  cnnspec check specs/*.yaml                 every mistake, with its line
  cnnspec explain concat-shape               what a code means

exit codes:
  0 fine, 1 the spec is wrong, 2 usage or environment, 70 a bug in cnnspec,
  130 interrupted
"""


def main(arguments: Sequence[str]) -> int:
    """Run `cnnspec ARGUMENTS` and return the exit code."""
    try:
        return _run(arguments)
    except EnvironmentFailure:
        # Not even standard error can be written.
        return 2


def _run(arguments: Sequence[str]) -> int:
    try:
        options = parse(arguments, COMMANDS, command, all_commands, _EPILOG)
        code: int = options.run(options)
    except SystemExit as finished:
        return finished.code if isinstance(finished.code, int) else 0
    except SpecError as failure:
        Terminal(sys.stderr).diagnostics(failure.diagnostics)
        return exit_code(failure.diagnostics)
    except EnvironmentFailure as failure:
        Terminal(sys.stderr).failure(failure)
        return 2
    except MemoryError:
        Terminal(sys.stderr).failure(EnvironmentFailure("there is not enough memory"))
        return 2
    except Exception:
        return _bug()
    return code


def _bug() -> int:
    """Report the exception being handled, which no spec should be able to cause."""
    terminal = Terminal(sys.stderr)
    if os.environ.get("CNNSPEC_TRACEBACK"):
        from traceback import format_exc

        terminal.write(format_exc())
    terminal.failure(
        EnvironmentFailure(
            "this is a bug in cnnspec",
            help="please report it to the project's issue tracker, with the spec, the command and "
            "what it shows with CNNSPEC_TRACEBACK=1",
        )
    )
    return 70
