"""`cnnspec expand`: the network written out, an entry for each operation."""

from __future__ import annotations

import argparse

from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.spec_arguments import SPEC_HELP, add_choice, chosen_graph
from cnnspec.collector import collector_paused
from cnnspec.report import analyze
from cnnspec.report.flat import FlatNetwork

NAME = "expand"
SUMMARY = "the flat network: blocks, loops and conditions written out"
DESCRIPTION = """\
Write a network out as a spec without blocks, loops, conditions and params:
every entry with its path, its final arguments and where it comes from.
"""
EPILOG = """\
examples:
  cnnspec expand resnet18
  cnnspec expand net.yaml --set depth=4 --input image=3x64x64 -o flat.yaml
  cnnspec expand resnet101 | cnnspec analyze -
  cnnspec expand net.yaml --format json | jq '.entries[] | .path'

The result is the same network with the same state-dict keys, and expects the
figures of the original. Arguments left at their default are left out; sizes
are those chosen, without symbols; assertions have been verified and are gone.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    add_choice(parser)
    add_format(parser, "yaml", "json", help="yaml (default), a spec; or json")
    add_output(parser)


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """Expand and write."""
    graph = chosen_graph(options)
    network = FlatNetwork(graph)
    if options.format == "json":
        from json import dumps

        written = dumps(network.document(), indent=1)
    else:
        totals = analyze(graph).totals
        written = network.spec({"params": totals.params, "macs": totals.macs})
    write_result(written, options.output)
    return 0
