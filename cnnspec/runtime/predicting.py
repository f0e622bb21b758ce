"""What a network says about images: classes with probabilities, maps of classes, or numbers.

Which of these it is, the shape of its first output tells. How results look may not enter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np

from cnnspec.diagnostics import EnvironmentFailure, listed, quantity
from cnnspec.runtime.images import ImageFailure, ImageSource, preprocessed
from cnnspec.runtime.model_file import ModelFile, Port
from cnnspec.runtime.preparing import LARGEST_PIXELS, Array, Preparation, preparation
from cnnspec.runtime.providers import Profile, Settings, Wanted
from cnnspec.runtime.session import Session

__all__ = [
    "Classes",
    "Guess",
    "Map",
    "Numbers",
    "Prediction",
    "Predictor",
    "Reading",
    "Share",
    "Summary",
    "profiles",
    "read_as",
]

Kind = Literal["classes", "map", "numbers"]

_Sizes = tuple[int | str | None, ...]

_USUAL_BATCH = 8


@dataclass(frozen=True, slots=True)
class Guess:
    """A class with its probability; `label` is None where the file has none for it."""

    index: int
    label: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class Classes:
    """The most probable classes of an image, the first most so."""

    source: ImageSource
    top: tuple[Guess, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A class and the part of a map that it takes, from 0 to 1."""

    index: int
    label: str | None
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Map:
    """The most probable class of every position, HxW, and what part each class takes."""

    source: ImageSource
    classes: Array = field(repr=False)
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """What can be said of any output: shape without the batch, and least, mean and most."""

    name: str
    shape: tuple[int, ...]
    least: float
    mean: float
    most: float


@dataclass(frozen=True, slots=True)
class Numbers:
    """Every output of an image, as numbers."""

    source: ImageSource
    outputs: tuple[Summary, ...]


Prediction = Classes | Map | Numbers


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is to be fed and read: `input` takes images, and `output` tells a `kind`.

    `softmax` says that probabilities have to be made of what comes out. `batch` is the only one
    that the file takes, None where it takes any.
    """

    input: Port
    prepare: Preparation
    output: Port
    kind: Kind
    labels: tuple[str, ...] | None
    softmax: bool
    batch: int | None

    def label(self, index: int) -> str | None:
        """The name of a class."""
        return self.labels[index] if self.labels and index < len(self.labels) else None


def read_as(model: ModelFile) -> Reading:
    """How a file is to be fed and read.

    Raises `EnvironmentFailure` for one that takes no image, or more than that.
    """
    name = f"`{model.path}`"
    if len(model.inputs) != 1:
        named = f" ({listed(port.name for port in model.inputs)})" if model.inputs else ""
        raise EnvironmentFailure(
            f"{name} has {quantity(len(model.inputs), 'input')}{named}, and only one can be an "
            "image"
        )
    if not model.outputs:
        raise EnvironmentFailure(f"{name} has no output")
    about, port = model.metadata, model.inputs[0]
    try:
        prepare = preparation(
            about.preprocess if about else None,
            port.shape or (),
            dtype=port.dtype,
            in_graph=about.in_graph if about else "none",
        )
    except EnvironmentFailure as failure:
        raise EnvironmentFailure(f"{name}: {failure.message}", help=failure.help) from None
    assert port.shape is not None  # an image has axes
    fixed = port.shape[0] if isinstance(port.shape[0], int) else None
    if prod(size for size in port.shape if isinstance(size, int)) > 3 * LARGEST_PIXELS:
        raise EnvironmentFailure(f"{name}: its input `{port.name}` of {port} is too large")
    output = model.outputs[0]
    kind = _kind(output, *_shapes(model, prepare), about.labels if about else None)
    return Reading(
        input=port,
        prepare=prepare,
        output=output,
        kind=kind,
        labels=about.labels if about else None,
        softmax=not (about is not None and about.softmax)
        and output.name not in model.probabilities,
        batch=fixed,
    )


def _shapes(model: ModelFile, prepare: Preparation) -> tuple[_Sizes, _Sizes]:
    """Height and width that the network takes, and the sizes of its first output without batch.

    Those at which it was exported, where they are known: a file's own may be free.
    """
    about, image, output = model.metadata, model.inputs[0], model.outputs[0]
    taken: _Sizes = prepare.size
    given: _Sizes = (output.shape or ())[1:]
    if about is not None and len(about.inputs.get(image.name, ())) == 3:
        taken = about.inputs[image.name][1:]
        given = about.outputs.get(output.name, given)
    return taken, given


def _kind(output: Port, taken: _Sizes, given: _Sizes, labels: Sequence[str] | None) -> Kind:
    if not output.dtype.startswith("float"):
        return "numbers"
    if output.rank == 2:
        return "classes"
    if output.rank != 4 or len(given) != 3:
        return "numbers"
    if labels is not None:
        return "map" if given[0] == len(labels) else "numbers"
    # Without labels a map of classes is told from features by its size, which is about that of the
    # image, and from an image by its channels.
    if not isinstance(given[0], int) or given[0] in (0, 1, 3):
        return "numbers"
    return "map" if all(map(_about, taken, given[1:])) else "numbers"


def _about(taken: int | str | None, given: int | str | None) -> bool:
    """Whether a size is about that of the image: U-Net loses a third at its borders."""
    if isinstance(taken, int) and isinstance(given, int):
        return 2 * given > taken
    return taken is not None and taken == given


class Predictor:
    """Runs a model on images, batch by batch."""

    def __init__(
        self,
        model: ModelFile,
        *,
        provider: Wanted = "auto",
        threads: int | None = None,
        batch: int | None = None,
        top: int = 5,
    ) -> None:
        """`batch` is the most images at a time: 8, or what the file takes.

        Raises `EnvironmentFailure` for a file that takes no image, or another batch, and as
        `Session` does.
        """
        self.reading = read_as(model)
        fixed = self.reading.batch
        if batch is not None and fixed is not None and batch != fixed:
            raise EnvironmentFailure(
                f"`{model.path}` takes batches of {fixed} only, not of {batch}"
            )
        self.batch = fixed or batch or _USUAL_BATCH
        self.top = top
        settings = Settings(profiles=profiles(self.reading, self.batch))
        self.session = Session(model, provider=provider, threads=threads, settings=settings)

    def predict(
        self,
        sources: Iterable[ImageSource],
        failed: Callable[[ImageSource, ImageFailure], None] | None = None,
    ) -> Iterator[Prediction]:
        """What the network says about each image, in order.

        `failed` is told of an image that cannot be used, or for which the network has no
        numbers; without it that is raised, as `ImageFailure`.
        """
        batches = preprocessed(sources, self.reading.prepare, self.batch, failed=failed)
        for names, images in batches:
            outputs = self._run(images)
            for position, source in enumerate(names):
                own = {name: array[position] for name, array in outputs.items()}
                try:
                    yield self._prediction(source, own)
                except ImageFailure as failure:
                    if failed is None:
                        raise
                    failed(source, failure)

    def _run(self, images: Array) -> dict[str, Array]:
        count = len(images)
        fixed = self.reading.batch
        if fixed is not None and count < fixed:
            padding = np.zeros((fixed - count, *images.shape[1:]), images.dtype)
            images = np.concatenate([images, padding])
        outputs = self.session.run({self.reading.input.name: images})
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != len(images):
                raise EnvironmentFailure(
                    f"output `{name}` has no entry for each of {quantity(len(images), 'image')}",
                    help="with --batch 1 every image has outputs of its own" if array.ndim else "",
                )
        return outputs

    # -------------------------------------------------------------------------------- its meaning

    def _prediction(self, source: ImageSource, outputs: dict[str, Array]) -> Prediction:
        if self.reading.kind == "numbers":
            return Numbers(source, tuple(_summary(*item) for item in outputs.items()))
        scores = np.asarray(outputs[self.reading.output.name], np.float64)
        if np.isnan(scores).any() or not scores.size:
            raise ImageFailure(source.name, "the network gives no numbers for it")
        return self._classes(source, scores) if scores.ndim == 1 else self._map(source, scores)

    def _classes(self, source: ImageSource, scores: Array) -> Classes:
        probabilities = _softmax(scores) if self.reading.softmax else scores
        # A stable order: of equal ones the first comes first.
        best = np.argsort(-probabilities, kind="stable")[: self.top]
        return Classes(
            source,
            tuple(
                Guess(int(index), self.reading.label(int(index)), float(probabilities[index]))
                for index in best
            ),
        )

    def _map(self, source: ImageSource, scores: Array) -> Map:
        classes = scores.argmax(axis=0)
        counts = np.bincount(classes.ravel(), minlength=len(scores))
        order = np.argsort(-counts, kind="stable")
        shares = tuple(
            Share(int(index), self.reading.label(int(index)), float(counts[index] / classes.size))
            for index in order
            if counts[index]
        )
        return Map(source, classes.astype(np.uint8 if len(scores) <= 256 else np.uint16), shares)


def profiles(reading: Reading, batch: int) -> dict[str, Profile] | None:
    """The batches that a TensorRT engine is built for; None where more than the batch is free."""
    sizes = (reading.input.shape or ())[1:]
    fixed = tuple(size for size in sizes if isinstance(size, int))
    if reading.batch is not None or len(fixed) < len(sizes):
        return None
    return {reading.input.name: Profile((1, *fixed), (batch, *fixed), (batch, *fixed))}


def _softmax(scores: Array) -> Array:
    highest = scores.max()
    if not np.isfinite(highest):
        # One without bounds takes all; where none has any, all are equal.
        scores, highest = np.where(scores == highest, 0.0, -np.inf), 0.0
    raised = np.exp(scores - highest)
    return np.asarray(raised / raised.sum())


def _summary(name: str, values: Array) -> Summary:
    if values.dtype.kind not in "biuf" or not values.size:
        return Summary(name, values.shape, np.nan, np.nan, np.nan)
    numbers = values.astype(np.float64)
    return Summary(
        name, values.shape, float(numbers.min()), float(numbers.mean()), float(numbers.max())
    )
