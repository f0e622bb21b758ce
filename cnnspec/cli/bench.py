"""`cnnspec bench`: a network in torch and ONNX Runtime, measured side by side."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cnnspec import __version__
from cnnspec.cli.option_types import names, one_of, text, whole
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.spec_arguments import add_choice, chosen_graph, given_inputs
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, listed
from cnnspec.files import undisturbed
from cnnspec.report.styled import Line, as_plain, as_text, visible

if TYPE_CHECKING:
    from cnnspec.ir import Graph
    from cnnspec.runtime.bench_tables import Plan
    from cnnspec.runtime.measuring import Entry, Form, Measured, Progress
    from cnnspec.runtime.model_file import ModelFile

NAME = "bench"
SUMMARY = "latency, throughput and memory, in torch and ONNX Runtime"
DESCRIPTION = """\
Measure a network side by side: torch, and ONNX Runtime in float32, float16 and
int8. Each contender has a process of its own, so that peak memory is its own,
and they take turns, so that whatever else the machine does hits all alike. What
comes out of them is compared.
"""
EPILOG = """\
examples:
  cnnspec bench resnet50
  cnnspec bench resnet50 --batch 1,8,32 --compile --int8 --calibration photos
  cnnspec bench net.yaml --weights net.pth --only onnx,onnx-fp16 --provider cuda
  cnnspec bench ours.onnx theirs.onnx --input image=3x224x224
  cnnspec bench out --threads 1 --format json -o times.json

contenders:
  of a spec, or of a folder that `cnnspec build` made: eager, compile, onnx,
  onnx-fp16 and onnx-int8; eager and onnx unless others are asked for. Of ONNX
  files: each file, which needs no torch. A spec and files can be mixed

figures:
  latency of a run on inputs that are in place already; throughput over all
  runs; peak memory of the process, libraries included. Before the first turn
  and at the start of each some runs are not counted. float32 is float32 on a
  GPU too: TF32 is off

exit codes:
  0 fine, 1 the spec is wrong, a contender could not be measured, or one
  computes something else, 2 usage or environment, 130 interrupted, after what
  has been measured is shown
"""

_LEAST_RUNS = 50
_BATCHES = "--batch"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "sources",
        metavar="MODEL",
        nargs="+",
        help="a spec, a folder that `cnnspec build` made, or ONNX files",
    )
    add_choice(parser)
    parser.add_argument(
        "--weights",
        type=text("--weights"),
        metavar="FILE",
        help="weights of the spec: .safetensors, .pth, .pt; random ones without",
    )
    parser.add_argument(
        "--seed",
        type=whole("--seed", least=0),
        metavar="N",
        default=0,
        help="what random weights are made from (default 0)",
    )
    parser.add_argument(
        "--only",
        type=names("--only"),
        metavar="A,B",
        help="these contenders: eager, compile, onnx, onnx-fp16, onnx-int8",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--fp16", action="store_true", help="an ONNX file in float16 too")
    parser.add_argument("--int8", action="store_true", help="an ONNX file in int8 too")
    parser.add_argument(
        "--calibration",
        type=text("--calibration"),
        metavar="DIR",
        help="images that int8 is calibrated with; random numbers without",
    )
    parser.add_argument(
        "--batch",
        type=_numbers,
        metavar="N,M",
        help="samples of a run; 1 (default, or what a file takes), or several: 1,8,32",
    )
    parser.add_argument(
        "--runs",
        type=whole("--runs", least=_LEAST_RUNS),
        metavar="N",
        default=_LEAST_RUNS,
        help=f"runs of each, at least {_LEAST_RUNS} (default)",
    )
    parser.add_argument(
        "--warmup",
        type=whole("--warmup", least=0),
        metavar="N",
        default=5,
        help="runs of each that are not counted (default 5)",
    )
    parser.add_argument(
        "--threads",
        type=whole("--threads", least=1),
        metavar="N",
        help="threads of the CPU (as many as this process may use)",
    )
    parser.add_argument(
        "--provider",
        type=one_of("--provider", "auto", "cpu", "cuda", "tensorrt"),
        metavar="NAME",
        default="auto",
        help="auto (default), cpu, cuda or tensorrt; torch takes the same device",
    )
    parser.add_argument(
        "--cuda-graph", action="store_true", help="ONNX Runtime replays CUDA graphs"
    )
    add_format(parser, "table", "json", "csv", "md", help="table (default), json, csv or md")
    add_output(parser)


def _numbers(given: str) -> list[int]:
    return list(dict.fromkeys(whole(_BATCHES, least=1)(each) for each in given.split(",")))


def run(options: argparse.Namespace) -> int:
    """Measure and show."""
    files = [source for source in options.sources if _is_file(source)]
    specs = [source for source in options.sources if not _is_file(source)]
    if len(specs) > 1:
        raise EnvironmentFailure(
            f"one spec is measured at a time, and {listed(specs)} are several",
            help="ONNX files of them can be measured side by side",
        )
    if not specs:
        _refuse_spec_options(options)
        return _measured(options, None, files)
    (options.spec,) = specs
    if os.path.isdir(options.spec):
        from cnnspec.backends.torch.artifact import built_files

        spec, weights = built_files(options.spec)
        options.spec, options.weights = os.fspath(spec), options.weights or os.fspath(weights)
    return _measured(options, _graph(options), files)


def _is_file(source: str) -> bool:
    return Path(source).suffix.lower() == ".onnx"


def _refuse_spec_options(options: argparse.Namespace) -> None:
    """Raise for options that ask for something that ONNX files alone cannot give."""
    for given, option in (
        (options.only, "--only"),
        (options.compile, "--compile"),
        (options.fp16, "--fp16"),
        (options.int8, "--int8"),
        (options.calibration, "--calibration"),
        (options.weights, "--weights"),
        (options.variant, "--variant"),
        (options.params, "--set"),
    ):
        if given:
            raise EnvironmentFailure(f"{option} is about a spec, and an ONNX file is none")


@collector_paused()
def _graph(options: argparse.Namespace) -> Graph:
    return chosen_graph(options)


def _measured(options: argparse.Namespace, graph: Graph | None, files: Sequence[str]) -> int:
    from cnnspec.runtime.bench_tables import Plan
    from cnnspec.runtime.measuring import Measured, measure
    from cnnspec.runtime.model_file import open_model
    from cnnspec.runtime.threads import usable_threads

    options.threads = options.threads or usable_threads()
    forms = _forms(options) if graph is not None else []
    models = [open_model(file) for file in files]
    batches = options.batch or [_only_batch(models) or 1]
    errors = Terminal(sys.stderr)
    found = Measured()
    named = [graph.name] if graph is not None else [model.path.name for model in models]
    interrupted = False
    with TemporaryDirectory(prefix="cnnspec-") as folder, _progress(errors) as progress:
        entries = _of_files(models, graph, batches, options)
        if graph is not None:
            entries = [*_of_spec(graph, Path(folder), forms, options, found, progress), *entries]
        try:
            measure(
                entries,
                batches,
                found,
                runs=options.runs,
                warmup=options.warmup,
                folder=Path(folder),
                progress=progress,
            )
        except KeyboardInterrupt:
            interrupted = True
    plan = Plan(", ".join(named), options.runs, options.warmup, interrupted)
    if found.rows:
        _show(plan, found, options, errors)
    if interrupted:
        raise KeyboardInterrupt
    if not found.rows:
        _refuse_nothing(found)
    return 1 if found.failed or not all(each.same for each in found.rows) else 0


def _refuse_nothing(found: Measured) -> None:
    """Say why there is no table."""
    first = found.failed[0]
    more = f", and {len(found.failed) - 1} more" if len(found.failed) > 1 else ""
    raise EnvironmentFailure(f"nothing could be measured: `{first.name}`{more}: {first.reason}")


def _forms(options: argparse.Namespace) -> list[Form]:
    """The contenders of the spec that are asked for, in the order of the table."""
    from cnnspec.runtime.measuring import FORMS

    wanted = set(options.only or ("eager", "onnx"))
    unknown = sorted(wanted.difference(FORMS))
    if unknown:
        raise EnvironmentFailure(
            f"there is no contender {listed(unknown)}",
            help=did_you_mean(unknown[0], FORMS) or f"contenders are {', '.join(FORMS)}",
        )
    wanted |= {
        form
        for form, asked in (
            ("compile", options.compile),
            ("onnx-fp16", options.fp16),
            ("onnx-int8", options.int8),
        )
        if asked
    }
    if options.calibration is not None and "onnx-int8" not in wanted:
        raise EnvironmentFailure("--calibration is about int8, which is not asked for")
    return [form for form in FORMS if form in wanted]


def _only_batch(models: Sequence[ModelFile]) -> int | None:
    """The batch that files take which take only one."""
    from cnnspec.runtime.onnx_contender import batch_of

    return next((batch for batch in map(batch_of, models) if batch is not None), None)


def _of_spec(
    graph: Graph,
    folder: Path,
    forms: Sequence[Form],
    options: argparse.Namespace,
    found: Measured,
    progress: Progress,
) -> Sequence[Entry]:
    # Modules that torch imports take Ctrl-C for a failure of theirs, and go on without.
    with undisturbed():
        from cnnspec.backends.contending import contending

    made = contending(
        graph,
        folder,
        forms,
        version=__version__,
        weights=options.weights,
        seed=options.seed,
        calibration=options.calibration,
        provider=options.provider,
        threads=options.threads,
        cuda_graph=options.cuda_graph,
        progress=progress,
    )
    found.failed.extend(made.failed)
    found.remarks.extend(made.remarks)
    return made.entries


def _of_files(
    models: Sequence[ModelFile],
    graph: Graph | None,
    batches: Sequence[int],
    options: argparse.Namespace,
) -> Sequence[Entry]:
    """A contender for each file, called by its path where a name alone would not tell."""
    from cnnspec.runtime.measuring import Entry
    from cnnspec.runtime.onnx_contender import MODULE, job, precision_of, shapes_of

    if graph is None:
        given = _given_shapes(options.inputs, models)
        usual = list(given.values())
    else:
        given = {}
        usual = [graph.tensors[value].shape for value in graph.inputs.values()]
    titles = [model.path.name for model in models]
    entries = []
    for model, title in zip(models, titles, strict=True):
        jobs = {
            batch: job(
                str(model.path),
                shapes_of(model, batch, given, usual),
                provider=options.provider,
                threads=options.threads,
                graph=options.cuda_graph,
            )
            for batch in batches
        }
        name = title if titles.count(title) == 1 else str(model.path)
        entries.append(Entry(name, precision_of(model), model.size, MODULE, jobs.__getitem__))
    return entries


def _given_shapes(texts: Sequence[str], models: Sequence[ModelFile]) -> dict[str, tuple[int, ...]]:
    """What `--input` says, of inputs that a file has."""
    found: dict[str, tuple[int, ...]] = {}
    there = dict.fromkeys(port.name for model in models for port in model.inputs)
    for name, sizes in given_inputs(texts).items():
        assert isinstance(sizes, tuple)  # of a command line
        if name not in there:
            raise EnvironmentFailure(
                f"no file has an input `{name}`",
                help=did_you_mean(name, there) or f"there is {listed(there)}",
            )
        found[name] = sizes
    return found


def _show(plan: Plan, found: Measured, options: argparse.Namespace, errors: Terminal) -> None:
    """Put the result where it is asked for; what to know about it is in it or on the errors."""
    from cnnspec.runtime import bench_tables as tables

    below: list[Line] = [
        [
            (weight, "bold yellow" if weight == "warning" else "bold green"),
            (f": {visible(said)}", ""),
        ]
        for weight, said in tables.remarks(found)
    ]
    if options.format == "table":
        whole = [*tables.lines(plan, found), *([[], *below] if below else [])]
        if to_terminal(options.output):
            out = Terminal(sys.stdout)
            out.write(as_text(whole) if out.colour else as_plain(whole))
        else:
            write_result(as_plain(whole), options.output)
        return
    if options.format == "json":
        from json import dumps

        write_result(dumps(tables.document(plan, found), indent=1, allow_nan=False), options.output)
        return
    text = tables.to_csv(found) if options.format == "csv" else tables.to_markdown(plan, found)
    write_result(text, options.output)
    if below:
        errors.write(as_text(below) if errors.colour else as_plain(below))


@contextmanager
def _progress(terminal: Terminal) -> Iterator[Callable[[str, int, int], None]]:
    """Shows what is being done, where someone watches."""
    stream = terminal.stream
    if stream is None or not stream.isatty() or not terminal.colour:
        yield lambda doing, done, whole: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
    )
    # Drawing takes time of the processors that are measured.
    with Progress(
        *columns, console=Console(file=stream), transient=True, refresh_per_second=2
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda doing, done, whole: bar.update(
            task, description=visible(doing), completed=done, total=whole or None
        )
