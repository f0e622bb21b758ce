"""What an ONNX file is, as people and programs read it: lines, and the JSON document.

Also of files that cnnspec did not make, with what they say. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cnnspec.diagnostics import quantity
from cnnspec.metadata import ModelMetadata, Preprocess
from cnnspec.report.numbers import binary_size, exact
from cnnspec.report.styled import Line, display_width, fit, visible
from cnnspec.runtime.model_file import ModelFile, Port

__all__ = ["FORMAT", "document", "lines"]

FORMAT = 1
"""Number of the JSON document's format."""

_GAP = "  "
_LONGEST = 200
_MOST_LABELS = 12
_IN_GRAPH = {
    "none": "before the network",
    "normalize": "resized and cropped before the network, normalised in it",
    "full": "in the network",
}


def lines(model: ModelFile, width: int) -> Iterator[Line]:
    """What a file is, a fact or several in a line, for `width` columns."""
    about = model.metadata
    yield [
        (visible(about.name if about else model.path.name), "bold"),
        (f"  {visible(str(model.path))}", "dim"),
    ]
    yield []
    facts = list(_facts(model))
    names = max(len(name) for name, _ in facts)
    for name, told in facts:
        for position, text in enumerate(_wrapped(told, width - names - len(_GAP))):
            yield [(f"{'' if position else name:<{names}}", "bold"), (_GAP + text, "")]


def _facts(model: ModelFile) -> Iterator[tuple[str, Sequence[str]]]:
    """Names of facts, and what to say in pieces that lines break between."""
    about = model.metadata
    made = f"by {_cut(model.producer)}" if model.producer else "nobody says by what"
    yield (
        "file",
        (binary_size(model.size), f"ONNX IR {model.ir_version}", _opsets(model.opsets), made),
    )
    for path in model.external:
        yield "weights in", (visible(str(path)),)
    for name, ports in (("input", model.inputs), ("output", model.outputs)):
        for port in ports:
            yield name, (_port(port),)
    total = sum(model.nodes.values())
    counted = [f"{count} {_cut(name)}" for name, count in model.nodes.items()]
    yield "nodes", (f"{exact(total)}: {counted[0]}", *counted[1:]) if counted else ("none",)
    yield "stored", [_stored(*each) for each in model.stored.items()] or ("nothing",)
    if about is None:
        yield "cnnspec", ("nothing: the file was made by something else",)
        for key, value in model.properties.items():
            yield "says", (f"{_cut(key)}: {_cut(value)}",)
        return
    yield "precision", (about.precision,)
    yield "preprocess", _preprocess(about)
    yield "labels", _labels(about.labels)
    if about.softmax:
        yield "softmax", ("in the file: probabilities come out",)
    yield "spec", (f"sha256 {about.spec_sha256[:16]}, as it was exported",)
    yield (
        "weights",
        (
            f"sha256 {about.weights_sha256[:16]} before folding",
            f"{about.tensors_sha256[:16]} as stored",
            "as they were exported",
        ),
    )
    versions = [f"{_cut(name)} {_cut(number)}" for name, number in about.versions.items()]
    yield "made with", versions or ("nobody says what",)


def _opsets(opsets: Mapping[str, int]) -> str:
    own = [
        f"opset {number}" if name == "ai.onnx" else f"{_cut(name)} {number}"
        for name, number in opsets.items()
    ]
    return ", ".join(own)


def _port(port: Port) -> str:
    return f"{_cut(port.name)}  {visible(str(port))}  {port.dtype or 'no tensor'}"


def _stored(dtype: str, counts: tuple[int, int, int]) -> str:
    tensors, numbers, size = counts
    return (
        f"{quantity(tensors, 'tensor')} of {exact(numbers)} {dtype or 'unknown'} "
        f"({binary_size(size)})"
    )


def _preprocess(about: ModelMetadata) -> Sequence[str]:
    if about.preprocess is None:
        return ("the spec does not say",)
    return *_steps(about.preprocess), _IN_GRAPH[about.in_graph]


def _steps(said: Preprocess) -> Iterator[str]:
    if isinstance(said.resize, tuple):
        yield f"resize to {said.resize[0]}x{said.resize[1]} ({said.interpolation})"
    elif said.resize is not None:
        yield f"resize the shorter side to {said.resize} ({said.interpolation})"
    if said.crop is not None:
        yield f"crop {said.crop[0]}x{said.crop[1]}"
    yield said.colour
    yield "scale 1/255" if said.scale == 1 / 255 else f"scale {said.scale:g}"
    yield f"mean {_numbers(said.mean)}"
    yield f"std {_numbers(said.std)}"


def _numbers(numbers: Iterable[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _labels(labels: Sequence[str] | None) -> Sequence[str]:
    if not labels:
        return ("none",)
    shown = [_cut(label) for label in labels[:_MOST_LABELS]]
    rest = len(labels) - len(shown)
    return f"{exact(len(labels))}: {shown[0]}", *shown[1:], *([f"{rest} more"] if rest else [])


def _cut(text: str) -> str:
    return fit(visible(text), _LONGEST)


def _wrapped(pieces: Iterable[str], width: int) -> list[str]:
    """Pieces with commas between them, as many as fit in each line."""
    pieces = list(pieces)
    found = [pieces[0]]
    for piece in pieces[1:]:
        grown = f"{found[-1]}, {piece}"
        if display_width(grown) < width:
            found[-1] = grown
        else:
            found[-1] += ","
            found.append(piece)
    return found


# ---------------------------------------------------------------------------------------- document


def document(model: ModelFile) -> dict[str, Any]:
    """The document of `cnnspec info --format json`, format 1, without the analysis.

    `cnnspec` is what the file says about itself, null where cnnspec did not make it; the spec and
    its hash are in it.
    """
    return {
        "format": FORMAT,
        "model": str(model.path),
        "size": model.size,
        "external": [str(path) for path in model.external],
        "sha256": model.sha256(),
        "ir_version": model.ir_version,
        "opsets": dict(model.opsets),
        "producer": model.producer,
        "inputs": [_port_document(port) for port in model.inputs],
        "outputs": [_port_document(port) for port in model.outputs],
        "nodes": dict(model.nodes),
        "stored": [
            {"dtype": dtype, "tensors": tensors, "numbers": numbers, "bytes": size}
            for dtype, (tensors, numbers, size) in model.stored.items()
        ],
        "properties": dict(model.properties),
        "cnnspec": model.metadata.to_dict() if model.metadata else None,
    }


def _port_document(port: Port) -> dict[str, Any]:
    shape = None if port.shape is None else list(port.shape)
    return {"name": port.name, "dtype": port.dtype or None, "shape": shape}
