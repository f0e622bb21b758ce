"""Changes to a recipe by dotted path, as `--with optimizer.lr=0.01` gives them.

They are made in the tree and the result is read like any recipe, so that what may be said and what
is said against it are the same; places are in the text of the option.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from cnnspec.diagnostics import (
    Diagnostic,
    EnvironmentFailure,
    SpecError,
    did_you_mean,
    error,
    listed,
)
from cnnspec.frontend import tree
from cnnspec.frontend.reader import read
from cnnspec.source import Source, Span
from cnnspec.training.recipe.keys import BESIDE_LOSS, BESIDE_SCHEDULE, KEYS, SECTIONS
from cnnspec.training.recipe.model import Recipe
from cnnspec.training.recipe.parsing import calls_of, one_loss
from cnnspec.training.recipe.read import LoadedRecipe, checked
from cnnspec.training.recipe.write import to_yaml

__all__ = ["Override", "with_overrides"]


@dataclass(frozen=True, slots=True)
class Override:
    """A new value, as YAML, for the part of a recipe at `path`; messages name `option`.

    For an option of its own such as `--epochs 3`, whose text has no path in it. A `literal` value
    is text as it is, not YAML: the name of a folder.
    """

    path: str
    value: str
    option: str
    literal: bool = False


def with_overrides(
    loaded: LoadedRecipe,
    given: Iterable[str | Override],
    *,
    option: str = "--with",
    make_source: Callable[[str, str], Source] = Source,
) -> LoadedRecipe:
    """The recipe with parts of it replaced, one after another; texts are `path=value`.

    A path goes down by keys: `epochs`, `data.path`, `schedule.warmup.epochs`. Where a call stands,
    the next part is an argument of it: `optimizer.lr`; calls of `augment` are found by name:
    `augment.RandomCrop.padding`. A path that ends at a call replaces it and all its arguments.
    `make_source` makes the sources that spans of errors point into.

    Raises:
        SpecError: the value cannot be read, or the recipe would be wrong.
        EnvironmentFailure: a text without a path or value.
    """
    root = loaded.root
    for one in given:
        path, value = _parts(one, option, make_source)
        root = _Tree(path).put(root, value)
    return checked(root, loaded.source, loaded.recipe.name) if root is not loaded.root else loaded


def _parts(
    given: str | Override, option: str, make_source: Callable[[str, str], Source]
) -> tuple[tuple[tree.Scalar, ...], tree.Node]:
    """The names of a path and the new value, both with places."""
    if isinstance(given, Override):
        source = make_source(given.option, given.value)
        span = source.span(0, len(given.value))
        names = [tree.Scalar(name, span) for name in given.path.split(".")]
        literal = tree.Scalar(given.value, span, plain=False, quoted=True)
        return tuple(names), literal if given.literal else _value(source, 0)
    path, equals, _ = given.partition("=")
    if not equals or not path.strip():
        raise EnvironmentFailure(
            f"{option} takes a key and a value, not {f'`{given}`' if given else 'nothing'}",
            help=f"for example {option} optimizer.lr=0.01",
        )
    source = make_source(option, given)
    names = []
    start = 0
    for name in path.split("."):
        names.append(tree.Scalar(name.strip(), source.span(start, start + len(name))))
        start += len(name) + 1
    return tuple(names), _value(source, len(path) + 1)


def _value(source: Source, start: int) -> tree.Node:
    """The YAML behind `start`, with places in the whole of `source`."""
    text = source.text[start:]
    if not text.strip():
        raise SpecError([error("missing-key", "there is no value", source.span(0, start))])
    padded = Source(source.name, " " * start + text)
    try:
        node = read(padded)
    except SpecError as failure:
        raise SpecError([_diagnostic(found, source) for found in failure.diagnostics]) from None
    return _node(node, source)


def _span(span: Span, source: Source) -> Span:
    return replace(span, source=source)


def _diagnostic(found: Diagnostic, source: Source) -> Diagnostic:
    notes = [replace(n, span=n.span and _span(n.span, source)) for n in found.notes]
    return replace(found, span=found.span and _span(found.span, source), notes=tuple(notes))


def _node(node: tree.Node, source: Source) -> tree.Node:
    match node:
        case tree.Scalar():
            return _scalar(node, source)
        case tree.Sequence():
            items = tuple([_node(item, source) for item in node.items])
            return replace(node, items=items, span=_span(node.span, source))
        case tree.Mapping():
            pairs = tuple([(_scalar(k, source), _node(v, source)) for k, v in node.items])
            return replace(node, items=pairs, span=_span(node.span, source))


def _scalar(scalar: tree.Scalar, source: Source) -> tree.Scalar:
    return replace(scalar, span=_span(scalar.span, source))


class _Tree:
    """Puts a value into a recipe's tree, at one path."""

    def __init__(self, path: tuple[tree.Scalar, ...]) -> None:
        self.path = path

    def put(self, root: tree.Mapping, value: tree.Node) -> tree.Mapping:
        """The tree with the value in it."""
        key, *rest = self.path
        if not rest:
            return _with(root, key, value)
        if key.text not in KEYS:
            raise self._refused("unknown-key", f"`{key.text}` is no key of a recipe", key, KEYS)
        old = root.get(key.text) or self._default(key.text)
        if key.text == "rates":
            # Patterns have dots themselves.
            pattern = replace(
                rest[0],
                text=".".join(name.text for name in rest),
                span=rest[0].span.to(rest[-1].span),
            )
            return _with(root, key, _with(_mapping(old, key), pattern, value))
        if key.text == "augment":
            return _with(root, key, self._augment(old, rest, value))
        return _with(root, key, self._below(key, old, rest, value))

    def _below(
        self, key: tree.Scalar, old: tree.Node, rest: list[tree.Scalar], value: tree.Node
    ) -> tree.Node:
        """What stands under a key or output, with a value in it."""
        match key.text:
            case "optimizer":
                return self._call(key, old, rest, value, ())
            case "schedule":
                if rest[0].text == "warmup" and len(rest) > 1:
                    mapping = _mapping(old, key)
                    inner = self._section(rest[0], _find(mapping, "warmup"), rest[1:], value)
                    return _with(mapping, rest[0], inner)
                return self._call(key, old, rest, value, (*BESIDE_SCHEDULE, "warmup"))
            case "loss":
                if isinstance(old, tree.Mapping) and not one_loss(old):
                    return self._outputs(key, old, rest, value)
                return self._call(key, old, rest, value, tuple(BESIDE_LOSS))
            case name if name in SECTIONS:
                return self._section(key, old, rest, value)
            case name:
                raise self._refused("unknown-key", f"`{name}` has no `{rest[0].text}`", rest[0])

    def _outputs(
        self, key: tree.Scalar, old: tree.Mapping, rest: list[tree.Scalar], value: tree.Node
    ) -> tree.Node:
        output, *deeper = rest
        if not deeper:
            return _with(old, output, value)
        inner = old.get(output.text)
        if inner is None:
            names = [name.text for name, _ in old.items]
            message = f"the recipe has no loss for an output `{output.text}`"
            raise self._refused("unknown-key", message, output, names)
        return _with(old, output, self._call(key, inner, deeper, value, tuple(BESIDE_LOSS)))

    def _section(
        self, key: tree.Scalar, old: tree.Node, rest: list[tree.Scalar], value: tree.Node
    ) -> tree.Node:
        if len(rest) > 1:
            raise self._refused("unknown-key", f"`{rest[0].text}` has no `{rest[1].text}`", rest[1])
        short = SECTIONS[key.text].short
        if isinstance(old, tree.Scalar) and short is not None and not _none(old):
            words = {short: old.text}
            if key.text == "data" and ":" in old.text:
                words[short], _, words["path"] = old.text.partition(":")
            pairs = tuple((replace(key, text=k), replace(old, text=v)) for k, v in words.items())
            old = tree.Mapping(pairs, old.span)
        return _with(_mapping(old, key), rest[0], value)

    def _call(
        self,
        key: tree.Scalar,
        old: tree.Node,
        rest: list[tree.Scalar],
        value: tree.Node,
        beside: tuple[str, ...],
    ) -> tree.Node:
        """A call, bare or alone in a mapping or with other keys beside it, with a value in it."""
        if isinstance(old, tree.Scalar) and not _none(old):
            old = tree.Mapping(((old, tree.Mapping((), old.span)),), old.span)
        mapping = _mapping(old, key)
        if len(rest) == 1 and rest[0].text in beside:
            return _with(mapping, rest[0], value)
        name = next((name for name, _ in mapping.items if name.text not in beside), None)
        if name is None:
            message = f"the recipe's `{key.text}` names nothing that has arguments"
            raise self._refused("unknown-key", message, rest[0], beside)
        if len(rest) > 1 and rest[0].text == name.text:
            rest = rest[1:]
        if len(rest) > 1:
            raise self._refused("unknown-key", f"`{rest[0].text}` has no `{rest[1].text}`", rest[1])
        arguments = _mapping(_find(mapping, name.text), name)
        return _with(mapping, name, _with(arguments, rest[0], value))

    def _augment(self, old: tree.Node, rest: list[tree.Scalar], value: tree.Node) -> tree.Sequence:
        items = list(calls_of(old))
        names = [_called(item) for item in items]
        if rest[0].text not in names:
            message = f"the recipe has no augmentation `{rest[0].text}`"
            raise self._refused("unknown-key", message, rest[0], names)
        place = names.index(rest[0].text)
        if len(rest) == 1:
            items[place] = tree.Mapping(((rest[0], value),), value.span)
        else:
            items[place] = self._call(rest[0], items[place], rest[1:], value, ())
        return tree.Sequence(tuple(items), old.span)

    def _default(self, key: str) -> tree.Node:
        """What a recipe says where it does not say it."""
        root = read(Source("default", to_yaml(Recipe(name="default"))))
        assert isinstance(root, tree.Mapping)
        found = root.get(key)
        assert found is not None  # all keys are written
        return found

    def _refused(
        self, code: str, message: str, at: tree.Scalar, names: Iterable[str] = ()
    ) -> SpecError:
        names = tuple(names)
        help = did_you_mean(at.text, names) or (f"there are {listed(names)}" if names else "")
        return SpecError([error(code, message, at.span, help=help)])


def _with(mapping: tree.Mapping, key: tree.Scalar, value: tree.Node) -> tree.Mapping:
    """A mapping with a new value for a key, in its place or at the end."""
    items = [(k, value if k.text == key.text else v) for k, v in mapping.items]
    if mapping.key(key.text) is None:
        items.append((key, value))
    return replace(mapping, items=tuple(items))


def _find(mapping: tree.Mapping, key: str) -> tree.Node:
    found = mapping.get(key)
    return tree.Mapping((), mapping.span) if found is None else found


def _mapping(node: tree.Node, key: tree.Scalar) -> tree.Mapping:
    """A node as a mapping; what is no mapping, such as null, is replaced by one."""
    return node if isinstance(node, tree.Mapping) else tree.Mapping((), key.span)


def _none(scalar: tree.Scalar) -> bool:
    return scalar.plain and tree.literal(scalar) is None


def _called(node: tree.Node) -> str:
    if isinstance(node, tree.Mapping) and node.items:
        return node.items[0][0].text
    return node.text if isinstance(node, tree.Scalar) else ""
