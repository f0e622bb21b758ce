"""What an evaluation counts: twins that agree, torch's losses, definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from torch.nn import functional

import cnnspec
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.training.evaluating.figures import Evaluation
from cnnspec.training.evaluating.numpy_counting import NumpyCounting
from cnnspec.training.evaluating.task import Task, task_of
from cnnspec.training.evaluating.torch_counting import Counting
from cnnspec.training.evaluating.torch_networks import averaged_weights
from cnnspec.training.recipe.model import Call, OutputLoss

CPU = torch.device("cpu")


def counted(task: Task, scores: torch.Tensor, targets: torch.Tensor, batch: int) -> Evaluation:
    counting = Counting(task, CPU, confusion=True)
    for first in range(0, len(scores), batch):
        counting.add(scores[first : first + batch], targets[first : first + batch])
    return counting.evaluation()


def counted_in_numpy(task: Task, scores: torch.Tensor, targets: torch.Tensor) -> Evaluation:
    counting = NumpyCounting(task, confusion=True)
    counting.add(scores.numpy(), targets.numpy())
    return counting.evaluation()


def sample(seed: int, count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count, classes, generator=generator)
    return scores, torch.randint(classes, (count,), generator=generator)


# ---------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_the_definitions() -> None:
    scores = torch.tensor([[3.0, 1, 0], [0, 2, 1], [1, 0, 5], [4, 1, 0]])
    targets = torch.tensor([0, 2, 2, 1])
    found = counted(Task("y", "classes", 3), scores, targets, 2)
    assert (found.samples, found.top1, found.top5) == (4, 0.5, 1.0)
    assert found.confusion is not None
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert [each.samples for each in found.classes] == [1, 1, 2]
    assert [each.recall for each in found.classes] == [1.0, 0.0, 0.5]
    assert [each.precision for each in found.classes] == [0.5, 0.0, 1.0]
    assert found.loss == pytest.approx(functional.cross_entropy(scores, targets).item(), rel=1e-6)


def test_top_five_is_torchs() -> None:
    scores, targets = sample(0, 500, 30)
    found = counted(Task("y", "classes", 30), scores, targets, 64)
    best = scores.topk(5).indices
    assert round((found.top1 or 0) * 500) == int((best[:, 0] == targets).sum())
    assert round((found.top5 or 0) * 500) == int((best == targets[:, None]).any(1).sum())


def test_of_equal_scores_the_first_counts() -> None:
    scores = torch.zeros(3, 7)
    targets = torch.tensor([0, 4, 5])
    for found in (
        counted(Task("y", "classes", 7), scores, targets, 3),
        counted_in_numpy(Task("y", "classes", 7), scores, targets),
    ):
        # Nobody is better than luck by saying nothing.
        assert (found.top1, found.top5) == (1 / 3, 2 / 3)


def test_what_is_no_number_is_wrong() -> None:
    scores = torch.tensor([[float("nan"), 1.0], [2.0, 1.0], [1.0, float("nan")]])
    targets = torch.tensor([0, 0, 0])
    for found in (
        counted(Task("y", "classes", 2), scores, targets, 3),
        counted_in_numpy(Task("y", "classes", 2), scores, targets),
    ):
        assert (found.odd, found.top1, found.top5) == (2, 1 / 3, 1 / 3)
        assert found.to_json()["loss"] is None


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        (Call("CrossEntropyLoss", {"label_smoothing": 0.1}), functional.cross_entropy),
        (
            Call("MultiMarginLoss", {"p": 2, "margin": 0.5}),
            lambda s, t: functional.multi_margin_loss(s, t, p=2, margin=0.5),
        ),
        (
            Call("BCEWithLogitsLoss"),
            lambda s, t: functional.binary_cross_entropy_with_logits(
                s, functional.one_hot(t, s.shape[1]).float()
            ),
        ),
        (
            Call("MSELoss"),
            lambda s, t: functional.mse_loss(s, functional.one_hot(t, s.shape[1]).float()),
        ),
        (Call("NoSuchLoss"), functional.cross_entropy),
    ],
)
def test_the_loss_is_that_of_the_recipe(loss: Call, wanted: object) -> None:
    network = cnnspec.load("lenet5")
    task = task_of(network.graph, {"": OutputLoss(loss=loss)})
    scores, targets = sample(3, 100, 10)
    assert callable(wanted)
    found = counted(task, scores, targets, 7)
    # Label smoothing is about training.
    assert found.loss == pytest.approx(wanted(scores, targets).item(), rel=1e-5)


def test_probabilities_have_the_loss_of_their_scores() -> None:
    scores, targets = sample(4, 50, 8)
    plain = counted(Task("y", "classes", 8), scores, targets, 50)
    probable = Task("y", "classes", 8, probabilities=True)
    for found in (
        counted(probable, scores.softmax(1), targets, 50),
        counted_in_numpy(probable, scores.softmax(1), targets),
    ):
        assert found.loss == pytest.approx(plain.loss, rel=1e-5)
        assert found.top1 == plain.top1


def test_a_probability_of_zero_is_no_infinite_loss() -> None:
    probable = Task("y", "classes", 2, probabilities=True)
    found = counted(probable, torch.tensor([[1.0, 0.0]]), torch.tensor([1]), 1)
    assert found.loss == 100.0


@settings(max_examples=80, deadline=None)
@given(
    arrays_of.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(1, 8)),
        elements=st.one_of(st.integers(-3, 3).map(float), st.just(float("nan")))
        | st.floats(-50, 50, width=32),
    ),
    st.data(),
)
def test_both_countings_agree(scores: np.ndarray, data: st.DataObject) -> None:
    count, classes = scores.shape
    targets = data.draw(arrays_of.arrays(np.int64, count, elements=st.integers(0, classes - 1)))
    batch = data.draw(st.integers(1, count))
    task = Task("y", "classes", classes)
    one = counted(task, torch.from_numpy(scores), torch.from_numpy(targets), batch)
    other = counted_in_numpy(task, torch.from_numpy(scores), torch.from_numpy(targets))
    assert (one.samples, one.top1, one.top5, one.odd) == (
        other.samples,
        other.top1,
        other.top5,
        other.odd,
    )
    assert one.classes == other.classes
    assert one.confusion is not None
    assert other.confusion is not None
    assert (one.confusion == other.confusion).all()
    assert one.loss == pytest.approx(other.loss, rel=1e-4, abs=1e-5, nan_ok=True)


# ------------------------------------------------------------------------------------------- maps


def test_maps_count_pixels_that_count() -> None:
    targets = torch.tensor([[[0, 0, 1], [1, 2, 255]]])
    said = torch.tensor([[[0, 1, 1], [1, 0, 2]]])
    scores = functional.one_hot(said, 4).movedim(-1, 1).float() * 9
    task = Task("mask", "map", 4)
    for found in (counted(task, scores, targets, 1), counted_in_numpy(task, scores, targets)):
        assert (found.samples, found.top1, found.top5) == (1, 3 / 5, None)
        # 0: 1 of {0,0}+{2 said 0}: 1/3; 1: 2/3; 2: 0/1; class 3 does not occur.
        assert found.mean_iou == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)
        assert [each.samples for each in found.classes] == [2, 2, 1, 0]
        own = functional.cross_entropy(scores, targets, ignore_index=255).item()
        assert found.loss == pytest.approx(own, rel=1e-6)
        assert found.to_json()["pixel_accuracy"] == 3 / 5


def test_a_smaller_map_is_compared_with_the_middle() -> None:
    targets = torch.full((1, 6, 6), 1)
    targets[:, 2:4, 2:4] = 0
    scores = torch.zeros(1, 2, 2, 2)
    scores[:, 0] = 1.0
    task = Task("mask", "map", 2)
    assert counted(task, scores, targets, 1).top1 == 1.0
    assert counted_in_numpy(task, scores, targets).top1 == 1.0
    with pytest.raises(EnvironmentFailure, match="the targets are 2x2"):
        counted(task, torch.zeros(1, 2, 3, 3), targets[:, :2, :2], 1)


def test_an_image_is_compared_with_the_one_that_went_in() -> None:
    network = cnnspec.load(
        text="cnnspec: 1\nname: code\ninputs: {image: [1, 4, 4]}\n"
        "layers:\n  - Conv2d: {out_channels: 1, kernel_size: 3, padding: 1}\n"
    )
    losses = {"": OutputLoss(loss=Call("MSELoss"), target="image")}
    task = task_of(network.graph, losses)
    images, output = torch.rand(5, 1, 4, 4), torch.rand(5, 1, 4, 4)
    counting, twin = Counting(task, CPU), NumpyCounting(task)
    for part in (slice(0, 2), slice(2, 5)):
        counting.add(output[part], torch.zeros(0), images[part])
        twin.add(output[part].numpy(), np.zeros(0, np.int64), images[part].numpy())
    wanted = functional.mse_loss(output, images).item()
    assert counting.evaluation().figures() == {"loss": pytest.approx(wanted)}
    assert twin.evaluation().loss == pytest.approx(wanted)


# ------------------------------------------------------------------------------------------ tasks


def test_the_task_is_told_by_the_first_output() -> None:
    assert task_of(cnnspec.load("googlenet").graph).classes == 1000
    unet = task_of(cnnspec.load("unet").graph)
    assert unet.kind == "map"
    assert unet.loss.name == "CrossEntropyLoss"


def test_a_softmax_at_the_end_is_seen() -> None:
    text = "cnnspec: 1\nname: net\ninputs: {x: [4]}\nlayers:\n  - Linear: {out_features: 3}\n"
    assert not task_of(cnnspec.load(text=text).graph).probabilities
    assert task_of(cnnspec.load(text=text + "  - Softmax: {dim: 1}\n").graph).probabilities


def test_an_output_that_is_neither_is_refused() -> None:
    text = "cnnspec: 1\nname: net\ninputs: {x: [4, 5]}\nlayers: [ReLU]\n"
    with pytest.raises(EnvironmentFailure, match="4x5: neither scores of classes nor a map"):
        task_of(cnnspec.load(text=text).graph)


# -------------------------------------------------------------------------------------- averaging


def test_weights_are_averaged_in_double_precision() -> None:
    states = [
        {"w": torch.tensor([1e8, 1.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([-1e8, 2.0]), "n": torch.tensor(5)},
        {"w": torch.tensor([3.0, 3.0]), "n": torch.tensor(4)},
    ]
    found = averaged_weights(states)
    assert found["w"].tolist() == [1.0, 2.0]
    assert found["w"].dtype == torch.float32
    assert found["n"].item() == 5


# ------------------------------------------------------------------------------------------- sync


@pytest.mark.parametrize("kind", ["classes", "map"])
def test_counting_waits_for_no_device(kind: str) -> None:
    """On the meta device there are no values: whatever reads one, and so would wait, fails."""
    meta = torch.device("meta")
    place = (4, 5) if kind == "map" else ()
    task = Task("y", "map" if kind == "map" else "classes", 3)
    counting = Counting(task, meta, confusion=True)
    counting.add(
        torch.empty(2, 3, *place, device=meta),
        torch.empty(2, *place, dtype=torch.int64, device=meta),
    )
    with pytest.raises((NotImplementedError, RuntimeError)):
        counting.evaluation()
