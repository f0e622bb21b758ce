"""A run on one of its processes: planned, shown, trained, and what is said at its end.

The first process owns the folder and the terminal; the others train along in silence. What is asked
for was checked before: torch is imported here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnspec import __version__
from cnnspec.cli import training_report as report
from cnnspec.cli.output import write_result
from cnnspec.cli.terminal import Terminal
from cnnspec.cli.training_view import TrainingView
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import undisturbed
from cnnspec.report.flat import FlatNetwork
from cnnspec.report.styled import Line, as_plain, as_text
from cnnspec.training.distribution.launching import rank_here
from cnnspec.training.runs.run_folder import RunFolder, abandon, claimed, is_run

if TYPE_CHECKING:
    from cnnspec.ir import Graph
    from cnnspec.training.distribution.place import Place
    from cnnspec.training.engine import Outcome
    from cnnspec.training.planning import Plan
    from cnnspec.training.recipe.read import LoadedRecipe
    from cnnspec.training.watching import EpochFigures, Watcher

__all__ = ["Asked", "show_finished", "show_plan", "train_here"]


@dataclass(frozen=True)
class Asked:
    """What is to be trained, checked as far as that goes without data and torch.

    `threads` is None for a share of the machine's. `output` is the folder of the run, `command` the
    words that were typed. `tensorboard` is None for: where it is installed.
    """

    graph: Graph
    recipe: LoadedRecipe
    output: str
    command: tuple[str, ...]
    threads: int | None
    init_from: str | None
    cut: tuple[str, ...]
    tensorboard: bool | None
    form: Literal["table", "json"]

    def flat_spec(self, classes: Sequence[str]) -> str:
        """The network written out, as the folder of a run keeps it.

        Its labels are `classes`, the names that the data has for them, so that what is exported
        from the run calls them so.
        """
        from cnnspec.report import analyze
        from cnnspec.training.evaluating.choosing import labels_for
        from cnnspec.training.evaluating.task import task_of

        graph = self.graph
        count = task_of(graph, self.recipe.recipe.loss).classes
        labels = labels_for(graph.metadata.get("labels"), classes, count)
        graph = replace(graph, metadata={**graph.metadata, "labels": labels})
        totals = analyze(graph).totals
        return FlatNetwork(graph).spec({"params": totals.params, "macs": totals.macs})


def show_plan(asked: Asked, processes: int) -> int:
    """Plan for so many processes on this machine and show it; nothing is trained or written."""
    _import_torch()
    from cnnspec.training.distribution.place import find_place

    count = str(processes)
    place = find_place(
        asked.recipe.recipe.device,
        threads=asked.threads,
        environment={"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count},
    )
    planned = _planned(asked, place)
    _warn(asked)
    if asked.form == "json":
        from json import dumps

        write_result(dumps(report.plan_document(planned, asked.output), indent=1), None)
    else:
        _put(Terminal(sys.stdout), report.plan_lines(planned, asked.output))
    return 0


def show_finished(asked: Asked, folder: RunFolder) -> int:
    """Show what a run that came to its end before reached; there is nothing left to train."""
    from cnnspec.training.runs.metrics import read_metrics

    if rank_here() == 0:
        history = read_metrics(folder.metrics_jsonl)
        _show(asked, report.Reached.by(history, folder.recipe.epochs), again=True)
    return 0


def train_here(asked: Asked) -> int:
    """Train on this process, begin or go on, and give the exit code."""
    _import_torch()
    from cnnspec.training.distribution.place import find_place, joined

    place = find_place(asked.recipe.recipe.device, threads=asked.threads)
    with ExitStack() as stack:
        if place.first:
            stack.enter_context(claimed(asked.output))
        stack.enter_context(joined(place))
        planned = _planned(asked, place)
        if not place.first:
            return _along(planned)
        return _First(asked, planned).go()


def _import_torch() -> None:
    # Else a sum is shared by as many threads as the machine has idle at that moment.
    os.environ["OMP_DYNAMIC"] = "FALSE"
    # Modules that torch imports take Ctrl-C for a failure of theirs, and go on without.
    with undisturbed():
        import cnnspec.training.planning  # noqa: F401 - imported for its imports


def _planned(asked: Asked, place: Place) -> Plan:
    """The plan, also of a run that goes on: its state then replaces what weights began with."""
    from cnnspec.training.planning import plan
    from cnnspec.training.transferring import initialising

    init = (
        initialising(asked.graph, asked.init_from, asked.cut)
        if asked.init_from is not None
        else None
    )
    return plan(asked.graph, asked.recipe.recipe, place=place, init=init)


def _along(planned: Plan) -> int:
    """Train on a process that is not the first, which says what there is to say."""
    from cnnspec.training.checkpointer import NoCheckpointer
    from cnnspec.training.engine import train
    from cnnspec.training.interrupting import Interrupted
    from cnnspec.training.watching import Silent

    try:
        train(planned, NoCheckpointer(), Silent())
    except Interrupted as ended:
        return ended.exit_code
    return 0


def _put(terminal: Terminal, lines: list[Line]) -> None:
    terminal.write(as_text(lines) if terminal.colour else as_plain(lines))


def _warn(asked: Asked) -> None:
    if asked.recipe.warnings:
        Terminal(sys.stderr).diagnostics(asked.recipe.warnings)


def _show(asked: Asked, reached: report.Reached, *, again: bool = False) -> None:
    """Put the result of a run where it is asked for."""
    if asked.form == "json":
        from json import dumps

        document = report.result_document(reached, asked.output)
        write_result(dumps(document, indent=1, allow_nan=False), None)
    else:
        lines = report.result_lines(reached, asked.output, again=again)
        _put(Terminal(sys.stdout), lines)


class _First:
    """The first process of a run. Progress is on standard error where the result is JSON."""

    def __init__(self, asked: Asked, planned: Plan) -> None:
        self._asked = asked
        self._plan = planned
        self._shown = Terminal(sys.stdout if asked.form == "table" else sys.stderr)

    def go(self) -> int:
        """Train, and say what came of it."""
        from cnnspec.training.interrupting import Interrupted
        from cnnspec.training.runs.checkpoints import newest
        from cnnspec.training.state import refuse_other_format

        _warn(self._asked)
        begun = is_run(Path(self._asked.output))
        folder, remarks = self._folder()
        found = newest(folder.checkpoints, folder.identity)
        state = None if found is None else found.state
        if state is None:
            self._refuse_other_beginning(folder)
        else:
            refuse_other_format(state)
        if found is not None:
            remarks = (*remarks, *found.notes)
        _put(self._shown, report.heading(self._plan, self._asked.output))
        _put(self._shown, self._beginning(folder, state))
        try:
            outcome = self._train(folder, state, remarks)
        except EnvironmentFailure:
            if not begun:
                abandon(folder)
            raise
        except Interrupted as ended:
            _put(self._shown, self._interrupted(ended.epoch, ended.step))
            return ended.exit_code
        _show(self._asked, report.Reached.by(outcome.history, self._plan.recipe.epochs))
        return 0

    def _folder(self) -> tuple[RunFolder, tuple[str, ...]]:
        """The folder of the run, made or opened, and remarks on what is different now."""
        from cnnspec.training.runs.resuming import refuse_changes

        asked, facts = self._asked, self._facts()
        spec, recipe = asked.flat_spec(facts["classes"]), asked.recipe.recipe
        if not is_run(Path(asked.output)):
            return RunFolder.create(asked.output, spec=spec, recipe=recipe, facts=facts), ()
        folder = RunFolder.open(asked.output)
        return folder, refuse_changes(folder, spec=spec, recipe=recipe, facts=facts)

    def _refuse_other_beginning(self, folder: RunFolder) -> None:
        """Raise where a run that stored no state yet would begin with other weights than before."""
        initial = self._plan.initial
        now = None if initial is None else initial.to_dict()
        if _pathless(folder.facts.get("initial")) != _pathless(now):
            raise EnvironmentFailure(
                f"`{folder.path}` was begun with other weights, and has stored no state yet",
                help="give the --init-from and --cut that it was begun with",
            )

    def _facts(self) -> dict[str, Any]:
        import platform
        from importlib.metadata import version

        plan, place = self._plan, self._plan.place
        return {
            "network": plan.graph.name,
            "command": list(self._asked.command),
            "directory": os.getcwd(),
            "seed": plan.recipe.seed,
            "data": plan.dataset.description or plan.dataset.name,
            "fingerprint": plan.dataset.fingerprint,
            "classes": list(plan.dataset.classes),
            "samples": {"train": plan.samples, "held_out": plan.held_out},
            "world": place.world,
            "threads": place.threads,
            "device": place.describe(),
            "initial": None if plan.initial is None else plan.initial.to_dict(),
            "tensorboard": self._boards(),
            "versions": {
                "cnnspec": __version__,
                "torch": version("torch"),
                "python": platform.python_version(),
            },
        }

    def _beginning(self, folder: RunFolder, state: Mapping[str, Any] | None) -> list[Line]:
        """Where it goes on, and with which weights it begins."""
        initial = self._plan.initial
        lines: list[Line] = []
        if initial is not None and state is None:
            lines += [[(f"  {line}", "")] for line in initial.lines()]
        if state is not None:
            where = f"epoch {state['epoch'] + 1}, step {state['step'] + 1}"
            if state["step"] >= state["steps"]:
                where = f"the end of epoch {state['epoch'] + 1}"
            if state["epoch"] >= self._plan.recipe.epochs:
                where = "its end"
            lines.append([("  resumed  ", "cyan"), (f"{folder.path} at {where}", "")])
        return [*lines, []]

    def _train(
        self, folder: RunFolder, state: Mapping[str, Any] | None, remarks: tuple[str, ...]
    ) -> Outcome:
        from cnnspec.training.device_memory import memory_used
        from cnnspec.training.engine import train
        from cnnspec.training.runs.checkpoints import DiskCheckpointer
        from cnnspec.training.runs.metrics import Several
        from cnnspec.training.watching import EpochFigures

        history = [] if state is None else [EpochFigures(**row) for row in state["history"]]
        place = self._plan.place
        view = TrainingView(self._shown, memory=lambda: memory_used(place.device))
        with (
            view,
            _files(self._plan, folder, history, self._boards(folder), view.said) as (files, draw),
            DiskCheckpointer(folder, view.saved, draw) as checkpointer,
        ):
            for remark in remarks:
                view.said(remark)
            return train(self._plan, checkpointer, Several((*files, view)), resume=state)

    def _boards(self, folder: RunFolder | None = None) -> bool:
        """Whether TensorBoard gets figures: as asked for, as before, or where it is installed."""
        from cnnspec.training.runs.tensorboard import tensorboard_there

        asked = self._asked.tensorboard
        if asked is None and folder is not None:
            asked = folder.facts.get("tensorboard")
        return tensorboard_there() and asked is not False

    def _interrupted(self, epoch: int, step: int) -> list[Line]:
        again = report.command_line("train", "-o", self._asked.output, "--resume")
        return [
            [],
            [
                ("interrupted", "bold yellow"),
                (f" in epoch {epoch + 1} behind step {step:,} of {self._plan.steps:,}; saved", ""),
            ],
            [("go on", "bold"), (f": {again}", "")],
        ]


def _pathless(initial: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A record of weights to begin with, wherever their file lies."""
    return None if initial is None else {**initial, "source": Path(initial["source"]).name}


@contextmanager
def _files(
    plan: Plan,
    folder: RunFolder,
    history: list[EpochFigures],
    tensorboard: bool,
    complain: Callable[[str], None],
) -> Iterator[tuple[tuple[Watcher, ...], Callable[[], None]]]:
    """Watchers that keep figures in the folder of a run, and what draws the picture.

    It is drawn behind the block too, however that ends.
    """
    from cnnspec.training.runs.curve import CurveFile
    from cnnspec.training.runs.metrics import MetricsFiles
    from cnnspec.training.runs.tensorboard import TensorBoardFiles

    metrics = MetricsFiles(folder.path, complain)
    metrics.begin(history)
    title = f"{plan.graph.name}, {plan.dataset.name}"
    curve = CurveFile(folder.curve, title, history, complain)
    boards = [TensorBoardFiles(folder.path / "tensorboard")] if tensorboard else []
    try:
        yield (metrics, curve, *boards), curve.draw
    finally:
        for board in boards:
            board.close()
        curve.draw()
