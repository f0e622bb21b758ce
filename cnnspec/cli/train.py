"""`cnnspec train`: a network trained by a recipe, resumed exactly, on one process or several."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import one_of, text, whole
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.spec_arguments import (
    SPEC_HELP,
    Given,
    add_choice,
    chosen_graph,
    exit_code,
)
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure, SpecError
from cnnspec.training.distribution.launching import (
    OthersGone,
    end_with_launcher,
    launch,
    launched,
    rank_here,
    report_failure,
    world_here,
)

if TYPE_CHECKING:
    from cnnspec.cli.training_run import Asked
    from cnnspec.ir import Graph
    from cnnspec.training.recipe.read import LoadedRecipe
    from cnnspec.training.runs.run_folder import RunFolder

NAME = "train"
SUMMARY = "train a network by a recipe; resume it exactly"
DESCRIPTION = """\
Train a network by a recipe. Everything that a run makes lies in one folder:
weights, checkpoints, figures, a picture of the learning curve. Ctrl-C saves the
state; `--resume` goes on with it, and ends with the weights that there would
have been without a break, to the bit.
"""
EPILOG = """\
examples:
  cnnspec train lenet5 --data digits
  cnnspec train resnet18 --set classes=10 --data photos --dry-run
  cnnspec train net.yaml --recipe net-recipe.yaml --epochs 30 -o runs/a
  cnnspec train -o runs/a --resume
  cnnspec train lenet5 --data digits --with optimizer=Adam --with ema=0.99
  cnnspec train resnet50 --recipe resnet50-imagenet --data imagenet --nproc 8
  cnnspec train resnet50 --set classes=5 --data flowers --init-from r50.pth \\
    --freeze 'layer[12]'
  torchrun --nproc-per-node 2 -m cnnspec train lenet5 --data digits -o run

recipe:
  a YAML file, or a bundled name: digits, lenet5-mnist, resnet-cifar,
  convnetjs-cifar10, alexnet, resnet50-imagenet; without one, the recipe made
  for the data. --with sets any key of it by its path, values being YAML:
  `optimizer.lr=0.01`, `schedule=CosineAnnealingLR`, `augment=[]`

data:
  digits (bundled), a folder of class folders, or a source and where it is:
  mnist:DIR, fashion-mnist:DIR, cifar10:DIR, cifar100:DIR, images:DIR, hf:NAME

processes:
  --nproc N starts N on this machine, a GPU for each where there are any;
  torchrun starts them on several machines. The batch size is that of all

exit codes:
  0 fine, 1 the spec or the recipe is wrong, or --verify-resume found a
  difference, 2 usage, data, disk, memory, or a loss that is no number,
  130 and 143 interrupted by Ctrl-C and SIGTERM, the state saved
"""

_FOLDER = "runs"
_LONG_PRECISION = {"bf16": "bfloat16", "fp16": "float16"}
_KILLED = 137


@dataclass(frozen=True)
class _Shortcut:
    """An option that sets a key of the recipe."""

    option: str
    key: str
    about: str
    metavar: str = "VALUE"


_SHORTCUTS = (
    _Shortcut("--epochs", "epochs", "times that all samples are seen", "N"),
    _Shortcut("--batch-size", "batch_size", "samples of a step, over all processes", "N"),
    _Shortcut("--lr", "optimizer.lr", "the learning rate", "RATE"),
    _Shortcut("--seed", "seed", "what everything random is made from", "N"),
    _Shortcut("--workers", "data.workers", "processes that read samples", "N"),
)
"""Options whose value is the key's, as it is typed; the recipe's own rules judge it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("spec", metavar="SPEC", nargs="?", help=SPEC_HELP)
    add_choice(parser)
    parser.add_argument(
        "--recipe",
        type=text("--recipe"),
        metavar="FILE|NAME",
        help="how it is trained; the recipe made for the data without",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=text("--output"),
        metavar="RUN",
        help=f"the folder of the run ({_FOLDER}/NAME-1, -2, ... without)",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in RUN, or begin it"
    )
    parser.add_argument(
        "--data",
        type=text("--data"),
        metavar="SOURCE",
        help="what it learns from: digits, a folder, or SOURCE:PATH such as cifar10:DIR",
    )
    for shortcut in _SHORTCUTS:
        parser.add_argument(
            shortcut.option,
            type=text(shortcut.option),
            metavar=shortcut.metavar,
            help=shortcut.about,
        )
    parser.add_argument(
        "--precision",
        type=one_of("--precision", "float32", "bfloat16", "float16", "bf16", "fp16"),
        metavar="TYPE",
        help="float32, bfloat16 (bf16) or float16 (fp16, with a scaler)",
    )
    parser.add_argument(
        "--device",
        type=one_of("--device", "auto", "cpu", "cuda"),
        metavar="NAME",
        help="auto, cpu or cuda; auto takes a GPU where there is one",
    )
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="torch.compile the network",
    )
    parser.add_argument(
        "--freeze",
        type=text("--freeze"),
        metavar="PATTERN",
        action="append",
        default=[],
        help="layers that do not train: 'features.*'; adds up",
    )
    parser.add_argument(
        "--with",
        dest="changes",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="any key of the recipe: optimizer.lr=0.01; adds up",
    )
    _add_beginnings(parser)
    _add_processes(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="show the plan; train and write nothing"
    )
    parser.add_argument(
        "--verify-resume",
        action="store_true",
        help="train twice, once killed on the way and resumed, and compare the weights",
    )
    parser.add_argument(
        "--tensorboard",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="figures for TensorBoard too (where it is installed)",
    )
    add_format(parser, "table", "json", help="of the plan or the result: table (default) or json")


def _add_beginnings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--init-from",
        type=text("--init-from"),
        metavar="FILE|RUN",
        help="begin with weights of another: .safetensors, .pth, or a run",
    )
    parser.add_argument(
        "--cut",
        type=text("--cut"),
        metavar="PATTERN",
        action="append",
        default=[],
        help="layers that --init-from leaves as they start; adds up",
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nproc", type=whole("--nproc", least=1), metavar="N", help="processes on this machine"
    )
    parser.add_argument(
        "--threads",
        type=whole("--threads", least=1),
        metavar="N",
        help="threads of each process (the machine's, shared)",
    )


def run(options: argparse.Namespace) -> int:
    """Train, show the plan, or start the processes that train."""
    end_with_launcher()
    try:
        return _run(options)
    except EnvironmentFailure as failure:
        if not launched():
            raise
        if isinstance(failure, OthersGone):
            return _KILLED
        report_failure(failure)
        return 2
    except SpecError as failure:
        if rank_here():
            return exit_code(failure.diagnostics)
        raise


def _run(options: argparse.Namespace) -> int:
    _refuse_odd(options)
    begun = _begun(options)
    if options.spec is None:
        if begun is None:
            raise _no_spec(options)
        options.spec = os.fspath(begun.spec_file)
        options.recipe = options.recipe or os.fspath(begun.path / "recipe.yaml")
        options.nproc = options.nproc or begun.facts.get("world")
        if options.data is None:
            options.changes = [*_data_from_elsewhere(begun), *options.changes]
    asked = _asked(options, begun)
    if options.verify_resume:
        return _prove(options)
    processes = options.nproc or 1
    if options.dry_run:
        from cnnspec.cli.training_run import show_plan

        return show_plan(asked, processes)
    if begun is not None:
        from cnnspec.training.runs.resuming import refuse_changes

        # What differs is said before torch is imported, and once for all processes.
        spec = asked.flat_spec(begun.classes)
        refuse_changes(begun, spec=spec, recipe=asked.recipe.recipe, facts={})
        if begun.finished:
            from cnnspec.cli.training_run import show_finished

            return show_finished(asked, begun)
    if processes > 1 and world_here() == 1:
        return _launch(options, asked, processes)
    from cnnspec.cli.training_run import train_here

    return train_here(asked)


def _refuse_odd(options: argparse.Namespace) -> None:
    """Raise for options that make no sense together."""
    if options.resume and options.output is None:
        raise EnvironmentFailure(
            "--resume goes on with a run, and none is named", help="name its folder: -o RUN"
        )
    if options.cut and options.init_from is None:
        raise EnvironmentFailure("--cut is about --init-from, which is not given")
    if world_here() > 1 and not launched():
        if options.nproc is not None:
            raise EnvironmentFailure("--nproc starts processes, and torchrun has started them")
        if options.output is None:
            raise EnvironmentFailure(
                "processes that torchrun starts need one folder for all: name it with -o"
            )
    if options.verify_resume:
        for given, option in (
            (options.output, "--output"),
            (options.resume, "--resume"),
            (options.dry_run, "--dry-run"),
        ):
            if given:
                raise EnvironmentFailure(
                    f"--verify-resume trains in folders of its own: leave {option} away"
                )
    if options.tensorboard:
        from cnnspec.training.runs.tensorboard import tensorboard_there

        if not tensorboard_there():
            raise EnvironmentFailure(
                "TensorBoard is not installed", help="pip install 'cnnspec[tensorboard]'"
            )


def _no_spec(options: argparse.Namespace) -> EnvironmentFailure:
    if options.resume:
        return EnvironmentFailure(
            f"`{options.output}` holds no run to go on with, and no SPEC is named"
        )
    return EnvironmentFailure("SPEC is missing", help="`cnnspec train --help` shows how")


def _begun(options: argparse.Namespace) -> RunFolder | None:
    """The run that is in the folder of the output, if it is to go on."""
    from cnnspec.training.runs.run_folder import RunFolder, is_run

    planned = options.dry_run and options.spec is not None
    if options.output is None or planned or not is_run(Path(options.output)):
        return None
    # Where several processes begin a run at once, the first may have made it already.
    if not options.resume and not launched() and rank_here() == 0:
        raise EnvironmentFailure(
            f"`{options.output}` holds a run already",
            help="--resume goes on with it; another folder begins anew",
        )
    return RunFolder.open(options.output)


def _data_from_elsewhere(begun: RunFolder) -> Iterator[str]:
    """Where the samples of a run are, for a command in another folder than it was begun in."""
    data, directory = begun.recipe.data, begun.facts.get("directory")
    if data is None or data.path is None or not isinstance(directory, str):
        return
    path = os.path.join(directory, data.path)
    if not os.path.exists(data.path) and os.path.exists(path):
        from json import dumps

        yield f"data.path={dumps(path)}"


# ------------------------------------------------------------------------------ what is asked for


def _asked(options: argparse.Namespace, begun: RunFolder | None) -> Asked:
    from cnnspec.cli.training_run import Asked

    graph, recipe = _graph(options), _recipe(options)
    if recipe.recipe.data is None:
        raise EnvironmentFailure(
            "there is no data to train with", help="name it: `--data digits`, or a folder"
        )
    return Asked(
        graph=graph,
        recipe=recipe,
        output=options.output or _free_folder(graph.name),
        command=tuple(_words(options)),
        threads=_threads(options, begun),
        init_from=options.init_from,
        cut=tuple(options.cut),
        tensorboard=options.tensorboard,
        form=options.format,
    )


@collector_paused()
def _graph(options: argparse.Namespace) -> Graph:
    return chosen_graph(options)


def _recipe(options: argparse.Namespace) -> LoadedRecipe:
    """The recipe with everything in it that options say."""
    from cnnspec.training.recipe.overrides import Override, with_overrides
    from cnnspec.training.recipe.read import (
        data_text,
        default_recipe,
        parse_data,
        read_recipe,
    )

    given: list[str | Override] = []
    source = None
    if options.data is not None:
        source = parse_data(options.data, make_source=Given).source
        given.append(Override("data", data_text(options.data), "--data", literal=True))
    recipe = default_recipe(source) if options.recipe is None else read_recipe(options.recipe)
    given += [Override(key, value, option) for option, key, value in _given(options)]
    return with_overrides(recipe, [*given, *options.changes], make_source=Given)


def _given(options: argparse.Namespace) -> Iterator[tuple[str, str, str]]:
    """Options that set a key: the option, the key, the value as YAML."""
    for shortcut in _SHORTCUTS:
        value = getattr(options, shortcut.option.removeprefix("--").replace("-", "_"))
        if value is not None:
            yield shortcut.option, shortcut.key, value
    if options.precision is not None:
        precision = _LONG_PRECISION.get(options.precision, options.precision)
        yield "--precision", "precision", precision
    if options.device is not None:
        yield "--device", "device", options.device
    if options.compile is not None:
        yield "--compile", "compile", str(options.compile).lower()
    if options.freeze:
        from json import dumps

        yield "--freeze", "freeze", dumps(options.freeze)


def _free_folder(name: str) -> str:
    """The first of `runs/NAME-1`, `runs/NAME-2`, ... that is not there."""
    number = 1
    while os.path.exists(folder := os.path.join(_FOLDER, f"{name}-{number}")):
        number += 1
    return folder


def _threads(options: argparse.Namespace, begun: RunFolder | None) -> int | None:
    """Threads that are asked for; those that the run has had so far, where nothing is."""
    if options.threads is not None:
        return int(options.threads)
    variable = os.environ.get("OMP_NUM_THREADS", "")
    if variable.isascii() and variable.isdigit() and int(variable) > 0:
        return int(variable)
    known = None if begun is None else begun.facts.get("threads")
    return known if isinstance(known, int) else None


def _words(options: argparse.Namespace) -> Iterator[str]:
    """The command again, without the folder of the run and how it is started."""
    yield "train"
    if options.variant is not None:
        yield f"--variant={options.variant}"
    for option, values in (
        ("--set", options.params),
        ("--input", options.inputs),
        ("--freeze", options.freeze),
        ("--with", options.changes),
        ("--cut", options.cut),
    ):
        yield from (f"{option}={value}" for value in values)
    for option in ("--recipe", "--data", "--precision", "--device", "--init-from"):
        value = getattr(options, option.removeprefix("--").replace("-", "_"))
        if value is not None:
            yield f"{option}={value}"
    for shortcut in _SHORTCUTS:
        value = getattr(options, shortcut.option.removeprefix("--").replace("-", "_"))
        if value is not None:
            yield f"{shortcut.option}={value}"
    for option, flag in (("compile", options.compile), ("tensorboard", options.tensorboard)):
        if flag is not None:
            yield f"--{option}" if flag else f"--no-{option}"
    yield f"--format={options.format}"
    odd = options.spec.startswith("-") and options.spec != "-"
    yield os.path.join(os.curdir, options.spec) if odd else options.spec


# ------------------------------------------------------------------------------------- processes


def _launch(options: argparse.Namespace, asked: Asked, processes: int) -> int:
    """Start so many processes that train, and give back how they end."""
    from cnnspec.runtime.threads import usable_threads
    from cnnspec.training.runs.run_folder import is_run

    if options.spec == "-":
        raise EnvironmentFailure("several processes cannot read standard input: name a file")
    first, *rest = asked.command
    words = [first, f"--output={asked.output}", *(["--resume"] if options.resume else []), *rest]
    threads = asked.threads or max(1, usable_threads() // processes)
    ended = launch(words, processes=processes, threads=threads)
    if ended.failure is not None:
        Terminal(sys.stderr).failure(ended.failure)
    elif ended.code == _KILLED:
        raise EnvironmentFailure(
            "a process of the run was killed, which systems do when memory runs out",
            help="--resume goes on from the last checkpoint" if is_run(Path(asked.output)) else "",
        )
    return ended.code


def _prove(options: argparse.Namespace) -> int:
    """Train, kill, resume, compare; 0 where the weights are equal to the bit."""
    from cnnspec.training.runs.proving_resume import prove_resume

    _, *rest = _words(options)
    processes = [] if options.nproc is None else [f"--nproc={options.nproc}"]
    threads = [] if options.threads is None else [f"--threads={options.threads}"]
    errors = Terminal(sys.stderr)
    words: Sequence[str] = [*processes, *threads, *rest]
    verdict = prove_resume(words, said=errors.write)
    out = Terminal(sys.stdout)
    out.write("\n".join(verdict.lines()))
    return 0 if verdict.equal else 1
