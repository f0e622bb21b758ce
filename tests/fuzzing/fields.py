"""Receptive fields against brute force: which positions of an input reach which positions.

A NaN is put into one position after another of an input axis (all of them in one batch) and looked
for in every tensor of the network: what reads it is NaN. A large number in its place shows what an
output really depends on; the two differ where a weight is zero, as in interpolation. So a field has
to hold all that the number reaches, and, where no padding is in between, the NaN has to reach both
ends of the field.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from cnnspec.api import Network
from cnnspec.geometry import (
    AlsoEverything,
    Bicubic,
    Bilinear,
    Continued,
    Flattened,
    Nearest,
    Taps,
    Transposed,
    View,
    Window,
)
from cnnspec.ir import Graph
from cnnspec.op import Op
from cnnspec.passes.receptive_field import Fields, Track
from cnnspec.report import Report
from tests.fuzzing.comparison import module_of, with_all_outputs

__all__ = ["field_differences", "padded_positions", "rounds_down"]

_MARGIN = 1e-4
_SHOVE = 1e3

_APART = frozenset(("Unfold", "PixelUnshuffle", "PadChannels"))
"""Operations that make channels see different places, or nothing: fields are those of all channels.

What is made of some of the channels may see less.
"""

Padded = dict[tuple[int, int], list[bool]]
"""For a value and an input axis: whether a position has read padding on the way."""


@dataclass(frozen=True, slots=True)
class _Reach:
    """For every value: `[input position, element...]`, true where the position arrives."""

    by_nan: Mapping[int, torch.Tensor]
    by_number: Mapping[int, torch.Tensor]


def field_differences(network: Network, report: Report) -> Iterator[str]:
    """Everything in which a field is not what positions really reach."""
    graph = network.graph
    fields = report.facts[Fields]
    if not fields.axes or any(rounds_down(node.op) for node in graph.nodes):
        return
    with warnings.catch_warnings():
        # torch warns of what is odd about an argument, and of its own settings.
        warnings.simplefilter("ignore")
        yield from _checked(graph, fields)


def _checked(graph: Graph, fields: Fields) -> Iterator[str]:
    module = _module(with_all_outputs(graph))
    padded = padded_positions(graph, fields)
    if any(node.op.name in _APART for node in graph.nodes):
        padded = {}
    plain = not any(_fills(node.op) for node in graph.nodes)
    for source, axis in enumerate(fields.axes):
        value = graph.inputs[axis.input]
        position = graph.tensors[value].roles.index(axis.role)
        reach = _reach(graph, module, value, position)
        if reach is None:
            return
        for number, tracks in enumerate(fields.values):
            if graph.producers[number] < 0:
                continue
            track = next((each for each in tracks if each.source == source), None)
            node = graph.nodes[graph.producers[number]]
            where = f"`{node.path}` ({node.op.name}) along {axis.role} of `{axis.input}`"
            if track is None:
                if number in reach.by_nan and bool(reach.by_nan[number].any()):
                    yield f"{where} sees something, its field says nothing"
                continue
            for wrong in _compare(track, number, reach, padded.get((number, source)), plain):
                yield f"{where} {wrong}"


def rounds_down(op: Op) -> bool:
    """Whether torch's float32 puts an output of `nearest` one input too early.

    41 times 1/41 is less than 1: output 41 reads input 0. Fields of whole factors are periodic, as
    if that were 1.
    """
    factors = op.arguments().get("scale_factor") or ()
    return any(factor >= 41 for factor in factors)


def _fills(op: Op) -> bool:
    """Whether padding has values of its own, where the field goes on into the padding."""
    modes = ("Reflection", "Replication", "Circular")
    return getattr(op, "padding_mode", "zeros") != "zeros" or op.name.startswith(modes)


def _module(graph: Graph) -> nn.Module:
    """The network on the CPU, with weights that hide nothing.

    In float32, in which torch rounds where it looks for nearest neighbours.
    """
    module = module_of(graph, "cpu").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.copy_(drawn * 0.5 + 0.1)
    return module


def _reach(graph: Graph, module: nn.Module, value: int, axis: int) -> _Reach | None:
    """Disturb an input along an axis; None if samples of a batch cannot be told apart."""
    length = graph.tensors[value].shape[axis]
    found = []
    for number in (float("nan"), _SHOVE):
        generator = torch.Generator().manual_seed(1)
        inputs = []
        for each in graph.inputs.values():
            shape = graph.tensors[each].shape
            sample = torch.rand(shape, generator=generator, dtype=torch.float32) + 0.1
            batch = sample.expand(length + 1, *shape).clone()
            if each == value:
                for position in range(length):
                    batch[position].select(axis, position).fill_(number)
            inputs.append(batch)
        with torch.no_grad(), _plainly():
            result = module(*inputs)
        tensors = (result,) if isinstance(result, torch.Tensor) else tuple(result)
        reached = {}
        first = len(graph.inputs)
        for index, tensor in enumerate(tensors, start=first):
            if not graph.tensors[index].batched:
                continue
            clean, changed = tensor[-1:], tensor[:-1]
            if number != number:  # NaN
                if clean.isnan().any():
                    return None  # statistics of the batch
                reached[index] = changed.isnan()
            else:
                scale = clean.abs().clamp_min(1.0)
                moved = (changed - clean).abs() > _MARGIN * scale
                # A norm of equal values makes much of rounding: what a NaN leaves is no dependence.
                reached[index] = moved & found[0][index] & changed.isfinite() & clean.isfinite()
        found.append(reached)
    return _Reach(*found)


@contextmanager
def _plainly() -> Iterator[None]:
    """Convolution as it is defined: libraries mix neighbours in, and subtract them again."""
    with torch.backends.mkldnn.flags(enabled=False), torch.backends.nnpack.flags(enabled=False):
        yield


def _compare(
    track: Track, value: int, reach: _Reach, padded: Sequence[bool] | None, plain: bool
) -> Iterator[str]:
    field = track.field
    if field.unavailable is not None or value not in reach.by_nan:
        return
    by_nan = _by_position(reach.by_nan[value], track.along)
    by_number = _by_position(reach.by_number[value], track.along)
    if field.flattened:
        longest = max((seen[1] - seen[0] + 1 for seen in by_number if seen is not None), default=0)
        if plain and not field.is_global and (field.size or 0) < longest:
            yield f"sees {longest} positions, its field says {field.size}"
        return
    # All of it may be padding of another axis, of which this one knows nothing.
    empty = not any(by_nan)
    for position, (nan, moved) in enumerate(zip(by_nan, by_number, strict=True)):
        span = field.at(position)
        touched = padded is None or padded[position if len(padded) > 1 else 0]
        if field.is_global:
            continue
        if (plain or not touched) and not _holds(span, moved):
            yield f"position {position} depends on {moved}, its field says {span}"
            return
        inside = span is None or (span[0] >= 0 and span[1] < field.extent)
        if inside and not touched and not empty and not _as_wide(nan, span):
            yield f"position {position} reads {nan}, its field says {span}"
            return


def _holds(span: tuple[int, int] | None, moved: tuple[int, int] | None) -> bool:
    if moved is None:
        return True
    return span is not None and span[0] <= moved[0] and moved[1] <= span[1]


def _as_wide(nan: tuple[int, int] | None, span: tuple[int, int] | None) -> bool:
    """Whether a NaN is seen at both ends of the span, and beyond only where that is no weight."""
    if span is None:
        return nan is None
    return nan is not None and nan[0] <= span[0] and nan[1] >= span[1]


def _by_position(reached: torch.Tensor, along: int | None) -> list[tuple[int, int] | None]:
    """For each position along an axis the first and last input position that arrives."""
    if along is None:
        columns = reached.flatten(1).any(dim=1, keepdim=True)
    else:
        others = [each for each in range(1, reached.dim()) if each != along + 1]
        columns = reached.any(dim=others) if others else reached
    hulls: list[tuple[int, int] | None] = []
    for column in columns.T.tolist():
        seen = [number for number, arrives in enumerate(column) if arrives]
        hulls.append((seen[0], seen[-1]) if seen else None)
    return hulls


# ------------------------------------------------------------------------------------- padding


def padded_positions(graph: Graph, fields: Fields) -> Padded:
    """Follow what has been padded through the network, by the views of each op alone."""
    found: Padded = {}
    for source, axis in enumerate(fields.axes):
        value = graph.inputs[axis.input]
        found[value, source] = [False] * axis.extent
    for node in graph.nodes:
        site = graph.site(node)
        for target, value in enumerate(node.outputs):
            for number, given in enumerate(node.inputs):
                looks = node.op.window(site, number, target)
                if looks is None:
                    continue
                for track in fields.values[given]:
                    before = found.get((given, track.source))
                    if before is None:
                        continue
                    if track.along is None or len(before) != site.inputs[number].shape[track.along]:
                        after = [any(before)]
                    else:
                        to, view = looks[track.along]
                        size = 1 if to is None else site.outputs[target].shape[to]
                        after = _after(before, view, size)
                    _merge(found, (value, track.source), after)
            # Where two axes of an input lie along one, a position in the padding of either reads
            # nothing.
            for track in fields.values[value]:
                for other in fields.values[value]:
                    crossed = found.get((value, other.source))
                    if track.along == other.along and crossed is not None:
                        _merge(found, (value, track.source), crossed)
    return found


def _merge(found: Padded, key: tuple[int, int], after: list[bool]) -> None:
    before = found.get(key, after)
    if len(before) != len(after):
        found[key] = [any(before) or any(after)]
    else:
        found[key] = [a or b for a, b in zip(before, after, strict=True)]


def _after(before: Sequence[bool], view: View, size: int) -> list[bool]:
    match view:
        case Window() | Transposed() | Nearest() | Bilinear() | Bicubic():
            return [_any_padded(before, _positions(view, output)) for output in range(size)]
        case Taps(rows):
            return [row is None or _any_padded(before, range(row[0], row[1] + 1)) for row in rows]
        case Continued(_, front, first, last):
            inside = (first <= output - front <= last for output in range(size))
            return [not kept or before[view.source(output)] for output, kept in enumerate(inside)]
        case Flattened() | AlsoEverything():
            return [True]
        case _:
            return [any(before)] * max(size, 1)


def _positions(
    view: Window | Transposed | Nearest | Bilinear | Bicubic, output: int
) -> Iterator[int]:
    first, count = view.reads(output)
    return (first + view.step * number for number in range(count))


def _any_padded(before: Sequence[bool], positions: Iterable[int]) -> bool:
    return any(not 0 <= each < len(before) or before[each] for each in positions)
