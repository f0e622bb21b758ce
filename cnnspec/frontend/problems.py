"""Collects what is wrong with a spec, so that one run reports every independent cause once."""

from __future__ import annotations

from cnnspec.diagnostics import Diagnostic, SpecError
from cnnspec.source import Span

__all__ = ["MAX_ERRORS", "Problems"]

MAX_ERRORS = 100
"""Errors after which expansion stops; nobody reads more."""


class Problems:
    """Diagnostics in the order found. A second one of the same code at the same place is dropped:
    a block called five times is wrong once."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []
        self._seen: set[tuple[str, str | None]] = set()

    def add(self, diagnostic: Diagnostic) -> None:
        """Keep a diagnostic, unless its cause is known."""
        key = diagnostic.code, str(diagnostic.span) if diagnostic.span else None
        if key in self._seen:
            return
        self._seen.add(key)
        self._found.append(diagnostic)
        if len(self.errors) >= MAX_ERRORS:
            self.stop()

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        """The errors, in the order found."""
        return tuple(d for d in self._found if d.severity == "error")

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """The warnings, in the order found."""
        return tuple(d for d in self._found if d.severity == "warning")

    def stop(self) -> None:
        """Raise `SpecError` with all errors, in the order of the text, if there are any."""
        if self.errors:
            raise SpecError(sorted(self.errors, key=lambda d: _place(d.span)))


def _place(span: Span | None) -> tuple[str, int, int]:
    return (span.source.name, span.line, span.column) if span else ("", 0, 0)
