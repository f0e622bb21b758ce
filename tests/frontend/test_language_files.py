"""The language: what a file says for all of its entries, and loops that have no turn.

Each test is a rule of `docs/language.md`, shown by a small spec.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import cnnspec
from cnnspec.ops.batch_norm import BatchNorm2d
from cnnspec.weights import Init
from tests.frontend.small_specs import built, faults, graph, op, said, spec

SCALED = """
params: {eps: float = 1e-5, spread: float = 0.1, side: int = 8}
inputs: {x: [3, side, side]}
preprocess: {resize: side + 2, crop: side, mean: [0.5, spread, 0.5]}
defaults: {BatchNorm2d: {eps: 10*eps}}
init: {Conv2d: {weight: {normal: {std: spread/2}}}}
blocks:
  unit:
    params: {std: float}
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 1}
      - Conv2d: {out_channels: 4, kernel_size: 1}
        init: {bias: {uniform: {a: -std, b: std}}}
      - BatchNorm2d
layers:
  - unit: {std: 2*spread}
    name: unit
variants:
  wide: {eps: 1e-3, spread: 0.4, side: 16}
"""


@pytest.mark.parametrize(
    ("variant", "eps", "spread", "side"), [(None, 1e-5, 0.1, 8), ("wide", 1e-3, 0.4, 16)]
)
def test_what_a_file_says_for_all_may_use_its_params(
    variant: str | None, eps: float, spread: float, side: int
) -> None:
    net = graph(SCALED, variant=variant)
    norm = op(net, "unit.2")
    assert isinstance(norm, BatchNorm2d)
    assert norm.eps == 10 * eps
    weight = ("weight", Init("normal", (("std", spread / 2),)))
    bias = ("bias", Init("uniform", (("a", -2 * spread), ("b", 2 * spread))))
    assert net.by_path["unit.0"].init == (weight,)
    assert net.by_path["unit.1"].init == (weight, bias)
    preprocess = net.metadata["preprocess"]
    assert preprocess["resize"] == side + 2
    assert preprocess["crop"] == (side, side)
    assert preprocess["mean"] == (0.5, spread, 0.5)


def test_what_a_file_says_for_all_sees_its_params_alone() -> None:
    text = """
        params: {eps: float = 1e-5}
        defaults: {BatchNorm2d: {eps: epz}}
        init: {Conv2d: {weight: {normal: {std: height}}}}
        preprocess: {resize: x.height}
        layers: [BatchNorm2d]
        """
    assert [code for code, _ in faults(text)] == ["unknown-name"] * 3
    assert "did you mean `eps`" in said(text)


def test_a_value_that_does_not_suit_is_reported_where_it_stands() -> None:
    text = """
        params: {spread: float = -1.0}
        init: {Conv2d: {weight: {normal: {std: spread}}}}
        layers: [Conv2d: {out_channels: 4, kernel_size: 1}]
        """
    assert faults(text) == [("argument-value", 3)]


def test_the_params_of_an_imported_file_have_their_defaults(tmp_path: Path) -> None:
    part = """\
        cnnspec: 1
        name: part
        params: {eps: float = 1e-4}
        inputs: {x: [3, 8, 8]}
        defaults: {BatchNorm2d: {eps: eps}}
        blocks: {norm: {layers: [BatchNorm2d]}}
        layers: [norm]
        """
    whole = """\
        cnnspec: 1
        name: whole
        imports: {p: part.yaml}
        params: {eps: float = 1.0}
        inputs: {x: [3, 8, 8]}
        defaults: {BatchNorm2d: {eps: eps}}
        layers: [p.norm, BatchNorm2d]
        """
    for name, text in {"part": part, "whole": whole}.items():
        (tmp_path / f"{name}.yaml").write_text(text.replace("\n        ", "\n").lstrip())
    found = [node.op for node in cnnspec.load(tmp_path / "whole.yaml").graph.nodes]
    assert [norm.eps for norm in found if isinstance(norm, BatchNorm2d)] == [1e-4, 1.0]


def test_a_loop_without_a_turn_needs_no_value_for_its_names() -> None:
    net = graph(
        """
        params: {widths: []}
        layers:
          - ReLU:
            name: first
          - Linear: {out_features: n}
            for: i, n in enumerate(widths)
            name: hidden{i+1}
          - Tanh:
            for: i in range(0)
            from: hidden{i}
            name: never{i}
          - Sigmoid
        """
    )
    assert built(net) == {"first": "ReLU", "1": "Sigmoid"}


def test_a_loop_without_a_turn_still_has_the_name_it_would_have() -> None:
    net = graph(
        """
        layers:
          - Sequential:
              - ReLU:
                for: i in range(0)
                name: inner{s}
              - add: ["inner{s}", input]
            for: s in range(1)
            name: stage{s}
        """
    )
    assert built(net) == {"stage0.0": "add"}


def test_a_block_named_in_a_table_is_used() -> None:
    text = """
        params:
          rows:
            - {block: narrow, n: 4}
            - {block: wide, n: 8}
        blocks:
          narrow: {params: {n: int}, layers: [Conv2d: {out_channels: n, kernel_size: 1}]}
          wide: {params: {n: int}, layers: [Conv2d: {out_channels: n, kernel_size: 3}]}
        layers:
          - r.block: {n: r.n}
            for: r in rows
        """
    assert cnnspec.load(text=spec(text)).warnings == ()


def test_a_param_that_a_variant_uses_is_used() -> None:
    text = """
        params:
          table: [[0], [1, 2]]
          conv: {Conv2d: {out_channels: 2}}
        layers:
          - conv: {kernel_size: 3}
        variants:
          sparse: {conv: {MaskedConv2d: {table: table}}}
        """
    assert cnnspec.load(text=spec(text)).warnings == ()
