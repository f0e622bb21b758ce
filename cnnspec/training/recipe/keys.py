"""The keys of a recipe and what each takes, for the parser, the schema and overrides alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cnnspec.slots import Nullable, Slot
from cnnspec.training.recipe.kinds import Choice, Flag, Items, Number, Text, Whole
from cnnspec.training.recipe.known import SOURCES

__all__ = ["BESIDE_LOSS", "BESIDE_SCHEDULE", "KEYS", "SECTIONS", "SIMPLE", "Key", "Section"]


@dataclass(frozen=True, slots=True)
class Key:
    """What a key takes, and a sentence about it."""

    slot: Slot
    about: str


@dataclass(frozen=True, slots=True)
class Section:
    """A key with keys of its own. `short` is the one that a value in place of them stands for.

    `optional` ones may be null: there is none.
    """

    about: str
    keys: Mapping[str, Key]
    short: str | None = None
    required: tuple[str, ...] = ()
    optional: bool = True


_METRIC = Choice(("loss", "top1"))
_FACTOR = Number(least=0)
_POSITIVE = Number(above=0)
_COUNT = Whole(1)

SIMPLE: Mapping[str, Key] = MappingProxyType(
    {
        "epochs": Key(_COUNT, "How often every sample is seen."),
        "batch_size": Key(_COUNT, "Samples of one step of the optimiser, over all processes."),
        "accumulate": Key(_COUNT, "Parts a batch is computed in, one after another."),
        "decay": Key(
            Choice(("all", "weights")), "What decays: all, or `weights` without norms and biases."
        ),
        "mixup": Key(_FACTOR, "Alpha of mixup: images and labels blended; 0 is off."),
        "cutmix": Key(_FACTOR, "Alpha of CutMix: rectangles of other images; 0 is off."),
        "ema": Key(
            Nullable(Number(above=0, below=1)),
            "Decay of an average of the weights, with which is evaluated; null is off.",
        ),
        "precision": Key(
            Choice(
                ("float32", "bfloat16", "float16"),
                (("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")),
            ),
            "The type that layers compute in; weights stay float32.",
        ),
        "channels_last": Key(Flag(), "Tensors lie channels last in memory: faster on GPUs."),
        "compile": Key(Flag(), "The module is compiled by torch."),
        "device": Key(Choice(("auto", "cpu", "cuda")), "Where it runs."),
        "deterministic": Key(
            Flag(), "A GPU computes the same twice; without, a little faster, and a resume rounds."
        ),
        "sync_batch_norm": Key(Flag(), "Batch norms take statistics over all processes."),
        "freeze": Key(Items(Text(), single=True), "Patterns of paths that do not train."),
        "seed": Key(Whole(0), "Makes everything random: weights, order, augmentation."),
    }
)
"""Keys with one value."""

SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        "data": Section(
            "Where samples come from.",
            {
                "source": Key(Choice(tuple(SOURCES), (("hf", "huggingface"),)), ""),
                "path": Key(Nullable(Text()), "A folder, or a name of the hub."),
                "train": Key(Nullable(Text()), "The part to train with, a folder or split."),
                "held_out": Key(Nullable(Text()), "The part held out, a folder or split."),
                "hold_out": Key(
                    Number(least=0, below=1),
                    "The share of every class that is held out where no part is.",
                ),
                "image": Key(Nullable(Text()), "The column of images."),
                "label": Key(Nullable(Text()), "The column of labels."),
                "masks": Key(Nullable(Text()), "The folder or column of segmentation masks."),
                "samples": Key(Nullable(_COUNT), "How many samples."),
                "classes": Key(Nullable(_COUNT), "How many classes, where nothing tells."),
                "corrupt": Key(Choice(("fail", "skip")), "What an unreadable image does."),
                "workers": Key(Nullable(Whole(0)), "Processes that read; null chooses."),
            },
            "source",
            ("source",),
        ),
        "clip": Section(
            "What becomes of large gradients.",
            {
                "norm": Key(Nullable(_POSITIVE), "Scaled to a total 2-norm of at most this."),
                "value": Key(Nullable(_POSITIVE), "Each cut at this."),
            },
            "norm",
        ),
        "early_stop": Section(
            "When training ends early.",
            {
                "patience": Key(_COUNT, "After so many epochs without anything better."),
                "metric": Key(_METRIC, "What has to become better."),
                "least": Key(_FACTOR, "By at least so much."),
            },
            "patience",
            ("patience",),
        ),
        "checkpoint": Section(
            "When the state is stored.",
            {
                "epochs": Key(_COUNT, "Every so many epochs."),
                "steps": Key(Nullable(_COUNT), "Every so many steps within one."),
                "best": Key(Nullable(_METRIC), "The metric whose best model is kept too."),
            },
            optional=False,
        ),
        "warmup": Section(
            "The rate rises linearly at first.",
            {
                "epochs": Key(_POSITIVE, "For so many epochs, may be broken."),
                "start": Key(Number(least=0, most=1), "From so many times the rate."),
            },
            "epochs",
            ("epochs",),
        ),
    }
)
"""Keys with keys of their own; `warmup` is one of `schedule`."""

BESIDE_SCHEDULE: Mapping[str, Key] = MappingProxyType(
    {"by": Key(Choice(("step", "epoch")), "After what the scheduler moves on.")}
)
"""What stands beside the scheduler, and `warmup`."""

BESIDE_LOSS: Mapping[str, Key] = MappingProxyType(
    {
        "weight": Key(_FACTOR, "The share of this loss in the whole."),
        "target": Key(Choice(("label", "image")), "What the output is compared with."),
    }
)
"""What stands beside a loss."""

KEYS: tuple[str, ...] = (
    "name",
    "data",
    "epochs",
    "batch_size",
    "accumulate",
    "optimizer",
    "decay",
    "rates",
    "schedule",
    "loss",
    "augment",
    "mixup",
    "cutmix",
    "ema",
    "clip",
    "precision",
    "channels_last",
    "compile",
    "device",
    "sync_batch_norm",
    "freeze",
    "early_stop",
    "checkpoint",
    "deterministic",
    "seed",
)
"""All keys of a recipe, in the order in which they are written; `name` and those of `Recipe`."""
