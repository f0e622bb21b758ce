"""Names that recipes may use, and their arguments: torch's optimisers, schedulers and losses, and
the augmentations of this project. Tables only: torch may not enter, tests compare them with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cnnspec.slots import Nullable, Slot
from cnnspec.training.recipe.kinds import (
    Choice,
    Each,
    Flag,
    Items,
    Number,
    OrWord,
    Range,
    Whole,
)

__all__ = [
    "AUGMENTATIONS",
    "LENGTHS",
    "LOSSES",
    "MOMENTUM",
    "OPTIMIZERS",
    "OUTSIDE",
    "SCHEDULERS",
    "SOFT_LOSSES",
    "SOURCES",
    "Known",
]


@dataclass(frozen=True, slots=True)
class Known:
    """Something a recipe may name: a sentence about it, its arguments, those it cannot do without.

    Arguments that are left out are those of torch by default.
    """

    about: str
    arguments: Mapping[str, Slot]
    required: tuple[str, ...] = ()


_RATE = Number(least=0)
_SHARE = Number(least=0, below=1)
_POSITIVE = Number(above=0)
_COUNT = Whole(1)
_BETAS = Items(_SHARE, (2,))
_EVERY: Mapping[str, Slot] = MappingProxyType({"lr": _RATE, "weight_decay": Number(least=0)})
_WAYS: Mapping[str, Slot] = MappingProxyType({"foreach": Nullable(Flag()), "maximize": Flag()})
_FUSED: Mapping[str, Slot] = MappingProxyType({"fused": Nullable(Flag())})
_ADAM: Mapping[str, Slot] = MappingProxyType(
    {**_EVERY, "betas": _BETAS, "eps": Number(least=0), **_WAYS}
)

OPTIMIZERS: Mapping[str, Known] = MappingProxyType(
    {
        "ASGD": Known(
            "SGD whose averaged weights are kept as well.",
            {
                **_EVERY,
                "lambd": Number(),
                "alpha": Number(),
                "t0": Number(least=0),
                **_WAYS,
            },
        ),
        "Adadelta": Known(
            "Steps by the root mean square of earlier ones; needs no learning rate but 1.",
            {**_EVERY, "rho": Number(least=0, most=1), "eps": Number(least=0), **_WAYS},
        ),
        "Adafactor": Known(
            "Adam with second moments by row and column, for little memory.",
            {
                **_EVERY,
                "beta2_decay": Number(most=0),
                "eps": Each((Nullable(Number(least=0)), Number(least=0))),
                "d": Number(least=1),
                **_WAYS,
            },
        ),
        "Adagrad": Known(
            "Steps divided by the root of the sum of squared gradients.",
            {
                **_EVERY,
                "lr_decay": Number(least=0),
                "initial_accumulator_value": Number(least=0, most=1e30),
                "eps": Number(least=0),
                **_WAYS,
                **_FUSED,
            },
        ),
        "Adam": Known(
            "Momentum divided by the root mean square of the gradient.",
            {**_ADAM, "amsgrad": Flag(), "decoupled_weight_decay": Flag(), **_FUSED},
        ),
        "AdamW": Known(
            "Adam with weight decay apart from the gradient.",
            {**_ADAM, "amsgrad": Flag(), **_FUSED},
        ),
        "Adamax": Known("Adam with the largest gradient in place of the root mean square.", _ADAM),
        "NAdam": Known(
            "Adam with Nesterov momentum.",
            {**_ADAM, "momentum_decay": Number(least=0), "decoupled_weight_decay": Flag()},
        ),
        "RAdam": Known(
            "Adam whose first steps are rectified.",
            {**_ADAM, "decoupled_weight_decay": Flag()},
        ),
        "RMSprop": Known(
            "Steps divided by the root mean square of the gradient.",
            {
                **_EVERY,
                "alpha": Number(least=0),
                "eps": Number(least=0),
                "momentum": _SHARE,
                "centered": Flag(),
                **_WAYS,
            },
        ),
        "Rprop": Known(
            "Steps by the signs of the gradient; for whole batches.",
            {
                "lr": _RATE,
                "etas": Each((Number(above=0, below=1), Number(above=1))),
                "step_sizes": Items(_POSITIVE, (2,)),
                **_WAYS,
            },
        ),
        "SGD": Known(
            "Steps down the gradient, with momentum where asked.",
            {
                **_EVERY,
                "momentum": _SHARE,
                "dampening": Number(),
                "nesterov": Flag(),
                **_WAYS,
                **_FUSED,
            },
        ),
    }
)
"""The optimisers of torch.optim. `differentiable` and `capturable` are for other loops than ours.
"""

_BASE = Number(least=0)

SCHEDULERS: Mapping[str, Known] = MappingProxyType(
    {
        "ConstantLR": Known(
            "The rate times `factor` for the first `total_iters`.",
            {"factor": Number(least=0, most=1), "total_iters": Whole(0)},
        ),
        "CosineAnnealingLR": Known(
            "Down to `eta_min` along half a cosine over `T_max`, the whole training if left out.",
            {"T_max": _COUNT, "eta_min": _BASE},
        ),
        "CosineAnnealingWarmRestarts": Known(
            "Half a cosine over `T_0`, begun anew over a length times `T_mult`.",
            {"T_0": _COUNT, "T_mult": _COUNT, "eta_min": _BASE},
            ("T_0",),
        ),
        "CyclicLR": Known(
            "Up and down between `base_lr` and `max_lr`, by step.",
            {
                "base_lr": _BASE,
                "max_lr": _BASE,
                "step_size_up": _COUNT,
                "step_size_down": Nullable(_COUNT),
                "mode": Choice(("triangular", "triangular2", "exp_range")),
                "gamma": _POSITIVE,
                "scale_mode": Choice(("cycle", "iterations")),
                "cycle_momentum": Flag(),
                "base_momentum": _SHARE,
                "max_momentum": _SHARE,
            },
            ("base_lr", "max_lr"),
        ),
        "ExponentialLR": Known(
            "The rate times `gamma` each time.", {"gamma": _POSITIVE}, ("gamma",)
        ),
        "LinearLR": Known(
            "From `start_factor` to `end_factor` times the rate over `total_iters`.",
            {
                "start_factor": Number(above=0, most=1),
                "end_factor": Number(least=0, most=1),
                "total_iters": _COUNT,
            },
        ),
        "MultiStepLR": Known(
            "The rate times `gamma` at each of the `milestones`.",
            {"milestones": Items(_COUNT), "gamma": _POSITIVE},
            ("milestones",),
        ),
        "OneCycleLR": Known(
            "Up to `max_lr` and down to almost nothing over `total_steps`, the whole training if "
            "left out; by step.",
            {
                "max_lr": _POSITIVE,
                "total_steps": _COUNT,
                "pct_start": Number(least=0, most=1),
                "anneal_strategy": Choice(("cos", "linear")),
                "cycle_momentum": Flag(),
                "base_momentum": _SHARE,
                "max_momentum": _SHARE,
                "div_factor": _POSITIVE,
                "final_div_factor": _POSITIVE,
                "three_phase": Flag(),
            },
            ("max_lr",),
        ),
        "PolynomialLR": Known(
            "Down to 0 by a power over `total_iters`, the whole training if left out.",
            {"total_iters": _COUNT, "power": Number(least=0)},
        ),
        "ReduceLROnPlateau": Known(
            "The rate times `factor` where the held-out loss (`mode` min) or top-1 accuracy (max) "
            "has not become better for `patience` epochs.",
            {
                "mode": Choice(("min", "max")),
                "factor": Number(above=0, below=1),
                "patience": Whole(0),
                "threshold": Number(least=0),
                "threshold_mode": Choice(("rel", "abs")),
                "cooldown": Whole(0),
                "min_lr": Number(least=0),
                "eps": Number(least=0),
            },
        ),
        "StepLR": Known(
            "The rate times `gamma` after every `step_size`.",
            {"step_size": _COUNT, "gamma": _POSITIVE},
            ("step_size",),
        ),
    }
)
"""The schedulers of torch.optim.lr_scheduler."""

LENGTHS: Mapping[str, str] = MappingProxyType(
    {
        "CosineAnnealingLR": "T_max",
        "OneCycleLR": "total_steps",
        "PolynomialLR": "total_iters",
    }
)
"""The argument of a scheduler that is the length of the training where it is left out."""

MOMENTUM = frozenset(("SGD", "RMSprop", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"))
"""Optimisers whose momentum a scheduler can cycle: torch asks for `momentum` or `betas`."""

LOSSES: Mapping[str, Known] = MappingProxyType(
    {
        "BCEWithLogitsLoss": Known("Every class a yes or no of its own, from logits.", {}),
        "CrossEntropyLoss": Known(
            "Softmax and the logarithm of the right class; of every pixel where outputs are maps.",
            {
                "label_smoothing": Number(least=0, most=1),
                "ignore_index": Whole(-1000, 2**15),
            },
        ),
        "HuberLoss": Known("Squares near 0, a line beyond `delta`.", {"delta": _POSITIVE}),
        "L1Loss": Known("The absolute difference.", {}),
        "MSELoss": Known("The squared difference.", {}),
        "MultiMarginLoss": Known(
            "The hinge loss of a multiclass SVM.",
            {"p": Whole(1, 2), "margin": Number()},
        ),
        "NLLLoss": Known(
            "For networks that end with LogSoftmax.",
            {"ignore_index": Whole(-1000, 2**15)},
        ),
        "SmoothL1Loss": Known("Squares below `beta`, a line beyond.", {"beta": Number(least=0)}),
    }
)
"""Losses of torch.nn."""

SOFT_LOSSES = frozenset(("CrossEntropyLoss", "BCEWithLogitsLoss"))
"""Losses that take a mixture of classes for a target."""

_PART = Number(least=0, most=1)
_SIZE = Items(_COUNT, (2,), single=True, each="height and width")
_FILL = Number(least=0, most=255)
_BORDER = Choice(("constant", "edge", "reflect"))
_TURNED = Choice(("nearest", "bilinear"))
_SAMPLED = Choice(("bilinear", "bicubic", "nearest"))
_DEGREES = Range(Number(), single=True, single_item=Number(least=0))
_JITTER = Range(Number(least=0), single=True)

AUGMENTATIONS: Mapping[str, Known] = MappingProxyType(
    {
        "CenterCrop": Known("The middle of the image.", {"size": _SIZE}, ("size",)),
        "ColorJitter": Known(
            "Brightness, contrast, saturation and hue changed at random.",
            {
                "brightness": _JITTER,
                "contrast": _JITTER,
                "saturation": _JITTER,
                "hue": Range(
                    Number(least=-0.5, most=0.5),
                    single=True,
                    single_item=Number(least=0, most=0.5),
                ),
                "p": _PART,
            },
        ),
        "GaussianBlur": Known(
            "Blurred by a Gaussian of random width.",
            {
                "kernel_size": Items(
                    Whole(1, odd=True), (2,), single=True, each="height and width"
                ),
                "sigma": Range(_POSITIVE, single=True),
                "p": _PART,
            },
            ("kernel_size",),
        ),
        "PCAColor": Known("AlexNet's: along the main axes of natural colours.", {"std": _BASE}),
        "RandAugment": Known(
            "`num_ops` random changes of one strength.",
            {
                "num_ops": _COUNT,
                "magnitude": Whole(0),
                "num_magnitude_bins": Whole(2),
                "interpolation": _TURNED,
                "fill": _FILL,
            },
        ),
        "RandomAffine": Known(
            "Turned, shifted, scaled and sheared at random.",
            {
                "degrees": _DEGREES,
                "translate": Nullable(Items(_PART, (2,), each="across and down")),
                "scale": Nullable(Range(_POSITIVE)),
                "shear": Nullable(Items(Number(), (2, 4), single=True)),
                "interpolation": _TURNED,
                "fill": _FILL,
            },
            ("degrees",),
        ),
        "RandomCrop": Known(
            "A part of `size` at random, of the image with `padding` around it.",
            {
                "size": _SIZE,
                "padding": Nullable(Items(Whole(0), (2, 4), single=True)),
                "padding_mode": _BORDER,
                "fill": _FILL,
            },
            ("size",),
        ),
        "RandomErasing": Known(
            "A rectangle overwritten.",
            {
                "p": _PART,
                "scale": Range(_PART),
                "ratio": Range(_POSITIVE),
                "value": OrWord(
                    Items(Number(), single=True, each="one for each channel"), "random"
                ),
            },
        ),
        "RandomGrayscale": Known("Without colour, at times.", {"p": _PART}),
        "RandomHorizontalFlip": Known("Left and right exchanged.", {"p": _PART}),
        "RandomResizedCrop": Known(
            "A part of random area and shape, resized to `size`.",
            {
                "size": _SIZE,
                "scale": Range(_POSITIVE),
                "ratio": Range(_POSITIVE),
                "interpolation": _SAMPLED,
            },
            ("size",),
        ),
        "RandomRotation": Known(
            "Turned by a random angle.",
            {"degrees": _DEGREES, "interpolation": _TURNED, "fill": _FILL},
            ("degrees",),
        ),
        "RandomShift": Known(
            "Shifted by up to so many `pixels` either way.",
            {
                "pixels": Items(Whole(0), (2,), single=True, each="down and across"),
                "padding_mode": _BORDER,
                "fill": _FILL,
            },
            ("pixels",),
        ),
        "RandomVerticalFlip": Known("Top and bottom exchanged.", {"p": _PART}),
        "Resize": Known(
            "Resized; a single `size` is the shorter side.",
            {"size": _SIZE, "interpolation": _SAMPLED},
            ("size",),
        ),
    }
)
"""Augmentations: names and arguments of torchvision, and `RandomShift` and `PCAColor`."""

SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "digits": "1,797 handwritten digits of 8x8, bundled",
        "images": "a folder of class folders",
        "mnist": "MNIST from its published files",
        "fashion-mnist": "Fashion-MNIST from its published files",
        "cifar10": "CIFAR-10 from its published files",
        "cifar100": "CIFAR-100 from its published files",
        "huggingface": "a data set of the Hugging Face hub, or in its formats",
        "random": "noise, to measure with",
    }
)
"""Sources of samples."""

OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "LBFGS": "it evaluates the network several times a step",
        "Muon": "it is for matrices, and weights of convolutions are none",
        "SparseAdam": "it is for sparse gradients, and these are dense",
        "ChainedScheduler": "it is made of other schedulers",
        "LambdaLR": "it is given a function",
        "MultiplicativeLR": "it is given a function",
        "SequentialLR": "it is made of other schedulers",
        "Normalize": "the spec says it, under `preprocess`",
        "ToTensor": "images are made tensors anyway",
    }
)
"""Names of torch that a recipe cannot use, and why."""
