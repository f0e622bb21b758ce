"""The parser of the command line: argparse, with cnnspec's wording and without abbreviations.

What the arguments of a command are is said in the command's own file.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import PurePath
from shlex import quote
from typing import Any, NoReturn, Protocol

from cnnspec import __version__
from cnnspec.cli.output import put
from cnnspec.cli.terminal import columns
from cnnspec.diagnostics import EnvironmentFailure, did_you_mean

__all__ = ["Command", "parse", "parsers"]

_PIPE_WIDTH = 80
_MARGIN = 2


class Command(Protocol):
    """What a module of this room says about its command."""

    NAME: str
    SUMMARY: str
    """One line, for the list of commands."""
    DESCRIPTION: str
    EPILOG: str | Callable[[], str]
    """The end of its help, or what makes it when help is shown."""

    @property
    def configure(self) -> Callable[[argparse.ArgumentParser], None]:
        """Declares the arguments."""

    @property
    def run(self) -> Callable[[argparse.Namespace], int]:
        """Runs the command and gives the exit code."""


def parse(
    arguments: Sequence[str],
    names: Iterable[str],
    one: Callable[[str], Command],
    every: Callable[[], Sequence[Command]],
    epilog: str,
) -> argparse.Namespace:
    """The options of one command; `run` among them is what runs it.

    `one` gives the command of a name, so that no other is imported; help asks for `every` one.
    Raises `EnvironmentFailure` for wrong usage, and `SystemExit` where help or the version was
    asked for, after showing it.
    """
    names = tuple(names)
    first = arguments[0] if arguments else "--help"
    whole = [one(first)] if first in names else every() if first in ("-h", "--help") else ()
    parser, own = parsers(whole, epilog)
    if not arguments:
        put(sys.stderr, parser.format_help())
        raise SystemExit(2)
    if first not in own and first not in parser.options:
        raise _no_command(first, names)
    if first in own:
        arguments = [first, *own[first].options_first(arguments[1:])]
    options, rest = parser.parse_known_args(arguments)
    if rest:
        raise own[first].unexpected(next((word for word in rest if word != "--"), "--"))
    return options


def parsers(commands: Sequence[Command], epilog: str) -> tuple[_Parser, dict[str, _Parser]]:
    """The parser of the whole command line, and those of the commands by name."""
    parser = _Parser(
        prog="cnnspec",
        description="Convolutional networks written once, in YAML: analyze, compile, export.",
    )
    parser.end = epilog
    parser.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="show the version and exit"
    )
    listed = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    own: dict[str, _Parser] = {}
    for command in commands:
        own[command.NAME] = sub = listed.add_parser(
            command.NAME,
            help=command.SUMMARY,
            description=command.DESCRIPTION,
        )
        sub.end = command.EPILOG
        command.configure(sub)
        sub.set_defaults(run=command.run)
    return parser, own


class _Parser(argparse.ArgumentParser):
    """argparse that raises what is wrong, and knows the names of its options."""

    def __init__(self, **settings: Any) -> None:
        self.options: list[str] = []
        self.end: str | Callable[[], str] = ""
        super().__init__(
            **settings,
            allow_abbrev=False,
            formatter_class=_Formatter,
        )

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        """Declare an argument."""
        action = super().add_argument(*names, **settings)
        self.options.extend(action.option_strings)
        return action

    def format_help(self) -> str:
        """The help, with its end, which may be made only now."""
        self.epilog = self.end if isinstance(self.end, str) else self.end()
        return super().format_help()

    def print_help(self, file: Any = None) -> None:
        """Show help, also into a pipe that nobody reads to its end."""
        put(file or sys.stdout, self.format_help())

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
        subject, _, fact = message.removeprefix("argument ").partition(": ")
        if subject == "the following arguments are required":
            text = f"{fact} is missing"
        elif fact == "expected one argument":
            text = f"{subject} needs a value"
        elif fact.startswith("ignored explicit argument"):
            text = f"{subject} takes no value"
        else:
            text = f"{subject} {fact}"
        raise EnvironmentFailure(text, help=self._pointer())

    def options_first(self, arguments: Sequence[str]) -> Sequence[str]:
        """The arguments, those that are no options last: argparse takes one run of them only."""
        options: list[str] = []
        others: list[str] = []
        rest = iter(arguments)
        for word in rest:
            if word == "--":
                return [*options, word, *others, *rest]
            if not word.startswith("-") or word == "-":
                others.append(word)
                continue
            options.append(word)
            action = self._option_string_actions.get(word)
            if action is not None and action.nargs is None:
                options.extend(islice(rest, 1))
        # The last option may lack its value, which is none of the others.
        return [*options, "--", *others] if others else options

    def unexpected(self, word: str) -> EnvironmentFailure:
        """What to say about an argument that the command does not have."""
        if not word.startswith("-") or word == "-":
            return EnvironmentFailure(f"`{word}` is one argument too many", help=self._pointer())
        option = word.partition("=")[0]
        near = did_you_mean(option, self.options)
        return EnvironmentFailure(
            f"`{self.prog}` has no option `{option}`", help=near or self._pointer()
        )

    def _pointer(self) -> str:
        return f"`{self.prog} --help` shows how"


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in two columns, the first wide enough for the options there are."""

    def __init__(self, prog: str) -> None:
        # argparse would ask shutil, which imports several ways to compress.
        width = columns(sys.stdout, _PIPE_WIDTH) - _MARGIN
        super().__init__(prog, max_help_position=26, width=width)


class _Version(argparse.Action):
    """Shows the version, and that was it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        put(sys.stdout, f"cnnspec {__version__}")
        raise SystemExit(0)


def _no_command(word: str, names: Sequence[str]) -> EnvironmentFailure:
    if word.startswith("-"):
        return EnvironmentFailure(
            f"there is no option `{word}` before a command",
            help="the options of a command follow it: `cnnspec analyze SPEC --variant NAME`",
        )
    near = did_you_mean(word, names)
    if PurePath(word).suffix in (".yaml", ".yml"):
        near = f"did you mean `cnnspec analyze {quote(word)}`?"
    return EnvironmentFailure(
        f"there is no command `{word}`", help=near or f"commands are {', '.join(names)}"
    )
