"""`cnnspec ops`: the operations there are, and the page of each."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import text
from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.terminal import Terminal
from cnnspec.report.styled import Line, as_plain, as_text, fit

if TYPE_CHECKING:
    from cnnspec.report.op_pages import OpPage

NAME = "ops"
SUMMARY = "the operations, or the page of one: arguments, rules, examples"
DESCRIPTION = "List the operations, or show the page of one: arguments, rules, examples."
EPILOG = """\
examples:
  cnnspec ops
  cnnspec ops Conv2d
  cnnspec ops upsample --format json
"""
_LEAST_SUMMARY = 24
_LEAST_ARGUMENTS = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "op",
        metavar="OPERATION",
        nargs="?",
        type=text("OPERATION"),
        help="an operation in letters of either case",
    )
    add_format(parser, "text", "json", help="text (default) or json")


def run(options: argparse.Namespace) -> int:
    """List, or show one page."""
    from cnnspec.report.op_pages import op_markdown, op_named, op_pages

    page = None if options.op is None else op_named(options.op)
    if options.format == "json":
        from json import dumps

        found = [_brief(one) for one in op_pages()] if page is None else page.to_dict()
        write_result(dumps(found, indent=1), None)
    elif page is not None:
        Terminal(sys.stdout).page(op_markdown(page))
    else:
        _list(op_pages())
    return 0


def _brief(page: OpPage) -> dict[str, str]:
    from cnnspec.report.op_pages import group_of

    return {
        "name": page.name,
        "group": group_of(page),
        "signature": page.signature,
        "summary": page.summary,
    }


def _list(pages: tuple[OpPage, ...]) -> None:
    from cnnspec.report.op_pages import op_index

    terminal = Terminal(sys.stdout)
    widest = max(len(page.name) for page in pages)
    lines: list[Line] = []
    for group, members in op_index(pages).items():
        lines.extend(([], [(group, "bold")]))
        for page in members:
            room = max(terminal.width - widest - 4, _LEAST_SUMMARY)
            summary = fit(page.summary, room)
            _, _, arguments = page.signature.partition(": ")
            left = room - len(summary) - 2
            rest = f"  {fit(arguments, left)}" if arguments and left >= _LEAST_ARGUMENTS else ""
            name = f"  {page.name:{widest}}  "
            lines.append([(name, "cyan"), (summary, ""), (rest, "dim")])
    lines = [*lines[1:], [], [("`cnnspec ops NAME` has the page of one", "dim")]]
    terminal.write(as_text(lines) if terminal.colour else as_plain(lines))
