"""`expect:` against a report: what the author states, verified figure by figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cnnspec.diagnostics import Diagnostic, did_you_mean, error, listed, shape_text
from cnnspec.frontend import tree
from cnnspec.ir import Scope
from cnnspec.report.model import Report

__all__ = ["unmet"]


def unmet(
    report: Report, expect: tree.Mapping, name: str, variants: Sequence[str]
) -> list[Diagnostic]:
    """What is expected and does not hold, one diagnostic for each figure.

    `name` is the variant analyzed (the spec's own name for none) and `variants` all of them. Keys
    of `expect` that are metrics state the figures of the spec itself.
    """
    found: list[Diagnostic] = []
    names = set(variants)
    for key, node in expect.items:
        if key.text in names:
            if key.text == name and isinstance(node, tree.Mapping):
                for metric, value in node.items:
                    found.extend(_differences(report, metric, value))
        elif name == variants[0]:
            found.extend(_differences(report, key, node))
    return found


def _differences(report: Report, metric: tree.Scalar, node: tree.Node) -> Iterator[Diagnostic]:
    if metric.text == "output":
        yield from _outputs(report, node)
    elif metric.text == "receptive_field":
        yield from _fields(report, node)
    else:
        actual = getattr(report.totals, metric.text)
        expected = _number(node)
        if expected != actual:
            yield _unmet(f"{metric.text} is {_shown(actual)}", node)


def _unmet(fact: str, node: tree.Node, help: str = "") -> Diagnostic:
    return error("expectation", fact, node.span, label="this is what is expected", help=help)


def _number(node: tree.Node) -> object:
    value = tree.literal(node) if isinstance(node, tree.Scalar) else None
    if isinstance(value, str) and value.replace("_", "").replace(",", "").isdigit():
        return int(value.replace("_", "").replace(",", ""))
    return value


def _shown(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _sizes(node: tree.Node) -> tuple[object, ...]:
    if isinstance(node, tree.Sequence):
        return tuple(_number(item) for item in node.items)
    return (_number(node),)


def _outputs(report: Report, node: tree.Node) -> Iterator[Diagnostic]:
    shapes = {**report.outputs, **report.training_outputs}
    if isinstance(node, tree.Mapping):
        for key, value in node.items:
            if key.text not in shapes:
                yield error(
                    "expectation",
                    f"there is no output `{key.text}`",
                    key.span,
                    help=did_you_mean(key.text, shapes) or f"outputs are {listed(shapes)}",
                )
            elif _sizes(value) != shapes[key.text]:
                yield _unmet(f"`{key.text}` is {shape_text(shapes[key.text])}", value)
        return
    first, shape = next(iter(shapes.items()))
    if _sizes(node) != shape:
        sizes = ", ".join(map(str, shape))
        help = f"sizes are a list: `[{sizes}]`" if isinstance(node, tree.Scalar) else ""
        yield _unmet(f"output `{first}` is {shape_text(shape)}", node, help)


def _fields(report: Report, node: tree.Node) -> Iterator[Diagnostic]:
    if isinstance(node, tree.Mapping):
        scopes = {scope.path: scope for scope in _scopes(report.graph.root)}
        for key, value in node.items:
            number = _value_at(report, key.text, scopes)
            if number is None:
                near = did_you_mean(key.text, [*report.graph.by_path, *scopes])
                yield error("expectation", f"there is no layer `{key.text}`", key.span, help=near)
            else:
                yield from _field(report, number, f"the field of `{key.text}`", value)
        return
    layer = report.last_local
    if layer is None:
        yield _unmet("no layer has a receptive field", node)
        return
    output = report.graph.by_path[layer.path].outputs[0]
    yield from _field(report, output, f"the field of `{layer.path}`", node)


def _value_at(report: Report, path: str, scopes: dict[str, Scope]) -> int | None:
    node = report.graph.by_path.get(path)
    if node is not None:
        return node.outputs[0]
    scope = scopes.get(path)
    return scope.outputs[0][1] if scope is not None and scope.outputs else None


def _field(report: Report, value: int, what: str, node: tree.Node) -> Iterator[Diagnostic]:
    fields = report.fields_of(value) or ()
    sizes = tuple(axis.field.size for axis in fields)
    expected = _sizes(node)
    if len(expected) == 1:
        expected *= len(sizes)
    if not sizes or expected != sizes:
        shown = shape_text([size for size in dict.fromkeys(sizes) if size is not None])
        yield _unmet(f"{what} is {shown if sizes else 'unavailable'}", node)


def _scopes(root: Scope) -> Iterator[Scope]:
    stack = [root]
    while stack:
        scope = stack.pop()
        for member in scope.members:
            if isinstance(member, Scope):
                yield member
                stack.append(member)
