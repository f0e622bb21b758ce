"""What a step of training is expected to take on one process, by the analyzer.

A figure of tensors: what kernels and the allocator need on top is not in it. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnspec.ir import Graph
from cnnspec.passes.options import OPTIMIZERS
from cnnspec.report import analyze
from cnnspec.training.recipe.model import Recipe

__all__ = ["MemoryEstimate", "estimate", "largest_batch"]

_ALIKE = {"ASGD": "rmsprop", "Rprop": "adam", "Adafactor": "sgd", "Muon": "momentum"}
"""Optimisers that the analyzer does not know, each with one that keeps as much."""

_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes of a step with `batch` samples at once.

    `weights` are parameters and buffers, in 16 bits once more where the precision computes in them;
    `working` is what forward and backward need on top at the fullest moment, gradients of weights
    included.
    """

    batch: int
    weights: int
    state: int
    average: int
    working: int

    @property
    def step(self) -> int:
        """Everything."""
        return self.weights + self.state + self.average + self.working


def estimate(graph: Graph, recipe: Recipe, batch: int) -> MemoryEstimate:
    """What a step of so many samples takes at the recipe's precision and optimiser."""
    optimizer = _optimizer(recipe)
    single = analyze(graph, batch=batch, optimizer=optimizer).training_memory
    stored = single.weights + single.buffers
    working = single.peak - stored - single.optimizer_state
    weights = stored
    if recipe.precision != "float32":
        half = analyze(
            graph, batch=batch, optimizer=optimizer, dtype=recipe.precision
        ).training_memory
        working = half.peak - half.weights - half.buffers - half.optimizer_state
        working += single.gradients - half.gradients
        weights += half.weights
    average = stored if recipe.ema is not None else 0
    return MemoryEstimate(batch, weights, single.optimizer_state, average, working)


def largest_batch(graph: Graph, recipe: Recipe, room: int) -> int:
    """The most samples at once whose step is expected to fit into `room` bytes; 0 where none is."""
    fits, fails = 0, 1
    while fails < _MOST and estimate(graph, recipe, fails).step <= room:
        fits, fails = fails, fails * 2
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if estimate(graph, recipe, middle).step <= room:
            fits = middle
        else:
            fails = middle
    return fits


def _optimizer(recipe: Recipe) -> str:
    """The optimiser by the analyzer's name."""
    name = recipe.optimizer.name
    if name == "SGD":
        return "momentum" if recipe.optimizer.arguments.get("momentum") else "sgd"
    known = _ALIKE.get(name, name.lower())
    return known if known in OPTIMIZERS else "adam"
