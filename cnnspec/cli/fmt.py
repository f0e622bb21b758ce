"""`cnnspec fmt`: specs in their one layout."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from cnnspec.cli.output import write_result
from cnnspec.cli.spec_arguments import standard_input
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, SpecError, quantity
from cnnspec.files import write_file
from cnnspec.frontend.discovery import named_files, read_file, says_spec
from cnnspec.frontend.formatting import FormattingError, format_text
from cnnspec.frontend.reader import read_bytes
from cnnspec.source import Source

NAME = "fmt"
SUMMARY = "lay specs out the one way, comments and order kept"
DESCRIPTION = """\
Rewrite specs in their one layout. What they say, their comments, their order
and their line breaks stay; a result that says anything else is not written.
"""
EPILOG = """\
examples:
  cnnspec fmt                       every spec in this folder and below
  cnnspec fmt net.yaml specs/
  cnnspec fmt --check --diff        change nothing, show what would change
  cnnspec fmt - < net.yaml          from standard input to standard output

layout:
  two spaces a level, lists indented below their key; one space after `:` and
  `,`, none inside brackets; two before a comment
  columns of values and of comments stay columns
  at most one blank line, none at the ends; no spaces at the end of a line
  needless punctuation goes: `ReLU: {}`, quotes around words in `layers`
  a flow mapping that reaches beyond column 100 becomes lines, a key on each

exit codes:
  0 fine, 1 a spec cannot be read or, with --check or --diff, would change,
  2 a file cannot be read or written
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "specs",
        metavar="SPEC",
        nargs="*",
        help="files, `-` for standard input, or folders, in which all files `*.yaml` and `*.yml` "
        "with a key `cnnspec` are specs; this folder if none is given",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if a spec would change"
    )
    parser.add_argument(
        "--diff", action="store_true", help="write nothing; show what would change, exit likewise"
    )
    parser.add_argument(
        "--only-specs",
        action="store_true",
        help="pass over files without a key `cnnspec`, as for folders: for hooks that are given "
        "all YAML files",
    )


@dataclass
class _Outcome:
    """What became of the files so far."""

    changed: int = 0
    unchanged: int = 0
    unread: int = 0
    code: int = 0

    def failed(self, code: int) -> None:
        """Count a file that could not be formatted."""
        self.unread += 1
        self.code = max(self.code, code)


def run(options: argparse.Namespace) -> int:
    """Format and report."""
    writes = not (options.check or options.diff)
    if "-" in options.specs and len(options.specs) > 1 and writes:
        raise EnvironmentFailure("`-` stands alone: its result goes to standard output")
    outcome = _Outcome()
    diagnostics: list[Diagnostic] = []
    for name in named_files(options.specs or ["."]):
        try:
            _format(name, options, outcome)
        except SpecError as failure:
            diagnostics.extend(failure.diagnostics)
            outcome.failed(1)
        except EnvironmentFailure as failure:
            Terminal(sys.stderr).failure(failure)
            outcome.failed(2)
        except FormattingError:
            Terminal(sys.stderr).failure(_bug(name))
            outcome.failed(70)
    Terminal(sys.stderr).diagnostics(diagnostics)
    if options.specs != ["-"]:
        Terminal(sys.stderr if options.diff else sys.stdout).write(_summary(options, outcome))
    return outcome.code


def _summary(options: argparse.Namespace, outcome: _Outcome) -> str:
    verb = "would change" if options.check or options.diff else "changed"
    counts = [
        (outcome.changed, verb),
        (outcome.unchanged, "left as it is"),
        (outcome.unread, "not formatted"),
    ]
    told = [f"{quantity(n, 'file')} {what}" for n, what in counts if n]
    return ", ".join(told).replace("files left as it is", "files left as they are") or "no specs"


def _bug(name: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"`{name}` cannot be formatted without changing what it says: it is left as it is",
        help="this is a bug in cnnspec: please report it to the project's issue tracker, with the "
        "spec",
    )


@collector_paused()
def _format(name: str, options: argparse.Namespace, outcome: _Outcome) -> None:
    """Format one file, or standard input."""
    piped = name == "-"
    data = standard_input() if piped else read_file(name)
    if options.only_specs and not says_spec(data):
        return
    source = read_bytes("<stdin>" if piped else name, data)
    text = format_text(source)
    if text.encode() == data:
        outcome.unchanged += 1
        if piped and not (options.check or options.diff):
            write_result(text, None)
        return
    outcome.changed += 1
    if options.check or options.diff:
        outcome.code = max(outcome.code, 1)
        if options.diff:
            write_result(_diff(source, text), None)
        else:
            write_result(f"would change {source.name}", None)
    elif piped:
        write_result(text, None)
    else:
        write_file(name, text.encode())
        write_result(f"changed {name}", None)


def _diff(source: Source, text: str) -> str:
    from difflib import unified_diff

    before = source.text.splitlines(keepends=True)
    after = text.splitlines(keepends=True)
    if before and not before[-1].endswith("\n"):
        before[-1] += "\n\\ no line break at the end\n"
    lines = unified_diff(before, after, source.name, f"{source.name} (formatted)")
    shown = "".join(lines)
    return shown or f"{source.name}: line breaks or the encoding would change\n"
