"""Operations on inputs of the usual roles: where they stand, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from cnnspec.diagnostics import Reject
from cnnspec.op import Op, Site
from cnnspec.ops import bind, registry
from cnnspec.tensor import Tensor, default_roles


def usual(*shape: int) -> Tensor:
    """A tensor of the usual roles."""
    roles = default_roles(len(shape))
    assert roles is not None
    return Tensor(shape, roles)


def at(name: str, shape: tuple[int, ...], **arguments: Any) -> tuple[Op, Site]:
    """An op on one input."""
    op = bind(registry()[name], arguments)
    inputs = (usual(*shape),)
    return op, Site(inputs, op.infer(inputs))


def refusal(
    name: str, arguments: dict[str, Any], *shapes: tuple[int, ...]
) -> tuple[str, str, str | int | None]:
    """How an op refuses its arguments or inputs: code, message, and what is to blame."""
    inputs = tuple(usual(*shape) for shape in shapes)
    with pytest.raises(Reject) as raised:
        bind(registry()[name], arguments).infer(inputs)
    return raised.value.code, raised.value.message, raised.value.at
