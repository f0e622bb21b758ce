"""`cnnspec eval`: how good a network is on held-out samples, in torch or as an ONNX file."""

from __future__ import annotations

import argparse
import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from shlex import quote
from typing import TYPE_CHECKING, Any

from cnnspec.cli.option_types import one_of, text, whole
from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.spec_arguments import Given, add_choice, chosen_graph
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.report.numbers import exact
from cnnspec.report.styled import Line, as_plain, as_text, visible

if TYPE_CHECKING:
    from cnnspec.ir import Graph
    from cnnspec.runtime.images import ImageFailure
    from cnnspec.training.evaluating.figures import Evaluation
    from cnnspec.training.evaluating.request import Prepared, Request
    from cnnspec.training.recipe.model import Data
    from cnnspec.training.runs.run_folder import RunFolder

NAME = "eval"
SUMMARY = "accuracy and loss on held-out samples, in torch or ONNX Runtime"
DESCRIPTION = """\
Measure how good a trained network is: top-1 and top-5, loss, each class, which
class is taken for which. Every sample counts once. A run in torch and the file
exported from it see the same images, prepared alike.
"""
EPILOG = """\
examples:
  cnnspec eval runs/lenet5-1
  cnnspec eval lenet5.onnx --data runs/lenet5-1
  cnnspec eval resnet50 --weights resnet50-11ad3fa6.pth --data images:val --split all
  cnnspec eval runs/a --ten-crop --per-class --confusion
  cnnspec eval runs/a runs/b runs/c --format json

models:
  a run of `cnnspec train`; a folder that `cnnspec build` made; an ONNX file,
  which needs no torch; or a spec with --weights. Several of a kind answer
  together: their probabilities are averaged, or with `--average weights` what
  they store, which takes one network

data:
  as in `cnnspec train --data`, or a run: the samples that it was trained and
  measured with. Of a run those unless others are named

figures:
  fractions of 1 in JSON. The loss is the cross-entropy; of a run that was
  trained with another loss that one. Of maps of classes, pixels count, and the
  mean of intersection over union. torch computes in float32, TF32 is off

exit codes:
  0 fine, 1 the spec is wrong, 2 usage, the model, the weights or the data
"""


_WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="a run, a folder that `cnnspec build` made, an ONNX file, or a spec",
    )
    add_choice(parser)
    parser.add_argument(
        "--weights",
        type=text("--weights"),
        metavar="FILE",
        action="append",
        default=[],
        help="weights of the spec or run; several are averaged",
    )
    parser.add_argument(
        "--data",
        type=text("--data"),
        metavar="SOURCE",
        help="digits, images:DIR and others, or a run; default: what the run was trained with",
    )
    parser.add_argument(
        "--split",
        type=one_of("--split", "held-out", "train", "all"),
        metavar="PART",
        default="held-out",
        help="held-out (default), train or all",
    )
    parser.add_argument(
        "--corrupt",
        type=one_of("--corrupt", "fail", "skip"),
        metavar="HOW",
        help="at an unreadable image: fail or skip it (as the run did, or fail)",
    )
    parser.add_argument(
        "--ten-crop", action="store_true", help="average over four corners, middle, and mirrored"
    )
    parser.add_argument("--flip", action="store_true", help="average over the image and mirrored")
    parser.add_argument(
        "--average",
        type=one_of("--average", "probabilities", "weights"),
        metavar="WHAT",
        help="what is averaged of several models: probabilities (default) or weights",
    )
    parser.add_argument(
        "--batch-size",
        type=whole("--batch-size", 1),
        metavar="N",
        help="samples at a time (64, or what the file takes)",
    )
    parser.add_argument(
        "--device",
        type=one_of("--device", "auto", "cpu", "cuda"),
        metavar="NAME",
        help="where torch computes: auto (default), cpu or cuda",
    )
    parser.add_argument(
        "--provider",
        type=one_of("--provider", "auto", "cpu", "cuda", "tensorrt"),
        metavar="NAME",
        help="where ONNX Runtime computes: auto (default), cpu, cuda or tensorrt",
    )
    parser.add_argument(
        "--threads",
        type=whole("--threads", 1),
        metavar="N",
        help="threads of the CPU (as many as this process may use)",
    )
    parser.add_argument("--per-class", action="store_true", help="figures of each class")
    parser.add_argument("--confusion", action="store_true", help="which class is taken for which")
    add_format(parser, "table", "json", help="table (default) or json")


def run(options: argparse.Namespace) -> int:
    """Evaluate and show."""
    from cnnspec.training.evaluating.choosing import kind_of

    for model in options.models:
        if model.endswith(_WEIGHTS) and os.path.isfile(model):
            raise EnvironmentFailure(
                f"`{model}` holds weights, and no network",
                help=f"name the run or spec, and `--weights {quote(model)}`",
            )
    kinds = {kind_of(model) == "onnx" for model in options.models}
    if len(kinds) > 1:
        raise EnvironmentFailure("ONNX files and others cannot be evaluated together")
    if options.ten_crop and options.flip:
        raise EnvironmentFailure("--ten-crop has mirror images already: leave --flip away")
    if len(options.models) > 1 and options.weights:
        raise EnvironmentFailure("--weights is about one model, and there are several")
    if options.average is not None and max(len(options.models), len(options.weights)) < 2:
        raise EnvironmentFailure("--average is about several models, and there is one")
    prepared = _files(options) if kinds == {True} else _networks(options)
    return _shown(prepared, options)


def _files(options: argparse.Namespace) -> Prepared:
    from cnnspec.training.evaluating.onnx_files import files_prepared

    given = {
        "--weights": options.weights,
        "--device": options.device,
        "--variant": options.variant,
        "--set": options.params,
        "--input": options.inputs,
    }
    for name, value in given.items():
        if value:
            raise EnvironmentFailure(f"an ONNX file takes no {name}")
    if options.average == "weights":
        raise EnvironmentFailure("weights of ONNX files are not averaged: do that before export")
    request = _request(options, None)
    return files_prepared(options.models, request, provider=options.provider or "auto")


def _networks(options: argparse.Namespace) -> Prepared:
    if options.provider is not None:
        raise EnvironmentFailure("--provider is for ONNX files: torch has --device")
    found = [each for model in options.models for each in _network(model, options)]
    request = _request(options, found[0][-1])
    # What can go wrong before torch is imported has.
    from cnnspec.training.evaluating.torch_networks import Network, networks_prepared

    return networks_prepared(
        [
            Network(name, graph, weights, run.recipe.loss if run is not None else None)
            for name, graph, weights, run in found
        ],
        request,
        device=options.device or "auto",
        average=options.average or "probabilities",
    )


def _network(
    model: str, options: argparse.Namespace
) -> list[tuple[str, Graph, str, RunFolder | None]]:
    """Name, graph and weights of a word of the command line, for each file of weights once."""
    from cnnspec.training.evaluating.choosing import kind_of, run_of

    spec, files, run = model, list(options.weights), None
    kind = kind_of(model)
    if kind == "run":
        run = run_of(model)
        spec = os.fspath(run.spec_file)
        if not files and not run.finished:
            raise EnvironmentFailure(
                f"`{model}` has no `{run.weights.name}`: its training has not ended",
                help=f"`cnnspec train -o {quote(model)} --resume` goes on with it",
            )
        files = files or [os.fspath(run.weights)]
    elif kind == "built":
        from cnnspec.backends.torch.artifact import built_files

        own_spec, own_weights = built_files(model)
        spec, files = os.fspath(own_spec), files or [os.fspath(own_weights)]
    chosen = copy.copy(options)
    chosen.spec = spec
    graph = chosen_graph(chosen)
    if not files:
        raise EnvironmentFailure(
            f"`{model}` has no weights to evaluate",
            help="--weights FILE, or a run of `cnnspec train` in its place",
        )
    several = len(files) > 1
    return [(file if several else model, graph, file, run) for file in files]


def _request(options: argparse.Namespace, run: RunFolder | None) -> Request:
    """What is asked for; without --data the samples are those of `run`."""
    from cnnspec.training.evaluating.choosing import kind_of, run_of, with_corrupt
    from cnnspec.training.evaluating.request import Request
    from cnnspec.training.evaluating.views import Views

    of_run: RunFolder | None = run
    if options.data is not None:
        of_run = run_of(options.data) if kind_of(options.data) == "run" else None
    data = _parsed(options.data) if of_run is None else of_run.recipe.data
    if data is None:
        raise EnvironmentFailure(
            "there is no data to evaluate with",
            help="--data digits, --data images:DIR, or what a run was trained with: --data RUN",
        )
    return Request(
        data=with_corrupt(data, options.corrupt),
        split=options.split,
        seed=of_run.recipe.seed if of_run is not None else 0,
        run=of_run,
        views=Views(ten=options.ten_crop, flip=options.flip),
        batch=options.batch_size,
        threads=options.threads,
        confusion=options.confusion,
    )


def _parsed(given: str | None) -> Data | None:
    from cnnspec.training.recipe.read import parse_data

    return None if given is None else parse_data(given, make_source=Given)


# ----------------------------------------------------------------------------------------- showing


def _shown(prepared: Prepared, options: argparse.Namespace) -> int:
    from cnnspec.runtime.images import ImageFailure

    errors = Terminal(sys.stderr)
    warnings = prepared.warnings
    for said in warnings:
        _put(errors, [("warning", "bold yellow"), (f": {visible(said)}", "")])
    failures: list[ImageFailure] = []
    try:
        with _progress(errors) as progress:
            found = prepared.evaluation(progress, failures.append)
    except ImageFailure as failure:
        raise EnvironmentFailure(
            failure.message,
            help="" if options.ten_crop else "`--corrupt skip` leaves such images out",
        ) from None
    if options.format == "json":
        from json import dumps

        whole = _document(prepared, found, failures, options)
        write_result(dumps(whole, indent=1, allow_nan=False), None)
        return 0
    for each in failures:
        _put(errors, [("skipped", "bold yellow"), (f": {visible(each.message)}", "")])
    out = Terminal(sys.stdout)
    _put(out, *_lines(prepared, found, len(failures), options))
    return 0


def _put(terminal: Terminal, *lines: Line) -> None:
    terminal.write(as_text(lines) if terminal.colour else as_plain(lines))


def _document(
    prepared: Prepared,
    found: Evaluation,
    failures: Sequence[ImageFailure],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The document of `cnnspec eval --format json`, format 1."""
    from cnnspec.training.evaluating.choosing import source_text

    return {
        "format": 1,
        "models": list(options.models),
        "where": prepared.where,
        "data": source_text(prepared.chosen.data),
        "split": prepared.chosen.split,
        **found.to_json(per_class=options.per_class, confusion=options.confusion),
        "skipped": [{"image": each.name, "reason": each.reason} for each in failures],
        "warnings": list(prepared.warnings),
    }


def _lines(
    prepared: Prepared, found: Evaluation, skipped: int, options: argparse.Namespace
) -> Iterator[Line]:
    from cnnspec.training.evaluating.choosing import source_text
    from cnnspec.training.evaluating.tables import class_lines, confusion_lines, figure_rows

    chosen = prepared.chosen
    yield [
        (visible(", ".join(options.models)), "bold"),
        (f"  {prepared.where}, {source_text(chosen.data)} {chosen.split}", "dim"),
    ]
    said = exact(found.samples) + (f", {skipped} skipped" if skipped else "")
    rows = [("samples", said), *figure_rows(found)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield [(f"  {name:<{width}}  ", "cyan"), (value, "")]
    if options.per_class:
        yield []
        yield from class_lines(found)
    if options.confusion and found.confusion is not None:
        yield []
        yield from confusion_lines(found, found.confusion)


@contextmanager
def _progress(terminal: Terminal) -> Iterator[Callable[[int, int], None] | None]:
    """Shows how many samples are through, where someone watches."""
    stream = terminal.stream
    if stream is None or not stream.isatty() or not terminal.colour:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("samples", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
