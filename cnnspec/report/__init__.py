"""From facts and diagnostics to what people and programs read: text, JSON, CSV, Markdown.

Nothing is computed here that a pass could compute, and nothing is known about an op but its name as
text. Text from a spec is always plain: markup and control characters in it never act.
"""

from __future__ import annotations

from cnnspec.passes.lint import lint_rules
from cnnspec.report.columns import COLUMNS
from cnnspec.report.csv import to_csv
from cnnspec.report.markdown import to_markdown
from cnnspec.report.model import Report, analyze
from cnnspec.report.render import (
    diagnostics_document,
    render_annotations,
    render_diagnostics,
)
from cnnspec.report.section import Section
from cnnspec.report.table import render_table

__all__ = [
    "COLUMNS",
    "Report",
    "Section",
    "analyze",
    "diagnostics_document",
    "lint_rules",
    "render_annotations",
    "render_diagnostics",
    "render_table",
    "to_csv",
    "to_markdown",
]
