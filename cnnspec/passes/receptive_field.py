"""What every tensor sees of every network input, along each spatial axis of that input.

One forward pass: ops say how they look back (`Op.window`), `cnnspec.geometry` composes. No op is
known here. An axis of the input is followed through permutations and flattening to the axis of the
tensor along which it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cnnspec.geometry import AxisField, Everything, Unknown, View, apply, input_field, join
from cnnspec.ir import Graph
from cnnspec.op import Look
from cnnspec.passes.facts import Facts
from cnnspec.passes.sites import Sites
from cnnspec.tensor import Role, Tensor

__all__ = ["Fields", "InputAxis", "Track", "receptive_field"]

_CROSSED = Unknown("it meets itself along another axis")


class InputAxis(NamedTuple):
    """A spatial axis of a network input."""

    input: str
    role: Role
    extent: int


class Track(NamedTuple):
    """An input axis as a tensor has it.

    `source` is a position in `Fields.axes`; `along` the axis of the tensor it lies along, None if
    there is none (all positions then see the same).
    """

    source: int
    along: int | None
    field: AxisField


Tracks = tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of every value, by value number; axes that a value does not depend on are absent.

    In `values[v]` tracks are in the order of `axes`: input by input, axis by axis.
    """

    axes: tuple[InputAxis, ...]
    values: tuple[Tracks, ...]


def receptive_field(graph: Graph, facts: Facts) -> Fields:
    """Follow every input axis through the graph."""
    found = facts[Sites]
    axes, start = _inputs(graph)
    tensors = graph.tensors
    values: list[Tracks] = [()] * len(tensors)
    for value, tracks in start.items():
        values[value] = tracks
    for node, kind in zip(graph.nodes, found.of, strict=True):
        for value, looks in zip(node.outputs, found.kinds[kind].looks, strict=True):
            y = tensors[value]
            arriving = [
                _moved(values[source], look, tensors[source], y, node.path)
                for source, look in zip(node.inputs, looks, strict=True)
                if look is not None
            ]
            values[value] = _met([tracks for tracks in arriving if tracks], y)
    return Fields(axes, tuple(values))


def _inputs(graph: Graph) -> tuple[tuple[InputAxis, ...], dict[int, Tracks]]:
    axes: list[InputAxis] = []
    start: dict[int, Tracks] = {}
    untouched: dict[int, AxisField] = {}
    for name, value in graph.inputs.items():
        tensor = graph.tensors[value]
        tracks = []
        for axis, (extent, role) in enumerate(zip(tensor.shape, tensor.roles, strict=True)):
            if role.spatial:
                field = untouched.setdefault(extent, input_field(extent))
                tracks.append(Track(len(axes), axis, field))
                axes.append(InputAxis(name, role, extent))
        start[value] = tuple(tracks)
    return tuple(axes), start


def _moved(tracks: Tracks, look: Look, x: Tensor, y: Tensor, via: str) -> Tracks:
    """The tracks of `x` as an op at path `via` carries them over to `y`.

    Height and width mostly fare alike: the previous axis's answer is used again where all is equal.
    """
    changed = False
    moved: list[Track] = []
    previous: tuple[AxisField, View, int, int | None] | None = None
    answer: AxisField
    for track in tracks:
        along = track.along
        if along is None:
            moved.append(track)
            continue
        to, view = look[along]
        n_in = x.shape[along]
        n_out = None if to is None else y.shape[to]
        field = track.field
        asked = (field, view, n_in, n_out)
        if previous is None or previous[0] is not field or previous[1:] != asked[1:]:
            answer = apply(field, view, n_in, 1 if n_out is None else n_out, via)
            if n_out is None:  # the one position there was is what all now see
                answer = apply(answer, Everything(), 1, 2, via)
            previous = asked
        if answer is field and to == along:
            moved.append(track)
        else:
            moved.append(Track(track.source, to, answer))
            changed = True
    return tuple(moved) if changed else tracks


def _met(arriving: Sequence[Tracks], y: Tensor) -> Tracks:
    """What a tensor sees through several inputs: for each input axis the hull of all."""
    if not arriving:
        return ()
    first = arriving[0]
    if len(arriving) == 1 or all(tracks is first for tracks in arriving):
        return first
    by_source: dict[int, list[Track]] = {}
    for tracks in arriving:
        for track in tracks:
            by_source.setdefault(track.source, []).append(track)
    met: list[Track] = []
    previous: tuple[list[AxisField], int] | None = None
    for source in sorted(by_source):
        branches = by_source[source]
        lies = {track.along for track in branches if not _same_everywhere(track)}
        fields = [track.field for track in branches]
        if len(lies) > 1:
            fields = [apply(field, _CROSSED, 1, 1, "") for field in fields]
            lies = set()
        along = next(iter(lies), None)
        n = 1 if along is None else y.shape[along]
        if not (
            previous is not None
            and previous[1] == n
            and len(previous[0]) == len(fields)
            and all(a is b for a, b in zip(previous[0], fields, strict=True))
        ):
            answer = join(fields, n)
            previous = (fields, n)
        met.append(Track(source, along, answer))
    return tuple(met)


def _same_everywhere(track: Track) -> bool:
    """Whether all positions see the same, so that it does not matter along which axis."""
    field = track.field
    if track.along is None or not field.spans:
        return True
    return len(field.spans) == 1 and not (field.advance or field.tabled or field.flattened)
