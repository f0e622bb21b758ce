"""What comes out of a network or block: its outputs found, its assertions verified."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

from cnnspec.diagnostics import error
from cnnspec.frontend.document import Assertion, Block, OutputDecl
from cnnspec.frontend.names import Result
from cnnspec.frontend.place import Place
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.references import References
from cnnspec.frontend.size_tests import Asserted, size_test
from cnnspec.frontend.values import Fault, Poisoned, Reads
from cnnspec.ir import NetworkOutput
from cnnspec.source import Span

__all__ = ["Outcomes", "split_assertions"]


class Outcomes:
    """Finds outputs and verifies assertions; what is wrong goes to `problems`."""

    def __init__(self, references: References, problems: Problems) -> None:
        self.references = references
        self.evaluator = references.evaluator
        self.problems = problems
        self.size_tests: list[Asserted] = []
        """Assertions that held, as far as they are about sizes."""

    def network(self, top: Block, place: Place, last: Result | None) -> tuple[NetworkOutput, ...]:
        """The outputs of the whole network; `last` is what its last entry gives."""
        found: list[NetworkOutput] = []
        if not top.outputs:
            if last is None:
                return ()
            for name, value in last.values:
                if value is not None:
                    found.append(NetworkOutput(name or "output", value))
            return tuple(found)
        for declared, value in self.outputs(top.outputs, place):
            name = self.evaluator.text(declared.name.scalar, place.env)
            if any(output.name == name for output in found):
                self.problems.add(
                    error("duplicate-name", f"there are two outputs `{name}`", declared.name.span)
                )
            elif value is not None and not self.evaluator.tensor(value).batched:
                message = f"output `{name}` is a `Parameter`, which has no batch"
                self.problems.add(error("parameter-output", message, declared.reference[0].span))
            elif value is not None:
                found.append(NetworkOutput(name, value, declared.training, declared.weight))
        if found and all(output.training for output in found):
            self.problems.add(
                error("no-output", "all outputs are for training only", top.outputs[0].name.span)
            )
        return tuple(found)

    def outputs(
        self, declared: Sequence[OutputDecl], place: Place
    ) -> Iterator[tuple[OutputDecl, int | None]]:
        """Each declared output and its value, None for one that could not be built."""
        for output in declared:
            try:
                piece = output.reference[0]
                text = self.evaluator.template(output.reference, place.env)
                yield (
                    output,
                    self.references.single(
                        self.references.find(text, piece.span, place), text, piece.span
                    ),
                )
            except Fault as fault:
                self.problems.add(fault.diagnostic.noted(*place.origin()))
                yield output, None
            except Poisoned:
                yield output, None

    def verify(self, assertions: Sequence[Assertion], place: Place) -> bool:
        """Report the assertions that do not hold; whether all did."""
        fine = True
        for assertion in assertions:
            try:
                piece, expression = assertion.that
                reads: Reads = {}
                if self.evaluator.expression(assertion.that, place.env, reads):
                    if reads:
                        lookup = partial(self._lookup, place, piece.span)
                        test = size_test(expression, piece.span, reads, lookup)
                        self.size_tests.append(test)
                    continue
                message = f"`{piece.text}` does not hold"
                if assertion.message:
                    message = self.evaluator.template(assertion.message, place.env)
                raise Fault(error("assertion-failed", message, piece.span))
            except Fault as fault:
                self.problems.add(fault.diagnostic.noted(*place.origin()))
                fine = False
            except Poisoned:
                continue
        return fine

    def _lookup(self, place: Place, at: Span, reads: Reads) -> Callable[[str], object]:
        return self.evaluator.lookup(place.env, at, reads=reads)


def split_assertions(
    assertions: Sequence[Assertion], names: Collection[str]
) -> tuple[list[Assertion], list[Assertion]]:
    """Those that only use `names`, known before anything is built, and the others.

    The first are verified first, so that they explain what would otherwise fail in their place.
    """
    early = [a for a in assertions if a.that[1].names <= set(names)]
    return early, [a for a in assertions if a not in early]
