"""Names and paths: which may be given, what they stand for, and how references find them.

A `Level` holds the tensor names of one scope, a `Naming` gives out paths below it. Both are made
by expansion and gone when it is done.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cnnspec.diagnostics import Reject, did_you_mean

__all__ = ["MODULE_NAMES", "Level", "Naming", "Result", "check_name"]

MODULE_NAMES = frozenset(
    """
    T_destination _apply _backward_hooks _backward_pre_hooks _buffers _call_impl
    _compiled_call_impl _forward_hooks _forward_hooks_always_called _forward_hooks_with_kwargs
    _forward_pre_hooks _forward_pre_hooks_with_kwargs _get_backward_hooks
    _get_backward_pre_hooks _get_name _is_full_backward_hook _load_from_state_dict
    _load_state_dict_post_hooks _load_state_dict_pre_hooks _maybe_warn_non_full_backward_hook
    _modules _named_members _non_persistent_buffers_set _parameters
    _register_load_state_dict_pre_hook _register_state_dict_hook _replicate_for_data_parallel
    _save_to_state_dict _slow_forward _state_dict_hooks _state_dict_pre_hooks _version
    _wrapped_call_impl add_module apply bfloat16 buffers call_super_init children compile cpu
    cuda double dump_patches eval extra_repr float forward get_buffer get_extra_state
    get_parameter get_submodule half ipu load_state_dict modules mtia named_buffers
    named_children named_modules named_parameters parameters register_backward_hook
    register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
    set_submodule share_memory state_dict to to_empty train training type xpu zero_grad
    """.split()
)
"""Attributes of a torch.nn.Module, its private ones included, which no submodule may hide."""

_PART = re.compile(r"[A-Za-z0-9_-]+")


def check_name(name: str) -> None:
    """Raise `Reject` where an entry cannot have `name`: `bad-name` or `reserved-name`."""
    for part in name.split("."):
        if not _PART.fullmatch(part):
            raise Reject(
                "bad-name",
                f"`{name}` cannot name an entry" if name else "the name is empty",
                help="letters, digits, `_` and `-`, in parts joined by dots",
            )
        if part in MODULE_NAMES or part.startswith("__") or keyword.iskeyword(part):
            owner = "a word of Python" if keyword.iskeyword(part) else "taken by torch's modules"
            raise Reject("reserved-name", f"`{part}` is {owner}", help=f"`{part}_` is free")
        if part == "input":
            raise Reject("reserved-name", "`input` is the input of the block", help="rename it")


@dataclass(frozen=True, slots=True)
class Result:
    """What an entry gives: values by output name (None for one that could not be built).

    With a single output its name is empty. `level` holds the names inside a Sequential, `nodes`
    the half-open range of node indices built. A `stand_in` was not built: any output of it is its
    input. `name` is the entry's own, and `hidden` the names inside a block, for messages only.
    """

    values: tuple[tuple[str, int | None], ...]
    level: Level | None = None
    nodes: tuple[int, int] = (0, 0)
    stand_in: bool = False
    name: str = ""
    hidden: Level | None = None

    @property
    def single(self) -> bool:
        """Whether there is one output, for which the entry's own name stands."""
        return len(self.values) == 1

    @property
    def poisoned(self) -> bool:
        """Whether something went wrong, reported already."""
        return any(value is None for _, value in self.values)

    @property
    def references(self) -> str:
        """How the outputs are referred to, for messages."""
        prefix = f"{self.name}." if self.name else ""
        return ", ".join(f"`{prefix}{name}`" for name, _ in self.values)

    def output(self, name: str) -> int | None:
        """The value of one output; KeyError where there is none of that name."""
        if self.stand_in:
            return self.values[0][1]
        return dict(self.values)[name]


class Level:
    """The names of one scope; `parent` is the enclosing one of the same block.

    `outer` is the level of the caller of an inline block, which gets every name too.
    """

    __slots__ = ("_uncertain", "entries", "outer", "parent")

    def __init__(self, parent: Level | None = None, outer: Level | None = None) -> None:
        self.entries: dict[str, Result] = {}
        self.parent = parent
        self.outer = outer
        self._uncertain = False

    @property
    def uncertain(self) -> bool:
        """Whether entries went missing whose names are not known, here or further out."""
        return self._uncertain or (self.parent is not None and self.parent.uncertain)

    def lose(self) -> None:
        """Note that entries went missing whose names are not known."""
        self._uncertain = True
        if self.outer is not None:
            self.outer.lose()

    def define(self, name: str, result: Result) -> None:
        """Give `name` to a result, here and in the caller of an inline block."""
        self.entries[name] = result
        if self.outer is not None:
            self.outer.define(name, result)

    def names(self) -> Iterator[str]:
        """Every name that a reference from here may start with."""
        level: Level | None = self
        while level is not None:
            yield from level.entries
            level = level.parent

    def find(self, reference: str) -> Result | None:
        """What a reference stands for, or None. Inner scopes hide outer ones."""
        level: Level | None = self
        while level is not None:
            found = level._descend(reference.split("."))
            if found is not None:
                return found
            level = level.parent
        return None

    def _descend(self, parts: list[str]) -> Result | None:
        for length in range(len(parts), 0, -1):
            result = self.entries.get(".".join(parts[:length]))
            if result is None:
                continue
            rest = parts[length:]
            if not rest or result.stand_in or result.poisoned:
                return result
            if result.level is not None:
                inner = result.level._descend(rest)
                if inner is not None:
                    return inner
            try:
                return Result((("", result.output(".".join(rest))),), nodes=result.nodes)
            except KeyError:
                return None
        return None

    def explain(self, reference: str) -> tuple[tuple[str, ...], str]:
        """Notes and help for a reference that stands for nothing."""
        head, _, rest = reference.partition(".")
        found = self.find(head)
        if found is None or not rest:
            return (), did_you_mean(reference, _readable(self.names()))
        if found.hidden is not None and found.single:
            known = found.hidden.find(rest) is not None
            return (
                (f"`{head}` is a block, whose insides are its own",),
                f"list `{rest}` under the block's `outputs`" if known else "",
            )
        if found.level is not None:
            inside = ", ".join(f"`{head}.{name}`" for name in list(found.level.entries)[:8])
            return (), f"`{head}` has {inside}"
        if not found.single:
            return (), f"`{head}` has {found.references}"
        return (f"`{head}` is a single tensor",), ""


def _readable(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if not name.isdigit())


class Naming:
    """Gives out the paths below `prefix`: a name where there is one, else the position."""

    __slots__ = ("built", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.built = 0

    def take(self, name: str | None) -> str:
        """The local name of the next entry; every built entry takes one position."""
        local = name if name is not None else str(self.built)
        self.built += 1
        return local

    def path(self, local: str) -> str:
        """The path of a local name."""
        return f"{self.prefix}.{local}" if self.prefix else local
