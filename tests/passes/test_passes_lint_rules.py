"""The rules of the lint pass on small specs: what they find, what they leave alone."""

from __future__ import annotations

import pytest

from cnnspec import load
from cnnspec.diagnostics import SILENCEABLE, EnvironmentFailure
from cnnspec.passes.lint import RULES, lint_rules

HEAD = "cnnspec: 1\nname: net\ninputs: {x: [3, 16, 16]}\nlayers:\n"


def found(layers: str, *rules: str, head: str = HEAD) -> list[str]:
    """Messages of the rules, in the order of the text."""
    report = load(text=head + layers).analyze(lint=rules)
    return [warning.message for warning in report.warnings]


CONV = "  - Conv2d: {out_channels: 8, kernel_size: 3, padding: 1}\n"
BARE = "  - Conv2d: {out_channels: 8, kernel_size: 3, padding: 1, bias: false}\n"


def test_codes_that_allow_takes_are_the_rules() -> None:
    assert set(SILENCEABLE) == set(RULES)


def test_rules_by_name() -> None:
    assert lint_rules(["odd-channels"]) == {"odd-channels"}
    assert lint_rules(["all"]) == set(RULES)
    with pytest.raises(EnvironmentFailure, match="no lint rule `odd-chanels`") as failure:
        lint_rules(["odd-chanels"])
    assert failure.value.help == "did you mean `odd-channels`?"


def test_a_bias_in_front_of_a_norm() -> None:
    assert found(CONV + "  - BatchNorm2d\n") == [
        "the bias of `0` has no effect: `1` subtracts the mean"
    ]


@pytest.mark.parametrize(
    "layers",
    [
        BARE + "  - BatchNorm2d\n",
        CONV + "  - ReLU\n  - BatchNorm2d\n",
        CONV + "    name: a\n  - BatchNorm2d:\n    name: b\n  - add: [a, b]\n",
        CONV + "    name: a\n  - BatchNorm2d:\n    name: b\noutputs: [a, b]\n",
        CONV + "    allow: [bias-before-norm]\n  - BatchNorm2d\n",
        CONV + "  - GroupNorm: {num_groups: 4}\n",
        "  - Conv2d: {out_channels: 3, kernel_size: 1}\n    name: a\n  - BatchNorm2d\n"
        "  - Conv2d: {out_channels: 3, kernel_size: 1}\n    share: a\n  - ReLU\n",
    ],
    ids=[
        "no bias",
        "not behind",
        "read twice",
        "an output",
        "allowed",
        "of several channels",
        "shared",
    ],
)
def test_a_bias_that_does_something(layers: str) -> None:
    assert found(layers) == []


def test_positions_that_every_step_skips() -> None:
    layers = "  - Conv2d: {out_channels: 8, kernel_size: [1, 2], stride: [2, 3]}\n"
    layers += "    allow: [unread-rows]\n"
    report = load(text=HEAD + layers).analyze(lint=["skipped-positions"])
    (warning,) = report.warnings
    assert warning.message == "of every 2 positions along height only one is read"
    assert [note.message for note in warning.notes] == [
        "of every 3 positions along width only 2 are read"
    ]
    assert found(layers) == []


def test_dilated_taps_that_meet_the_same_positions() -> None:
    dilated = "  - Conv2d: {out_channels: 8, kernel_size: 3, stride: 2, dilation: 2, padding: 2}\n"
    assert found(dilated, "skipped-positions") == [
        "of every 2 positions along height only one is read"
    ]
    odd = "  - Conv2d: {out_channels: 8, kernel_size: 3, stride: 2, dilation: 3, padding: 3}\n"
    assert found(odd, "skipped-positions") == []


POOL = "  - AdaptiveAvgPool2d: {output_size: 1}\n  - Flatten\n  - Linear: {out_features: 9}\n"


def test_a_field_smaller_than_the_input() -> None:
    rule = "field-smaller-than-input"
    assert found(CONV + POOL, rule) == ["a position of `0` sees only 3 of 16 along height of `x`"]
    assert found(CONV, rule) == ["a position of `0` sees only 3 of 16 along height of `x`"]
    wide = "  - Conv2d: {out_channels: 8, kernel_size: 31, padding: 15, allow: 1}\n"
    wide = wide.replace(", allow: 1", "").rstrip() + "\n    allow: [kernel-exceeds-input]\n"
    assert found(wide + POOL, rule) == []


def test_no_field_is_too_small_before_attention() -> None:
    tokens = "  - Flatten: {start_dim: 2}\n  - Permute: {dims: [0, 2, 1]}\n"
    layers = CONV + tokens + "  - MultiheadAttention: {num_heads: 2}\n"
    assert found(layers, "field-smaller-than-input") == []


def test_a_field_that_covers_the_input_too_early() -> None:
    whole = "  - Conv2d: {out_channels: 8, kernel_size: 16}\n"
    small = CONV + "    allow: [kernel-exceeds-input]\n"
    (message,) = found(whole + 3 * small, "field-outgrown")
    assert message == (
        "what `1` reads already sees the whole input, and 3 of 4 layers with larger kernels follow"
    )
    assert found(3 * CONV + whole, "field-outgrown") == []


def test_channels_that_are_no_multiple_of_8() -> None:
    odd = "  - Conv2d: {out_channels: 12, kernel_size: 3}\n  - ReLU\n"
    last = "  - Conv2d: {out_channels: 10, kernel_size: 1}\n"
    assert found(odd + last, "odd-channels") == ["`0` makes 12 channels, no multiple of 8"]
    assert found(odd + POOL, "odd-channels") == ["`0` makes 12 channels, no multiple of 8"]
    assert found(odd) == []


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ("  - BatchNorm2d\n", "it reads the network's input"),
        (BARE + "  - ReLU\n  - BatchNorm2d\n", "`1` is no linear map"),
        (
            BARE + "    name: a\n  - BatchNorm2d:\n    name: b\n  - add: [a, b]\n",
            "2 entries read `a`",
        ),
        (
            BARE + "    name: a\n  - BatchNorm2d:\n    name: b\noutputs: [a, b]\n",
            "`a` is an output of the network",
        ),
    ],
)
def test_a_norm_that_does_not_fold(layers: str, reason: str) -> None:
    (message,) = found(layers, "unfoldable-norm")
    assert message.endswith(f"does not fold into the layer before it: {reason}")


def test_a_norm_that_folds() -> None:
    assert found(BARE + "  - BatchNorm2d\n  - ReLU\n", "unfoldable-norm") == []


def test_what_has_no_int8_form() -> None:
    assert found(BARE + "  - Dropout\n  - Tanh\n", "not-quantizable") == [
        "ONNX Runtime has no int8 form of `Tanh` and runs it in floating point"
    ]


@pytest.mark.parametrize(
    ("layers", "sizes", "refused"),
    [
        ("  - MaxPool2d: {kernel_size: 2, dilation: 2}\n", "3, 17, 17", "`MaxPool` with dilations"),
        ("  - MaxPool1d: {kernel_size: 2, dilation: 2}\n", "3, 17", "`MaxPool` with dilations"),
    ],
)
def test_what_tensorrt_does_not_run(layers: str, sizes: str, refused: str) -> None:
    head = HEAD.replace("3, 16, 16", sizes)
    (message,) = found(layers.rstrip() + "\n    allow: [unread-rows]\n", "not-tensorrt", head=head)
    assert message.startswith("TensorRT 10.1 does not run ")
    assert refused in message


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        ("  - MaxPool1d: {kernel_size: 2}\n", "3, 16"),
        ("  - AvgPool1d: {kernel_size: 2}\n", "3, 16"),
        ("  - Upsample: {scale_factor: 2, mode: bicubic}\n", "3, 8, 8"),
    ],
)
def test_what_tensorrt_takes_whatever_its_matrix_says(layers: str, sizes: str) -> None:
    """`poolingHelper` and `Resize` in onnx-tensorrt 10.1's importers."""
    assert found(layers, "not-tensorrt", head=HEAD.replace("3, 16, 16", sizes)) == []


def test_what_has_an_int8_form_in_part() -> None:
    """`Softmax` and `Unfold` have one; `LogSoftmax` and `Fold`'s transposed convolution do not."""
    layers = "  - Unfold: {kernel_size: 2, stride: 2}\n"
    layers += "  - Fold: {output_size: 16, kernel_size: 2, stride: 2}\n"
    layers += "  - Softmax: {dim: 1}\n  - LogSoftmax: {dim: 1}\n"
    assert found(layers, "not-quantizable") == [
        "ONNX Runtime has no int8 form of `Fold` and runs it in floating point",
        "ONNX Runtime has no int8 form of `LogSoftmax` and runs it in floating point",
    ]


@pytest.mark.parametrize(
    ("norm", "forgets"),
    [
        ("BatchNorm2d: {track_running_stats: false}", True),
        ("InstanceNorm2d", True),
        ("InstanceNorm2d: {track_running_stats: true}", True),
        ("GroupNorm: {num_groups: 4}", True),
        ("GroupNorm: {num_groups: 2}", False),
        ("LayerNorm2d", False),
    ],
)
def test_biases_before_norms_of_each_channel(norm: str, forgets: bool) -> None:
    layers = f"  - Conv2d: {{out_channels: 4, kernel_size: 3}}\n  - {norm}\n"
    assert len(found(layers, "bias-before-norm")) == forgets


def test_odd_channels_are_those_that_another_layer_multiplies() -> None:
    """A head's classes are the task's, behind an upsampling too; features of tokens count."""
    head = "  - Conv2d: {out_channels: 21, kernel_size: 1}\n    name: classes\n"
    assert found(head + "  - Upsample: {scale_factor: 2}\n", "odd-channels") == []
    tokens = HEAD.replace("3, 16, 16", "5, 12")
    layers = "  - Linear: {out_features: 30}\n    name: wide\n  - ReLU\n"
    layers += "  - Linear: {out_features: 10}\n"
    assert found(layers, "odd-channels", head=tokens) == [
        "`wide` makes 30 positions along length, no multiple of 8"
    ]


def test_bundled_classifiers_run_on_tensorrt() -> None:
    for name in ("resnet50", "mobilenet_v3_small", "vgg16"):
        assert load(name).analyze(lint=["not-tensorrt"]).warnings == ()
