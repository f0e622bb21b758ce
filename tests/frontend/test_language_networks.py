"""The language: several inputs, sharing, training, files, padding, sizes.

Each test is a rule of `docs/language.md`, shown by a small spec.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest

import cnnspec
from cnnspec import EnvironmentFailure, SpecError
from cnnspec.cli.main import main
from cnnspec.report import Report
from cnnspec.weights import Init
from tests.frontend.small_specs import (
    built,
    faults,
    graph,
    keys,
    op,
    outputs,
    readers,
    said,
    shape,
    spec,
)


def report(text: str, *, strict: bool = False) -> Report:
    return cnnspec.load(text=spec(text)).analyze(strict=strict)


def inits(text: str, path: str) -> Mapping[str, Init]:
    return dict(graph(text).by_path[path].init)


# ----------------------------------------------------------------------------------- several inputs

TWO_INPUTS = """
    inputs: {x: [3, 8, 8], y: [1, 8, 8]}
    blocks:
      merge:
        inputs: [a, b]
        params: {out: int = 2}
        layers:
          - concat: [b, a]
            name: both
          - Conv2d: {out_channels: out*a.channels + b.channels, kernel_size: 1}
    layers:
      - merge:
        from: FROM
        name: m
    """


@pytest.mark.parametrize(
    ("source", "order"), [("[x, y]", ("y", "x")), ("{b: x, a: y}", ("x", "y"))]
)
def test_a_call_passes_by_position_or_by_name(source: str, order: tuple[str, str]) -> None:
    text = TWO_INPUTS.replace("FROM", source)
    assert readers(text, "m.both") == order


def test_inputs_are_tensors_of_the_block() -> None:
    assert shape(TWO_INPUTS.replace("FROM", "[x, y]")) == (2 * 3 + 1, 8, 8)


def test_there_is_no_input_and_the_first_entry_says_from() -> None:
    text = TWO_INPUTS.replace("FROM", "[x, y]")
    text = text.replace("concat: [b, a]", "add: [input, a]")
    assert [code for code, _ in faults(text)] == ["unknown-tensor"]
    first = TWO_INPUTS.replace("FROM", "[x, y]").replace("concat: [b, a]", "ReLU:")
    assert [code for code, _ in faults(first)] == ["no-input"]


def test_a_call_passes_all_of_them() -> None:
    assert [code for code, _ in faults(TWO_INPUTS.replace("FROM", "[x]"))] == ["input-count"]
    assert [code for code, _ in faults(TWO_INPUTS.replace("FROM", "{a: x}"))] == ["input-count"]


def test_defaults_see_the_inputs() -> None:
    text = TWO_INPUTS.replace("FROM", "[x, y]").replace("int = 2", "int = 2*b.channels")
    assert shape(text) == (2 * 3 + 1, 8, 8)


# ------------------------------------------------------------------------------------------ sharing

SHARED = """
    inputs: {left: [3, 8, 8], right: [3, 8, 8]}
    blocks:
      encoder:
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 3}
          - BatchNorm2d
    layers:
      - encoder:
        from: left
        name: one
      - encoder:
        from: right
        share: one
        name: other
      - concat: [one, other]
    """


def test_shared_weights_are_counted_and_stored_once() -> None:
    assert {key.split(".")[0] for key in keys(SHARED)} == {"one"}
    found = report(SHARED)
    assert found.totals.params == 4 * 3 * 9 + 4 + 4 + 4
    assert found["one.0"].params == 112
    assert found["other.0"].params == 0
    assert found["other.0"].macs == found["one.0"].macs
    assert list(cnnspec.load(text=spec(SHARED)).to_torch().state_dict()) == list(keys(SHARED))


def test_it_is_the_same_operation_with_the_same_arguments() -> None:
    text = """
        layers:
          - Conv2d: {out_channels: 3, kernel_size: 3, padding: 1}
            name: a
          - Conv2d: {out_channels: 3, kernel_size: 3, padding: 1}
            share: a
        """
    assert list(keys(text)) == ["a.weight", "a.bias"]
    for other in (
        "Conv2d: {out_channels: 3, kernel_size: 3}",
        "BatchNorm2d:",
        "Linear: {out_features: 3}",
    ):
        different = text.replace(
            "Conv2d: {out_channels: 3, kernel_size: 3, padding: 1}\n            share",
            f"{other}\n            share",
        )
        assert len(faults(different)) == 1


def test_a_sequential_a_part_of_one_and_a_loop_may_share() -> None:
    text = """
        layers:
          - Sequential:
              - Conv2d: {out_channels: 3, kernel_size: 1}
              - BatchNorm2d
            name: one
          - Sequential:
              - Conv2d: {out_channels: 3, kernel_size: 1}
              - BatchNorm2d
            share: one
            repeat: 2
          - Conv2d: {out_channels: 3, kernel_size: 1}
            share: one.0
        """
    assert {key.split(".")[0] for key in keys(text)} == {"one"}
    assert list(built(text)) == ["one.0", "one.1", "1.0", "1.1", "2.0", "2.1", "3"]


# --------------------------------------------------------------------------------- training outputs

HEADS = """
    layers:
      - Conv2d: {out_channels: 4, kernel_size: 1}
        name: trunk
      - Conv2d: {out_channels: 2, kernel_size: 1}
        name: aux
      - Conv2d: {out_channels: 5, kernel_size: 1}
        from: trunk
        name: main
    outputs: {logits: main, extra: {from: aux, training: true, weight: 0.3}}
    """


def test_inference_leaves_training_outputs_out() -> None:
    """The state dict keeps them, and both totals are reported."""
    assert {key.split(".")[0] for key in keys(HEADS)} == {"trunk", "aux", "main"}
    found = report(HEADS)
    assert dict(found.outputs) == {"logits": (5, 8, 8)}
    assert dict(found.training_outputs) == {"extra": (2, 8, 8)}
    assert found.totals.params == 16 + 25
    assert found.totals.training.params == 16 + 25 + 10
    assert found["aux"].training_only


def test_a_training_output_has_a_weight() -> None:
    weights = {output.name: (output.training, output.weight) for output in graph(HEADS).outputs}
    assert weights == {"logits": (False, 1.0), "extra": (True, 0.3)}


def test_outputs_may_be_a_list() -> None:
    text = HEADS.replace(
        "{logits: main, extra: {from: aux, training: true, weight: 0.3}}", "[aux, main]"
    )
    assert outputs(text) == {"aux": (2, 8, 8), "main": (5, 8, 8)}


# ------------------------------------------------------------------------------------------- expect


def check(tmp_path: Path, text: str, *options: str) -> int:
    """The exit code of `cnnspec check`."""
    path = tmp_path / "net.yaml"
    path.write_text(spec(text), encoding="utf-8")
    return main(["check", str(path), *options])


def test_expect_is_what_check_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 3}
        expect: {params: 112, macs: 3888, output: [4, 6, 6], receptive_field: 3}
        """
    assert check(tmp_path, text) == 0
    for right, wrong in (("112", "113"), ("3888", "3889"), ("[4, 6", "[4, 5"), ("d: 3", "d: 4")):
        assert check(tmp_path, text.replace(right, wrong)) == 1
    capsys.readouterr()
    assert check(tmp_path, text, "--input", "x=3x9x9") == 0
    assert "skipped" in capsys.readouterr().err


def test_expect_may_be_per_variant(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The spec's own name stands for no variant."""
    text = """
        params: {out: 4}
        layers:
          - Conv2d: {out_channels: out, kernel_size: 1}
        variants: {wide: {out: 8}}
        expect:
          net: {params: 16}
          wide: {params: 32}
        """
    assert check(tmp_path, text) == 0
    assert check(tmp_path, text.replace("32}", "33}")) == 1
    assert "wide" in capsys.readouterr().out


def test_assert_states_what_must_hold() -> None:
    """At the top, where it sees the sizes of the inputs, and in a block."""
    text = """
        inputs: {x: [3, H = 8, 8]}
        blocks:
          b:
            params: {n: int}
            assert: [{that: n > 1, message: "n is {n}"}]
            layers: [ReLU]
        layers:
          - b: {n: 2}
        assert: [{that: H % 4 == 0, message: "H is {H}, no multiple of 4"}]
        """
    assert built(text) == {"0.0": "ReLU"}
    assert faults(text.replace("n: 2", "n: 1"))[0][0] == "assertion-failed"
    assert "n is 1" in said(text.replace("n: 2", "n: 1"))
    assert "H is 6, no multiple of 4" in said(text.replace("H = 8", "H = 6"))


# -------------------------------------------------------------------------- variants, other files

BLOCKS = """\
cnnspec: 1
blocks:
  conv:
    params: {out: int = 4}
    layers:
      - part: {out: out}
  part:
    params: {out: int}
    layers:
      - Conv2d: {out_channels: out, kernel_size: 1}
"""


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
    return folder / "net.yaml"


IMPORTING = spec(
    """
    imports: {lib: ./parts/blocks.yaml}
    blocks:
      conv:
        layers: [ReLU]
    layers:
      - lib.conv: {out: 5}
      - conv
    """
)


def test_imports_have_a_name_of_their_own(tmp_path: Path) -> None:
    """A block of an import sees its own file."""
    path = written(tmp_path, parts__blocks=BLOCKS, net=IMPORTING)
    net = cnnspec.load(path).graph
    assert built(net) == {"0.0.0": "Conv2d", "1.0": "ReLU"}
    assert keys(net)["0.0.0.weight"] == (5, 3, 1, 1)


@pytest.mark.parametrize("value", ["op = lib.conv", "{lib.conv: {out: 5}}"])
def test_an_imported_block_is_an_operation_too(value: str, tmp_path: Path) -> None:
    text = IMPORTING.replace("lib.conv: {out: 5}", "unit")
    text = text.replace("blocks:\n", f"params:\n  unit: {value}\nblocks:\n", 1)
    path = written(tmp_path, parts__blocks=BLOCKS, net=text)
    assert list(built(cnnspec.load(path).graph)) == ["0.0.0", "1.0"]


def test_imports_stay_inside_the_folder_of_the_spec(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    written(tmp_path, blocks=BLOCKS)
    path = written(inner, net=IMPORTING.replace("./parts/blocks.yaml", "../blocks.yaml"))
    with pytest.raises(SpecError) as failure:
        cnnspec.load(path)
    assert "import-outside" in [found.code for found in failure.value.diagnostics]


def test_a_prefix_shadows_no_variable(tmp_path: Path) -> None:
    text = IMPORTING.replace("blocks:\n", "params: {lib: 3}\nblocks:\n", 1)
    path = written(tmp_path, parts__blocks=BLOCKS, net=text)
    with pytest.raises(SpecError) as failure:
        cnnspec.load(path)
    assert "import-shadows" in [found.code for found in failure.value.diagnostics]


VARIANTS = """
    params: {out: 4, act: op = ReLU}
    layers:
      - Conv2d: {out_channels: out, kernel_size: 1}
      - act
    variants:
      wide: {out: 8, act: {LeakyReLU: {negative_slope: 0.1}}}
      W: wide
      plain: net
    """


def test_variants_are_sets_of_params() -> None:
    assert shape(VARIANTS) == (4, 8, 8)
    wide = graph(VARIANTS, variant="wide")
    assert (wide.name, shape(wide), built(wide)["1"]) == ("wide", (8, 8, 8), "LeakyReLU")
    assert shape(graph(VARIANTS, variant="wide", params={"out": 5})) == (5, 8, 8)


def test_an_alias_is_another_name() -> None:
    alias = graph(VARIANTS, variant="W")
    assert (alias.name, shape(alias)) == ("wide", (8, 8, 8))
    for name in ("plain", "net"):
        own = graph(VARIANTS, variant=name)
        assert (own.name, shape(own)) == ("net", (4, 8, 8))


def test_variants_are_chosen_by_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_text(spec(VARIANTS), encoding="utf-8")
    assert cnnspec.load(path).name == "net"
    with pytest.raises(EnvironmentFailure, match="no variant"):
        graph(VARIANTS, variant="wid")


def test_another_version_of_the_language_says_what_to_upgrade() -> None:
    with pytest.raises(SpecError) as failure:
        cnnspec.load(text=spec("layers: [ReLU]").replace("cnnspec: 1", "cnnspec: 2"))
    (found,) = failure.value.diagnostics
    assert found.code == "unknown-version"
    assert "upgrade" in found.help


# -------------------------------------------------------------------- defaults, init, preprocessing


def test_defaults_are_arguments_by_operation() -> None:
    """An entry's own win; a file's defaults are for its blocks."""
    text = """
        defaults: {BatchNorm2d: {eps: 1e-3, momentum: 0.01}, Conv2d: {kernel_size: 1, bias: false}}
        blocks:
          b:
            layers: [BatchNorm2d]
        layers:
          - Conv2d: {out_channels: 4}
          - b
          - BatchNorm2d: {eps: 1e-4}
        """
    assert "0.weight" in keys(text)
    assert "0.bias" not in keys(text)
    assert op(text, "1.0").arguments()["eps"] == 1e-3
    assert op(text, "2").arguments()["eps"] == 1e-4
    assert op(text, "2").arguments()["momentum"] == 0.01


def test_defaults_are_those_of_the_blocks_own_file(tmp_path: Path) -> None:
    text = IMPORTING.replace("imports:", "defaults: {Conv2d: {bias: false}}\nimports:")
    net = cnnspec.load(written(tmp_path, parts__blocks=BLOCKS, net=text)).graph
    assert "0.0.0.bias" in keys(net)


def test_init_is_by_operation_or_on_an_entry() -> None:
    text = """
        init: {Conv2d: {weight: {kaiming_normal: {mode: fan_out}}, bias: 0}}
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 1}
          - Conv2d: {out_channels: 4, kernel_size: 1}
            init: {weight: xavier_normal}
          - BatchNorm2d:
            init: {weight: {constant: {val: 0.5}}}
          - Conv2d: {out_channels: 4, kernel_size: 1, bias: false}
        """
    normal, zero = Init("kaiming_normal", (("mode", "fan_out"),)), Init("constant", (("val", 0),))
    assert inits(text, "0") == {"weight": normal, "bias": zero}
    assert inits(text, "1") == {"weight": Init("xavier_normal"), "bias": zero}
    assert inits(text, "2") == {"weight": Init("constant", (("val", 0.5),))}
    assert inits(text, "3") == {"weight": normal}
    state = cnnspec.load(text=spec(text)).to_torch().state_dict()
    assert (state["0.bias"] == 0).all()
    assert (state["2.weight"] == 0.5).all()


def test_without_init_weights_start_as_torchs_do() -> None:
    assert inits("layers: [{Conv2d: {out_channels: 4, kernel_size: 1}}]", "0") == {}


def test_preprocessing_and_labels_are_kept() -> None:
    text = """
        preprocess: {resize: 32, crop: [28, 24], mean: [0.5, 0.4, 0.3], std: 0.25, colour: bgr}
        labels: [cat, dog, no]
        layers: [ReLU]
        """
    kept = graph(text).metadata
    assert kept["labels"] == ("cat", "dog", "no")
    assert kept["preprocess"] == {
        "resize": 32,
        "crop": (28, 24),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.25,),
        "colour": "bgr",
    }


# ------------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize(
    ("arguments", "height", "width"),
    [
        ("kernel_size: 3", 5, 5),
        ("kernel_size: 3, padding: 1", 7, 7),
        ("kernel_size: 3, padding: [0, 1]", 5, 7),
        ("kernel_size: 3, padding: valid", 5, 5),
        ("kernel_size: 3, padding: same", 7, 7),
        ("kernel_size: 4, padding: same", 7, 7),
        ("kernel_size: 3, padding: [[1, 2], [0, 1]]", 8, 6),
        ("kernel_size: 3, padding: same, dilation: 2", 7, 7),
    ],
)
def test_padding_has_torchs_forms_and_sides(arguments: str, height: int, width: int) -> None:
    text = f"""
        inputs: {{x: [3, 7, 7]}}
        layers:
          - Conv2d: {{out_channels: 4, {arguments}}}
        """
    assert shape(text) == (4, height, width)


@pytest.mark.parametrize("size", range(4, 12))
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (4, 3), (1, 2), (5, 4)])
def test_same_is_the_input_divided_by_the_stride_rounded_up(
    size: int, kernel: int, stride: int
) -> None:
    text = f"""
        inputs: {{x: [3, {size}, {size}]}}
        layers:
          - Conv2d: {{out_channels: 4, kernel_size: {kernel}, stride: {stride}, padding: same}}
        """
    assert shape(text) == (4, -(-size // stride), -(-size // stride))


def test_the_odd_pixel_of_same_comes_after() -> None:
    """As ONNX's SAME_UPPER: with 8 pixels, kernel 3 and stride 2 the first window starts at 0."""
    text = """
        layers:
          - Conv2d: {out_channels: 4, kernel_size: 3, stride: 2, padding: same}
        """
    sided = text.replace("same", "[[0, 1], [0, 1]]")
    found = report(text)["0"].receptive_field
    assert found is not None
    assert [axis.field for axis in found] == [
        axis.field for axis in report(sided)["0"].receptive_field or ()
    ]


# ------------------------------------------------------------------------------------ sizes, strict

UNREAD = """
    inputs: {x: [3, 10, 8]}
    layers:
      - MaxPool2d: {kernel_size: 3, stride: 3}
        name: pool
    """


def test_sizes_that_do_not_fit_are_floored() -> None:
    assert shape(UNREAD) == (3, 3, 2)


def test_a_warning_names_the_rows_that_go_unread() -> None:
    (found,) = report(UNREAD).warnings
    assert found.code == "unread-rows"
    assert "the last of 10 (position 9, counted from 0) is never read" in found.message
    assert "the last 2 of 8 (positions 6 to 7" in found.notes[0].message


def test_padding_that_goes_unread_is_no_matter() -> None:
    """The remainder is in the padding; or no window of the stride would have reached it."""
    text = UNREAD.replace("x: [3, 10, 8]", "x: [3, 9, 9]")
    assert report(text).warnings == ()
    padded = UNREAD.replace("[3, 10, 8]", "[3, 8, 8]").replace(
        "{kernel_size: 3, stride: 3}", "{kernel_size: 3, stride: 2, padding: 1}"
    )
    assert report(padded).warnings == ()
    apart = UNREAD.replace("[3, 10, 8]", "[3, 8, 8]").replace(
        "{kernel_size: 3, stride: 3}", "{kernel_size: 1, stride: 2}"
    )
    assert report(apart).warnings == ()


def test_strict_makes_every_remainder_an_error() -> None:
    padded = UNREAD.replace("[3, 10, 8]", "[3, 8, 8]").replace(
        "{kernel_size: 3, stride: 3}", "{kernel_size: 3, stride: 2, padding: 1}"
    )
    with pytest.raises(SpecError) as failure:
        report(padded, strict=True)
    assert [found.code for found in failure.value.diagnostics] == ["does-not-fit"]
    assert report(UNREAD.replace("[3, 10, 8]", "[3, 9, 9]"), strict=True).warnings == ()


def test_allow_silences_a_named_warning() -> None:
    text = UNREAD.replace("name: pool", "allow: [unread-rows]")
    assert report(text).warnings == ()
    assert [code for code, _ in faults(text.replace("unread-rows", "unread"))] == [
        "unknown-warning"
    ]
