"""`init:`: how weights start, from tree to `Init`, and which one a weight gets."""

from __future__ import annotations

from cnnspec.diagnostics import did_you_mean, error, listed
from cnnspec.frontend import tree
from cnnspec.frontend.arguments import Arguments
from cnnspec.frontend.document import Document, Entry, Written
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reading import Reader, StaticScope
from cnnspec.frontend.values import Env, Fault
from cnnspec.op import Op, Site
from cnnspec.weights import INITIALISERS, Init, constant

__all__ = ["Initialisers", "read_init"]


def read_init(
    reader: Reader, node: tree.Node, scope: StaticScope
) -> tuple[tuple[tree.Scalar, Init | Written], ...]:
    """`{weight: {kaiming_normal: {mode: fan_out}}, bias: 0}`: an initialiser for each weight.

    A number means that constant; a word is an initialiser of torch.nn.init with its defaults.
    """
    mapping = reader.mapping(node, "`init`")
    found: list[tuple[tree.Scalar, Init | Written]] = []
    for weight, value in mapping.items if mapping else ():
        init = _init(reader, weight, value, scope)
        if init is not None:
            found.append((weight, init))
    return tuple(found)


def _init(
    reader: Reader, weight: tree.Scalar, node: tree.Node, scope: StaticScope
) -> Init | Written | None:
    if isinstance(node, tree.Scalar):
        value = reader.literal(node)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return constant(value)
        return _named(reader, node, (), scope)
    if isinstance(node, tree.Mapping) and len(node.items) == 1:
        kind, body = node.items[0]
        arguments = reader.mapping(body, f"the arguments of `{kind.text}`")
        return _named(reader, kind, arguments.items, scope) if arguments else None
    reader.error("wrong-kind", f"`{weight.text}` must be a number or one initialiser", node)
    return None


def _named(
    reader: Reader,
    kind: tree.Scalar,
    arguments: tuple[tuple[tree.Scalar, tree.Node], ...],
    scope: StaticScope,
) -> Written | None:
    slots = INITIALISERS.get(kind.text)
    if slots is None:
        reader.error(
            "unknown-initialiser",
            f"there is no initialiser `{kind.text}`",
            kind,
            help=did_you_mean(kind.text, INITIALISERS),
        )
        return None
    for name, value in arguments:
        if name.text not in slots:
            reader.error(
                "unknown-argument",
                f"`{kind.text}` has no argument `{name.text}`",
                name,
                help=did_you_mean(name.text, slots),
            )
            return None
        if not reader.fits(value, slots[name.text], 1, name.text, scope):
            return None
    if kind.text == "constant" and not arguments:
        reader.error("missing-argument", "`constant` needs `val`", kind)
        return None
    return Written(kind.text, arguments)


class Initialisers:
    """Chooses initialisers: those of the file for an operation, then an entry's own."""

    def __init__(self, problems: Problems, arguments: Arguments) -> None:
        self.problems = problems
        self.arguments = arguments
        self._met: dict[str, set[str]] = {}

    def of(self, entry: Entry, op: Op, site: Site, env: Env) -> tuple[tuple[str, Init], ...]:
        """The initialisers of one op's weights that are not its defaults. Raises `Fault`."""
        for_op = env.document.init.get(op.name, ())
        if not entry.init and not for_op:
            return ()
        weights = op.weights(site)
        file = self.arguments.file(env)
        chosen = {key.text: self._value(init, file) for key, init in for_op if key.text in weights}
        self._met.setdefault(op.name, set()).update(chosen)
        for key, init in entry.init:
            if key.text not in weights:
                help = did_you_mean(key.text, weights)
                if weights and not help:
                    help = f"its weights are {listed(weights)}"
                message = f"`{op.name}` has no weight `{key.text}` here"
                raise Fault(error("unknown-weight", message, key.span, help=help))
            chosen[key.text] = self._value(init, env)
        return tuple(chosen.items())

    def _value(self, init: Init | Written, env: Env) -> Init:
        """An initialiser with the values of its arguments. Raises `Fault`."""
        if isinstance(init, Init):
            return init
        slots = INITIALISERS[init.kind]
        found: list[tuple[str, float | str]] = []
        for name, node in init.arguments:
            value = self.arguments.evaluator.argument(node, slots[name.text], 1, name.text, env)
            assert isinstance(value, (int, float, str))  # what slots of initialisers accept
            found.append((name.text, value))
        return Init(init.kind, tuple(found))

    def finish(self, document: Document) -> None:
        """Report weights that the file's `init` names and no entry of the operation has."""
        for name, met in self._met.items():
            for key, _ in document.init.get(name, ()):
                if key.text not in met:
                    message = f"no `{name}` of this network has a weight `{key.text}`"
                    help = did_you_mean(key.text, met | {"weight", "bias"})
                    self.problems.add(error("unknown-weight", message, key.span, help=help))
