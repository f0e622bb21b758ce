"""The proof of a model: well-formed, shaped as analysed, and equal to torch when it runs.

Judges a finished model. Nothing that writes or repairs one may enter.
"""

from __future__ import annotations

from cnnspec.backends.onnx.verify.agreement import Agreement, Precision, agree
from cnnspec.backends.onnx.verify.proof import verify
from cnnspec.backends.onnx.verify.verdict import (
    FAIL_ABOVE,
    REPORT_ABOVE,
    Comparison,
    LayerComparison,
    Thorough,
    Verification,
    VerificationFailure,
)

__all__ = [
    "FAIL_ABOVE",
    "REPORT_ABOVE",
    "Agreement",
    "Comparison",
    "LayerComparison",
    "Precision",
    "Thorough",
    "Verification",
    "VerificationFailure",
    "agree",
    "verify",
]
