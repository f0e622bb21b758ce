"""A process that runs one contender when it is told to, and says how long that took.

Commands and answers are lines of JSON, on standard input and output; `Worker` is the other side.
It ends when nobody tells it anything any more. What a contender is may not enter.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from json import dumps, loads
from time import perf_counter
from typing import Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.peak import peak_bytes

__all__ = ["Contender", "Job", "sample", "serve"]

Array = NDArray[Any]

Job = Mapping[str, Any]
"""What a contender is made from; of JSON's types."""

_LONGEST = 300


class Contender(Protocol):
    """What is timed: loaded, and fed with the same numbers each time."""

    @property
    def facts(self) -> Mapping[str, object]:
        """What really runs.

        `engine` (its name and version), `provider`, `threads`, `remarks`, and the `inputs` as type
        and shape in their order.
        """

    def run(self) -> None:
        """Run once, and come back when it is done."""

    def outputs(self) -> Sequence[Array]:
        """Run once, and give what comes out, in the order of the outputs."""


def sample(position: int, dtype: str, shape: Sequence[int]) -> Array:
    """The numbers that the input at `position` gets, the same in every process.

    Normal ones for floats, rounded where the type needs it, and bytes of images. Other integers
    are 0: they may be places in a table of any length.
    """
    drawn = np.random.default_rng(position)
    if dtype == "uint8":
        return drawn.integers(0, 256, shape, np.uint8)
    if dtype.startswith("float"):
        return drawn.standard_normal(shape, np.float32).astype(dtype, copy=False)
    return np.zeros(shape, dtype)


def serve(job: Job, make: Callable[[Job], Contender]) -> None:
    """Make the contender of `job`, then do what is asked for until nothing is."""
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        contender = make(job)
        answer = dict(contender.facts)
    except Exception as failure:  # torch and ONNX Runtime raise anything
        _say(answers, _failed(failure))
        return
    _say(answers, answer)
    for line in sys.stdin:
        try:
            answer = _done(contender, loads(line))
        except Exception as failure:
            answer = _failed(failure)
        _say(answers, answer)


def _done(contender: Contender, command: Mapping[str, Any]) -> dict[str, Any]:
    if command["do"] == "outputs":
        np.savez(command["path"], *contender.outputs())
        return {}
    contender.run()  # others have used the caches since the last time
    seconds = []
    for _ in range(command["count"]):
        began = perf_counter()
        contender.run()
        seconds.append(perf_counter() - began)
    return {"seconds": seconds, "peak": peak_bytes()}


def _failed(failure: Exception) -> dict[str, Any]:
    if isinstance(failure, EnvironmentFailure):
        said = failure.message
    else:
        lines = (line.strip() for line in str(failure).splitlines())
        said = next(filter(None, lines), type(failure).__name__)[:_LONGEST]
    return {"failed": said}


def _say(stream: TextIO, answer: Mapping[str, Any]) -> None:
    stream.write(dumps(answer) + "\n")
    stream.flush()
