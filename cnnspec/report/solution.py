"""What windows fit an axis, as text and as JSON: the formula with the numbers put in.

Which windows those are is found in `cnnspec.geometry.solving`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import cached_property
from math import gcd, prod
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure, quantity
from cnnspec.geometry.solving import Fit, Question, fits
from cnnspec.report.numbers import plain_number
from cnnspec.report.styled import Line

__all__ = ["Solution"]

_MOST_TRIED = 1_000_000
_MOST_ROWS = 60
_MOST_SUMS = 4
_GAP = "  "


@dataclass(frozen=True)
class Solution:
    """The windows that a question admits. Raises `EnvironmentFailure` for too wide a question."""

    question: Question

    def __post_init__(self) -> None:
        tried = prod(
            len(values) if values is not None else self.question.most_kernel
            for values in (
                self.question.sizes or self.question.outs,
                self.question.kernels,
                self.question.strides,
                self.question.paddings,
                self.question.dilations,
            )
        )
        if tried > _MOST_TRIED:
            raise EnvironmentFailure(
                f"that is about {tried:,} windows to try, and {_MOST_TRIED:,} is the limit",
                help="give fewer values, or shorter ranges",
            )

    @cached_property
    def fits(self) -> tuple[Fit, ...]:
        """The windows, each once, in the order of their numbers."""
        found = dict.fromkeys(fits(self.question))
        by_padding = self.question.sizes is None and self.question.paddings is None
        return tuple(
            sorted(
                found,
                key=lambda fit: (
                    0 if by_padding else fit.size,
                    fit.kernel,
                    fit.dilation,
                    fit.stride,
                    fit.before + fit.after,
                    fit.size,
                ),
            )
        )

    # -------------------------------------------------------------------------------- as text

    def lines(self) -> Iterator[Line]:
        """The formula, what is given, a row for each window, and remarks."""
        found = self.fits
        yield [("formula", "bold"), (f"{_GAP}{self._formula}", "")]
        extent = f"{_GAP}extent = dilation * (kernel - 1) + 1"
        if any(fit.dilation > 1 for fit in found):
            yield [("       ", ""), (extent, "")]
        given = self._given
        if given:
            listed = ", ".join(f"{name} {value}" for name, value in given.items())
            yield [("given  ", "bold"), (f"{_GAP}{listed}", "")]
        yield [("", "")]
        if not found:
            yield [("nothing fits", "bold")]
            yield from ([(f"{_GAP}{remark}", "")] for remark in self._reasons())
            return
        told = [*given, "out"] if self._is_dilated else [*given, "dilation", "out"]
        yield from self._rows([name for name in _PARTS if name not in told])
        remarks = tuple(self._remarks())
        if remarks:
            yield [("", "")]
            yield from ([(remark, "dim")] for remark in remarks)

    @property
    def _formula(self) -> str:
        rounding = "ceil" if self.question.ceil else "floor"
        return f"out = {rounding}((in + before + after - extent) / stride) + 1".replace(
            "extent", "extent" if self._is_dilated else "kernel"
        )

    @property
    def _is_dilated(self) -> bool:
        return any(dilation > 1 for dilation in self.question.dilations)

    @property
    def _given(self) -> dict[str, str]:
        """The parts for which there is one value, as text."""
        question = self.question
        values: dict[str, Sequence[object] | None] = {
            "in": question.sizes,
            "kernel": question.kernels,
            "dilation": question.dilations if self._is_dilated else None,
            "stride": question.strides,
            "padding": question.paddings,
        }
        if not self.fits:
            values["out"] = question.outs
        found = {
            name: several[0] for name, several in values.items() if several and len(several) == 1
        }
        return {
            name: _padding_text(*value) if isinstance(value, tuple) else str(value)
            for name, value in found.items()
            if not isinstance(value, str) or not self.fits
        }

    def _text(self, name: str, fit: Fit) -> str:
        if name == "padding":
            return _padding_text(fit.before, fit.after)
        return str(_PARTS[name](fit))

    def _rows(self, shown: Sequence[str]) -> Iterator[Line]:
        listed = self.fits[:_MOST_ROWS]
        heads = [*shown, "out"]
        table = [[self._text(name, fit) for name in heads] for fit in listed]
        widths = [max(len(row[column]) for row in (heads, *table)) for column in range(len(heads))]
        sums = [_sum(fit) for fit in listed]
        width = max(map(len, sums))
        yield [(_GAP.join(map(str.rjust, heads, widths)) + f"{_GAP}how", "bold")]
        for row, fit, text in zip(table, listed, sums, strict=True):
            verdict, style = _verdict(fit)
            yield [
                (_GAP.join(map(str.rjust, row, widths)), "bold" if fit.exact else ""),
                (f"{_GAP}{text:<{width}}{_GAP}", ""),
                (verdict, style),
            ]
        if len(self.fits) > _MOST_ROWS:
            yield [
                (f"and {len(self.fits) - _MOST_ROWS:,} more, all of them with --format json", "")
            ]

    def _remarks(self) -> Iterator[str]:
        """What the rows do not say."""
        question = self.question
        if question.paddings is None:
            yield from self._parity()
            limit = "half of the kernel" if question.pool else "one below the extent of the kernel"
            uneven = "" if question.pool else "; of uneven ones those that fit, one more behind"
            yield f"tried: paddings up to {limit}{uneven}"
        if question.strides is None:
            yield "tried: strides up to the extent of the kernel; larger ones skip positions"
        if question.kernels is None:
            yield f"tried: kernels up to {question.most_kernel}"

    def _parity(self) -> Iterator[str]:
        """Where no symmetric padding can ever fit."""
        if self.question.sizes is None:
            return
        odd: dict[str, None] = {}
        for fit in self.fits:
            if (fit.size - fit.extent) % gcd(2, fit.stride):
                odd[f"{fit.size} + 2p - {fit.extent}"] = None
        listed = ", ".join([*odd][:_MOST_SUMS]) + (", ..." if len(odd) > _MOST_SUMS else "")
        if odd:
            are = "is" if len(odd) == 1 else "are"
            yield f"no symmetric padding fits exactly where {listed} {are} odd: the stride is even"

    def _reasons(self) -> Iterator[str]:
        """Why nothing fits."""
        question = self.question
        if question.sizes is not None and question.outs is not None:
            others = sorted({fit.out for fit in fits(changed(question, outs=None))})
            if len(others) == 1:
                yield f"the output is {others[0]}"
            elif others:
                yield f"outputs are {others[0]} to {others[-1]}"
            else:
                yield self._too_large
        elif question.sizes is not None:
            yield self._too_large
        else:
            yield "every input that would give this output has no positions"
        yield from self._remarks()

    @property
    def _too_large(self) -> str:
        more = ", by a stride or more" if self.question.ceil else ""
        return f"the kernel covers more than the padded input{more}"

    # -------------------------------------------------------------------------------- as JSON

    def document(self) -> dict[str, Any]:
        """The windows as a JSON object, format 1."""
        return {
            "format": 1,
            "formula": self._formula,
            "solutions": [
                {
                    "in": fit.size,
                    "kernel": fit.kernel,
                    "stride": fit.stride,
                    "dilation": fit.dilation,
                    "padding": [fit.before, fit.after],
                    "out": fit.out,
                    "exact": fit.exact,
                    "left": fit.left,
                    "unread": fit.unread,
                    "same": fit.same,
                    "calculation": f"{_sum(fit)} = {fit.out}",
                }
                for fit in self.fits
            ],
        }


_PARTS: dict[str, Callable[[Fit], object]] = {
    "in": lambda fit: fit.size,
    "kernel": lambda fit: fit.kernel,
    "dilation": lambda fit: fit.dilation,
    "stride": lambda fit: fit.stride,
    "padding": lambda fit: (fit.before, fit.after),
    "out": lambda fit: fit.out,
}


def _padding_text(before: int, after: int) -> str:
    return str(before) if before == after else f"{before}:{after}"


def _sum(fit: Fit) -> str:
    """The right-hand side with the numbers put in, and what is rounded."""
    sides = (
        f" + {fit.before} + {fit.after}"
        if not fit.symmetric
        else f" + 2*{fit.before}"
        if fit.before
        else ""
    )
    inner = f"({fit.size}{sides} - {fit.extent}) / {fit.stride}"
    if fit.exact:
        return f"{inner} + 1"
    rounding = "ceil" if fit.ceil else "floor"
    quotient = plain_number(fit.room / fit.stride)
    dropped = " - 1" if fit.clipped else ""
    return f"{rounding}({inner}) + 1{dropped} = {rounding}({quotient}) + 1{dropped}"


def _verdict(fit: Fit) -> tuple[str, str]:
    """Whether a window fits, and what becomes of the rest."""
    words = ["fits"] if fit.exact else [_rest(fit)]
    if fit.same and (fit.before or fit.after):
        words.append("`same`")
    if fit.out == fit.size and fit.stride == 1:
        words.append("keeps the size")
    return "; ".join(words), "green" if fit.exact else "yellow"


def _rest(fit: Fit) -> str:
    """What becomes of the positions that are left over."""
    if fit.clipped:
        return "the last window would start in the padding"
    if fit.ceil:
        return f"the last window is short of {quantity(fit.short, 'position')}"
    if fit.unread:
        return f"{quantity(fit.unread, 'position')} of the input unread"
    if fit.left > fit.after:
        return f"{quantity(fit.left - fit.after, 'position')} skipped, as between windows"
    return f"{quantity(fit.left, 'position')} of padding unread"
