"""What a recipe says, checked and with every default filled in. No torch, no files, no text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "Call",
    "Checkpointing",
    "Clip",
    "Data",
    "EarlyStop",
    "OutputLoss",
    "PrecisionName",
    "Recipe",
    "Schedule",
    "Warmup",
]

PrecisionName = Literal["float32", "bfloat16", "float16"]


def _gradient_descent() -> Call:
    return Call("SGD", {"lr": 0.1, "momentum": 0.9})


def _cross_entropy() -> Mapping[str, OutputLoss]:
    return {"": OutputLoss(loss=Call("CrossEntropyLoss"))}


@dataclass(frozen=True, slots=True)
class Call:
    """Something of a library by its name, with its arguments: `SGD`, `{lr: 0.1}`.

    Arguments are plain values: numbers, text, booleans, None, and tuples of them.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Where samples come from and how they are read.

    `source` is `digits`, `images` (a folder of class folders), `mnist`, `fashion-mnist`, `cifar10`,
    `cifar100`, `huggingface` or `random`. `path` is a folder, or a name of the hub. `train` and
    `held_out` name the parts where the source has named ones (folders, splits); where it has no
    part to hold out, `hold_out` is the share of every class that is (0: none). `corrupt` is what an
    unreadable image does. `classes` is for `random` and for sources that do not tell.
    """

    source: str
    path: str | None = None
    train: str | None = None
    held_out: str | None = None
    hold_out: float = 0.2
    image: str | None = None
    label: str | None = None
    masks: str | None = None
    samples: int | None = None
    classes: int | None = None
    corrupt: Literal["fail", "skip"] = "fail"
    workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """The rate rises linearly from `start` times itself over the first `epochs` (may be broken)."""

    epochs: float
    start: float = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A scheduler of torch, moved on after every step or epoch from the start of the training.

    A warm-up is a further factor of the rate. Where the scheduler's length is left out
    (`known.LENGTHS`) it is that of the whole training.
    """

    scheduler: Call | None = None
    by: Literal["step", "epoch"] = "epoch"
    warmup: Warmup | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputLoss:
    """The loss of one output and its share of the whole.

    `target` is what it is compared with: the label, or the image that went in (autoencoders).
    """

    loss: Call
    weight: float = 1.0
    target: Literal["label", "image"] = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Gradients are scaled to a total 2-norm of at most `norm`, or cut at `value`."""

    norm: float | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStop:
    """Training ends when `metric` has not become better by `least` for `patience` epochs."""

    patience: int
    metric: Literal["loss", "top1"] = "loss"
    least: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpointing:
    """When the state is stored: every so many `epochs`, and every so many `steps` within one.

    `best` is the metric whose best model is kept as well, measured on held-out samples.
    """

    epochs: int = 1
    steps: int | None = None
    best: Literal["loss", "top1"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A recipe. `batch_size` counts samples of one step of the optimiser over all processes.

    `accumulate` splits that batch into so many parts that are computed one after another.
    `decay` `weights` leaves norms and biases without weight decay. `rates` are factors of the
    learning rate by pattern of paths (`features.*`), the last that matches wins; `freeze` are
    patterns of paths that do not train. `loss` is by output, or one for the key `""`: the outputs
    of the spec, each by its weight there. `seed` makes everything random.
    """

    name: str
    data: Data | None = None
    epochs: int = 10
    batch_size: int = 64
    accumulate: int = 1
    optimizer: Call = field(default_factory=_gradient_descent)
    decay: Literal["all", "weights"] = "all"
    rates: Mapping[str, float] = field(default_factory=dict)
    schedule: Schedule | None = None
    loss: Mapping[str, OutputLoss] = field(default_factory=_cross_entropy)
    augment: tuple[Call, ...] = ()
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float | None = None
    clip: Clip | None = None
    precision: PrecisionName = "float32"
    channels_last: bool = False
    compile: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    sync_batch_norm: bool = False
    freeze: tuple[str, ...] = ()
    early_stop: EarlyStop | None = None
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    deterministic: bool = True
    seed: int = 0
