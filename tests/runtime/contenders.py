"""A contender without a network, which does what its job says; run by processes of `Worker`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.runtime.serving import Array, Job, serve

MODULE = "tests.runtime.contenders"


class Fake:
    """Fails where it is told to: when it is made, or in run number `fails` or `dies`."""

    def __init__(self, told: Job) -> None:
        print("libraries print what they like")
        if "refuses" in told:
            raise EnvironmentFailure(told["refuses"])
        if "raises" in told:
            raise RuntimeError(f"\n  {told['raises']}\nand a lot more")
        if "exits" in told:
            sys.exit("a last word")
        self._told = told
        self._runs = 0
        self.facts: Mapping[str, object] = {
            "engine": "fake 1",
            "provider": told.get("provider", "cpu"),
            "threads": 1,
            "remarks": _remarks(told.get("remarks", [])),
            "inputs": told.get("inputs", [["float32", [1, 2]]]),
        }

    def run(self) -> None:
        self._runs += 1
        if self._runs == self._told.get("fails"):
            raise RuntimeError("out of luck")
        if self._runs == self._told.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)

    def outputs(self) -> Sequence[Array]:
        given: Any = self._told.get("outputs", [[1.0, 2.0]])
        return [np.asarray(each, np.float32) for each in given]


def _remarks(told: Any) -> Any:
    about = {"pid": [os.getpid()], "modules": [*sys.modules]}
    return about[told] if isinstance(told, str) else told


def main(told: Job) -> None:
    serve(told, Fake)
