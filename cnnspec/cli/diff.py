"""`cnnspec diff`: what changed from one network to another, or since a revision of git."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import text, whole
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.spec_arguments import add_values, given_inputs, given_params, load_spec
from cnnspec.cli.terminal import Terminal
from cnnspec.collector import collector_paused
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.load import Loaded, expand
from cnnspec.report import Report, analyze

if TYPE_CHECKING:
    from cnnspec.report.difference import Difference

NAME = "diff"
SUMMARY = "what changed between two networks, or since a git revision"
DESCRIPTION = """\
Show what changed from network A to network B: layers, shapes, params, MACs,
fields, totals. With A alone, since the last commit.
"""
EPILOG = """\
examples:
  cnnspec diff resnet50 resnet101
  cnnspec diff net.yaml                      since the last commit
  cnnspec diff net.yaml --since origin/main --format markdown
  cnnspec diff HEAD~3:specs/net.yaml specs/net.yaml
  cnnspec diff net.yaml --variant-b wide     a variant beside the spec's own

what A and B may be:
  a file, `-` for standard input, a bundled name (vgg16), or REVISION:PATH, a
  file of a git revision with its imports; PATH starts at the top folder of the
  repository, or here if it begins with ./, as with git; :PATH is the index

signs:
  +  added    -  removed    ~  changed: operation, arguments, what it reads
  >  renamed, with its old path: keys of state dicts change
  .  only follows: figures changed because other layers did

exit codes:
  0 compared; 1 a spec is wrong, or with --exit-code: something changed; 2 usage
  or environment
"""
_LAST_COMMIT = "HEAD"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("a", metavar="A", help="the old network, see below")
    parser.add_argument("b", metavar="B", nargs="?", help="the new network")
    parser.add_argument(
        "--since",
        metavar="REVISION",
        type=text("--since"),
        help="compare file A of a git revision with A as it is",
    )
    parser.add_argument(
        "--variant", metavar="NAME", type=text("--variant"), help="a variant, of both"
    )
    for side in ("a", "b"):
        option = f"--variant-{side}"
        parser.add_argument(
            option, metavar="NAME", type=text(option), help=f"a variant, of {side.upper()} only"
        )
    add_values(
        parser,
        params="the value of a param, of both",
        inputs="sizes of an input, of both: image=3x256x256",
    )
    parser.add_argument(
        "--depth", type=whole("--depth", 1), metavar="N", help="levels of the tree to show"
    )
    add_format(
        parser,
        "text",
        "json",
        "markdown",
        help="text (default), json, or markdown for a pull request",
    )
    parser.add_argument(
        "--exit-code", action="store_true", help="exit with 1 where something changed, as git does"
    )
    add_output(parser)


@collector_paused()
def run(options: argparse.Namespace) -> int:
    """Compare and show."""
    from cnnspec.report.difference import compare

    if options.format == "json" and options.depth is not None:
        raise EnvironmentFailure("--depth is for people, and json shows all")
    old, new = _sides(options)
    if old == new == "-":
        raise EnvironmentFailure("standard input can be read once, not for both networks")
    variants = options.variant_a or options.variant, options.variant_b or options.variant
    reports = [
        _report(side, variant, options) for side, variant in zip((old, new), variants, strict=True)
    ]
    difference = compare(*reports)
    _show(difference, options)
    return 1 if options.exit_code and difference else 0


def _sides(options: argparse.Namespace) -> tuple[str, str]:
    """What is compared: two names, a file with an earlier one of it, or two variants of one."""
    from cnnspec.frontend.revisions import Revised, revised

    a, b = options.a, options.b
    if b is not None:
        if options.since is not None:
            raise EnvironmentFailure(
                "--since compares a file with an earlier one of it, so there is no second network",
                help=f"name the earlier one: `cnnspec diff {options.since}:PATH {b}`",
            )
        return a, b
    if options.since is None and (options.variant_a or options.variant_b):
        return a, a
    if a == "-" or revised(a) is not None:
        raise EnvironmentFailure("B is missing", help="`cnnspec diff --help` shows how")
    return str(Revised(options.since or _LAST_COMMIT, _from_here(a))), a


def _from_here(path: str) -> str:
    """A path of this machine as git takes it: relative to the current folder."""
    from os.path import relpath
    from pathlib import Path

    if not Path(path).is_file():
        load_spec(path)  # says that there is none
        raise EnvironmentFailure(
            f"`{path}` is bundled with cnnspec and has no history here",
            help="name a second network, or a file",
        )
    try:
        relative = Path(relpath(path)).as_posix()
    except ValueError:
        raise EnvironmentFailure(f"`{path}` is on another drive than this folder") from None
    return relative if relative.startswith("../") else f"./{relative}"


def _report(side: str, variant: str | None, options: argparse.Namespace) -> Report:
    loaded, named = _load(side)
    graph = expand(
        loaded,
        variant=variant or named,
        params=given_params(options.params),
        inputs=given_inputs(options.inputs),
    )
    return analyze(graph, warnings=loaded.warnings)


def _load(side: str) -> tuple[Loaded, str | None]:
    from cnnspec.frontend.revisions import load_revised, revised

    file = None if side == "-" else revised(side)
    return (load_revised(file), None) if file is not None else load_spec(side)


def _show(difference: Difference, options: argparse.Namespace) -> None:
    if options.format == "json":
        from json import dumps

        write_result(dumps(difference.to_dict(), indent=1), options.output)
        return
    from cnnspec.report.difference.text import difference_markdown, render_difference

    if options.format == "markdown":
        write_result(difference_markdown(difference, depth=options.depth), options.output)
        return
    terminal = Terminal(sys.stdout)
    shown = to_terminal(options.output)
    found = render_difference(
        difference,
        width=terminal.width,
        depth=options.depth,
        colour=shown and terminal.colour,
    )
    if isinstance(found, str):
        write_result(found, options.output)
    else:
        terminal.write(found)
