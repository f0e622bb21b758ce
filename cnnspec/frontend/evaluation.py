"""What the operators and functions of the expression language do to values.

Here live the values, their limits and their arithmetic, with Python's semantics. Nothing here knows
the syntax or a position: an operation that cannot accept its operands raises `Reject`, whose `at`
is the operand to blame. Every operation is bounded before it takes time or memory.

Values are int, float, bool, str, None, tuples (the lists of the language), rows (mappings), tensors
(objects with a method `attribute`) and operations (any other object).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cnnspec.diagnostics import Reject, did_you_mean, quantity

__all__ = [
    "FUNCTIONS",
    "MAX_DEPTH",
    "MAX_LIST",
    "MAX_NUMBER",
    "MAX_STEPS",
    "MAX_TEXT",
    "Budget",
    "Function",
    "admit",
    "arithmetic",
    "attribute",
    "check_extent",
    "compare",
    "describe",
    "elements",
    "index",
    "take",
    "truth",
    "unary",
]

MAX_STEPS: Final = 100_000
MAX_NUMBER: Final = 10**30
MAX_LIST: Final = 100_000
MAX_TEXT: Final = 10_000
MAX_DEPTH: Final = 100

_ELEMENTS_PER_STEP: Final = 8
_MAX_DIGITS: Final = 400


class Budget:
    """The work an evaluation may still do, in steps; one budget may serve several evaluations.

    An operation takes one step and another for every eight list elements or characters it makes.
    """

    __slots__ = ("left", "steps")

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.steps = steps
        self.left = steps

    def spend(self, steps: int = 1) -> None:
        """Take `steps` off; raise `Reject` (`expression-too-long`) once nothing is left."""
        self.left -= steps
        if self.left < 0:
            raise Reject(
                "expression-too-long", f"the expression takes more than {self.steps:,} steps"
            )

    def list_of(self, length: int) -> None:
        """Check and charge a new list of `length` elements."""
        if length > MAX_LIST:
            raise Reject("expression-too-large", f"a list of more than {MAX_LIST:,} elements")
        self.spend(1 + length // _ELEMENTS_PER_STEP)

    def text_of(self, length: int) -> None:
        """Check and charge a new text of `length` characters."""
        if length > MAX_TEXT:
            raise Reject("expression-too-large", f"text of more than {MAX_TEXT:,} characters")
        self.spend(1 + length // _ELEMENTS_PER_STEP)


def describe(value: object) -> str:
    """What a value is, as messages call it: `a list`, `a number`, `nothing (null)`."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "a yes/no value"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "a row"
    return "a tensor" if _is_tensor(value) else "an operation"


def admit(value: object, budget: Budget) -> object:
    """A value from outside as a value of the language: lists become tuples, limits are checked."""
    return _admitted(value, budget, 0)


def _admitted(value: object, budget: Budget, depth: int) -> object:
    if isinstance(value, (int, float)):
        return _bounded(value)
    if isinstance(value, str):
        budget.text_of(len(value))
    if isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise _too_deep()
        budget.list_of(len(value))
        return tuple([_admitted(item, budget, depth + 1) for item in value])
    return value


def check_extent(value: object) -> None:
    """Refuse a list that is small in memory but vast when walked (`[[0]*99999]*99999`)."""
    if isinstance(value, tuple):
        _extent(value, 1, {})


def _extent(value: tuple[object, ...], depth: int, known: dict[int, tuple[int, int]]) -> None:
    if depth > MAX_DEPTH:
        raise _too_deep()
    total, height = len(value), 1
    for item in value:
        if isinstance(item, tuple):
            if id(item) not in known:
                _extent(item, depth + 1, known)
            inner_total, inner_height = known[id(item)]
            total += inner_total
            height = max(height, inner_height + 1)
    if total > MAX_LIST:
        raise Reject(
            "expression-too-large", f"nested lists of more than {MAX_LIST:,} elements in total"
        )
    if height > MAX_DEPTH:
        raise _too_deep()
    known[id(value)] = total, height


def _too_deep() -> Reject:
    return Reject("expression-too-deep", f"lists nested more than {MAX_DEPTH} levels deep")


def _too_large(reason: str) -> Reject:
    return Reject("expression-too-large", reason)


def _bounded(value: int | float) -> int | float:
    if isinstance(value, int):
        if -MAX_NUMBER <= value <= MAX_NUMBER:
            return value
        raise _too_large("a whole number beyond 10**30")
    if math.isfinite(value):
        return value
    raise _too_large("a number that is not finite")


def _is_tensor(value: object) -> bool:
    return callable(getattr(value, "attribute", None))


def _is_opaque(value: object) -> bool:
    return not (value is None or isinstance(value, (int, float, str, tuple)))


def _whole(value: object, what: str, at: int) -> int:
    # A yes/no value counts as 0 or 1, as in Python.
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        raise Reject(
            "expression-type",
            f"{what} needs a whole number, not {value!r}",
            at=at,
            help="`//` and `int(...)` give whole numbers",
        )
    raise Reject("expression-type", f"{what} needs a whole number, not {describe(value)}", at=at)


def _number(value: object, what: str, at: int) -> int | float:
    if isinstance(value, (int, float)):
        return value
    raise Reject("expression-type", f"{what} needs a number, not {describe(value)}", at=at)


def elements(value: object, what: str = "a loop", at: int = 0) -> tuple[object, ...]:
    """A value that must be a list; anything else is rejected in the name of `what`."""
    if isinstance(value, tuple):
        return value
    help = "`range(n)` counts from 0 to n - 1" if isinstance(value, int) else ""
    raise Reject("expression-type", f"{what} needs a list, not {describe(value)}", at=at, help=help)


# Operators


def unary(symbol: str, value: object, budget: Budget) -> object:
    """`+value`, `-value` or `not value`."""
    budget.spend()
    if symbol == "not":
        return not truth(value)
    if not isinstance(value, (int, float)):
        verb = "negate" if symbol == "-" else "put a `+` before"
        raise Reject("expression-type", f"cannot {verb} {describe(value)}")
    return -value if symbol == "-" else +value


def arithmetic(symbol: str, left: object, right: object, budget: Budget) -> object:
    """`left symbol right` for `+ - * / // % **`; as in Python, true division gives a float."""
    budget.spend()
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if symbol == "**":
            return _power(left, right)
        if symbol in _DIVISIONS and right == 0:
            raise Reject("division-by-zero", "division by zero", at=1)
        return _bounded(_ARITHMETIC[symbol](left, right))
    if symbol == "+":
        if isinstance(left, str) and isinstance(right, str):
            budget.text_of(len(left) + len(right))
            return left + right
        if isinstance(left, tuple) and isinstance(right, tuple):
            budget.list_of(len(left) + len(right))
            return left + right
    if symbol == "*":
        if isinstance(right, int):
            left, right = right, left
        if isinstance(left, int) and isinstance(right, str):
            times = max(left, 0) if right else 0
            budget.text_of(len(right) * times)
            return right * times
        if isinstance(left, int) and isinstance(right, tuple):
            times = max(left, 0) if right else 0
            budget.list_of(len(right) * times)
            return right * times
    verb = _VERBS[symbol].format(describe(left), describe(right))
    raise Reject("expression-type", f"cannot {verb}")


_DIVISIONS: Final = frozenset({"/", "//", "%"})
_ARITHMETIC: Final[Mapping[str, Callable[[Any, Any], int | float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
_VERBS: Final[Mapping[str, str]] = {
    "+": "add {0} and {1}",
    "-": "subtract {1} from {0}",
    "*": "multiply {0} by {1}",
    "/": "divide {0} by {1}",
    "//": "divide {0} by {1}",
    "%": "divide {0} by {1}",
    "**": "raise {0} to the power of {1}",
}


def _power(base: int | float, exponent: int | float) -> int | float:
    if base == 0 and exponent < 0:
        raise Reject("division-by-zero", "zero has no negative power", at=0)
    if base < 0 and not float(exponent).is_integer():
        raise Reject("expression-value", f"a negative number has no power of {exponent!r}", at=1)
    if isinstance(base, int) and isinstance(exponent, int):
        least_bits = (base.bit_length() - 1) * exponent
        if least_bits > MAX_NUMBER.bit_length():
            raise _too_large("a whole number beyond 10**30")
    try:
        result: int | float = base**exponent
    except OverflowError:
        raise _too_large("a number that is not finite") from None
    return _bounded(result)


def truth(value: object) -> bool:
    """Whether a condition holds: Python's truth of numbers, text, lists and null."""
    if not _is_opaque(value):
        return bool(value)
    raise Reject(
        "expression-type",
        f"{describe(value)} is neither true nor false",
        help="compare it with `null`, as in `x != null`",
    )


def compare(symbol: str, left: object, right: object, budget: Budget) -> bool:
    """`left symbol right` for `== != < <= > >=`, `in` and `not in`.

    Rows, tensors and operations compare with null alone.
    """
    budget.spend()
    if symbol == "==":
        return _equal(left, right, budget, 0)
    if symbol == "!=":
        return not _equal(left, right, budget, 0)
    if symbol in _ORDERS:
        return _ordered(symbol, left, right, budget, 0)
    return _contains(right, left, budget) is (symbol == "in")


_ORDERS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _equal(left: object, right: object, budget: Budget, depth: int) -> bool:
    if left is None or right is None:
        return left is right
    if _is_opaque(left) or _is_opaque(right):
        raise Reject("expression-type", f"cannot compare {describe(left)} and {describe(right)}")
    if isinstance(left, tuple) and isinstance(right, tuple):
        if depth >= MAX_DEPTH:
            raise _too_deep()
        if len(left) != len(right):
            return False
        for a, b in zip(left, right, strict=True):
            budget.spend()
            if not _equal(a, b, budget, depth + 1):
                return False
        return True
    return left == right


def _ordered(symbol: str, left: object, right: object, budget: Budget, depth: int) -> bool:
    if (isinstance(left, (int, float)) and isinstance(right, (int, float))) or (
        isinstance(left, str) and isinstance(right, str)
    ):
        return _ORDERS[symbol](left, right)
    if isinstance(left, tuple) and isinstance(right, tuple):
        for a, b in zip(left, right, strict=False):
            budget.spend()
            if not _equal(a, b, budget, depth + 1):
                return _ordered(symbol, a, b, budget, depth + 1)
        return _ORDERS[symbol](len(left), len(right))
    raise Reject(
        "expression-type",
        f"cannot order {describe(left)} and {describe(right)}",
    )


def _contains(container: object, item: object, budget: Budget) -> bool:
    if isinstance(container, str):
        if isinstance(item, str):
            budget.spend(len(container) // _ELEMENTS_PER_STEP)
            return item in container
        raise Reject("expression-type", f"text cannot contain {describe(item)}")
    for element in elements(container, "`in`", at=1):
        budget.spend()
        if _equal(element, item, budget, 0):
            return True
    return False


def index(container: object, position: object, budget: Budget) -> object:
    """`container[position]` of a list; negative positions count from the end."""
    budget.spend()
    if not isinstance(container, tuple):
        help = "write the field after a dot" if isinstance(container, Mapping) else ""
        raise Reject("expression-type", f"cannot index {describe(container)}", at=0, help=help)
    where = _whole(position, "an index", 1)
    if -len(container) <= where < len(container):
        return container[where]
    held = quantity(len(container), "element")
    raise Reject("index-out-of-range", f"index {where} of a list of {held}", at=1)


def take(container: object, start: object, stop: object, step: object, budget: Budget) -> object:
    """`container[start:stop:step]` of a list; null stands for a bound that is not written."""
    budget.spend()
    if not isinstance(container, tuple):
        raise Reject("expression-type", f"cannot slice {describe(container)}", at=0)
    first, last, stride = (
        None if value is None else _whole(value, "a slice", at)
        for at, value in enumerate((start, stop, step), start=1)
    )
    if stride == 0:
        raise Reject("expression-value", "a slice cannot step by 0", at=3)
    taken = container[first:last:stride]
    budget.list_of(len(taken))
    return taken


def attribute(value: object, name: str, budget: Budget) -> object:
    """`value.name`: a field of a row, or what a tensor says of itself (it rejects the unknown)."""
    budget.spend()
    if isinstance(value, Mapping):
        if name in value:
            return admit(value[name], budget)
        fields = ", ".join(f"`{field}`" for field in value)
        raise Reject(
            "unknown-field",
            f"the row has no field `{name}`",
            help=did_you_mean(name, map(str, value)) or f"its fields are {fields}",
        )
    ask = getattr(value, "attribute", None)
    if callable(ask):
        return admit(ask(name), budget)
    raise Reject("expression-type", f"{describe(value)} has no field `{name}`")


# Functions

Arguments = tuple[object, ...]
Rule = Callable[[Arguments, Budget], object]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the closed list: how it is written, how many arguments it takes, its rule."""

    signature: str
    least: int
    most: int | None
    run: Rule

    @property
    def arity(self) -> str:
        """`1 argument`, `1 to 3 arguments`, `at least 1 argument`."""
        if self.most is None:
            return f"at least {quantity(self.least, 'argument')}"
        if self.least == self.most:
            return quantity(self.least, "argument")
        return f"{self.least} to {quantity(self.most, 'argument')}"


def _extreme(name: str, symbol: str) -> Rule:
    def run(arguments: Arguments, budget: Budget) -> object:
        values = elements(arguments[0], f"`{name}`") if len(arguments) == 1 else arguments
        if not values:
            raise Reject("expression-value", f"`{name}` of an empty list", at=0)
        best = values[0]
        for value in values[1:]:
            budget.spend()
            if _ordered(symbol, value, best, budget, 0):
                best = value
        return best

    return run


def _abs(arguments: Arguments, budget: Budget) -> object:
    return abs(_number(arguments[0], "`abs`", 0))


def _round(arguments: Arguments, budget: Budget) -> object:
    value = _number(arguments[0], "`round`", 0)
    if len(arguments) == 1 or arguments[1] is None:
        return _bounded(round(value))
    digits = _whole(arguments[1], "`round`", 1)
    if abs(digits) > _MAX_DIGITS:
        raise Reject("expression-value", f"`round` to {digits} digits", at=1)
    try:
        return _bounded(round(value, digits))
    except OverflowError:
        raise _too_large("a number that is not finite") from None


def _to_whole(name: str, rule: Callable[[int | float], int]) -> Rule:
    def run(arguments: Arguments, budget: Budget) -> object:
        return _bounded(rule(_number(arguments[0], f"`{name}`", 0)))

    return run


def _len(arguments: Arguments, budget: Budget) -> object:
    value = arguments[0]
    return len(value) if isinstance(value, str) else len(elements(value, "`len`"))


def _range(arguments: Arguments, budget: Budget) -> object:
    numbers = [_whole(value, "`range`", at) for at, value in enumerate(arguments)]
    if len(numbers) == 1:
        numbers = [0, *numbers]
    start, stop = numbers[:2]
    step = numbers[2] if len(numbers) == 3 else 1
    if step == 0:
        raise Reject("expression-value", "`range` cannot step by 0", at=2)
    span = stop - start if step > 0 else start - stop
    budget.list_of(max(0, -(-span // abs(step))))
    return tuple(range(start, stop, step))


def _zip(arguments: Arguments, budget: Budget) -> object:
    columns = [elements(value, "`zip`", at) for at, value in enumerate(arguments)]
    budget.list_of(len(columns) * min(map(len, columns), default=0))
    return tuple(zip(*columns, strict=False))


def _enumerate(arguments: Arguments, budget: Budget) -> object:
    values = elements(arguments[0], "`enumerate`")
    start = _whole(arguments[1], "`enumerate`", 1) if len(arguments) == 2 else 0
    _bounded(start + len(values))
    budget.list_of(2 * len(values))
    return tuple(enumerate(values, start))


def _sum(arguments: Arguments, budget: Budget) -> object:
    # Plainly from left to right: Python's own result depends on its version for floats.
    total = arguments[1] if len(arguments) == 2 else 0
    for value in elements(arguments[0], "`sum`"):
        total = arithmetic("+", total, value, budget)
    return total


def _make_divisible(arguments: Arguments, budget: Budget) -> object:
    value = _number(arguments[0], "`make_divisible`", 0)
    divisor = _whole(arguments[1], "`make_divisible`", 1) if len(arguments) > 1 else 8
    if divisor <= 0:
        raise Reject("expression-value", f"`make_divisible` by {divisor}", at=1)
    least = divisor
    if len(arguments) == 3 and arguments[2] is not None:
        least = _whole(arguments[2], "`make_divisible`", 2)
    nearest = max(least, math.trunc(value + divisor / 2) // divisor * divisor)
    return _bounded(nearest + divisor if nearest < 0.9 * value else nearest)


FUNCTIONS: Final[Mapping[str, Function]] = {
    "min": Function("min(list)", 1, None, _extreme("min", "<")),
    "max": Function("max(list)", 1, None, _extreme("max", ">")),
    "abs": Function("abs(number)", 1, 1, _abs),
    "round": Function("round(number, digits)", 1, 2, _round),
    "floor": Function("floor(number)", 1, 1, _to_whole("floor", math.floor)),
    "ceil": Function("ceil(number)", 1, 1, _to_whole("ceil", math.ceil)),
    "int": Function("int(number)", 1, 1, _to_whole("int", math.trunc)),
    "len": Function("len(list)", 1, 1, _len),
    "range": Function("range(start, stop, step)", 1, 3, _range),
    "zip": Function("zip(a, b)", 0, None, _zip),
    "enumerate": Function("enumerate(list, start)", 1, 2, _enumerate),
    "sum": Function("sum(list, start)", 1, 2, _sum),
    "make_divisible": Function("make_divisible(number, divisor, minimum)", 1, 3, _make_divisible),
}
"""Every function of the language; `make_divisible` is torchvision's: the nearest multiple of
`divisor` (8), never below `minimum` (the divisor), never more than a tenth below the number."""
