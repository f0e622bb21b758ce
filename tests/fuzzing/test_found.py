"""What random networks have found, each as the smallest network that showed it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import cnnspec
from cnnspec.diagnostics import SpecError
from tests.fuzzing.careless import Program, Step, disagreement
from tests.fuzzing.comparison import Torch, differences
from tests.fuzzing.exports import export_differences
from tests.fuzzing.fields import field_differences


def network(shape: list[int], *entries: str) -> cnnspec.Network:
    """A chain of entries on one input."""
    layers = "".join(f"  - {entry}\n" for entry in entries)
    text = f"cnnspec: 1\nname: net\ninputs: {{x: {shape}}}\nlayers:\n{layers}"
    return cnnspec.load(text=text)


def refusal(op: str, shape: tuple[int, ...], **arguments: Any) -> str:
    """Why cnnspec refuses the layer, which torch has to refuse as well."""
    program = Program(shape, (Step(op, arguments, (-1,)),))
    assert disagreement(program) is None
    with pytest.raises(SpecError) as caught:
        cnnspec.load(text=program.text())
    return caught.value.diagnostics[0].message


@pytest.mark.parametrize("op", ["AdaptiveAvgPool1d", "AdaptiveMaxPool1d"])
def test_adaptive_pooling_of_sequences_takes_no_null(op: str) -> None:
    """torch does for two and three axes; the generated module failed when it ran."""
    assert "`output_size` must be" in refusal(op, (2, 9), output_size=[None])


@pytest.mark.parametrize("op", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"])
def test_batch_norm_divides_by_more_than_nothing(op: str) -> None:
    """torch refuses an `eps` of 0 as soon as it trains."""
    shape = (4, 3, 3, 3)[: int(op[-2]) + 1]
    assert "`eps` must be more than 0" in refusal(op, shape, eps=0.0)


@pytest.mark.parametrize("statistics", [False, True])
def test_instance_norm_needs_more_than_one_position(statistics: bool) -> None:
    """One value has no variance; torch refuses it in training, without statistics always."""
    refusal("InstanceNorm2d", (4, 1, 1), track_running_stats=statistics)


@pytest.mark.parametrize(
    ("factor", "size"), [(2.3, 21), (2.3, 16), (1.7, 21)], ids=lambda each: str(each)
)
def test_nearest_neighbours_are_those_of_float32(factor: float, size: int) -> None:
    """Position 34 of 48 lies at 34.5 / 2.3, which is 15, in float32 below it: torch reads 14."""
    upsample = f"Upsample: {{scale_factor: {factor}, mode: nearest-exact}}"
    net = network([1, size, 4], upsample)
    assert not list(field_differences(net, net.analyze()))


def test_field_of_a_nearest_neighbour_that_rounds_down() -> None:
    field = (
        network([1, 21, 4], "Upsample: {scale_factor: 2.3, mode: nearest-exact}")
        .analyze()["0"]
        .receptive_field
    )
    assert field is not None
    assert field[0].field.at(34) == (14, 14)


@pytest.mark.parametrize(
    ("mode", "shape"), [("linear", [1, 6]), ("bilinear", [1, 6, 5]), ("trilinear", [1, 4, 3, 2])]
)
def test_interpolation_to_the_same_size_is_a_copy(mode: str, shape: list[int]) -> None:
    """torch copies where no size changes, whatever the factor: each position sees itself."""
    net = network(shape, f"Upsample: {{scale_factor: 1.16, mode: {mode}}}")
    field = net.analyze()["0"].receptive_field
    assert field is not None
    x = torch.rand(1, *shape)
    assert torch.equal(net.to_torch()(x), x)
    assert all((axis.field.size, axis.field.stride) == (1, 1) for axis in field)
    assert not list(export_differences(net, 18))


def test_a_shared_block_that_stores_nothing_runs_as_one_module() -> None:
    """Its first call may be dead; the second is then the module's only one."""
    text = """
cnnspec: 1
name: net
inputs: {x: [4, 8, 9]}
blocks:
  norm:
    inline: true
    layers:
      - BatchNorm2d
      - Softplus
layers:
  - CELU
  - {norm: {}, name: first}
  - {norm: {}, name: second, share: first, from: x}
"""
    net = cnnspec.load(text=text)
    assert not list(differences(net, net.analyze(), Torch()))


@pytest.mark.parametrize("norm", ["LocalResponseNorm: {size: 3}", "PaperLRN"])
def test_response_norm_of_a_permuted_volume(norm: str) -> None:
    """torch takes a view of a volume, and fails on one that was permuted."""
    net = network([6, 4, 5, 3], "Permute: {dims: [0, 1, 2, 4, 3]}", norm)
    assert not list(differences(net, net.analyze(), Torch()))
    assert net.to_torch()(torch.rand(2, 6, 4, 5, 3)).shape == (2, 6, 4, 3, 5)


@pytest.mark.parametrize("argument", ["alpha", "beta"])
@pytest.mark.parametrize("value", [0.0, -0.5])
def test_response_norm_that_onnx_runtime_does_not_load(argument: str, value: float) -> None:
    """Its LRN takes numbers above 0 only; torch takes any."""
    net = network([3, 6, 9], f"LocalResponseNorm: {{size: 3, k: 2, {argument}: {value}}}")
    assert not list(export_differences(net, 18))


@pytest.mark.parametrize(
    ("factor", "mode"), [(1.16, "nearest"), (2.12, "nearest"), (1.16, "bicubic")]
)
def test_broken_factors_that_torch_does_not_follow(factor: float, mode: str) -> None:
    """Where a size stays or doubles torch copies or doubles, by axes and mode."""
    for shape in ([1, 3, 3], [2, 6, 5]):
        net = network(shape, f"Upsample: {{scale_factor: {factor}, mode: {mode}}}")
        assert not list(field_differences(net, net.analyze()))
        assert not list(export_differences(net, 18))
