"""Whether gradients of a network are those of the function it computes: numerically, in float64.

A directional derivative by central differences on one side, autograd's gradient on the other, for
the generated module in training mode, with the same random numbers in every pass. No formula of a
layer is known here, and nothing is reported but numbers and names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnnspec.backends.torch.module import named_outputs, to_torch
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.ir import Graph, NetworkOutput, Node, Scope

__all__ = ["GradientReport", "Slope", "check_gradients", "smaller_inputs"]

TOLERANCE = 1e-4
"""Relative error up to which a gradient is right. Right ones differ by 1e-7 and less."""

_STEPS = (1e-6, 1e-7, 3e-6, 1e-8)
"""Changes relative to the size of what is changed, tried in turn.

Between two points on either side of a kink (of a ReLU, of a maximum) no difference quotient is a
derivative. A smaller step mostly avoids it; a wrong gradient is wrong at every step.
"""

_CLOSE = 1e-5
"""Error at which no further step is tried."""

_PASSES = 120
"""About so many evaluations; where there are more tensors, several are changed at once."""

_SIZES = (32, 48, 64, 96, 128, 192)
"""Largest spatial sizes that are tried."""

_ROUNDING = 64 * torch.finfo(torch.float64).eps
"""Relative error of an output of a deep network in float64."""

_LIVELY = 0.1
"""Spread of what would start constant: zeros and ones hide errors."""


@dataclass(frozen=True, slots=True)
class Slope:
    """The gradient of one weight, or of an input of the network.

    `name` is the key in the state dict, or the input's name; `layer` is the path of the layer that
    stores it, "" for an input. `error` is relative to the larger of both derivatives along the
    direction, or to what can be told from rounding where both are smaller. Tensors that were
    changed together share the worst error among them. A gradient is `weak` if it is so small that
    even a tenth of it is lost in rounding: nothing is known of it but that.
    """

    name: str
    layer: str
    op: str
    shape: tuple[int, ...]
    error: float
    weak: bool

    @property
    def right(self) -> bool:
        """Whether both derivatives are the same."""
        return self.error <= TOLERANCE


@dataclass(frozen=True, slots=True)
class GradientReport:
    """What a check of gradients found.

    `inputs` are the shapes at which it was made, `batch` samples of each. `slopes` are those of
    all weights that are trained, in the order of the state dict, and of the inputs. `to_blame` are
    the paths of layers whose gradients are wrong even alone; it is empty where all is right, and
    where only the way in which layers are put together is wrong.
    """

    inputs: Mapping[str, tuple[int, ...]]
    batch: int
    passes: int
    slopes: tuple[Slope, ...]
    to_blame: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Slope, ...]:
        """The gradients that are wrong."""
        return tuple(slope for slope in self.slopes if not slope.right)

    @property
    def weak(self) -> tuple[Slope, ...]:
        """The gradients that are too small to be checked, and not wrong as far as can be told."""
        return tuple(slope for slope in self.slopes if slope.weak and slope.right)

    @property
    def worst(self) -> float:
        """The largest error, 0 where nothing is trained."""
        return max((slope.error for slope in self.slopes), default=0.0)


def check_gradients(graph: Graph, *, seed: int = 0, batch: int = 3) -> GradientReport:
    """Compare autograd's gradients of the generated module with central differences, in float64.

    The loss is the sum of all outputs (those for training too), each element weighed at random.
    Every weight is started as the spec says, what would be constant at random, so that a residual
    branch that starts at zero counts. The more tensors there are, the more of them are changed at
    once; groups that differ are split until single tensors are found.

    Raises `EnvironmentFailure` where nothing can be compared: torch refuses the inputs, or an
    output is not finite.
    """
    judge = _Judge(graph, seed, batch)
    slopes = judge.slopes()
    passes = judge.passes
    to_blame: tuple[str, ...] = ()
    if not all(slope.right for slope in slopes):
        to_blame = tuple(_wrong_alone(graph, seed, batch))
    shapes = {name: graph.tensors[value].shape for name, value in graph.inputs.items()}
    return GradientReport(shapes, batch, passes, slopes, to_blame)


def smaller_inputs(graph: Graph) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of all inputs below those of the graph, the smallest first, for `check_gradients`.

    Convolutions see all they can see in a few windows. A network may refuse some of these.
    """
    own = {name: graph.tensors[value] for name, value in graph.inputs.items()}
    for most in _SIZES:
        shapes = {
            name: tuple(
                min(size, most) if role.spatial else size
                for size, role in zip(tensor.shape, tensor.roles, strict=True)
            )
            for name, tensor in own.items()
        }
        if any(shapes[name] != tensor.shape for name, tensor in own.items()):
            yield shapes


# --------------------------------------------------------------------------------- one network


@dataclass(slots=True)
class _Part:
    """One tensor that is changed, and what autograd says of it."""

    name: str
    node: Node | None
    tensor: Tensor
    gradient: Tensor
    size: float

    @property
    def slope(self) -> float:
        """How much the loss changes, about, when this tensor changes by its own size."""
        return float(self.gradient.norm()) * self.size


class _Judge:
    """The module in float64 at one point, and differences around that point."""

    def __init__(self, graph: Graph, seed: int, batch: int) -> None:
        self.graph = graph
        self.seed = seed
        self.passes = 0
        self.generator = torch.Generator().manual_seed(seed)
        self.module = to_torch(graph, seed).double().train()
        self._enliven()
        self.inputs = [
            self._random((batch, *graph.tensors[value].shape)) for value in graph.inputs.values()
        ]
        leaves = [value.clone().requires_grad_() for value in self.inputs]
        try:
            made = self._outputs(leaves)
        except (RuntimeError, ValueError) as refusal:
            raise self._failure(f"torch refuses: {refusal}") from refusal
        self.weights = [self._random(each.shape) for each in made]
        self.here = [each.detach() for each in made]
        for each, name in zip(self.here, self._names, strict=True):
            if not each.isfinite().all():
                raise self._failure(f"output `{name}` is not finite for random inputs")
        reached = [
            (each, weight)
            for each, weight in zip(made, self.weights, strict=True)
            if each.requires_grad
        ]
        if reached:
            outputs, weights = zip(*reached, strict=True)
            torch.autograd.backward(outputs, weights)
        self.noise = _ROUNDING * math.sqrt(
            sum(
                float((each * weight).square().sum())
                for each, weight in zip(self.here, self.weights, strict=True)
            )
        )
        self.parts = list(self._parts(leaves))

    def _failure(self, why: str) -> EnvironmentFailure:
        return EnvironmentFailure(f"the gradients of `{self.graph.name}` cannot be checked: {why}")

    @property
    def _names(self) -> list[str]:
        return [output.name for output in self.graph.outputs]

    def _random(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, dtype=torch.float64)

    def _enliven(self) -> None:
        with torch.no_grad():
            for parameter in self.module.parameters():
                if parameter.numel() < 2 or not (parameter != parameter.flatten()[0]).any():
                    parameter.add_(self._random(parameter.shape), alpha=_LIVELY)

    def _outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """All outputs of a pass in training mode, in which chance is the same each time."""
        self.passes += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            # What works in place must not change the point itself.
            made = self.module(*[value.clone() for value in inputs])
        return list(named_outputs(self.graph, made, training=True).values())

    def _parts(self, leaves: Sequence[Tensor]) -> Iterator[_Part]:
        for name, leaf, value in zip(self.graph.inputs, leaves, self.inputs, strict=True):
            gradient = torch.zeros_like(value) if leaf.grad is None else leaf.grad
            yield _Part(name, None, value, gradient, 1.0)
        owners = _owners(self.graph)
        for key, parameter in self.module.named_parameters():
            if parameter.requires_grad:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                size = float(parameter.detach().square().mean().sqrt()) or 1.0
                yield _Part(key, owners[key], parameter.detach(), gradient, size)

    def slopes(self) -> tuple[Slope, ...]:
        """The error of every tensor, in the order of the state dict, then inputs."""
        parts = sorted(self.parts, key=lambda part: part.slope)
        together = max(1, math.ceil(2 * len(parts) / _PASSES))
        errors: dict[str, float] = {}
        for start in range(0, len(parts), together):
            errors |= self._errors(parts[start : start + together])
        ordered = [part for part in self.parts if part.node] + [
            part for part in self.parts if not part.node
        ]
        return tuple(
            Slope(
                part.name,
                part.node.path if part.node else "",
                part.node.op.name if part.node else "input",
                tuple(part.tensor.shape) if part.node else tuple(part.tensor.shape[1:]),
                errors[part.name],
                part.slope < 40 * self.noise / _STEPS[0],
            )
            for part in ordered
        )

    def _errors(self, parts: Sequence[_Part]) -> dict[str, float]:
        """The error of each tensor: that of all of them at once, or found by halving."""
        error = self._error(parts)
        if error <= TOLERANCE or len(parts) == 1:
            return dict.fromkeys((part.name for part in parts), error)
        half = len(parts) // 2
        return self._errors(parts[:half]) | self._errors(parts[half:])

    def _error(self, parts: Sequence[_Part]) -> float:
        """The error along a direction in which each tensor matters alike, at the best step."""
        least, always_kinked = math.inf, True
        for step in _STEPS:
            told = 4 * self.noise / (step * TOLERANCE)
            common = max(min(part.slope for part in parts), told) or 1.0
            ways = [
                self._random(part.tensor.shape).mul_(
                    step * part.size * min(1.0, common / (part.slope or common))
                )
                for part in parts
            ]
            analytic = sum(
                float((part.gradient * way).sum()) for part, way in zip(parts, ways, strict=True)
            )
            ahead = self._change(parts, ways, 1.0)
            behind = -self._change(parts, ways, -1.0)
            numeric = (ahead + behind) / 2
            scale = max(abs(numeric), abs(analytic), step * common)
            error = abs(numeric - analytic) / scale if math.isfinite(numeric) else math.inf
            least = min(least, error)
            if least <= _CLOSE:
                return least
            low, high = sorted((ahead, behind))
            always_kinked &= high - low > TOLERANCE * scale and low <= analytic <= high
        # The point itself is on a kink: any slope between those of both sides is a gradient.
        return least if least <= TOLERANCE or not always_kinked else 0.0

    def _change(self, parts: Sequence[_Part], ways: Sequence[Tensor], sign: float) -> float:
        """How much the loss changes when the tensors go a way."""
        kept = [part.tensor.clone() for part in parts]
        with torch.no_grad():
            for part, way in zip(parts, ways, strict=True):
                part.tensor.add_(way, alpha=sign)
            there = self._outputs(self.inputs)
            for part, value in zip(parts, kept, strict=True):
                part.tensor.copy_(value)
            return sum(
                float(((after - before) * weight).sum())
                for after, before, weight in zip(there, self.here, self.weights, strict=True)
            )


def _owners(graph: Graph) -> dict[str, Node]:
    """The node that stores each weight, by key."""
    return {
        f"{node.path}.{name}" if name else node.path: node
        for node in graph.nodes
        if node.share is None
        for name in node.op.weights(graph.site(node))
    }


# ------------------------------------------------------------------------------- which layer


def _wrong_alone(graph: Graph, seed: int, batch: int) -> Iterator[str]:
    """Paths of the layers whose gradients are wrong in a network of nothing else."""
    verdicts: dict[object, bool] = {}
    for node in graph.nodes:
        kind = node.op, graph.site(node), node.init
        if kind not in verdicts:
            verdicts[kind] = _right(_alone(graph, node), seed, batch)
        if not verdicts[kind]:
            yield node.path


def _right(graph: Graph, seed: int, batch: int) -> bool:
    try:
        return all(slope.right for slope in _Judge(graph, seed, batch).slopes())
    except EnvironmentFailure:
        return True  # not to be told: random inputs are not what this layer is for


def _alone(graph: Graph, node: Node) -> Graph:
    """A network of one layer, which reads inputs of its own."""
    site = graph.site(node)
    count = len(site.inputs)
    inputs = tuple(replace(tensor, batched=True) for tensor in site.inputs)
    outputs = node.op.infer(inputs)
    root = Scope("", graph.name, None, {}, None, node.span)
    root.members.append(0)
    values = tuple(range(count, count + len(outputs)))
    single = replace(
        node,
        index=0,
        path="layer",
        inputs=tuple(range(count)),
        outputs=values,
        frame=None,
        scope=root,
        share=None,
    )
    return Graph(
        graph.name,
        {f"x{number}": number for number in range(count)},
        (*inputs, *outputs),
        (-1,) * count + (0,) * len(outputs),
        (single,),
        tuple(NetworkOutput(f"y{number}", value) for number, value in enumerate(values)),
        root,
        {},
    )
