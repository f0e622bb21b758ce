"""What to say before a model of another precision is run on a CPU.

Text from facts about a processor; nothing is measured here, and a GPU is not asked about.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from pathlib import Path
from typing import Literal

__all__ = ["Precision", "advice", "processor_flags"]

Precision = Literal["float16", "int8"]

_CPUINFO = Path("/proc/cpuinfo")

_X86 = frozenset(("x86_64", "amd64", "i386", "i686"))
_ARM = frozenset(("aarch64", "arm64"))

_INT8_SUMS = frozenset(("avx512_vnni", "avx_vnni", "amx_int8", "avx_vnni_int8"))
"""x86: instructions that multiply 8 bits and add up in 32."""
_ARM_SUMS = frozenset(("asimddp", "i8mm"))
"""The same of ARM: dot products and matrix products of 8 bits."""
_ARM_HALF = frozenset(("asimdhp",))

_EMULATED = (
    "on a CPU float16 is slower than float32: ONNX Runtime computes it in float32 and converts "
    "back and forth"
)
_UNKNOWN = "what this processor does with {} is not known here"


def advice(
    precision: Precision, flags: Collection[str] | None = None, machine: str | None = None
) -> str | None:
    """Why a model of `precision` may be no faster on the CPU; None where nothing speaks against it.

    `flags` are the processor's features as Linux calls them, `machine` its architecture; those of
    this machine unless given. No flags at all mean that they are not known.
    """
    found = processor_flags() if flags is None else frozenset(flags)
    kind = (platform.machine() if machine is None else machine).lower()
    if precision == "float16":
        return _half(found, kind)
    return _int8(found, kind)


def processor_flags() -> frozenset[str]:
    """The features of this processor as Linux names them; none where that cannot be told."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _half(flags: frozenset[str], machine: str) -> str | None:
    if machine in _X86:
        return _EMULATED
    if machine in _ARM and flags and not flags & _ARM_HALF:
        return _EMULATED
    if machine in _ARM and flags:
        return (
            "on this CPU ONNX Runtime has float16 kernels for some operators only, and computes "
            "the others in float32"
        )
    return _UNKNOWN.format("float16")


def _int8(flags: frozenset[str], machine: str) -> str | None:
    if machine in _X86 and flags:
        if flags & _INT8_SUMS:
            return None
        if "avx2" in flags:
            return "this CPU has no VNNI: int8 may be no faster than float32"
        return "this CPU has neither VNNI nor AVX2: int8 may be slower than float32"
    if machine in _ARM and flags:
        if flags & _ARM_SUMS:
            return None
        return "this CPU has no 8-bit dot products: int8 may be no faster than float32"
    return _UNKNOWN.format("int8")
