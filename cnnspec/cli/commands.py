"""The commands, each in a module of this room that is imported when the command is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from cnnspec.cli.parser import Command

__all__ = ["COMMANDS", "all_commands", "command"]

COMMANDS: Mapping[str, str] = {
    "analyze": "analyze",
    "check": "check",
    "build": "build",
    "train": "train",
    "export": "export",
    "eval": "evaluate",
    "predict": "predict",
    "info": "info",
    "bench": "bench",
    "diff": "diff",
    "expand": "expand",
    "matrix": "matrix",
    "solve": "solve",
    "to-fcn": "to_fcn",
    "fmt": "fmt",
    "list": "list_networks",
    "ops": "ops",
    "schema": "schema",
    "explain": "explain",
    "explain-flops": "explain_flops",
    "completion": "completion",
}
"""Modules by the name of their command, in the order of the help."""


def command(name: str) -> Command:
    """The command of a name that is one of `COMMANDS`."""
    return cast(Command, import_module(f"cnnspec.cli.{COMMANDS[name]}"))


def all_commands() -> tuple[Command, ...]:
    """All of them, for help and completion."""
    return tuple(map(command, COMMANDS))
