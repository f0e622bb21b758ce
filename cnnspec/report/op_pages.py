"""The page of every operation, made from its class: what it takes, what its rules say, examples.

Nothing is written here about any one operation, and nothing may be decided by its name: an
operation says everything itself, and its examples are run through its rules for the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass
from functools import cached_property
from inspect import cleandoc, getdoc
from typing import Any

from cnnspec.diagnostics import EnvironmentFailure, did_you_mean, listed, shape_text
from cnnspec.lower import Call, Helper, Module
from cnnspec.op import Example, Op, Pointwise, Site, field_docs, slots_of
from cnnspec.ops import bind, registry
from cnnspec.report.numbers import exact
from cnnspec.tensor import Tensor, default_roles

__all__ = ["OpPage", "op_index", "op_markdown", "op_named", "op_pages"]

_OPSET = 18
_NAMES = "abcdefghij"
"""What the inputs of examples are called."""

_RULES = (
    ("output", "infer"),
    ("stored", "weights"),
    ("operations", "cost"),
    ("connections", "connections"),
    ("looks at", "window"),
)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument: what it takes, in words, its default as a spec writes it, and its meaning."""

    name: str
    takes: str
    required: bool
    default: Any
    meaning: str


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """An example of an operation and what its rules say of it."""

    yaml: str
    """The entry, as it stands in a list of layers; inputs are called `a`, `b`, and so on."""
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    params: int
    macs: int
    flops: int
    note: str


@dataclass(frozen=True)
class OpPage:
    """What there is to know of an operation."""

    op: type[Op]

    @property
    def name(self) -> str:
        """The key in a spec."""
        return self.op.name

    @cached_property
    def _doc(self) -> str:
        return cleandoc(self.op.__doc__ or "")

    @property
    def summary(self) -> str:
        """Its first sentence."""
        return self._doc.split("\n\n", 1)[0].replace("\n", " ")

    @property
    def description(self) -> str:
        """All that it says of itself."""
        return self._doc

    @cached_property
    def arguments(self) -> tuple[Argument, ...]:
        """Its arguments, required ones first."""
        docs = field_docs(self.op)
        return tuple(
            Argument(
                name,
                declared.metadata["slot"].describe(),
                declared.default is MISSING,
                None if declared.default is MISSING else declared.default,
                " ".join(docs[name].split()),
            )
            for name, declared in slots_of(self.op).items()
        )

    @property
    def signature(self) -> str:
        """How a spec writes it with everything it takes: `Conv2d: {out_channels, stride: 1}`."""
        if _is_join(self.op):
            return f"{self.name}: [a, b]"
        given = ", ".join(
            one.name if one.required else f"{one.name}: {_yaml(one.default)}"
            for one in self.arguments
        )
        return f"{self.name}: {{{given}}}" if given else self.name

    @cached_property
    def sites(self) -> tuple[tuple[Op, Site], ...]:
        """The examples as operations, with the tensors that go in and come out."""
        return tuple(map(self._site, self.op.examples))

    def _site(self, example: Example) -> tuple[Op, Site]:
        op = bind(self.op, example.arguments)
        inputs = tuple(
            Tensor(shape, default_roles(len(shape)) or ()) for shape in example.input_shapes
        )
        return op, Site(inputs, op.infer(inputs))

    @cached_property
    def examples(self) -> tuple[WorkedExample, ...]:
        """Its examples with their figures."""
        found = []
        for example, (op, at) in zip(self.op.examples, self.sites, strict=True):
            ops = op.cost(at)
            found.append(
                WorkedExample(
                    _entry(self.op, example),
                    tuple(tensor.shape for tensor in at.inputs),
                    tuple(tensor.shape for tensor in at.outputs),
                    sum(weight.elements for weight in op.weights(at).values()),
                    ops.mac,
                    ops.flops,
                    example.note,
                )
            )
        return tuple(found)

    @cached_property
    def rules(self) -> Mapping[str, str]:
        """What its rules say in words, by what they are about."""
        found = {about: getdoc(getattr(self.op, rule)) or "" for about, rule in _RULES}
        return {about: _sentence(text) for about, text in found.items() if text}

    @cached_property
    def stores(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of what it stores, learned or not, in its first example."""
        op, at = self.sites[0]
        learned = {name: weight.shape for name, weight in op.weights(at).items()}
        other = {name: buffer.shape for name, buffer in op.buffers(at).items()}
        return {name or "(its path)": shape for name, shape in {**learned, **other}.items()}

    @cached_property
    def folds(self) -> str:
        """What inference folds, in words; empty for nothing."""
        op, at = self.sites[0]
        if op.channel_affine(at) is not None:
            return "into a neighbour at inference"
        return "" if op.linear_map(at) is None else "a batch norm behind it folds into it"

    @cached_property
    def torch(self) -> tuple[str, ...]:
        """What its examples become in torch: classes and functions."""
        return tuple(dict.fromkeys(_target(op.torch(at)) for op, at in self.sites))

    @cached_property
    def onnx(self) -> tuple[str, ...]:
        """The ONNX operations that its examples become."""
        nodes = (node.op for op, at in self.sites for node in op.onnx(at, _OPSET))
        return tuple(dict.fromkeys(nodes))

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of the page, format 1."""
        op = self.op
        return {
            "format": 1,
            "name": self.name,
            "group": group_of(self),
            "signature": self.signature,
            "summary": self.summary,
            "description": self.description,
            "arguments": [asdict(one) for one in self.arguments],
            "inputs": {"least": op.arity.least, "most": op.arity.most},
            "rules": dict(self.rules),
            "stores": {name: list(shape) for name, shape in self.stores.items()},
            "saves": list(op.saves),
            "identity_at_inference": op.identity_at_inference,
            "inplace": op.inplace_capable,
            "quantizable": op.quantizable,
            "folds": self.folds,
            "torch": list(self.torch),
            "onnx": list(self.onnx),
            "examples": [asdict(one) for one in self.examples],
        }


def op_pages() -> tuple[OpPage, ...]:
    """The pages of all operations, by name."""
    return tuple(OpPage(op) for op in registry().values())


def op_named(name: str) -> OpPage:
    """The page of an operation, whose letters may be of either case.

    Raises `EnvironmentFailure` where there is none.
    """
    operations = registry()
    folded = [known for known in operations if known.lower() == name.lower()]
    found = name if name in operations else folded[0] if len(folded) == 1 else None
    if found is None:
        help = listed(folded) and f"there are {listed(folded)}"
        raise EnvironmentFailure(
            f"there is no operation `{name}`",
            help=help or did_you_mean(name, operations) or "`cnnspec ops` lists all",
        )
    return OpPage(operations[found])


_GROUPS: Mapping[str, Callable[[OpPage], bool]] = {
    "with units": lambda page: any(op.connections(at) is not None for op, at in page.sites),
    "joins of tensors": lambda page: page.op.arity.most != 1 and page.op.arity.least > 0,
    "left out at inference": lambda page: page.op.identity_at_inference,
    "with something stored": lambda page: bool(page.stores),
    "element by element": lambda page: issubclass(page.op, Pointwise),
    "moving values about": lambda page: not any(op.cost(at).flops for op, at in page.sites),
    "pooling, norms and others that look around": lambda page: True,
}
"""Groups by what the rules say, the first that holds."""


def group_of(page: OpPage) -> str:
    """The group that an operation belongs to."""
    return next(name for name, holds in _GROUPS.items() if holds(page))


def op_index(pages: tuple[OpPage, ...]) -> Mapping[str, tuple[OpPage, ...]]:
    """Pages by group, in the order of the groups."""
    of = {page.name: group_of(page) for page in pages}
    found = {name: tuple(page for page in pages if of[page.name] == name) for name in _GROUPS}
    return {name: members for name, members in found.items() if members}


def op_markdown(page: OpPage) -> str:
    """The page as Markdown."""
    op = page.op
    lines = [f"# {page.name}", "", page.description, "", f"    {page.signature}", ""]
    if page.arguments:
        lines.extend(("## Arguments", "", *map(_argument, page.arguments), ""))
    lines.extend(("## Rules", "", *(f"- {fact}" for fact in _facts(page)), ""))
    lines.extend(("## Becomes", ""))
    lines.append(f"- torch: {', '.join(f'`{name}`' for name in page.torch)}")
    lines.append(f"- ONNX: {', '.join(f'`{name}`' for name in page.onnx) or 'no node'}")
    quantized = "has it" if op.quantizable else "does not have it"
    lines.extend((f"- int8 inference {quantized}", "", "## Examples", ""))
    for example in page.examples:
        lines.extend(("```yaml", example.yaml, "```", "", _figures(example), ""))
    return "\n".join(lines).rstrip() + "\n"


def _argument(one: Argument) -> str:
    given = "required" if one.required else f"default `{_yaml(one.default)}`"
    meaning = f" {one.meaning}" if one.meaning else ""
    return f"- `{one.name}`, {given}: {one.takes}.{meaning}"


def _facts(page: OpPage) -> Iterator[str]:
    op = page.op
    named = ", its results are `x.0`, `x.1`, and so on" if op.outputs_named else ""
    yield f"takes {op.arity.describe()}{named}"
    for about, text in page.rules.items():
        yield f"{about}: {text}"
    if page.stores:
        shapes = (f"`{name}` {shape_text(shape)}" for name, shape in page.stores.items())
        yield f"in the first example it stores {', '.join(shapes)}"
    yield f"backward keeps: {', '.join(op.saves) or 'nothing'}"
    if op.identity_at_inference:
        yield "inference leaves it out"
    if op.inplace_capable:
        yield "inference can put its output in the place of its input"
    if page.folds:
        yield f"folding: {page.folds}"


def _figures(example: WorkedExample) -> str:
    """`a 3x32x32 -> 10x32x32: 760 params, 768,000 MACs, 1,546,240 FLOPs`."""
    shapes = ", ".join(map(shape_text, example.inputs)) or "nothing"
    outputs = ", ".join(map(shape_text, example.outputs))
    figures = (
        f"{exact(getattr(example, figure))} {noun}"
        for figure, noun in (("params", "params"), ("macs", "MACs"), ("flops", "FLOPs"))
        if getattr(example, figure)
    )
    text = ", ".join(figures)
    note = f" ({example.note})" if example.note else ""
    return f"{shapes} -> {outputs}" + (f": {text}" if text else "") + note


def _sentence(text: str) -> str:
    """The first paragraph on one line, without a full stop."""
    return " ".join(text.split("\n\n", 1)[0].split()).rstrip(".")


def _target(code: object) -> str:
    """What a torch lowering is at its heart."""
    match code:
        case Module(target=target):
            return target
        case Helper(name=name):
            return f"a class {name}"
        case Call(function=function):
            return f"Tensor{function}" if function.startswith(".") else function
        case _:
            return "an expression"


def _is_join(op: type[Op]) -> bool:
    """Whether specs write it as a join, `add: [a, b]`: the language writes those in small."""
    return op.name[0].islower()


def _entry(op: type[Op], example: Example) -> str:
    """An example as an entry of a spec."""
    names = list(_NAMES[: len(example.input_shapes)])
    if _is_join(op):
        return f"- {op.name}: [{', '.join(names)}]"
    slots = slots_of(op)
    given = dict(example.arguments)
    for argument, value in example.arguments.items():
        if slots[argument].metadata["slot"].refers and isinstance(value, int):
            given[argument] = names[value]
            names[value] = ""
    body = ", ".join(f"{name}: {_yaml(value)}" for name, value in given.items())
    entry = f"- {op.name}: {{{body}}}" if body else f"- {op.name}:"
    read = [name for name in names if name]
    if len(read) > 1:
        return f"{entry}\n  from: [{', '.join(read)}]"
    if len(example.input_shapes) > 1:
        return f"{entry}\n  from: {read[0]}"
    return entry if body else f"- {op.name}"


def _yaml(value: object) -> str:
    """A plain value as a spec writes it on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case list() | tuple():
            return f"[{', '.join(map(_yaml, value))}]"
        case _:
            return str(value)
