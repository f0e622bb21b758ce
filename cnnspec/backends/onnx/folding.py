"""Norms of fixed statistics folded into the layers beside them, in float64, where that is exact.

At inference such a norm is a scale and a shift of each channel, `s*x + t`. Behind a linear map
`W x + b` that makes `(s W) x + (s b + t)`, before one `(W s) x + (b + W t)`, and two norms are one.
What an op has to say for it is `linear_map`, `channel_affine` and `with_bias`: no operation is
known here by name.

A norm folds into what computes its input if nothing else reads that, no output included. Else it
folds into all that read its result, if that is no output and all of them can take it; its shift
goes on only through ops that spread a constant evenly, so not through padding with zeros.
Calls that share weights get weights of their own where they fold other norms.

A norm stays where folding would harm: if a folded number is not finite in the type of the weights,
if a scale exceeds 2**14, and if the mean it subtracts is more than 2**10 of its deviations away
from the constant that meets it: then large numbers cancel, and what rounding leaves of them counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnspec.backends.onnx.program import Array, Folded, Program, Step
from cnnspec.op import LinearMap

__all__ = ["fold"]

Float64: TypeAlias = NDArray[np.float64]

_LARGEST_SCALE = 2.0**14
_LARGEST_MEAN = 2.0**10


def fold(program: Program) -> Program:
    """The same function with fewer layers: norms of fixed statistics are gone where that is exact.

    A step that took over a norm behind it writes the norm's value; one that took over a norm before
    it reads what the norm read. Folded weights keep their keys; those of a call that no longer
    shares them have its own path. Each is rounded once, to the type it had.
    """
    kept: frozenset[str] = frozenset()
    while True:
        try:
            return _Folding(program, kept).run()
        except _NotFinite as harm:
            kept |= harm.norms


class _NotFinite(Exception):
    """Folding the norms at these paths gave a number that is not finite."""

    def __init__(self, norms: frozenset[str]) -> None:
        self.norms = norms


class _Affine(NamedTuple):
    """`scale * x + shift` for each channel; `origin` tells equal ones from others."""

    scale: Float64
    shift: Float64
    origin: tuple[object, ...] = ()

    def then(self, behind: _Affine | None) -> _Affine:
        """Both, this one first."""
        if behind is None:
            return self
        scale = behind.scale * self.scale
        shift = behind.scale * self.shift + behind.shift
        return _Affine(scale, shift, (*self.origin, *behind.origin))


class _Norm(NamedTuple):
    """A norm of fixed statistics: what it does, its mean and deviation, their type as stored."""

    affine: _Affine
    mean: Float64
    deviation: Float64
    kind: np.dtype[np.generic]


@dataclass(slots=True)
class _Work:
    """A step while norms are folded into it: what it computes itself comes between the two.

    `names` are the op's own names of what changes then: the weight and the bias of a linear map,
    the scale and the shift of a norm.
    """

    step: Step
    linear: LinearMap | None
    norm: _Norm | None
    names: tuple[str, str]
    before: _Affine | None = None
    behind: _Affine | None = None
    took: tuple[str, ...] = ()

    def as_norm(self, norm: _Norm) -> _Affine:
        """All that a step which is a norm computes by now."""
        own = norm.affine.then(self.behind)
        return own if self.before is None else self.before.then(own)


class _Folding:
    """One attempt, which leaves the norms at the paths `kept` alone."""

    def __init__(self, program: Program, kept: frozenset[str]) -> None:
        self._program = program
        self._final = frozenset(program.outputs.values())
        self._readers = program.readers()
        self._producers = {
            value: position for position, step in enumerate(program.steps) for value in step.outputs
        }
        self._into: dict[str, tuple[str, ...]] = {}
        self._work = {
            position: self._prepared(step, kept) for position, step in enumerate(program.steps)
        }

    def run(self) -> Program:
        """Fold what can be, first into what stands before a norm, then into what stands behind.

        Raises `_NotFinite` if that gave such a number.
        """
        norms = [(position, work.norm) for position, work in self._work.items() if work.norm]
        ahead = [each for each in norms if not self._fold_back(*each)]
        for each in ahead:
            self._fold_on(*each)
        if not self._into:
            return self._program
        weights = _Weights(self._program, tuple(self._work.values()))
        new = [Folded(path, self._heirs(path)) for path in self._into]
        return replace(
            self._program,
            steps=weights.steps,
            arrays={**self._program.arrays, **weights.made},
            folded=(*self._program.folded, *new),
        )

    # ---------------------------------------------------------------------------- what ops say

    def _prepared(self, step: Step, kept: frozenset[str]) -> _Work:
        site = self._program.site(step)
        biased = step.op.with_bias()
        match biased.linear_map(site):
            case LinearMap(weight=weight, bias=str(bias)) as linear:
                return _Work(step, linear, None, (weight, bias))
        affine = None if step.path in kept else biased.channel_affine(site)
        if affine is None or affine.scale is None or affine.shift is None:
            return _Work(step, None, None, ("", ""))
        channels = site.x.shape[0]
        mean = self._values(step, affine.mean, channels, 0.0)
        with np.errstate(all="ignore"):
            deviation = np.sqrt(self._values(step, affine.var, channels, 1.0) + affine.eps)
            scale = self._values(step, affine.scale, channels, 1.0) / deviation
            shift = self._values(step, affine.shift, channels, 0.0) - mean * scale
        names = (affine.mean, affine.var, affine.scale, affine.shift)
        origin = (*(step.keys.get(name) for name in names), affine.eps)
        kind = self._program.arrays[step.keys[affine.mean]].dtype
        norm = _Norm(_Affine(scale, shift, (origin,)), mean, deviation, kind)
        return _Work(step, None, norm, (affine.scale, affine.shift))

    def _values(self, step: Step, name: str, channels: int, otherwise: float) -> Float64:
        """A weight or buffer of one element a channel, or what stands for one that is not there."""
        key = step.keys.get(name)
        if key is None:
            return np.full(channels, otherwise)
        return self._program.arrays[key].astype(np.float64).reshape(channels)

    # --------------------------------------------------------------------------------- folding

    def _fold_back(self, position: int, norm: _Norm) -> bool:
        """Fold a norm into what computes its input, if nothing else reads that."""
        work = self._work[position]
        (source,) = work.step.inputs
        producer = self._work.get(self._producers.get(source, -1))
        if producer is None or source in self._final or len(self._readers[source]) > 1:
            return False
        channels = len(norm.mean)
        if producer.norm is not None:
            sofar = producer.as_norm(producer.norm)
            constant = sofar.scale * producer.norm.mean + sofar.shift
        elif producer.linear is not None:
            bias = self._values(producer.step, producer.names[1], channels, 0.0)
            sofar = _Affine(np.ones(channels), bias).then(producer.behind)
            constant = sofar.shift
        else:
            return False
        if not _harmless(norm, constant, sofar.then(norm.affine)):
            return False
        producer.behind = (
            norm.affine if producer.behind is None else producer.behind.then(norm.affine)
        )
        producer.took += (work.step.path,)
        producer.step = replace(producer.step, outputs=work.step.outputs)
        self._producers[work.step.outputs[0]] = self._producers[source]
        self._into[work.step.path] = (producer.step.path,)
        del self._work[position]
        return True

    def _fold_on(self, position: int, norm: _Norm) -> None:
        """Fold a norm into all that reads it, if all of that can take it."""
        work = self._work[position]
        (source,), (value,) = work.step.inputs, work.step.outputs
        if value in self._final:
            return
        whole = work.as_norm(norm)
        shifts = bool(whole.shift.any())
        # Norms go in order of data, so none of these has gone on itself by now.
        readers = [self._work[reader] for reader in self._readers[value]]
        if not all(_takes(reader, shifts=shifts) for reader in readers):
            return
        if not _harmless(norm, np.zeros_like(norm.mean), whole):
            return
        for reader in readers:
            reader.before = whole
            reader.took += (work.step.path,)
            reader.step = replace(reader.step, inputs=(source,))
        self._into[work.step.path] = tuple([reader.step.path for reader in readers])
        del self._work[position]

    def _heirs(self, path: str) -> tuple[str, ...]:
        """The steps that are left of those a norm went into."""
        found: dict[str, None] = {}
        pending = list(self._into[path])
        while pending:
            heir = pending.pop(0)
            if heir in self._into:
                pending = [*self._into[heir], *pending]
            else:
                found[heir] = None
        return tuple(found)


def _harmless(norm: _Norm, constant: Float64, whole: _Affine) -> bool:
    """Whether a norm may fold where it meets `constant`; with it the step applies `whole`.

    What is no number compares as false.
    """
    near = np.abs(norm.mean - constant) <= _LARGEST_MEAN * norm.deviation
    small = np.abs(whole.scale) <= _LARGEST_SCALE
    return bool(near.all() and small.all() and np.isfinite(whole.shift).all())


def _takes(reader: _Work, *, shifts: bool) -> bool:
    """Whether a step can take over a scale, and a shift where there is one, of its input."""
    if reader.norm is not None:
        return True
    linear = reader.linear
    return linear is not None and linear.in_axis is not None and (linear.keeps_shifts or not shifts)


class _Weights:
    """The steps with what went into them, and the arrays `made` for that, by key."""

    def __init__(self, program: Program, works: tuple[_Work, ...]) -> None:
        self.made: dict[str, Array] = {}
        self._program = program
        self._alike: dict[tuple[object, ...], Mapping[str, str]] = {}
        self._harmful: set[str] = set()
        self._taken = {
            key
            for work in works
            for name, key in work.step.keys.items()
            if not (work.took and name in work.names)
        }
        self.steps = tuple([self._step(work) if work.took else work.step for work in works])
        if self._harmful:
            raise _NotFinite(frozenset(self._harmful))

    def _step(self, work: _Work) -> Step:
        """A step with its new weights, which are those of an equal one where there is any."""
        step = work.step
        origins = [each and each.origin for each in (work.before, work.behind)]
        recipe = (work.linear, tuple(sorted(step.keys.items())), *origins)
        keys = self._alike.get(recipe)
        if keys is None:
            arrays = self._arrays_of(work)
            if not all(_finite(array) for array in arrays):
                self._harmful.update(work.took)
            keys = {name: self._free(f"{step.path}.{name}") for name in work.names}
            self.made.update(zip(keys.values(), arrays, strict=True))
            self._alike[recipe] = keys
        return replace(step, op=step.op.with_bias(), keys={**step.keys, **keys})

    def _free(self, key: str) -> str:
        """The key itself, unless steps read something else by it."""
        while key in self._taken:
            key += ":folded"
        self._taken.add(key)
        return key

    def _arrays_of(self, work: _Work) -> tuple[Array, Array]:
        """Weight and bias of a linear map, or scale and shift of a norm whose statistics stay."""
        with np.errstate(all="ignore"):
            if work.norm is not None:
                norm, whole = work.norm, work.as_norm(work.norm)
                shift = whole.shift + whole.scale * norm.mean
                return (whole.scale * norm.deviation).astype(norm.kind), shift.astype(norm.kind)
            assert work.linear is not None
            weight, bias = (self._stored(work.step, name) for name in work.names)
            return _scaled(weight, work.linear, work), _shifted(weight, bias, work.linear, work)

    def _stored(self, step: Step, name: str) -> Array:
        """A weight of a step: zeros where the op has none until something is folded into it."""
        key = step.keys.get(name)
        if key is not None:
            return self._program.arrays[key]
        declared = step.op.with_bias().weights(self._program.site(step))[name]
        return np.zeros(declared.shape, np.float32)


def _scaled(weight: Array, linear: LinearMap, work: _Work) -> Array:
    """The weight with all scales on it, in float64 and rounded once."""
    blocks = _blocks(weight, linear)
    factor = np.ones((1,) * blocks.ndim)
    if work.before is not None:
        factor = factor * _laid_out(work.before.scale, linear, linear.in_axis == 0, blocks.ndim)
    if work.behind is not None:
        scale = work.behind.scale
        if linear.rows is not None:
            scale = scale[list(linear.rows)]
        factor = factor * _laid_out(scale, linear, linear.out_axis == 0, blocks.ndim)
    found = np.empty(blocks.shape, weight.dtype)
    np.multiply(blocks, factor, out=found, dtype=np.float64, casting="same_kind")
    return found.reshape(weight.shape)


def _shifted(weight: Array, bias: Array, linear: LinearMap, work: _Work) -> Array:
    """The bias with what the shifts make of it, in float64 and rounded once."""
    found = bias.astype(np.float64).reshape(-1)
    if work.before is not None and work.before.shift.any():
        blocks = _blocks(weight, linear)
        kernels = blocks.sum(axis=tuple(range(3, blocks.ndim)), dtype=np.float64)
        spread = kernels * _laid_out(work.before.shift, linear, linear.in_axis == 0, 3)
        found = found + spread.sum(axis=2 if linear.out_axis == 0 else 1).reshape(-1)
    if work.behind is not None:
        found = work.behind.scale * found + work.behind.shift
    return found.reshape(bias.shape).astype(bias.dtype)


def _blocks(weight: Array, linear: LinearMap) -> Array:
    """A weight as blocks of channels x first axis within a block x second axis x kernel."""
    first, *rest = weight.shape
    return weight.reshape(linear.groups, first // linear.groups, *rest)


def _laid_out(values: Float64, linear: LinearMap, first: bool, axes: int) -> Float64:
    """Values of channels as they lie along the blocks: on the first axis of a weight or second."""
    place = (-1, 1) if first else (1, -1)
    return values.reshape(linear.groups, *place[: axes - 1], *(1,) * (axes - 3))


def _finite(array: Array) -> bool:
    """Whether all elements are finite, without a copy: a sum would overflow."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))
