"""`cnnspec explain-flops`: what other tools count for a network, and why they differ."""

from __future__ import annotations

import argparse
import sys

from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.spec_arguments import SPEC_HELP, add_choice, chosen_graph
from cnnspec.cli.terminal import Terminal
from cnnspec.report import analyze

NAME = "explain-flops"
SUMMARY = "what other tools count for a network, and why they differ"
DESCRIPTION = """\
Show a network as torchvision, timm, thop, torchinfo, fvcore and ptflops count
it, and how each figure comes from our multiply-accumulates, cause by cause.
"""
EPILOG = """\
examples:
  cnnspec explain-flops resnet50
  cnnspec explain-flops net.yaml --input image=3x256x256 --format markdown
  cnnspec analyze resnet50 --as thop      layer by layer

Differences add up to the figure exactly. Nothing is run and none of the tools
is needed; the tests hold the figures against the tools themselves.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    add_choice(parser)
    add_format(parser, "text", "json", "markdown", help="text (default), json or markdown")
    add_output(parser)


def run(options: argparse.Namespace) -> int:
    """Count and show."""
    from json import dumps

    from cnnspec.report.flops import flops_document, flops_lines, flops_markdown
    from cnnspec.report.styled import as_plain, as_text

    graph = chosen_graph(options)
    report = analyze(graph)
    if options.format == "json":
        write_result(dumps(flops_document(report), indent=1), options.output)
        return 0
    if options.format == "markdown":
        write_result(flops_markdown(report), options.output)
        return 0
    terminal = Terminal(sys.stdout)
    lines = flops_lines(report, terminal.width)
    if to_terminal(options.output) and terminal.colour:
        terminal.write(as_text(lines))
    else:
        write_result(as_plain(lines), options.output)
    return 0
