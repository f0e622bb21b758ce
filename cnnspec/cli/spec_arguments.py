"""The arguments that choose a network: SPEC, `--variant`, `--set`, `--input`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cnnspec.cli.option_types import names, text
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure
from cnnspec.frontend import tree
from cnnspec.frontend.load import Loaded, expand, load_named, load_text
from cnnspec.frontend.origins import Disk
from cnnspec.frontend.reader import MAX_BYTES, read
from cnnspec.ir import Graph
from cnnspec.report import lint_rules
from cnnspec.source import Source

if TYPE_CHECKING:
    from cnnspec.device import Device

__all__ = [
    "SPEC_HELP",
    "Given",
    "add_choice",
    "add_lint",
    "add_values",
    "chosen_graph",
    "exit_code",
    "given_device",
    "given_inputs",
    "given_params",
    "load_spec",
    "standard_input",
]

SPEC_HELP = "a file, `-` for standard input, or a bundled name (vgg16)"

_SIZES = re.compile(r"\d+([x,]\d+)*")
_LONGEST_SIZES = 100


@dataclass(frozen=True, eq=False, repr=False)
class Given(Source):
    """Text that comes from the command line; what is wrong with it is wrong usage."""


def exit_code(found: Iterable[Diagnostic]) -> int:
    """0 without errors, 1 if a spec has one, 2 if all are about values of the command line."""
    errors = [diagnostic for diagnostic in found if diagnostic.severity == "error"]
    given = [d for d in errors if d.span is None or isinstance(d.span.source, Given)]
    if not errors:
        return 0
    return 2 if len(given) == len(errors) else 1


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose a variant, params and input sizes."""
    parser.add_argument(
        "--variant",
        metavar="NAME",
        type=text("--variant"),
        help="a variant of the spec; its own name means none",
    )
    add_values(
        parser,
        params="the value of a param, as YAML: classes=10, depths=[2,2]",
        inputs="sizes of an input without the batch, image=3x256x256, or of a symbol, H=256",
    )


def add_values(parser: argparse.ArgumentParser, *, params: str, inputs: str) -> None:
    """Add the options that choose params and input sizes, with a help for each."""
    parser.add_argument(
        "--set",
        dest="params",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help=params,
    )
    parser.add_argument(
        "--input",
        dest="inputs",
        metavar="NAME=SIZES",
        action="append",
        default=[],
        help=inputs,
    )


def add_lint(parser: argparse.ArgumentParser) -> None:
    """Add the options that ask for more than the usual findings."""
    parser.add_argument(
        "--strict", action="store_true", help="windows that do not fit evenly are errors"
    )
    parser.add_argument(
        "--lint",
        metavar="A,B",
        type=_lint_rules,
        action="extend",
        default=[],
        help="further rules, such as odd-channels or not-tensorrt, or all",
    )


def _lint_rules(given: str) -> frozenset[str]:
    return lint_rules(names("--lint")(given))


def load_spec(spec: str) -> tuple[Loaded, str | None]:
    """The document that SPEC names, and the variant if it is the name of a bundled one."""
    if spec == "-":
        return load_text(standard_input(), "<stdin>"), None
    return load_named(spec)


def chosen_graph(options: argparse.Namespace) -> Graph:
    """The network that SPEC and the options of `add_choice` name."""
    loaded, named = load_spec(options.spec)
    return expand(
        loaded,
        variant=options.variant or named,
        params=given_params(options.params),
        inputs=given_inputs(options.inputs),
    )


def standard_input() -> bytes:
    """What comes from standard input, up to a byte more than a spec may have."""
    if sys.stdin is None:
        raise EnvironmentFailure("standard input cannot be read: it is closed")
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as failure:
        reason = (failure.strerror or "unknown reason").lower()
        raise EnvironmentFailure(f"standard input cannot be read: {reason}") from None


def given_device(given: str) -> Device:
    """The device that `--device` names: a bundled one or a file."""
    from cnnspec.frontend.devices import device_path, read_device

    path = device_path(given)
    text = Disk().read(path, str(path))
    return read_device(Given(text.name, text.text))


def given_params(texts: Iterable[str]) -> dict[str, tree.Node]:
    """The values of `--set`, read as YAML."""
    found: dict[str, tree.Node] = {}
    for given in texts:
        name, value = _split(given, "--set", "classes=10")
        source = Given(f"--set {name}", value)
        found[name] = read(source) if value.strip() else tree.Scalar("", source.span(0, 0))
    return found


def given_inputs(texts: Iterable[str]) -> dict[str, object]:
    """The sizes of `--input`."""
    found: dict[str, object] = {}
    for given in texts:
        name, value = _split(given, "--input", "image=3x256x256")
        sizes = value.strip().strip("[]").replace(" ", "")
        if not _SIZES.fullmatch(sizes) or len(sizes) > _LONGEST_SIZES:
            shown = f"`{value}`" if 0 < len(value) <= _LONGEST_SIZES else "that"
            raise EnvironmentFailure(
                f"--input {name} needs sizes, not {shown if value else 'nothing'}",
                help="for example --input image=3x256x256",
            )
        found[name] = tuple(int(size) for size in re.split("[x,]", sizes))
    return found


def _split(given: str, option: str, example: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name.strip():
        raise EnvironmentFailure(
            f"{option} takes a name and a value, not {f'`{given}`' if given else 'nothing'}",
            help=f"for example {option} {example}",
        )
    return name.strip(), value
