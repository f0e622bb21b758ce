"""Windows that leave input unread, do not fit, or are larger than what they look at."""

from __future__ import annotations

from collections.abc import Iterator

from cnnspec.diagnostics import Diagnostic, Note, error, quantity, warning
from cnnspec.geometry import AlsoEverything, View, Window, kernel_extent
from cnnspec.ir import Graph
from cnnspec.passes.facts import Facts, Options
from cnnspec.passes.lint.finding import Finding, by_kind
from cnnspec.passes.sites import Kind, Sites

__all__ = ["kernel_exceeds_input", "skipped_positions", "unread_rows"]


def unread_rows(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Rows at the end that no window reads; with `Options.strict` every remainder, as an error."""
    check = _does_not_fit if facts[Options].strict else _unread_rows
    return by_kind(graph, facts[Sites], check)


def kernel_exceeds_input(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Kernels that cover more than the whole input."""
    return by_kind(graph, facts[Sites], _kernel_exceeds_input)


def skipped_positions(graph: Graph, facts: Facts) -> Iterator[Finding]:
    """Windows with steps so wide that what lies between them is never read."""
    return by_kind(graph, facts[Sites], _skipped_positions)


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


def _skipped_positions(kind: Kind) -> Diagnostic | None:
    for x, look in zip(kind.at.inputs, kind.looks[0] if kind.looks else (), strict=False):
        windows = [] if look is None else [(axis, view) for axis, (_, view) in enumerate(look)]
        kept = [(x.roles[axis], _share_read(view)) for axis, view in windows]
        sparse = [(role, share) for role, share in kept if role.spatial and share is not None]
        if sparse:
            facts = [_skipped(role, *share) for role, share in sparse]
            return warning(
                "skipped-positions",
                facts[0],
                label=f"the input is {x}",
                notes=[Note(fact) for fact in facts[1:]],
                help="a kernel at least as large as the stride, or a pooling before it, reads all",
            )
    return None


def _share_read(view: View) -> tuple[int, int] | None:
    """How many of how many positions a window reads, where it leaves some out between steps."""
    if not isinstance(view, Window):
        return None
    read = len({tap * view.dilation % view.stride for tap in range(min(view.kernel, view.stride))})
    return (read, view.stride) if read < view.stride else None


def _skipped(role: str, read: int, stride: int) -> str:
    count = "only one is" if read == 1 else f"only {read} are"
    return f"of every {stride} positions along {role} {count} read"
