"""The operations that torch performs, forward and backward, are those of torchvision's own modules.

Compared are their names and the sizes of all tensors that go in, in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

import cnnspec
from tests.torchvision_networks import pixels, reference

Operation = tuple[str, str]


class Recorded(TorchDispatchMode):
    """Notes every operation below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_dispatch__(
        self,
        function: Any,
        types: object,
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> Any:
        sizes = tree_map(lambda x: tuple(x.shape) if isinstance(x, Tensor) else None, list(args))
        self.operations.append((str(function), str(sizes)))
        return function(*args, **(kwargs or {}))


def operations(module: nn.Module, given: Tensor, training: bool) -> list[Operation]:
    module.train(training)
    with Recorded() as recorded, torch.set_grad_enabled(training):
        result = module(given.clone())
        if training:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            torch.autograd.backward([output.sum() for output in outputs])
    return recorded.operations


def both(name: str, size: int | None, training: bool) -> tuple[list[Operation], list[Operation]]:
    net = cnnspec.load(name, inputs={"image": (3, size, size)} if size else None)
    (shape,) = net.analyze().inputs.values()
    given = pixels(2, *shape)
    ours = operations(net.to_torch(), given, training)
    return ours, operations(reference(name), given, training)


def out_of_place(found: list[Operation]) -> list[Operation]:
    return [(name.replace("relu_", "relu"), sizes) for name, sizes in found]


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("alexnet", 64),
        ("vgg11_bn", 32),
        ("resnet18", 64),
        ("resnext50_32x4d", 64),
        ("convnext_tiny", 64),
    ],
)
def test_same_operations_in_the_same_order(name: str, size: int, training: bool) -> None:
    ours, theirs = both(name, size, training)
    assert ours == theirs


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_squeeze_and_excite_is_in_place_where_torchvision_is_not(training: bool) -> None:
    ours, theirs = both("mobilenet_v3_small", 64, training)
    assert out_of_place(ours) == out_of_place(theirs)
    extra = Counter(name for name, _ in ours) - Counter(name for name, _ in theirs)
    assert extra == {"aten.relu_.default": 9}


def test_auxiliary_heads_run_last() -> None:
    """torchvision runs each where it branches off; operations and results are the same."""
    ours, theirs = both("googlenet", 64, training=False)
    assert ours == theirs
    ours, theirs = both("googlenet", 64, training=True)
    assert Counter(ours) == Counter(theirs)


def test_deeplab_leaves_the_auxiliary_head_out_of_inference() -> None:
    ours, theirs = both("deeplabv3_resnet50", 40, training=True)
    assert out_of_place(ours) == out_of_place(theirs)
    ours, theirs = both("deeplabv3_resnet50", 40, training=False)
    assert not Counter(out_of_place(ours)) - Counter(out_of_place(theirs))
    assert len(theirs) - len(ours) == 6


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_densenet_joins_two_tensors_where_torchvision_joins_all(training: bool) -> None:
    """What is read is as much, but backward has one gradient to add for each join, not for each
    pair of layers.
    """
    ours, theirs = both("densenet121", 64, training)
    assert len(ours) < len(theirs)
    differing = {"aten.cat.default", "aten.slice.Tensor", "aten.add.Tensor", "aten.detach.default"}
    rest = [[op for op in found if op[0] not in differing] for found in (ours, theirs)]
    assert rest[0] == rest[1]


def test_vit_selects_the_class_token_as_torchvision_does() -> None:
    ours, theirs = both("vit_b_16", None, training=False)
    assert ours == theirs
