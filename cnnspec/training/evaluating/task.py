"""What is measured of a network: which of its outputs, read as what, with which loss.

A graph, a recipe's losses or an ONNX file tell it. Tensors and numbers may not enter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from cnnspec.diagnostics import EnvironmentFailure, shape_text
from cnnspec.ir import Graph
from cnnspec.lower import Module
from cnnspec.training.recipe.model import Call, OutputLoss

if TYPE_CHECKING:
    from cnnspec.runtime.predicting import Reading

__all__ = ["CROSS_ENTROPY", "LEAST_LOG", "MEASURED", "Task", "middle_of", "task_of", "task_of_file"]

CROSS_ENTROPY = "CrossEntropyLoss"

LEAST_LOG = -100.0
"""The logarithm of a probability of 0, as torch's BCELoss has it."""

MEASURED: Mapping[str, tuple[str, ...]] = {
    CROSS_ENTROPY: (),
    "MultiMarginLoss": ("p", "margin"),
    "BCEWithLogitsLoss": (),
    "MSELoss": (),
}
"""Losses that an evaluation measures as torch.nn has them, with the arguments that change what is
measured. Label smoothing and weights of classes are about training."""

Kind = Literal["classes", "map", "image"]

_PROBABLE = ("nn.Softmax", "nn.Softmax2d")
"""Modules of torch that make probabilities."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is measured.

    `output` is the name of the output, `classes` the number of its classes (0 for an image that is
    compared with the one that went in). `loss` is one of `MEASURED`. With `probabilities` the
    output has passed a softmax.
    """

    output: str
    kind: Kind
    classes: int
    loss: Call = field(default=Call(CROSS_ENTROPY))
    probabilities: bool = False


def task_of(graph: Graph, losses: Mapping[str, OutputLoss] | None = None) -> Task:
    """What is measured of a network: its first output that inference has.

    `losses` are a recipe's, by output or for `""`. Where the loss of that output is none of
    `MEASURED`, and without any, it is the cross-entropy.

    Raises `EnvironmentFailure` for an output that is neither.
    """
    output = next((each for each in graph.outputs if not each.training), None)
    if output is None:
        raise EnvironmentFailure(f"`{graph.name}` has no output outside training")
    said = losses or {}
    own = said.get(output.name) or said.get("")
    shape = graph.tensors[output.value].shape
    loss = _measured(own.loss) if own is not None else Call(CROSS_ENTROPY)
    if own is not None and own.target == "image":
        return Task(output.name, "image", 0, Call("MSELoss"))
    kind = _kind(len(shape))
    if kind is None:
        raise EnvironmentFailure(
            f"output `{output.name}` is {shape_text(shape)}: neither scores of classes nor a map "
            "of them"
        )
    if kind == "map":
        loss = Call(CROSS_ENTROPY)
    return Task(output.name, kind, shape[0], loss, _probable(graph, output.value))


def _kind(axes: int) -> Literal["classes", "map"] | None:
    return "classes" if axes == 1 else "map" if axes == 3 else None


def _measured(loss: Call) -> Call:
    """A loss with only those arguments that say what is measured."""
    if loss.name not in MEASURED:
        return Call(CROSS_ENTROPY)
    kept = {key: loss.arguments[key] for key in MEASURED[loss.name] if key in loss.arguments}
    return Call(loss.name, kept)


def _probable(graph: Graph, value: int) -> bool:
    producer = graph.producers[value]
    if producer < 0:
        return False
    node = graph.nodes[producer]
    code = node.op.torch(graph.site(node))
    return isinstance(code, Module) and code.target in _PROBABLE


def task_of_file(reading: Reading, path: str) -> Task:
    """What is measured of an ONNX file: its first output, by the cross-entropy.

    An output of the input's shape is an image that is compared with it.

    Raises `EnvironmentFailure` for an output that is neither, nor scores of classes, nor a map.
    """
    shape = reading.output.shape or ()
    if reading.kind == "numbers" and len(shape) == 4 and shape == reading.input.shape:
        return Task(reading.output.name, "image", 0, Call("MSELoss"))
    classes = shape[1] if len(shape) > 1 else None
    if reading.kind == "numbers" or not isinstance(classes, int):
        raise EnvironmentFailure(
            f"output `{reading.output.name}` of `{path}` is {reading.output}: neither scores of "
            "classes nor a map of them"
        )
    kind: Kind = "map" if reading.kind == "map" else "classes"
    return Task(reading.output.name, kind, classes, probabilities=not reading.softmax)


def middle_of(targets: Sequence[int], scores: Sequence[int]) -> tuple[slice, slice, slice]:
    """The part of targets (NxHxW) that scores (NxKxHxW) are about.

    It is the middle where a network gives less than the whole (U-Net). Raises `EnvironmentFailure`
    where it gives more.
    """
    whole, given = tuple(targets[1:]), tuple(scores[2:])
    above, beside = ((size - part) // 2 for size, part in zip(whole, given, strict=True))
    if min(above, beside) < 0:
        raise EnvironmentFailure(
            f"the network gives maps of {shape_text(given)}, and the targets are "
            f"{shape_text(whole)}"
        )
    return slice(None), slice(above, above + given[0]), slice(beside, beside + given[1])
