"""How text is shown: the width of a stream, whether it takes colour, diagnostics and failures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from cnnspec.cli.output import put
from cnnspec.diagnostics import Diagnostic, EnvironmentFailure

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["Terminal", "columns"]

_PIPE_WIDTH = 120
_LEAST_WIDTH = 40
_PAGE_WIDTH = 100


class Terminal:
    """A stream that people read.

    Its width is `COLUMNS` if that is set, else that of the terminal, else 120. Colour is for
    terminals, but not where `NO_COLOR` is set or `TERM` is `dumb`; `FORCE_COLOR` asks for it
    anywhere. rich is imported for colour only.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        interactive = stream is not None and stream.isatty()
        self.colour = _takes_colour(interactive)
        self.width = max(columns(stream, _PIPE_WIDTH), _LEAST_WIDTH)

    def write(self, text: str | Text) -> None:
        """Put a text there, with a line break at its end."""
        put(self.stream, text if isinstance(text, str) else self._ansi(text, wrap=False))

    def page(self, markdown: str) -> None:
        """Put a page of Markdown there: laid out in colour, else as it is."""
        if self.colour:
            from rich.markdown import Markdown

            put(self.stream, self._ansi(Markdown(markdown, code_theme="ansi_dark"), wrap=True))
        else:
            put(self.stream, markdown)

    def diagnostics(self, found: Sequence[Diagnostic]) -> None:
        """Put diagnostics there, with their places in the text."""
        from cnnspec.report import render_diagnostics

        if found:
            self.write(render_diagnostics(found, width=self.width, colour=self.colour))

    def failure(self, failure: EnvironmentFailure) -> None:
        """Say what cannot be done, and what would help."""
        from cnnspec.report.styled import Line, as_plain, as_text, visible

        lines: list[Line] = [[("error", "bold red"), (f": {visible(failure.message)}", "bold")]]
        if failure.help:
            lines.append([("help", "bold cyan"), (f": {visible(failure.help)}", "")])
        self.write(as_text(lines) if self.colour else as_plain(lines))

    def _ansi(self, shown: RenderableType, *, wrap: bool) -> str:
        from rich.console import Console

        console = Console(
            color_system="standard",
            force_terminal=True,
            legacy_windows=False,
            width=min(self.width, _PAGE_WIDTH),
            highlight=False,
            markup=False,
            emoji=False,
        )
        with console.capture() as captured:
            console.print(shown, soft_wrap=not wrap, end="")
        return captured.get()


def _takes_colour(interactive: bool) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return interactive and os.environ.get("TERM") != "dumb"


def columns(stream: TextIO | None, otherwise: int) -> int:
    """How wide a stream is: `COLUMNS`, the terminal's width, or `otherwise`."""
    given = os.environ.get("COLUMNS", "")
    if given.isascii() and given.isdigit() and int(given[:6]) > 0:
        return int(given[:6])
    if stream is None or not stream.isatty():
        return otherwise
    try:
        # 0 is the size of a terminal that was never told any.
        return os.get_terminal_size(stream.fileno()).columns or otherwise
    except OSError:
        return otherwise
