"""`cnnspec list`: the networks that come with cnnspec, or those of some specs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.progress import counted
from cnnspec.cli.spec_arguments import exit_code
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, SpecError, listed, shape_text
from cnnspec.frontend.discovery import named_files
from cnnspec.frontend.load import is_bundled
from cnnspec.report.numbers import exact, short
from cnnspec.report.styled import Line, as_plain, as_text, display_width, visible

if TYPE_CHECKING:
    from cnnspec.report.catalogue import Listed, Listing

NAME = "list"
SUMMARY = "bundled networks and variants, with params, MACs and inputs"
DESCRIPTION = """\
List the networks that come with cnnspec, or those of some specs or folders,
with all their variants, file by file.
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
_GAP = "  "


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "specs",
        metavar="SPEC",
        nargs="*",
        help="files, folders of specs, or bundled names; all bundled ones without any",
    )
    add_format(parser, "table", "json", help="table (default) or json")


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """List."""
    from cnnspec.report.catalogue import bundled_networks

    wrong = _Wrong()
    listings = list(_of_specs(options.specs, wrong) if options.specs else bundled_networks())
    found = list(_analyzed(listings, wrong))
    if not listings and not wrong:
        raise EnvironmentFailure(f"there is no network in {listed(options.specs)}")
    if options.format == "json":
        from json import dumps

        write_result(dumps([one.to_dict() for one in found], indent=1), None)
    elif found:
        terminal = Terminal(sys.stdout)
        lines = _table(found)
        terminal.write(as_text(lines) if terminal.colour else as_plain(lines))
    Terminal(sys.stderr).diagnostics(wrong.diagnostics)
    for failure in wrong.failures:
        Terminal(sys.stderr).failure(failure)
    return 2 if wrong.failures else exit_code(wrong.diagnostics)


@dataclass
class _Wrong:
    """What keeps networks out of the list, which shows all others."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    failures: list[EnvironmentFailure] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.diagnostics or self.failures)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is wrong in a block, and go on behind it."""
        try:
            yield
        except SpecError as failure:
            self.diagnostics.extend(failure.diagnostics)
        except EnvironmentFailure as failure:
            self.failures.append(failure)


def _of_specs(specs: Sequence[str], wrong: _Wrong) -> Iterator[Listing]:
    """The networks of specs, each spec looked at by itself."""
    from cnnspec.report.catalogue import networks_of

    if "-" in specs:
        raise EnvironmentFailure(
            "networks on standard input have no name to be listed by", help="name a file"
        )
    for name in named_files(specs, itself=is_bundled):
        with wrong.noted():
            yield from list(networks_of([name]))


def _analyzed(listings: Sequence[Listing], wrong: _Wrong) -> Iterator[Listed]:
    """All with their figures."""
    for listing in counted(listings, "networks"):
        with wrong.noted():
            yield listing.analyze()


def _table(found: Sequence[Listed]) -> list[Line]:
    """A line for each file with what it says of itself, and below it its networks."""
    rows = [(one.spec, tuple(map(visible, _cells(one)))) for one in found]
    said = {one.spec: visible(one.about) for one in found}
    heads = ("name", "params", "", "MACs", "", "input")
    widths = [
        max(map(display_width, cells))
        for cells in zip(heads, *(cells for _, cells in rows), strict=True)
    ]

    def line(cells: Sequence[str], styles: Sequence[str]) -> Line:
        pieces: Line = [("  ", "")]
        for index, (text, width, style) in enumerate(zip(cells, widths, styles, strict=True)):
            blank = " " * (width - display_width(text))
            last = index == len(cells) - 1
            aligned = text if last else text + blank if index == 0 else blank + text
            pieces.append((aligned if last else aligned + _GAP, style))
        return pieces

    lines = [line(heads, ("bold",) * len(heads))]
    for spec, members in groupby(rows, key=lambda row: row[0]):
        lines.append([(visible(spec), "bold"), (f"{_GAP}{said[spec]}".rstrip(), "dim")])
        lines += [line(cells, ("", "", "cyan", "", "cyan", "dim")) for _, cells in members]
    return lines


def _cells(one: Listed) -> tuple[str, ...]:
    shapes = ", ".join(map(shape_text, one.inputs.values()))
    figures = (exact(one.params), short(one.params), exact(one.macs), short(one.macs))
    return (one.name, *figures, shapes)
