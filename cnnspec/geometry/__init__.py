"""Geometry along one axis: output sizes, how ops look back, and exact receptive fields.

`sizes` is arithmetic, `views` says how an op looks back, `fields` composes views from the network
input on. Pure functions of integers: nothing here knows an op, a graph, a report or a library.
"""

from __future__ import annotations

from cnnspec.geometry.fields import AxisField, apply, empty_field, input_field, join
from cnnspec.geometry.sizes import (
    conv_size,
    kernel_extent,
    pool_size,
    remainder,
    same_padding,
    taps_inside,
    transposed_size,
    unread,
)
from cnnspec.geometry.views import (
    POINTWISE,
    TABLE_LIMIT,
    AlsoEverything,
    Bicubic,
    Bilinear,
    Continued,
    Everything,
    Flattened,
    Nearest,
    PeriodicView,
    Span,
    Taps,
    Transposed,
    Unknown,
    View,
    Window,
    adaptive_taps,
    bicubic_taps,
    bilinear_taps,
    nearest_taps,
)

__all__ = [
    "POINTWISE",
    "TABLE_LIMIT",
    "AlsoEverything",
    "AxisField",
    "Bicubic",
    "Bilinear",
    "Continued",
    "Everything",
    "Flattened",
    "Nearest",
    "PeriodicView",
    "Span",
    "Taps",
    "Transposed",
    "Unknown",
    "View",
    "Window",
    "adaptive_taps",
    "apply",
    "bicubic_taps",
    "bilinear_taps",
    "conv_size",
    "empty_field",
    "input_field",
    "join",
    "kernel_extent",
    "nearest_taps",
    "pool_size",
    "remainder",
    "same_padding",
    "taps_inside",
    "transposed_size",
    "unread",
]
