"""A finding: a diagnostic about an entry, before it is placed and folded with its likes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from cnnspec.diagnostics import Diagnostic, Note
from cnnspec.ir import Graph, Node
from cnnspec.passes.sites import Kind, Sites

__all__ = ["Finding", "by_kind", "folded"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A diagnostic without its context, and where it was found."""

    diagnostic: Diagnostic
    path: str
    node: Node


def by_kind(
    graph: Graph, found: Sites, check: Callable[[Kind], Diagnostic | None]
) -> Iterator[Finding]:
    """What `check` says of each kind of node, for every node of that kind."""
    answers = [check(kind) for kind in found.kinds]
    if not any(answers):
        return
    for node, kind in zip(graph.nodes, found.of, strict=True):
        answer = answers[kind]
        if answer is not None:
            yield Finding(answer, node.path, node)


def folded(findings: Iterable[Finding]) -> tuple[Diagnostic, ...]:
    """Diagnostics with their place and context; one for all findings alike of one entry's text."""
    alike: dict[tuple[object, ...], list[Finding]] = {}
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
