"""`cnnspec to-fcn`: a network whose fully connected head is convolutions."""

from __future__ import annotations

import argparse

from cnnspec.cli.option_types import text
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.spec_arguments import SPEC_HELP, add_choice, chosen_graph
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure

NAME = "to-fcn"
SUMMARY = "the network with its linear layers as convolutions, for larger inputs"
DESCRIPTION = """\
Rewrite the linear layers behind a flattened map as convolutions: the first has
a kernel as large as the map, those behind it 1x1. The result computes the same
at this size, and a map of answers for any larger input.
"""
EPILOG = """\
examples:
  cnnspec to-fcn vgg16 -o vgg16_fcn.yaml
  cnnspec analyze vgg16_fcn.yaml --input image=3x384x384      a map of 6x6 answers
  cnnspec to-fcn lenet5 | cnnspec analyze - --input image=1x64x64
  cnnspec to-fcn vgg16 --weights vgg16.pth -o vgg16_fcn/

The result is a spec with the same entries and state-dict keys, written out; its
header says what became of which layer. A weight (out, C*H*W) of a linear layer
is (out, C, H, W) of the convolution, its elements in the same order. With
--weights they are converted, and --output is a folder as that of build.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    add_choice(parser)
    parser.add_argument(
        "--weights",
        type=text("--weights"),
        metavar="FILE",
        help="weights of SPEC, to convert: .safetensors, or what torch.save wrote",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=text("--output"),
        metavar="FILE|DIR",
        help="write the spec there; with --weights a folder",
    )


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """Rewrite and write."""
    from cnnspec.report.fully_convolutional import convolutional_spec

    if options.weights is not None and to_terminal(options.output):
        raise EnvironmentFailure("--weights needs --output, the folder to write")
    found = convolutional_spec(chosen_graph(options))
    if options.weights is None:
        write_result(found.text, options.output)
        return 0
    _build(found.name, found.text, options)
    return 0


def _build(name: str, spec: str, options: argparse.Namespace) -> None:
    """Write a folder with the spec, its module and the converted weights."""
    from cnnspec import load
    from cnnspec.backends.torch import reshaped
    from cnnspec.report.numbers import binary_size
    from cnnspec.report.styled import visible

    network = load(text=spec)
    built = network.build(options.output, weights=reshaped(network.graph, options.weights))
    made = [f"  {file.name}  {binary_size(file.size)}" for file in built.files]
    head = f"built {visible(name)} in {visible(options.output)}"
    write_result("\n".join((head, *made)), None)
