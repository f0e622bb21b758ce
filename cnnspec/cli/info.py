"""`cnnspec info`: what an ONNX model is, what it says about itself, and its analysis."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure, SpecError

if TYPE_CHECKING:
    from rich.text import Text

    from cnnspec.report import Report
    from cnnspec.runtime.model_file import ModelFile

NAME = "info"
SUMMARY = "what an ONNX model is and says about itself, and its analysis"
DESCRIPTION = """\
Show an ONNX model: inputs, outputs, nodes, what is stored. Of a file that
`cnnspec export` made also the preprocessing, labels, hashes and versions, and
the analysis of the spec that is in it. Nothing is run.
"""
EPILOG = """\
examples:
  cnnspec info resnet50.onnx
  cnnspec info resnet50.onnx --layers
  cnnspec info resnet50.onnx --format json | jq .analysis.totals
  cnnspec info resnet50.onnx --format json | jq -r .cnnspec.spec > net.yaml

A file whose spec is not the one it was exported with is refused. The analysis
is of the network as the spec has it: in the file batch norms may be folded.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", metavar="MODEL", help="an ONNX file")
    parser.add_argument(
        "--layers", action="store_true", help="the table of layers, as `cnnspec analyze` shows it"
    )
    add_format(parser, "text", "json", help="text (default) or json")
    add_output(parser)


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """Look and show."""
    from cnnspec.runtime.model_file import open_model

    model = open_model(options.model)
    report = _analysis(model)
    if options.layers and report is None:
        raise EnvironmentFailure(
            f"`{options.model}` has no spec in it, so that its layers are not known"
        )
    if options.format == "json":
        write_result(_document(model, report, layers=options.layers), options.output)
        return 0
    terminal = Terminal(sys.stdout)
    colour = to_terminal(options.output) and terminal.colour
    shown = _shown(model, report, terminal.width, layers=options.layers, colour=colour)
    if isinstance(shown, str):
        write_result(shown, options.output)
    else:
        terminal.write(shown)
    return 0


def _analysis(model: ModelFile) -> Report | None:
    """The analysis of the spec in a file, None where there is none."""
    if model.metadata is None:
        return None
    from cnnspec.frontend.load import expand, load_text
    from cnnspec.report import analyze

    try:
        loaded = load_text(model.metadata.spec, f"{model.path}: spec")
        return analyze(expand(loaded))
    except SpecError as failure:
        first = failure.diagnostics[0]
        raise EnvironmentFailure(
            f"the spec in `{model.path}` is of no use to this version of cnnspec: {first.message}"
        ) from None


def _shown(
    model: ModelFile, report: Report | None, width: int, *, layers: bool, colour: bool
) -> str | Text:
    from cnnspec.report import render_table
    from cnnspec.report.panel import panel, total_entries
    from cnnspec.report.styled import as_plain, as_text
    from cnnspec.runtime.describing import lines

    found = list(lines(model, width))
    if report is not None:
        found.append([])
        if not layers:
            found.extend(panel(total_entries(report), width))
    if not colour:
        table = render_table(report, width=width) if report is not None and layers else ""
        return as_plain(found) + table
    text = as_text(found)
    if report is not None and layers:
        text.append(render_table(report, width=width, colour=True))
    return text


def _document(model: ModelFile, report: Report | None, *, layers: bool) -> str:
    """The document; of the analysis the layers only where they are asked for."""
    from json import dumps

    from cnnspec.runtime.describing import document

    analysis = None
    if report is not None:
        analysis = {**report.document()}
        if layers:
            analysis["layers"] = [layer.to_dict() for layer in report.layers]
        else:
            del analysis["layers"]
    return dumps({**document(model), "analysis": analysis}, indent=1)
