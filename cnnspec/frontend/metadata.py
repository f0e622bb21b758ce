"""`preprocess:` and `labels:`: what training, export and prediction share, checked and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from cnnspec.diagnostics import did_you_mean, listed
from cnnspec.frontend import tree
from cnnspec.slots import Float, Size, Slot, Word

if TYPE_CHECKING:
    from cnnspec.frontend.reading import Reader, StaticScope
    from cnnspec.frontend.values import Env, Evaluator

__all__ = ["PREPROCESS_KEYS", "preprocessing", "read_labels", "read_preprocess"]


class _Numbers(Slot):
    """A number, or one for each channel."""

    __slots__ = ()

    def describe(self) -> str:
        return "a number, or one for each channel"

    def accept(self, value: object, axes: int) -> tuple[float, ...]:
        items = value if isinstance(value, (list, tuple)) else (value,)
        if not items:
            raise self.refuse(value)
        return tuple(float(Float().accept(item, axes)) for item in items)

    def schema(self, axes: int) -> dict[str, object]:
        items = {"type": ["number", "string"]}
        return {"type": ["number", "string", "array"], "items": items, "minItems": 1}


PREPROCESS_KEYS: Mapping[str, Slot] = {
    "resize": Size(1),
    "crop": Size(1),
    "interpolation": Word(("bilinear", "bicubic", "nearest")),
    "scale": Float(),
    "mean": _Numbers(),
    "std": _Numbers(),
    "colour": Word(("rgb", "bgr", "grey")),
}
"""What `preprocess` may say. A single `resize` is the shorter side, as in torchvision; `scale`
multiplies the bytes of an image (1/255 if not said), before `mean` and `std`, one per channel."""


def read_preprocess(
    reader: Reader, node: tree.Node, scope: StaticScope
) -> tuple[tuple[tree.Scalar, tree.Node], ...]:
    """What is said of the preprocessing of images, each value checked as far as it is known."""
    mapping = reader.mapping(node, "`preprocess`")
    found: list[tuple[tree.Scalar, tree.Node]] = []
    for key, value in mapping.items if mapping else ():
        slot = PREPROCESS_KEYS.get(key.text)
        if slot is None:
            reader.error(
                "unknown-key",
                f"`{key.text}` is no key of `preprocess`",
                key,
                help=did_you_mean(key.text, PREPROCESS_KEYS)
                or f"its keys are {listed(PREPROCESS_KEYS)}",
            )
        elif reader.fits(value, slot, 2, key.text, scope):
            found.append((key, value))
    return tuple(found)


def preprocessing(
    written: Iterable[tuple[tree.Scalar, tree.Node]], evaluator: Evaluator, env: Env
) -> dict[str, object]:
    """The preprocessing of images, every value in its final form. Raises `Fault`."""
    found: dict[str, object] = {}
    for key, node in written:
        slot = PREPROCESS_KEYS[key.text]
        value = evaluator.raw(node, slot.words, env)
        accepted = evaluator.argument(node, slot, 2, key.text, env)
        short = key.text == "resize" and not isinstance(value, tuple)
        found[key.text] = value if short else accepted
    return found


def read_labels(reader: Reader, node: tree.Node) -> tuple[str, ...]:
    """The names of the classes, in order."""
    sequence = reader.sequence(node, "`labels`")
    found: list[str] = []
    for item in sequence.items if sequence else ():
        text = reader.scalar(item, "a label")
        if text is None:
            continue
        if text.text in found:
            reader.error("duplicate-label", f"label `{text.text}` is there twice", item)
        found.append(text.text)
    return tuple(found)
