"""What changed from one network to another: found, folded into rows, laid out."""

from __future__ import annotations

from cnnspec.report.difference.changes import Difference, compare
from cnnspec.report.difference.text import difference_markdown, render_difference

__all__ = ["Difference", "compare", "difference_markdown", "render_difference"]
