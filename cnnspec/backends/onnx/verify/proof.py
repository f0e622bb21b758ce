"""The proof itself: which comparisons are made of a float32 model, in which order, and the verdict.

How anything is run, drawn or measured may not enter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import perf_counter

import torch
from torch import nn

from cnnspec.backends.onnx.build import tensor_names
from cnnspec.backends.onnx.session import session
from cnnspec.backends.onnx.verify.difference import (
    AnyArray,
    Difference,
    first_choices,
    measured,
)
from cnnspec.backends.onnx.verify.evaluation import Evaluation, stored
from cnnspec.backends.onnx.verify.layers import ROUNDINGS, LayerWise, activation_bytes
from cnnspec.backends.onnx.verify.running import (
    DISTRIBUTIONS,
    LEVELS,
    Feeds,
    Trial,
    inference_mode,
    optimisations,
    refusals_told,
    torch_outputs,
)
from cnnspec.backends.onnx.verify.statics import Model, batch_of, compare_shapes, well_formed
from cnnspec.backends.onnx.verify.verdict import (
    FAIL_ABOVE,
    REPORT_ABOVE,
    Choices,
    Comparison,
    LayerComparison,
    Level,
    Thorough,
    Verification,
    VerificationFailure,
)
from cnnspec.diagnostics import listed
from cnnspec.ir import Graph

__all__ = ["Progress", "file_names", "say_nothing", "verify"]

Progress = Callable[[str], None]
"""Told in words what is being done."""

_BATCHES: Mapping[Thorough, tuple[int, ...]] = {"quick": (1, 3), "full": (1, 3, 2, 7)}

_TRIED: Mapping[Thorough, tuple[Level, ...]] = {
    "quick": ("none", "all"),
    "full": ("none", "extended", "all"),
}

_LAYER_LIMITS: Mapping[Thorough, float] = {"quick": FAIL_ABOVE, "full": REPORT_ABOVE}
"""Relative difference that a layer of its own may have, unless float32 itself is as far off."""

_OTHERS_BATCH = 1
_SIZES_BATCH = 2
"""Batches of inputs that are drawn otherwise, and of those of another size."""

_ROOM = 1 << 29
"""Bytes of activations up to which layers are compared with the larger of two batches."""


def verify(
    model: bytes | str | os.PathLike[str],
    graph: Graph,
    module: nn.Module,
    *,
    thorough: Thorough = "quick",
    sizes: Sequence[Mapping[str, tuple[int, ...]]] = (),
    seed: int = 0,
    weights: nn.Module | None = None,
    feeds: Feeds | None = None,
    renamed: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Prove that `model` computes what `module` does, at float32 on the CPU.

    `model` is a path, or the bytes of a file without external data. In order: `onnx.checker`,
    inferred shapes against `graph`, the checker in full, then outputs of ONNX Runtime, with no and
    with all optimisations, against torch, on random inputs of batches 1 and 3 (only the model's own
    where that is fixed), then each layer by itself: in a deep network with fresh weights the
    outputs hardly depend on the input, and show no mistake.

    A full proof also has torch in float64 as the reference, batches 2 and 7, inputs that are
    uniform, zero and large, extended optimisations, and layers held to 1e-5. `sizes` are further
    shapes of inputs, the batch not counted, for a model whose sizes are free.

    `module` takes the file's inputs in their order and is run in inference mode; it has to be
    float32 on the CPU. Where it is the network with something around it, `weights` is the network,
    `feeds` makes the file's inputs for a batch, and `renamed` says what tensors of the graph are
    called in the file.

    Raises `VerificationFailure` on the first of these that fails; differences above 1e-4 fail,
    unless torch's own float32 is as far from its float64, and the message names the first layer
    that differs.
    """
    start = perf_counter()
    say = progress or say_nothing
    proof = _Proof(Model(model), graph, module, weights or module, renamed or {}, say)
    say("the checker and inferred shapes")
    well_formed(proof.model, full=False)
    shapes = compare_shapes(proof.model, graph, proof.names)
    well_formed(proof.model, full=True)
    own = batch_of(proof.model)
    batches = _BATCHES[thorough] if own is None else (own,)
    trials = [Trial(graph, batch, seed, given=feeds) for batch in batches]
    if thorough == "full" and feeds is None:
        others = [name for name in DISTRIBUTIONS if name != trials[0].inputs]
        trials += [Trial(graph, own or _OTHERS_BATCH, seed, name) for name in others]
    trials += [Trial(graph, own or _SIZES_BATCH, seed, sizes=each) for each in sizes]
    with inference_mode(module), inference_mode(proof.weights):
        comparisons = proof.outputs(trials, _TRIED[thorough], exact=thorough == "full")
        trial = max(trials[:2], key=lambda each: each.batch)
        if activation_bytes(graph, trial.batch) > _ROOM:
            trial = trials[0]
        layers = proof.layers(trial, _LAYER_LIMITS[thorough])
    return Verification(
        thorough,
        proof.model.opset,
        shapes,
        tuple(comparisons),
        layers,
        trial.batch,
        perf_counter() - start,
    )


def say_nothing(_what: str) -> None:
    """For whoever does not want to be told."""


def file_names(graph: Graph, renamed: Mapping[str, str]) -> dict[int, str]:
    """The file's name of each value that inference computes."""
    return {value: renamed.get(name, name) for value, name in tensor_names(graph).items()}


class _Proof:
    """One model, what it has to be equal to, and what was computed of that."""

    def __init__(
        self,
        model: Model,
        graph: Graph,
        module: nn.Module,
        weights: nn.Module,
        renamed: Mapping[str, str],
        say: Progress,
    ) -> None:
        self.model = model
        self.graph = graph
        self.module = module
        self.weights = weights
        self.names = file_names(graph, renamed)
        self.say = say

    # ------------------------------------------------------------------------------- outputs

    def outputs(
        self, trials: Sequence[Trial], levels: Iterable[Level], *, exact: bool
    ) -> list[Comparison]:
        """Compare the outputs of each trial at each level, one session at a time."""
        single = [self._reference(trial, torch.float32) for trial in trials]
        double = [self._reference(trial, torch.float64) for trial in trials] if exact else None
        found: list[Comparison] = []
        for level in levels:
            self.say(f"ONNX Runtime {optimisations(level)}")
            with refusals_told(self.model, trials[0].feeds(), level):
                source = self.model.path or self.model.read()
                runtime = session(source, optimise=LEVELS[level])
            for at, trial in enumerate(trials):
                self.say(f"ONNX Runtime {optimisations(level)}, {trial}")
                feeds = trial.feeds()
                with refusals_told(self.model, feeds, level):
                    results = runtime.run(None, feeds)
                wide = double[at] if double is not None else None
                found += self._compared(trial, level, results, single[at], wide)
        return found

    def _reference(self, trial: Trial, dtype: torch.dtype) -> list[AnyArray]:
        self.say(f"torch in {str(dtype).removeprefix('torch.')}, {trial}")
        return torch_outputs(self.module, trial.feeds(), dtype)

    def _compared(
        self,
        trial: Trial,
        level: Level,
        results: Sequence[AnyArray],
        single: Sequence[AnyArray],
        double: Sequence[AnyArray] | None,
    ) -> Iterator[Comparison]:
        names = [output.name for output in self.model.outline.graph.output]
        if len(single) != len(results):
            raise VerificationFailure(
                f"the model has {len(results)} outputs, torch gives {len(single)}"
            )
        for at, (name, ours, theirs) in enumerate(zip(names, results, single, strict=True)):
            found = measured(ours, theirs)
            wide = double[at] if double is not None else None
            if wide is None and found.comparable and found.relative > FAIL_ABOVE:
                wide = self._reference(trial, torch.float64)[at]
            own = measured(theirs, wide) if wide is not None else None
            against = measured(ours, wide) if wide is not None else None
            self._judge(trial, level, name, found, against, own)
            rounding = own.relative if own is not None and own.comparable else None
            yield _comparison(trial, level, name, ours, theirs, found, rounding)
            if double is not None and against is not None:
                yield _comparison(trial, level, name, ours, double[at], against, rounding)

    def _judge(
        self,
        trial: Trial,
        level: Level,
        name: str,
        found: Difference,
        against: Difference | None,
        own: Difference | None,
    ) -> None:
        """Fail on a difference that float32 does not account for.

        Where inputs are such that float32 itself is far off, in torch too, float64 says who is
        right: the file may be ten times as far from it as torch is.
        """
        fine = found.relative <= FAIL_ABOVE
        if against is not None and own is not None and own.comparable:
            allowed = FAIL_ABOVE * against.scale + ROUNDINGS * own.absolute
            fine = against.absolute <= allowed
        if fine and found.comparable:
            return
        path, place = self._first_divergent(trial, level)
        by = f"by {found.relative:.1e} of its largest value" if found.comparable else "altogether"
        raise VerificationFailure(
            f"output `{name}` differs from torch {by} at {trial}, {optimisations(level)}{place}",
            path=path,
        )

    def _first_divergent(self, trial: Trial, level: Level) -> tuple[str | None, str]:
        """The first layer that differs at that level, and what the message says of it."""
        if trial.sizes is not None:
            return None, ""  # the graph knows its layers at one size only
        layers = LayerWise(
            self.model, self.graph, Evaluation(self.graph, stored(self.weights)), self.names
        )
        suspect: LayerComparison | None = None
        for layer in layers.compare(trial.feeds(), level, REPORT_ABOVE):
            if layer.fails and (suspect is None or layer.difference > FAIL_ABOVE):
                suspect = layer
                if layer.difference > FAIL_ABOVE:
                    break
        if suspect is None:
            return None, "; every layer by itself is equal"
        return suspect.path, f"; the first layer that differs is `{suspect.path}`{_with(suspect)}"

    # -------------------------------------------------------------------------------- layers

    def layers(self, trial: Trial, limit: float) -> tuple[LayerComparison, ...]:
        """Compare each layer by itself, without optimisations."""
        self.say(f"every layer by itself, {trial}")
        evaluation = Evaluation(self.graph, stored(self.weights))
        layers = LayerWise(self.model, self.graph, evaluation, self.names)
        found = []
        for layer in layers.compare(trial.feeds(), "none", limit):
            if layer.fails:
                by = f" by {layer.difference:.1e}" if layer.difference < 1 else ""
                raise VerificationFailure(
                    f"`{layer.path}`{_with(layer)} differs from torch{by}, though too little for "
                    "the outputs to show",
                    path=layer.path,
                )
            found.append(layer)
        return tuple(found)


def _with(layer: LayerComparison) -> str:
    """Names layers that the file has no tensor for, and so are compared with this one."""
    return f" (together with {listed(layer.along[:3])})" if layer.along else ""


def _comparison(
    trial: Trial,
    level: Level,
    name: str,
    ours: AnyArray,
    theirs: AnyArray,
    found: Difference,
    rounding: float | None,
) -> Comparison:
    top1 = None
    scores = theirs.ndim == 2 and theirs.shape[1] > 1 and theirs.dtype.kind == "f"
    if scores and not found.silent:
        agreeing = first_choices(ours, theirs, REPORT_ABOVE * found.scale)
        top1 = Choices(agreeing, len(theirs))
    return Comparison(
        output=name,
        batch=trial.batch,
        inputs=trial.inputs if trial.given is None else "images",
        size=trial.size,
        level=level,
        reference="float32" if theirs.dtype.itemsize < 8 else "float64",
        difference=found.relative,
        absolute=found.absolute,
        silent=found.silent,
        rounding=rounding,
        top1=top1,
    )
