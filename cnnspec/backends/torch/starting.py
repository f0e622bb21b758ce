"""How weights start, as a method of the network: what the spec says, not what torch does anyway.

Parameters that a class makes itself start where they are made, and need nothing here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cnnspec.backends.torch.build import Line
from cnnspec.backends.torch.reach import attribute
from cnnspec.backends.torch.text import Doc, Group, call_of, literal, prefixed, quote
from cnnspec.ir import Graph, Node
from cnnspec.lower import Helper, Module
from cnnspec.weights import Init

__all__ = ["CALL", "starting_lines"]

_METHOD = "_init_weights"
CALL = f"self.{_METHOD}()"
"""The last line of the network's constructor."""

_INNER: Mapping[str, tuple[str, ...]] = {"nn.Linear": ("nn.MultiheadAttention",)}
"""Modules of torch that hold modules of a class, or of one derived from it."""


@dataclass(slots=True)
class _Kind:
    """The modules of one class in one part of the network.

    `weights` has by name of a weight the key of each, and how the spec has it start.
    """

    nodes: int = 0
    weights: dict[str, dict[str, Init | None]] = field(default_factory=dict)


class _Start(NamedTuple):
    """How a weight starts; `maybe` says that not every module of the class has it."""

    name: str
    init: Init
    maybe: bool


def starting_lines(graph: Graph) -> tuple[Line, ...]:
    """The method that starts the weights as the spec says; nothing where it says nothing."""
    if not any(node.init for node in graph.nodes):
        return ()
    modules = list(_modules(graph))
    sources = [code.source for _, code in modules if isinstance(code, Helper)]
    targets = {_target(code) for _, code in modules}
    loops: dict[str, dict[tuple[_Start, ...], list[str]]] = {}
    rest: dict[Init, list[str]] = {}
    for target in sorted(targets):
        own = [node for node, code in modules if _target(code) == target]
        whole = _kind(graph, own)
        parts = {"self": own}
        if any(None in keys.values() and any(keys.values()) for keys in whole.weights.values()):
            parts = {}
            for node in own:
                parts.setdefault(attribute("self", node.path.partition(".")[0]), []).append(node)
        for holder, nodes in parts.items():
            rule = tuple(_rule(_kind(graph, nodes), rest))
            if rule:
                loops.setdefault(holder, {}).setdefault(rule, []).append(target)
    lines: list[Line] = []
    for holder, loop in loops.items():
        lines.append(Line(1, f"for module in {holder}.modules():"))
        for number, (rule, several) in enumerate(loop.items()):
            exact = [target for target in several if _has_kin(target, targets, sources)]
            alike = [target for target in several if target not in exact]
            tests = [f"isinstance(module, {' | '.join(alike)})"] if alike else []
            tests += [f"type(module) is {target}" for target in exact]
            lines += _branch("elif" if number else "if", " or ".join(tests), rule)
    lines += _by_key(rest)
    return (Line(0, f"def {_METHOD}(self) -> None:"), *lines) if lines else ()


def _has_kin(target: str, targets: Iterable[str], sources: Iterable[str]) -> bool:
    """True if modules of another class are, or hold, modules of a class too."""
    held = any(inner in targets for inner in _INNER.get(target, ()))
    return held or any(f"({target})" in source for source in sources)


def _branch(word: str, test: str, rule: tuple[_Start, ...]) -> Iterator[Line]:
    """What is done to the modules that pass a test."""
    if len(rule) == 1 and rule[0].maybe and " or " not in test:
        (start,) = rule
        yield Line(2, f"{word} {test} and module.{start.name} is not None:")
        yield Line(3, _start(f"module.{start.name}", start.init))
        return
    yield Line(2, f"{word} {test}:")
    for start in rule:
        tensor = f"module.{start.name}"
        if start.maybe:
            yield Line(3, f"if {tensor} is not None:")
        yield Line(4 if start.maybe else 3, _start(tensor, start.init))


def _target(code: Module | Helper) -> str:
    return code.name if isinstance(code, Helper) else code.target


def _kind(graph: Graph, nodes: Iterable[Node]) -> _Kind:
    kind = _Kind()
    for node in nodes:
        kind.nodes += 1
        override = dict(node.init)
        for name in node.op.weights(graph.site(node)):
            kind.weights.setdefault(name, {})[f"{node.path}.{name}"] = override.get(name)
    return kind


def _rule(kind: _Kind, rest: dict[Init, list[str]]) -> Iterator[_Start]:
    """What is said once for all modules of a kind; what differs goes to `rest`, by key."""
    for name, keys in kind.weights.items():
        usual = _usual(keys.values())
        if usual is not None:
            yield _Start(name, usual, maybe=name == "bias" or len(keys) < kind.nodes)
        for key, init in keys.items():
            if init is not None and init != usual:
                rest.setdefault(init, []).append(key)


def _modules(graph: Graph) -> Iterator[tuple[Node, Module | Helper]]:
    """Nodes that are modules with weights of their own."""
    for node in graph.nodes:
        site = graph.site(node)
        if node.share is None and node.op.weights(site):
            code = node.op.torch(site)
            if isinstance(code, (Module, Helper)):
                yield node, code


def _usual(inits: Iterable[Init | None]) -> Init | None:
    """What most weights of a kind start with, if the spec says it of all of them."""
    found: Counter[Init | None] = Counter(inits)
    return None if None in found else found.most_common(1)[0][0]


def _by_key(others: Mapping[Init, list[str]]) -> Iterator[Line]:
    for init, keys in others.items():
        if len(keys) == 1:
            yield Line(1, _start(f"self.get_parameter({quote(keys[0])})", init))
            continue
        names = Group("(", tuple(map(quote, keys)), ")", lead="for name in ", tail=":")
        yield Line(1, names)
        yield Line(2, _start("self.get_parameter(name)", init))


def _start(tensor: str, init: Init) -> Doc:
    """The call of a function of torch.nn.init."""
    arguments: list[Doc] = [prefixed(f"{name}=", literal(v)) for name, v in init.arguments]
    if init.kind == "constant":
        ((_, value),) = init.arguments
        if value in (0, 1):
            return call_of("nn.init.zeros_" if value == 0 else "nn.init.ones_", (tensor,))
        arguments = [literal(value)]
    return call_of(f"nn.init.{init.kind}_", (tensor, *arguments))
