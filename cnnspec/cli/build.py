"""`cnnspec build`: a network as a folder of Python source, weights and the flat spec."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING

from cnnspec import __version__
from cnnspec.cli.option_types import one_of, text, whole
from cnnspec.cli.output import write_result
from cnnspec.cli.spec_arguments import SPEC_HELP, add_choice, chosen_graph
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure, quantity
from cnnspec.files import undisturbed
from cnnspec.report.numbers import binary_size, exact
from cnnspec.report.styled import Line, as_plain, as_text, visible

if TYPE_CHECKING:
    from cnnspec.backends.torch import Built
    from cnnspec.ir import Graph

NAME = "build"
SUMMARY = "a PyTorch module: readable source and its weights"
DESCRIPTION = """\
Make a PyTorch module of a network: a folder with `model.py`, which imports
torch only, `weights.safetensors` and `spec.yaml`, the flat network. The module
is compared with what `cnnspec analyze` says before the folder appears.
"""
EPILOG = """\
examples:
  cnnspec build resnet18 -o out
  cnnspec build net.yaml --set classes=10 --seed 3 -o out
  cnnspec build resnet50 --weights resnet50-11ad3fa6.pth -o out
  cnnspec build resnet50 --set classes=10 --weights r50.pth --partial -o out
  cnnspec build net.yaml --print

weights:
  a .safetensors file, or one that torch.save wrote: a state dict, or one in a
  checkpoint. Nothing in a file is ever run. Keys have to be those of the
  network unless --partial takes what fits and starts the rest

exit codes:
  0 fine, 1 the spec is wrong, 2 the folder cannot be written, or the weights
  cannot be read or do not fit, 70 the module is not what was analyzed, which
  is a bug in cnnspec
"""

_SLOW = 20_000_000
"""Elements from which writing weights takes long enough to be watched."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", help=SPEC_HELP)
    add_choice(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=text("--output"),
        metavar="DIR",
        help="the folder to make, or one of an earlier build; `-` is --print",
    )
    parser.add_argument(
        "--weights",
        type=text("--weights"),
        metavar="FILE",
        help="take weights from there: .safetensors, .pth, .pt",
    )
    parser.add_argument(
        "--partial", action="store_true", help="take those weights that fit, and list them"
    )
    parser.add_argument(
        "--seed",
        type=whole("--seed", least=0),
        metavar="N",
        default=0,
        help="what random weights are made from (default 0)",
    )
    parser.add_argument(
        "--dtype",
        type=one_of("--dtype", "float32", "float16", "bfloat16", "float64"),
        metavar="TYPE",
        default="float32",
        help="float32 (default), float16, bfloat16 or float64",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="run the module without values and compare every shape (default)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="write into a folder that holds something else, or was changed since",
    )
    parser.add_argument(
        "--print", dest="shown", action="store_true", help="show the source, write nothing"
    )


def run(options: argparse.Namespace) -> int:
    """Build and report."""
    shown = options.shown or options.output == "-"
    if options.shown and options.output not in (None, "-"):
        raise EnvironmentFailure("--print writes nothing: leave --output away")
    if not shown and options.output is None:
        raise EnvironmentFailure(
            "there is nowhere to build to",
            help=f"`cnnspec build {quote(options.spec)} -o DIR`, or --print to see the source",
        )
    if options.partial and options.weights is None:
        raise EnvironmentFailure("--partial is about --weights, which is not given")
    graph = _graph(options)
    if shown:
        with undisturbed():
            from cnnspec.backends.torch.emit import emit

        write_result(emit(graph), None)
        return 0
    return _build(graph, options)


@collector_paused()
def _graph(options: argparse.Namespace) -> Graph:
    return chosen_graph(options)


def _build(graph: Graph, options: argparse.Namespace) -> int:
    # Modules that torch imports take Ctrl-C for a failure of theirs, and go on without.
    with undisturbed():
        from cnnspec.backends.torch import ModuleMismatchError, WeightsMismatch, build

    errors = Terminal(sys.stderr)
    try:
        with _progress(errors) as progress:
            built = build(
                graph,
                options.output,
                version=__version__,
                weights=options.weights,
                partial=options.partial,
                seed=options.seed,
                dtype=options.dtype,
                verify=options.verify,
                force=options.force,
                progress=progress,
            )
    except WeightsMismatch as failure:
        errors.failure(failure)
        errors.write(_plain(failure.match.lines()))
        return 2
    except ModuleMismatchError as failure:
        errors.failure(
            EnvironmentFailure(
                str(failure),
                help="this is a bug in cnnspec: please report it to the project's issue tracker, "
                "with the spec and the command",
            )
        )
        return 70
    out = Terminal(sys.stdout)
    lines = list(_lines(built, options))
    out.write(as_text(lines) if out.colour else as_plain(lines))
    return 0


@contextmanager
def _progress(terminal: Terminal) -> Iterator[Callable[[int, int], None] | None]:
    """Shows how many weights are written, where someone watches and it takes a while."""
    stream = terminal.stream
    if stream is None or not stream.isatty() or not terminal.colour:
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("weights", visible=False)

        def update(done: int, whole: int) -> None:
            bar.update(task, completed=done, total=whole, visible=whole >= _SLOW)

        yield update


def _plain(lines: Iterator[str]) -> str:
    return "\n".join(visible(line) for line in lines)


# --------------------------------------------------------------------------------- what was made


def _lines(built: Built, options: argparse.Namespace) -> Iterator[Line]:
    name, folder = visible(built.report.name), visible(options.output)
    yield [("built ", ""), (name, "bold"), (" in ", ""), (folder, "bold")]
    about = _about(built)
    width = max(len(file.name) for file in built.files)
    sizes = [binary_size(file.size) for file in built.files]
    for file, size in zip(built.files, sizes, strict=True):
        yield [
            (f"  {file.name:<{width}}", "cyan"),
            (f"  {size:>{max(map(len, sizes))}}", ""),
            (f"  sha256 {file.sha256[:12]}", "dim"),
            (f"  {about[file.name]}", ""),
        ]
    if built.chosen is not None:
        yield []
        yield [("weights", "bold"), (f" of {visible(options.weights)}", "")]
        for line in (*built.chosen.remarks, *built.chosen.match.lines()):
            yield [(f"  {visible(line)}", "")]
    yield []
    yield [(_verified(built), "")]
    yield []
    yield [("next", "bold"), (f": cd {quote(options.output)}, then in python", "")]
    for line in _next(built):
        yield [(f"  {line}".rstrip(), "")]


def _about(built: Built) -> dict[str, str]:
    totals = built.report.totals.training
    stored = f"{exact(totals.params)} params"
    if totals.buffers:
        stored += f", {exact(totals.buffers)} buffered"
    started = "" if built.chosen and built.chosen.match.complete else f", seed {built.seed}"
    return {
        "model.py": f"class {built.network}",
        "weights.safetensors": f"{stored}, {built.dtype}{started}",
        "spec.yaml": f"{quantity(len(built.report.layers), 'layer')}, written out",
    }


def _verified(built: Built) -> str:
    found = built.verification
    if found is None:
        return "verified: keys, shapes and types of what is stored; nothing was run"
    batches = " and ".join(map(str, found.batches))
    return (
        f"verified: {quantity(found.tensors, 'stored tensor')}, the counts, and the shapes of "
        f"{quantity(found.layers, 'call')} of layers, at batch {batches}"
    )


def _next(built: Built) -> Iterator[str]:
    """A program that loads what was built, from inside its folder."""
    floats = {"float16": ".half()", "bfloat16": ".bfloat16()", "float64": ".double()"}
    yield "from safetensors.torch import load_model"
    yield f"from model import {built.network}"
    yield ""
    yield f"network = {built.network}(){floats.get(built.dtype, '')}"
    yield 'load_model(network, "weights.safetensors")'
