"""Inputs, and both sides of a comparison: torch and ONNX Runtime, one session at a time.

What is compared, and when it is too far apart, may not enter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from torch import Tensor, nn
from torch.func import functional_call

from cnnspec.backends.onnx.session import session
from cnnspec.backends.onnx.verify.difference import AnyArray
from cnnspec.backends.onnx.verify.evaluation import stored
from cnnspec.backends.onnx.verify.statics import Model, first_line
from cnnspec.backends.onnx.verify.verdict import Level, VerificationFailure
from cnnspec.diagnostics import shape_text
from cnnspec.ir import Graph

__all__ = [
    "DISTRIBUTIONS",
    "LEVELS",
    "Feeds",
    "Trial",
    "inference_mode",
    "optimisations",
    "refusals_told",
    "torch_outputs",
    "widened",
]

Feeds = Callable[[int], Mapping[str, AnyArray]]
"""Inputs of a file for a batch of that size, by name; the same ones each time."""

LEVELS: Mapping[Level, onnxruntime.GraphOptimizationLevel] = {
    "none": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}

_Draw = Callable[[np.random.Generator, tuple[int, ...]], AnyArray]

DISTRIBUTIONS: Mapping[str, _Draw] = {
    "normal": lambda random, shape: random.standard_normal(shape, dtype=np.float32),
    "uniform": lambda random, shape: random.random(shape, dtype=np.float32),
    "zero": lambda random, shape: np.zeros(shape, np.float32),
    "large": lambda random, shape: (
        random.standard_normal(shape, dtype=np.float32) * np.float32(1e3)
    ),
}
"""How inputs are drawn: normal, uniform from 0 to 1, all zero, and normal times 1,000."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One batch of inputs. They are drawn when asked for, the same ones each time.

    The generator is numpy's, so that torch's own goes on as if nothing had been drawn. `sizes`
    replaces the analysed shapes of inputs, the batch not counted.
    """

    graph: Graph
    batch: int
    seed: int
    inputs: str = "normal"
    sizes: Mapping[str, tuple[int, ...]] | None = None
    given: Feeds | None = None

    def feeds(self) -> dict[str, AnyArray]:
        """The inputs by name, in the network's order."""
        if self.given is not None:
            return dict(self.given(self.batch))
        random = np.random.default_rng((self.seed, self.batch))
        draw = DISTRIBUTIONS[self.inputs]
        sizes = self.sizes or {}
        return {
            name: draw(random, (self.batch, *sizes.get(name, self.graph.tensors[value].shape)))
            for name, value in self.graph.inputs.items()
        }

    @property
    def size(self) -> str:
        """The sizes where they are not the network's own."""
        return ", ".join(shape_text(shape) for shape in (self.sizes or {}).values())

    def __str__(self) -> str:
        drawn = "" if self.inputs == "normal" else f", {self.inputs} inputs"
        return f"batch {self.batch}{drawn}{', ' if self.size else ''}{self.size}"


# ------------------------------------------------------------------------------------------ torch


@contextmanager
def inference_mode(module: nn.Module) -> Iterator[None]:
    """Run `module` in the types of its weights, without gradients and as for inference.

    Every part's mode is put back after.
    """
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            yield
    finally:
        for part, training in modes.items():
            part.training = training


def torch_outputs(
    module: nn.Module, feeds: Mapping[str, AnyArray], dtype: torch.dtype = torch.float32
) -> list[AnyArray]:
    """What `module` gives for the inputs, computed in `dtype`; its own weights stay as they are."""
    given = tuple(
        torch.from_numpy(value.copy()).to(dtype if value.dtype.kind == "f" else None)
        for value in feeds.values()
    )
    if dtype == torch.float32:
        result = module(*given)
    else:
        state = {
            name: tensor.to(dtype) if tensor.is_floating_point() else tensor
            for name, tensor in stored(module).items()
        }
        result = functional_call(module, state, given)
    return [tensor.detach().numpy() for tensor in _tensors(result)]


def _tensors(result: object) -> list[Tensor]:
    """The outputs in order, whether a tensor, a tuple or a mapping of them."""
    match result:
        case Tensor():
            return [result]
        case Mapping():
            return _tensors(tuple(result.values()))
        case tuple() | list():
            return [tensor for part in result for tensor in _tensors(part)]
        case None:
            return []  # attention gives no weights where none are asked for
        case _:
            raise TypeError(f"a network returned {type(result).__name__}")


# ----------------------------------------------------------------------------------- ONNX Runtime


def widened(model: Model, names: Sequence[str]) -> bytes:
    """The very bytes of the model with more tensors as outputs, those of `names`.

    Serialized messages may be put one behind the other, which adds to what is repeated in them.
    """
    have = {output.name for output in model.outline.graph.output}
    more = onnx.ModelProto()
    more.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in have
    )
    added: bytes = more.SerializeToString()
    return model.read() + added


@contextmanager
def refusals_told(model: Model, feeds: Mapping[str, AnyArray], level: Level) -> Iterator[None]:
    """Whatever ONNX Runtime raises, as a `VerificationFailure` at the first layer it refuses."""
    try:
        yield
    except Exception as refusal:  # its error classes have no public base
        path = _first_refused(model, feeds, level)
        place = f" at `{path}`" if path else ""
        raise VerificationFailure(
            f"ONNX Runtime refuses the model{place}, {optimisations(level)}: {_reason(refusal)}",
            path=path,
        ) from refusal


def optimisations(level: Level) -> str:
    """The level in words."""
    words = {"none": "without optimisations", "all": "with optimisations"}
    return words.get(level, f"with {level} optimisations")


_RUNTIME_CODE = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
"""What ONNX Runtime's messages begin with."""


def _reason(refusal: Exception) -> str:
    """What ONNX Runtime says, without its error codes, source files and C++ conditions."""
    said = _RUNTIME_CODE.sub("", first_line(refusal))
    for before in ("Status Message: ", " was false. "):
        said = said.rpartition(before)[2]
    return said.rstrip(".")


def _first_refused(model: Model, feeds: Mapping[str, AnyArray], level: Level) -> str | None:
    """The layer up to which the model does not run and before which it does, by bisection."""
    whole = onnx.load_model_from_string(model.read())

    def runs(count: int) -> bool:
        part = onnx.ModelProto()
        part.CopyFrom(whole)
        del part.graph.node[count:]
        del part.graph.output[:]
        last = part.graph.node[-1].output[0]
        part.graph.output.append(helper.make_empty_tensor_value_info(last))
        try:
            data = part.SerializeToString()
            session(data, optimise=LEVELS[level], folder=model.folder).run(None, dict(feeds))
        except Exception:
            return False
        return True

    works, fails = 0, len(whole.graph.node)
    if not fails or runs(fails):
        return None
    while fails - works > 1:
        middle = (works + fails) // 2
        if runs(middle):
            works = middle
        else:
            fails = middle
    return whole.graph.node[fails - 1].name.partition("/")[0] or None
