"""`cnnspec solve`: sizes of windows, from whatever is known of them."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence

from cnnspec.cli.option_types import whole
from cnnspec.cli.output import to_terminal, write_result
from cnnspec.cli.output_arguments import add_format, add_output
from cnnspec.cli.terminal import Terminal
from cnnspec.diagnostics import EnvironmentFailure

NAME = "solve"
SUMMARY = "kernel, stride, padding, sizes: the ones that fit"
DESCRIPTION = """\
From what is known of a window that moves over an axis, find the rest: the
output, or the padding, kernel, stride or input that give it. No spec is needed.
"""
EPILOG = """\
examples:
  cnnspec solve --in 32 --kernel 5 --stride 2            whatever padding fits
  cnnspec solve --in 32 --kernel 5 --stride 2 --out 16   what gives 16
  cnnspec solve --in 227 --kernel 11 --stride 4 --padding 0
  cnnspec solve --out 55 --kernel 11 --stride 4 --padding 2
  cnnspec solve --in 56 --out 28 --kernel 1-7 --stride 2
  cnnspec solve --in 112 --kernel 3 --stride 2 --pool --ceil

Values are whole numbers, or several: 3,5,7 or 1-7. A padding is one number for
both sides, before:after, or `same`. What is not given is found, but for the
dilation, which is 1. The exit code is 1 where nothing fits.
"""

_RANGE = re.compile(r"(\d{1,6})-(\d{1,6})")
_LONGEST_RANGE = 10_000
_SAME = "same"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    for option, least, help in (
        ("--in", 1, "positions of the input along the axis"),
        ("--kernel", 1, "taps of the window"),
        ("--stride", 1, "positions from one window to the next"),
        ("--dilation", 1, "positions from one tap to the next (1)"),
        ("--out", 1, "positions of the output"),
    ):
        parser.add_argument(
            option,
            dest={"--in": "size"}.get(option, option[2:]),
            type=_values(option, least),
            metavar="N",
            help=help,
        )
    parser.add_argument(
        "--padding", type=_paddings, metavar="P", help="on both sides, before:after, or `same`"
    )
    parser.add_argument(
        "--pool", action="store_true", help="a pooling: padding up to half of the kernel"
    )
    parser.add_argument(
        "--ceil", action="store_true", help="round up, as ceil_mode of pooling does"
    )
    add_format(parser, "text", "json", help="text (default) or json")
    add_output(parser)


def _values(option: str, least: int) -> Callable[[str], Sequence[int]]:
    """A whole number, several with commas between them, or a range."""
    one = whole(option, least)

    def check(given: str) -> Sequence[int]:
        found: list[int] = []
        for part in given.split(","):
            ends = _RANGE.fullmatch(part.strip())
            if ends is None:
                found.append(one(part))
                continue
            first, last = one(ends[1]), one(ends[2])
            if not first <= last < first + _LONGEST_RANGE:
                raise EnvironmentFailure(f"{option} has no range `{part.strip()}`")
            found.extend(range(first, last + 1))
        return tuple(dict.fromkeys(found))

    return check


def _paddings(given: str) -> Sequence[tuple[int, int] | str]:
    """Paddings: of both sides, `before:after`, or `same`."""
    found: list[tuple[int, int] | str] = []
    for part in map(str.strip, given.split(",")):
        before, colon, after = part.partition(":")
        if part == _SAME:
            found.append(part)
        elif colon:
            found.append((whole("--padding", 0)(before), whole("--padding", 0)(after)))
        else:
            found.extend((side, side) for side in _values("--padding", 0)(part))
    return tuple(dict.fromkeys(found))


def run(options: argparse.Namespace) -> int:
    """Solve and show."""
    from cnnspec.geometry.solving import Question
    from cnnspec.report.solution import Solution

    if options.size is None and options.out is None:
        raise EnvironmentFailure(
            "neither --in nor --out is given", help="for example --in 32 --kernel 5 --stride 2"
        )
    pool = options.pool or options.ceil
    if pool and options.padding is not None:
        _refuse_pool_padding(options)
    solution = Solution(
        Question(
            sizes=options.size,
            kernels=options.kernel,
            strides=options.stride,
            paddings=options.padding,
            dilations=options.dilation or (1,),
            outs=options.out,
            pool=pool,
            ceil=options.ceil,
        )
    )
    if options.format == "json":
        from json import dumps

        write_result(dumps(solution.document(), indent=1), options.output)
    else:
        _show(list(solution.lines()), options.output)
    return 0 if solution.fits else 1


def _refuse_pool_padding(options: argparse.Namespace) -> None:
    """Refuse padding that no pooling has."""
    for padding in options.padding:
        if isinstance(padding, str) or padding[0] != padding[1]:
            raise EnvironmentFailure("a pooling has the same padding on both sides")
        if options.kernel is not None and padding[0] > max(options.kernel) // 2:
            raise EnvironmentFailure(
                f"a pooling of {max(options.kernel)} has a padding of at most "
                f"{max(options.kernel) // 2}, not {padding[0]}"
            )


def _show(lines: list[list[tuple[str, str]]], output: str | None) -> None:
    from cnnspec.report.styled import as_plain, as_text

    terminal = Terminal(sys.stdout)
    if to_terminal(output) and terminal.colour:
        terminal.write(as_text(lines))
    else:
        write_result(as_plain(lines), output)
