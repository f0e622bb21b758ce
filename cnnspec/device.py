"""What a machine can do at most: rates of arithmetic and of memory, from its data sheet.

Files are read in `cnnspec.frontend.devices`; those that come with cnnspec lie in `devices/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cnnspec.diagnostics import EnvironmentFailure

__all__ = ["RATES", "Device"]

RATES = ("float64", "float32", "tf32", "float16", "bfloat16", "int8")
"""What data sheets give rates for. tf32 is float32 multiplied by matrix units, with fewer bits."""


@dataclass(frozen=True, slots=True)
class Device:
    """A machine. All rates are peaks of dense arithmetic, per second; reality stays below them.

    `bandwidth` is bytes to and from main memory. `peak` has operations of matrix products by type,
    a multiply-accumulate being two; `vector` those of elementwise arithmetic, where they differ.
    """

    name: str
    bandwidth: float
    peak: Mapping[str, float]
    vector: Mapping[str, float] = field(default_factory=dict)
    source: str = ""

    def matrix_rate(self, dtype: str) -> tuple[str, float]:
        """The highest rate at which matrix products of `dtype` may run, and its name.

        That of tf32 for float32 where there is one: torch convolves so by default. Raises
        `EnvironmentFailure` for a type the data sheet says nothing about.
        """
        names = ("tf32", "float32") if dtype == "float32" else (dtype,)
        for name in names:
            if name in self.peak:
                return name, self.peak[name]
        raise EnvironmentFailure(
            f"{self.name} has no rate for {dtype}", help=f"it has rates for {', '.join(self.peak)}"
        )

    def vector_rate(self, dtype: str) -> float:
        """The rate of elementwise arithmetic in `dtype`: that of matrix products if not said."""
        return self.vector.get(dtype, self.matrix_rate(dtype)[1])
