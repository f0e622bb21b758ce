"""Everything that is decided before the first step: data found, module made, what trains, how long.

A plan costs a few seconds at most and trains nothing, so that `--dry-run` can show it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from torch import nn

from cnnspec.backends.torch import to_torch
from cnnspec.diagnostics import EnvironmentFailure, quantity
from cnnspec.ir import Graph
from cnnspec.runtime.preparing import Preparation, preparation
from cnnspec.training.data.samples import Dataset
from cnnspec.training.data.sources import open_dataset
from cnnspec.training.distribution.place import Place
from cnnspec.training.evaluating.task import Task, task_of
from cnnspec.training.freezing import Frozen, freeze
from cnnspec.training.memory_estimate import MemoryEstimate, estimate
from cnnspec.training.optimizing import ParameterGroup, parameter_groups
from cnnspec.training.recipe.model import Recipe
from cnnspec.training.transferring import TransferReport

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What is going to be trained, on what, and how.

    `shape` is CxHxW. `samples` and `held_out` are counts. `steps` are those of an epoch; with
    `drop_last` the rest of an epoch, too few samples for all processes, is left out of it.
    `groups` are the parameters that train, `frozen` the keys of those that the recipe freezes,
    `idle` of those that no loss depends on. `memory` is of one process. `module` lies on the CPU;
    training takes it over. `initial` is what `init` said.
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
    initial: TransferReport | None
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


def plan(
    graph: Graph,
    recipe: Recipe,
    *,
    place: Place,
    init: Callable[[nn.Module], TransferReport] | None = None,
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
    _refuse_maps_of_images(task, dataset)
    count = len(dataset.train)
    steps, drop_last = _steps(count, recipe, place.world)
    module = to_torch(graph, recipe.seed)
    initial = init(module) if init is not None else None
    still = freeze(module, recipe.freeze)
    _refuse_lone_samples(graph, recipe, place, count, module)
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
        initial=initial.trained(module) if initial is not None else None,
        module=module,
        still=still,
    )


def _refuse_odd_batch(recipe: Recipe, place: Place) -> None:
    parts = place.world * recipe.accumulate
    if recipe.batch_size < parts:
        raise EnvironmentFailure(
            f"a batch of {recipe.batch_size} has too few samples for "
            + quantity(place.world, "process")
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


def _refuse_lone_samples(
    graph: Graph, recipe: Recipe, place: Place, count: int, module: nn.Module
) -> None:
    """A norm of a batch cannot tell the only number that it gets from the mean."""
    parts = place.world * recipe.accumulate
    if min(recipe.batch_size, count) >= 2 * parts or (recipe.sync_batch_norm and place.world > 1):
        return
    norms = {
        path
        for path, each in module.named_modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm) and each.training
    }
    for node in graph.nodes:
        if node.path in norms and prod(graph.tensors[node.inputs[0]].shape[1:]) == 1:
            raise EnvironmentFailure(
                f"`{node.path}` takes the mean of a batch, and a part of it has a single sample",
                help=f"`--batch-size {2 * parts}` is the least"
                if count >= 2 * parts
                else f"there are {quantity(count, 'sample')} to train with",
            )


def _refuse_other_classes(graph: Graph, task: Task, dataset: Dataset) -> None:
    found = len(dataset.classes) or _classes_met(dataset)
    if task.kind != "classes" or found == task.classes:
        return
    if not dataset.classes and found < task.classes:
        return  # others may not have been met
    param = _class_param(graph, task)
    raise EnvironmentFailure(
        f"`{dataset.name}` has {quantity(found, 'class')}, and output `{task.output}` "
        f"of `{graph.name}` tells {task.classes} apart",
        help=f"`--set {param}={found}` makes it fit"
        if param is not None
        else f"give the last layer {quantity(found, 'feature')} in the spec",
    )


def _classes_met(dataset: Dataset) -> int:
    """How many classes there are for sure, where they have no names."""
    parts = (dataset.train, dataset.held_out)
    known = [part.targets() for part in parts if part is not None]
    return max((max(each) + 1 for each in known if each), default=0)


def _refuse_maps_of_images(task: Task, dataset: Dataset) -> None:
    """Raise for a network that says something of each position where data says it of each image."""
    if task.kind == "map" and dataset.train.targets() is not None:
        raise EnvironmentFailure(
            f"output `{task.output}` tells something of each position, and `{dataset.name}` has "
            "one class for each image",
            help="average over positions and flatten before the output; a network that makes its "
            "image again takes `--with 'loss={MSELoss: {}, target: image}'`",
        )


def _class_param(graph: Graph, task: Task) -> str | None:
    """The param of the spec that says how many classes there are; None where none is it for sure.

    It is called so, or is the only one with that value.
    """
    values: Mapping[str, object] = graph.metadata.get("param_values") or {}
    equal = [name for name, value in values.items() if value == task.classes]
    named = [name for name in equal if "class" in name]
    return next(iter(named), equal[0] if len(equal) == 1 else None)


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
