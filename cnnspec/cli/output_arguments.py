"""The arguments that choose how a result is written, and where: `--format`, `--output`."""

from __future__ import annotations

import argparse

from cnnspec.cli.option_types import one_of, text

__all__ = ["add_format", "add_output"]


def add_format(parser: argparse.ArgumentParser, default: str, *others: str, help: str) -> None:
    """Add the option that chooses a format."""
    parser.add_argument(
        "--format",
        type=one_of("--format", default, *others),
        metavar="FORMAT",
        default=default,
        help=help,
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the file of the result."""
    parser.add_argument(
        "-o",
        "--output",
        type=text("--output"),
        metavar="FILE",
        help="write there, not to standard output",
    )
