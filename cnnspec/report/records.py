"""What a report is made of: totals, a layer, the memory of a training step; plain, frozen values.

Nothing is computed here. `to_dict` is the form of each in the JSON document: keys may be added,
never renamed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cnnspec.geometry import AxisField
from cnnspec.op import Ops

__all__ = [
    "COUNTS",
    "Figures",
    "InputField",
    "Layer",
    "Moment",
    "Status",
    "Totals",
    "TrainingMemory",
    "intensity",
]

COUNTS = (
    "params",
    "trainable_params",
    "weights",
    "biases",
    "buffers",
    "macs",
    "flops",
    "connections",
    "connections_with_bias",
    "units",
    "activations",
    "macts",
)
"""Counts that a layer and a sum of layers have, in the order tables of plain values show them."""


class InputField(NamedTuple):
    """What a layer sees of one spatial axis of one network input."""

    input: str
    axis: str
    field: AxisField

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report shows it."""
        return {**self.field.to_dict(), "input": self.input, "axis": self.axis}


@dataclass(frozen=True, slots=True)
class Layer:
    """One operation of the network. Counts are exact, at batch 1; bytes follow the options.

    `params` and `buffers` of weights that are shared are 0 but for one of the layers that share
    them. `connections` is 0 for layers without units. `receptive_field` is that of the first
    output, None where it sees no spatial axis of any input.
    """

    path: str
    op: str
    inputs: tuple[str, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    params: int
    trainable_params: int
    weights: int
    biases: int
    buffers: int
    macs: int
    flops: int
    ops: Ops
    connections: int
    connections_with_bias: int
    units: int
    activations: int
    macts: int
    padding_macs: int
    """Multiply-accumulates with zeros of the padding."""
    output_bytes: int
    bytes_read: int
    bytes_written: int
    live_bytes: int
    """Bytes of activations alive while inference runs the layer; 0 where it does not."""
    saved_bytes: int
    """Bytes that the layer keeps for backward and none before it does."""
    intensity: float | None
    """FLOPs for each byte read or written; None where nothing is."""
    receptive_field: tuple[InputField, ...] | None
    line: int
    training_only: bool
    """Whether inference leaves the layer out: only training outputs, or none, depend on it."""
    dead: bool
    """Whether no output depends on the layer."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the first output, batch not counted."""
        return self.output_shapes[0]

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report shows it."""
        field = self.receptive_field
        return {
            **_by_name(self),
            "inputs": list(self.inputs),
            "output_shape": list(self.output_shape),
            "output_shapes": [list(shape) for shape in self.output_shapes],
            "ops": _by_name(self.ops),
            "receptive_field": None if field is None else [axis.to_dict() for axis in field],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sums over the layers of a graph. Counts are at batch 1; bytes follow the options."""

    params: int
    trainable_params: int
    weights: int
    biases: int
    buffers: int
    buffer_bytes: int
    macs: int
    flops: int
    ops: Ops
    connections: int
    connections_with_bias: int
    units: int
    activations: int
    """Elements of all outputs of layers."""
    macts: int
    """Elements of the outputs of layers with multiply-accumulates."""
    padding_macs: int
    """Multiply-accumulates with zeros of the padding."""
    bytes_read: int
    bytes_written: int
    intensity: float | None
    """FLOPs for each byte that layers read or write; None where nothing is."""
    saved_bytes: int
    """Bytes that layers keep for backward, each memory once."""
    peak_activation_bytes: int
    """Most bytes of activations alive at once, network inputs included."""
    weight_bytes: int
    """Bytes of the parameters."""
    layers: int

    @property
    def frozen_params(self) -> int:
        """Parameters that training leaves alone."""
        return self.params - self.trainable_params

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report shows it."""
        return {
            **_by_name(self),
            "ops": _by_name(self.ops),
            "frozen_params": self.frozen_params,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals(Figures):
    """Figures of the inference graph; `training` are those of all layers of the spec."""

    training: Figures

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report shows it."""
        return {**Figures.to_dict(self), "training": self.training.to_dict()}


class Status(NamedTuple):
    """How far a metric can be trusted: `exact`, `partial` or `unavailable`, and why not."""

    status: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """What one training step keeps over all layers of the spec, in bytes."""

    weights: int
    gradients: int
    momentum: int
    """State of SGD with momentum, whatever the optimiser is."""
    saved_activations: int
    """Everything that is kept for backward: the sum of `saved`."""
    buffers: int
    optimizer: str
    optimizer_state: int
    saved: Mapping[str, int]
    """What is kept for backward by kind: whole tensors, further elements, statistics of norms,
    masks, indices."""
    peak: int
    """Most bytes alive at once in a step, an estimate."""

    @property
    def total(self) -> int:
        """Weights, buffers, gradients, the optimiser's state and what is kept for backward."""
        state = self.optimizer_state
        return self.weights + self.buffers + self.gradients + state + self.saved_activations

    def to_dict(self) -> dict[str, Any]:
        """As the JSON report shows it."""
        return {**_by_name(self), "saved": dict(self.saved), "total": self.total}


class Moment(NamedTuple):
    """A step of inference: the path of the layer that runs, the bytes of activations alive."""

    layer: str
    bytes: int


def intensity(flops: int, moved: int) -> float | None:
    """FLOPs for each byte moved; None where nothing is moved."""
    return flops / moved if moved else None


def _by_name(record: Layer | Figures | Ops | TrainingMemory) -> dict[str, Any]:
    """The fields of a record by name, in the order they are declared."""
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
