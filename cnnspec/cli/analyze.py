"""`cnnspec analyze`: everything that can be known about a network without running it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cnnspec.cli.option_types import names, one_of, whole
from cnnspec.cli.option_types import text as some_text
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.sections import Asked, add_sections
from cnnspec.cli.spec_arguments import (
    SPEC_HELP,
    add_choice,
    add_lint,
    given_inputs,
    given_params,
    load_spec,
)
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.load import expand
from cnnspec.frontend.resizing import resizing
from cnnspec.passes.options import DTYPES, OPTIMIZERS
from cnnspec.report import (
    COLUMNS,
    Report,
    Section,
    analyze,
    render_table,
    to_csv,
    to_markdown,
)

if TYPE_CHECKING:
    from rich.text import Text

    from cnnspec.report.sections.budget import Budget

NAME = "analyze"
SUMMARY = "shapes, parameters, MACs, receptive fields, memory of a network"
DESCRIPTION = """\
Show everything that can be known about a network without running it; of several
networks a row each.
"""

_EPILOG = """\
examples:
  cnnspec analyze vgg16
  cnnspec analyze specs/resnet.yaml --variant resnet101 --depth 2
  cnnspec analyze unet.yaml --input image=3x512x512 --columns output,macs,memory
  cnnspec analyze net.yaml --format json | jq .totals
  cnnspec analyze resnet50 --sort macs --top 10
  cnnspec analyze resnet18 resnet50 vgg16 --sort params
  cnnspec analyze net.yaml --budget "macs<4.2G, params<26M, peak<8MiB"
  cat net.yaml | cnnspec analyze - --strict

columns:
{columns}

devices:
{devices}

conventions:
  macs    multiply-accumulates of convolution, linear, matmul and attention, at
          batch 1, without biases, norms, activations and pooling: what papers
          and torchvision mean
  flops   2 for each of them and 1 for every other operation; batch norm is
          folded, so it costs 0
  params  learned tensors, shared ones once; buffers are counted apart, as
          torch does
  field   size/stride of the receptive field in input pixels; a range where the
          size depends on the position, `global` where all is seen, `~` where
          the branches of a join are not centred on one another
  memory  of --dtype and --batch (float32, 1); MiB is 2^20 bytes
  connections
          the sum over output elements of fan-in, biases not counted
  totals  are of inference; layers for training only are counted apart

The table goes to standard output, with its warnings. Colour and width follow
the terminal; NO_COLOR, FORCE_COLOR and COLUMNS decide otherwise.
"""


def _epilog() -> str:
    """With the columns and devices that there are."""
    from textwrap import fill

    from cnnspec.frontend.devices import bundled_devices

    return _EPILOG.format(
        columns="\n".join(f"  {name:13} {column.help}" for name, column in COLUMNS.items()),
        devices=fill(", ".join(bundled_devices()), 78, initial_indent="  ", subsequent_indent="  "),
    )


EPILOG = _epilog


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", help=SPEC_HELP)
    add_choice(parser)
    add_lint(parser)
    parser.add_argument(
        "--depth", type=whole("--depth", 1), metavar="N", help="levels of the table to show"
    )
    parser.add_argument(
        "--columns",
        type=names("--columns"),
        action="extend",
        metavar="A,B",
        help="columns of the table, see below",
    )
    parser.add_argument(
        "--sort", type=some_text("--sort"), metavar="COLUMN", help="the largest of a column first"
    )
    parser.add_argument(
        "--top", type=whole("--top", 1), metavar="N", help="the first N only (sorted by MACs)"
    )
    parser.add_argument(
        "--dtype",
        type=one_of("--dtype", *DTYPES),
        metavar="TYPE",
        default="float32",
        help=f"type of memory figures (float32): {', '.join(DTYPES)}",
    )
    parser.add_argument(
        "--batch",
        type=whole("--batch", 1),
        metavar="N",
        default=1,
        help="samples in memory figures (1); counts stay those of one",
    )
    parser.add_argument(
        "--optimizer",
        type=one_of("--optimizer", *OPTIMIZERS),
        metavar="NAME",
        default="momentum",
        help=f"of training memory (momentum): {', '.join(OPTIMIZERS)}",
    )
    add_sections(parser)
    add_format(
        parser, "table", "json", "csv", "markdown", help="table (default), json, csv or markdown"
    )
    add_output(parser)
    parser.add_argument(
        "--watch", action="store_true", help="again whenever a spec or what it imports changes"
    )


def run(options: argparse.Namespace) -> int:
    """Analyze and show, with `--watch` again and again."""
    if options.watch:
        from cnnspec.cli.watching import paths_of, watch

        watch(paths_of(options.specs), lambda: _once(options)[0].report)
    budgets = [each.budget for each in _once(options)]
    return 0 if all(budget is None or budget.kept for budget in budgets) else 1


@collector_paused()
def _once(options: argparse.Namespace) -> list[_Analyzed]:
    alone = len(options.specs) == 1
    _refuse(options, alone)
    if options.top is not None and options.sort is None:
        options.sort = "macs"
    asked = Asked.by(options)
    analyzed = [_analyze(spec, options, asked) for spec in options.specs]
    if alone:
        _show(analyzed[0], options)
    else:
        _show_side_by_side(analyzed, options)
    if options.format in ("json", "csv") or not to_terminal(options.output):
        _blame(analyzed)
    return analyzed


def _refuse(options: argparse.Namespace, alone: bool) -> None:
    """Refuse what the chosen format would pass over, and standard input for two networks."""
    if options.specs.count("-") > 1:
        raise EnvironmentFailure("standard input can be read once, not for several networks")
    for option in ("depth", "columns"):
        if getattr(options, option) is not None and not (alone and options.format == "table"):
            why = (
                f"tables, and {options.format} shows all"
                if alone
                else "one network, and several have a row each"
            )
            raise EnvironmentFailure(f"--{option} is for {why}")
    for option in ("sort", "top"):
        whole = options.format == "json" or (alone and options.format != "table")
        if getattr(options, option) is not None and whole:
            raise EnvironmentFailure(
                f"--{option} is for tables, and {options.format} shows all in order"
            )
    if options.format == "csv" and not alone:
        asked = {"as": options.tool, "device": options.device}
        asked |= {name: getattr(options, name) for name in ("symbolic", "timeline")}
        asked["compare-connectivity"] = options.connectivity
        for option, value in asked.items():
            if value:
                raise EnvironmentFailure(
                    f"--{option} adds nothing to the csv of several networks",
                    help="table, json and markdown show it",
                )


class _Analyzed(NamedTuple):
    """One network's report, and the sections asked for, its budget the last of them."""

    report: Report
    sections: list[Section]
    budget: Budget | None


def _analyze(spec: str, options: argparse.Namespace, asked: Asked) -> _Analyzed:
    loaded, named = load_spec(spec)
    variant = options.variant or named
    params = given_params(options.params)
    graph = expand(loaded, variant=variant, params=params, inputs=given_inputs(options.inputs))
    report = analyze(
        graph,
        strict=options.strict,
        dtype=options.dtype,
        batch=options.batch,
        optimizer=options.optimizer,
        lint=options.lint,
        warnings=loaded.warnings,
    )
    sections = asked.sections(report, resizing(loaded, variant, params))
    budget = asked.budget(report)
    return _Analyzed(report, sections if budget is None else [*sections, budget], budget)


def _show(analyzed: _Analyzed, options: argparse.Namespace) -> None:
    """Show one network."""
    report, sections, _ = analyzed
    if options.format == "table":
        terminal = Terminal(sys.stdout)
        table = render_table(
            report,
            width=terminal.width,
            depth=options.depth,
            columns=options.columns,
            sort=options.sort,
            top=options.top,
            sections=sections,
            colour=to_terminal(options.output) and terminal.colour,
        )
        _write(table, terminal, options)
    elif options.format == "json":
        from cnnspec.report.json import to_json

        write_result(to_json(report, sections), options.output)
    else:
        csv = options.format == "csv"
        text = to_csv(report, sections=sections) if csv else to_markdown(report, sections)
        write_result(text, options.output)
        Terminal(sys.stderr).diagnostics(report.warnings)


def _show_side_by_side(analyzed: Sequence[_Analyzed], options: argparse.Namespace) -> None:
    """Show several networks, a row each, and their sections."""
    from cnnspec.report import side_by_side as tables

    networks = _by_name([each.report for each in analyzed])
    sections = {name: each.sections for name, each in zip(networks, analyzed, strict=True)}
    if options.format == "json":
        from cnnspec.report.json import several_to_json

        write_result(
            several_to_json((each.report, each.sections) for each in analyzed), options.output
        )
        return
    if options.format == "table":
        terminal = Terminal(sys.stdout)
        table = tables.side_by_side(
            networks,
            sort=options.sort,
            top=options.top,
            sections=sections,
            width=terminal.width,
            colour=to_terminal(options.output) and terminal.colour,
        )
        _write(table, terminal, options)
    else:
        order = {"sort": options.sort, "top": options.top}
        text = (
            tables.side_by_side_csv(networks, **order)
            if options.format == "csv"
            else tables.side_by_side_markdown(networks, **order, sections=sections)
        )
        write_result(text, options.output)
    for each in analyzed:
        Terminal(sys.stderr).diagnostics(each.report.warnings)


def _blame(analyzed: Sequence[_Analyzed]) -> None:
    """Say on standard error which budgets are not kept, where the result does not show it."""
    from cnnspec.report.styled import Line, as_plain, as_text, visible

    terminal = Terminal(sys.stderr)
    lines: list[Line] = []
    for name, each in zip(_by_name([a.report for a in analyzed]), analyzed, strict=True):
        if each.budget is not None and not each.budget.kept:
            heading, *limits = each.budget.lines(terminal.width)
            lines.extend(([*heading, (f" of {visible(name)}", "bold")], *limits))
    if lines:
        terminal.write(as_text(lines) if terminal.colour else as_plain(lines))


def _by_name(reports: Sequence[Report]) -> dict[str, Report]:
    """Reports by name; those of one name are numbered."""
    found: dict[str, Report] = {}
    for report in reports:
        name, number = report.name, 1
        while name in found:
            number += 1
            name = f"{report.name} ({number})"
        found[name] = report
    return found


def _write(table: str | Text, terminal: Terminal, options: argparse.Namespace) -> None:
    if isinstance(table, str):
        write_result(table, options.output)
    else:
        terminal.write(table)
