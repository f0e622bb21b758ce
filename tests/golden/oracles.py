"""torchvision's models as oracles: shapes and names only, on the meta device, built once each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest.mock import patch

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
    "deeplabv3": (
        "deeplabv3_resnet50",
        "deeplabv3_resnet101",
        "deeplabv3_mobilenet_v3_large",
    ),
    "densenet": ("densenet121", "densenet161", "densenet169", "densenet201"),
    "efficientnet": tuple(f"efficientnet_b{number}" for number in range(8)),
    "efficientnet_v2": ("efficientnet_v2_s", "efficientnet_v2_m", "efficientnet_v2_l"),
    "fcn": ("fcn_resnet50", "fcn_resnet101"),
    "googlenet": ("googlenet",),
    "inception_v3": ("inception_v3",),
    "lraspp": ("lraspp_mobilenet_v3_large",),
    "mnasnet": ("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"),
    "mobilenet_v2": ("mobilenet_v2",),
    "mobilenet_v3": ("mobilenet_v3_large", "mobilenet_v3_small"),
    "regnet": (
        "regnet_x_400mf",
        "regnet_x_800mf",
        "regnet_x_1_6gf",
        "regnet_x_3_2gf",
        "regnet_x_8gf",
        "regnet_x_16gf",
        "regnet_x_32gf",
        "regnet_y_400mf",
        "regnet_y_800mf",
        "regnet_y_1_6gf",
        "regnet_y_3_2gf",
        "regnet_y_8gf",
        "regnet_y_16gf",
        "regnet_y_32gf",
        "regnet_y_128gf",
    ),
    "resnet": (
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "wide_resnet50_2",
        "wide_resnet101_2",
    ),
    "resnet50": ("resnet50",),
    "resnext": ("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
    "shufflenet_v2": (
        "shufflenet_v2_x0_5",
        "shufflenet_v2_x1_0",
        "shufflenet_v2_x1_5",
        "shufflenet_v2_x2_0",
    ),
    "squeezenet": ("squeezenet1_0", "squeezenet1_1"),
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

NETWORKS = tuple(sorted({name for names in SHARED.values() for name in names}))
"""All of them by name, each once."""

TRANSFORMERS = ("maxvit", "swin", "vit")
"""How the names of torchvision's classifiers begin that are no convolutional networks."""

SEGMENTING = ("deeplabv3", "fcn", "lraspp")
"""Specs of networks for segmentation."""

WITH_HEADS = ("deeplabv3", "fcn")
"""Those whose published figures include an auxiliary head, which is built on request."""

_PUBLISHED_AT_224 = {"regnet_y_128gf": "IMAGENET1K_SWAG_LINEAR_V1"}
"""Weights whose figures are those of the spec's size, where the first ones are of another."""


@dataclass(frozen=True, slots=True)
class Published:
    """What torchvision publishes beside its weights."""

    params: int
    gmacs: float
    """Multiply-accumulates / 10^9, rounded to three decimals."""
    heads_have_params: bool
    """Whether the parameters of auxiliary heads are counted."""
    heads_have_macs: bool
    """Whether the work of auxiliary heads is counted."""


def names() -> frozenset[str]:
    """Every model torchvision can build."""
    return frozenset(models.list_models())


def convolutional_classifiers() -> frozenset[str]:
    """Every classifier that torchvision lists, but for its transformers."""
    listed = models.list_models(module=models)
    return frozenset(name for name in listed if not name.startswith(TRANSFORMERS))


def segmenters() -> frozenset[str]:
    """Every network for segmentation that torchvision lists."""
    return frozenset(models.list_models(module=models.segmentation))


def _built_with(name: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if name.startswith(SEGMENTING):
        options["weights_backbone"] = None
    if name.startswith(WITH_HEADS):
        options["aux_loss"] = True
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": True, "init_weights": False}
    return options


@contextmanager
def _tables_on_the_cpu() -> Iterator[None]:
    """RegNet's constructor reads numbers from tensors, which the meta device does not have."""
    kind = models.regnet.BlockParams
    made = kind.from_init_params.__func__

    def from_init_params(cls: type, *values: Any, **named: Any) -> Any:
        with torch.device("cpu"):
            return made(cls, *values, **named)

    with patch.object(kind, "from_init_params", classmethod(from_init_params)):
        yield


@cache
def model(name: str) -> nn.Module:
    """A model with all its heads, in evaluation mode, without memory for weights."""
    with _tables_on_the_cpu(), torch.device("meta"):
        built: nn.Module = models.get_model(name, weights=None, **_built_with(name))
    return built.eval()


def weights_of(name: str) -> Any:
    """A model's first weights, or the first at the spec's size: what is published, no values."""
    weights = list(models.get_model_weights(name))
    wanted = _PUBLISHED_AT_224.get(name, weights[0].name)
    return next(each for each in weights if each.name == wanted)


def published(name: str) -> Published:
    """The figures that come with these weights."""
    meta = weights_of(name).meta
    heads = name.startswith(WITH_HEADS)
    return Published(
        meta["num_params"],
        meta["_ops"],
        heads_have_params=heads or name == "inception_v3",
        heads_have_macs=heads,
    )


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes by state-dict key."""
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def stored(module: nn.Module) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """A state dict in its order: keys, shapes and types."""
    found = module.state_dict().items()
    return [(key, tuple(value.shape), value.dtype) for key, value in found]


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
