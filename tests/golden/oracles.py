"""torchvision's models as oracles: shapes and names only, on the meta device, built once each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn


def _torchvision() -> torch.library.Library | None:
    """Import torchvision; where its compiled operators do not load, declare those it names.

    The library returned must live as long as the declarations are needed.
    """
    if hasattr(torch.ops.torchvision, "nms"):
        return None
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


_DECLARED = _torchvision()

from torchvision import models  # noqa: E402  # after the declarations
from torchvision.ops import FeaturePyramidNetwork  # noqa: E402

SHARED: Mapping[str, tuple[str, ...]] = {
    "alexnet": ("alexnet",),
    "convnext": ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large"),
    "deeplabv3": ("deeplabv3_resnet50", "deeplabv3_resnet101"),
    "densenet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "googlenet": ("googlenet",),
    "mobilenet_v3": ("mobilenet_v3_large", "mobilenet_v3_small"),
    "resnet": (
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_32x8d",
        "resnext101_64x4d",
        "wide_resnet50_2",
        "wide_resnet101_2",
    ),
    "resnet50": ("resnet50",),
    "vgg": (
        "vgg11",
        "vgg11_bn",
        "vgg13",
        "vgg13_bn",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "vgg19_bn",
    ),
    "vgg16": ("vgg16",),
    "vit_b_16": ("vit_b_16",),
}
"""Models that each bundled spec has too, as variants or as itself."""

_BUILT_WITH: Mapping[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False},
    "deeplabv3_resnet50": {"weights_backbone": None, "aux_loss": True},
    "deeplabv3_resnet101": {"weights_backbone": None, "aux_loss": True},
}

_COUNTED_WITH_HEADS = frozenset({"deeplabv3_resnet50", "deeplabv3_resnet101"})
"""Models whose published counts include the auxiliary head, which inference does not run."""


@dataclass(frozen=True, slots=True)
class Published:
    """What torchvision publishes beside its weights."""

    params: int
    gmacs: float
    """Multiply-accumulates / 10^9, rounded to three decimals."""
    with_heads: bool
    """Whether auxiliary heads are counted."""


def names() -> frozenset[str]:
    """Every model torchvision can build."""
    return frozenset(models.list_models())


@cache
def model(name: str) -> nn.Module:
    """A model with all its heads, in evaluation mode, without memory for weights."""
    with torch.device("meta"):
        built: nn.Module = models.get_model(name, weights=None, **_BUILT_WITH.get(name, {}))
    return built.eval()


def published(name: str) -> Published:
    """The figures that come with the model's first weights."""
    meta = next(iter(models.get_model_weights(name))).meta
    return Published(meta["num_params"], meta["_ops"], name in _COUNTED_WITH_HEADS)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by state-dict key."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def output_shapes(name: str, *inputs: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes that a model gives for inputs, batch not counted."""
    with torch.no_grad():
        out = model(name)(*[torch.empty(1, *shape, device="meta") for shape in inputs])
    tensors = out.values() if isinstance(out, dict) else [out]
    return [tuple(tensor.shape[1:]) for tensor in tensors]


@cache
def pyramid() -> nn.Module:
    """torchvision's feature pyramid on the stages of a ResNet-50."""
    with torch.device("meta"):
        built: nn.Module = FeaturePyramidNetwork([256, 512, 1024, 2048], 256)
    return built
