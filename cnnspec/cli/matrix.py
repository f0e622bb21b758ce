"""`cnnspec matrix`: a linear layer as the matrix that it is."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import text, whole
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.spec_arguments import SPEC_HELP, add_choice, chosen_graph
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure, Reject, did_you_mean, listed, shape_text

if TYPE_CHECKING:
    from cnnspec.ir import Graph, Node
    from cnnspec.passes.matrix import Matrix, Symbol
    from cnnspec.report.matrix import MatrixReport

NAME = "matrix"
SUMMARY = "a linear layer as the matrix that it is, weight by weight"
DESCRIPTION = """\
Show the matrix of a linear layer on a small input: rows are outputs, columns
inputs, each entry the weight that stands there. A convolution is a Toeplitz
matrix, of blocks in two dimensions; a locally connected layer has its zeros and
shares nothing; a linear layer is dense.
"""
EPILOG = """\
examples:
  cnnspec matrix lenet5 c1 --at 1x5x5
  cnnspec matrix net.yaml conv --input image=1x5x5
  cnnspec matrix lenet5 s2 --at 1x4x4
  cnnspec matrix lenet5 c1 --at 1x6x6 --values --weights lenet.pth --format csv
  cnnspec matrix lenet5 f6 --values --format npy -o f6.npy

Entries are weights by their places (`w0,1`), `.` is zero; with --values they are
numbers, of --weights or as they start from --seed. What stands behind a double
bar is added: the bias. --at is the layer's own input, --input the network's.
"""

_SIZES = re.compile(r"\d{1,6}(x\d{1,6})*")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    parser.add_argument("layer", metavar="LAYER", help="the path of a layer, such as `features.0`")
    add_choice(parser)
    parser.add_argument(
        "--at",
        type=_sizes,
        metavar="SIZES",
        help="sizes of the layer's own input, 1x5x5, whatever the network gives it",
    )
    parser.add_argument(
        "--values", action="store_true", help="numbers instead of weights by their places"
    )
    parser.add_argument(
        "--weights",
        type=text("--weights"),
        metavar="FILE",
        help="weights of the network: .safetensors, or what torch.save wrote",
    )
    parser.add_argument(
        "--seed",
        type=whole("--seed", 0),
        metavar="N",
        default=0,
        help="what weights start from without --weights (0)",
    )
    add_format(
        parser, "table", "csv", "json", "npy", help="table (default), csv, json or npy (numbers)"
    )
    add_output(parser)


def _sizes(given: str) -> tuple[int, ...]:
    sizes = tuple(map(int, given.split("x"))) if _SIZES.fullmatch(given) else (0,)
    if not all(sizes):
        raise EnvironmentFailure(
            f"--at needs sizes, not `{given}`" if given else "--at needs sizes, not nothing",
            help="for example --at 1x5x5",
        )
    return sizes


def run(options: argparse.Namespace) -> int:
    """Make the matrix and show it."""
    numeric = options.values or options.weights is not None
    if options.format == "npy" and (not numeric or to_terminal(options.output)):
        raise EnvironmentFailure("an npy file holds numbers", help="add --values and --output FILE")
    from cnnspec.report.matrix import MatrixReport

    graph = chosen_graph(options)
    node = _node(graph, options.layer)
    matrix = _matrix(graph, node, options.at)
    values = _values(graph, node, matrix, options) if numeric else None
    _show(MatrixReport(node.path, node.op.name, matrix, values), options)
    return 0


def _node(graph: Graph, path: str) -> Node:
    node = graph.by_path.get(path)
    if node is None:
        inside = [known for known in graph.by_path if known.startswith(f"{path}.")] if path else []
        if inside:
            raise EnvironmentFailure(
                f"`{path}` is several layers, and a matrix is of one",
                help=f"for example `{inside[0]}`",
            )
        raise EnvironmentFailure(
            f"`{graph.name}` has no layer `{path}`", help=did_you_mean(path, graph.by_path)
        )
    return node


def _matrix(graph: Graph, node: Node, sizes: tuple[int, ...] | None) -> Matrix:
    from cnnspec.passes.matrix import matrix_of

    inputs = graph.site(node).inputs
    if sizes is not None:
        if len(inputs) != 1 or inputs[0].rank != len(sizes):
            wanted = ", ".join(shape_text(tensor.shape) for tensor in inputs) or "nothing"
            raise EnvironmentFailure(
                f"--at {shape_text(sizes)} is no input of `{node.path}`, which reads {wanted}"
            )
        inputs = (replace(inputs[0], shape=sizes),)
    try:
        return matrix_of(node.op, inputs, node.path)
    except Reject as reject:
        raise EnvironmentFailure(
            f"`{node.path}` cannot read {shape_text(inputs[0].shape)}: {reject.message}",
            help=reject.help,
        ) from None


def _values(
    graph: Graph, node: Node, matrix: Matrix, options: argparse.Namespace
) -> Callable[[Symbol], float]:
    """What each symbol is in the network's weights."""
    from cnnspec.backends.torch import to_torch

    owner = node
    while owner.share is not None:
        owner = graph.nodes[owner.share]
    state = to_torch(graph, options.seed, options.weights).state_dict()
    tensors = {name: state.get(f"{owner.path}.{name}") for name in matrix.shapes}
    other = [
        name
        for name, shape in matrix.shapes.items()
        if (tensor := tensors[name]) is None or tuple(tensor.shape) != shape
    ]
    if other:
        raise EnvironmentFailure(
            f"at {shape_text(options.at or ())} `{node.path}` has other weights than in the "
            f"network: {listed(other)}",
            help="leave out --values, or --at",
        )
    lists = {name: tensor.double() for name, tensor in tensors.items() if tensor is not None}
    return lambda symbol: float(lists[symbol.tensor][symbol.place])


def _show(report: MatrixReport, options: argparse.Namespace) -> None:
    from cnnspec.report.styled import as_plain, as_text

    if options.format == "csv":
        write_result(report.to_csv(), options.output)
    elif options.format == "json":
        from json import dumps

        write_result(dumps(report.document(), indent=1), options.output)
    elif options.format == "npy":
        from cnnspec.files import write_file

        write_file(options.output, report.to_npy())
    else:
        terminal = Terminal(sys.stdout)
        lines = list(report.lines())
        if to_terminal(options.output) and terminal.colour:
            terminal.write(as_text(lines))
        else:
            write_result(as_plain(lines), options.output)
