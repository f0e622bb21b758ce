"""`cnnspec expand`: the network written out, an entry for each operation."""

from __future__ import annotations

import argparse

from cnnspec.cli.option_types import one_of
from cnnspec.cli.output import write_result
from cnnspec.cli.spec_arguments import (
    SPEC_HELP,
    add_choice,
    given_inputs,
    given_params,
    load_spec,
)
from cnnspec.collector import collector_paused
from cnnspec.frontend.load import expand
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
    parser.add_argument(
        "--format",
        type=one_of("--format", "yaml", "json"),
        metavar="FORMAT",
        default="yaml",
        help="yaml (default), a spec; or json",
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="write to a file, whole or not at all"
    )


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """Expand and write."""
    loaded, named = load_spec(options.spec)
    graph = expand(
        loaded,
        variant=options.variant or named,
        params=given_params(options.params),
        inputs=given_inputs(options.inputs),
    )
    network = FlatNetwork(graph)
    if options.format == "json":
        from json import dumps

        text = dumps(network.document(), indent=1)
    else:
        totals = analyze(graph).totals
        text = network.spec({"params": totals.params, "macs": totals.macs})
    write_result(text, options.output)
    return 0
