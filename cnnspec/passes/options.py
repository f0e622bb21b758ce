"""What an analysis is asked for, and what the words in it mean: types of numbers, optimisers.

Only figures that are bytes follow them; everything that is counted is at batch 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean

__all__ = ["DTYPES", "OPTIMIZERS", "DType", "Optimizer", "Options"]


class DType(NamedTuple):
    """Bytes of an element of tensors and weights, of a bias, of what a norm keeps of a group.

    Norms keep their statistics in float32 where the network is in less. `floating` types are those
    that can be trained, and that buffers of floats are stored in too.
    """

    bytes: int
    bias: int
    statistic: int
    floating: bool = True


DTYPES: Mapping[str, DType] = {
    "float32": DType(4, 4, 4),
    "float16": DType(2, 2, 4),
    "bfloat16": DType(2, 2, 4),
    "float64": DType(8, 8, 8),
    "int8": DType(1, 4, 4, floating=False),
}
"""Types that a network may be stored and run in, by torch's names.

All weights, inputs and activations are of the one type, as behind torch's `module.to(dtype)`. int8
is that of inference with eight bits, whose biases are int32.
"""


class Optimizer(NamedTuple):
    """What an optimiser keeps: tensors as large as each parameter, and numbers of float32."""

    copies: int
    numbers: int


OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer(0, 0),
    "momentum": Optimizer(1, 0),
    "rmsprop": Optimizer(1, 1),
    "adagrad": Optimizer(1, 1),
    "adadelta": Optimizer(2, 1),
    "adam": Optimizer(2, 1),
    "adamw": Optimizer(2, 1),
    "adamax": Optimizer(2, 1),
    "nadam": Optimizer(2, 2),
    "radam": Optimizer(2, 1),
}
"""Optimisers of torch.optim with their default arguments; `momentum` is SGD with one."""


@dataclass(frozen=True, slots=True)
class Options:
    """What an analysis was asked for: the fact that is there before any pass.

    With `fold` ops that inference folds into a neighbour by convention (batch norm) cost nothing.
    With `strict` sizes that do not fit are errors, not only those that leave input unread. `lint`
    names rules of the lint pass that run on request. `dtype` is a name in `DTYPES`, `batch` a
    number of samples, `optimizer` a name in `OPTIMIZERS`: figures in bytes follow them. Raises
    `EnvironmentFailure` for a name or batch that does not exist.
    """

    fold: bool = True
    strict: bool = False
    lint: frozenset[str] = frozenset()
    dtype: str = "float32"
    batch: int = 1
    optimizer: str = "momentum"

    def __post_init__(self) -> None:
        _known("type", self.dtype, DTYPES)
        _known("optimizer", self.optimizer, OPTIMIZERS)
        if self.batch < 1:
            raise EnvironmentFailure(
                f"a batch of {self.batch} has no samples", help="batches start at 1"
            )

    @property
    def numbers(self) -> DType:
        """What `dtype` takes."""
        return DTYPES[self.dtype]


def _known(what: str, name: str, names: Mapping[str, object]) -> None:
    if name not in names:
        raise EnvironmentFailure(
            f"there is no {what} `{name}`",
            help=did_you_mean(name, names) or f"{what}s are {', '.join(names)}",
        )
