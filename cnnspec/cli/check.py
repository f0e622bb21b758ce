"""`cnnspec check`: every mistake of some specs, and whether they are what their authors expect."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cnnspec import __version__
from cnnspec.api import Network
from cnnspec.cli.output import write_result
from cnnspec.cli.output_arguments import add_format
from cnnspec.cli.progress import counted
from cnnspec.cli.spec_arguments import (
    SPEC_HELP,
    add_choice,
    add_lint,
    exit_code,
    given_inputs,
    given_params,
    load_spec,
)
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure, Note, SpecError, quantity
from cnnspec.frontend.discovery import may_be_spec, named_files
from cnnspec.frontend.load import Loaded, bundled_specs, expand, is_bundled
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
  cnnspec check specs/ --format json
  cnnspec check specs/ --format sarif > cnnspec.sarif
  cnnspec check resnet --variant resnet101
  cnnspec check net.yaml --gradients
  cnnspec check --all

exit codes:
  0 no spec has an error (warnings do not count), 1 one has, or with --gradients
  a wrong gradient, 2 one cannot be read or lacks what an option names
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("specs", metavar="SPEC", nargs="*", help=f"a folder of specs, {SPEC_HELP}")
    parser.add_argument("--all", action="store_true", help="all specs that come with cnnspec")
    add_choice(parser)
    add_lint(parser)
    add_format(
        parser,
        "text",
        "json",
        "github",
        "sarif",
        help="text (default), json, github for annotations of a pull request, or sarif for code "
        "scanning (SARIF 2.1.0)",
    )
    parser.add_argument(
        "--gradients",
        action="store_true",
        help="also compare the gradients of the torch module with differences, in float64; of "
        "the network itself or of --variant",
    )
    parser.add_argument(
        "--only-specs",
        action="store_true",
        help="pass over files without a key `cnnspec`, as for folders: for hooks that are given "
        "all YAML files",
    )
    parser.add_argument(
        "--watch", action="store_true", help="again whenever a spec or what it imports changes"
    )


@dataclass
class _Findings:
    """What was found so far: diagnostics of specs, failures to get at one, networks built."""

    diagnostics: list[Diagnostic] = field(default_factory=list)
    failures: list[EnvironmentFailure] = field(default_factory=list)
    networks: int = 0
    wrong_gradients: bool = False


def run(options: argparse.Namespace) -> int:
    """Check and report, with `--watch` again and again."""
    given = _given(options)
    if options.watch:
        from cnnspec.cli.watching import paths_of, watch

        watch(paths_of(given), lambda: _once(given, options))
    return _once(given, options)


def _given(options: argparse.Namespace) -> Sequence[str]:
    """What SPEC and `--all` name."""
    if not options.all:
        if not options.specs:
            raise EnvironmentFailure(
                "there is nothing to check",
                help="name a spec or a folder, or `--all` for all that come with cnnspec",
            )
        return tuple(options.specs)
    chosen = {"--variant": options.variant, "--set": options.params, "--input": options.inputs}
    for option, value in chosen.items():
        if value:
            raise EnvironmentFailure(f"`{option}` is for one spec, and `--all` means many")
    return (*options.specs, *map(str, bundled_specs().values()))


def _once(given: Sequence[str], options: argparse.Namespace) -> int:
    findings = _Findings()
    specs = list(named_files(given, itself=is_bundled))
    if options.only_specs:
        specs = [spec for spec in specs if not Path(spec).is_file() or may_be_spec(spec)]
    for spec in counted(specs, "specs"):
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
    elif options.format == "sarif":
        from json import dumps

        from cnnspec.report.sarif import sarif_document

        log = sarif_document(findings.diagnostics, findings.failures, version=__version__)
        write_result(dumps(log, indent=1), None)
    elif options.format == "github":
        if findings.diagnostics:
            write_result(render_annotations(findings.diagnostics), None)
    else:
        terminal = Terminal(sys.stdout)
        terminal.diagnostics(findings.diagnostics)
        if code == 0 and not (findings.failures or findings.wrong_gradients):
            checked = quantity(len(specs), "spec")
            terminal.write(f"{checked}, {quantity(findings.networks, 'network')}: no errors")
    for unreached in findings.failures:
        Terminal(sys.stderr).failure(unreached)
    return 2 if findings.failures else max(code, int(findings.wrong_gradients))


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
    if options.gradients and document.runnable and exit_code(found.values()) == 0:
        findings.wrong_gradients |= not _gradients_right(loaded, chosen, options)


def _gradients_right(loaded: Loaded, variant: str | None, options: argparse.Namespace) -> bool:
    from cnnspec.cli.gradients import gradients_right

    network = Network(
        loaded,
        variant=variant,
        params=given_params(options.params),
        inputs=given_inputs(options.inputs),
    )
    # Documents on standard output hold diagnostics of the text alone.
    stream = sys.stdout if options.format == "text" else sys.stderr
    return gradients_right(network, Terminal(stream))


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
        report = analyze(graph, strict=options.strict, lint=options.lint)
    except SpecError as failure:
        return list(failure.diagnostics)
    found = list(report.warnings)
    if document.expect is not None and not changed:
        names = (document.name, *document.variants)
        found.extend(unmet(report, document.expect, variant, names))
    return found
