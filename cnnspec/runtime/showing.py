"""Predictions as people and programs read them: lines, and the JSON document.

What is shown was decided before; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import Any

from cnnspec.diagnostics import quantity, shape_text
from cnnspec.report.styled import Line, display_width, fit, visible
from cnnspec.runtime.images import ImageFailure
from cnnspec.runtime.predicting import (
    Classes,
    Guess,
    Map,
    Numbers,
    Prediction,
    Reading,
    Share,
    Summary,
)
from cnnspec.runtime.session import Session

__all__ = ["FORMAT", "Layout", "document", "heading", "prediction_document"]

FORMAT = 1
"""Number of the JSON document's format."""

_GAP = "  "
_BAR = 20
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BLOCK = "█"
_LEAST_LABEL = 8
_NUMBER = 8
"""Columns of a share, `  100.0%`."""
_WIDEST_NAME = 0.5
_MOST_SHARES = 5


class Layout:
    """Lines for the predictions on some images, each as soon as it is there.

    One image has its classes below one another, with bars; of several each has a line.
    """

    def __init__(self, names: Sequence[str], reading: Reading, width: int) -> None:
        self._width = width
        self._alone = len(names) == 1
        self._named = min(
            max((display_width(visible(name)) for name in names), default=0),
            int(width * _WIDEST_NAME),
        )
        labels = reading.labels or ()
        self._labelled = max((display_width(visible(label)) for label in labels), default=0)
        self._reading = reading

    def lines(self, prediction: Prediction, saved: str | None = None) -> Iterator[Line]:
        """What a prediction says; `saved` is the file that its map was put into."""
        name = visible(prediction.source.name)
        match prediction:
            case Classes(top=top):
                entries = [(_named(guess), guess.probability) for guess in top]
            case Map(shares=shares):
                entries = [(_named(share), share.share) for share in shares]
            case Numbers(outputs=outputs):
                yield from self._numbers(name, outputs)
                return
        if self._alone:
            yield [(name, "bold"), *_size(prediction)]
            yield from self._bars(entries)
            if saved is not None:
                yield [(f"  saved as {visible(saved)}", "dim")]
        else:
            yield self._row(name, entries, saved)

    def _bars(self, entries: Sequence[tuple[str, float]]) -> Iterator[Line]:
        room = max(self._width - _BAR - 4 * len(_GAP) - 6, _LEAST_LABEL)
        shown = [fit(name, room) for name, _ in entries]
        widest = max(map(display_width, shown), default=0)
        for name, (_, part) in zip(shown, entries, strict=True):
            yield [
                (_GAP + name + " " * (widest - display_width(name)), "cyan"),
                (f"{_GAP}{_percent(part):>6}", ""),
                (_GAP + _bar(part), "green"),
            ]

    def _row(self, name: str, entries: Sequence[tuple[str, float]], saved: str | None) -> Line:
        """The name, then as many classes as there is room for, the first of them in its column."""
        shown = fit(name, self._named)
        line: Line = [(shown + " " * (self._named - display_width(shown)), "bold")]
        end = f"{_GAP}-> {visible(saved)}" if saved is not None else ""
        room = self._width - self._named - display_width(end)
        for position, (label, part) in enumerate(entries):
            if not position:
                column = max(room - _NUMBER - len(_GAP), _LEAST_LABEL)
                label = fit(label, column)
                label += " " * (min(self._labelled, column) - display_width(label))
            taken = len(_GAP) + display_width(label) + _NUMBER
            if position and taken > room:
                break
            room -= taken
            number = f"{_GAP}{_percent(part):>6}"
            line += [(_GAP + label, "dim" if position else "cyan")]
            line += [(number, "dim" if position else "")]
        if end:
            line.append((end, "dim"))
        return line

    def _numbers(self, name: str, outputs: Sequence[Summary]) -> Iterator[Line]:
        if self._alone:
            yield [(name, "bold")]
        widest = max(display_width(visible(output.name)) for output in outputs)
        shapes = [shape_text(output.shape) for output in outputs]
        for position, (output, shape) in enumerate(zip(outputs, shapes, strict=True)):
            start: Line = []
            if not self._alone:
                shown = fit(name, self._named) if not position else ""
                start = [(shown + " " * (self._named - display_width(shown)), "bold")]
            own = visible(output.name)
            yield [
                *start,
                (_GAP + own + " " * (widest - display_width(own)), "cyan"),
                (f"{_GAP}{shape:>{max(map(len, shapes))}}", ""),
                (f"{_GAP}{output.least:.4g} to {output.most:.4g}, mean {output.mean:.4g}", "dim"),
            ]


def heading(session: Session) -> Line:
    """Which model runs on what."""
    about = session.model.metadata
    name = about.name if about else session.model.path.name
    if session.provider == "cpu":
        place = f"on the CPU, {quantity(session.threads, 'thread')}"
    else:
        place = f"on {session.provider}" + (", with CUDA graphs" if session.graph else "")
    return [(visible(name), "bold"), (f"  {place}", "dim")]


def _size(prediction: Prediction) -> Line:
    return (
        [(f"  {shape_text(prediction.classes.shape)}", "dim")]
        if isinstance(prediction, Map)
        else []
    )


def _named(entry: Guess | Share) -> str:
    return f"class {entry.index}" if entry.label is None else visible(entry.label)


def _percent(part: float) -> str:
    return f"{100 * part:.1f}%"


def _bar(part: float) -> str:
    """A bar of 20 columns for all, in eighths of a column."""
    eighths = round(min(max(part, 0.0), 1.0) * _BAR * 8) if isfinite(part) else 0
    return _BLOCK * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


# ---------------------------------------------------------------------------------------- document


def prediction_document(prediction: Prediction, saved: str | None = None) -> dict[str, Any]:
    """One prediction as a JSON object; what is no number is null."""
    found: dict[str, Any] = {"image": prediction.source.name}
    match prediction:
        case Classes(top=top):
            found["top"] = [
                {"index": guess.index, "label": guess.label, "probability": guess.probability}
                for guess in top
            ]
        case Map(classes=classes, shares=shares):
            found["size"] = list(classes.shape)
            found["map"] = saved
            found["classes"] = [
                {"index": share.index, "label": share.label, "share": share.share}
                for share in shares
            ]
        case Numbers(outputs=outputs):
            found["outputs"] = [
                {
                    "name": output.name,
                    "shape": list(output.shape),
                    "min": _finite(output.least),
                    "mean": _finite(output.mean),
                    "max": _finite(output.most),
                }
                for output in outputs
            ]
    return found


def document(
    model: str,
    provider: str,
    threads: int,
    predictions: Iterable[dict[str, Any]],
    failures: Iterable[ImageFailure],
) -> dict[str, Any]:
    """The document of `cnnspec predict --format json`, format 1."""
    return {
        "format": FORMAT,
        "model": model,
        "provider": provider,
        "threads": threads,
        "predictions": list(predictions),
        "failed": [{"image": failure.name, "reason": failure.reason} for failure in failures],
    }


def _finite(number: float) -> float | None:
    return number if isfinite(number) else None
