"""`cnnspec check`: every mistake of some specs, and whether they are what their authors expect."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field

from cnnspec.cli.option_types import one_of
from cnnspec.cli.output import write_result
from cnnspec.cli.spec_arguments import (
    SPEC_HELP,
    add_choice,
    exit_code,
    given_inputs,
    given_params,
    load_spec,
)
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, Note, SpecError, quantity
from cnnspec.frontend.load import Loaded, expand
from cnnspec.frontend.validation import schema_violations
from cnnspec.report import analyze, diagnostics_document, render_annotations
from cnnspec.report.expectations import unmet

NAME = "check"
SUMMARY = "every mistake of one or more specs, with its line"
DESCRIPTION = """\
Report every mistake of one or more specs: YAML, names, arguments, shapes,
`expect` and `assert`, in all variants.
"""
EPILOG = """\
examples:
  cnnspec check net.yaml
  cnnspec check specs/*.yaml --format json
  cnnspec check resnet --variant resnet101

exit codes:
  0 no spec has an error (warnings do not count), 1 one has, 2 one cannot be
  read or lacks what an option names
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="+", help=SPEC_HELP)
    add_choice(parser)
    parser.add_argument(
        "--strict", action="store_true", help="windows that do not fit evenly are errors"
    )
    parser.add_argument(
        "--format",
        type=one_of("--format", "text", "json", "github"),
        metavar="FORMAT",
        default="text",
        help="text (default), json, or github for annotations of a pull request",
    )


@dataclass
class _Findings:
    """What was found so far: diagnostics of specs, failures to get at one, networks built."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    failures: list[EnvironmentFailure] = field(default_factory=list)
    networks: int = 0


def run(options: argparse.Namespace) -> int:
    """Check and report."""
    findings = _Findings()
    for spec in options.specs:
        try:
            _check(spec, options, findings)
        except SpecError as failure:
            findings.diagnostics.extend(failure.diagnostics)
        except EnvironmentFailure as failure:
            findings.failures.append(failure)
    code = exit_code(findings.diagnostics)
    if options.format == "json":
        from json import dumps

        write_result(dumps(diagnostics_document(findings.diagnostics), indent=1), None)
    elif options.format == "github":
        if findings.diagnostics:
            write_result(render_annotations(findings.diagnostics), None)
    else:
        terminal = Terminal(sys.stdout)
        terminal.diagnostics(findings.diagnostics)
        if code == 0 and not findings.failures:
            specs = quantity(len(options.specs), "spec")
            terminal.write(f"{specs}, {quantity(findings.networks, 'network')}: no errors")
    for unreached in findings.failures:
        Terminal(sys.stderr).failure(unreached)
    return 2 if findings.failures else code


def _check(spec: str, options: argparse.Namespace, findings: _Findings) -> None:
    """Check one spec: all its variants unless one is chosen."""
    loaded, named = load_spec(spec)
    document = loaded.document
    found = {_key(diagnostic): diagnostic for diagnostic in (*loaded.errors, *loaded.warnings)}
    changed = bool(options.params or options.inputs)
    if changed and document.expect is not None:
        Terminal(sys.stderr).write(
            f"note: `expect` of {document.source.name} is skipped: "
            "--set and --input change the network"
        )
    own = [document.name, *(v.name.text for v in document.variants.values() if v.alias is None)]
    chosen = options.variant or named
    for variant in ([chosen] if chosen else own) if document.runnable else ():
        findings.networks += 1
        for diagnostic in _variant(loaded, variant, options, changed):
            if variant != document.name:
                diagnostic = diagnostic.noted(Note(f"in variant `{variant}`"))
            found.setdefault(_key(diagnostic), diagnostic)
    if exit_code(found.values()) == 0:
        found |= {_key(violation): violation for violation in schema_violations(document)}
    findings.diagnostics.extend(sorted(found.values(), key=_place))


def _key(diagnostic: Diagnostic) -> tuple[str, str]:
    """What makes a diagnostic of one variant that of another too."""
    return diagnostic.code, str(diagnostic.span)


def _place(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    span = diagnostic.span
    place = (span.source.name, span.line, span.column) if span is not None else ("", 0, 0)
    return *place, diagnostic.severity


def _variant(
    loaded: Loaded, variant: str, options: argparse.Namespace, changed: bool
) -> list[Diagnostic]:
    """What is wrong with one network of a spec."""
    document = loaded.document
    try:
        graph = expand(
            loaded,
            variant=variant,
            params=given_params(options.params),
            inputs=given_inputs(options.inputs),
        )
        report = analyze(graph, strict=options.strict)
    except SpecError as failure:
        return list(failure.diagnostics)
    found = list(report.warnings)
    if document.expect is not None and not changed:
        names = (document.name, *document.variants)
        found.extend(unmet(report, document.expect, variant, names))
    return found
