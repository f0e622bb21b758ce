"""Checks of the textbook about learning: losses, updates, views of the data; torch is the oracle.

Nothing of a network but its answer enters here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, product
from math import log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.textbook.layers import built, exact, noise

# ----------------------------------------------------------------------------------------- losses


def softmax_loss(s: Sequence[float], y: int) -> float:
    """-log of the probability that softmax gives the class, which is cross-entropy."""
    probabilities = built("Softmax: {dim: 1}", len(s))(exact(s)[None])
    loss = -log(probabilities[0, y].item())
    oracle = functional.cross_entropy(exact(s)[None], torch.tensor([y])).item()
    assert abs(loss - oracle) < 1e-12
    return loss


def binary_cross_entropy(y: float, p: float) -> dict[str, float]:
    """The slide's formula, which is a likelihood, and torch's loss."""
    likelihood = y * log(p) + (1 - y) * log(1 - p)
    return {
        "likelihood": likelihood,
        "loss": functional.binary_cross_entropy(exact(p), exact(y)).item(),
    }


def regularised_loss(losses: Sequence[float], strength: float, w: Sequence[float]) -> float:
    """The mean loss and a penalty, whose gradient is that of torch's weight decay."""
    weights = nn.Parameter(exact(w))
    penalty = strength * weights.square().sum()
    (slope,) = torch.autograd.grad(penalty, weights)
    optimizer = torch.optim.SGD([weights], lr=1.0, weight_decay=2 * strength)
    before, weights.grad = weights.detach().clone(), torch.zeros_like(weights)
    optimizer.step()
    torch.testing.assert_close(before - weights.detach(), slope)
    return exact(losses).mean().item() + penalty.item()


def loss_of_proposals(
    p: Sequence[float],
    pstar: Sequence[int],
    t: Sequence[Sequence[float]],
    tstar: Sequence[Sequence[float]],
    lam: float,
    ncls: int,
    nreg: int,
) -> float:
    """Log loss of all anchors, and smooth L1 of the boxes of those that are objects."""
    objects = exact(pstar)
    scores = functional.binary_cross_entropy(exact(p), objects, reduction="sum")
    boxes = functional.smooth_l1_loss(exact(t), exact(tstar), reduction="none").sum(dim=1)
    return (scores / ncls + lam / nreg * (objects * boxes).sum()).item()


# ---------------------------------------------------------------------------------------- updates


def momentum(
    beta: float, gamma: float | Sequence[float], grads: Sequence[float], w0: float, style: str
) -> dict[str, list[float]]:
    """Weights, and what they move by, step for step.

    In the slide's form the rate stands outside the average, as in torch, which is asked; in Caffe's
    inside. With a rate that stays the two are one.
    """
    rates = list(gamma) if isinstance(gamma, Sequence) else [gamma] * len(grads)
    averages, weights = _caffe(beta, rates, grads, w0)
    theirs, found = _torch(beta, rates, grads, w0)
    if style == "caffe":
        steady = [rates[0]] * len(grads)
        assert _close(_caffe(beta, steady, grads, w0)[1], _torch(beta, steady, grads, w0)[1])
        assert not _close(weights, found)
        return {"v": averages, "w": weights}
    return {"delta": theirs, "w": found}


def _caffe(
    beta: float, rates: Sequence[float], grads: Sequence[float], weight: float
) -> tuple[list[float], list[float]]:
    average, averages, weights = 0.0, [], []
    for rate, gradient in zip(rates, grads, strict=True):
        average = beta * average + rate * gradient
        weight -= average
        averages.append(average)
        weights.append(weight)
    return averages, weights


def _torch(
    beta: float, rates: Sequence[float], grads: Sequence[float], weight: float
) -> tuple[list[float], list[float]]:
    parameter = nn.Parameter(exact(weight))
    optimizer = torch.optim.SGD([parameter], lr=rates[0], momentum=beta)
    averages, weights = [], []
    for rate, gradient in zip(rates, grads, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = exact(gradient)
        optimizer.step()
        averages.append(optimizer.state[parameter]["momentum_buffer"].item())
        weights.append(parameter.item())
    return averages, weights


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(abs(a - b) < 1e-12 for a, b in zip(one, other, strict=True))


def ascent(
    w: Sequence[float], x0: Sequence[float], eta: float, steps: int, lam: float
) -> list[float]:
    """An input that climbs towards what a linear unit answers to, penalised by its square."""
    unit = built("{Linear: {out_features: 1, bias: false}, name: unit}", len(w))
    unit.load_state_dict({"unit.weight": exact(w)[None]})
    x = exact(x0)
    for _ in range(steps):
        x.requires_grad_()
        value = unit(x[None]).sum() - lam * x.square().sum()
        (slope,) = torch.autograd.grad(value, x)
        x = (x + eta * slope).detach()
    return x.tolist()


# ------------------------------------------------------------------------------------------- data


def shifted_and_flipped_views(shift: int) -> int:
    """Different images that shifts up to so many pixels and mirroring make of one."""
    size = 8
    padded = functional.pad(noise(3, size, size), (shift,) * 4)
    steps = range(2 * shift + 1)
    crops = [padded[:, y : y + size, x : x + size] for y, x in product(steps, steps)]
    views = [*crops, *(crop.flip(2) for crop in crops)]
    assert not any(torch.equal(one, other) for one, other in combinations(views, 2))
    return len(views)


def labels_of_cells(grid: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The shape of a grid of labels, and how often each stands there: its one-hot maps add up."""
    names = sorted({name for row in grid for name in row})
    classes = torch.tensor([[names.index(name) for name in row] for row in grid])
    maps = functional.one_hot(classes, len(names)).permute(2, 0, 1)
    assert maps.shape == (len(names), *classes.shape)
    counts = dict(zip(names, maps.sum(dim=(1, 2)).tolist(), strict=True))
    assert counts == Counter(name for row in grid for name in row)
    return {"shape": list(classes.shape), "counts": counts}


def statistics_of_units(H: Sequence[Sequence[float]]) -> dict[str, Any]:  # noqa: N803 - as the lecture writes it
    """Variance of units, which of them are dead, and which are the same."""
    values = exact(H)
    alive = [unit for unit, row in enumerate(values) if row.var(correction=0) > 0]
    together: Tensor = torch.corrcoef(values[alive])
    return {
        "var": values.var(dim=1, correction=0).tolist(),
        "corr01": together[0, 1].item(),
        "dead": [unit for unit in range(len(H)) if unit not in alive],
        "duplicates": [
            [a, b]
            for (i, a), (j, b) in combinations(enumerate(alive), 2)
            if abs(together[i, j].item() - 1) < 1e-12
        ],
    }
