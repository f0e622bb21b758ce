"""Diagnostics as SARIF 2.1.0, the format of code scanning (OASIS, 2020).

A run with a rule for each code that was met, whose help is its page, and a result for each
diagnostic. Columns count characters from 1 and ends are exclusive, in SARIF as in spans.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cnnspec.diagnostics import Diagnostic, EnvironmentFailure
from cnnspec.report.styled import visible
from cnnspec.source import Span

__all__ = ["artifact_uri", "sarif_document"]

_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_PAGES = Path(__file__).parents[1] / "explain"
_LINK = re.compile(r"\[([^\[\]]*)\](?=\()")
_ROOT = "%SRCROOT%"
"""What relative URIs are relative to, by the name that viewers know it under."""


def sarif_document(
    diagnostics: Sequence[Diagnostic],
    failures: Iterable[EnvironmentFailure] = (),
    *,
    version: str,
) -> dict[str, Any]:
    """One SARIF log with one run.

    `failures` are files that could not be checked, `version` is that of cnnspec.
    """
    codes = sorted({diagnostic.code for diagnostic in diagnostics})
    severities = {diagnostic.code: diagnostic.severity for diagnostic in diagnostics}
    notifications = [
        {
            "level": "error",
            "message": _message("\n".join(filter(None, (f.message, _help(f.help))))),
        }
        for f in failures
    ]
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "cnnspec",
                        "semanticVersion": version,
                        "rules": [_rule(code, severities[code]) for code in codes],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "invocations": [
                    {
                        "executionSuccessful": not notifications,
                        "toolExecutionNotifications": notifications,
                    }
                ],
                "results": [_result(found, codes.index(found.code)) for found in diagnostics],
            }
        ],
    }


def _rule(code: str, level: str) -> dict[str, Any]:
    """What a code means, from its page: the title, the first paragraph, all of it."""
    page = _PAGES / f"{code}.md"
    rule: dict[str, Any] = {"id": code, "defaultConfiguration": {"level": level}}
    if page.is_file():
        text = page.read_text(encoding="utf-8")
        title, _, body = text.partition("\n")
        paragraph = body.strip().partition("\n\n")[0]
        rule["shortDescription"] = {"text": title.removeprefix("# ")}
        rule["fullDescription"] = {"text": " ".join(paragraph.split())}
        rule["help"] = {"text": text, "markdown": text}
    return rule


def _result(found: Diagnostic, rule: int) -> dict[str, Any]:
    """One diagnostic. Notes without a place, and the help, are part of its message."""
    lines = [": ".join(filter(None, (found.message, found.label)))]
    lines += [f"note: {note.message}" for note in found.notes if note.span is None]
    result: dict[str, Any] = {
        "ruleId": found.code,
        "ruleIndex": rule,
        "level": found.severity,
        "message": _message("\n".join([*lines, *filter(None, [_help(found.help)])])),
        "locations": [_location(found.span)] if found.span is not None else [],
    }
    related = [
        {"id": number, **_location(note.span), "message": _message(note.message)}
        for number, note in enumerate((n for n in found.notes if n.span is not None), start=1)
        if note.span is not None
    ]
    if related:
        result["relatedLocations"] = related
    return result


def _help(text: str) -> str:
    return f"help: {text}" if text else ""


def _message(text: str) -> dict[str, str]:
    """Text of which nothing is taken for a link, and whose control characters can be seen."""
    shown = "\n".join(map(visible, text.split("\n")))
    return {"text": _LINK.sub(r"\\[\1\\]", shown)}


def _location(span: Span) -> dict[str, Any]:
    return {
        "physicalLocation": {
            "artifactLocation": artifact_uri(span.source.name),
            "region": {
                "startLine": span.line,
                "startColumn": span.column,
                "endLine": span.end_line,
                "endColumn": span.end_column,
            },
        }
    }


def artifact_uri(name: str) -> dict[str, str]:
    """The URI of a file as users name it: relative to the current folder where it lies in it."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        path = Path(os.path.abspath(path))
        try:
            path = path.relative_to(Path.cwd())
        except ValueError:
            return {"uri": path.as_uri()}
    return {"uri": quote(os.fsencode(path.as_posix())), "uriBaseId": _ROOT}
