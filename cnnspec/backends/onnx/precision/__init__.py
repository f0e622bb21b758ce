"""float16 and int8: a proved float32 model to a smaller or faster one, and what stays float32.

Models come in as ONNX and leave as ONNX. How one is built from a graph, how near a converted one
stays to its original, and files may not enter.
"""

from __future__ import annotations

from cnnspec.backends.onnx.precision.calibration import Method
from cnnspec.backends.onnx.precision.half import rounded, to_half
from cnnspec.backends.onnx.precision.int8 import Target, quantize
from cnnspec.backends.onnx.precision.kept import Converted, Kept
from cnnspec.backends.onnx.precision.running import Feeds, Progress
from cnnspec.runtime.advice import advice

__all__ = [
    "Converted",
    "Feeds",
    "Kept",
    "Method",
    "Progress",
    "Target",
    "advice",
    "quantize",
    "rounded",
    "to_half",
]
