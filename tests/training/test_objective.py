"""The loss of a network, against torch.nn, and how it adds up over parts and processes."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnspec.api import Network
from cnnspec.backends.torch import to_torch
from cnnspec.diagnostics import EnvironmentFailure
from cnnspec.frontend.load import load_text
from cnnspec.ir import Graph
from cnnspec.training.objective import Objective
from cnnspec.training.recipe.known import LOSSES, SOFT_LOSSES
from cnnspec.training.recipe.model import Call, OutputLoss

NONE = torch.zeros(0)


def graph(layers: str, outputs: str = "", image: str = "[3, 6, 5]") -> Graph:
    text = f"cnnspec: 1\nname: net\ninputs: {{image: {image}}}\nlayers:\n{layers}"
    text += f"\noutputs: {outputs}" if outputs else ""
    return Network(load_text(text, "net.yaml")).graph


def scores(ending: str = "") -> Graph:
    last = f"\n  - {ending}" if ending else ""
    return graph("  - Flatten\n  - Linear: {out_features: 4}\n    name: fc" + last)


def maps() -> Graph:
    return graph("  - Conv2d: {out_channels: 4, kernel_size: 1}")


def loss(name: str, target: str = "label", weight: float = 1.0, **arguments: Any) -> OutputLoss:
    return OutputLoss(loss=Call(name, arguments), target=target, weight=weight)  # type: ignore[arg-type]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([3, 0, 1, 1, 2, 0])

WITH_LABELS: list[tuple[str, dict[str, Any]]] = [
    ("CrossEntropyLoss", {}),
    ("CrossEntropyLoss", {"label_smoothing": 0.1}),
    ("CrossEntropyLoss", {"ignore_index": 7}),
    ("NLLLoss", {}),
    ("MultiMarginLoss", {}),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5}),
]
COMPARED: list[tuple[str, dict[str, Any]]] = [
    ("BCEWithLogitsLoss", {}),
    ("MSELoss", {}),
    ("L1Loss", {}),
    ("SmoothL1Loss", {"beta": 0.3}),
    ("HuberLoss", {"delta": 0.4}),
]


def one_hot(labels: Tensor) -> Tensor:
    return nn.functional.one_hot(labels, 4).float()


def test_losses_are_those_of_recipes() -> None:
    assert {name for name, _ in (*WITH_LABELS, *COMPARED)} == set(LOSSES)


@pytest.mark.parametrize(("name", "arguments"), [*WITH_LABELS, *COMPARED])
def test_losses_of_classes_are_those_of_torch(name: str, arguments: dict[str, Any]) -> None:
    output = random(6, 4)
    compared = (name, arguments) in COMPARED
    expected = getattr(nn, name)(**arguments)(output, one_hot(LABELS) if compared else LABELS)
    objective = Objective.of(scores(), {"": loss(name, **arguments)})
    torch.testing.assert_close(objective({"output": output}, LABELS, NONE, count=6), expected)
    halves = output.to(torch.bfloat16)
    found = objective({"output": halves}, LABELS, NONE, count=6)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("name", "arguments"), [*WITH_LABELS[:4], *COMPARED])
def test_losses_of_masks_are_those_of_torch(name: str, arguments: dict[str, Any]) -> None:
    output, masks = random(2, 4, 6, 5), LABELS.repeat(10).view(2, 6, 5)
    compared = (name, arguments) in COMPARED
    wanted = one_hot(masks).permute(0, 3, 1, 2) if compared else masks
    expected = getattr(nn, name)(**arguments)(output, wanted)
    objective = Objective.of(maps(), {"": loss(name, **arguments)})
    torch.testing.assert_close(objective({"output": output}, masks, NONE, count=2), expected)


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss", "MSELoss"])
def test_pixels_of_255_do_not_count(name: str) -> None:
    objective = Objective.of(maps(), {"": loss(name)})
    masks = LABELS.repeat(10).view(2, 6, 5)
    ignored = masks.clone()
    ignored[0, :4] = 255
    output = random(2, 4, 6, 5).requires_grad_()
    found = objective({"output": output}, ignored, NONE, count=2)
    single = Objective.of(
        graph("  - Conv2d: {out_channels: 4, kernel_size: 1}", image="[3, 2, 5]"), {"": loss(name)}
    )
    below = single({"output": output[:1, :, 4:]}, masks[:1, 4:], NONE, count=2)
    rest = objective({"output": output[1:]}, masks[1:], NONE, count=2)
    torch.testing.assert_close(found, below + rest)
    found.backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    assert not output.grad[0, :, :4].any()
    assert output.grad[0, :, 4:].any(dim=0).all()
    nothing = torch.full_like(masks, 255)
    assert objective({"output": output}, nothing, NONE, count=2) == 0


def test_an_index_of_its_own_is_ignored_beside_255() -> None:
    objective = Objective.of(maps(), {"": loss("CrossEntropyLoss", ignore_index=2)})
    masks, output = LABELS.repeat(10).view(2, 6, 5), random(2, 4, 6, 5)
    both = torch.where(masks == 1, 255, masks)
    found = objective({"output": output}, both, NONE, count=2)
    oracle = nn.CrossEntropyLoss(ignore_index=2)(output, torch.where(masks == 1, 2, masks))
    torch.testing.assert_close(found, oracle)


def test_class_255_of_many_counts() -> None:
    net = graph("  - Flatten\n  - Linear: {out_features: 300}")
    objective = Objective.of(net, {"": loss("CrossEntropyLoss")})
    found = objective({"output": torch.zeros(2, 300)}, torch.tensor([255, 3]), NONE, count=2)
    assert found.item() == pytest.approx(log(300))


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "MultiMarginLoss", "BCEWithLogitsLoss"])
def test_parts_add_up_to_the_mean_of_the_batch(name: str) -> None:
    objective = Objective.of(scores(), {"": loss(name)})
    output = random(6, 4)
    whole = objective({"output": output}, LABELS, NONE, count=6)
    parts = [
        objective({"output": output[part]}, LABELS[part], NONE, count=6)
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("CrossEntropyLoss", {}),
        ("CrossEntropyLoss", {"label_smoothing": 0.2}),
        ("BCEWithLogitsLoss", {}),
        ("MSELoss", {}),
    ],
)
def test_soft_targets(name: str, arguments: dict[str, Any]) -> None:
    output, shares = random(6, 4), 0.3 * one_hot(LABELS) + 0.7 * one_hot(LABELS.roll(1))
    objective = Objective.of(scores(), {"": loss(name, **arguments)})
    found = objective({"output": output}, shares, NONE, count=6)
    torch.testing.assert_close(found, getattr(nn, name)(**arguments)(output, shares))
    assert objective.correct({"output": shares}, shares) == 6


def test_losses_that_recipes_mix_with_take_mixtures() -> None:
    shares = one_hot(LABELS) / 2 + one_hot(LABELS.roll(1)) / 2
    for name in LOSSES:
        objective = Objective.of(scores(), {"": loss(name)})
        if name in SOFT_LOSSES:
            objective({"output": random(6, 4)}, shares, NONE, count=6)
    with pytest.raises(EnvironmentFailure, match="`MultiMarginLoss` takes one class"):
        Objective.of(scores(), {"": loss("MultiMarginLoss")})(
            {"output": random(6, 4)}, shares, NONE, count=6
        )


@pytest.mark.parametrize(("name", "arguments"), COMPARED)
def test_images_are_compared_with_themselves(name: str, arguments: dict[str, Any]) -> None:
    net = graph("  - Conv2d: {out_channels: 3, kernel_size: 1}")
    objective = Objective.of(net, {"": loss(name, "image", **arguments)})
    output, images = random(6, 3, 6, 5), random(6, 3, 6, 5, seed=1).sigmoid()
    found = objective({"output": output}, LABELS, images, count=6)
    torch.testing.assert_close(found, getattr(nn, name)(**arguments)(output, images))
    assert objective.correct({"output": output}, LABELS) is None


TWO = """  - Flatten
  - Linear: {out_features: 4}
    name: side
  - Linear: {out_features: 4}
    name: main
"""
HEADS = "{main: main, side: {from: side, training: true, weight: 0.4}}"


def test_outputs_weigh_what_the_spec_says() -> None:
    objective = Objective.of(graph(TWO, HEADS), {"": loss("CrossEntropyLoss")})
    main, side = random(6, 4), random(6, 4, seed=1)
    found = objective({"main": main, "side": side}, LABELS, NONE, count=6)
    parts = [nn.functional.cross_entropy(each, LABELS) for each in (main, side)]
    torch.testing.assert_close(found, parts[0] + 0.4 * parts[1])


def test_outputs_weigh_what_the_recipe_says() -> None:
    losses = {"main": loss("CrossEntropyLoss"), "side": loss("MultiMarginLoss", weight=0.25)}
    objective = Objective.of(graph(TWO, HEADS), losses)
    main, side = random(6, 4), random(6, 4, seed=1)
    found = objective({"main": main, "side": side}, LABELS, NONE, count=6)
    hinge = nn.functional.multi_margin_loss(side, LABELS)
    torch.testing.assert_close(found, nn.functional.cross_entropy(main, LABELS) + 0.25 * hinge)
    alone = Objective.of(graph(TWO, HEADS), {"main": loss("CrossEntropyLoss")})
    found = alone({"main": main, "side": side}, LABELS, NONE, count=6)
    torch.testing.assert_close(found, nn.functional.cross_entropy(main, LABELS))


def test_correct_counts_first_choices_of_what_inference_has() -> None:
    swapped = "{side: {from: side, training: true}, main: main}"
    objective = Objective.of(graph(TWO, swapped), {"": loss("CrossEntropyLoss")})
    main, side = one_hot(LABELS), one_hot(LABELS)
    main[:2] = one_hot((LABELS[:2] + 1) % 4)
    assert objective.correct({"main": main, "side": side}, LABELS) == 4


def test_correct_counts_shares_of_pixels() -> None:
    objective = Objective.of(maps(), {"": loss("CrossEntropyLoss")})
    masks = LABELS.repeat(10).view(2, 6, 5)
    output = one_hot(masks).permute(0, 3, 1, 2)
    assert objective.correct({"output": output}, masks) == 2
    changed = masks.clone()
    changed[0] = 255
    changed[0, 0, :4] = masks[0, 0, :4]
    changed[0, 0, 0] = (masks[0, 0, 0] + 1) % 4
    assert objective.correct({"output": output}, changed) == 1.75


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_a_network_that_knows_nothing_has_the_logarithm_of_its_classes(classes: int) -> None:
    linear = f"Linear: {{out_features: {classes}}}\n    init: {{weight: zeros, bias: zeros}}"
    net = graph(f"  - Flatten\n  - {linear}")
    module, images = to_torch(net), random(6, 3, 6, 5)
    labels = torch.arange(6) % classes
    for name, wanted in (
        ("CrossEntropyLoss", log(classes)),
        ("BCEWithLogitsLoss", log(2)),
        ("MultiMarginLoss", (classes - 1) / classes),
    ):
        objective = Objective.of(net, {"": loss(name)})
        found = objective({"output": module(images)}, labels, images, count=6)
        assert found.item() == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("ending", "name", "words"),
    [
        ("Softmax: {dim: 1}", "CrossEntropyLoss", "ends with `Softmax`, and `CrossEntropyLoss`"),
        ("Sigmoid", "CrossEntropyLoss", "ends with `Sigmoid`"),
        ("Sigmoid", "BCEWithLogitsLoss", "ends with `Sigmoid`"),
        ("ReLU", "NLLLoss", "does not end with `LogSoftmax`"),
        ("LogSoftmax: {dim: 1}", "NLLLoss", ""),
        ("LogSoftmax: {dim: 1}", "CrossEntropyLoss", ""),
        ("Softmax: {dim: 1}", "MSELoss", ""),
        ("ReLU", "CrossEntropyLoss", ""),
    ],
)
def test_remarks(ending: str, name: str, words: str) -> None:
    remarks = Objective.of(scores(ending), {"": loss(name)}).remarks
    assert len(remarks) == bool(words)
    assert all(words in remark for remark in remarks)


@pytest.mark.parametrize(
    ("net", "losses", "message"),
    [
        (
            scores(),
            {"logits": loss("MSELoss")},
            "`loss` names `logits`, which is no output of `net`",
        ),
        (scores(), {"": loss("CTCLoss")}, "there is no loss `CTCLoss`"),
        (
            maps(),
            {"": loss("MultiMarginLoss")},
            "output `output` is 4x6x5, `MultiMarginLoss` takes scores of classes",
        ),
        (
            graph("  - Flatten: {start_dim: 2}"),
            {"": loss("CrossEntropyLoss")},
            "output `output` is 3x30, `CrossEntropyLoss` takes scores of classes or a map of them",
        ),
        (
            scores(),
            {"": loss("MSELoss", "image")},
            "output `output` is 4, the image it is compared with 3x6x5",
        ),
        (
            maps(),
            {"": loss("CrossEntropyLoss", "image")},
            "`CrossEntropyLoss` compares with classes, not with images",
        ),
    ],
)
def test_losses_that_do_not_go_with_outputs(
    net: Graph, losses: dict[str, OutputLoss], message: str
) -> None:
    with pytest.raises(EnvironmentFailure) as failure:
        Objective.of(net, losses)
    assert failure.value.message == message


@pytest.mark.parametrize(
    ("net", "output", "targets", "message"),
    [
        (
            scores(),
            random(2, 4),
            torch.zeros(2, 6, 5).long(),
            "output `output` is 4, one choice for each image; the data has a class for each pixel",
        ),
        (
            maps(),
            random(2, 4, 6, 5),
            torch.zeros(2).long(),
            "output `output` is 4x6x5, a choice for each position; the data has one class for each "
            "image",
        ),
        (
            maps(),
            random(2, 4, 6, 5),
            torch.zeros(2, 12, 10).long(),
            "output `output` is 4x6x5, masks are 12x10",
        ),
    ],
)
def test_targets_that_do_not_go_with_outputs(
    net: Graph, output: Tensor, targets: Tensor, message: str
) -> None:
    objective = Objective.of(net, {"": loss("CrossEntropyLoss")})
    with pytest.raises(EnvironmentFailure) as failure:
        objective({"output": output}, targets, NONE, count=2)
    assert failure.value.message == message
