"""Units as classes: what the constructor makes, under which key, and how a forward reaches it.

A unit is a plain chain (an `nn.Sequential`), a list or a dict (an `nn.ModuleList` or
`nn.ModuleDict` with a forward, where keys are no attributes) or an `nn.Module`. State-dict keys are
the paths of the spec whatever the form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from typing import Any

from torch import nn

from cnnspec.backends.torch.build import (
    Body,
    Build,
    ClassGroup,
    Instance,
    Item,
    Line,
    Name,
    Number,
    Statement,
    Value,
    structure,
)
from cnnspec.backends.torch.forward import OutputTypes, expression, forward_of
from cnnspec.backends.torch.plan import (
    Branch,
    CallStep,
    Leaf,
    ModuleLeaf,
    Step,
    Stored,
    Unit,
)
from cnnspec.backends.torch.reach import Reach, Subscripts, attribute, container_kind
from cnnspec.backends.torch.signatures import Constant, constant, constructor_arguments
from cnnspec.backends.torch.text import (
    camel,
    flat,
    is_attribute,
    prefixed,
    quote,
    unique,
    variable,
)
from cnnspec.backends.torch.variants import Variants
from cnnspec.ir import Graph, Scope
from cnnspec.lower import Call, Helper, In, Module
from cnnspec.weights import Buffer, Init, Weight

__all__ = ["LAYERS", "Classes", "callee_of", "classes_of"]

LAYERS = "The layers of"
"""How the docstring of a class that is no block begins."""

_AS_MODULES: Mapping[str, str] = {"torch.flatten": "nn.Flatten"}
"""Modules of torch that only call a function, with the same arguments."""
_MODULE_OWNS = frozenset(dir(nn.Module()))
_SEQUENTIAL_OWNS = frozenset(dir(nn.Sequential()))
_DICT_OWNS = frozenset(dir(nn.ModuleDict()))
_EVEN: Mapping[object, str] = {0: "torch.zeros", 1: "torch.ones"}


@dataclass(slots=True)
class Classes:
    """The classes of a file: groups with those they use before them, and helpers by name."""

    groups: list[ClassGroup] = field(default_factory=list)
    helpers: dict[str, str] = field(default_factory=dict)


def classes_of(
    graph: Graph, units: tuple[Unit, ...], types: OutputTypes, network: str, doc: tuple[str, ...]
) -> Classes:
    """The classes of a network; the last one is the network itself, with that name and docstring.

    Raises `ValueError` if two helper classes have one name.
    """
    return _Builder(graph, units, types, network, doc).classes


class _Builder:
    def __init__(
        self,
        graph: Graph,
        units: tuple[Unit, ...],
        types: OutputTypes,
        network: str,
        doc: tuple[str, ...],
    ) -> None:
        self.graph = graph
        self.types = types
        self.network = network
        self.doc = doc
        self.classes = Classes()
        self.builds: dict[Unit, Build] = {}
        """How to make each finished unit."""
        self.made: dict[Unit, Subscripts | None] = {}
        """The subscript of each child of a finished unit, where it is no attribute."""
        self.fixed: dict[Any, ClassGroup] = {}
        root = units[0]
        self.variants = Variants(graph, list(units[1:]))
        heights = self.variants.heights(units)
        levels: list[list[Unit]] = [[] for _ in range(heights[root] + 1)]
        for unit in units:
            if unit.steps or unit.stateful or unit is root:
                levels[heights[unit]].append(unit)
        for level in levels:
            self._level(level, root)

    # ----------------------------------------------------------------------------------- classes

    def _level(self, units: list[Unit], root: Unit) -> None:
        """Build the units of one height, whose children are finished, and group them."""
        drafts: list[tuple[Unit, Body, Subscripts | None]] = []
        for unit in units:
            chain = self._chain(unit, is_root=unit is root)
            if chain is not None and unit.scope.definition is None and unit is not root:
                self.builds[unit] = self._sequential("nn.Sequential", chain)
                self.made[unit] = _numbered(key for key, _ in chain)
                continue
            shortcuts = self.variants.shortcuts(unit) if chain is None else ()
            drafts.append((unit, *self._body(unit, chain, root, shortcuts)))
        whole = self.variants.merged({unit: body for unit, body, _ in drafts})
        groups: dict[Any, ClassGroup] = {}
        classed: list[tuple[Unit, ClassGroup, Instance, Subscripts | None]] = []
        for unit, drafted, subscripts in drafts:
            body = whole.get(unit, drafted)
            key = (unit.scope.definition, *body.key)
            group = groups.get(key)
            if group is None:
                wanted = self.network if unit is root else _class_name(unit.scope)
                group = groups[key] = self._group(wanted, body)
            use = group.add(body, _arguments(unit.scope))
            group.paths.append(unit.scope.path)
            classed.append((unit, group, use, subscripts))
        for group in groups.values():
            group.settle(_owned_names(group.body))
        for unit, group, use, found in classed:
            self.builds[unit] = Build(group, use.given)
            self.made[unit] = found

    def _group(self, wanted: str, body: Body) -> ClassGroup:
        group = ClassGroup(len(self.classes.groups), wanted, body)
        self.classes.groups.append(group)
        return group

    def _fixed(self, wanted: str, body: Body) -> Build:
        """A call of a class without arguments, whose numbers are its own."""
        _, slots = structure(statement.value for statement in body.init)
        constants = tuple([repr(slot.number.value) for slot in slots])
        key = (wanted, *body.key, constants, tuple([flat(line.doc) for line in body.forward]))
        if key not in self.fixed:
            group = self.fixed[key] = self._group(wanted, body)
            group.add(body, {})
            group.settle()
        return Build(self.fixed[key], ())

    # -------------------------------------------------------------------------------- the chain

    def _chain(self, unit: Unit, is_root: bool) -> list[tuple[str, Build]] | None:
        """The modules of a unit that only runs them one after the other, by key; else None."""
        steps = unit.steps
        if not steps or unit.extended or unit.mixed or len(unit.inputs) != 1:
            return None
        if len(unit.outputs) != 1 or (is_root and len(self.graph.outputs) != 1):
            return None
        links: list[tuple[str, Step]] = []
        current = unit.inputs
        used: set[str] = set()
        for step in steps:
            if step.reads != current or len(step.writes) != 1:
                return None
            current = step.writes
            key = self._key(unit, step)
            if key is None or key in used or (not key.isdigit() and key in _SEQUENTIAL_OWNS):
                return None
            if not self._is_link(unit.tree.children.get(key), step):
                return None
            used.add(key)
            links.append((key, step))
        if current != unit.outputs or not used.issuperset(unit.tree.children):
            return None
        if unit.scope.definition is not None or is_root:
            stateful = [key for key, b in unit.tree.children.items() if _is_stateful(b.leaf)]
            if all(map(is_attribute, stateful)):
                return None
        return [(key, self._link(unit.tree.children.get(key), step)) for key, step in links]

    @staticmethod
    def _key(unit: Unit, step: Step) -> str | None:
        """The key of a step's module in the unit, if it is one part of a path."""
        path = step.scope.path if isinstance(step, CallStep) else step.node.path
        key = path[len(unit.scope.path) + 1 :] if unit.scope.path else path
        return None if "." in key else key

    @staticmethod
    def _is_link(branch: Branch | None, step: Step) -> bool:
        """True if a step is one module called with one tensor, or can be made one."""
        if branch is not None and branch.children:
            return False
        if isinstance(step, CallStep):
            return branch is not None and step.target.scope is step.scope
        code = step.code
        if isinstance(code, Helper):
            return branch is not None and code.feeds is None
        if isinstance(code, Module):
            plain = code.feeds is None and not code.feed_kwargs and code.result is None
            return branch is not None and plain
        return branch is None and step.node.share is None

    def _link(self, branch: Branch | None, step: Step) -> Build:
        """The module that is one link of a chain; a plain function gets a small class."""
        if branch is not None or isinstance(step, CallStep):
            return self._construct(branch.leaf if branch is not None else None, "")
        name, code = step.node.op.name, step.code
        if isinstance(code, Call) and code.function in _AS_MODULES and code.args[:1] == (In(0),):
            given = tuple([Item(_constant(constant(value), "")) for value in code.args[1:]])
            return Build(_AS_MODULES[code.function], given)
        lines = (
            Line(0, "def forward(self, x: Tensor) -> Tensor:"),
            Line(1, prefixed("return ", expression(code, ["x"], _stores_nothing))),
        )
        body = Body("nn.Module", (f"The operation {name} as a module.",), (), lines)
        return self._fixed(camel(name, "Operation"), body)

    @staticmethod
    def _sequential(callee: str, chain: list[tuple[str, Build]]) -> Build:
        if [key for key, _ in chain] == [str(number) for number in range(len(chain))]:
            return Build(callee, tuple(Item(made) for _, made in chain))
        pairs = tuple(Item(Build("", (Item(quote(key)), Item(made)))) for key, made in chain)
        return Build(callee, (Item(Build("OrderedDict", (Item(Build("", pairs, "[]")),))),))

    # -------------------------------------------------------------------------------- the bodies

    def _body(
        self,
        unit: Unit,
        chain: list[tuple[str, Build]] | None,
        root: Unit,
        shortcuts: tuple[Step, ...],
    ) -> tuple[Body, Subscripts | None]:
        doc = self._doc(unit, root)
        if chain is not None:
            init = (Statement("", self._sequential("super().__init__", chain)),)
            return Body("nn.Sequential", doc, init), _numbered(key for key, _ in chain)
        types = self.types if unit is root else None
        listed = self._listed(unit)
        if listed is not None:
            subscripts = _numbered(listed)
            items = tuple(
                Item(self._construct(unit.tree.children[key].leaf, key)) for key in listed
            )
            looped = len(listed) if self._runs_through(unit, listed) else 0
            if not looped:
                items = (Item(Build("", items, "[]")),)
            made = Build("super().__init__", items)
            forward = self._forward(unit, {}, subscripts, types, looped=looped)
            base = "nn.Sequential" if looped else "nn.ModuleList"
            return Body(base, doc, (Statement("", made),), forward), subscripts
        renamed = self._renamed(unit)
        if self._is_keyed(unit, renamed):
            keys = {key: renamed.get(id(b.leaf), key) for key, b in unit.tree.children.items()}
            subscripts = {key: quote(name) for key, name in keys.items()}
            owners = {name: key for key, name in reversed(keys.items())}
            items = tuple(
                Item(self._construct(unit.tree.children[key].leaf, name), prefix=f"{quote(name)}: ")
                for name in dict.fromkeys(keys.values())
                for key in (owners[name],)
            )
            made = Build("super().__init__", (Item(Build("", items, "{}")),))
            forward = self._forward(unit, {}, subscripts, types)
            return Body("nn.ModuleDict", doc, (Statement("", made),), forward), subscripts
        statements = tuple(self._statements(unit, renamed))
        forward = self._forward(unit, renamed, None, types, shortcuts)
        return Body("nn.Module", doc, statements, forward), None

    def _forward(
        self,
        unit: Unit,
        renamed: Mapping[int, str],
        subscripts: Subscripts | None,
        types: OutputTypes | None,
        shortcuts: tuple[Step, ...] = (),
        looped: int = 0,
    ) -> tuple[Line, ...]:
        """The forward of a unit; one that no output depends on is only kept for its weights."""
        if not unit.steps and types is None:
            return ()
        reach = Reach(self.graph, self.made, unit, renamed, subscripts)
        return forward_of(unit, self.graph, reach.access, types, shortcuts, looped)

    def _doc(self, unit: Unit, root: Unit) -> tuple[str, ...]:
        if unit is root:
            return self.doc
        if unit.scope.definition is None:
            return (LAYERS,)
        return (f"Block `{unit.scope.definition[1]}`",)

    @staticmethod
    def _listed(unit: Unit) -> list[str] | None:
        """The keys of a unit whose modules are numbered without a gap, and stored for that."""
        children = unit.tree.children
        keys = [str(number) for number in range(len(children))]
        if not keys or unit.extended or set(keys) != set(children):
            return None
        if any(b.children or isinstance(b.leaf, Stored) for b in children.values()):
            return None
        if not any(_is_stateful(branch.leaf) for branch in children.values()):
            return None
        return keys

    def _runs_through(self, unit: Unit, keys: list[str]) -> bool:
        """True if a unit first runs its modules one after the other, and then does more."""
        first = unit.steps[: len(keys)]
        if unit.mixed or len(first) < len(keys):
            return False
        values = [step.writes[0] for step in first]
        taken = Counter(value for step in unit.steps for value in step.reads)
        taken.update(unit.outputs)
        taken.update(output.value for output in self.graph.outputs)
        return (
            all(len(step.writes) == 1 for step in first)
            and all(taken[value] == 1 for value in values[:-1])
            and [step.reads for step in first[1:]] == [(value,) for value in values[:-1]]
            and len(first[0].reads) == 1
            and all(
                self._key(unit, step) == key and self._is_link(unit.tree.children[key], step)
                for key, step in zip(keys, first, strict=True)
            )
        )

    def _is_keyed(self, unit: Unit, renamed: Mapping[int, str]) -> bool:
        """True if a unit holds modules only, not all of them under names of attributes."""
        children = unit.tree.children
        if unit.extended or self.variants.is_one(unit):
            return False
        if any(
            b.children or b.leaf is None or isinstance(b.leaf, Stored) for b in children.values()
        ):
            return False
        names = [renamed.get(id(branch.leaf), key) for key, branch in children.items()]
        return not all(map(is_attribute, names)) and not _DICT_OWNS.intersection(names)

    def _renamed(self, unit: Unit) -> dict[int, str]:
        """Attributes for modules whose path nobody sees: unnamed, and not in the state dict.

        Equal ones share one. Keys are `id`s of leaves.
        """
        taken = set(unit.tree.children)
        found: dict[int, str] = {}
        known: dict[Any, str] = {}
        for branch in unit.tree.children.values():
            leaf = branch.leaf
            if branch.children or isinstance(leaf, Stored) or leaf is None or _is_stateful(leaf):
                continue
            named = leaf.scope.named if isinstance(leaf, Unit) else leaf.node.named
            if named:
                continue
            made = self._construct(leaf, "")
            shape, slots = structure((made,))
            key = (shape, tuple([repr(slot.number.value) for slot in slots]))
            if key not in known:
                name = _attribute_name(made)
                while name in taken or name in _MODULE_OWNS:
                    name = unique(name, {*taken, name})
                known[key] = name
                taken.add(name)
            found[id(leaf)] = known[key]
        return found

    def _statements(self, unit: Unit, renamed: Mapping[int, str]) -> Iterator[Statement]:
        yield Statement("super().__init__()", "")
        done: set[str] = set()
        for key, branch in unit.tree.children.items():
            name = renamed.get(id(branch.leaf), key)
            if name in done and name != key:
                continue
            done.add(name)
            yield from self._assignment(name, branch, "self")

    def _assignment(self, key: str, branch: Branch, holder: str) -> Iterator[Statement]:
        """Put what a branch holds under `key` of the module `holder`."""
        leaf = branch.leaf
        if isinstance(leaf, Stored):
            yield self._stored(key, leaf, holder)
            return
        made = self._construct(leaf, key) if leaf is not None else self._container(branch, key)
        if is_attribute(key) and holder == "self":
            yield Statement(f"{holder}.{key} = ", made, label=key)
        else:
            yield Statement(f"{holder}.add_module({quote(key)}, ", made, ")", label=key)
        if leaf is not None:
            for below, child in branch.children.items():
                yield from self._assignment(below, child, attribute(holder, key))

    def _stored(self, key: str, leaf: Stored, holder: str) -> Statement:
        tensor = leaf.tensor
        if isinstance(tensor, Buffer):
            items = [Item(quote(key)), Item(_buffer_value(tensor))]
            if not tensor.persistent:
                items.append(Item("False", "persistent", positional=False))
            return Statement("", Build(f"{holder}.register_buffer", tuple(items)), label=key)
        override = dict(leaf.node.init)
        items = [Item(_parameter_value(tensor, override.get(leaf.name, tensor.init)))]
        if not tensor.trainable:
            items.append(Item("False", "requires_grad", positional=False))
        made = Build("nn.Parameter", tuple(items))
        if is_attribute(key) and holder == "self":
            return Statement(f"self.{key} = ", made, label=key)
        return Statement(f"{holder}.register_parameter({quote(key)}, ", made, ")", label=key)

    def _construct(self, leaf: Leaf | None, owner: str) -> Build:
        """How a child is made; `owner` is its key, for naming what differs between uses."""
        if isinstance(leaf, Unit):
            made = self.builds[leaf]
            if not isinstance(made.callee, ClassGroup):
                return made
            return Build(made.callee, tuple([_owned(item, owner) for item in made.items]))
        assert isinstance(leaf, ModuleLeaf)  # a stored tensor is no module
        code = leaf.code
        callee: str | Number
        if isinstance(code, Helper):
            if self.classes.helpers.setdefault(code.name, code.source) != code.source:
                raise ValueError(f"two helper classes are called `{code.name}`")
            callee = code.name
        elif leaf.stateful or not leaf.node.op.inplace_capable:
            callee = code.target
        else:
            callee = Number(Name(code.target))
        return Build(
            callee,
            tuple(
                Item(_constant(a.value, owner), a.name, not a.keyword, a.implied)
                for a in constructor_arguments(code)
            ),
        )

    def _container(self, branch: Branch, key: str) -> Build:
        """A module for a level of the paths that is no entry of its own."""
        kind = container_kind(branch)
        children = branch.children
        if kind == "list":
            keys = sorted(children, key=int)
            items = tuple(Item(self._child(children[k], k)) for k in keys)
            return Build("nn.ModuleList", (Item(Build("", items, "[]")),))
        if kind == "dict":
            items = tuple(
                Item(self._child(child, k), prefix=f"{quote(k)}: ") for k, child in children.items()
            )
            return Build("nn.ModuleDict", (Item(Build("", items, "{}")),))
        init = [Statement("super().__init__()", "")]
        for below, child in children.items():
            init += self._assignment(below, child, "self")
        body = Body("nn.Module", (f"Holds what is stored under `{key}`.",), tuple(init))
        return self._fixed(camel(key, "Level"), body)

    def _child(self, branch: Branch, key: str) -> Build:
        if branch.leaf is not None:
            return self._construct(branch.leaf, key)
        return self._container(branch, key)


def _numbered(keys: Iterable[str]) -> Subscripts:
    """The subscripts of modules in a list or chain."""
    return {key: str(number) for number, key in enumerate(keys)}


def _is_stateful(leaf: Leaf | None) -> bool:
    return leaf is None or isinstance(leaf, Stored) or leaf.stateful


def callee_of(made: Build) -> str:
    """The name of the class that is made, as far as it is known yet."""
    callee = made.callee
    if isinstance(callee, Number):
        return str(callee.value)
    return callee if isinstance(callee, str) else callee.wanted


def _owned_names(body: Body) -> frozenset[str]:
    """Names that attributes of a class have already."""
    return _MODULE_OWNS | {statement.label for statement in body.init}


def _stores_nothing(name: str) -> str:
    raise TypeError(f"an operation that stores `{name}` is no plain function")


def _class_name(scope: Scope) -> str:
    if scope.definition is not None:
        return camel(scope.definition[1], "Block")
    parts = scope.path.split(".")
    named = next((i for i in range(len(parts) - 1, -1, -1) if not parts[i].isdigit()), 0)
    return camel("_".join(parts[named:]), "Stage")


def _attribute_name(made: Build) -> str:
    name = callee_of(made).rpartition(".")[2].lower().removeprefix("adaptive")
    return variable(name[:-2] if name.endswith(("1d", "2d", "3d")) else name)


def _owned(item: Item, owner: str) -> Item:
    if isinstance(item.value, Number):
        return replace(item, value=Number(item.value.value, owner))
    return item


def _arguments(scope: Scope) -> dict[str, Constant]:
    """The arguments of a block's call in the form constructors have: numbers, and operations."""
    found: dict[str, Constant] = {}
    for name, value in scope.arguments.items():
        plain = tuple(value) if isinstance(value, (list, tuple)) else value
        items = plain if isinstance(plain, tuple) else (plain,)
        if all(isinstance(item, (bool, int, float)) for item in items):
            found[name] = plain
        operation = getattr(value, "op", None)
        if operation is not None:
            found[name] = Name(f"nn.{operation.name}")
    return found


def _constant(value: Constant, owner: str) -> Value:
    if isinstance(value, (bool, int, float, tuple)):
        return Number(value, owner)
    return "None" if value is None else quote(value)


def _parameter_value(tensor: Weight, init: Init) -> Build:
    """`nn.init.kind_(torch.empty(shape), ...)`, or `torch.zeros(shape)`."""
    if init.kind == "constant":
        ((_, value),) = init.arguments
        if value in _EVEN:
            return _sized(_EVEN[value], tensor.shape)
        items = (Item(_sized("torch.empty", tensor.shape)), Item(_constant(value, "")))
        return Build("nn.init.constant_", items)
    kind = f"{init.kind}_"
    usual = signature(getattr(nn.init, kind)).parameters
    named = tuple(
        Item(_constant(value, ""), name, False, implied=value == usual[name].default)
        for name, value in init.arguments
    )
    return Build(f"nn.init.{kind}", (Item(_sized("torch.empty", tensor.shape)), *named))


def _sized(function: str, shape: tuple[int, ...]) -> Build:
    if not shape:
        return Build(function, (Item("()"),))
    return Build(function, tuple(Item(Number(size), "size") for size in shape))


def _buffer_value(tensor: Buffer) -> Build:
    dtype = Item(f"torch.{tensor.dtype}", "dtype", positional=False)
    if tensor.values is None:
        shape = Item(Number(tensor.shape), "size")
        return Build("torch.full", (shape, Item(Number(tensor.fill), "fill_value"), dtype))
    made = Build("torch.tensor", (Item(Number(tensor.values)), dtype))
    return Build("torch.reshape", (Item(made), Item(Number(tensor.shape), "shape")))
