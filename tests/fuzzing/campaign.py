"""One random network after another: written, analysed, compared with torch; what came of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import process_time
from traceback import extract_tb

from cnnspec.api import Network, load
from cnnspec.diagnostics import SpecError
from tests.fuzzing import careless
from tests.fuzzing.comparison import Torch, differences
from tests.fuzzing.exports import export_differences
from tests.fuzzing.fields import field_differences
from tests.fuzzing.modules import module_differences
from tests.fuzzing.networks import Writer
from tests.fuzzing.specs import Spec, smaller, text_of

__all__ = ["Campaign", "Failure", "Findings", "shrunk"]

OPSETS = range(13, 22)
PROGRAMS = 4
"""Careless programs for each network."""

FIELDS_EACH = 4
MODULE_EACH = 3
EXPORT_EACH = 12
_SHRINKINGS = 400
_SLOWEST = 5


@dataclass(frozen=True)
class Failure:
    """What differs, and the smallest spec found in which it does."""

    number: int
    kind: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind} of network {self.number}: {self.what}\n{self.text}"


@dataclass
class Findings:
    """What a number of networks came to."""

    networks: int = 0
    layers: Counter[str] = field(default_factory=Counter)
    fields: int = 0
    modules: int = 0
    exports: int = 0
    programs: int = 0
    refused: int = 0
    unlike: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    slowest: list[tuple[float, int]] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Take in what others found."""
        self.networks += other.networks
        self.layers += other.layers
        self.fields += other.fields
        self.modules += other.modules
        self.exports += other.exports
        self.programs += other.programs
        self.refused += other.refused
        self.unlike += other.unlike
        self.rejected += other.rejected
        self.failures += other.failures
        self.slowest = sorted([*self.slowest, *other.slowest], reverse=True)[:_SLOWEST]


Check = Callable[[Network], Iterator[str]]


class Campaign:
    """Runs networks by number; each is compared with torch, some with more."""

    def __init__(self) -> None:
        self._torch = Torch()

    def run(self, number: int) -> Findings:
        """Network `number` and the careless programs of that number."""
        found = Findings(networks=1)
        writer = Writer(number)
        spec = writer.write()
        found.rejected += Counter(writer.rejected)
        start = process_time()
        network = load(text=text_of(spec))
        network.analyze()
        found.slowest = [(process_time() - start, number)]
        found.layers.update(node.op.name for node in network.graph.nodes)
        checks: dict[str, Check] = {"analysis": self.analysis}
        if number % FIELDS_EACH == 0:
            found.fields += 1
            checks["field"] = _fields
        if number % MODULE_EACH == 0:
            found.modules += 1
            checks["module"] = module_differences
        if number % EXPORT_EACH == 0:
            found.exports += 1
            checks["export"] = _exporter(OPSETS[number // EXPORT_EACH % len(OPSETS)])
        for kind, check in checks.items():
            what = _first(check, network)
            if what is not None:
                text = shrunk(spec, check, what)
                found.failures.append(Failure(number, kind, what, text))
        for part in range(PROGRAMS):
            self._program(number * PROGRAMS + part, found)
        return found

    def analysis(self, network: Network) -> Iterator[str]:
        """Differences between the analysis and torch on the meta device."""
        yield from differences(network, network.analyze(), self._torch)

    def _program(self, number: int, found: Findings) -> None:
        program = careless.program(number)
        if program is None:
            found.unlike += 1
            return
        found.programs += 1
        found.refused += careless.theirs(program).at is not None
        what = careless.disagreement(program)
        if what is not None:
            least = careless.shrunk(program)
            what = careless.disagreement(least) or what
            found.failures.append(Failure(number, "verdict", what, least.text()))


def _fields(network: Network) -> Iterator[str]:
    yield from field_differences(network, network.analyze())


def _exporter(opset: int) -> Check:
    return lambda network: export_differences(network, opset)


def _first(check: Check, network: Network) -> str | None:
    """The first difference; a failure of any kind is one."""
    try:
        return next(iter(check(network)), None)
    except Exception as failure:
        place = extract_tb(failure.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.name}"
        return f"{type(failure).__name__} in {where}: {str(failure)[:300]}"


def _kind(what: str) -> str:
    """A difference without its names and numbers."""
    return re.sub(r"`[^`]*`|\d+|\(.*?\)|\[.*?\]", "", what)[:60]


def shrunk(spec: Spec, check: Check, what: str) -> str:
    """The text of a smaller spec which shows a difference of the same kind."""
    kind, tries = _kind(what), 0
    found = True
    while found and tries < _SHRINKINGS:
        found = False
        for less in smaller(spec):
            tries += 1
            if tries > _SHRINKINGS:
                break
            try:
                network = load(text=text_of(less))
            except SpecError:
                continue
            still = _first(check, network)
            if still is not None and _kind(still) == kind:
                spec, found = less, True
                break
    return text_of(spec)
