"""Optimisers and losses as lectures write them down, against torch's by their names in a recipe.

The formulas stand here in numpy, step for step. What the worked cases of the lectures ask of single
values (a softmax loss, a likelihood, momentum before and behind a lower rate) is in
`tests/textbook`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cnnspec.api import Network
from cnnspec.frontend.load import load_text
from cnnspec.training.objective import Objective
from cnnspec.training.recipe.model import Call, OutputLoss

Vector = NDArray[np.float64]
Rule = Iterator[Vector]

START = np.array([0.5, -1.25, 2.0, 0.0])
TARGET = np.array([1.0, 0.75, -0.5, 0.25])
CURVATURE = np.array([1.0, 3.0, 0.5, 2.0])


def slope(w: Vector) -> Vector:
    """The gradient of half the sum of `CURVATURE * (w - TARGET)^2`."""
    return CURVATURE * (w - TARGET)


def sgd(lr: float) -> Rule:
    """`w := w - lr * gradient`."""
    w = START
    while True:
        w = w - lr * slope(w)
        yield w


def momentum(lr: float, momentum: float) -> Rule:
    """`D := beta * D + gradient; w := w - gamma * D`, D from 0."""
    w, delta = START, np.zeros(4)
    while True:
        delta = momentum * delta + slope(w)
        w = w - lr * delta
        yield w


def decayed(lr: float, weight_decay: float) -> Rule:
    """Gradient descent on the loss plus `strength * sum of w^2`, of which decay is twice."""
    strength, w = weight_decay / 2, START
    while True:
        w = w - lr * (slope(w) + 2 * strength * w)
        yield w


def rmsprop(lr: float, alpha: float, eps: float) -> Rule:
    """Squares averaged, `r := a r + (1 - a) g^2; w := w - lr g / (sqrt r + eps)`."""
    w, squares = START, np.zeros(4)
    while True:
        g = slope(w)
        squares = alpha * squares + (1 - alpha) * g**2
        w = w - lr * g / (np.sqrt(squares) + eps)
        yield w


def adam(lr: float, betas: tuple[float, float], eps: float) -> Rule:
    """Both moments averaged and freed of their start at 0 (Kingma and Ba, 2014, algorithm 1)."""
    w, first, second, step = START, np.zeros(4), np.zeros(4), 0
    while True:
        step += 1
        g = slope(w)
        first = betas[0] * first + (1 - betas[0]) * g
        second = betas[1] * second + (1 - betas[1]) * g**2
        m, v = first / (1 - betas[0] ** step), second / (1 - betas[1] ** step)
        w = w - lr * m / (np.sqrt(v) + eps)
        yield w


def adadelta(lr: float, rho: float, eps: float) -> Rule:
    """Steps in the units of steps (Zeiler, 2012, algorithm 1); with `lr` 1 there is no rate."""
    w, squares, moved = START, np.zeros(4), np.zeros(4)
    while True:
        g = slope(w)
        squares = rho * squares + (1 - rho) * g**2
        step = np.sqrt(moved + eps) / np.sqrt(squares + eps) * g
        moved = rho * moved + (1 - rho) * step**2
        w = w - lr * step
        yield w


@pytest.mark.parametrize(
    ("name", "arguments", "rule"),
    [
        ("SGD", {"lr": 0.1}, sgd),
        ("SGD", {"lr": 0.1, "momentum": 0.9}, momentum),
        ("SGD", {"lr": 0.1, "weight_decay": 0.3}, decayed),
        ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-8}, rmsprop),
        ("Adam", {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}, adam),
        ("Adadelta", {"lr": 1.0, "rho": 0.95, "eps": 1e-6}, adadelta),
        ("Adadelta", {"lr": 0.5, "rho": 0.9, "eps": 1e-5}, adadelta),
    ],
)
def test_steps_are_those_of_the_lectures(
    name: str, arguments: Mapping[str, Any], rule: Callable[..., Rule]
) -> None:
    w = nn.Parameter(torch.from_numpy(START.copy()))
    optimizer = getattr(torch.optim, name)([w], **arguments)
    for step, wanted in zip(range(5), rule(**arguments), strict=False):
        optimizer.zero_grad()
        weights = torch.from_numpy(CURVATURE)
        (weights * (w - torch.from_numpy(TARGET)) ** 2).sum().div(2).backward()
        optimizer.step()
        np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-12, err_msg=f"{step + 1}")


SCORES = torch.tensor([[3.2, 5.1, -1.7], [1.3, 4.9, 2.0], [2.2, 2.5, -3.1]])
CLASSES = torch.tensor([0, 1, 2])
"""The three images of the lectures: a cat, a car and a frog."""


def objective(name: str, **arguments: Any) -> Objective:
    text = "cnnspec: 1\nname: net\ninputs: {x: [3]}\nlayers: [{Linear: {out_features: 3}}]"
    net = Network(load_text(text, "net.yaml"))
    return Objective.of(net.graph, {"": OutputLoss(loss=Call(name, arguments))})


def each(name: str, **arguments: Any) -> list[float]:
    """The loss of every image by itself."""
    loss = objective(name, **arguments)
    return [
        loss({"output": SCORES[i : i + 1]}, CLASSES[i : i + 1], SCORES, count=1).item()
        for i in range(3)
    ]


def test_softmax_loss() -> None:
    """`-log(e^s_y / sum of e^s_j)`: 2.04 for the cat in natural logarithms, 0.89 in tens."""
    exponentials = np.exp(SCORES.numpy())
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    wanted = -np.log(shares[np.arange(3), CLASSES])
    np.testing.assert_allclose(each("CrossEntropyLoss"), wanted, rtol=1e-5)
    assert each("CrossEntropyLoss")[0] == pytest.approx(2.040352, abs=1e-5)
    np.testing.assert_allclose(shares[0], [0.13, 0.87, 0.00], atol=5e-3)


def test_hinge_loss_of_the_svm() -> None:
    """`sum over j != y of max(0, s_j - s_y + 1)`: 2.9, 0 and 12.9, of which torch takes a third."""
    right = SCORES[torch.arange(3), CLASSES][:, None]
    margins = (SCORES - right + 1).clamp(min=0)
    margins[torch.arange(3), CLASSES] = 0
    lecture = margins.sum(dim=1).tolist()
    assert lecture == pytest.approx([2.9, 0.0, 12.9], abs=1e-5)
    assert [3 * value for value in each("MultiMarginLoss")] == pytest.approx(lecture, abs=1e-5)
    squared = (margins**2).sum(dim=1).tolist()
    found = [3 * value for value in each("MultiMarginLoss", p=2)]
    assert found == pytest.approx(squared, abs=1e-4)


def test_the_full_loss_is_a_mean_over_samples() -> None:
    """`L = 1/N sum of L_i`, 5.27 of the three hinge losses."""
    found = objective("MultiMarginLoss")({"output": SCORES}, CLASSES, SCORES, count=3)
    assert 3 * found.item() == pytest.approx((2.9 + 0.0 + 12.9) / 3, abs=1e-5)


def test_the_penalty_of_squares_is_decay_of_twice_its_strength() -> None:
    """`L + lambda sum of W^2` moves weights as `weight_decay` 2 lambda does."""
    strength = 0.1
    penalised, plain = (nn.Linear(3, 3, bias=False) for _ in range(2))
    plain.load_state_dict(penalised.state_dict())
    loss = objective("MultiMarginLoss")
    for model, decay in ((penalised, 0.0), (plain, 2 * strength)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=decay)
        for _ in range(3):
            optimizer.zero_grad()
            value = loss({"output": model(SCORES)}, CLASSES, SCORES, count=3)
            if model is penalised:
                value = value + strength * model.weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    torch.testing.assert_close(penalised.weight, plain.weight)


def test_shifts_and_flips_are_those_of_the_lectures() -> None:
    """Shifts by up to 2 pixels and mirroring make 50 images of one, each as often as any other."""
    from cnnspec.metadata import Preprocess
    from cnnspec.training.augmentation.augmenting import Augmentation

    change = Augmentation(
        [Call("RandomHorizontalFlip"), Call("RandomShift", {"pixels": 2})],
        Preprocess(),
        seed=0,
        channels=3,
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(1, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=generator)
    count = 5000
    views, _ = change(
        image.expand(count, -1, -1, -1), torch.zeros(count).long(), torch.arange(count), 0
    )
    _, often = views.flatten(1).unique(dim=0, return_counts=True)
    assert len(often) == 50
    assert often.min() > 60
    assert often.max() < 145
