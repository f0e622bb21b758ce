"""What is measured of a module and of torchvision's. Runs in processes of its own.

`python -m bench.modules construct WHO NETWORK` builds one and says what that took. `operations
NETWORK ...` (without names all that torchvision has) compares what both run below autograd, on the
meta device. `times NETWORK SIZE BATCH ROUNDS` times both in turn, with equal weights. One line of
JSON is printed. Nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from time import perf_counter, process_time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bench.departures import PARTS, Departure, departure
from bench.tools import import_torchvision
from tests import aten

OURS, THEIRS = "cnnspec", "torchvision"
_WARM_UP = 2


def _construct(who: str, network: str) -> dict[str, float]:
    """Seconds from a name to a module with started weights, imports done."""
    if who == OURS:
        import cnnspec

        cnnspec.load("lenet5").to_torch()  # imports what is imported when needed
        began, began_cpu = perf_counter(), process_time()
        cnnspec.load(network).to_torch()
    else:
        models = _models()
        models.get_model("squeezenet1_1", weights=None)
        began, began_cpu = perf_counter(), process_time()
        models.get_model(network, weights=None)
    return {"seconds": perf_counter() - began, "cpu_seconds": process_time() - began_cpu}


def _models() -> Any:
    import_torchvision()
    import torchvision

    warnings.simplefilter("ignore")  # GoogLeNet says how slowly it starts its weights
    return torchvision.models


# ---------------------------------------------------------------------------------- operations


def _operations(network: str) -> dict[str, dict[str, Any]]:
    """What both run, in inference and in the two halves of a step of training, at batch 2."""
    import cnnspec
    from tests.fuzzing.comparison import module_of
    from tests.golden.oracles import model

    net = cnnspec.load(network)
    (value,) = net.graph.inputs.values()
    given = torch.empty(2, *net.graph.tensors[value].shape, device="meta")
    ours = module_of(net.graph)
    theirs = deepcopy(model(network))
    pairs = (
        (aten.of_inference(ours, given), aten.of_inference(theirs, given)),
        *zip(aten.of_training(ours, given), aten.of_training(theirs, given), strict=True),
    )
    return {
        part: _comparison(departure(network, part), mine, other)
        for part, (mine, other) in zip(PARTS, pairs, strict=True)
    }


def _comparison(
    stated: Departure | None, ours: Sequence[str], theirs: Sequence[str]
) -> dict[str, Any]:
    equal = ours == theirs
    return {
        "ours": len(ours),
        "theirs": len(theirs),
        "equal": equal,
        "as_stated": not equal and stated is not None and stated.explains(ours, theirs),
        "reason": stated.reason if stated else "",
        "first": next(aten.differences(ours, theirs), ""),
    }


def _shared() -> list[str]:
    """All networks that torchvision has as well."""
    from tests.golden.oracles import SHARED

    return sorted({network for networks in SHARED.values() for network in networks})


# --------------------------------------------------------------------------------------- times


class Way(NamedTuple):
    """How modules are run."""

    name: str
    threads: int = 1
    device: str = "cpu"
    channels_last: bool = False
    compiled: bool = False
    bf16: bool = False


def ways() -> list[Way]:
    """All that this machine can do."""
    found = [
        Way("eager, 1 thread"),
        Way("eager, 2 threads", 2),
        Way("channels_last, 1 thread", channels_last=True),
        Way("channels_last, 2 threads", 2, channels_last=True),
    ]
    if torch.cuda.is_available():
        found += [
            Way("GPU, eager", device="cuda"),
            Way("GPU, channels_last", device="cuda", channels_last=True),
            Way("GPU, channels_last, bf16", device="cuda", channels_last=True, bf16=True),
            Way("GPU, compiled", device="cuda", compiled=True),
            Way("GPU, compiled, bf16", device="cuda", compiled=True, bf16=True),
        ]
    return found


def _times(network: str, size: int, batch: int, rounds: int) -> dict[str, Any]:
    """Seconds of every round by way, task and side, and how much the outputs differ."""
    import cnnspec
    from tests.torchvision_networks import difference, pixels, reference

    net = cnnspec.load(network, inputs={"image": (3, size, size)})
    modules = {OURS: net.to_torch(), THEIRS: reference(network)}
    modules[OURS].load_state_dict(modules[THEIRS].state_dict(), strict=True)
    given = pixels(batch, 3, size, size)
    with torch.no_grad():
        outputs = [_first(module.eval()(given)) for module in modules.values()]
    seconds: dict[str, dict[str, dict[str, list[float]]]] = {}
    for way in ways():
        torch.set_num_threads(way.threads)
        seconds[way.name] = _interleaved(way, modules, given, rounds)
    return {"difference": difference(*outputs), "seconds": seconds}


def _interleaved(
    way: Way, modules: dict[str, nn.Module], given: Tensor, rounds: int
) -> dict[str, dict[str, list[float]]]:
    memory_format = torch.channels_last if way.channels_last else torch.contiguous_format
    x = given.to(way.device, memory_format=memory_format)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    tasks: dict[str, dict[str, Callable[[], None]]] = {"forward": {}, "training step": {}}
    for side, module in modules.items():
        module.to(way.device, memory_format=memory_format)
        run: Any = torch.compile(module) if way.compiled else module
        tasks["forward"][side] = _forward(module, run, x, way)
        tasks["training step"][side] = _training(module, run, x, way)
    for task, sides in tasks.items():
        for number in range(_WARM_UP + rounds):
            # Each goes first every other time.
            order = list(sides) if number % 2 else list(reversed(sides))
            for side in order:
                began = perf_counter()
                sides[side]()
                if x.is_cuda:
                    torch.cuda.synchronize()
                if number >= _WARM_UP:
                    found[task][side].append(perf_counter() - began)
    return found


def _autocast(way: Way) -> torch.autocast:
    return torch.autocast(way.device, torch.bfloat16, enabled=way.bf16)


def _forward(module: nn.Module, run: Any, x: Tensor, way: Way) -> Callable[[], None]:
    def task() -> None:
        module.eval()
        with torch.no_grad(), _autocast(way):
            run(x)

    return task


def _training(module: nn.Module, run: Any, x: Tensor, way: Way) -> Callable[[], None]:
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6, momentum=0.9)

    def task() -> None:
        module.train()
        with _autocast(way):
            outputs = [each for each in tree_leaves(run(x)) if isinstance(each, Tensor)]
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        optimizer.step()
        optimizer.zero_grad()

    return task


def _first(result: Any) -> Tensor:
    first: Tensor = tree_leaves(result)[0]
    return first


def main(arguments: Sequence[str]) -> int:
    """Run one measurement."""
    what, *rest = arguments
    result: Any
    if what == "construct":
        result = _construct(*rest)
    elif what == "operations":
        result = {network: _operations(network) for network in rest or _shared()}
    else:
        network, *numbers = rest
        result = _times(network, *map(int, numbers))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
