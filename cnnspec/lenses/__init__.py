"""Other tools' figures: what each would count and print for a network, and why it is not ours.

One file a tool, each a table keyed by what the tool itself sees, which is torch: classes,
functions, sizes and weights. Nothing here runs a model or knows an operation of a spec by its name.
"""

from __future__ import annotations

from collections.abc import Mapping

from cnnspec.lenses.fvcore import FVCORE
from cnnspec.lenses.lens import Cause, Charge, Group, Lens, Printed, Reading, Unknown, read
from cnnspec.lenses.ptflops import PTFLOPS
from cnnspec.lenses.thop import THOP
from cnnspec.lenses.timm import TIMM
from cnnspec.lenses.torchinfo import TORCHINFO
from cnnspec.lenses.torchvision import TORCHVISION

__all__ = [
    "LENSES",
    "Cause",
    "Charge",
    "Group",
    "Lens",
    "Printed",
    "Reading",
    "Unknown",
    "read",
]

LENSES: Mapping[str, Lens] = {
    lens.name: lens for lens in (TORCHVISION, TIMM, THOP, TORCHINFO, FVCORE, PTFLOPS)
}
"""All tools, by the name that `--as` takes."""
