"""`cnnspec explain`: the page of a diagnostic code."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from cnnspec.cli.option_types import text
from cnnspec.cli.output import write_result
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure, did_you_mean

NAME = "explain"
SUMMARY = "what a diagnostic code means and how to mend it"
DESCRIPTION = "Show the page of a diagnostic code, or list all codes."
EPILOG = """\
examples:
  cnnspec explain concat-shape
  cnnspec explain
"""

_AS_PRINTED = re.compile(r"(?:error|warning)?\[(.*)\]")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "code",
        metavar="CODE",
        nargs="?",
        type=text("CODE"),
        help="a code, as `error[CODE]` shows it; all without one",
    )


def run(options: argparse.Namespace) -> int:
    """Show one page, or the list of all."""
    folder = Path(__file__).parents[1] / "explain"
    pages = {page.stem: page for page in sorted(folder.glob("*.md"))}
    if options.code is None:
        width = max(map(len, pages))
        titles = (page.read_text(encoding="utf-8").split("\n", 1)[0] for page in pages.values())
        lines = (
            f"{code:{width}}  {title.removeprefix('# ')}\n"
            for code, title in zip(pages, titles, strict=True)
        )
        write_result("".join(lines), None)
        return 0
    printed = _AS_PRINTED.fullmatch(options.code)
    code = printed[1] if printed else options.code
    if code not in pages:
        raise EnvironmentFailure(
            f"there is no diagnostic `{code}`",
            help=did_you_mean(code, pages) or "`cnnspec explain` lists all",
        )
    Terminal(sys.stdout).page(pages[code].read_text(encoding="utf-8"))
    return 0
