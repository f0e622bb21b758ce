"""`init:` from tree to `Init`: how weights start, by weight name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnnspec.diagnostics import Reject, did_you_mean
from cnnspec.frontend import tree
from cnnspec.weights import INITIALISERS, Init, constant

if TYPE_CHECKING:
    from cnnspec.frontend.reading import Reader

__all__ = ["read_init"]


def read_init(reader: Reader, node: tree.Node) -> tuple[tuple[tree.Scalar, Init], ...]:
    """`{weight: {kaiming_normal: {mode: fan_out}}, bias: 0}`: an initialiser for each weight.

    A number means that constant; a word is an initialiser of torch.nn.init with its defaults.
    """
    mapping = reader.mapping(node, "`init`")
    found: list[tuple[tree.Scalar, Init]] = []
    for weight, value in mapping.items if mapping else ():
        init = _init(reader, weight, value)
        if init is not None:
            found.append((weight, init))
    return tuple(found)


def _init(reader: Reader, weight: tree.Scalar, node: tree.Node) -> Init | None:
    if isinstance(node, tree.Scalar):
        value = reader.literal(node)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return constant(value)
        return _named(reader, node, ())
    if isinstance(node, tree.Mapping) and len(node.items) == 1:
        kind, body = node.items[0]
        arguments = reader.mapping(body, f"the arguments of `{kind.text}`")
        return _named(reader, kind, arguments.items) if arguments else None
    reader.error("wrong-kind", f"`{weight.text}` must be a number or one initialiser", node)
    return None


def _named(
    reader: Reader, kind: tree.Scalar, arguments: tuple[tuple[tree.Scalar, tree.Node], ...]
) -> Init | None:
    slots = INITIALISERS.get(kind.text)
    if slots is None:
        reader.error(
            "unknown-initialiser",
            f"there is no initialiser `{kind.text}`",
            kind,
            help=did_you_mean(kind.text, INITIALISERS),
        )
        return None
    given: list[tuple[str, float | str]] = []
    for name, value in arguments:
        if name.text not in slots:
            reader.error(
                "unknown-argument",
                f"`{kind.text}` has no argument `{name.text}`",
                name,
                help=did_you_mean(name.text, slots),
            )
            return None
        try:
            given.append((name.text, slots[name.text].accept(reader.plain(value), 1)))
        except Reject as reject:
            reject.message = f"`{name.text}` {reject.message}"
            reader.problems.add(reject.located(value.span))
            return None
    if kind.text == "constant" and not given:
        reader.error("missing-argument", "`constant` needs `val`", kind)
        return None
    return Init(kind.text, tuple(given))
