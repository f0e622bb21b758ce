"""What is legal in a network and yet probably not meant.

One function a code; each finding is about an entry, at its place in the spec. An entry that a loop
wrote out many times is reported once. Nothing here knows an op's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cnnspec.diagnostics import Diagnostic, Note, error, quantity, warning
from cnnspec.geometry import AlsoEverything, Window, kernel_extent
from cnnspec.ir import Graph, Node, Scope
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.sites import Kind, Sites
from cnnspec.source import Span

__all__ = ["Lint", "lint"]


@dataclass(frozen=True, slots=True)
class Lint:
    """Findings in the order of the spec's text."""

    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class _Finding:
    """A diagnostic without its context, and where it was found."""

    diagnostic: Diagnostic
    path: str
    node: Node


def lint(graph: Graph, facts: Facts) -> Lint:
    """Look for input that goes unread, kernels larger than their input, and dead entries."""
    found = facts[Sites]
    check = _does_not_fit if facts[Options].strict else _unread_rows
    findings = [
        *_by_kind(graph, found, check),
        *_by_kind(graph, found, _kernel_exceeds_input),
        *_dead_entries(graph),
    ]
    return Lint(_folded(findings))


_Check = Callable[[Kind], Diagnostic | None]


def _by_kind(graph: Graph, found: Sites, check: _Check) -> Iterator[_Finding]:
    answers = [check(kind) for kind in found.kinds]
    if not any(answers):
        return
    for node, kind in zip(graph.nodes, found.of, strict=True):
        answer = answers[kind]
        if answer is not None and answer.code not in node.allow:
            yield _Finding(answer, node.path, node)


def _unread_rows(kind: Kind) -> Diagnostic | None:
    x = kind.at.inputs[0] if kind.at.inputs else None
    lost = [(axis, rows) for axis, rows, _ in kind.op.unread(kind.at) if rows > 0]
    if x is None or not lost:
        return None
    facts = [_unread(x.roles[axis], x.shape[axis], rows) for axis, rows in lost]
    return warning(
        "unread-rows",
        facts[0],
        label=f"the input is {x}",
        notes=[Note(fact) for fact in facts[1:]],
        help="pad the input so that the stride divides it, or say `allow: [unread-rows]`",
    )


def _unread(role: str, extent: int, rows: int) -> str:
    first, last = extent - rows, extent - 1
    which = f"position {last}" if rows == 1 else f"positions {first} to {last}"
    verb = "is" if rows == 1 else "are"
    count = "the last" if rows == 1 else f"the last {rows}"
    return f"along {role} {count} of {extent} ({which}, counted from 0) {verb} never read"


def _does_not_fit(kind: Kind) -> Diagnostic | None:
    left = [(axis, remainder) for axis, _, remainder in kind.op.unread(kind.at)]
    if not left:
        return None
    x = kind.at.x
    facts = [
        f"the stride does not fit: along {x.roles[axis]} of {x.shape[axis]}, "
        f"{quantity(remainder, 'position')} of the padded input {_are(remainder)} left over"
        for axis, remainder in left
    ]
    return error(
        "does-not-fit",
        facts[0],
        label=f"the input is {x}",
        notes=[Note(fact) for fact in facts[1:]],
        help="change padding, stride or the input's size, or leave out `--strict` to round down",
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _kernel_exceeds_input(kind: Kind) -> Diagnostic | None:
    for x, look in zip(kind.at.inputs, kind.looks[0] if kind.looks else (), strict=False):
        if look is None:
            continue
        for axis, (role, extent) in enumerate(zip(x.roles, x.shape, strict=True)):
            view = look[axis][1]
            if isinstance(view, AlsoEverything):
                view = view.local
            if not role.spatial or not isinstance(view, Window):
                continue
            covers = kernel_extent(view.kernel, view.dilation)
            if covers > extent:
                return warning(
                    "kernel-exceeds-input",
                    f"the kernel covers {covers} along {role}, but the input has {extent} "
                    "without its padding",
                    label=f"the input is {x}",
                    help="no window lies within the input: use a smaller kernel or a larger input",
                )
    return None


def _dead_entries(graph: Graph) -> Iterator[_Finding]:
    """One finding for each connected group of dead nodes, at the entry with which it begins."""
    dead = [node for node in graph.nodes if node.index not in graph.used]
    if not dead:
        return
    group = {node.index: node.index for node in dead}

    def head(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for node in dead:
        for value in node.inputs:
            producer = graph.producers[value]
            if producer in group:
                one, other = sorted((head(node.index), head(producer)))
                group[other] = one
    sizes: dict[int, int] = {}
    for node in dead:
        sizes[head(node.index)] = sizes.get(head(node.index), 0) + 1
    for index, size in sizes.items():
        node = graph.nodes[index]
        if "dead-entry" in node.allow:
            continue
        path, span, inside = _entry(node, group)
        notes = []
        if size > inside:
            notes.append(Note(f"{quantity(size - inside, 'operation')} after it also lead nowhere"))
        yield _Finding(
            warning(
                "dead-entry",
                f"no output depends on `{path}`",
                span,
                notes=notes,
                help="list it under `outputs`, join it to the network, or remove it",
            ),
            path,
            node,
        )


def _entry(node: Node, dead: dict[int, int]) -> tuple[str, Span, int]:
    """The outermost call or Sequential that is dead as a whole and begins with `node`.

    Returns its path, its span, and how many operations it holds.
    """
    entry: tuple[str, Span, int] = (node.path, node.span, 1)
    scope: Scope | None = node.scope
    while scope is not None and scope.parent is not None:
        if next(scope.nodes()) != node.index or not all(index in dead for index in scope.nodes()):
            break
        if not scope.inline:
            entry = (scope.path, scope.span, sum(1 for _ in scope.nodes()))
        scope = scope.parent
    return entry


def _folded(findings: list[_Finding]) -> tuple[Diagnostic, ...]:
    """Diagnostics with their place and context; one for all findings alike of one entry's text."""
    alike: dict[tuple[object, ...], list[_Finding]] = {}
    for finding in findings:
        span = finding.diagnostic.span or finding.node.span
        where = (span.source.name, span.line, span.column, finding.diagnostic.code)
        alike.setdefault(where, []).append(finding)
    found = []
    for same in alike.values():
        first = same[0]
        notes = list(first.diagnostic.notes)
        if len(same) > 1:
            notes.append(Note(f"in `{first.path}` and {len(same) - 1} more written by this entry"))
        notes.extend(_calls(first.node))
        d = first.diagnostic
        span = d.span or first.node.span
        found.append(Diagnostic(d.severity, d.code, d.message, span, d.label, tuple(notes), d.help))
    return tuple(sorted(found, key=_place))


def _place(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    span = diagnostic.span
    assert span is not None  # every finding is about an entry
    return span.source.name, span.line, span.column, diagnostic.code


def _calls(node: Node) -> Iterator[Note]:
    """The chain of block calls that wrote the node, innermost first."""
    for frame in node.frame.chain() if node.frame else ():
        loops = "".join(f", {name} = {value}" for name, value in frame.loops)
        yield Note(f"in `{frame.block}`, called at {frame.span}{loops}", frame.span)
