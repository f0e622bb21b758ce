"""`cnnspec completion`: scripts with which shells complete cnnspec's command line.

The words come from the parser itself, so that a new option of a command is completed too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from cnnspec.cli.completion_scripts import SCRIPTS, CommandWords, OptionWords, Values
from cnnspec.cli.option_types import OneOf, one_of
from cnnspec.cli.output import write_result
from cnnspec.cli.parser import parsers

NAME = "completion"
SUMMARY = "a script with which bash, zsh or fish completes cnnspec"
DESCRIPTION = """\
Print a script with which a shell completes commands, options, their values,
bundled networks, operations and diagnostic codes.
"""
EPILOG = """\
examples:
  cnnspec completion bash > ~/.local/share/bash-completion/completions/cnnspec
  cnnspec completion zsh > "${fpath[1]}/_cnnspec"
  cnnspec completion fish > ~/.config/fish/completions/cnnspec.fish
  eval "$(cnnspec completion bash)"          for this shell only

A script holds the words of one version: print it again after an update.
"""
_SHELLS = one_of("SHELL", *SCRIPTS)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("shell", metavar="SHELL", type=_SHELLS, help="bash, zsh or fish")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    from cnnspec.cli.commands import all_commands

    every = all_commands()
    whole, own = parsers(every, "")
    known = {word: find() for word, find in _WORDS.items()}
    commands = [
        CommandWords(
            command.NAME,
            command.SUMMARY,
            _options(own[command.NAME], known),
            _arguments(own[command.NAME], known),
        )
        for command in every
    ]
    write_result(SCRIPTS[options.shell](commands, _options(whole, known)), None)
    return 0


def _options(
    parser: argparse.ArgumentParser, known: Mapping[str, Values]
) -> tuple[OptionWords, ...]:
    return tuple(
        OptionWords(
            tuple(action.option_strings),
            action.help or "",
            None if action.nargs == 0 else _values(action, known),
        )
        for action in parser._actions
        if action.option_strings
    )


def _arguments(parser: argparse.ArgumentParser, known: Mapping[str, Values]) -> Values | None:
    """What the arguments of a command may be, all of them together."""
    found = [_values(action, known) for action in parser._actions if not action.option_strings]
    if not found:
        return None
    words = dict.fromkeys(word for values in found for word in values.words)
    return Values(tuple(words), any(values.files for values in found))


def _values(action: argparse.Action, known: Mapping[str, Values]) -> Values:
    """What an argument may be: its choices, or what its placeholder in the help stands for."""
    if isinstance(action.type, OneOf):
        return Values(action.type.choices)
    metavars = action.metavar if isinstance(action.metavar, tuple) else (action.metavar or "",)
    found = [known[word] for metavar in metavars for word in metavar.split("|") if word in known]
    words = tuple(word for values in found for word in values.words)
    return Values(words, any(values.files for values in found))


def _specs() -> Values:
    from cnnspec.frontend.load import bundled_names

    return Values(tuple(dict.fromkeys(name for name, _, _ in bundled_names())), files=True)


def _codes() -> Values:
    folder = Path(__file__).parents[1] / "explain"
    return Values(tuple(sorted(page.stem for page in folder.glob("*.md"))))


def _operations() -> Values:
    from cnnspec.ops import registry

    return Values(tuple(registry()))


def _devices() -> Values:
    from cnnspec.frontend.devices import bundled_devices

    return Values(tuple(bundled_devices()))


def _files() -> Values:
    return Values(files=True)


_WORDS: Mapping[str, Callable[[], Values]] = {
    "SPEC": _specs,
    "A": _specs,
    "B": _specs,
    "CODE": _codes,
    "OPERATION": _operations,
    "DEVICE": _devices,
    "FILE": _files,
    "FOLDER": _files,
}
"""What a placeholder in the help of an argument stands for."""
