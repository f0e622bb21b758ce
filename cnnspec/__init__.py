"""cnnspec: convolutional networks written once, in YAML.

    import cnnspec

    net = cnnspec.load("resnet50")
    report = net.analyze()
    report.totals.macs                     # 4089184256
    report["layer1.0.conv1"].output_shape  # (64, 56, 56)
    model = net.to_torch()                 # a torch.nn.Module
    net.to_onnx("resnet50.onnx", model)    # verified against the module

Importing this loads neither torch nor onnx, and its names are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cnnspec.version import __version__

if TYPE_CHECKING:
    from cnnspec.api import Network, build, load
    from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, SpecError

__all__ = [
    "Diagnostic",
    "EnvironmentFailure",
    "Network",
    "SpecError",
    "__version__",
    "build",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from cnnspec import api, diagnostics

    return getattr(api if hasattr(api, name) else diagnostics, name)
