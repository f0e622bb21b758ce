"""Completion scripts for bash, zsh and fish, written from what the command line can take.

A script holds all words itself, so that Tab starts no Python. What the words are is `completion`'s
to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

__all__ = ["SCRIPTS", "CommandWords", "OptionWords", "Values"]


@dataclass(frozen=True, slots=True)
class Values:
    """What may stand somewhere: some words, and files or not."""

    words: tuple[str, ...] = ()
    files: bool = False


@dataclass(frozen=True, slots=True)
class OptionWords:
    """An option by its names. `values` is None for one that takes none."""

    names: tuple[str, ...]
    help: str
    values: Values | None


@dataclass(frozen=True, slots=True)
class CommandWords:
    """A command, its options, and what its arguments may be, None for a command without any."""

    name: str
    summary: str
    options: tuple[OptionWords, ...]
    arguments: Values | None


# ----------------------------------------------------------------------------------------- bash


def bash(commands: Sequence[CommandWords], options: Sequence[OptionWords]) -> str:
    """For bash from 3.2 on, the one that macOS has, without bash-completion."""
    lines = [
        "# bash completion for cnnspec",
        "_cnnspec() {",
        "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}",
        "    local words= files= word",
        "    # bash makes `--format=json` three words",
        "    if [[ $cur == = ]]; then",
        "        cur=",
        "    elif [[ $prev == = && COMP_CWORD -gt 1 ]]; then",
        "        prev=${COMP_WORDS[COMP_CWORD-2]}",
        "    fi",
        "    if [[ COMP_CWORD -eq 1 ]]; then",
        f"        words={quote(' '.join((*_names(options), *(one.name for one in commands))))}",
        "    else",
        "        case ${COMP_WORDS[1]} in",
    ]
    for command in commands:
        lines.append(f"            {command.name})")
        lines.extend(f"                {line}" for line in _bash_command(command))
        lines.append("                ;;")
    lines.extend(
        (
            "        esac",
            "    fi",
            "    COMPREPLY=()",
            "    while IFS= read -r word; do",
            '        COMPREPLY+=("$word")',
            '    done < <(compgen -W "$words" -- "$cur")',
            "    if [[ -n $files ]]; then",
            "        while IFS= read -r word; do",
            '            COMPREPLY+=("$word")',
            '        done < <(compgen -f -- "$cur")',
            "        type compopt > /dev/null 2>&1 && compopt -o filenames 2> /dev/null",
            "    fi",
            "    return 0",
            "}",
            "complete -F _cnnspec cnnspec",
        )
    )
    return "\n".join(lines) + "\n"


def _bash_command(command: CommandWords) -> Iterator[str]:
    yield "case $prev in"
    for option in command.options:
        if option.values is not None:
            yield f"    {'|'.join(option.names)})"
            yield f"        {_bash_values(option.values)}"
            yield "        ;;"
    yield "    *)"
    yield "        if [[ $cur == -* ]]; then"
    yield f"            words={quote(' '.join(_names(command.options)))}"
    yield "        else"
    yield f"            {_bash_values(command.arguments or Values())}"
    yield "        fi"
    yield "        ;;"
    yield "esac"


def _bash_values(values: Values) -> str:
    return f"words={quote(' '.join(values.words))} files={'yes' if values.files else ''}"


def _names(options: Sequence[OptionWords]) -> list[str]:
    return [name for option in options for name in option.names]


# ------------------------------------------------------------------------------------------ zsh


def zsh(commands: Sequence[CommandWords], options: Sequence[OptionWords]) -> str:
    """For zsh, as a file `_cnnspec` on its `fpath` or sourced after `compinit`."""
    lines = [
        "#compdef cnnspec",
        "_cnnspec() {",
        "    local curcontext=$curcontext state line",
        "    typeset -A opt_args",
        "    local -a commands=(",
        *(f"        {quote(_described(one.name, one.summary))}" for one in commands),
        "    )",
        "    _arguments -C \\",
        *(f"        {spec} \\" for option in options for spec in _zsh_option(option)),
        "        '1:command:->command' \\",
        "        '*::argument:->argument'",
        "    case $state in",
        "        command)",
        "            _describe command commands",
        "            ;;",
        "        argument)",
        "            case $line[1] in",
    ]
    for command in commands:
        specs = [spec for option in command.options for spec in _zsh_option(option)]
        if command.arguments is not None:
            specs.append(quote(f"*:argument:{_zsh_values(command.arguments)}"))
        lines.append(f"                {command.name})")
        lines.append("                    _arguments \\")
        lines.extend(f"                        {spec} \\" for spec in specs[:-1])
        lines.append(f"                        {specs[-1]}")
        lines.append("                    ;;")
    lines.extend(
        (
            "            esac",
            "            ;;",
            "    esac",
            "}",
            "if [[ $funcstack[1] == _cnnspec ]]; then",
            '    _cnnspec "$@"',
            "else",
            "    compdef _cnnspec cnnspec",
            "fi",
        )
    )
    return "\n".join(lines) + "\n"


def _zsh_option(option: OptionWords) -> Iterator[str]:
    help = "".join(f"\\{c}" if c in "[]\\" else c for c in option.help)
    for name in option.names:
        if option.values is None:
            yield quote(f"{name}[{help}]")
        else:
            takes = f"{name}=" if name.startswith("--") else f"{name}+"
            yield quote(f"*{takes}[{help}]:value:{_zsh_values(option.values)}")


def _zsh_values(values: Values) -> str:
    words = " ".join(values.words)
    if values.files and words:
        return f'{{_alternative "words:word:({words})" "files:file:_files"}}'
    return "_files" if values.files else f"({words})" if words else " "


def _described(name: str, help: str) -> str:
    return f"{name}:{help}"


# ----------------------------------------------------------------------------------------- fish


def fish(commands: Sequence[CommandWords], options: Sequence[OptionWords]) -> str:
    """For fish."""
    lines = [
        "# fish completion for cnnspec",
        "function __cnnspec_at",
        "    set -l words (commandline -opc)",
        '    test (count $words) -eq 1; and test "$argv[1]" = ""; and return 0',
        '    test (count $words) -gt 1; and test "$words[2]" = "$argv[1]"',
        "end",
        "complete -c cnnspec -f",
    ]
    lines.extend(_fish("", _fish_option(option)) for option in options)
    for command in commands:
        described = f"-a {quote(command.name)} -d {quote(command.summary)}"
        lines.append(_fish("", described))
    for command in commands:
        lines.extend(_fish(command.name, _fish_option(option)) for option in command.options)
        if command.arguments is not None:
            lines.append(_fish(command.name, _fish_values(command.arguments)))
    return "\n".join(lines) + "\n"


def _fish(command: str, rest: str) -> str:
    return f"complete -c cnnspec -n {quote(f'__cnnspec_at {command}'.strip())} {rest}"


def _fish_option(option: OptionWords) -> str:
    names = [
        f"-l {name.removeprefix('--')}" if name.startswith("--") else f"-s {name.removeprefix('-')}"
        for name in option.names
    ]
    takes = [] if option.values is None else ["-r", _fish_values(option.values)]
    return " ".join((*names, *takes, f"-d {quote(option.help)}"))


def _fish_values(values: Values) -> str:
    files = "-F" if values.files else "-f"
    return f"{files} -a {quote(' '.join(values.words))}" if values.words else files


SCRIPTS: Mapping[str, Callable[[Sequence[CommandWords], Sequence[OptionWords]], str]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
}
"""What writes the script of a shell, from its commands and the options before a command."""
