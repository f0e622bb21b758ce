"""Networks nobody would draw: each was once built wrongly, or brought expansion down."""

from __future__ import annotations

import pytest

import cnnspec
from cnnspec.frontend.expand import MAX_DEPTH

HEADER = "cnnspec: 1\nname: net\ninputs: {x: [3, 8, 8]}\n"


def codes(body: str) -> list[str]:
    """The codes of what is wrong with a spec."""
    with pytest.raises(cnnspec.SpecError) as caught:
        cnnspec.load(text=HEADER + body)
    return [diagnostic.code for diagnostic in caught.value.diagnostics]


def test_weights_are_not_shared_where_same_padding_differs() -> None:
    body = """
layers:
  - Conv2d: {out_channels: 3, kernel_size: 3, stride: 2, padding: same}
    name: a
  - Conv2d: {out_channels: 3, kernel_size: 2}
    from: x
  - Conv2d: {out_channels: 3, kernel_size: 3, stride: 2, padding: same}
    share: a
"""
    assert codes(body) == ["share-mismatch"]


def test_shared_weights_have_one_initialiser() -> None:
    body = """
layers:
  - Conv2d: {out_channels: 3, kernel_size: 1}
    name: a
  - Conv2d: {out_channels: 3, kernel_size: 1}
    share: a
    init: {weight: 0}
"""
    assert codes(body) == ["control-not-here"]


@pytest.mark.parametrize("inner", ["a.weight", "a.stride"])
def test_nothing_lies_inside_an_operation(inner: str) -> None:
    first = "Conv2d: {out_channels: 3, kernel_size: 1}"
    after = f"layers:\n  - {first}\n    name: a\n  - ReLU:\n    name: {inner}\n"
    before = f"layers:\n  - ReLU:\n    name: {inner}\n  - {first}\n    name: a\n"
    assert codes(after) == ["duplicate-name"]
    assert codes(before) == ["duplicate-name"]


@pytest.mark.parametrize("name", ["_modules", "_parameters", "__init__"])
def test_names_of_torchs_insides_are_reserved(name: str) -> None:
    assert codes(f"layers:\n  - ReLU:\n    name: {name}\n") == ["reserved-name"]


def test_branches_read_one_tensor() -> None:
    body = """
layers:
  - ReLU:
    name: a
  - concat: {p: [], q: [ReLU]}
    from: [x, a]
"""
    assert codes(body) == ["input-count"]


def test_an_output_has_a_batch() -> None:
    body = """
layers:
  - ReLU:
    name: y
  - Parameter: {shape: [3, 8, 8], value: 1}
    name: p
outputs: [y, p]
"""
    assert codes(body) == ["parameter-output"]


def test_a_network_has_an_entry() -> None:
    assert codes("layers:\n  - Sequential: []\n") == ["no-output"]


def test_depth_of_calls_and_groups_together_is_bounded() -> None:
    def block(name: str, call: str) -> str:
        groups = ["  " * level + "      - Sequential:" for level in range(70)]
        return "\n".join([f"  {name}:", "    layers:", *groups, "  " * 70 + f"      - {call}"])

    blocks = "\n".join([block("a", "b:"), block("b", "c:"), block("c", "ReLU")])
    assert MAX_DEPTH < 3 * 70
    assert codes(f"blocks:\n{blocks}\nlayers:\n  - a\n") == ["too-deep"]


def test_an_entry_written_out_no_times_stands_for_its_input() -> None:
    body = """
layers:
  - Conv2d: {out_channels: 4, kernel_size: 1}
  - ReLU:
    from: x
    CONTROL
  - Tanh
"""
    shapes = [
        cnnspec.load(text=HEADER + body.replace("CONTROL", control)).analyze().outputs["output"]
        for control in ("repeat: 0", "when: false")
    ]
    assert shapes == [(3, 8, 8), (3, 8, 8)]


def test_the_order_of_arguments_does_not_matter() -> None:
    body = """
layers:
  - Conv2d: {out_channels: 3, kernel_size: 1}
  - Conv2d: {kernel_size: 1, out_channels: 3}
"""
    first, second = cnnspec.load(text=HEADER + body).graph.nodes
    assert first.op == second.op
    assert hash(first.op) == hash(second.op)
