"""Networks as functions of their input's size, against the same networks at those sizes."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import pytest

import cnnspec
from cnnspec.diagnostics import SpecError
from cnnspec.passes.symbolic import Symbols, Takes

BUNDLED = (
    "alexnet c3d convnext deeplabv3 densenet fpn googlenet lenet5 m5 mobilenet_v3 resnet resnet50 "
    "rgbd style unet unet_paper vgg vgg16 vit_b_16"
).split()


@cache
def network(name: str) -> cnnspec.Network:
    return cnnspec.load(name)


@cache
def found(name: str) -> Symbols:
    return network(name).symbolic()


def resized(
    net: cnnspec.Network, sizes: dict[str, int], symbols: Symbols
) -> cnnspec.Network | None:
    """The network at other sizes, as the spec makes it; None where it does not."""
    names = iter(symbols.sizes)
    shapes = {}
    for name, value in net.graph.inputs.items():
        tensor = net.graph.tensors[value]
        given = net.graph.symbols.get(name) or (None,) * tensor.rank
        shape = []
        for size, role, symbol in zip(tensor.shape, tensor.roles, given, strict=True):
            if not role.spatial:
                shape.append(size)
            else:
                shape.append(sizes[symbol if symbol in sizes else next(names)])
        shapes[name] = shape
    try:
        return net.with_inputs(**shapes)
    except SpecError:
        return None


def tried(symbols: Symbols) -> list[dict[str, int]]:
    """Sizes around those at hand, equal and unequal, that take little time."""
    small = {name: max(1, size // 2) for name, size in symbols.sizes.items()}
    odd = {name: size * 3 // 4 + step for step, (name, size) in enumerate(symbols.sizes.items())}
    more = {name: size + 16 for name, size in symbols.sizes.items()}
    return [dict(symbols.sizes), small, odd, more]


@pytest.mark.parametrize("name", BUNDLED)
def test_formulas_are_the_figures_of_other_sizes(name: str) -> None:
    net, symbols = network(name), found(name)
    totals = symbols.totals
    assert totals is not None, symbols.unavailable
    hits = 0
    for sizes in tried(symbols):
        if not symbols.domains["macs"].holds(sizes):
            continue
        other = resized(net, sizes, symbols)
        assert other is not None, f"{sizes} should make a network"
        hits += 1
        report = other.analyze()
        for figure in ("macs", "flops", "params", "activations"):
            if symbols.domains[figure].holds(sizes):
                formula = getattr(totals, figure)
                assert formula.at(**sizes) == getattr(report.totals, figure), f"{figure} at {sizes}"
        for formulas, layer in zip(symbols.layers, report.layers, strict=True):
            shapes = [[size.at(**sizes) for size in shape] for shape in formulas.outputs]
            assert shapes == [list(shape) for shape in layer.output_shapes], layer.path
            assert formulas.macs.at(**sizes) == layer.macs
            assert formulas.activations.at(**sizes) == layer.activations
            if symbols.domains["params"].holds(sizes):
                assert formulas.params.at(**sizes) == layer.params
    assert hits


def state(net: cnnspec.Network) -> dict[str, dict[str, tuple[int, ...]]]:
    graph = net.graph
    return {
        node.path: {n: w.shape for n, w in node.op.weights(graph.site(node)).items()}
        for node in graph.nodes
    }


def edges(takes: Takes) -> list[int]:
    """Sizes at which something changes, and some in between."""
    found = {1, 2, 31, 33, 64}
    for sizes in (takes.same, takes.builds):
        _, _, start = sizes.pattern()
        for edge in (sizes.smallest or 1, start):
            found |= {edge - 1, edge, edge + 1}
    return sorted(size for size in found if 1 <= size <= 260)


@pytest.mark.parametrize(
    "name", ["alexnet", "c3d", "fpn", "lenet5", "m5", "resnet50", "unet", "vgg16", "vit_b_16"]
)
def test_sizes_that_work_are_those_that_build(name: str) -> None:
    net, symbols = network(name), found(name)
    own = state(net)
    for takes in symbols.takes[:2]:
        assert takes.known is None
        for size in edges(takes):
            other = resized(net, {**takes.fixed, **dict.fromkeys(takes.along, size)}, symbols)
            assert (other is not None) == (size in takes.builds), f"{takes.along} = {size}"
            same = other is not None and state(other) == own
            assert same == (size in takes.same), f"weights at {takes.along} = {size}"


ACCEPTS = {
    "alexnet": "H >= 63",
    "lenet5": "H = 32 to 35",
    "resnet50": "any H",
    "unet": "H a multiple of 16",
    "vgg16": "H >= 32",
    "vit_b_16": "H = 224 to 239",
}


@pytest.mark.parametrize("name", ACCEPTS)
def test_sizes_in_words(name: str) -> None:
    square = found(name).takes[0]
    assert square.along == ("H", "W")
    assert square.same.describe("H") == ACCEPTS[name]


def test_lenet_builds_at_larger_sizes_with_other_weights() -> None:
    square = found("lenet5").takes[0]
    assert square.builds.describe("H") == "H >= 32"
    assert square.fixed_by == "f6"
    assert square.refusal is not None
    assert square.refusal.path == "c5"


def test_resnet() -> None:
    macs = found("resnet50").macs
    assert str(macs).startswith("9,408*ceil(H/2)*ceil(W/2) + 245,760*ceil(H/4)*ceil(W/4)")
    assert macs.at(H=224, W=224) == 4_089_184_256
    assert macs.at(H=1, W=1) == 9408 + 245760 + 1310720 + 7471104 + 14417920 + 2048000
    assert macs.limit == (Fraction(81456), ("H", "W"))
    with pytest.raises(TypeError, match="needs W"):
        macs.at(H=224)


SPEC = """
cnnspec: 1
name: net
inputs: {image: [3, H = 32, W = 32]}
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
    name: conv
"""


def symbols_of(text: str) -> Symbols:
    return cnnspec.load(text=text).symbolic()


READS = [
    ("  - Conv2d: {out_channels: H, kernel_size: 1}", "line 8 asks for `H`"),
    ("  - Conv2d: {out_channels: conv.height, kernel_size: 1}", "asks for the height of `conv`"),
    ("  - ReLU:\n    when: input.width > 8", "line 9 asks for the width of `image`"),
    ("  - ReLU:\n    for: i in range(conv.shape[1])", "asks for the shape of `conv`"),
    ("  - ReLU:\n    name: relu{conv.width}", "asks for the width of `conv`"),
    ("  - Flatten\n  - Linear: {out_features: conv.channels*conv.width}", "the width of `conv`"),
]


@pytest.mark.parametrize(("entry", "why"), READS, ids=[why for _, why in READS])
def test_layers_that_depend_on_sizes_have_no_formula(entry: str, why: str) -> None:
    symbols = symbols_of(SPEC + entry + "\n")
    assert symbols.unavailable is not None
    assert why in symbols.unavailable
    assert symbols.totals is None
    assert symbols.takes[0].same.smallest is not None


def test_asking_for_channels_changes_nothing() -> None:
    text = SPEC + "  - Conv2d: {out_channels: conv.channels*2, kernel_size: 1}\n"
    assert str(symbols_of(text).macs) == "140*(H - 2)*(W - 2)"


def test_trying_tells_sizes_where_there_is_no_formula() -> None:
    symbols = symbols_of(SPEC + "  - Conv2d: {out_channels: H, kernel_size: 1}\n")
    (square, height, width) = symbols.takes
    assert square.builds.smallest == 3
    assert square.same.describe("H") == "H = 32"
    assert height.same.describe("H") == "H = 32"
    assert width.same.smallest == 3


ASSERTIONS = [
    ("H % 8 == 0", "H a multiple of 8"),
    ("conv.height % 2 == 0 and input.width > 2", "H a multiple of 2 from 4"),
    ("not H < 12", "H >= 12"),
    ("5 <= H <= 40", "H = 5 to 40"),
    ("(H if W > 9 else 7) // 2 == 16", "H = 32 to 33"),
    ("3 == conv.channels - 1", "H >= 3"),
]


@pytest.mark.parametrize(("that", "sizes"), ASSERTIONS, ids=[that for that, _ in ASSERTIONS])
def test_assertions_about_sizes_are_conditions(that: str, sizes: str) -> None:
    symbols = symbols_of(f"{SPEC}\nassert:\n  - that: {that}\n    message: no\n")
    assert symbols.unavailable is None
    assert symbols.takes[0].same.describe("H") == sizes


def test_an_assertion_beyond_arithmetic_stops_formulas() -> None:
    symbols = symbols_of(f"{SPEC}\nassert:\n  - that: H in [32, 64]\n    message: no\n")
    assert symbols.unavailable is not None
    assert "asserts" in symbols.unavailable
    assert symbols.takes[0].same.describe("H") == "H = 32"


def test_two_inputs_have_names_of_their_own() -> None:
    symbols = symbols_of(
        """
cnnspec: 1
name: net
inputs: {left: [3, 32, 32], right: [3, 16, 16]}
layers:
  - {Conv2d: {out_channels: 4, kernel_size: 2, stride: 2}, from: left, name: smaller}
  - {Conv2d: {out_channels: 4, kernel_size: 1}, from: right, name: other}
  - add: [smaller, other]
"""
    )
    assert list(symbols.sizes) == ["left.H", "left.W", "right.H", "right.W"]
    conditions = [str(guard) for guard in symbols.domains["macs"].further]
    assert conditions == ["floor(left.H/2) - right.H = 0", "floor(left.W/2) - right.W = 0"]


def test_features_have_no_size_to_vary() -> None:
    symbols = symbols_of(
        "cnnspec: 1\nname: net\ninputs: {x: [8]}\nlayers:\n  - Linear: {out_features: 2}\n"
    )
    assert symbols.unavailable == "the network's inputs have no spatial axis"
    with pytest.raises(ValueError, match="no spatial axis"):
        _ = symbols.macs


def test_shared_weights_are_counted_once() -> None:
    symbols = symbols_of(
        SPEC.replace("kernel_size: 3", "kernel_size: 3, padding: 1").replace("[3,", "[4,")
        + "  - Conv2d: {out_channels: 4, kernel_size: 3, padding: 1}\n    share: conv\n"
    )
    assert symbols.totals is not None
    assert symbols.totals.params.at() == 4 * 4 * 9 + 4
    assert str(symbols.macs) == "288*H*W"


def test_where_no_two_sizes_are_alike_runs_end_and_say_so() -> None:
    # float64 rounds this factor, so every size is told by itself.
    symbols = symbols_of(SPEC.replace("= 32", "= 400") + "  - Upsample: {scale_factor: 1.7}\n")
    square = symbols.takes[0]
    assert square.known == 300
    assert 400 in square.same
    assert square.smallest == 3


def test_resizing_by_a_whole_factor_is_a_formula() -> None:
    symbols = symbols_of(SPEC + "  - Upsample: {scale_factor: 2, mode: bilinear}\n")
    assert [str(size) for size in symbols.outputs["output"]] == ["4", "2*(H - 2)", "2*(W - 2)"]
    assert symbols.takes[0].same.describe("H") == "H >= 3"


def test_parts_that_other_sizes_do_not_have() -> None:
    """Chunk gives four parts at 12 and fewer at others: only those that are read must be there."""
    text = "cnnspec: 1\nname: net\ninputs: {x: [4, L = 12]}\nlayers:\n"
    text += "  - Chunk: {chunks: 4, dim: 2}\n    name: c\n  - concat: [c.0, c.1]\n"
    net = cnnspec.load(text=text)
    (found,) = net.symbolic().takes
    assert found.refusal == ("c", "there is no `c.1`")
    assert found.known is not None
    for size in range(1, 30):
        if size == 1:
            with pytest.raises(SpecError, match=r"no tensor `c\.1`"):
                net.with_inputs(x=(4, size))
        else:
            net.with_inputs(x=(4, size))
        assert (size in found.builds) == (size > 1)
