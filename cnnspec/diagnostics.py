"""What is wrong, where, and what would help: diagnostics as values.

Rules of ops raise `Reject` and know no location; whoever called them attaches one. Rendering lives
in `cnnspec.report`; the page of every code lives in `cnnspec/explain`. Wording: a message states
the fact, in lower case and without a full stop; only `help` suggests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from cnnspec.source import Span

__all__ = [
    "SILENCEABLE",
    "Diagnostic",
    "EnvironmentFailure",
    "Note",
    "Reject",
    "Severity",
    "SpecError",
    "did_you_mean",
    "error",
    "listed",
    "nearest",
    "quantity",
    "shape_text",
    "warning",
]

Severity = Literal["error", "warning"]

SILENCEABLE = (
    "unread-rows",
    "kernel-exceeds-input",
    "dead-entry",
    "bias-before-norm",
    "skipped-positions",
    "field-smaller-than-input",
    "field-outgrown",
    "odd-channels",
    "unfoldable-norm",
    "not-quantizable",
    "not-tensorrt",
)
"""The warnings that `allow` on an entry may silence."""


@dataclass(frozen=True, slots=True)
class Note:
    """A further fact about a diagnostic, with the place it is about where there is one."""

    message: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `severity[code]: message`, the span it is about, a label under it, notes, help.

    `span` is None only for findings about the command line, never about a spec.
    """

    severity: Severity
    code: str
    message: str
    span: Span | None = None
    label: str = ""
    notes: tuple[Note, ...] = ()
    help: str = ""

    def noted(self, *notes: Note) -> Diagnostic:
        """This diagnostic with further notes at the end."""
        return replace(self, notes=(*self.notes, *notes))


def error(
    code: str,
    message: str,
    span: Span | None = None,
    *,
    label: str = "",
    notes: Iterable[Note] = (),
    help: str = "",
) -> Diagnostic:
    """An error: the spec has no meaning until it is mended."""
    return Diagnostic("error", code, message, span, label, tuple(notes), help)


def warning(
    code: str,
    message: str,
    span: Span | None = None,
    *,
    label: str = "",
    notes: Iterable[Note] = (),
    help: str = "",
) -> Diagnostic:
    """A warning: the spec has a meaning, probably not the one its author wants."""
    return Diagnostic("warning", code, message, span, label, tuple(notes), help)


class SpecError(Exception):
    """A spec that cannot be used. `diagnostics` holds every independent cause found in one run."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        super().__init__(
            "\n".join(f"{d.span}: {d.code}: {d.message}" for d in self.diagnostics)
            or "no diagnostics"
        )


class EnvironmentFailure(Exception):
    """Nothing is wrong with a spec, but the work cannot be done here: a missing file, a full disk.

    The command line prints `error: MESSAGE` and `help: HELP` and exits with 2.
    """

    def __init__(self, message: str, *, help: str = "") -> None:
        self.message = message
        self.help = help
        super().__init__(message)


class Reject(Exception):
    """Raised by a rule that cannot accept its arguments or inputs.

    `at` names what is to blame: a field of the op (`"groups"`), an input by position (`0`), or None
    for the operation as a whole. The driver turns it into a `Diagnostic` at that place. `label`
    is written under the place, `notes` follow.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        at: str | int | None = None,
        label: str = "",
        notes: Iterable[str] = (),
        help: str = "",
    ) -> None:
        self.code = code
        self.message = message
        self.at = at
        self.label = label
        self.notes = tuple(notes)
        self.help = help
        super().__init__(f"{code}: {message}")

    def located(self, span: Span | None, notes: Iterable[Note] = ()) -> Diagnostic:
        """The diagnostic this becomes at `span`."""
        own = tuple(Note(text) for text in self.notes)
        return Diagnostic(
            "error", self.code, self.message, span, self.label, (*own, *notes), self.help
        )


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate a writer of `name` most probably meant, or None where none is near.

    Letter case and the separators `_`, `-` and `.` do not count against a candidate; otherwise
    about a third of the letters may differ.
    """
    from difflib import SequenceMatcher

    wanted = _folded(name)
    if not wanted:
        return None
    best: tuple[float, str] | None = None
    for candidate in candidates:
        folded = _folded(candidate)
        if folded == wanted:
            return candidate
        matcher = SequenceMatcher(None, wanted, folded, autojunk=False)
        if matcher.real_quick_ratio() < 0.66 or matcher.quick_ratio() < 0.66:
            continue
        swapped = sorted(wanted) == sorted(folded)  # two letters the wrong way round
        ratio = 0.99 if swapped else matcher.ratio()
        if ratio >= 0.66 and (best is None or ratio > best[0]):
            best = ratio, candidate
    return best[1] if best else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The text for `help` that names the nearest candidate; empty where none is near."""
    found = nearest(name, candidates)
    return f"did you mean `{found}`?" if found else ""


def _folded(name: str) -> str:
    return name.lower().translate({ord("_"): None, ord("-"): None, ord("."): None})


def listed(names: Iterable[str]) -> str:
    """Names as messages list them: `a`, `b`."""
    return ", ".join(f"`{name}`" for name in names)


def shape_text(shape: Iterable[int]) -> str:
    """A shape as users read it: `64x56x56`; a tensor of no axes is a `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def quantity(count: int, noun: str) -> str:
    """`1 input`, `2 inputs`, `3 classes`: a count and its noun."""
    if count == 1:
        return f"{count} {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"
