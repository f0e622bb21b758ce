"""Everything that is decided before the first step: data found, module made, what trains, how long.

A plan costs a few seconds at most and trains nothing, so that `--dry-run` can show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from cnnspec.backends.torch import to_torch
from cnnspec.diagnostics import EnvironmentFailure, listed, quantity, shape_text
from cnnspec.ir import Graph
from cnnspec.runtime.preparing import Preparation, preparation
from cnnspec.training.data.samples import Dataset
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.evaluating.task import Task, task_of
from cnnspec.training.memory import MemoryEstimate, estimate
from cnnspec.training.optimizing import ParameterGroup, parameter_groups
from cnnspec.training.places import Place
from cnnspec.training.recipe.model import Recipe
from cnnspec.training.transferring import Frozen, freeze

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is going to be trained, on what, and how.

    `shape` is CxHxW. `samples` and `held_out` are counts. `steps` are those of an epoch; with
    `drop_last` the rest of an epoch, too few samples for all processes, is left out of it.
    `groups` are the parameters that train, `frozen` the keys of those that the recipe freezes,
    `idle` of those that no loss depends on. `memory` is of one process. `module` lies on the CPU;
    training takes it over. `initial` is what `init` returned.
    """

    graph: Graph
    recipe: Recipe
    place: Place
    dataset: Dataset
    preparation: Preparation
    task: Task
    shape: tuple[int, ...]
    samples: int
    held_out: int
    steps: int
    drop_last: bool
    groups: tuple[ParameterGroup, ...]
    idle: tuple[str, ...]
    memory: MemoryEstimate
    initial: object
    module: nn.Module = field(repr=False)
    still: Frozen = field(repr=False)

    @property
    def classes(self) -> int | None:
        """Classes that the output tells apart; None where it does not."""
        return self.task.classes or None

    @property
    def frozen(self) -> tuple[str, ...]:
        """Keys of the parameters that the recipe freezes."""
        return self.still.keys

    @property
    def trained(self) -> int:
        """Numbers that train."""
        return sum(group.elements for group in self.groups)

    def lines(self) -> tuple[str, ...]:
        """The plan as people read it."""
        return tuple(f"{name:<10}{text}" for name, text in self._said())

    def _said(self) -> Iterator[tuple[str, str]]:
        recipe, place = self.recipe, self.place
        yield "network", f"{self.graph.name}, {shape_text(self.shape)} in"
        yield "data", self.dataset.description or self.dataset.name
        held = f"{self.held_out:,} held out" if self.held_out else "none held out"
        yield "samples", f"{self.samples:,} to train with, {held}"
        parts = f" in {quantity(recipe.accumulate, 'part')}" if recipe.accumulate > 1 else ""
        yield "batch", f"{recipe.batch_size:,}{parts}, over {_processes(place.world)}"
        total = self.steps * recipe.epochs
        left = ", the rest of an epoch left out" if self.drop_last else ""
        each = f"{quantity(recipe.epochs, 'epoch')} of {quantity(self.steps, 'step')}{left}"
        yield "steps", f"{total:,}: {each}"
        frozen = sum(p.numel() for p in self.module.parameters()) - self.trained
        yield "trains", f"{self.trained:,} numbers" + (f", {frozen:,} do not" if frozen else "")
        if len(self.groups) > 1:
            for group in self.groups:
                decay = "decay" if group.decay else "no decay"
                yield "", f"{group.elements:,} at {group.factor:g} times the rate, {decay}"
        if self.idle:
            yield "", f"no loss depends on {listed(_layers(self.idle))}"
        yield "device", f"{place.describe()}, {recipe.precision}"
        memory = self.memory
        yield (
            "memory",
            f"about {memory.step / 2**20:,.0f} MiB a step of {memory.batch:,} on one process",
        )


def plan(
    graph: Graph,
    recipe: Recipe,
    *,
    place: Place,
    init: Callable[[nn.Module], Any] | None = None,
) -> Plan:
    """Decide everything; `init` changes how weights start (see `transferring.initialising`).

    Raises `EnvironmentFailure` for data that is not there or does not fit the network, and for what
    cannot be trained so.
    """
    if recipe.data is None:
        raise EnvironmentFailure(
            "there is no data to train with", help="name it: `--data digits`, or a folder"
        )
    if len(graph.inputs) != 1:
        raise EnvironmentFailure(
            f"`{graph.name}` has {len(graph.inputs)} inputs, and training feeds one image",
            help="train its module in a program of your own: `cnnspec build` writes it",
        )
    shape = graph.tensors[next(iter(graph.inputs.values()))].shape
    prepared = preparation(graph.metadata.get("preprocess"), (None, *shape))
    task = task_of(graph, recipe.loss)
    _refuse_odd_batch(recipe, place)
    dataset = open_dataset(recipe.data, shape=shape, seed=recipe.seed, classes=task.classes or None)
    _refuse_other_classes(graph, task, dataset)
    count = len(dataset.train)
    steps, drop_last = _steps(count, recipe, place.world)
    module = to_torch(graph, recipe.seed)
    initial = init(module) if init is not None else None
    still = freeze(module, recipe.freeze)
    idle = _idle(graph, recipe, module)
    groups = parameter_groups(graph, module, recipe)
    if not groups:
        raise EnvironmentFailure("no parameter is left to train")
    at_once = -(-min(recipe.batch_size, count) // (place.world * recipe.accumulate))
    return Plan(
        graph=graph,
        recipe=recipe,
        place=place,
        dataset=dataset,
        preparation=prepared,
        task=task,
        shape=shape,
        samples=count,
        held_out=len(dataset.held_out) if dataset.held_out is not None else 0,
        steps=steps,
        drop_last=drop_last,
        groups=groups,
        idle=idle,
        memory=estimate(graph, recipe, at_once),
        initial=initial,
        module=module,
        still=still,
    )


def _refuse_odd_batch(recipe: Recipe, place: Place) -> None:
    parts = place.world * recipe.accumulate
    if recipe.batch_size < parts:
        raise EnvironmentFailure(
            f"a batch of {recipe.batch_size} has too few samples for {_processes(place.world)}"
            + (f" of {quantity(recipe.accumulate, 'part')}" if recipe.accumulate > 1 else ""),
            help=f"`--batch-size {parts}` is the least; batches are counted over all processes",
        )
    if recipe.sync_batch_norm and place.world > 1 and not place.on_gpu:
        raise EnvironmentFailure(
            "norms cannot share their statistics between processes on the CPU",
            help="leave out `sync_batch_norm`: every process then has statistics of its own",
        )


def _steps(count: int, recipe: Recipe, world: int) -> tuple[int, bool]:
    """Steps of an epoch, and whether its rest is left out.

    It is where a part would get a single sample, or none: norms cannot tell one from the mean. As
    the order changes from epoch to epoch, no sample is left out of all of them.
    """
    whole, rest = divmod(count, recipe.batch_size)
    if not whole or not rest:
        return max(whole, 1), False
    drop = rest < 2 * world * recipe.accumulate
    return whole + (not drop), drop


def _refuse_other_classes(graph: Graph, task: Task, dataset: Dataset) -> None:
    found = len(dataset.classes)
    if task.kind != "classes" or not found or found == task.classes:
        return
    params = graph.metadata.get("params") or {}
    raise EnvironmentFailure(
        f"`{dataset.name}` has {found} classes, and output `{task.output}` of `{graph.name}` tells "
        f"{task.classes} apart",
        help=f"`--set classes={found}` makes it fit" if "classes" in params else "",
    )


def _idle(graph: Graph, recipe: Recipe, module: nn.Module) -> tuple[str, ...]:
    """Keys of parameters that no loss depends on; they get no gradients, and are told not to.

    With several processes every gradient has to be known beforehand.
    """
    everything = "" in recipe.loss
    pending = []
    for output in graph.outputs:
        own = recipe.loss.get(output.name)
        if own.weight if own is not None else everything and output.weight:
            pending.append(graph.producers[output.value])
    reached: set[int] = set()
    while pending:
        index = pending.pop()
        if index < 0 or index in reached:
            continue
        reached.add(index)
        node = graph.nodes[index]
        pending += [graph.producers[value] for value in node.inputs]
    owners = {graph.nodes[index].path for index in _owning(graph, reached)}
    found = []
    for key, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        path = key
        while path and path not in owners:
            path = path.rpartition(".")[0]
        if not path:
            parameter.requires_grad_(False)
            found.append(key)
    return tuple(found)


def _owning(graph: Graph, indices: set[int]) -> Iterator[int]:
    """The nodes that store what these use."""
    for index in indices:
        node = graph.nodes[index]
        while node.share is not None:
            node = graph.nodes[node.share]
        yield node.index


def _layers(keys: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))


def _processes(world: int) -> str:
    return "1 process" if world == 1 else f"{world} processes"
