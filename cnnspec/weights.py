"""What an op stores: weights, buffers, and how weights start, as data.

No array may enter. Shapes are those of torch's state dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt

from cnnspec.slots import Float, Slot, Word

__all__ = [
    "INITIALISERS",
    "Buffer",
    "Init",
    "Weight",
    "constant",
    "normal",
    "torch_uniform",
    "uniform",
    "xavier_uniform",
]


@dataclass(frozen=True, slots=True)
class Init:
    """An initialiser: a function of torch.nn.init (without its final underscore), and arguments."""

    kind: str
    arguments: tuple[tuple[str, float | str], ...] = ()


_NONLINEARITIES = ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu")
_FAN: Mapping[str, Slot] = {
    "a": Float(),
    "mode": Word(("fan_in", "fan_out")),
    "nonlinearity": Word(_NONLINEARITIES),
}

INITIALISERS: Mapping[str, Mapping[str, Slot]] = {
    "constant": {"val": Float()},
    "zeros": {},
    "ones": {},
    "uniform": {"a": Float(), "b": Float()},
    "normal": {"mean": Float(), "std": Float(least=0)},
    "trunc_normal": {"mean": Float(), "std": Float(least=0), "a": Float(), "b": Float()},
    "kaiming_uniform": _FAN,
    "kaiming_normal": _FAN,
    "xavier_uniform": {"gain": Float()},
    "xavier_normal": {"gain": Float()},
    "orthogonal": {"gain": Float()},
    "dirac": {},
}
"""Initialisers that a spec's `init` may name, each with its arguments, all optional but `val`."""


def constant(value: float) -> Init:
    """Every element `value`."""
    return Init("constant", (("val", value),))


def uniform(bound: float) -> Init:
    """Uniform between `-bound` and `bound`."""
    return Init("uniform", (("a", -bound), ("b", bound)))


def normal(std: float, mean: float = 0.0) -> Init:
    """Gaussian."""
    return Init("normal", (("mean", mean), ("std", std)))


def xavier_uniform(gain: float = 1.0) -> Init:
    """Glorot and Bengio (2010), uniform."""
    return Init("xavier_uniform", (("gain", gain),))


def torch_uniform(fan_in: int) -> Init:
    """torch's default for convolution and linear layers, their weights and biases alike.

    `kaiming_uniform(a=sqrt(5))` is the uniform distribution within `1/sqrt(fan_in)`.
    """
    return uniform(1 / sqrt(fan_in)) if fan_in else constant(0.0)


@dataclass(frozen=True, slots=True)
class Weight:
    """A learned tensor.

    `decay` says whether weight decay is meant for it (not for norms and biases); `trainable` is
    False for one that is stored as a parameter but fixed.
    """

    shape: tuple[int, ...]
    init: Init
    decay: bool = True
    trainable: bool = True

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A stored tensor that is not learned: `fill` is its value everywhere at the start.

    `values` instead holds all of them, flat, for a fixed kernel or table. A buffer that is not
    `persistent` is no part of the state dict and is not counted.
    """

    shape: tuple[int, ...]
    fill: float | int = 0
    dtype: str = "float32"
    values: tuple[float, ...] | None = None
    persistent: bool = True

    @property
    def elements(self) -> int:
        """Number of elements."""
        return prod(self.shape)
