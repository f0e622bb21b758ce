"""Golden files: `UPDATE_GOLDEN=1 pytest tests/report` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["check"]

FOLDER = Path(__file__).parent.parent / "golden" / "report"


def check(name: str, text: str) -> None:
    """Assert that `text` is what the file `name` holds."""
    path = FOLDER / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8", newline="\n")
    assert text == path.read_text(encoding="utf-8")
