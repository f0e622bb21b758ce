"""What `cnnspec train` says before the first step and behind the last: the plan, the result.

Everything here is text or a document made of what was decided or reached; nothing is computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import join
from typing import TYPE_CHECKING, Any

from cnnspec.cli.training_view import clock, share, value
from cnnspec.diagnostics import listed, quantity, shape_text
from cnnspec.report.numbers import binary_size, exact
from cnnspec.report.styled import Line, visible
from cnnspec.training.recipe.model import Call, OutputLoss

if TYPE_CHECKING:
    from cnnspec.ir import Graph, NetworkOutput
    from cnnspec.training.planning import Plan
    from cnnspec.training.watching import EpochFigures

__all__ = [
    "Reached",
    "command_line",
    "heading",
    "next_commands",
    "plan_document",
    "plan_lines",
    "result_document",
    "result_lines",
]

_SHOWN = 4
"""Names that are listed one by one."""

_FILES = {
    "model.safetensors": "the weights at the end",
    "checkpoints/best.safetensors": "the best weights on held-out samples",
    "checkpoints/last.pt": "the state to go on from",
    "metrics.csv": "figures of every epoch",
    "metrics.jsonl": "the same, an object a line",
    "curve.svg": "loss and accuracy by epoch",
    "tensorboard": "the same for TensorBoard",
    "spec.yaml": "the network, written out",
    "recipe.yaml": "the recipe, with every default",
    "run.json": "versions, seed, data, threads, the command",
}
"""What lies in the folder of a run, the most wanted first."""


def command_line(*words: str | os.PathLike[str]) -> str:
    """A command as a shell takes it."""
    return join(["cnnspec", *[os.fspath(word) for word in words]])


# ------------------------------------------------------------------------------------- the plan


def heading(plan: Plan, output: str) -> list[Line]:
    """What is going to be trained, in a few lines; `output` is the folder of the run."""
    rows = [*_data(plan), *_how(plan), *_where(plan), ("run", output)]
    return [_network(plan), *_rows(rows)]


def plan_lines(plan: Plan, output: str) -> list[Line]:
    """The whole plan, for `--dry-run`."""
    rows = [
        *_data(plan),
        *_how(plan),
        *(("loss", text) for text in _losses(plan)),
        *(("trains", text) for text in _trains(plan)),
        *_where(plan),
        ("memory", _parts(plan)),
        ("run", f"{output}, which is not made now"),
    ]
    return [_network(plan), *_rows(rows)]


def _network(plan: Plan) -> Line:
    return [
        (visible(plan.graph.name), "bold"),
        (f"  {shape_text(plan.shape)} -> {_results(plan.graph)}", ""),
        (f"  {exact(_elements(plan))} params", ""),
    ]


def _rows(rows: Iterable[tuple[str, str]]) -> list[Line]:
    """Facts by name, which stands at the first of several."""
    shown: list[Line] = []
    last = ""
    for name, text in rows:
        shown.append([(f"  {'' if name == last else name:<9}", "cyan"), (visible(text), "")])
        last = name
    return shown


def _results(graph: Graph) -> str:
    return ", ".join(
        shape_text(graph.tensors[output.value].shape)
        for output in graph.outputs
        if not output.training
    )


def _elements(plan: Plan) -> int:
    return sum(parameter.numel() for parameter in plan.module.parameters())


def _data(plan: Plan) -> Iterator[tuple[str, str]]:
    count = len(plan.dataset.classes)
    classes = f", {quantity(count, 'class')}" if count else ""
    yield "data", f"{plan.dataset.description or plan.dataset.name}{classes}"
    held_out = f"{plan.held_out:,} held out" if plan.held_out else "none held out"
    yield "data", f"{plan.samples:,} samples to train with, {held_out}"


def _how(plan: Plan) -> Iterator[tuple[str, str]]:
    recipe = plan.recipe
    parts = [recipe.name, _call(recipe.optimizer)]
    schedule = recipe.schedule
    if schedule is not None and schedule.scheduler is not None:
        parts.append(_call(schedule.scheduler))
    if schedule is not None and schedule.warmup is not None:
        length = schedule.warmup.epochs
        parts.append(f"warm-up of {length:g} epoch{'s' * (length != 1)}")
    parts.append(f"seed {recipe.seed}")
    yield "recipe", "; ".join(parts)
    if recipe.augment:
        yield "augment", ", ".join(map(_call, recipe.augment))
    at_once = f", {recipe.accumulate} parts each" if recipe.accumulate > 1 else ""
    left = "; the rest of an epoch is left out" if plan.drop_last else ""
    yield (
        "steps",
        f"{plan.steps * recipe.epochs:,}: {quantity(recipe.epochs, 'epoch')} of "
        f"{plan.steps:,} step{'s' * (plan.steps != 1)}, batches of {recipe.batch_size:,}{at_once}"
        f"{left}",
    )


def _where(plan: Plan) -> Iterator[tuple[str, str]]:
    recipe, place = plan.recipe, plan.place
    device = place.describe()
    if place.world > 1:
        device = f"{place.world} processes, each {device}"
    extras = [
        word
        for word, there in (("compiled", recipe.compile), ("channels last", recipe.channels_last))
        if there
    ]
    yield "device", ", ".join((device, recipe.precision, *extras))
    each = " in each process" if place.world > 1 else ""
    yield "memory", f"about {binary_size(plan.memory.step)} a step{each}, by the analyzer"


def _parts(plan: Plan) -> str:
    memory = plan.memory
    parts = [
        f"weights {binary_size(memory.weights)}",
        f"state of {plan.recipe.optimizer.name} {binary_size(memory.state)}",
    ]
    if memory.average:
        parts.append(f"average {binary_size(memory.average)}")
    parts.append(f"activations and gradients {binary_size(memory.working)}")
    return ", ".join(parts)


def _call(call: Call) -> str:
    arguments = ", ".join(f"{name} {_plain(value)}" for name, value in call.arguments.items())
    return f"{call.name} ({arguments})" if arguments else call.name


def _plain(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _lossy(plan: Plan) -> Iterator[tuple[NetworkOutput, OutputLoss | None, float]]:
    """Every output with its loss and share: the recipe's for it, or the one for all."""
    losses: Mapping[str, OutputLoss] = plan.recipe.loss
    for output in plan.graph.outputs:
        own = losses.get(output.name)
        if own is not None:
            yield output, own, own.weight
        elif "" in losses:
            yield output, losses[""], losses[""].weight * output.weight
        else:
            yield output, None, 0.0


def _losses(plan: Plan) -> Iterator[str]:
    for output, loss, weight in _lossy(plan):
        shape = shape_text(plan.graph.tensors[output.value].shape)
        if loss is None or not weight:
            yield f"{output.name} ({shape}): none"
            continue
        against = ", against the image" if loss.target == "image" else ""
        times = f"{weight:g} times " if weight != 1 else ""
        yield f"{output.name} ({shape}): {times}{_call(loss.loss)}{against}"


def _trains(plan: Plan) -> Iterator[str]:
    whole = _elements(plan)
    yield f"{exact(plan.trained)} of {exact(whole)} params"
    rate = plan.recipe.optimizer.arguments.get("lr")
    for group in plan.groups:
        factor = f"{group.factor:g} times the rate" if rate is None else f"lr {_rate(group, rate)}"
        decay = "" if group.decay else ", no weight decay"
        yield f"{exact(group.elements)} in {quantity(len(group.keys), 'tensor')}: {factor}{decay}"
    for what, keys in (("frozen", plan.frozen), ("without a loss", plan.idle)):
        if keys:
            more = f" and {len(keys) - _SHOWN} more" if len(keys) > _SHOWN else ""
            yield f"{what}: {listed(keys[:_SHOWN])}{more}"


def _rate(group: Any, rate: float) -> str:
    return f"{group.factor * rate:g}"


def plan_document(plan: Plan, output: str) -> dict[str, Any]:
    """The plan for programs, format 1. Bytes are of one process, rates those of the optimiser."""
    import yaml

    from cnnspec.training.recipe.write import to_yaml

    rate = plan.recipe.optimizer.arguments.get("lr")
    memory, place = plan.memory, plan.place
    return {
        "format": 1,
        "network": {
            "name": plan.graph.name,
            "input": list(plan.shape),
            "outputs": [
                {
                    "name": output.name,
                    "shape": list(plan.graph.tensors[output.value].shape),
                    "loss": None if loss is None else loss.loss.name,
                    "weight": weight,
                }
                for output, loss, weight in _lossy(plan)
            ],
        },
        "params": {
            "all": _elements(plan),
            "training": plan.trained,
            "frozen": list(plan.frozen),
            "without_loss": list(plan.idle),
            "groups": [
                {
                    "keys": list(group.keys),
                    "params": group.elements,
                    "rate": None if rate is None else group.factor * rate,
                    "factor": group.factor,
                    "decay": group.decay,
                }
                for group in plan.groups
            ],
        },
        "data": {
            "name": plan.dataset.name,
            "description": plan.dataset.description,
            "train": plan.samples,
            "held_out": plan.held_out,
            "classes": list(plan.dataset.classes),
            "fingerprint": plan.dataset.fingerprint,
        },
        "recipe": yaml.safe_load(to_yaml(plan.recipe)),
        "steps": {
            "epoch": plan.steps,
            "all": plan.steps * plan.recipe.epochs,
            "drop_last": plan.drop_last,
        },
        "memory": {
            "step": memory.step,
            "weights": memory.weights,
            "state": memory.state,
            "average": memory.average,
            "working": memory.working,
            "batch": memory.batch,
        },
        "device": place.describe(),
        "processes": place.world,
        "threads": place.threads,
        "run": output,
    }


# ----------------------------------------------------------------------------------- the result


@dataclass(frozen=True, slots=True)
class Reached:
    """What a run came to: its epochs, the last of them, the last that was the best so far."""

    epochs: int
    planned: int
    steps: int
    seconds: float
    last: EpochFigures | None
    best: EpochFigures | None

    @classmethod
    def by(cls, history: Sequence[EpochFigures], planned: int) -> Reached:
        """What the epochs of a run say, of so many that it was to have."""
        return cls(
            epochs=len(history),
            planned=planned,
            steps=history[-1].step if history else 0,
            seconds=sum(figures.seconds for figures in history),
            last=history[-1] if history else None,
            best=next((figures for figures in reversed(history) if figures.best), None),
        )


def result_lines(reached: Reached, folder: str, *, again: bool) -> list[Line]:
    """What was reached, what lies in the folder, what may come next.

    With `again` nothing was trained now, as the run was at its end before.
    """
    last, best = reached.last, reached.best
    early = reached.epochs < reached.planned
    told = f", stopped early of {reached.planned}" if early else ""
    lines: list[Line] = [] if again else [[]]
    lines.append(
        [
            ("finished before" if again else "trained", "bold green"),
            (f"{':' * again} {quantity(reached.epochs, 'epoch')}{told} in ", ""),
            (clock(reached.seconds), ""),
        ]
    )
    rows = []
    if last is not None:
        rows.append(("last", _reached(last)))
    if best is not None and best != last:
        rows.append(("best", f"{_reached(best)}, in epoch {best.epoch + 1}"))
    lines += _rows(rows)
    lines += [[], [("in ", ""), (visible(folder), "bold")]]
    there = {name: said for name, said in _FILES.items() if os.path.exists(f"{folder}/{name}")}
    width = max(map(len, there), default=0)
    lines += [[(f"  {name:<{width}}", "cyan"), (f"  {said}", "")] for name, said in there.items()]
    lines += [[], [("next", "bold")]]
    lines += [[(f"  {visible(command)}", "")] for command in next_commands(folder)]
    return lines


def _reached(figures: EpochFigures) -> str:
    held_out = {
        name: value(figure) if name == "loss" else share(figure)
        for name, figure in figures.held_out.items()
    }
    if held_out:
        return "held out " + ", ".join(f"{name} {shown}" for name, shown in held_out.items())
    top1 = "" if figures.train_top1 is None else f", top1 {share(figures.train_top1)}"
    return f"loss {value(figures.train_loss)}{top1}, nothing held out"


def next_commands(folder: str) -> list[str]:
    """Commands for whoever has trained a network, as a shell takes them."""
    name = os.path.basename(os.path.normpath(folder)) or "model"
    return [
        command_line("eval", folder),
        command_line("export", folder, "-o", f"{name}.onnx"),
    ]


def result_document(reached: Reached, folder: str) -> dict[str, Any]:
    """The result for programs, format 1: figures as rows of `metrics.jsonl` have them."""
    from cnnspec.training.runs.metrics import finite_row, to_row

    return {
        "format": 1,
        "run": folder,
        "epochs": reached.epochs,
        "steps": reached.steps,
        "seconds": reached.seconds,
        "stopped_early": reached.epochs < reached.planned,
        "last": None if reached.last is None else finite_row(to_row(reached.last)),
        "best": None if reached.best is None else finite_row(to_row(reached.best)),
    }
