"""The learning rate by where training stands: a scheduler of torch, and a warm-up on top of it.

Schedulers count steps or epochs from the start of training. While the warm-up lasts, the rate is
theirs times a factor that rises linearly, as in Goyal et al. (2017); it depends on the step alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.recipe import model
from cnnspec.training.recipe.known import LENGTHS

__all__ = ["RateSchedule"]

_PLATEAU = "ReduceLROnPlateau"
_LIMITS = ("base_lr", "max_lr")
"""Arguments that are learning rates of their own, one for each group."""


class RateSchedule:
    """Moves the learning rates of an optimiser.

    `factors` are those of the optimiser's groups, `steps` those of one of the `epochs`. Between two
    steps the optimiser holds the scheduler's rates, without the warm-up's factor.

    Raises `EnvironmentFailure` for a scheduler or arguments that torch refuses.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: model.Schedule | None,
        *,
        factors: Sequence[float],
        steps: int,
        epochs: int,
    ) -> None:
        self._optimizer = optimizer
        self._factors = factors
        self._by_step = False
        self._scheduler: Any = None
        self._warm_steps = 0
        self._start = 1.0
        self._held: list[float] | None = None
        self.watches_best = False
        if schedule is None:
            return
        if schedule.warmup is not None:
            self._warm_steps = round(schedule.warmup.epochs * steps)
            self._start = schedule.warmup.start
        if schedule.scheduler is not None:
            self._by_step = schedule.by == "step" and schedule.scheduler.name != _PLATEAU
            length = epochs * steps if self._by_step else epochs
            self._scheduler = self._made(schedule.scheduler, length)

    def _made(self, call: model.Call, length: int) -> Any:
        kind = getattr(lr_scheduler, call.name, None)
        if not isinstance(kind, type):
            raise EnvironmentFailure(f"torch {torch.__version__} has no scheduler `{call.name}`")
        arguments = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in call.arguments.items()
        }
        if call.name in LENGTHS:
            arguments.setdefault(LENGTHS[call.name], length)
        for name in _LIMITS:
            limit = arguments.get(name)
            if isinstance(limit, (int, float)):
                arguments[name] = [limit * factor for factor in self._factors]
        self.watches_best = call.name == _PLATEAU and arguments.get("mode") == "max"
        try:
            return kind(self._optimizer, **arguments)
        except (TypeError, ValueError) as failure:
            said = str(failure).splitlines()[0]
            raise EnvironmentFailure(f"torch refuses the scheduler `{call.name}`: {said}") from None

    @property
    def rate(self) -> float:
        """The learning rate at hand, of a group whose factor is 1 or as if there were one."""
        rate = float(self._optimizer.param_groups[0]["lr"])
        return rate / self._factors[0] if self._factors[0] else rate

    def before_step(self, taken: int) -> None:
        """Set the rates of the step behind `taken` ones, while the warm-up lasts."""
        if taken >= self._warm_steps:
            return
        factor = self._start + (1 - self._start) * taken / self._warm_steps
        groups = self._optimizer.param_groups
        self._held = [group["lr"] for group in groups]
        for group, rate in zip(groups, self._held, strict=True):
            group["lr"] = rate * factor

    def after_step(self) -> None:
        """Move on by a step."""
        if self._held is not None:
            for group, rate in zip(self._optimizer.param_groups, self._held, strict=True):
                group["lr"] = rate
            self._held = None
        if self._by_step:
            self._scheduler.step()

    def after_epoch(self, watched: float) -> None:
        """Move on by an epoch, whose figure that a plateau shows in is `watched`."""
        if self._scheduler is None or self._by_step:
            return
        if isinstance(self._scheduler, lr_scheduler.ReduceLROnPlateau):
            self._scheduler.step(watched)
        else:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any] | None:
        """Where the scheduler stands; None where there is none."""
        if self._scheduler is None:
            return None
        return {key: value for key, value in self._scheduler.state_dict().items() if _plain(value)}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Go on from there; the optimiser's state has to be loaded apart."""
        if self._scheduler is not None and state is not None:
            self._scheduler.load_state_dict(state)


def _plain(value: object) -> bool:
    """Whether a value is one that a checkpoint holds; functions are made anew."""
    if isinstance(value, dict):
        return all(_plain(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
