"""The learning curve as a picture: loss and accuracy by epoch, train against held out, as SVG.

matplotlib draws it, without a display and without its global state. The same figures give the same
bytes. Nothing here knows how figures come about.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.files import write_file
from cnnspec.training.watching import EpochFigures, Silent

__all__ = ["CurveFile", "curve_svg"]

_TRAIN = "#4269d0"
_HELD_OUT = "#e0592a"
_QUIET = 60.0
"""Least seconds between two drawings while a run goes on: each takes a tenth of a second."""


def curve_svg(name: str, history: Sequence[EpochFigures]) -> bytes:
    """The picture of these epochs, with `name` as its title.

    Accuracy has a panel of its own where any epoch has one. The best epoch on held-out samples is
    marked. Fonts are those of whoever looks; figures that are no numbers leave a gap.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = [figures.epoch + 1 for figures in history]
    panels = [
        (
            "loss",
            [figures.train_loss for figures in history],
            [figures.held_out.get("loss", math.nan) for figures in history],
        ),
        (
            "accuracy",
            [math.nan if f.train_top1 is None else f.train_top1 for f in history],
            [figures.held_out.get("top1", math.nan) for figures in history],
        ),
    ]
    shown = [panel for panel in panels if any(map(math.isfinite, (*panel[1], *panel[2])))]
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "cnnspec",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
    }
    with rc_context(settings):
        figure = Figure(figsize=(4.8 * max(1, len(shown)), 3.4), layout="constrained")
        figure.suptitle(name)
        for place, (title, train, held_out) in enumerate(shown, start=1):
            axes = figure.add_subplot(1, len(shown), place)
            marker = "o" if len(epochs) < 2 else None
            for label, values, colour in (
                ("train", train, _TRAIN),
                ("held out", held_out, _HELD_OUT),
            ):
                if any(map(math.isfinite, values)):
                    axes.plot(epochs, values, color=colour, label=label, marker=marker, lw=1.6)
            best = _best(held_out, largest=title == "accuracy")
            if best is not None:
                axes.plot(epochs[best], held_out[best], "o", color=_HELD_OUT, ms=5, zorder=3)
                axes.annotate(
                    f"{held_out[best]:.2%}" if title == "accuracy" else _loss(held_out[best]),
                    (epochs[best], held_out[best]),
                    xytext=(0, -14 if title == "accuracy" else 8),
                    textcoords="offset points",
                    ha="right" if best >= len(epochs) / 2 else "left",
                    color=_HELD_OUT,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
                )
            axes.set_xlabel("epoch")
            axes.set_title(title, fontsize=10)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            if len(epochs) == 1:
                axes.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
            if title == "accuracy":
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.legend(frameon=False)
        picture = io.BytesIO()
        figure.savefig(
            picture, format="svg", metadata={"Date": None, "Creator": "cnnspec", "Title": name}
        )
    return picture.getvalue()


def _loss(number: float) -> str:
    return f"{number:.4f}" if abs(number) < 1000 else f"{number:.4g}"


def _best(values: Sequence[float], *, largest: bool) -> int | None:
    """Where the best of the values stands, the first of equal ones."""
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return None
    return min(finite, key=lambda place: -values[place] if largest else values[place])


class CurveFile(Silent):
    """A watcher that keeps the picture at `path`: now and then, and whenever `draw` is called.

    A picture that cannot be written is no reason to stop: `complain` is told once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        history: Iterable[EpochFigures],
        complain: Callable[[str], None],
    ) -> None:
        self._path = path
        self._name = name
        self._history = list(history)
        self._complain = complain
        self._complained = False
        self._drawn = monotonic()
        self._in_picture = 0

    def epoch_ended(self, figures: EpochFigures) -> None:
        """Draw, unless that was a moment ago."""
        self._history.append(figures)
        if monotonic() - self._drawn >= _QUIET:
            self.draw()

    def draw(self) -> None:
        """Draw all epochs so far, where there are some that are not in the picture."""
        if len(self._history) == self._in_picture:
            return
        try:
            write_file(self._path, curve_svg(self._name, self._history))
            self._in_picture = len(self._history)
        except EnvironmentFailure as failure:
            if not self._complained:
                self._complained = True
                self._complain(failure.message)
        self._drawn = monotonic()
