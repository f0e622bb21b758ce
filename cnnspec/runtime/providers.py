"""What may run a model: the CPU, CUDA, TensorRT. Their options as data, and why one cannot be used.

Nothing is run here; sessions ask for what `requested` says and hold it against what they got.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Literal, get_args

import onnxruntime

from cnnspec.diagnostics import EnvironmentFailure, listed

__all__ = [
    "ONNX_NAMES",
    "PROVIDERS",
    "WANTED",
    "Driver",
    "Profile",
    "Provider",
    "Settings",
    "Shape",
    "Wanted",
    "cache_folder",
    "driver",
    "missing_libraries",
    "refusal",
    "requested",
    "several_runtimes",
    "shortcomings",
]

Provider = Literal["cpu", "cuda", "tensorrt"]
Wanted = Literal["auto", "cpu", "cuda", "tensorrt"]
Shape = tuple[int, ...]

PROVIDERS: tuple[Provider, ...] = get_args(Provider)
WANTED: tuple[Wanted, ...] = get_args(Wanted)

ONNX_NAMES: Mapping[Provider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""What ONNX Runtime calls them."""

_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
)
"""Distributions that all bring the same folder, so that the last one installed wins."""

_LIBRARY = re.compile(r"Failed to load (\S+?): ")
_CUDNN = ("libcudnn.so.9", "cudnn64_9.dll")


# ------------------------------------------------------------------------------- what is asked for


@dataclass(frozen=True, slots=True)
class Profile:
    """The sizes of one input that a TensorRT engine is built for: least, usual, largest."""

    least: Shape
    usual: Shape
    most: Shape


@dataclass(frozen=True, slots=True)
class Settings:
    """How a GPU is used.

    `device` is its number. `tf32` lets float32 products be computed with 10 bits of mantissa,
    which is faster and not what an export was verified with. `graph` records the run as a CUDA
    graph. `half` lets TensorRT compute in float16. `cache` is the folder in which TensorRT
    keeps engines (it has to be of one file: engines do not know the weights they were built
    from), `profiles` the sizes of inputs with free ones.
    """

    device: int = 0
    tf32: bool = False
    graph: bool = False
    half: bool = False
    cache: Path | None = None
    profiles: Mapping[str, Profile] | None = None


def requested(provider: Provider, settings: Settings) -> list[tuple[str, dict[str, str]]]:
    """ONNX Runtime's names and options for a provider, in order of preference.

    The CPU is not listed behind a GPU: ONNX Runtime takes it by itself for the nodes that stay.
    """
    match provider:
        case "cpu":
            return [(ONNX_NAMES["cpu"], {})]
        case "cuda":
            return [(ONNX_NAMES["cuda"], _cuda(settings, graph=settings.graph))]
        case "tensorrt":
            # A graph of TensorRT's is of the whole model; its neighbour then needs none.
            return [
                (ONNX_NAMES["tensorrt"], _tensorrt(settings)),
                (ONNX_NAMES["cuda"], _cuda(settings, graph=False)),
            ]


def _cuda(settings: Settings, *, graph: bool) -> dict[str, str]:
    return {
        "device_id": str(settings.device),
        "use_tf32": _flag(settings.tf32),
        "enable_cuda_graph": _flag(graph),
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "arena_extend_strategy": "kSameAsRequested",
    }


def _tensorrt(settings: Settings) -> dict[str, str]:
    options = {
        "device_id": str(settings.device),
        "trt_fp16_enable": _flag(settings.half),
        "trt_cuda_graph_enable": _flag(settings.graph),
    }
    if settings.cache is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(settings.cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(settings.cache),
        }
    for which in ("least", "usual", "most") if settings.profiles else ():
        name = {"least": "min", "usual": "opt", "most": "max"}[which]
        options[f"trt_profile_{name}_shapes"] = ",".join(
            f"{tensor}:{'x'.join(map(str, getattr(profile, which)))}"
            for tensor, profile in (settings.profiles or {}).items()
        )
    return options


def _flag(on: bool) -> str:
    return "1" if on else "0"


def cache_folder(content: str, environment: Mapping[str, str] | None = None) -> Path:
    """Where engines of a file with the SHA-256 `content` are kept, in the user's cache."""
    variables = os.environ if environment is None else environment
    base = variables.get("XDG_CACHE_HOME") or variables.get("LOCALAPPDATA")
    home = Path(base) if base else Path(variables.get("HOME") or Path.home()) / ".cache"
    return home / "cnnspec" / "tensorrt" / content[:32]


# ------------------------------------------------------------------------------ why it does not go


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver: whether there is one, the newest CUDA it supports, and how many GPUs."""

    found: bool
    cuda: tuple[int, int] | None = None
    devices: int = 0


def driver() -> Driver:
    """Ask NVIDIA's driver, which is a library, about itself."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return Driver(False)
    number, count = ctypes.c_int(), ctypes.c_int()
    known = library.cuDriverGetVersion(ctypes.byref(number)) == 0
    works = library.cuInit(0) == 0 and library.cuDeviceGetCount(ctypes.byref(count)) == 0
    cuda = (number.value // 1000, number.value % 1000 // 10) if known else None
    return Driver(True, cuda, count.value if works else 0)


def missing_libraries() -> tuple[str, ...]:
    """Load CUDA's libraries, also those that pip installed, and name the ones that are missing."""
    said = StringIO()
    if hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(said):  # it prints what it misses
            onnxruntime.preload_dlls()
    missing = [Path(name).name for name in _LIBRARY.findall(said.getvalue())]
    name = _CUDNN[sys.platform == "win32"]
    try:
        ctypes.CDLL(name)
    except OSError:
        missing.append(name)
    return tuple(dict.fromkeys(missing))


def shortcomings(
    provider: Provider,
    *,
    available: Sequence[str],
    found: Driver,
    built_for: str | None,
    missing: Sequence[str],
    device: int = 0,
) -> list[str]:
    """Why a provider cannot be used, the first thing to mend first; empty where it should work.

    `available` is what ONNX Runtime was built with, `built_for` the version of CUDA, `missing` are
    libraries.
    """
    if provider == "cpu":
        return []
    if ONNX_NAMES[provider] not in available:
        return ["the installed onnxruntime is built without it"]
    reasons = []
    if not found.found:
        reasons.append("there is no NVIDIA driver")
    elif found.cuda and built_for and found.cuda[0] < _major(built_for):
        reasons.append(
            f"the NVIDIA driver knows CUDA {found.cuda[0]}.{found.cuda[1]} at most, and this "
            f"onnxruntime is built for {built_for}"
        )
    elif found.devices <= device:
        reasons.append(
            f"there is no GPU {device}" if found.devices else "the NVIDIA driver finds no GPU"
        )
    if missing:
        are = "is" if len(missing) == 1 else "are"
        reasons.append(f"{listed(missing)} {are} missing")
    return reasons


def _major(number: str) -> int:
    digits = number.partition(".")[0]
    return int(digits) if digits.isdigit() else 0


def refusal(
    provider: Provider, reasons: Sequence[str], built_for: str | None
) -> EnvironmentFailure:
    """What to tell someone who asked for a provider that cannot be used."""
    name = {"cpu": "the CPU", "cuda": "CUDA", "tensorrt": "TensorRT"}[provider]
    needs = f"CUDA {_major(built_for)} and cuDNN 9" if built_for else "CUDA and cuDNN"
    help = f"onnxruntime-gpu {onnxruntime.__version__} needs {needs}"
    help += "; `pip install onnxruntime-gpu[cuda,cudnn]` brings both but the driver"
    if provider == "tensorrt":
        help += "; TensorRT's own libraries have to be on the library path"
    why = "; ".join(reasons) or "onnxruntime does not say why"
    return EnvironmentFailure(f"{name} cannot be used: {why}", help=help)


def several_runtimes() -> str:
    """A warning where several builds of ONNX Runtime are installed over one another, or nothing."""
    found = [name for name in _WHEELS if _installed(name)]
    if len(found) < 2:
        return ""
    return (
        f"{listed(found)} are installed over one another, and which one runs is chance: "
        "uninstall all, then install one"
    )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
