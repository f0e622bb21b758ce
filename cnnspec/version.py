"""The version of cnnspec, which files that it writes carry. Nothing else may enter."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
