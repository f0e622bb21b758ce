"""Whole numbers that are not known yet: formulas, the conditions they hold under, sets of sizes.

`polynomial` has canonical expressions, `number` a number that carries one and notes every question
asked of it, `sizes` the exact set of sizes for which conditions hold, `formula` what people read.
An operation's own rules run on such numbers, so formulas are proved by construction. Nothing here
knows an op, a graph or a report.
"""

from __future__ import annotations

from cnnspec.symbolic.formula import Formula, Simplifier, formula
from cnnspec.symbolic.number import Condition, Guard, Symbolic, Trail
from cnnspec.symbolic.polynomial import Floor, Polynomial, Symbol
from cnnspec.symbolic.sizes import SizeSet

__all__ = [
    "Condition",
    "Floor",
    "Formula",
    "Guard",
    "Polynomial",
    "Simplifier",
    "SizeSet",
    "Symbol",
    "Symbolic",
    "Trail",
    "formula",
]
