"""`cnnspec analyze`: everything that can be known about a network without running it."""

from __future__ import annotations

import argparse
import sys

from cnnspec.cli.option_types import names, one_of, whole
from cnnspec.cli.option_types import text as some_text
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.spec_arguments import (
    SPEC_HELP,
    add_choice,
    given_inputs,
    given_params,
    load_spec,
)
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.load import expand
from cnnspec.report import COLUMNS, Report, analyze, render_table, to_csv, to_markdown

NAME = "analyze"
SUMMARY = "shapes, parameters, MACs, receptive fields, memory of a network"
DESCRIPTION = "Show everything that can be known about a network without running it."
EPILOG = """\
examples:
  cnnspec analyze vgg16
  cnnspec analyze specs/resnet.yaml --variant resnet101 --depth 2
  cnnspec analyze unet.yaml --input image=3x512x512 --columns output,macs,memory
  cnnspec analyze net.yaml --format json | jq .totals
  cat net.yaml | cnnspec analyze - --strict

columns:
{columns}

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
  memory  float32, batch 1; MiB is 2^20 bytes
  connections
          the sum over output elements of fan-in, biases not counted
  totals  are of inference; layers for training only are counted apart

The table goes to standard output, with its warnings. Colour and width follow
the terminal; NO_COLOR, FORCE_COLOR and COLUMNS decide otherwise.
""".format(columns="\n".join(f"  {name:13} {column.help}" for name, column in COLUMNS.items()))


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    add_choice(parser)
    parser.add_argument(
        "--strict", action="store_true", help="windows that do not fit evenly are errors"
    )
    parser.add_argument(
        "--depth", type=whole("--depth", 1), metavar="N", help="levels of the table to show"
    )
    parser.add_argument(
        "--columns", type=names("--columns"), metavar="A,B", help="columns of the table, see below"
    )
    parser.add_argument(
        "--format",
        type=one_of("--format", "table", "json", "csv", "markdown"),
        metavar="FORMAT",
        default="table",
        help="table (default), json, csv or markdown",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=some_text("--output"),
        metavar="FILE",
        help="write there, not to standard output",
    )


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """Analyze and show."""
    for option in ("depth", "columns"):
        if options.format != "table" and getattr(options, option) is not None:
            raise EnvironmentFailure(f"--{option} is for tables, and {options.format} shows all")
    loaded, variant = load_spec(options.spec)
    graph = expand(
        loaded,
        variant=options.variant or variant,
        params=given_params(options.params),
        inputs=given_inputs(options.inputs),
    )
    report = analyze(graph, strict=options.strict, warnings=loaded.warnings)
    if options.format == "table":
        _show_table(report, options)
    elif options.format == "json":
        from cnnspec.report.json import to_json

        write_result(to_json(report), options.output)
    else:
        write_result((to_csv if options.format == "csv" else to_markdown)(report), options.output)
        Terminal(sys.stderr).diagnostics(report.warnings)
    return 0


def _show_table(report: Report, options: argparse.Namespace) -> None:
    terminal = Terminal(sys.stdout)
    shown = to_terminal(options.output)
    table = render_table(
        report,
        width=terminal.width,
        depth=options.depth,
        columns=options.columns,
        colour=shown and terminal.colour,
    )
    if isinstance(table, str):
        write_result(table, options.output)
    else:
        terminal.write(table)
