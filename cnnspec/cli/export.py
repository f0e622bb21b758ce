"""`cnnspec export`: a network as an ONNX file that is proved before it appears."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from cnnspec import __version__
from cnnspec.cli.option_types import one_of, text, whole
from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.spec_arguments import add_choice, chosen_graph
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure, listed, quantity
from cnnspec.report.numbers import binary_size, exact
from cnnspec.report.styled import Line, as_plain, as_text, visible

if TYPE_CHECKING:
    from cnnspec.backends.onnx.file import Declared, ExportReport
    from cnnspec.backends.onnx.precision import Kept
    from cnnspec.ir import Graph
    from cnnspec.metadata import Precision

NAME = "export"
SUMMARY = "an ONNX file, proved equal to torch before it appears"
DESCRIPTION = """\
Write a network and its weights as an ONNX file. The file is run in ONNX Runtime
and compared with torch, whole and layer by layer, before it gets its name: one
that computes anything else is never left behind.
"""
EPILOG = """\
examples:
  cnnspec export resnet50 --weights resnet50-11ad3fa6.pth -o resnet50.onnx
  cnnspec train lenet5 --data digits -o run && cnnspec export run -o lenet5.onnx
  cnnspec build net.yaml -o net && cnnspec export net -o net.onnx
  cnnspec export net.yaml -o net.onnx --preprocess full --softmax
  cnnspec export unet -o unet.onnx --size dynamic --verify full
  cnnspec export net.yaml --weights net.pth -o small.onnx --int8 photos

weights:
  those of the run or folder; --weights, a .safetensors file or one that torch.save
  wrote; or random ones from --seed. Nothing in a file is ever run

preprocessing:
  what the spec's `preprocess` says is always in the file's metadata, and
  `cnnspec predict` does it. With `normalize` the file takes images that are
  resized, cropped and scaled, in NCHW, and does the rest; with `full` it takes
  bytes in NHWC of any size, and does everything

exit codes:
  0 fine, 1 the spec is wrong, 2 the file cannot be written, the weights do not
  fit, or the network cannot do what is asked for, 70 the file is not what torch
  computes, which is a bug in cnnspec
"""

_SLOW = 20_000_000
"""Elements from which starting weights takes long enough to be watched."""

_SHOWN = 5
"""Layers that are listed one by one."""

_TAKEN = {
    "none": "",
    "normalize": ", images of 0 to 1 that are resized already",
    "full": ", images as they are",
}
"""What an input is, by how much of the preprocessing the file does."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "spec",
        metavar="SPEC",
        help="a file, `-`, a bundled name (vgg16), a run of `cnnspec train`, or a folder that "
        "`cnnspec build` made",
    )
    add_choice(parser)
    parser.add_argument(
        "-o", "--output", type=text("--output"), metavar="FILE", help="the file to write"
    )
    parser.add_argument(
        "--weights",
        type=text("--weights"),
        metavar="FILE",
        help="take weights from there: .safetensors, .pth, .pt",
    )
    parser.add_argument("--partial", action="store_true", help="take those weights that fit")
    parser.add_argument(
        "--seed",
        type=whole("--seed", least=0),
        metavar="N",
        default=0,
        help="what random weights are made from (default 0)",
    )
    _add_form(parser)
    parser.add_argument(
        "--verify",
        type=one_of("--verify", "quick", "full", "none"),
        metavar="HOW",
        default="quick",
        help="quick (default); full: more batches, sizes and inputs, and float64; or none",
    )
    add_format(parser, "text", "json", help="text (default) or json, on standard output")


def _add_form(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what the file is like."""
    parser.add_argument(
        "--opset",
        type=whole("--opset", least=1),
        metavar="N",
        default=18,
        help="version of ONNX's operators (default 18)",
    )
    parser.add_argument(
        "--batch",
        type=_batch,
        metavar="N",
        default="dynamic",
        help="dynamic (default), or a number that is fixed",
    )
    parser.add_argument(
        "--size",
        type=one_of("--size", "fixed", "dynamic"),
        metavar="HOW",
        default="fixed",
        help="fixed (default); dynamic: heights and widths that may change stay open",
    )
    parser.add_argument("--fp16", action="store_true", help="weights and arithmetic in float16")
    parser.add_argument(
        "--int8",
        type=text("--int8"),
        metavar="DIR",
        help="8 bits, calibrated with the images in a folder",
    )
    parser.add_argument(
        "--half-io", action="store_true", help="with --fp16, inputs and outputs in float16 too"
    )
    parser.add_argument(
        "--preprocess",
        type=one_of("--preprocess", "none", "normalize", "full"),
        metavar="HOW",
        default="none",
        help="what the file does to images: none (default), normalize or full",
    )
    parser.add_argument(
        "--softmax", action="store_true", help="scores become probabilities in the file"
    )
    parser.add_argument(
        "--fold",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fold norms into the layers beside them (default)",
    )


def _batch(given: str) -> int | str:
    return given if given == "dynamic" else whole("--batch", least=1)(given)


def run(options: argparse.Namespace) -> int:
    """Export and report."""
    if options.output is None:
        raise EnvironmentFailure(
            "there is nowhere to export to",
            help=f"`cnnspec export {quote(options.spec)} -o FILE.onnx`",
        )
    if options.output == "-":
        raise EnvironmentFailure("an ONNX file is not written to standard output: name a file")
    if options.fp16 and options.int8 is not None:
        raise EnvironmentFailure("a file is in float16 or in int8: leave --fp16 or --int8 away")
    if options.half_io and not options.fp16:
        raise EnvironmentFailure("--half-io is about --fp16, which is not given")
    if os.path.isdir(options.spec):
        _open_folder(options)
    if options.partial and options.weights is None:
        raise EnvironmentFailure("--partial is about --weights, which is not given")
    _refuse_sources(options)
    return _export(_graph(options), options)


def _open_folder(options: argparse.Namespace) -> None:
    """Put the files of a folder in the place of the folder: of a run, or of a built network."""
    from cnnspec.training.runs.run_folder import RunFolder, is_run

    if is_run(Path(options.spec)):
        run = RunFolder.open(options.spec)
        if options.weights is None and not run.finished:
            raise EnvironmentFailure(
                f"`{run.path}` has no `{run.weights.name}`: its training has not ended",
                help=f"`cnnspec train -o {quote(options.spec)} --resume` goes on with it",
            )
        options.spec = os.fspath(run.spec_file)
        options.weights = options.weights or os.fspath(run.weights)
        return
    from cnnspec.backends.torch.artifact import built_files

    spec, weights = built_files(options.spec)
    options.spec = os.fspath(spec)
    options.weights = options.weights or os.fspath(weights)


def _refuse_sources(options: argparse.Namespace) -> None:
    """Raise where the file to write is one that the network is made from."""
    for source in (options.spec, options.weights):
        try:
            same = source is not None and os.path.samefile(source, options.output)
        except OSError:
            continue
        if same:
            raise EnvironmentFailure(
                f"`{options.output}` cannot be written: the network is read from it"
            )


@collector_paused()
def _graph(options: argparse.Namespace) -> Graph:
    return chosen_graph(options)


def _export(graph: Graph, options: argparse.Namespace) -> int:
    from cnnspec.backends.onnx import VerificationFailure, export
    from cnnspec.backends.torch import ModuleMismatchError, WeightsMismatch

    errors = Terminal(sys.stderr)
    precision: Precision = (
        "float16" if options.fp16 else "float32" if options.int8 is None else "int8"
    )
    try:
        with _progress(errors) as progress:
            report = export(
                graph,
                options.output,
                options.weights,
                version=__version__,
                partial=options.partial,
                verify=options.verify,
                opset=options.opset,
                batch=options.batch,
                size=options.size,
                seed=options.seed,
                fold=options.fold,
                precision=precision,
                calibration=options.int8,
                half_io=options.half_io,
                preprocess=options.preprocess,
                softmax=options.softmax,
                progress=progress,
            )
    except WeightsMismatch as failure:
        errors.failure(failure)
        errors.write("\n".join(visible(line) for line in failure.match.lines()))
        return 2
    except (VerificationFailure, ModuleMismatchError) as failure:
        if precision != "float32" and isinstance(failure, VerificationFailure):
            raise  # what few bits cannot hold is no mistake of anyone
        errors.failure(
            EnvironmentFailure(
                str(failure),
                help="this is a bug in cnnspec: please report it to the project's issue tracker, "
                "with the spec and the command; no file was written",
            )
        )
        return 70
    if options.format == "json":
        from json import dumps

        write_result(dumps(report.to_dict(), indent=1), None)
    else:
        out = Terminal(sys.stdout)
        lines = list(_lines(report, options))
        out.write(as_text(lines) if out.colour else as_plain(lines))
    for warning in report.warnings:
        line: Line = [("warning", "bold yellow"), (f": {visible(warning)}", "")]
        errors.write(as_text([line]) if errors.colour else as_plain([line]))
    return 0


@contextmanager
def _progress(terminal: Terminal) -> Iterator[Callable[[str, int, int], None] | None]:
    """Shows what is being done, where someone watches."""
    stream = terminal.stream
    if stream is None or not stream.isatty() or not terminal.colour:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("weights", total=None, visible=False)

        def update(what: str, done: int, whole: int) -> None:
            bar.update(
                task,
                description=visible(what),
                completed=done,
                total=whole or None,
                visible=what != "weights" or whole >= _SLOW,
            )

        yield update


# --------------------------------------------------------------------------------- what was made


def _lines(report: ExportReport, options: argparse.Namespace) -> Iterator[Line]:
    about = report.metadata
    yield [
        ("exported ", ""),
        (visible(about.name), "bold"),
        (" to ", ""),
        (visible(options.output), "bold"),
    ]
    rows = list(_rows(report, options))
    width = max(len(name) for name, _ in rows)
    for name, said in rows:
        yield [(f"  {name:<{width}}  ", "cyan"), (visible(said), "")]
    if report.chosen is not None and not report.chosen.match.complete:
        yield []
        yield [("weights", "bold"), (f" of {visible(options.weights)}", "")]
        for line in (*report.chosen.remarks, *report.chosen.match.lines()):
            yield [(f"  {visible(line)}", "")]
    yield []
    proof = report.verification or report.agreement
    if proof is None:
        yield [("not verified", "bold yellow"), (": nothing was run", "")]
    else:
        from cnnspec.report.proof import proof_lines

        yield from proof_lines(proof.to_json())
    yield []
    yield [("next", "bold"), (f": {_next(report, options)}", "")]


def _rows(report: ExportReport, options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """What the file is, each fact by its name."""
    about = report.metadata
    size = f"{binary_size(report.size)}, {quantity(report.nodes, 'node')}, opset {report.opset}"
    if report.data is not None:
        size += f", with weights in {report.data} beside it"
    yield "file", size
    yield "weights", f"{exact(report.params)} params, {_origin(report, options)}"
    if report.folded:
        yield "folded", f"{quantity(len(report.folded), 'norm')} into the layers beside them"
    for name, each in report.inputs.items():
        yield "input", f"{name}: {_declared(each)}{_TAKEN[about.in_graph]}"
    for name, each in report.outputs.items():
        probable = ", probabilities" if name in report.around.softmax else ""
        yield "output", f"{name}: {_declared(each)}{probable}"
    for name, reason in report.around.as_they_are:
        yield "softmax", f"{name} {reason}, and stays as it is"
    if report.free is not None:
        for name, values in report.free.names.items():
            yield "open", values if name in values else f"{name}: {values}"
        for fixed in report.free.fixed:
            yield "fixed", f"{fixed.name}: {fixed.reason}"
    if about.precision != "float32":
        yield "precision", f"{about.precision}, {_kept(report.kept)}"


def _origin(report: ExportReport, options: argparse.Namespace) -> str:
    if report.chosen is None:
        return f"random from seed {options.seed}"
    if report.chosen.match.complete:
        return f"of {options.weights}"
    return f"in part of {options.weights}, the others from seed {options.seed}"


def _declared(given: Declared) -> str:
    return f"{given.dtype}, {' x '.join(map(str, given.shape))}"


def _kept(kept: Sequence[Kept]) -> str:
    if not kept:
        return "every layer"
    reasons: dict[str, list[str]] = {}
    for each in kept:
        reasons.setdefault(each.reason, []).append(each.path)
    said = "; ".join(
        f"{listed(paths[:_SHOWN])}{f' and {len(paths) - _SHOWN} more' * (len(paths) > _SHOWN)}: "
        f"{reason}"
        for reason, paths in reasons.items()
    )
    return f"but {quantity(len(kept), 'layer')} ({said})"


def _next(report: ExportReport, options: argparse.Namespace) -> str:
    shapes = list(report.metadata.inputs.values())
    if len(shapes) == 1 and len(shapes[0]) == 3:
        return f"cnnspec predict {quote(options.output)} IMAGE"
    return f"cnnspec info {quote(options.output)}"
