"""The zoo as tests see it: every bundled network, and the few that stand for their families.

Tests that cost seconds a network run on the few. With `CNNSPEC_WHOLE_ZOO=1` in the environment they
run on all; `bench.zoo` does that for what every network must pass.
"""

from __future__ import annotations

import os

from cnnspec.frontend.load import bundled_specs, load_file

__all__ = ["EVERY", "FEW", "FILES", "Entry"]

Entry = tuple[str, str | None]
"""A bundled file and one of its variants, None for its own network."""


def _every() -> list[Entry]:
    found: list[Entry] = []
    for spec, path in bundled_specs().items():
        document = load_file(path).document
        if document.runnable:
            variants = (name for name, it in document.variants.items() if it.alias is None)
            found += [(spec, None), *((spec, name) for name in variants)]
    return found


EVERY = _every()
"""All networks, each once: no other names of a variant."""

FILES = list(dict.fromkeys(spec for spec, _ in EVERY))
"""The files that have networks: some only have blocks for others."""

_OF_ANOTHER_STRUCTURE: list[Entry] = [
    ("alexnet", "alexnet_paper"),
    ("convnet", "just_conv"),
    ("deeplabv3", "deeplabv3_mobilenet_v3_large"),
    ("densenet_cifar", "densenet_bc100_12"),
    ("googlenet", "googlenet_paper"),
    ("lenet5", "lenet5_1998"),
    ("lenet5", "lenet5_table"),
    ("m5", "m18"),
    ("mlp", "logistic"),
    ("mobilenet_v3", "mobilenet_v3_small"),
    ("nin", "nin_imagenet"),
    ("regnet", "regnet_y_400mf"),
    ("resnet", "resnet18"),
    ("resnet", "resnet34_A"),
    ("resnet_cifar", "plain20"),
    ("rpn", "rpn_zf"),
    ("squeezenet", "squeezenet1_1"),
    ("unet", "unet_paper"),
    ("vgg", "A-LRN"),
    ("vgg", "vgg11_bn"),
    ("yolov1", "yolov1_darknet"),
]
"""Variants that differ from their file's own network by more than numbers."""

FEW = (
    EVERY
    if os.environ.get("CNNSPEC_WHOLE_ZOO")
    else [entry for entry in EVERY if entry[1] is None or entry in _OF_ANOTHER_STRUCTURE]
)
"""Every file's own network, and variants of another structure."""
