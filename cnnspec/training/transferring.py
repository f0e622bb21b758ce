"""Weights of another training as a beginning.

The lectures' recipe: take the lower layers of a trained network, cut the upper ones, put others in
their place, freeze some or all of what came (`freezing`). Nothing starts fresh unless somebody said
so: by a pattern, or by another number of classes. How files are read is
`cnnspec.backends.torch.weights`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnspec.backends.torch.artifact import WEIGHTS
from cnnspec.backends.torch.weights import (
    Match,
    Misshapen,
    WeightsMismatch,
    match,
    read_weights,
    unprefixed,
)
from cnnspec.diagnostics import EnvironmentFailure, quantity, shape_text
from cnnspec.ir import Graph, Node
from cnnspec.training.patterns import any_matches, refuse_unmatched

__all__ = [
    "RUN_WEIGHTS",
    "Part",
    "TransferReport",
    "initialising",
    "weights_in",
]

RUN_WEIGHTS = "model.safetensors"
"""What the final weights of a run are called in its folder."""

_SHOWN = 5
_CUT = "cut"


@dataclass(frozen=True, slots=True)
class Part:
    """Tensors by their keys, how many numbers they hold together, and why they are a part."""

    keys: tuple[str, ...]
    elements: int
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        found: dict[str, Any] = {"tensors": list(self.keys), "elements": self.elements}
        return {**found, "reason": self.reason} if self.reason else found


@dataclass(frozen=True, slots=True)
class TransferReport:
    """Where a network's tensors come from, and which of its parameters train.

    `came` are those of `source`, `new` those that started from the seed, for each reason apart,
    `unused` those of the source that the network has no place for. `trains` and `frozen` are
    parameters; both are None until `trained` has looked.
    """

    source: str
    came: Part
    new: tuple[Part, ...]
    unused: Part
    remarks: tuple[str, ...] = ()
    trains: Part | None = None
    frozen: Part | None = None

    def trained(self, module: nn.Module) -> TransferReport:
        """The report with the parameters of `module` that train, and those that do not."""
        named = list(module.named_parameters())
        return replace(
            self,
            trains=_part((key, each) for key, each in named if each.requires_grad),
            frozen=_part((key, each) for key, each in named if not each.requires_grad),
        )

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, for the record of a run."""
        found: dict[str, Any] = {
            "source": self.source,
            "came": self.came.to_dict(),
            "new": [part.to_dict() for part in self.new],
            "unused": self.unused.to_dict(),
            "remarks": list(self.remarks),
        }
        for name, part in (("trains", self.trains), ("frozen", self.frozen)):
            if part is not None:
                found[name] = part.to_dict()
        return found

    def lines(self) -> Iterator[str]:
        """The report as people read it, a line for each part."""
        yield f"weights of {self.source}"
        for remark in self.remarks:
            yield f"  {remark}"
        parts = [("came", self.came), *(("new", part) for part in self.new)]
        parts += [("unused", self.unused)] if self.unused.keys else []
        for name, part in (("trains", self.trains), ("frozen", self.frozen)):
            if part is not None and (part.keys or name == "trains"):
                parts.append((name, part))
        width = max(len(quantity(len(part.keys), "tensor")) for _, part in parts)
        for name, part in parts:
            count = quantity(len(part.keys), "tensor")
            reason = f" ({part.reason})" if part.reason else ""
            where = f"  {_places(part.keys)}{reason}" if part.keys else ""
            yield f"  {name:<6}  {count:>{width}}  {part.elements:>13,} numbers{where}"


def _part(tensors: Iterable[tuple[str, Tensor]], reason: str = "") -> Part:
    found = list(tensors)
    return Part(tuple(key for key, _ in found), sum(each.numel() for _, each in found), reason)


def _places(keys: Sequence[str]) -> str:
    """Where tensors are: their levels, as deep as a few words allow."""
    found: list[str] = []
    for depth in range(1, 1 + max(key.count(".") for key in keys)):
        finer = list(
            dict.fromkeys(".".join(key.rpartition(".")[0].split(".")[:depth]) for key in keys)
        )
        if found and len(finer) > _SHOWN:
            break
        found = finer
    found = [each or key for each, key in zip(found, keys, strict=False)] or list(keys)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


# ------------------------------------------------------------------------------------- beginning


def weights_in(source: str | os.PathLike[str]) -> Path:
    """The file of weights that a path means: itself, or that of a run or a built network.

    Raises `EnvironmentFailure` for a folder that is neither.
    """
    path = Path(source)
    if not path.is_dir():
        return path
    for name in (RUN_WEIGHTS, WEIGHTS):
        if (path / name).is_file():
            return path / name
    checkpoints = path / "checkpoints"
    raise EnvironmentFailure(
        f"`{path}` has no weights",
        help=f"training it has not ended; `{checkpoints}` has what it had saved"
        if checkpoints.is_dir()
        else f"a run has `{RUN_WEIGHTS}`, and a folder of `cnnspec build` has `{WEIGHTS}`",
    )


def initialising(
    graph: Graph, source: str | os.PathLike[str], cut: Sequence[str] = ()
) -> Callable[[nn.Module], TransferReport]:
    """What puts weights of `source` into a module of `graph`, and says which.

    `source` is any file of weights, a run, or a folder of `cnnspec build`. Tensors that a pattern
    of `cut` means stay as they are in the module, though they may fit.

    All others have to come, with one exception: in a layer that gives the scores of an output and
    is followed by no other weights, tensors stay as they are if they differ from the given ones in
    the number of classes alone. What the network has no place for is left over.

    The file is read when the module is there. Raises `EnvironmentFailure`, then, for weights that
    cannot be read or do not come, and for a pattern that means nothing.
    """
    path = weights_in(source)

    def initialise(module: nn.Module) -> TransferReport:
        return _Transfer(graph, module, path, os.fspath(source), tuple(cut)).report()

    return initialise


@dataclass(frozen=True, slots=True)
class _Transfer:
    """One transfer into one module."""

    graph: Graph
    module: nn.Module
    path: Path
    source: str
    cut: tuple[str, ...]
    heads: Mapping[str, int] = field(default_factory=dict)

    def report(self) -> TransferReport:
        """Copy what comes, and say what does."""
        wanted = self.module.state_dict()
        refuse_unmatched("--cut", self.cut, wanted)
        read = unprefixed(read_weights(self.path), wanted)
        sought = {key: each for key, each in wanted.items() if not any_matches(self.cut, key)}
        if not sought:
            raise EnvironmentFailure(f"nothing is left to take from `{self.source}`")
        heads = _heads(self.graph)
        try:
            found = match(sought, read.tensors, partial=True)
        except WeightsMismatch as failure:
            found = failure.match
            if not _explained(found, heads):
                raise _refused(found, self.source, heads) from None
        if not _explained(found, heads):
            raise _refused(found, self.source, heads)
        with torch.no_grad():
            for key in found.taken:
                wanted[key].copy_(read.tensors[key].reshape(wanted[key].shape))
        new: dict[str, list[str]] = {}
        for key in wanted:
            if key not in sought:
                new.setdefault(_CUT, []).append(key)
        for odd in found.misshapen:
            new.setdefault(_another(odd), []).append(odd.key)
        for key in found.uncounted:
            new.setdefault("not counted before", []).append(key)
        return TransferReport(
            self.source,
            _part((key, wanted[key]) for key in found.taken),
            tuple(_part(((k, wanted[k]) for k in keys), why) for why, keys in new.items()),
            _part((key, each) for key, each in read.tensors.items() if key not in wanted),
            read.remarks,
        )


def _heads(graph: Graph) -> Mapping[str, int]:
    """By key, the tensors of layers that give an output's scores: the number of its classes.

    Between such a layer and the output there are no other weights.
    """
    found: dict[str, int] = {}
    for output in graph.outputs:
        shape = graph.tensors[output.value].shape
        if not shape:
            continue
        pending, seen = [graph.producers[output.value]], set[int]()
        while pending:
            index = pending.pop()
            if index < 0 or index in seen:
                continue
            seen.add(index)
            node = graph.nodes[index]
            keys = _stored(graph, node)
            if keys:
                found.update(dict.fromkeys(keys, shape[0]))
            else:
                pending.extend(graph.producers[value] for value in node.inputs)
    return found


def _stored(graph: Graph, node: Node) -> list[str]:
    """Keys of what a node stores or shares."""
    while node.share is not None:
        node = graph.nodes[node.share]
    site = graph.site(node)
    names = (*node.op.weights(site), *node.op.buffers(site))
    return [f"{node.path}.{name}" if name else node.path for name in names]


def _by_classes(odd: Misshapen, heads: Mapping[str, int]) -> bool:
    """Whether a tensor differs in the number of classes alone."""
    return (
        len(odd.given) == len(odd.wanted) > 0
        and odd.given[1:] == odd.wanted[1:]
        and heads.get(odd.key) == odd.wanted[0]
    )


def _another(odd: Misshapen) -> str:
    return f"{odd.wanted[0]} classes, not {odd.given[0]}"


def _explained(found: Match, heads: Mapping[str, int]) -> bool:
    return not found.missing and all(_by_classes(odd, heads) for odd in found.misshapen)


def _refused(found: Match, source: str, heads: Mapping[str, int]) -> EnvironmentFailure:
    """What to say of tensors that neither come nor were cut."""
    strange = [odd for odd in found.misshapen if not _by_classes(odd, heads)]
    keys = [*(odd.key for odd in strange), *found.missing]
    more = f", and {len(keys) - 1} more do not come" if len(keys) > 1 else ""
    if strange:
        said = (
            f"is {shape_text(strange[0].given)} in `{source}`, not {shape_text(strange[0].wanted)}"
        )
    else:
        said = f"is not in `{source}`"
    near = next(iter(found.near.items()), None)
    if near is not None and not strange:
        help = f"`{near[0]}` of the network may be `{near[1]}` there"
    else:
        layers = list(dict.fromkeys(key.rpartition(".")[0] or key for key in keys))
        help = "--cut starts layers fresh, although they may fit: " + " ".join(
            f"--cut {layer}" for layer in layers[:_SHOWN]
        )
        if len(layers) > _SHOWN:
            help += " ..."
    return EnvironmentFailure(f"`{keys[0]}` {said}{more}", help=help)
