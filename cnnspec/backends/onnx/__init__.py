"""To ONNX: a model written directly from the graph, its proof against torch, the file.

No tracing. Networks reach this room as a graph and weights only, never as YAML.
"""

from __future__ import annotations

from cnnspec.backends.onnx.build import to_model
from cnnspec.backends.onnx.file import ExportReport, export
from cnnspec.backends.onnx.session import newest_opset
from cnnspec.backends.onnx.verify import Verification, VerificationFailure, verify

__all__ = [
    "ExportReport",
    "Verification",
    "VerificationFailure",
    "export",
    "newest_opset",
    "to_model",
    "verify",
]
