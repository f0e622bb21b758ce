"""What training makes small: a loss of each output, weighted, and its mean over a whole batch.

Losses are those of torch.nn by their names. What optimisers do and what evaluations measure may not
enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, listed, shape_text
from cnnspec.ir import Graph
from cnnspec.lower import Module
from cnnspec.training.data.samples import IGNORED
from cnnspec.training.recipe.model import OutputLoss

__all__ = ["Objective"]

_ELEMENTWISE: Mapping[str, Callable[..., Tensor]] = {
    "BCEWithLogitsLoss": functional.binary_cross_entropy_with_logits,
    "HuberLoss": functional.huber_loss,
    "L1Loss": functional.l1_loss,
    "MSELoss": functional.mse_loss,
    "SmoothL1Loss": functional.smooth_l1_loss,
}
"""Losses that compare element by element: with the image, or with 1 for the class, else 0."""

_CHOOSING = ("CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")
"""Losses that take a class by its number."""

_SOFT = ("CrossEntropyLoss", *_ELEMENTWISE)
"""Losses that take shares of classes, as mixing makes them."""

_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "CrossEntropyLoss": ("Softmax", "Softmax2d", "Sigmoid"),
    "BCEWithLogitsLoss": ("Sigmoid", "Softmax", "Softmax2d", "LogSoftmax"),
}
"""Last layers that a loss does the work of, so that it should get what goes into them."""


@dataclass(frozen=True, slots=True)
class _Term:
    """The loss of one output of that shape, without the batch."""

    output: str
    name: str
    arguments: Mapping[str, Any]
    weight: float
    target: Literal["label", "image"]
    shape: tuple[int, ...]

    def __call__(self, output: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """The loss of each sample, N of float32: the mean over what it is made of."""
        output = output.float()
        if self.target == "image":
            each = _ELEMENTWISE[self.name](
                output, images.float(), reduction="none", **self.arguments
            )
            return each.flatten(1).mean(dim=1)
        self._fits(targets)
        if self.name not in _ELEMENTWISE:
            return self._chosen(output, targets)
        wanted = targets if targets.is_floating_point() else self._shares(targets)
        each = _ELEMENTWISE[self.name](output, wanted, reduction="none", **self.arguments)
        each = each.mean(dim=1)
        return each if targets.ndim < 3 else _pixel_mean(each, targets != IGNORED)

    def _chosen(self, output: Tensor, targets: Tensor) -> Tensor:
        said = dict(self.arguments)
        if self.name == "MultiMarginLoss":
            return functional.multi_margin_loss(output, targets, reduction="none", **said)
        ignored = said.pop("ignore_index", IGNORED if targets.ndim == 3 else None)
        if targets.ndim == 3 and ignored != IGNORED:
            targets = targets.masked_fill(targets == IGNORED, ignored)
        if ignored is not None and not targets.is_floating_point():
            said["ignore_index"] = ignored
        loss = functional.nll_loss if self.name == "NLLLoss" else functional.cross_entropy
        each = loss(output, targets, reduction="none", **said)
        return each if targets.ndim < 3 else _pixel_mean(each, targets != ignored)

    def _shares(self, targets: Tensor) -> Tensor:
        """1 for the class and 0 for others, in the output's shape; 0 where none counts."""
        classes = torch.arange(self.shape[0], device=targets.device)
        numbers = classes.view(1, -1, *(1,) * (targets.ndim - 1))
        return (targets.unsqueeze(1) == numbers).float()

    def _fits(self, targets: Tensor) -> None:
        """Raises where this output and the targets that came do not go together."""
        if targets.is_floating_point():
            if self.name not in _SOFT:
                raise EnvironmentFailure(
                    f"`{self.name}` takes one class for each image, `mixup` and `cutmix` make two",
                    help=f"losses that take both are {listed(_SOFT)}",
                )
            return
        if len(self.shape) == 1 and targets.ndim == 3:
            raise EnvironmentFailure(
                f"output `{self.output}` is {shape_text(self.shape)}, one choice for each image; "
                "the data has a class for each pixel"
            )
        if len(self.shape) == 3 and targets.ndim == 1:
            raise EnvironmentFailure(
                f"output `{self.output}` is {shape_text(self.shape)}, a choice for each position; "
                "the data has one class for each image",
                help="average over positions and flatten before the output",
            )
        if len(self.shape) == 3 and tuple(targets.shape[1:]) != self.shape[1:]:
            raise EnvironmentFailure(
                f"output `{self.output}` is {shape_text(self.shape)}, masks are "
                f"{shape_text(targets.shape[1:])}",
                help="resize the output to the size of the input with `Upsample`",
            )


class Objective:
    """The loss of a network: made once, called with what its module gives in training.

    `remarks` are what users should know about it, a line each.
    """

    def __init__(self, terms: tuple[_Term, ...], judged: str | None, remarks: tuple[str, ...]):
        self._terms = terms
        self._judged = judged
        self.remarks = remarks

    @classmethod
    def of(cls, graph: Graph, losses: Mapping[str, OutputLoss]) -> Objective:
        """The losses of a recipe, by output, for the outputs of a graph.

        An output that is named has the loss and the weight given there. The loss for `""` is for
        all others, its weight times theirs in the spec. Outputs without any are left alone.

        Raises `EnvironmentFailure` for losses that do not go with their outputs.
        """
        names = [output.name for output in graph.outputs]
        for name in losses:
            if name and name not in names:
                raise EnvironmentFailure(
                    f"`loss` names `{name}`, which is no output of `{graph.name}`",
                    help=did_you_mean(name, names) or f"outputs are {listed(names)}",
                )
        terms, remarks = [], []
        judged = None
        for output in graph.outputs:
            own = losses.get(output.name) or losses.get("")
            if own is None:
                continue
            named = output.name in losses
            term = _Term(
                output.name,
                own.loss.name,
                own.loss.arguments,
                own.weight if named else own.weight * output.weight,
                own.target,
                tuple(graph.tensors[output.value].shape),
            )
            _check(term, _image(graph), named)
            remarks += _remarks(term, _ending(graph, output.value))
            terms.append(term)
            if judged is None and not output.training and term.target == "label":
                judged = output.name
        return cls(tuple(terms), judged, tuple(remarks))

    def __call__(
        self, outputs: Mapping[str, Tensor], targets: Tensor, images: Tensor, *, count: int
    ) -> Tensor:
        """The loss of samples, as their share of the mean over the `count` of a whole batch.

        `targets` are classes (N of int64), shares of classes (N x K of float32) or masks (N x H x W
        of int64); `images` are those that went in. A sample weighs as much as any other, whatever
        part and process it is in: the sum over parts and processes is the mean over the batch.
        """
        # Steps of small networks are short: no sum with nothing, no product with 1.
        total: Tensor | None = None
        for term in self._terms:
            loss = term(outputs[term.output], targets, images).sum()
            loss = loss if term.weight == 1 else term.weight * loss
            total = loss if total is None else total + loss
        return torch.zeros((), device=images.device) if total is None else total / count

    def correct(self, outputs: Mapping[str, Tensor], targets: Tensor) -> Tensor | None:
        """How many samples have the right first choice, of the first output that inference has.

        Of masks a sample counts as the share of its pixels that do. Of mixed samples the larger
        share is right. None where nothing is chosen.
        """
        if self._judged is None:
            return None
        chosen = outputs[self._judged].detach().argmax(dim=1)
        if targets.is_floating_point():
            targets = targets.argmax(dim=1)
        right = chosen == targets
        if targets.ndim < 3:
            return right.sum(dtype=torch.float32)
        return _pixel_mean(right.float(), targets != IGNORED).sum()


def _pixel_mean(each: Tensor, counts: Tensor) -> Tensor:
    """The mean over the pixels of each sample that count, N; 0 where none does."""
    weights = counts.to(each.dtype)
    pixels = weights.sum(dim=(1, 2)).clamp_(min=1)
    return (each * weights).sum(dim=(1, 2)) / pixels


def _image(graph: Graph) -> tuple[int, ...]:
    first = next(iter(graph.inputs.values()))
    return tuple(graph.tensors[first].shape)


def _check(term: _Term, image: tuple[int, ...], named: bool) -> None:
    """Raises where an output can never go with its loss."""
    shape = shape_text(term.shape)
    apart = "" if named else "give the other outputs a loss by name, and this one none"
    if term.name not in (*_ELEMENTWISE, *_CHOOSING):
        raise EnvironmentFailure(
            f"there is no loss `{term.name}`",
            help=did_you_mean(term.name, (*_ELEMENTWISE, *_CHOOSING)),
        )
    if term.target == "image":
        if term.name not in _ELEMENTWISE:
            raise EnvironmentFailure(
                f"`{term.name}` compares with classes, not with images",
                help=f"losses that compare with images are {listed(_ELEMENTWISE)}",
            )
        if term.shape != image:
            raise EnvironmentFailure(
                f"output `{term.output}` is {shape}, the image it is compared with "
                f"{shape_text(image)}",
                help=apart,
            )
        return
    axes = (1,) if term.name == "MultiMarginLoss" else (1, 3)
    if len(term.shape) not in axes:
        wanted = "scores of classes" if axes == (1,) else "scores of classes or a map of them"
        raise EnvironmentFailure(
            f"output `{term.output}` is {shape}, `{term.name}` takes {wanted}", help=apart
        )


def _ending(graph: Graph, value: int) -> str:
    """The module of torch that makes a value, without its `nn.`; empty where it is none."""
    producer = graph.producers[value]
    if producer < 0:
        return ""
    node = graph.nodes[producer]
    code = node.op.torch(graph.site(node))
    return code.target.removeprefix("nn.") if isinstance(code, Module) else ""


def _remarks(term: _Term, ending: str) -> list[str]:
    if ending in _ENDINGS.get(term.name, ()):
        return [
            f"output `{term.output}` ends with `{ending}`, and `{term.name}` takes what goes into "
            "that: training is slow, or stands still"
        ]
    if term.name == "NLLLoss" and ending != "LogSoftmax":
        return [
            f"output `{term.output}` does not end with `LogSoftmax`, and `NLLLoss` takes "
            "logarithms of probabilities"
        ]
    return []
