"""Networks with their weights, ready to be evaluated in torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cnnspec.backends.torch.module import to_torch
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.runtime.threads import usable_threads
from cnnspec.training.distribution.place import find_place
from cnnspec.training.evaluating.choosing import chosen_samples, image_of
from cnnspec.training.evaluating.request import USUAL_BATCH, Prepared, Request, agreed, used
from cnnspec.training.evaluating.task import task_of
from cnnspec.training.evaluating.torch_engine import TorchEngine
from cnnspec.training.recipe.model import OutputLoss

__all__ = ["Network", "averaged_weights", "networks_prepared"]

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Network:
    """A network, the file of its weights, and the losses that it was trained with, if known."""

    name: str
    graph: Graph
    weights: str | os.PathLike[str]
    losses: Mapping[str, OutputLoss] | None = None


def networks_prepared(
    networks: Sequence[Network],
    request: Request,
    *,
    device: Device,
    average: Literal["probabilities", "weights"],
) -> Prepared:
    """Networks that answer together, or one with the mean of their weights, and their samples.

    Raises `EnvironmentFailure` for weights and data that cannot be used, or not together.
    """
    images = [image_of(each.graph) for each in networks]
    uses, preparations = used([prepare for _, prepare in images])
    tasks = [task_of(each.graph, each.losses) for each in networks]
    names = [each.name for each in networks]
    task = agreed(request, tasks, names, preparations)
    chosen = chosen_samples(
        request.data, request.split, task, shape=images[0][0], seed=request.seed, run=request.run
    )
    place = find_place(device, environment={}).device
    threads = request.threads or usable_threads()
    modules = [to_torch(each.graph, weights=each.weights) for each in networks]
    if average == "weights" and len(networks) > 1:
        _refuse_different(networks)
        weights = averaged_weights([each.state_dict() for each in modules])
        modules = [to_torch(networks[0].graph, weights=weights)]
        networks, uses = networks[:1], uses[:1]
    engine = TorchEngine(
        [
            (each.graph, module, own)
            for each, module, own in zip(networks, modules, tasks, strict=False)
        ],
        uses,
        place,
        averaging=len(modules) * len(request.views.mirrored) > 1,
        threads=threads,
        confusion=request.confusion,
    )
    return Prepared(
        engine=engine,
        task=task,
        chosen=chosen,
        preparations=preparations,
        views=request.views,
        batch=request.batch or USUAL_BATCH,
        threads=threads,
        where=f"torch on {place.type}",
        labels=[(each.name, each.graph.metadata.get("labels")) for each in networks],
    )


def averaged_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each float tensor, computed in float64; counters are the largest.

    Statistics of norms are averaged with the rest: those of checkpoints of one training are near
    each other (Izmailov et al. 2018 compute them anew).
    """
    found: dict[str, Tensor] = {}
    for key, first in states[0].items():
        stacked = torch.stack([state[key] for state in states])
        mean = first.is_floating_point()
        found[key] = stacked.double().mean(0).to(first.dtype) if mean else stacked.amax(0)
    return found


def _refuse_different(networks: Sequence[Network]) -> None:
    first = networks[0]
    layers = [(node.path, node.op) for node in first.graph.nodes]
    for each in networks[1:]:
        if [(node.path, node.op) for node in each.graph.nodes] != layers:
            raise EnvironmentFailure(
                f"weights of `{first.name}` and `{each.name}` cannot be averaged: they are "
                "different networks",
                help="--average probabilities",
            )
