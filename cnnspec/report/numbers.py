"""Numbers as people read them. Exact ones keep every digit; short ones keep three."""

from __future__ import annotations

__all__ = ["binary_size", "duration", "exact", "percent", "plain_number", "short"]

_UNITS = ("", " K", " M", " G", " T", " P", " E")


def exact(number: int) -> str:
    """Every digit, in groups of three: `4,089,184,256`."""
    return f"{number:,}"


def short(number: int) -> str:
    """Three significant digits and a decimal unit: `4.09 G`; below 1,000 the number itself."""
    unit = 0
    value = float(number)
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1000
        unit += 1
    if unit == 0:
        return str(number)
    return f"{_three_digits(value)}{_UNITS[unit]}"


def binary_size(size: int) -> str:
    """Bytes in binary units (1 MiB is 2^20 bytes): `97.5 MiB`, or B, KiB, GiB."""
    if size < 1 << 10:
        return f"{size} B"
    if size < 1 << 20:
        return f"{size / (1 << 10):.1f} KiB"
    if size < 1 << 30:
        return f"{size / (1 << 20):.1f} MiB"
    return f"{size / (1 << 30):,.1f} GiB"


def percent(part: int, whole: int) -> str:
    """A share to one decimal: `45.2%`; nothing where there is no whole."""
    return f"{100 * part / whole:.1f}%" if whole else ""


def plain_number(value: float) -> str:
    """A number without superfluous decimals: `32`, `0.5`, `2.5`."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def duration(seconds: float) -> str:
    """A time in three significant digits: `1.23 ms`, `45.6 us`, `7.89 s`."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 0.9995:
            return f"{_three_digits(seconds * factor)} {unit}"
    return f"{_three_digits(seconds * 1e9)} ns"


def _three_digits(value: float) -> str:
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
