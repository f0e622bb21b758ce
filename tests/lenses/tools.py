"""The tools themselves, asked for a torch module's figures as their documentation says."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, flop_count_table, parameter_count
from thop import clever_format, profile
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchinfo import summary

from tests.golden.oracles import models

__all__ = ["TOOLS", "Figures", "Tool"]

assert models  # torchvision can only be imported so on every machine, and ptflops imports it
get_model_complexity_info = importlib.import_module("ptflops").get_model_complexity_info

Inputs = Mapping[str, torch.Tensor]
Tool = Callable[[nn.Module, Inputs], "Figures"]


@dataclass(frozen=True)
class Figures:
    """What a tool says of a module: its count, its number of parameters, its printed figures."""

    total: int
    params: int
    printed: Mapping[str, str]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what tools print, log and warn of."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def torchvision(module: nn.Module, inputs: Inputs) -> Figures:
    """As its script `get_ops` counts: what torch's own counter finds, halved.

    Attention is computed step by step, as it was when the published figures were made.
    """
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        module(*inputs.values())
    macs, odd = divmod(counter.get_total_flops(), 2)
    assert odd == 0
    params = sum(parameter.numel() for parameter in module.parameters())
    ops = round(macs / 1e9, 3)
    return Figures(
        macs, params, {"_ops": str(ops), "GFLOPS": f"{ops:.2f}", "num_params": str(params)}
    )


def fvcore(module: nn.Module, inputs: Inputs) -> Figures:
    flops = FlopCountAnalysis(module, tuple(inputs.values()))
    total, params = flops.total(), parameter_count(module)[""]
    first = flop_count_table(flops).splitlines()[2]
    _, shown_params, shown = [cell.strip() for cell in first.strip("|").split("|")]
    return Figures(
        total,
        params,
        {
            "FlopCountAnalysis(model, inputs).total()": str(total),
            "flop_count_table: #flops": shown,
            "flop_count_table: #parameters or shape": shown_params,
        },
    )


def timm(module: nn.Module, inputs: Inputs) -> Figures:
    """As timm's benchmark.py rounds what fvcore counts."""
    given = tuple(inputs.values())
    total = FlopCountAnalysis(module, given).total()
    put_out = ActivationCountAnalysis(module, given).total()
    params = sum(parameter.numel() for parameter in module.parameters())
    return Figures(
        total,
        params,
        {
            "gmacs": str(round(total / 1e9, 2)),
            "macts": str(round(put_out / 1e6, 2)),
            "param_count": str(round(params / 1e6, 2)),
        },
    )


def thop(module: nn.Module, inputs: Inputs) -> Figures:
    macs, params = profile(module, tuple(inputs.values()), verbose=False)
    short = clever_format([macs, params], "%.3f")
    return Figures(
        int(macs),
        int(params),
        {
            "macs": str(macs),
            "params": str(params),
            'clever_format([macs, params], "%.3f")': ", ".join(short),
        },
    )


def ptflops(module: nn.Module, inputs: Inputs) -> Figures:
    macs, params = (
        get_model_complexity_info(
            module,
            (1,),
            as_strings=as_strings,
            print_per_layer_stat=False,
            input_constructor=lambda _: (
                dict(inputs) if len(inputs) > 1 else next(iter(inputs.values()))
            ),
        )
        for as_strings in (False, True)
    )
    return Figures(
        int(macs[0]),
        int(macs[1]),
        {"Computational complexity": params[0], "Number of parameters": params[1]},
    )


_SAID = re.compile(r"^([A-Z][A-Za-z/() .-]*?(?: \([A-Za-z.]+\))?): ([\d.,]+)$", re.MULTILINE)


def torchinfo(module: nn.Module, inputs: Inputs) -> Figures:
    found = summary(
        module,
        input_data=list(inputs.values()),
        verbose=0,
        device=next(iter(inputs.values())).device,
    )
    return Figures(found.total_mult_adds, found.total_params, dict(_SAID.findall(str(found))))


def _measured(tool: Tool) -> Tool:
    def measure(module: nn.Module, inputs: Inputs) -> Figures:
        with quiet():
            return tool(module.eval(), inputs)

    return measure


TOOLS: Mapping[str, Tool] = {
    tool.__name__: _measured(tool) for tool in (torchvision, timm, thop, torchinfo, fvcore, ptflops)
}
"""The real tools by the name of their lens."""
