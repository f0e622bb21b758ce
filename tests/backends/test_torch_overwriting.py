"""What is computed in place: exactly where nobody can tell, in forward and in backward."""

from __future__ import annotations

import pytest

from cnnspec.backends.torch import emit
from cnnspec.frontend.load import expand, load_text


def source(layers: str, more: str = "") -> str:
    return emit(
        expand(
            load_text(
                "cnnspec: 1\nname: net\ninputs: {image: [3, 8, 8]}\n" + more + "layers:\n" + layers
            )
        )
    )


CONV = "  - Conv2d: {out_channels: 3, kernel_size: 1}\n    name: conv\n"


@pytest.mark.parametrize(
    ("before", "overwrites"),
    [
        (CONV, True),
        (CONV + "  - BatchNorm2d\n", True),
        (CONV + "  - add: [conv, image]\n", True),
        ("", False),  # the network's input
        (CONV + "  - Sigmoid\n", False),  # backward reads its result
        (CONV + "  - MaxPool2d: {kernel_size: 1}\n", False),
        (CONV + "  - Permute: {dims: [0, 2, 1, 3]}\n", False),  # a view
        ("  - Linear: {out_features: 8}\n", False),  # the result of several axes is a view
        ("  - Flatten\n  - Linear: {out_features: 8}\n", True),
        ("  - Dropout\n", False),  # at inference the input itself
        (CONV + "  - Dropout\n", True),
    ],
    ids=lambda value: str(value).split(":")[0].strip(" -") if isinstance(value, str) else "",
)
def test_relu_overwrites_what_is_fresh(before: str, overwrites: bool) -> None:
    made = source(before + "  - ReLU:\n    name: relu\n")
    assert ("nn.ReLU(inplace=True)" in made) == overwrites
    assert made.count("nn.ReLU(") == 1


@pytest.mark.parametrize(
    "layers",
    [
        CONV + "  - ReLU:\n    name: relu\n  - add: [relu, conv]\n",
        CONV + "  - ReLU:\n    name: relu\noutputs: [conv, relu]\n",
    ],
    ids=["read twice", "given out"],
)
def test_what_something_else_reads_stays(layers: str) -> None:
    assert "inplace" not in source(layers)


def test_what_asks_for_it_is_in_place_only_where_that_is_safe() -> None:
    """Also an activation whose backward then needs a copy; without being asked, none does."""
    asked = "  - Hardswish: {inplace: true}\n"
    assert "Hardswish(inplace=True)" in source(CONV + asked)
    assert "inplace" not in source(CONV + "  - Hardswish\n")
    assert "inplace" not in source(asked)


@pytest.mark.parametrize(
    ("sum_of", "written"),
    [
        ("[conv, image]", "+= image"),
        ("[image, conv]", "+= image"),
        ("[narrow, conv]", "+= narrow"),
        ("[narrow, image]", "narrow + image"),
        ("[image, image]", "image + image"),
        ("[conv, narrow, image]", "conv + narrow + image"),
    ],
)
def test_sum_is_written_over_a_summand_of_its_own_size(sum_of: str, written: str) -> None:
    narrow = "  - Conv2d: {out_channels: 1, kernel_size: 1}\n    name: narrow\n"
    layers = narrow + CONV.replace("name:", "from: image\n    name:") + f"  - add: {sum_of}\n"
    assert written in source(layers)


def test_product_is_not_as_backward_reads_its_factors() -> None:
    assert "conv * image" in source(CONV + "  - mul: [conv, image]\n")


def test_block_does_not_overwrite_its_argument() -> None:
    block = """blocks:
  act:
    layers:
      - ReLU
      - Conv2d: {out_channels: 1, kernel_size: 1}
"""
    assert "inplace" not in source(CONV + "  - act:\n    name: act\n", block)
    assert "inplace=True" in source(CONV + "  - act:\n    inline: true\n", block)


def test_block_called_twice_is_in_place_in_both_calls() -> None:
    block = """blocks:
  part:
    inputs: [x, skip]
    layers:
      - Conv2d: {out_channels: 3, kernel_size: 1}
        from: x
        name: conv
      - add: [conv, skip]
      - ReLU
"""
    layers = (
        CONV
        + "  - part:\n    from: [conv, image]\n    name: a\n"
        + "  - part:\n    from: [a, image]\n    share: a\n    name: b\n"
    )
    made = source(layers, block)
    assert made.count("+= skip") == 1
    assert made.count("self.a(") == 2
