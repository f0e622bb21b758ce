"""Parameters in groups, and the optimiser of torch that moves them.

Which parameters decay is what operations say of their weights; no name of a layer is known here.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cnnspec.backends.torch.verify import promises
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph
from cnnspec.training.patterns import matches, refuse_unmatched
from cnnspec.training.recipe.model import Call, Recipe
from cnnspec.weights import Weight

__all__ = ["ParameterGroup", "Update", "make_optimizer", "parameter_groups"]

_DECAY = "weight_decay"


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters by key that are moved alike: with weight decay or not, `factor` times the rate."""

    keys: tuple[str, ...]
    decay: bool
    factor: float
    elements: int


def parameter_groups(graph: Graph, module: nn.Module, recipe: Recipe) -> tuple[ParameterGroup, ...]:
    """The parameters of a module that train, in the order of its keys, grouped.

    Raises `EnvironmentFailure` for a pattern of `rates` that means nothing.
    """
    parameters = dict(module.named_parameters())
    refuse_unmatched("rates", recipe.rates, parameters)
    promised = promises(graph)
    found: dict[tuple[bool, float], list[str]] = {}
    for key, parameter in parameters.items():
        if not parameter.requires_grad:
            continue
        stored = promised[key].stored
        decay = recipe.decay == "all" or (isinstance(stored, Weight) and stored.decay)
        factor = 1.0
        for pattern, said in recipe.rates.items():
            if matches(pattern, key):
                factor = said
        found.setdefault((decay, factor), []).append(key)
    return tuple(
        ParameterGroup(tuple(keys), decay, factor, sum(parameters[key].numel() for key in keys))
        for (decay, factor), keys in found.items()
    )


def make_optimizer(
    call: Call, groups: Iterable[ParameterGroup], parameters: Mapping[str, nn.Parameter]
) -> Optimizer:
    """The optimiser of torch.optim by its name, with one of its groups for each of ours.

    Raises `EnvironmentFailure` where there is none, and for arguments it does not take.
    """
    kind = getattr(torch.optim, call.name, None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
        raise EnvironmentFailure(f"torch {torch.__version__} has no optimiser `{call.name}`")
    takes = inspect.signature(kind).parameters
    arguments = dict(call.arguments)
    rate = arguments.get("lr", takes["lr"].default if "lr" in takes else None)
    made: list[dict[str, Any]] = []
    for group in groups:
        own: dict[str, Any] = {"params": [parameters[key] for key in group.keys]}
        if rate is not None and group.factor != 1.0:
            own["lr"] = rate * group.factor
        if not group.decay and _DECAY in takes:
            own[_DECAY] = 0.0
        made.append(own)
    try:
        return kind(made, **arguments)
    except (TypeError, ValueError, RuntimeError) as failure:
        said = str(failure).splitlines()[0]
        raise EnvironmentFailure(f"torch refuses the optimiser `{call.name}`: {said}") from None


class Update:
    """One move of the weights behind the gradients: scaler, clipping, optimiser.

    `scaler` is that of 16-bit gradients, which skips a step whose gradients overflow.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        parameters: Sequence[nn.Parameter],
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        self.optimizer = optimizer
        self.scaler: torch.amp.GradScaler | None = None
        if recipe.precision == "float16":
            self.scaler = torch.amp.GradScaler(device.type)
        self._clip = recipe.clip
        self._parameters = parameters

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss that backward starts from."""
        return loss if self.scaler is None else self.scaler.scale(loss)

    def apply(self) -> None:
        """Move the weights."""
        scaler, clip = self.scaler, self._clip
        if clip is not None:
            if scaler is not None:
                scaler.unscale_(self.optimizer)
            if clip.norm is not None:
                nn.utils.clip_grad_norm_(self._parameters, clip.norm)
            if clip.value is not None:
                nn.utils.clip_grad_value_(self._parameters, clip.value)
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
