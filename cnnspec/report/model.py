"""The report on a network: totals, a row for every layer, warnings; all as plain, frozen values.

`analyze` makes it from a graph. `to_dict` is the stable JSON document (format 1): keys may be
added, never renamed. Layout for people is in `table`, `csv`, `markdown`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cnnspec.collector import collector_paused
from cnnspec.diagnostics import (
    Diagnostic,
    EnvironmentFailure,
    SpecError,
    did_you_mean,
    shape_text,
)
from cnnspec.ir import Graph
from cnnspec.op import Ops
from cnnspec.passes import Facts, Options, run
from cnnspec.passes.connections import Wiring
from cnnspec.passes.cost import NO_OPS, Cost
from cnnspec.passes.lint import Lint
from cnnspec.passes.memory import Memory, Peak, sizes_of
from cnnspec.passes.receptive_field import Fields
from cnnspec.passes.sites import Sites
from cnnspec.passes.traffic import Traffic
from cnnspec.passes.training import Training
from cnnspec.passes.weights import NOTHING_STORED, Weights
from cnnspec.report.numbers import binary_size, exact, short
from cnnspec.report.records import (
    Figures,
    InputField,
    Layer,
    Moment,
    Status,
    Totals,
    TrainingMemory,
    intensity,
)
from cnnspec.report.render import diagnostic_document

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = [
    "Figures",
    "InputField",
    "Layer",
    "Moment",
    "Report",
    "Status",
    "Totals",
    "TrainingMemory",
    "analyze",
    "intensity",
]


_TRAINING_IS_PARTIAL = (
    "what backward keeps is that of torch's CUDA kernels; their temporaries are not in it"
)


@dataclass(frozen=True, eq=False)
class Report:
    """Everything that is known about a network without running it.

    `report.totals.macs`, `report["features.0"].output_shape`, `report.layers`, `report.warnings`.
    """

    graph: Graph
    facts: Facts
    spec_warnings: tuple[Diagnostic, ...] = ()
    """What was found about the spec's text before there was a graph."""

    @property
    def name(self) -> str:
        """The network's name."""
        return self.graph.name

    @cached_property
    def inputs(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the network's inputs, batch not counted."""
        tensors = self.graph.tensors
        return {name: tensors[value].shape for name, value in self.graph.inputs.items()}

    @cached_property
    def outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the outputs of inference."""
        return self._outputs(training=False)

    @cached_property
    def training_outputs(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes of the outputs that only training has."""
        return self._outputs(training=True)

    def _outputs(self, *, training: bool) -> Mapping[str, tuple[int, ...]]:
        graph = self.graph
        return {
            output.name: graph.tensors[output.value].shape
            for output in graph.outputs
            if output.training is training
        }

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """What is legal and yet probably not meant."""
        return (*self.spec_warnings, *self.facts[Lint].diagnostics)

    @cached_property
    def totals(self) -> Totals:
        """Sums over the inference graph, and over all layers."""
        graph, memory = self.graph, self.facts[Memory]
        everything = range(len(graph.nodes))
        whole = _figures(self.facts, everything, memory.whole.peak)
        if len(graph.inference) == len(graph.nodes):
            return Totals(**whole, training=Figures(**whole))
        inference = _figures(self.facts, sorted(graph.inference), memory.inference.peak)
        return Totals(**inference, training=Figures(**whole))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """One row for each operation, in order of execution, training-only ones included."""
        return _layers(self.graph, self.facts)

    @cached_property
    def _by_path(self) -> Mapping[str, Layer]:
        return {layer.path: layer for layer in self.layers}

    def fields_of(self, value: int) -> tuple[InputField, ...] | None:
        """What a value of the graph sees of each spatial axis of each input; None if nothing."""
        fields = self.facts[Fields]
        return _input_fields(fields, fields.values[value])

    def __getitem__(self, path: str) -> Layer:
        """The layer at `path`; `KeyError` names the nearest path."""
        layer = self._by_path.get(path)
        if layer is None:
            near = did_you_mean(path, self._by_path)
            raise KeyError(f"no layer `{path}`" + (f": {near}" if near else ""))
        return layer

    @cached_property
    def last_local(self) -> Layer | None:
        """The last layer of inference that sees part of an input by position, before all is seen.

        Its field is the receptive field that papers give for a network's feature maps.
        """
        fields = self.facts[Fields].values
        for node in reversed(self.graph.nodes):
            if node.index in self.graph.inference and any(
                (track.field.advance or track.field.tabled) and not track.field.flattened
                for track in fields[node.outputs[0]]
            ):
                return self.layers[node.index]
        return None

    @property
    def options(self) -> Options:
        """What was asked for: `dtype`, `batch`, `optimizer` and more."""
        return self.facts[Options]

    @property
    def peak(self) -> Peak:
        """The moment of inference when most activations are alive."""
        return self.facts[Memory].inference.peak

    @cached_property
    def timeline(self) -> tuple[Moment, ...]:
        """The bytes of activations alive while each layer of inference runs, in order."""
        run, nodes = self.facts[Memory].inference, self.graph.nodes
        steps = zip(run.nodes, run.live, strict=True)
        return tuple([Moment(nodes[index].path, live) for index, live in steps])

    @cached_property
    def peak_tensors(self) -> Mapping[str, int]:
        """The tensors alive at the peak of inference, and their bytes."""
        sizes = sizes_of(self.graph, self.options)
        return {self.graph.value_name(value): sizes[value] for value in self.peak.values}

    @cached_property
    def training_memory(self) -> TrainingMemory:
        """What a training step keeps, part by part; `EnvironmentFailure` for a type without one."""
        step = self.facts[Training].step
        if step is None:
            raise EnvironmentFailure(f"a network in {self.options.dtype} is not trained")
        return TrainingMemory(
            weights=step.weights,
            gradients=step.gradients,
            momentum=step.momentum,
            saved_activations=sum(step.parts),
            buffers=step.buffers,
            optimizer=self.options.optimizer,
            optimizer_state=step.state,
            saved=step.parts._asdict(),
            peak=step.peak,
        )

    @property
    def is_trainable(self) -> bool:
        """Whether the type that was asked for has a training step."""
        return self.options.numbers.floating

    @cached_property
    def status(self) -> Mapping[str, Status]:
        """How far each metric can be trusted."""
        counted = (
            "shapes",
            "params",
            "buffers",
            "macs",
            "flops",
            "connections",
            "activations",
            "peak_activation_bytes",
            "padding_macs",
            "bytes_read",
            "bytes_written",
        )
        training = Status("unavailable", f"a network in {self.options.dtype} is not trained")
        if self.is_trainable:
            training = Status("partial", _TRAINING_IS_PARTIAL)
        return {
            **dict.fromkeys(counted, Status("exact")),
            "training_memory": training,
            "receptive_field": self._field_status(),
        }

    def _field_status(self) -> Status:
        seen = unknown = 0
        first = ""
        fields = self.facts[Fields].values
        for node in self.graph.nodes:
            tracks = fields[node.outputs[0]]
            reason = next((t.field.unavailable for t in tracks if t.field.unavailable), None)
            seen += bool(tracks)
            if reason is not None:
                unknown += 1
                first = first or f"from `{node.path}` on: {reason}"
        if not self.facts[Fields].axes:
            return Status("unavailable", "no input has a spatial axis")
        if unknown == 0:
            return Status("exact")
        return Status("unavailable" if unknown == seen else "partial", first)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document that `cnnspec analyze --format json` prints."""
        return {**self.document(), "layers": [layer.to_dict() for layer in self.layers]}

    def to_dataframe(self) -> DataFrame:
        """The layers as a pandas data frame: see `cnnspec.report.dataframe`."""
        from cnnspec.report.dataframe import to_dataframe

        return to_dataframe(self)

    def document(self) -> dict[str, Any]:
        """The JSON document with `layers` as they are, not yet as dicts."""
        peak = self.peak
        return {
            "format": 1,
            "name": self.name,
            "inputs": _shapes_document(self.inputs),
            "outputs": _shapes_document(self.outputs),
            "training_outputs": _shapes_document(self.training_outputs),
            "options": {
                "dtype": self.options.dtype,
                "batch": self.options.batch,
                "optimizer": self.options.optimizer,
            },
            "totals": self.totals.to_dict(),
            "layers": self.layers,
            "peak": {
                "layer": None if peak.node is None else self.graph.nodes[peak.node].path,
                "tensors": dict(self.peak_tensors),
            },
            "training_memory": self.training_memory.to_dict() if self.is_trainable else None,
            "status": {
                metric: {"status": known.status, **({"why": known.why} if known.why else {})}
                for metric, known in self.status.items()
            },
            "warnings": [diagnostic_document(warning) for warning in self.warnings],
        }

    def _summary(self) -> list[tuple[str, str]]:
        totals = self.totals
        return [
            ("input", ", ".join(f"{n} {shape_text(s)}" for n, s in self.inputs.items())),
            ("output", ", ".join(f"{n} {shape_text(s)}" for n, s in self.outputs.items())),
            ("layers", exact(totals.layers)),
            ("params", exact(totals.params)),
            ("MACs", f"{exact(totals.macs)} ({short(totals.macs)})"),
            ("peak activations", binary_size(totals.peak_activation_bytes)),
        ]

    def __repr__(self) -> str:
        """The figures on one line."""
        facts = "; ".join(f"{what} {value}" for what, value in self._summary())
        return f"<Report {self.name}: {facts}; {len(self.warnings)} warnings>"

    def _repr_html_(self) -> str:
        """The figures as a small table, for notebooks."""
        from html import escape

        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(what)}</th><td>{escape(value)}</td></tr>"
            for what, value in self._summary()
        )
        warned = "".join(f"<li>{escape(warning.message)}</li>" for warning in self.warnings)
        return f"<table><caption>{escape(self.name)}</caption><tbody>{rows}</tbody></table>" + (
            f"<ul>{warned}</ul>" if warned else ""
        )


@collector_paused()
def analyze(
    graph: Graph,
    *,
    strict: bool = False,
    fold: bool = True,
    dtype: str = "float32",
    batch: int = 1,
    optimizer: str = "momentum",
    lint: Iterable[str] = (),
    warnings: Iterable[Diagnostic] = (),
) -> Report:
    """Run all passes over a graph.

    With `strict` sizes that do not fit raise `SpecError`. Without `fold` ops that inference folds
    into a neighbour (batch norm) count as they would alone. `dtype`, `batch` and `optimizer`
    are those of figures in bytes (`cnnspec.passes.options`); `EnvironmentFailure` for one that does
    not exist. `lint` names rules of `cnnspec.passes.lint` that run on request. `warnings` about the
    spec's text become part of the report.
    """
    options = Options(fold, strict, frozenset(lint), dtype, batch, optimizer)
    facts = run(graph, options)
    found = facts[Lint].diagnostics
    if any(diagnostic.severity == "error" for diagnostic in found):
        raise SpecError((*warnings, *found))
    return Report(graph, facts, tuple(warnings))


def _figures(facts: Facts, nodes: Sequence[int], peak: Peak) -> dict[str, Any]:
    """The fields of `Figures`, summed kind by kind where nodes of a kind are alike."""
    charged = facts[Weights].nodes
    stored = [charged[index] for index in nodes if charged[index] != NOTHING_STORED]
    params = sum(s.params for s in stored)
    cost, wiring, activations = facts[Cost].nodes, facts[Wiring].nodes, facts[Memory].nodes
    of = facts[Sites].of
    counts: dict[int, list[int]] = {}
    for index in nodes:
        counts.setdefault(of[index], [index, 0])[1] += 1
    groups = list(counts.values())
    step = facts[Training].step
    padding, traffic = facts[Cost].padding, facts[Traffic].nodes
    read = sum([traffic[index].read * count for index, count in groups])
    written = sum([traffic[index].written * count for index, count in groups])
    ops = sum((_times(cost[index], count) for index, count in groups), NO_OPS)
    return {
        "params": params,
        "trainable_params": sum(s.trainable for s in stored),
        "weights": sum(s.weights for s in stored),
        "biases": sum(s.biases for s in stored),
        "buffers": sum(s.buffers for s in stored),
        "buffer_bytes": sum(s.buffer_bytes for s in stored),
        "macs": ops.mac,
        "flops": ops.flops,
        "ops": ops,
        "connections": sum(wiring[index].connections * count for index, count in groups),
        "connections_with_bias": sum(wiring[index].with_bias * count for index, count in groups),
        "units": sum(wiring[index].units * count for index, count in groups),
        "activations": sum(activations[index].elements * count for index, count in groups),
        "macts": sum(activations[index].macts * count for index, count in groups),
        "padding_macs": sum(padding[index] * count for index, count in groups),
        "bytes_read": read,
        "bytes_written": written,
        "intensity": intensity(ops.flops * facts[Options].batch, read + written),
        "saved_bytes": sum([step.saved[index] for index in nodes]) if step else 0,
        "peak_activation_bytes": peak.bytes,
        "weight_bytes": sum(s.bytes for s in stored),
        "layers": len(nodes),
    }


def _times(ops: Ops, count: int) -> Ops:
    return Ops(
        ops.mac * count,
        ops.add * count,
        ops.mul * count,
        ops.cmp * count,
        ops.div * count,
        ops.exp * count,
    )


@collector_paused()
def _layers(graph: Graph, facts: Facts) -> tuple[Layer, ...]:
    names = _value_names(graph)
    tensors, inference, used = graph.tensors, graph.inference, graph.used
    fields = facts[Fields]
    sees: dict[int, tuple[InputField, ...] | None] = {}
    rows = zip(
        graph.nodes,
        facts[Weights].nodes,
        facts[Cost].nodes,
        facts[Wiring].nodes,
        facts[Memory].nodes,
        facts[Cost].padding,
        facts[Traffic].nodes,
        strict=True,
    )
    run, step, batch = facts[Memory].inference, facts[Training].step, facts[Options].batch
    live = dict(zip(run.nodes, run.live, strict=True))
    sizes = sizes_of(graph, facts[Options])
    layers: list[Layer] = []
    for node, stored, ops, links, activations, padding, moved in rows:
        tracks = fields.values[node.outputs[0]]
        if id(tracks) not in sees:  # most layers hand on the very tuple they got
            sees[id(tracks)] = _input_fields(fields, tracks)
        layers.append(
            Layer(
                node.path,
                node.op.name,
                tuple([names[value] for value in node.inputs]),
                tuple([tensors[value].shape for value in node.outputs]),
                stored.params,
                stored.trainable,
                stored.weights,
                stored.biases,
                stored.buffers,
                ops.mac,
                ops.flops,
                ops,
                links.connections,
                links.with_bias,
                links.units,
                activations.elements,
                activations.macts,
                padding,
                sum([sizes[value] for value in node.outputs]),
                moved.read,
                moved.written,
                live.get(node.index, 0),
                step.saved[node.index] if step else 0,
                intensity(ops.flops * batch, moved.read + moved.written),
                sees[id(tracks)],
                node.span.line,
                node.index not in inference,
                node.index not in used,
            )
        )
    return tuple(layers)


def _input_fields(fields: Fields, tracks: Iterable[Any]) -> tuple[InputField, ...] | None:
    found = []
    for track in tracks:
        axis = fields.axes[track.source]
        found.append(InputField(axis.input, axis.role.value, track.field))
    return tuple(found) or None


def _value_names(graph: Graph) -> list[str]:
    """`Graph.value_name` of every value, in one sweep."""
    names = [""] * len(graph.tensors)
    for name, value in graph.inputs.items():
        names[value] = name
    for node in graph.nodes:
        for position, value in enumerate(node.outputs):
            names[value] = node.path if len(node.outputs) == 1 else f"{node.path}.{position}"
    return names


def _shapes_document(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[int]]:
    return {name: list(shape) for name, shape in shapes.items()}
