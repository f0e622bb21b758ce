"""What a module is made of: started once, found by tools, pickled with its source, forgotten."""

from __future__ import annotations

import copy
import gc
import inspect
import linecache
import pickle
import subprocess
import sys
import traceback
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import cnnspec
from cnnspec.backends.torch.execution import execute
from tests.cli.process import ROOT, environment

TEXT = """\
cnnspec: 1
name: net
params: {width: int = 4}
inputs: {image: [3, 8, 8]}
blocks:
  unit:
    params: {width: int}
    layers:
      - Conv2d: {out_channels: width, kernel_size: 3, padding: 1}
        name: conv
      - BatchNorm2d:
        name: bn
layers:
  - unit: {width: width}
    name: a
  - unit: {width: width}
    name: b
  - add: [a, b]
"""


def load(width: int = 4) -> cnnspec.Network:
    return cnnspec.load(text=TEXT, params={"width": width})


def registered() -> set[str]:
    return {name for name in sys.modules if name.startswith("cnnspec_network_")}


# ---------------------------------------------------------------------------------------- starting


def test_the_last_norm_of_a_block_starts_at_zero() -> None:
    text = TEXT.replace("        name: bn\n", "        name: bn\n        init: {weight: 0}\n")
    state = cnnspec.load(text=text).to_torch().state_dict()
    assert torch.equal(state["a.bn.weight"], torch.zeros(4))
    assert torch.equal(state["a.bn.running_var"], torch.ones(4))


def test_memory_is_taken_once_and_nothing_else_is_random() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    module = load().to_torch()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(tensor.device.type == "cpu" for tensor in module.state_dict().values())
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_the_caller_has_set_for_itself() -> None:
    expected = load().to_torch().state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            module = load().to_torch()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(t, expected[key]) for key, t in module.state_dict().items())
    module(torch.zeros(2, 3, 8, 8)).sum().backward()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types_are_those_values_rounded(dtype: str) -> None:
    single = load().to_torch(seed=2).state_dict()
    other = load().build(seed=2, dtype=dtype).module.state_dict()
    for key, tensor in other.items():
        assert torch.equal(tensor, single[key].to(tensor.dtype)), key
        counts = key.endswith("num_batches_tracked")
        assert str(tensor.dtype) == ("torch.int64" if counts else f"torch.{dtype}")


# ----------------------------------------------------------------------------- found, and forgotten


def test_tools_find_the_source() -> None:
    net = load(5)
    module = net.to_torch()
    cls = type(module)
    assert inspect.getsource(sys.modules[cls.__module__]) == net.source()
    assert inspect.getsource(cls) in net.source()
    assert inspect.getsource(type(module.get_submodule("a"))) in net.source()
    assert typing.get_type_hints(cls.forward)["return"] is torch.Tensor
    with pytest.raises(RuntimeError) as raised:
        module(torch.zeros(1))
    linecache.checkcache()
    shown = "".join(traceback.format_tb(raised.value.__traceback__))
    assert "<cnnspec net" in shown
    assert "self.a(image)" in shown


def test_sweeps_leave_nothing_behind() -> None:
    kept = load(6).to_torch()
    names = registered()
    for width in range(10, 60):
        load(width).to_torch()
    gc.collect()
    load(60).to_torch()
    assert len(registered() - names) <= 10
    files = [name for name in linecache.cache if str(name).startswith("<cnnspec ")]
    assert len(files) == len(registered())
    assert type(kept).__module__ in sys.modules
    assert "class Net" in inspect.getsource(type(kept))


def test_equal_sources_are_one_class() -> None:
    assert type(load().to_torch()) is type(load().to_torch(seed=5))


def test_source_that_fails_is_not_kept() -> None:
    before = registered()
    with pytest.raises(ZeroDivisionError):
        execute("1 / 0", "net")
    assert registered() == before


def test_many_threads() -> None:
    networks = [load(width) for width in (3, 4, 5, 6)] * 4
    with ThreadPoolExecutor(8) as pool:
        modules = list(pool.map(lambda network: network.to_torch(), networks))
    for network, module in zip(networks, modules, strict=True):
        wanted = network.to_torch().state_dict()
        assert all(torch.equal(t, wanted[key]) for key, t in module.state_dict().items())


# ---------------------------------------------------------------------------------------- pickling


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    image = torch.rand(2, 3, 8, 8)
    return (
        list(first) == list(second)
        and all(torch.equal(first[key], second[key]) for key in first)
        and torch.equal(one.eval()(image), other.eval()(image))
    )


def test_copies() -> None:
    module = load().to_torch().eval()
    deep = copy.deepcopy(module)
    assert type(deep) is type(module)
    assert not deep.training
    assert equal(deep, module)
    next(deep.parameters()).data.zero_()
    assert not equal(deep, module)
    assert equal(pickle.loads(pickle.dumps(module)), module)


READER = """\
import sys, torch
module = torch.load(sys.argv[1], weights_only=False)
sys.stdout.write(repr(module(torch.ones(1, 3, 8, 8)).double().sum().item()))
import inspect
assert "class Net" in inspect.getsource(type(module))
"""


def test_a_saved_module_is_read_elsewhere(tmp_path: Path) -> None:
    module = load().to_torch().eval()
    path = tmp_path / "whole.pt"
    torch.save(module, path)
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = module(torch.ones(1, 3, 8, 8)).double().sum().item()
    assert float(done.stdout) == pytest.approx(expected, rel=1e-6)


def test_a_pickle_outlives_its_source() -> None:
    data = pickle.dumps(load(7).to_torch(seed=1))
    for width in range(70, 85):
        load(width).to_torch()
    gc.collect()
    load(90).to_torch()
    again = pickle.loads(data)
    assert equal(again, load(7).to_torch(seed=1))


def test_a_class_that_is_derived_is_pickled_as_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load().to_torch()
    derived = type("Derived", (type(module),), {"__module__": __name__})
    monkeypatch.setattr(sys.modules[__name__], "Derived", derived, raising=False)
    mine = derived()
    again = pickle.loads(pickle.dumps(mine))
    assert type(again) is derived
    assert equal(again, mine)
    assert type(copy.deepcopy(mine)) is derived


# --------------------------------------------------------------------------------------- arguments


def test_what_is_no_weights_is_told_apart() -> None:
    module = load().to_torch()
    with pytest.raises(TypeError, match=r"not Net: pass its `state_dict\(\)`"):
        load().to_torch(module)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a file or a state dict, not list"):
        load().to_torch([module])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`a.conv.bias` of the weights is no tensor, but float"):
        load().to_torch({"a.conv.bias": 1.0})  # type: ignore[dict-item]


def test_a_seed_is_a_whole_number() -> None:
    state = load().to_torch(seed=np.int64(3)).state_dict()  # type: ignore[arg-type]
    assert torch.equal(state["a.conv.bias"], load().to_torch(seed=3).state_dict()["a.conv.bias"])
    for odd in (1.5, "1", None):
        with pytest.raises(TypeError):
            load().to_torch(seed=odd)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            load().build(seed=odd)  # type: ignore[arg-type]


def test_a_type_of_torch_is_named_in_words() -> None:
    with pytest.raises(cnnspec.EnvironmentFailure) as failure:
        load().build(dtype=torch.float16)  # type: ignore[arg-type]
    assert failure.value.help == "did you mean `float16`?"
