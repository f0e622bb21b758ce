"""The text of a forward: names for values, expressions, what is returned and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

from cnnspec.backends.torch.plan import CallStep, NodeStep, Step, Unit
from cnnspec.backends.torch.text import (
    Doc,
    Group,
    call_of,
    flat,
    literal,
    operators,
    prefixed,
    suffixed,
    unique,
    variable,
)
from cnnspec.ir import Graph, Scope
from cnnspec.lower import (
    Arg,
    Call,
    Cut,
    Dim,
    Each,
    Helper,
    In,
    Index,
    Infix,
    Module,
    Own,
    Rest,
    TorchCode,
)

__all__ = ["Lines", "OutputTypes", "expression", "forward_of"]

Lines = tuple[tuple[int, Doc], ...]
_POOL = ("x", "out", "y", "z")


class OutputTypes:
    """The named tuples that the network returns: of inference, and of training if it has more.

    None where one tensor is all.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        """`name` is the network's class."""
        self.outputs = graph.outputs
        self.inference = [output for output in graph.outputs if not output.training]
        more = len(self.inference) < len(self.outputs)
        self.of_inference = f"{name}Output" if len(self.inference) > 1 else None
        self.of_training = f"{name}TrainingOutput" if more else None
        self.fields: dict[str, str] = {}
        for output in graph.outputs:
            self.fields[output.name] = unique(variable(output.name), self.fields.values())

    @property
    def annotation(self) -> str:
        """What forward returns."""
        return " | ".join(filter(None, (self.of_inference or "Tensor", self.of_training)))


def forward_of(
    unit: Unit, graph: Graph, access: Callable[[Step, str], str], types: OutputTypes | None
) -> Lines:
    """The statements of a unit's forward with their depth, its `def` first.

    `access` gives the text of what a step calls, or of what the step's node stores by a name.
    `types` are given for the network itself.
    """
    return _Forward(unit, graph, access, types).lines()


class _Forward:
    def __init__(
        self,
        unit: Unit,
        graph: Graph,
        access: Callable[[Step, str], str],
        types: OutputTypes | None,
    ) -> None:
        self.unit = unit
        self.graph = graph
        self.access = access
        self.types = types
        inference = [step for step in unit.steps if step.inference]
        training = [step for step in unit.steps if not step.inference]
        self.split = bool(inference and training)
        self.steps = inference + training
        self.boundary = len(inference)
        self.last_use = self._last_uses()
        self.names: dict[int, str] = {}
        self.bound: dict[str, int] = {}
        self.kept: set[str] = set()
        self.around: set[Scope] = set()
        scope: Scope | None = unit.scope
        while scope is not None:
            self.around.add(scope)
            scope = scope.parent

    def _last_uses(self) -> dict[int, int]:
        found: dict[int, int] = {}
        for position, step in enumerate(self.steps):
            for value in step.reads:
                found[value] = position
        returned = self._returned()
        found.update(dict.fromkeys(returned, len(self.steps)))
        return found

    def _returned(self) -> tuple[int, ...]:
        if self.types is not None:
            return tuple(output.value for output in self.graph.outputs)
        return self.unit.outputs

    # ------------------------------------------------------------------------------------- lines

    def lines(self) -> Lines:
        """`def forward` and its body."""
        arguments = self._arguments()
        for value, name in arguments.items():
            self._bind(value, name)
        late: dict[int, str] = {}
        if self.types is None and self.split:
            for value in self.unit.outputs:
                if value in self.unit.training_outputs:
                    name = unique(self._spec_name(value) or "extra", self.bound)
                    late[value] = name
                    self._bind(value, name)
                    self.kept.add(name)
        body: list[tuple[int, Doc]] = []
        for position, step in enumerate(self.steps[: self.boundary or None]):
            fold = position + 1 == len(self.steps) and self._ends_with(step)
            body += [(1, line) for line in self._statement(position, step, fold)]
            if fold:
                return (self._definition(arguments), *body)
        if not self.boundary:
            body += self._end(1)
        elif self.split or (self.types is not None and self.types.of_training):
            body += self._training(late)
        else:
            body += self._end(1)
        return (self._definition(arguments), *body)

    def _training(self, late: Mapping[int, str]) -> list[tuple[int, Doc]]:
        lines: list[tuple[int, Doc]] = [(1, f"{name} = None") for name in late.values()]
        lines.append((1, "if self.training:"))
        for position in range(self.boundary, len(self.steps)):
            step = self.steps[position]
            lines += [(2, line) for line in self._statement(position, step, fold=False)]
        if self.types is not None and self.types.of_training:
            fields = [
                prefixed(f"{self.types.fields[output.name]}=", self.names[output.value])
                for output in self.types.outputs
            ]
            lines.append((2, prefixed("return ", call_of(self.types.of_training, fields))))
        return [*lines, *self._end(1)]

    def _end(self, depth: int) -> list[tuple[int, Doc]]:
        types = self.types
        if types is None:
            shown: Iterable[Doc] = [self.names[value] for value in self.unit.outputs]
            result = _several(shown)
        elif types.of_inference:
            fields = [f"{types.fields[o.name]}={self.names[o.value]}" for o in types.inference]
            result = call_of(types.of_inference, fields)
        else:
            result = _several(self.names[output.value] for output in types.inference)
        return [(depth, prefixed("return ", result))]

    def _ends_with(self, step: Step) -> bool:
        """True if the result of `step` is all that is returned."""
        if self.split or (self.types is not None and len(self.types.outputs) > 1):
            return False
        return self._returned() == step.writes

    def _definition(self, arguments: Mapping[int, str]) -> tuple[int, Doc]:
        typed = [f"{name}: Tensor" for name in arguments.values()]
        return 0, suffixed(call_of("def forward", ("self", *typed)), f" -> {self._annotation()}:")

    def _annotation(self) -> str:
        if self.types is not None:
            return self.types.annotation
        late = self.unit.training_outputs if self.split else frozenset()
        shown = ["Tensor | None" if v in late else "Tensor" for v in self.unit.outputs]
        return shown[0] if len(shown) == 1 else f"tuple[{', '.join(shown)}]"

    # ------------------------------------------------------------------------------------- names

    def _arguments(self) -> dict[int, str]:
        found: dict[int, str] = {}
        scope = self.unit.scope
        if self.types is not None:
            for name, value in self.graph.inputs.items():
                found[value] = unique(variable(name), found.values())
            return found
        declared = dict(zip(scope.inputs, scope.input_names, strict=False))
        plain = iter(_POOL)
        for value in self.unit.inputs:
            name = declared.get(value, "")
            if name == "input" or (not name and value in scope.inputs):
                name = next(plain, "x")
            name = name or self._spec_name(value) or "other"
            found[value] = unique(variable(name), found.values())
        return found

    def _spec_name(self, value: int) -> str | None:
        """The name that the spec gives a value, if it does, as a variable."""
        producer = self.graph.producers[value]
        if producer < 0:
            return variable(self.graph.value_name(value))
        node = self.graph.nodes[producer]
        made_by = node.scope
        while made_by not in self.around and made_by.parent not in self.around:
            assert made_by.parent is not None  # the root is around every unit
            made_by = made_by.parent
        if made_by not in self.around:
            outputs = made_by.outputs
            found = next((name for name, output in outputs if output == value and name), None)
            if found is None and made_by.named and {v for _, v in outputs} == {value}:
                found = made_by.local
            if found is not None:
                return variable(found)
        name = node.local
        if not node.named:
            if made_by not in self.around:
                name = f"{made_by.local}_{node.path[len(made_by.path) + 1 :]}"
            return variable(f"x{name}" if name.isdigit() else name)
        if len(node.outputs) > 1:
            name = f"{name}_{node.outputs.index(value)}"
        return variable(name)

    def _bind(self, value: int, name: str) -> None:
        self.names[value] = name
        self.bound[name] = value

    def _live(self, name: str, position: int) -> bool:
        """True if `name` holds something that is read after statement `position`."""
        if name in self.kept:
            return True
        value = self.bound.get(name)
        return value is not None and self.last_use.get(value, -1) > position

    def _passes(self, value: int, position: int) -> bool:
        """True if `value` is all that the next statement reads, and nothing else reads it."""
        if self.last_use[value] > position + 1:
            return False
        if position + 1 < len(self.steps):
            return set(self.steps[position + 1].reads) == {value}
        return set(self._returned()) == {value}

    def _target(self, value: int, position: int, step: Step) -> str:
        """A name for a value that statement `position` makes."""
        if value in self.names:
            return self.names[value]
        if value not in self.last_use:
            return "_"
        passing = len(step.writes) == 1 and self._passes(value, position)
        wanted = None if passing else self._spec_name(value)
        if wanted is None:
            used = [self.names[v] for v in step.reads]
            pool = [name for name in used if name in _POOL] + list(_POOL)
            wanted = next((name for name in pool if not self._live(name, position)), "x")
        name, number = wanted, 2
        while self._live(name, position):
            name, number = f"{wanted}_{number}", number + 1
        self._bind(value, name)
        return name

    # ------------------------------------------------------------------------------- expressions

    def _statement(self, position: int, step: Step, fold: bool) -> Iterator[Doc]:
        """The line of a step; a tensor that the module stores needs none unless it is returned."""
        made = self._call(step)
        if fold:
            yield prefixed("return ", made)
            return
        stored = isinstance(step, NodeStep) and isinstance(step.code, Own)
        if stored and step.writes[0] not in self.names:
            self.names[step.writes[0]] = flat(made)
            return
        targets = [self._target(value, position, step) for value in step.writes]
        yield prefixed(f"{', '.join(targets)} = ", made)

    def _call(self, step: Step) -> Doc:
        inputs = [self.names[value] for value in step.reads]
        if isinstance(step, CallStep):
            return call_of(self.access(step, ""), inputs)
        return expression(step.code, inputs, lambda name: self.access(step, name))


def _several(shown: Iterable[Doc]) -> Doc:
    items = tuple(shown)
    return items[0] if len(items) == 1 else Group("(", items, ")", bare=True)


def expression(code: TorchCode, inputs: list[str], own: Callable[[str], str]) -> Doc:
    """A lowering as Python text on named inputs; `own` gives the text of what the op stores.

    For a submodule `own("")` is the module itself.
    """
    if isinstance(code, (Module, Helper)):
        feeds: Iterable[Doc] = inputs
        if code.feeds is not None:
            feeds = [_argument(feed, inputs, own) for feed in code.feeds]
        keywords = code.feed_kwargs if isinstance(code, Module) else ()
        named = [prefixed(f"{key}=", _argument(value, inputs, own)) for key, value in keywords]
        made: Doc = call_of(own(""), (*feeds, *named))
        picked = code.result if isinstance(code, Module) else None
        return made if picked is None else suffixed(made, f"[{picked}]")
    return _argument(code, inputs, own)


def _argument(value: Arg, inputs: list[str], own: Callable[[str], str]) -> Doc:
    def inner(argument: Arg) -> Doc:
        return _argument(argument, inputs, own)

    match value:
        case In(index):
            return inputs[index]
        case Own(name):
            return own(name)
        case Dim(In(index), axis):
            return f"{inputs[index]}.shape[{axis}]"
        case Rest(In(index), axis):
            return f"{inputs[index]}.shape[{axis}:]"
        case Each(items):
            return Group("[", tuple(map(inner, items)), "]")
        case Infix(operator, operands):
            return operators(operator, [_operand(inner(operand)) for operand in operands])
        case Index(base, items):
            return suffixed(_primary(inner(base)), f"[{', '.join(map(_subscript, items))}]")
        case Call(function, arguments, keywords):
            named = [prefixed(f"{key}=", inner(item)) for key, item in keywords]
            positional = [inner(item) for item in arguments]
            if function.startswith("."):
                subject = flat(_primary(positional[0]))
                return call_of(f"{subject}{function}", (*positional[1:], *named))
            return call_of(function, (*positional, *named))
        case tuple():
            return Group("(", tuple(map(inner, value)), ")", is_tuple=True)
        case _:
            return literal(value)


def _operand(doc: Doc) -> Doc:
    """An operand that binds tighter than any operator."""
    if isinstance(doc, Group) and doc.bare:
        return replace(doc, bare=False)
    return doc


def _primary(doc: Doc) -> Doc:
    """A text that can stand before a dot or a subscript."""
    if isinstance(doc, Group):
        return replace(doc, bare=False)
    return f"({doc})" if doc[0] in "-0123456789" else doc


def _subscript(item: int | Cut | None) -> str:
    if isinstance(item, Cut):
        start, stop, step = (
            "" if v is None else str(v) for v in (item.start, item.stop, item.step)
        )
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "None" if item is None else str(item)
