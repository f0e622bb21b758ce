"""The text of a forward: names for values, expressions, what is returned and when."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import cast

from cnnspec.backends.torch.build import Line
from cnnspec.backends.torch.plan import CallStep, NodeStep, Step, Unit
from cnnspec.backends.torch.text import (
    Doc,
    Figure,
    Figures,
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

__all__ = ["OutputTypes", "expression", "forward_of"]

_POOL = ("x", "out", "y", "z")
_SHORTCUT = "identity"
_RESULTS = ("out", "result")
_NEAR = 3
"""How many statements on a sum may be for the value that goes into it to need no name."""


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
    unit: Unit,
    graph: Graph,
    access: Callable[[Step, str], str],
    types: OutputTypes | None,
    shortcuts: Collection[Step] = (),
    looped: int = 0,
) -> tuple[Line, ...]:
    """The statements of a unit's forward, its `def` first.

    `access` gives the text of what a step calls, or of what the step's node stores by a name.
    `types` are given for the network itself. `shortcuts` are calls that some uses of the class do
    without. The first `looped` steps are calls of all modules of the unit one after the other, and
    written as a loop.
    """
    return _Forward(unit, graph, access, types, shortcuts, looped).lines()


class _Forward:
    def __init__(
        self,
        unit: Unit,
        graph: Graph,
        access: Callable[[Step, str], str],
        types: OutputTypes | None,
        shortcuts: Collection[Step],
        looped: int,
    ) -> None:
        self.unit = unit
        self.graph = graph
        self.access = access
        self.types = types
        self.looped = looped
        summands = {
            value
            for step in unit.steps
            if isinstance(step, NodeStep) and isinstance(step.code, Infix)
            for value in step.reads
        }
        self.shortcuts = summands & {
            step.writes[0] for step in shortcuts if step.reads[0] in unit.inputs
        }
        inference = [step for step in unit.steps if step.inference]
        training = [step for step in unit.steps if not step.inference]
        self.split = bool(inference and training)
        self.steps = inference + training
        self.boundary = len(inference)
        self.last_use = self._last_uses()
        self.sums = self._sums()
        self.names: dict[int, str] = {}
        self.bound: dict[str, int] = {}
        self.kept: set[str] = set()
        self.several = {
            value for step in unit.steps if len(step.writes) > 1 for value in step.writes
        }
        self.first: dict[str, bool] = {}
        """For each variable whether what it holds first is known to be a tensor."""
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

    def _sums(self) -> dict[int, int]:
        """Values that a sum is written over, and which statement that is."""
        return {
            step.reads[step.over]: position
            for position, step in enumerate(self.steps)
            if isinstance(step, NodeStep) and isinstance(step.code, Infix) and step.over is not None
        }

    def _returned(self) -> tuple[int, ...]:
        if self.types is not None:
            return tuple(output.value for output in self.graph.outputs)
        return self.unit.outputs

    # ------------------------------------------------------------------------------------- lines

    def lines(self) -> tuple[Line, ...]:
        """`def forward` and its body."""
        arguments = self._arguments()
        for value, name in arguments.items():
            self._bind(value, name)
            self.first[name] = True
        late: dict[int, str] = {}
        if self.types is None and self.split:
            for value in self.unit.outputs:
                if value in self.unit.training_outputs:
                    name = unique(self._spec_name(value) or "extra", self.bound)
                    late[value] = name
                    self._bind(value, name)
                    self.kept.add(name)
        body = self._loop() if self.looped else []
        for position, step in enumerate(self.steps[: self.boundary or None]):
            if position < self.looped:
                continue
            if position + 1 == len(self.steps) and self._ends_with(step):
                return (self._definition(arguments), *body, *self._last(step))
            body += self._statement(1, position, step)
        if self.boundary and (self.split or (self.types is not None and self.types.of_training)):
            body += self._training(late)
        else:
            body += self._end(1)
        return (self._definition(arguments), *self._annotated(body))

    def _loop(self) -> list[Line]:
        """The first steps, in which one module after the other runs."""
        (value,), end = self.steps[0].reads, self.looped - 1
        source = target = self.names[value]
        lines: list[Line] = []
        if self._live(source, end):
            target = unique(_POOL[1], self.bound)
            self.first[target] = True
            lines.append(Line(1, f"{target} = {source}"))
        module = unique("module", self.bound)
        self.kept.add(module)
        self._bind(self.steps[end].writes[0], target)
        return [
            *lines,
            Line(1, f"for {module} in self:"),
            Line(2, f"{target} = {module}({target})"),
        ]

    def _training(self, late: Mapping[int, str]) -> list[Line]:
        lines = [Line(1, f"{name}: Tensor | None = None") for name in late.values()]
        lines.append(Line(1, "if self.training:"))
        for position in range(self.boundary, len(self.steps)):
            lines += self._statement(2, position, self.steps[position])
        if self.types is not None and self.types.of_training:
            fields = [
                prefixed(f"{self.types.fields[output.name]}=", self.names[output.value])
                for output in self.types.outputs
            ]
            lines.append(Line(2, prefixed("return ", call_of(self.types.of_training, fields))))
        return [*lines, *self._end(1)]

    def _annotated(self, body: list[Line]) -> Iterator[Line]:
        """The body, with a type where the tensor returned has come from a module.

        Calls of modules are untyped; a variable with a type keeps it.
        """
        name = flat(body[-1].doc).removeprefix("return ")
        start = f"{name} = "
        wanted = not self.first.get(name, True)
        if wanted and not any(flat(line.doc).startswith(start) for line in body):
            yield Line(1, f"{name}: Tensor")
            wanted = False
        for line in body:
            if wanted and flat(line.doc).startswith(start):
                yield replace(line, doc=_retargeted(line.doc, start, f"{name}: Tensor = "))
                wanted = False
            else:
                yield line

    def _end(self, depth: int) -> list[Line]:
        types = self.types
        if types is None:
            shown: Iterable[Doc] = [self.names[value] for value in self.unit.outputs]
            result = _several(shown)
        elif types.of_inference:
            fields = [f"{types.fields[o.name]}={self.names[o.value]}" for o in types.inference]
            result = call_of(types.of_inference, fields)
        else:
            result = _several(self.names[output.value] for output in types.inference)
        return [Line(depth, prefixed("return ", result))]

    def _ends_with(self, step: Step) -> bool:
        """True if the result of `step` is all that is returned, and is written over nothing."""
        if self.split or (self.types is not None and len(self.types.outputs) > 1):
            return False
        stored = isinstance(step, NodeStep) and isinstance(step.code, Own)
        if stored or self._place(step, len(self.steps) - 1) is not None:
            return False
        alone = len(step.writes) == 1 or self._is_typed(step)
        return alone and self._returned() == step.writes

    def _last(self, step: Step) -> Iterator[Line]:
        """The end of a forward: what it returns has a type, which calls of modules lack."""
        made, remark = self._call(step), self._remark(step)
        if self._is_typed(step):
            yield Line(1, prefixed("return ", made), remark)
            return
        (value,) = step.writes
        wanted = self._spec_name(value) if self._is_named(step) else None
        names = [name for name in (wanted, *_RESULTS) if name and name not in self.first]
        name = names[0] if names else unique(_RESULTS[0], self.first)
        yield Line(1, prefixed(f"{name}: Tensor = ", made), remark)
        yield Line(1, f"return {name}")

    @staticmethod
    def _is_named(step: Step) -> bool:
        return step.scope.named if isinstance(step, CallStep) else step.node.named

    def _is_typed(self, step: Step) -> bool:
        """True if type checkers know that a step makes a tensor."""
        if not isinstance(step, NodeStep) or isinstance(step.code, (Module, Helper, Own)):
            return False
        if isinstance(step.code, Call) and step.code.function.startswith(("torch.", "F.")):
            return True
        return all(self.first.get(self.names[value], False) for value in step.reads)

    def _definition(self, arguments: Mapping[int, str]) -> Line:
        typed = [f"{name}: Tensor" for name in arguments.values()]
        made = call_of("def forward", ("self", *typed))
        return Line(0, suffixed(made, f" -> {self._annotation()}:"))

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
                name = made_by.local
                if value in self.several:
                    name = f"{name}_{node.path[len(made_by.path) + 1 :]}"
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
        wanted = None if passing or self._is_near_sum(value, position) else self._spec_name(value)
        if value in self.shortcuts:
            wanted = _SHORTCUT
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

    def _place(self, step: Step, position: int) -> int | None:
        """Which input the result of a sum takes the place and the name of, as in `out += x`."""
        if not isinstance(step, NodeStep) or not isinstance(step.code, Infix):
            return None
        value = step.writes[0]
        plain = not step.node.named or self._passes(value, position)
        return step.over if plain or self._is_near_sum(value, position) else None

    def _is_near_sum(self, value: int, position: int) -> bool:
        """True if soon after statement `position` a sum is written over `value`."""
        return value in self.sums and self.sums[value] - position <= _NEAR

    def _statement(self, depth: int, position: int, step: Step) -> Iterator[Line]:
        """The line of a step; a tensor that the module stores needs none unless it is returned."""
        over = self._place(step, position)
        if over is not None:
            name = self.names[step.reads[over]]
            self._bind(step.writes[0], name)
            other = self.names[step.reads[1 - over]]
            yield Line(depth, f"{name} += {other}", self._remark(step))
            return
        made = self._call(step)
        stored = isinstance(step, NodeStep) and isinstance(step.code, Own)
        if stored and step.writes[0] not in self.names:
            self.names[step.writes[0]] = flat(made)
            return
        typed = self._is_typed(step)
        targets = [self._target(value, position, step) for value in step.writes]
        for target in targets:
            self.first.setdefault(target, typed)
        yield Line(depth, prefixed(f"{', '.join(targets)} = ", made), self._remark(step))

    def _remark(self, step: Step) -> str:
        """The size of what a step of the network makes, where it is another than what it reads."""
        if self.types is None or len(step.writes) != 1 or not step.reads:
            return ""
        tensors = self.graph.tensors
        made = tensors[step.writes[0]]
        if any(tensors[value].shape == made.shape for value in step.reads):
            return ""
        return "x".join(map(str, made.shape))

    def _call(self, step: Step) -> Doc:
        inputs = [self.names[value] for value in step.reads]
        if isinstance(step, CallStep):
            return call_of(self.access(step, ""), inputs)
        return expression(step.code, inputs, lambda name: self.access(step, name))


def _retargeted(doc: Doc, old: str, new: str) -> Doc:
    """A statement that assigns to something else."""
    if isinstance(doc, str):
        return new + doc.removeprefix(old)
    return replace(doc, lead=new + doc.lead.removeprefix(old))


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
            named = [_keyword(key, inner(item)) for key, item in keywords]
            positional = [inner(item) for item in arguments]
            if function.startswith("."):
                subject = flat(_primary(positional[0]))
                return call_of(f"{subject}{function}", (*positional[1:], *named))
            return call_of(function, (*positional, *named))
        case tuple():
            if _is_figure(value):
                return Figure(cast(Figures, value))
            return Group("(", tuple(map(inner, value)), ")", is_tuple=True)
        case int() | float() if _is_figure(value):
            return Figure(value)
        case _:
            return literal(value)


def _keyword(name: str, doc: Doc) -> Doc:
    """An argument by name."""
    if isinstance(doc, Figure):
        return replace(doc, name=name, lead=f"{name}={doc.lead}")
    return prefixed(f"{name}=", doc)


def _is_figure(value: Arg) -> bool:
    """True for a number and for tuples of numbers."""
    if isinstance(value, tuple):
        return bool(value) and all(map(_is_figure, value))
    return type(value) in (int, float)


def _operand(doc: Doc) -> Doc:
    """An operand that binds tighter than any operator."""
    if isinstance(doc, Group) and doc.bare:
        return replace(doc, bare=False)
    return doc


def _primary(doc: Doc) -> Doc:
    """A text that can stand before a dot or a subscript."""
    if isinstance(doc, Group):
        return replace(doc, bare=False)
    shown = flat(doc)
    return f"({shown})" if shown[0] in "-0123456789" else shown


def _subscript(item: int | Cut | None) -> str:
    if isinstance(item, Cut):
        start, stop, step = (
            "" if v is None else str(v) for v in (item.start, item.stop, item.step)
        )
        return f"{start}:{stop}" + (f":{step}" if step else "")
    return "None" if item is None else str(item)
