"""Where an entry is being written out: its scope of names and paths, and how it came there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cnnspec.diagnostics import Note
from cnnspec.frontend.expressions import Value
from cnnspec.frontend.names import Level, Naming
from cnnspec.frontend.values import Env
from cnnspec.ir import Frame, Scope

__all__ = ["Place", "shown_loops"]

_LONGEST_VALUE = 40
_MOST_CALLS = 3


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a network that is being expanded."""

    env: Env
    naming: Naming
    scope: Scope
    frame: Frame | None
    allow: frozenset[str] = frozenset()
    """Warnings silenced for everything inside a group or call."""

    @property
    def level(self) -> Level:
        """The tensor names known here."""
        return self.env.level

    def turn(self, bindings: dict[str, Value]) -> Place:
        """This place in one turn of a loop."""
        return replace(self, env=self.env.turn(bindings))

    def cycle(self, block: str) -> str:
        """The calls from the innermost one of `block` to the next, as `a -> b -> a`."""
        steps = [step.block for step in self.frame.chain()] if self.frame else []
        inside = steps[: steps.index(block) + 1] if block in steps else []
        return " -> ".join(reversed([block, *inside]))

    def origin(self) -> Iterator[Note]:
        """The loop values and the calls of blocks around the entry, innermost first."""
        own = shown_loops(self.env.loops)
        if self.frame is None and own:
            yield Note(f"with {_listed(own)}")
        steps = list(self.frame.chain()) if self.frame else []
        hidden = len(steps) - _MOST_CALLS
        for number, step in enumerate(steps):
            if hidden > 1 and _MOST_CALLS - 1 <= number < len(steps) - 1:
                if number == _MOST_CALLS - 1:
                    yield Note(f"{hidden} more calls like these")
                continue
            values = _listed((*own, *step.loops))
            own = ()
            called = f"in `{step.block}`, called at {step.span}"
            yield Note(f"{called}, {values}" if values else called, step.span)


def shown_loops(loops: Sequence[tuple[str, Value]]) -> tuple[tuple[str, str], ...]:
    """The loop values that can be shown on a line: numbers and short text."""
    return tuple(
        (name, str(value))
        for name, value in loops
        if isinstance(value, (int, float, str)) and len(str(value)) <= _LONGEST_VALUE
    )


def _listed(loops: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} = {text}" for name, text in loops)
