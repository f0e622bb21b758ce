"""The syntax tree of the expression language, and how each node gets its value.

A node knows its offsets in the text, evaluates its parts and hands their values to the rules of
`cnnspec.frontend.evaluation`; what a rule rejects gets its place here. Nodes are immutable and may
be evaluated any number of times. No text is read here: `cnnspec.frontend.expressions` parses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

from cnnspec.diagnostics import Reject, did_you_mean, quantity
from cnnspec.frontend import evaluation
from cnnspec.frontend.evaluation import FUNCTIONS, Budget, Function, describe
from cnnspec.record import Record

__all__ = [
    "Arithmetic",
    "Attribute",
    "Call",
    "Choice",
    "Clause",
    "Comparison",
    "Comprehension",
    "Conditional",
    "Constant",
    "Environment",
    "ExpressionError",
    "Group",
    "Index",
    "Listing",
    "Lookup",
    "Name",
    "Node",
    "Place",
    "Slice",
    "Target",
    "Unary",
    "Value",
    "bind_targets",
    "elements_of",
]

Value = object
"""int, float, bool, str, None, a tuple of values, a row (a mapping), a tensor or an operation."""

Lookup = Callable[[str], Value]
"""The value of a name; raises `KeyError` where there is none, `Reject` where it may not be used."""

Place = tuple[int, int]
"""Offsets of the first character and of the one after the last."""


class ExpressionError(Exception):
    """What is wrong with an expression, and where: character offsets `start` to `end` of its text.

    `label` and `notes` are those of the `Reject` it was made of, if any.
    """

    def __init__(
        self,
        code: str,
        message: str,
        start: int,
        end: int,
        *,
        help: str = "",
        label: str = "",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.code = code
        self.message = message
        self.start = start
        self.end = end
        self.help = help
        self.label = label
        self.notes = notes
        super().__init__(f"{code}: {message}")

    @classmethod
    def at(cls, reject: Reject, start: int, end: int) -> ExpressionError:
        """What a rule rejected, at the place that is to blame."""
        return cls(
            reject.code,
            reject.message,
            start,
            end,
            help=reject.help,
            label=reject.label,
            notes=reject.notes,
        )


class Environment:
    """What names mean during one evaluation, and the work left to it."""

    __slots__ = ("bound", "budget", "known", "lookup", "names")

    def __init__(self, lookup: Lookup, budget: Budget, names: Iterable[str]) -> None:
        self.lookup = lookup
        self.budget = budget
        self.names = names
        self.known: dict[str, Value] = {}
        self.bound: Mapping[str, Value] = {}


def _blame(reject: Reject, *parts: Place) -> ExpressionError:
    at = reject.at
    if isinstance(at, int) and at < len(parts):
        return ExpressionError.at(reject, *parts[at])
    return ExpressionError.at(reject, parts[0][0], parts[-1][1])


class Node(Record, ABC):
    """A part of an expression: its offsets, the levels of nodes in it, and how it gets a value."""

    start: int
    end: int
    depth: int

    @property
    def place(self) -> Place:
        """Start and end, for an error about this node."""
        return self.start, self.end

    def eval(self, env: Environment) -> Value:
        """The value; raises `ExpressionError`."""
        return self._eval(env)

    @abstractmethod
    def _eval(self, env: Environment) -> Value: ...


class Constant(Node):
    """A number, text, `true`, `false` or `null`."""

    value: Value

    def _eval(self, env: Environment) -> Value:
        return self.value


class Name(Node):
    """A variable: of an enclosing comprehension, else of the caller."""

    name: str

    def _eval(self, env: Environment) -> Value:
        name = self.name
        if name in env.bound:
            return env.bound[name]
        if name not in env.known:
            try:
                env.known[name] = evaluation.admit(env.lookup(name), env.budget)
            except KeyError:
                raise self._unknown(env) from None
            except Reject as reject:
                raise ExpressionError.at(reject, self.start, self.end) from None
        return env.known[name]

    def _unknown(self, env: Environment) -> ExpressionError:
        if self.name in FUNCTIONS:
            help = f"write `{FUNCTIONS[self.name].signature}` to call the function"
        else:
            help = did_you_mean(self.name, (*env.names, *env.bound))
        return ExpressionError(
            "unknown-name", f"unknown name `{self.name}`", self.start, self.end, help=help
        )


class Group(Node):
    """`(inner)`; the parser makes one of `((inner))`."""

    inner: Node

    def _eval(self, env: Environment) -> Value:
        return self.inner._eval(env)


class Listing(Node):
    """`[a, b]`."""

    items: tuple[Node, ...]

    def _eval(self, env: Environment) -> Value:
        try:
            env.budget.list_of(len(self.items))
        except Reject as reject:
            raise _blame(reject, self.place) from None
        return tuple([item._eval(env) for item in self.items])


class Target(Record):
    """What a loop binds: one name, or the targets that a list of as many elements fills."""

    start: int
    end: int
    name: str | None
    parts: tuple[Target, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name bound, from left to right."""
        if self.name is not None:
            return (self.name,)
        return tuple(name for part in self.parts for name in part.names)


def bind_targets(targets: Target, value: Value) -> dict[str, Value]:
    """The names of `targets` with their parts of `value`, one turn of a loop.

    Raises `ExpressionError` at the target whose list has too few or too many elements.
    """
    bound: dict[str, Value] = {}
    _bind(targets, value, bound)
    return bound


def _bind(target: Target, value: Value, bound: dict[str, Value]) -> None:
    if target.name is not None:
        bound[target.name] = value
        return
    wanted = quantity(len(target.parts), "name")
    if not isinstance(value, (list, tuple)):
        raise ExpressionError(
            "loop-values", f"{describe(value)} for {wanted}", target.start, target.end
        )
    if len(value) != len(target.parts):
        found = quantity(len(value), "value")
        raise ExpressionError("loop-values", f"{found} for {wanted}", target.start, target.end)
    for part, item in zip(target.parts, value, strict=True):
        _bind(part, item, bound)


class Clause(Record):
    """`for target in iterable if condition`: each clause sees the names of those before it."""

    target: Target
    iterable: Node
    conditions: tuple[Node, ...]


class Comprehension(Node):
    """`[element for x in xs if condition]`."""

    element: Node
    clauses: tuple[Clause, ...]

    def _eval(self, env: Environment) -> Value:
        made: list[Value] = []
        self._run(0, env, made)
        try:
            env.budget.list_of(len(made))
        except Reject as reject:
            raise _blame(reject, self.place) from None
        return tuple(made)

    def _run(self, number: int, env: Environment, made: list[Value]) -> None:
        clause = self.clauses[number]
        innermost = number + 1 == len(self.clauses)
        outer = env.bound
        values = elements_of(clause.iterable, env)
        for value in values:
            env.bound = {**outer, **bind_targets(clause.target, value)}
            try:
                env.budget.spend(1 + len(env.bound) // 8)
            except Reject as reject:
                raise _blame(reject, self.place) from None
            if all(_true(condition._eval(env), condition, env) for condition in clause.conditions):
                if innermost:
                    made.append(self.element._eval(env))
                else:
                    self._run(number + 1, env, made)
        env.bound = outer


def elements_of(node: Node, env: Environment) -> tuple[Value, ...]:
    """The elements of the list that `node` gives; the error for anything else is at `node`."""
    value = node._eval(env)
    try:
        return evaluation.elements(value)
    except Reject as reject:
        raise _blame(reject, node.place) from None


def _true(value: Value, node: Node, env: Environment) -> bool:
    try:
        env.budget.spend()
        return evaluation.truth(value)
    except Reject as reject:
        raise _blame(reject, node.place) from None


class Unary(Node):
    """`-x`, `+x` or `not x`."""

    symbol: str
    operand: Node

    def _eval(self, env: Environment) -> Value:
        value = self.operand._eval(env)
        try:
            return evaluation.unary(self.symbol, value, env.budget)
        except Reject as reject:
            raise _blame(reject, self.place) from None


Steps = tuple[tuple[str, Node], ...]


class Arithmetic(Node):
    """`a + b - c`: operators of one precedence, from left to right (`**` stands alone)."""

    first: Node
    rest: Steps

    def _eval(self, env: Environment) -> Value:
        value = self.first._eval(env)
        end = self.first.end
        for symbol, node in self.rest:
            right = node._eval(env)
            try:
                value = evaluation.arithmetic(symbol, value, right, env.budget)
            except Reject as reject:
                raise _blame(reject, (self.start, end), node.place) from None
            end = node.end
        return value


class Comparison(Node):
    """`a < b <= c`: true where every neighbour holds; the rest is not evaluated after a false."""

    first: Node
    rest: Steps

    def _eval(self, env: Environment) -> Value:
        before = self.first
        left = before._eval(env)
        for symbol, node in self.rest:
            right = node._eval(env)
            try:
                if not evaluation.compare(symbol, left, right, env.budget):
                    return False
            except Reject as reject:
                raise _blame(reject, before.place, node.place) from None
            before, left = node, right
        return True


class Choice(Node):
    """`a and b` or `a or b`: the first operand that decides, else the last, as in Python."""

    stops_at: bool
    operands: tuple[Node, ...]

    def _eval(self, env: Environment) -> Value:
        for operand in self.operands[:-1]:
            value = operand._eval(env)
            if _true(value, operand, env) is self.stops_at:
                return value
        return self.operands[-1]._eval(env)


class Conditional(Node):
    """`then if condition else otherwise`; only the branch taken is evaluated."""

    then: Node
    condition: Node
    otherwise: Node

    def _eval(self, env: Environment) -> Value:
        chosen = (
            self.then if _true(self.condition._eval(env), self.condition, env) else self.otherwise
        )
        return chosen._eval(env)


class Index(Node):
    """`list[position]`."""

    container: Node
    position: Node

    def _eval(self, env: Environment) -> Value:
        container = self.container._eval(env)
        position = self.position._eval(env)
        try:
            return evaluation.index(container, position, env.budget)
        except Reject as reject:
            raise _blame(reject, self.container.place, self.position.place) from None


class Slice(Node):
    """`list[start:stop:step]`; a bound that is not written is None."""

    container: Node
    bounds: tuple[Node | None, Node | None, Node | None]

    def _eval(self, env: Environment) -> Value:
        container = self.container._eval(env)
        start, stop, step = (node._eval(env) if node else None for node in self.bounds)
        try:
            return evaluation.take(container, start, stop, step, env.budget)
        except Reject as reject:
            places = (node.place if node else self.place for node in self.bounds)
            raise _blame(reject, self.container.place, *places) from None


class Attribute(Node):
    """`value.name`: a field of a row or a property of a tensor."""

    container: Node
    name: str

    def _eval(self, env: Environment) -> Value:
        container = self.container._eval(env)
        try:
            return evaluation.attribute(container, self.name, env.budget)
        except Reject as reject:
            start = self.end - len(self.name)
            raise ExpressionError.at(reject, start, self.end) from None


class Call(Node):
    """`function(a, b)` of the closed list."""

    function: Function
    arguments: tuple[Node, ...]

    def _eval(self, env: Environment) -> Value:
        arguments = tuple([argument._eval(env) for argument in self.arguments])
        try:
            env.budget.spend()
            return self.function.run(arguments, env.budget)
        except Reject as reject:
            places = [argument.place for argument in self.arguments]
            if reject.at is None:
                places = [self.place]
            raise _blame(reject, *places) from None
