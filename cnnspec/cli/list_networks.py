"""`cnnspec list`: the networks that come with cnnspec, or those of some specs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import one_of
from cnnspec.cli.output import write_result
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure, listed
from cnnspec.frontend.discovery import named_files
from cnnspec.frontend.load import is_bundled
from cnnspec.report.numbers import exact, short
from cnnspec.report.styled import Line, as_plain, as_text, display_width, visible

if TYPE_CHECKING:
    from cnnspec.report.catalogue import Listed, Listing

NAME = "list"
SUMMARY = "bundled networks and variants, with params and MACs"
DESCRIPTION = """\
List the networks that come with cnnspec, or those of some specs or folders,
with all their variants.
"""
EPILOG = """\
examples:
  cnnspec list
  cnnspec list resnet
  cnnspec list specs/*.yaml models/
  cnnspec list --format json | jq -r '.[] | select(.params < 1e7) | .name'

`cnnspec analyze NAME` shows a bundled network; `cnnspec analyze SPEC --variant
VARIANT` shows any. Other names of a variant are not listed.
"""
_QUIET = 1.0
"""Seconds of work before progress is shown."""
_GAP = "  "


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "specs",
        metavar="SPEC",
        nargs="*",
        help="files, folders of specs, or bundled names; all bundled ones without any",
    )
    parser.add_argument(
        "--format",
        type=one_of("--format", "table", "json"),
        metavar="FORMAT",
        default="table",
        help="table (default) or json",
    )


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """List."""
    from cnnspec.report.catalogue import bundled_networks, networks_of

    names = named_files(options.specs, itself=is_bundled)
    listings = list(networks_of(names) if options.specs else bundled_networks())
    if not listings:
        raise EnvironmentFailure(f"there is no network in {listed(options.specs)}")
    found = list(_analyzed(listings))
    if options.format == "json":
        from json import dumps

        write_result(dumps([one.to_dict() for one in found], indent=1), None)
    else:
        terminal = Terminal(sys.stdout)
        lines = _table(found)
        terminal.write(as_text(lines) if terminal.colour else as_plain(lines))
    return 0


def _analyzed(listings: Sequence[Listing]) -> Iterator[Listed]:
    """All with their figures; a terminal is told how far it is when that takes long."""
    started = monotonic()
    shown = sys.stderr is not None and sys.stderr.isatty()
    told = False
    for number, listing in enumerate(listings):
        if shown and monotonic() - started > _QUIET:
            told = True
            sys.stderr.write(f"\r{number} of {len(listings)} networks")
            sys.stderr.flush()
        yield listing.analyze()
    if told:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _table(found: Sequence[Listed]) -> list[Line]:
    rows = [
        (
            visible(one.name),
            visible(one.spec),
            visible(one.variant or ""),
            exact(one.params),
            short(one.params),
            exact(one.macs),
            short(one.macs),
        )
        for one in found
    ]
    heads = ("name", "spec", "variant", "params", "", "MACs", "")
    widths = [max(map(display_width, cells)) for cells in zip(heads, *rows, strict=True)]

    def line(cells: Sequence[str], styles: Sequence[str]) -> Line:
        pieces: Line = []
        for index, (text, width, style) in enumerate(zip(cells, widths, styles, strict=True)):
            blank = " " * (width - display_width(text))
            pieces.append(((text + blank if index < 3 else blank + text) + _GAP, style))
        return pieces

    styles = ("bold", "dim", "", "", "cyan", "", "cyan")
    return [line(heads, ("bold",) * len(heads)), *(line(row, styles) for row in rows)]
