"""Tree to `Recipe`: every value checked, everything wrong recorded with its place.

What is wrong about two keys together is found by `checks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cnnspec.diagnostics import Reject, did_you_mean, error, listed, nearest
from cnnspec.frontend import tree
from cnnspec.frontend.problems import Problems
from cnnspec.frontend.reading import Reader
from cnnspec.slots import Nullable, Slot
from cnnspec.source import Span
from cnnspec.training.recipe import model
from cnnspec.training.recipe.helping import (
    CALL_EXAMPLES,
    argument_help,
    example,
    family_of,
    key_help,
    part_of,
    say_null,
)
from cnnspec.training.recipe.keys import (
    BESIDE_LOSS,
    BESIDE_SCHEDULE,
    KEYS,
    SECTIONS,
    SIMPLE,
    Key,
)
from cnnspec.training.recipe.kinds import Each, Items, Number, OrWord, Range
from cnnspec.training.recipe.known import (
    AUGMENTATIONS,
    LOSSES,
    OPTIMIZERS,
    OUTSIDE,
    SCHEDULERS,
    SOURCES,
    Known,
)

__all__ = ["Places", "RecipeParser", "calls_of", "one_loss"]

_FACTOR = Number(least=0)
_BESIDE = (*BESIDE_SCHEDULE, "warmup")
_BY_STEP = ("OneCycleLR", "CyclicLR")

Places = Mapping[str, Span]
"""Where parts of a recipe stand, by dotted path: `optimizer.lr`, `augment.0`."""


@dataclass(frozen=True, slots=True)
class _Family:
    """Calls of one kind: what a message names one, the code where there is none, their table."""

    noun: str
    code: str
    table: Mapping[str, Known]


_OPTIMIZER = _Family("optimizer", "unknown-optimizer", OPTIMIZERS)
_SCHEDULER = _Family("scheduler", "unknown-scheduler", SCHEDULERS)
_LOSS = _Family("loss", "unknown-loss", LOSSES)
_AUGMENTATION = _Family("augmentation", "unknown-augmentation", AUGMENTATIONS)


class RecipeParser:
    """Reads one recipe.

    Afterwards `places` says where its parts stand, and `broken` which keys have a wrong value: the
    recipe has their defaults.
    """

    def __init__(self, problems: Problems) -> None:
        self.problems = problems
        self.reader = Reader(problems)
        self.places: dict[str, Span] = {}
        self.broken: set[str] = set()

    def parse(self, root: tree.Node, name: str) -> model.Recipe | None:
        """The recipe, as far as it can be read; `name` is the one it has where it says none."""
        if not isinstance(root, tree.Mapping):
            found = "a list" if isinstance(root, tree.Sequence) else "text"
            self._not_a_recipe(
                f"a recipe is a mapping of keys such as `epochs` and `optimizer`, this is {found}",
                root,
            )
            return None
        if (layers := root.key("layers") or root.key("cnnspec")) is not None:
            self._not_a_recipe(
                f"`{layers.text}` is a key of a spec: this is a network, not a recipe",
                layers,
                "a recipe says how a network is trained, in a file of its own",
            )
            return None
        self.places[""] = root.items[0][0].span if root.items else root.span
        values: dict[str, Any] = {"name": name}
        for key, node in root.items:
            self.places[key.text] = node.span
            if key.text not in KEYS:
                self._unknown_key(key)
                continue
            if isinstance(node, tree.Scalar) and node.absent:
                self.reader.error(
                    "missing-key", f"`{key.text}` has no value", key, help=say_null(key.text)
                )
                self.broken.add(key.text)
                continue
            value = self._value(key.text, node)
            if value is _WRONG:
                self.broken.add(key.text)
            else:
                values[key.text] = value
        return model.Recipe(**values)

    def data(self, node: tree.Node) -> model.Data | None:
        """What `data` or `--data` says."""
        self.places["data"] = node.span
        value = self._data(node)
        return value if isinstance(value, model.Data) else None

    # ------------------------------------------------------------------------------------ keys

    def _value(self, key: str, node: tree.Node) -> Any:
        if key == "name":
            text = self.reader.scalar(node, "`name`")
            return _WRONG if text is None else text.text
        if key in SIMPLE:
            value = self._slot(node, SIMPLE[key].slot, key, key)
            return (value,) if key == "freeze" and isinstance(value, str) else value
        match key:
            case "data":
                return self._data(node)
            case "clip":
                return self._section(key, node, model.Clip)
            case "early_stop":
                return self._section(key, node, model.EarlyStop)
            case "checkpoint":
                return self._section(key, node, model.Checkpointing)
            case "optimizer":
                return self._call(node, _OPTIMIZER, key)
            case "schedule":
                return self._schedule(node)
            case "loss":
                return self._losses(node)
            case "rates":
                return self._rates(node)
            case _:
                return self._augment(node)

    def _unknown_key(self, key: tree.Scalar) -> None:
        self.reader.error(
            "unknown-key", f"`{key.text}` is no key of a recipe", key, help=key_help(key.text)
        )

    def _not_a_recipe(self, message: str, node: tree.Node, help: str = "") -> None:
        self.problems.add(error("not-a-recipe", message, node.span, help=help))

    def _slot(self, node: tree.Node, slot: Slot, name: str, path: str) -> Any:
        self.places[path] = node.span
        if isinstance(node, tree.Scalar) and node.absent:
            self.reader.error("argument-type", f"`{name}` must be {slot.describe()}", node)
            return _WRONG
        before = len(self.problems.errors)
        value = self.reader.plain(node)
        if len(self.problems.errors) > before:
            return _WRONG
        try:
            return slot.accept(value, 1)
        except Reject as reject:
            reject.message = f"`{name}` {reject.message}"
            self.problems.add(reject.located(self._culprit(node, slot).span))
            return _WRONG

    def _culprit(self, node: tree.Node, slot: Slot) -> tree.Node:
        """The item of a list that is to blame, or the whole of it."""
        while isinstance(slot, (Nullable, OrWord)):
            slot = slot.slot
        if not isinstance(node, tree.Sequence) or not isinstance(slot, (Each, Items, Range)):
            return node
        slots = slot.places if isinstance(slot, Each) else (slot.item,) * len(node.items)
        for item, own in zip(node.items, slots, strict=False):
            try:
                own.accept(self.reader.plain(item), 1)
            except Reject:
                return item
        return node

    def _section(self, name: str, node: tree.Node, made: type[Any]) -> Any:
        """A dataclass from its keys, or from the value that stands for one of them."""
        section = SECTIONS[name]
        if isinstance(node, tree.Scalar) and section.optional and _null(node):
            return None
        path = "schedule.warmup" if name == "warmup" else name
        if isinstance(node, tree.Scalar) and section.short is not None and not node.absent:
            slot = section.keys[section.short].slot
            value = self._slot(node, slot, name, f"{path}.{section.short}")
            return _WRONG if value is _WRONG else made(**{section.short: value})
        mapping = self.reader.mapping(node, f"`{name}`", help=example(name))
        if mapping is None:
            return _WRONG
        values = self._beside(mapping.items, section.keys, f"`{name}`", path)
        missing = [key for key in section.required if mapping.get(key) is None]
        for key in missing:
            self.reader.error(
                "missing-key", f"`{name}` does not say `{key}`", mapping, help=example(name)
            )
        broken = missing or len(values) < len(mapping.items)
        return _WRONG if broken else made(**values)

    def _beside(
        self,
        items: Iterable[tuple[tree.Scalar, tree.Node]],
        keys: Mapping[str, Key],
        what: str,
        path: str,
    ) -> dict[str, Any]:
        """The values of keys that are fixed; others are reported."""
        values: dict[str, Any] = {}
        for key, node in items:
            if key.text not in keys:
                self.reader.error(
                    "unknown-key",
                    f"`{key.text}` is no key of {what}",
                    key,
                    help=did_you_mean(key.text, keys) or f"its keys are {listed(keys)}",
                )
                continue
            value = self._slot(node, keys[key.text].slot, key.text, f"{path}.{key.text}")
            if value is not _WRONG:
                values[key.text] = value
        return values

    # ----------------------------------------------------------------------------------- calls

    def _call(self, node: tree.Node, family: _Family, path: str) -> Any:
        """A name with its arguments: `SGD`, or `SGD: {lr: 0.1}` alone in a mapping."""
        if isinstance(node, tree.Mapping) and len(node.items) == 1:
            return self._named(node.items[0][0], node.items[0][1], family, path)
        if isinstance(node, tree.Scalar) and not _null(node):
            return self._named(node, None, family, path)
        wanted = f"a name, or one with its arguments: {CALL_EXAMPLES[family.noun]}"
        if isinstance(node, tree.Mapping) and node.items:
            # Arguments written beside the name, where they belong below it.
            first = node.items[0][0]
            self.reader.error(
                "wrong-kind",
                f"`{path}` has {len(node.items)} keys, but must be one name with its arguments",
                node.items[1][0],
                help=f"write the arguments in the braces of `{first.text}`: "
                f"{CALL_EXAMPLES[family.noun]}",
            )
            return _WRONG
        found = "a list" if isinstance(node, tree.Sequence) else "nothing"
        self.reader.error("wrong-kind", f"`{path}` must be {wanted}, not {found}", node)
        return _WRONG

    def _named(
        self, name: tree.Scalar, arguments: tree.Node | None, family: _Family, path: str
    ) -> Any:
        self.places.setdefault(path, name.span)
        known = family.table.get(name.text)
        if known is None:
            self._unknown_call(name, family)
            return _WRONG
        null = isinstance(arguments, tree.Scalar) and _null(arguments)
        mapping = (
            tree.Mapping((), name.span)
            if arguments is None or null
            else self.reader.mapping(
                arguments,
                f"the arguments of `{name.text}`",
                help=f"for example {CALL_EXAMPLES[family.noun]}",
            )
        )
        if mapping is None:
            return _WRONG
        found: dict[str, Any] = {}
        for key, node in mapping.items:
            slot = known.arguments.get(key.text)
            if slot is None:
                self.reader.error(
                    "unknown-argument",
                    f"`{name.text}` has no argument `{key.text}`",
                    key,
                    help=argument_help(key.text, known),
                )
                continue
            value = self._slot(node, slot, key.text, f"{path}.{key.text}")
            if value is not _WRONG:
                found[key.text] = value
        missing = [key for key in known.required if mapping.get(key) is None]
        if missing:
            self.reader.error("missing-argument", f"`{name.text}` needs {listed(missing)}", name)
        if missing or len(found) < len(mapping.items):
            return _WRONG
        return model.Call(name.text, found)

    def _unknown_call(self, name: tree.Scalar, family: _Family) -> None:
        message = f"there is no {family.noun} `{name.text}`"
        help = did_you_mean(name.text, family.table) or part_of(name.text, family.table)
        if name.text in OUTSIDE:
            message = f"`{name.text}` cannot be used: {OUTSIDE[name.text]}"
            help = ""
        elif not help and (other := family_of(name.text)) is not None:
            help = f"`{name.text}` belongs under `{other}`"
        self.reader.error(
            family.code, message, name, help=help or f"there are {listed(family.table)}"
        )

    # ---------------------------------------------------------------------------------- keys

    def _data(self, node: tree.Node) -> Any:
        if isinstance(node, tree.Scalar):
            if _null(node):
                return None
            return self._data_text(node)
        mapping = self.reader.mapping(node, "`data`", help=example("data"))
        if mapping is None:
            return _WRONG
        source = mapping.get("source")
        if isinstance(source, tree.Scalar) and not source.absent:
            known = SECTIONS["data"].keys["source"].slot.words
            if source.text not in known:
                self._unknown_source(source, source.text)
                rest = tuple(pair for pair in mapping.items if pair[0].text != "source")
                self._beside(rest, SECTIONS["data"].keys, "`data`", "data")
                return _WRONG
        return self._section("data", mapping, model.Data)

    def _data_text(self, node: tree.Scalar) -> Any:
        """`digits`, `images:flowers`, `hf:cifar10`, or the path of a folder."""
        text = node.text
        words = SECTIONS["data"].keys["source"].slot
        head, colon, tail = text.partition(":")
        if text in words.words:
            return model.Data(source=words.accept(text, 1))
        if colon and head in words.words:
            if tail:
                return model.Data(source=words.accept(head, 1), path=tail)
            self.reader.error(
                "argument-value",
                f"`{text}` names nothing behind the colon",
                node,
                help=f"for example `{head}:flowers`",
            )
            return _WRONG
        if any(mark in text for mark in "/\\") or text in (".", ".."):
            return model.Data(source="images", path=text)
        self._unknown_source(node, head if colon else text)
        return _WRONG

    def _unknown_source(self, node: tree.Scalar, text: str) -> None:
        sources = tuple(SOURCES)
        self.reader.error(
            "unknown-source",
            f"there is no source of data `{text}`",
            node,
            help=did_you_mean(text, sources)
            or f"sources are {listed(sources)}; a folder is `images:{text or 'FOLDER'}`",
        )

    def _schedule(self, node: tree.Node) -> Any:
        if isinstance(node, tree.Scalar):
            if _null(node):
                return None
            call = self._named(node, None, _SCHEDULER, "schedule")
            return _WRONG if call is _WRONG else model.Schedule(scheduler=call, by=_by(call))
        mapping = self.reader.mapping(
            node, "`schedule`", help=f"for example {CALL_EXAMPLES['scheduler']}"
        )
        if mapping is None:
            return _WRONG
        beside = [(k, v) for k, v in mapping.items if k.text in BESIDE_SCHEDULE]
        values = self._beside(beside, BESIDE_SCHEDULE, "`schedule`", "schedule")
        broken = len(values) < len(beside)
        if (warmup := mapping.get("warmup")) is not None:
            self.places["schedule.warmup"] = warmup.span
            values["warmup"] = self._section("warmup", warmup, model.Warmup)
        calls = [(k, v) for k, v in mapping.items if k.text not in (*BESIDE_SCHEDULE, "warmup")]
        if calls:
            values["scheduler"] = self._first(calls, _SCHEDULER, "schedule", _BESIDE)
        if broken or _WRONG in values.values():
            return _WRONG
        if "by" not in values:
            values["by"] = _by(values.get("scheduler"))
        return model.Schedule(**values)

    def _first(
        self,
        calls: list[tuple[tree.Scalar, tree.Node]],
        family: _Family,
        path: str,
        beside: Iterable[str],
    ) -> Any:
        """The one call among keys, a known one if there is any; the others are too many."""
        known = [pair for pair in calls if pair[0].text in family.table]
        first = (known or calls)[0]
        result = self._named(first[0], first[1], family, path)
        for key, _ in calls:
            if key is first[0]:
                continue
            result = _WRONG
            if key.text in family.table:
                self.reader.error(
                    "wrong-kind", f"`{path}` names a second {family.noun}, `{key.text}`", key
                )
                continue
            arguments = family.table[first[0].text].arguments if known else {}
            help = f"it is an argument: `{first[0].text}: {{{key.text}: ...}}`"
            self.reader.error(
                "unknown-key",
                f"`{key.text}` is no key of `{path}`",
                key,
                help=help if key.text in arguments else did_you_mean(key.text, beside),
            )
        return result

    def _losses(self, node: tree.Node) -> Any:
        """One loss for all outputs, or one by the name of each."""
        if isinstance(node, tree.Scalar) or one_loss(node):
            loss = self._loss(node, "loss")
            return _WRONG if loss is _WRONG else {"": loss}
        mapping = self.reader.mapping(node, "`loss`", help=f"for example {CALL_EXAMPLES['loss']}")
        if mapping is None:
            return _WRONG
        if not mapping.items:
            self.reader.error("missing-key", "`loss` names no loss", mapping)
            return _WRONG
        found = {}
        for output, value in mapping.items:
            path = f"loss.{output.text}"
            self.places[path] = value.span
            found[output.text] = self._loss(value, path)
        return _WRONG if _WRONG in found.values() else found

    def _loss(self, node: tree.Node, path: str) -> Any:
        if isinstance(node, tree.Mapping):
            beside = [(k, v) for k, v in node.items if k.text in BESIDE_LOSS]
            calls = [(k, v) for k, v in node.items if k.text not in BESIDE_LOSS]
            values = self._beside(beside, BESIDE_LOSS, f"`{path}`", path)
            if not calls:
                self.reader.error(
                    "missing-key",
                    f"`{path}` names no loss",
                    node,
                    help=f"for example {CALL_EXAMPLES['loss']}",
                )
                return _WRONG
            call = self._first(calls, _LOSS, path, BESIDE_LOSS)
            if call is _WRONG or len(values) < len(beside):
                return _WRONG
            return model.OutputLoss(loss=call, **values)
        call = self._call(node, _LOSS, path)
        return _WRONG if call is _WRONG else model.OutputLoss(loss=call)

    def _rates(self, node: tree.Node) -> Any:
        if isinstance(node, tree.Scalar) and _null(node):
            return {}
        mapping = self.reader.mapping(
            node, "`rates`", help="for example `rates: {features.*: 0.1}`"
        )
        if mapping is None:
            return _WRONG
        found = {}
        for pattern, value in mapping.items:
            if not pattern.text:
                self.reader.error("argument-value", "a pattern of `rates` is empty", pattern)
                return _WRONG
            found[pattern.text] = self._slot(value, _FACTOR, pattern.text, f"rates.{pattern.text}")
        return _WRONG if _WRONG in found.values() else found

    def _augment(self, node: tree.Node) -> Any:
        found = []
        for place, item in enumerate(calls_of(node)):
            path = f"augment.{place}"
            self.places[path] = item.span
            found.append(self._call(item, _AUGMENTATION, path))
        return _WRONG if _WRONG in found else tuple(found)


class _Wrong:
    """Stands for a value whose error is recorded."""


_WRONG = _Wrong()


def calls_of(node: tree.Node) -> tuple[tree.Node, ...]:
    """The calls of `augment`: items of a list, or the only one there is."""
    if isinstance(node, tree.Sequence):
        return node.items
    return () if isinstance(node, tree.Scalar) and _null(node) else (node,)


def one_loss(node: tree.Node) -> bool:
    """Whether a mapping under `loss` is a loss itself, not losses by the names of outputs."""
    if not isinstance(node, tree.Mapping):
        return False
    names = [key.text for key, _ in node.items]
    if any(name in LOSSES for name in names):
        return True
    # A loss written wrong: what lies below are arguments, and no losses.
    return any(
        name not in BESIDE_LOSS and nearest(name, LOSSES) is not None and not _holds_loss(value)
        for name, value in ((key.text, value) for key, value in node.items)
    )


def _holds_loss(node: tree.Node) -> bool:
    if isinstance(node, tree.Mapping):
        return any(key.text in LOSSES for key, _ in node.items)
    return isinstance(node, tree.Scalar) and node.text in LOSSES


def _by(call: model.Call | None) -> Literal["step", "epoch"]:
    return "step" if call is not None and call.name in _BY_STEP else "epoch"


def _null(node: tree.Scalar) -> bool:
    return node.plain and node.text in ("", "~", "null", "Null", "NULL")
